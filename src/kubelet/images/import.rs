//! Brings images onto the node without a registry: the built-in pause image, and what lies in `agent/images`.
//!
//! Archives (OCI or docker layout, plain or compressed) are handed to containerd; lists (`*.txt`, one image a line)
//! are pulled. Files are looked at when the node starts and whenever one is written or moved there. What has been
//! imported is remembered by content, so that a restart costs nothing as long as the images are still there.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::archive::canonical_name;
use super::pause;
use crate::cri::{CriError, Runtime, v1};
use crate::host::processes::{Command, ProcessError, Processes, run};

mod record;
pub mod watch;

use record::{Record, Remembered};

/// The namespace in which the CRI plugin of containerd keeps its images.
const NAMESPACE: &str = "k8s.io";
/// A large archive on a slow disk.
const IMPORT_LIMIT: Duration = Duration::from_secs(30 * 60);
const COMMAND_LIMIT: Duration = Duration::from_secs(60);
/// How long the CRI plugin may take to notice what was imported beside it.
const NOTICE_LIMIT: Duration = Duration::from_secs(10);
const NOTICE_INTERVAL: Duration = Duration::from_millis(10);
/// Endings of archives; containerd finds out about compression by itself.
const ARCHIVE_ENDINGS: &[&str] = &[".tar", ".tar.gz", ".tgz", ".tar.zst", ".tzst"];
/// Keeps an image from being collected, by us and by the runtime.
const PINNED: &str = "io.cri-containerd.pinned=pinned";

/// Where to import from and to.
#[derive(Debug, Clone)]
pub struct ImportConfig {
    /// Directory with archives and lists; made when it is missing.
    pub images_dir: PathBuf,
    /// File that remembers what has been imported.
    pub record: PathBuf,
    /// containerd's socket, as a path.
    pub containerd_socket: PathBuf,
    /// The snapshotter into which images are unpacked.
    pub snapshotter: String,
}

/// A file, or the pause image, that could not be imported.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The directory or a file in it cannot be read.
    #[error("read {}", path.display())]
    Read {
        /// The file or directory.
        path: PathBuf,
        /// The operating system's reason.
        #[source]
        source: io::Error,
    },
    /// containerd did not take the archive.
    #[error("import {name}")]
    Import {
        /// Name of the file or image.
        name: String,
        /// What the import program said.
        #[source]
        source: ProcessError,
    },
    /// An image of a list could not be pulled.
    #[error("pull {image}, which {} names", list.display())]
    Pull {
        /// The image.
        image: String,
        /// The list.
        list: PathBuf,
        /// The runtime's reason.
        #[source]
        source: CriError,
    },
    /// The runtime does not show an image that was imported.
    #[error("the container runtime does not show {image} after its import")]
    NotShown {
        /// The image.
        image: String,
    },
    /// The runtime could not be asked.
    #[error("list images")]
    Runtime(#[source] CriError),
}

/// What came of looking through the directory once.
#[derive(Debug, Default)]
pub struct Report {
    /// Images that were brought onto the node.
    pub imported: Vec<String>,
    /// Files that had been imported before.
    pub unchanged: usize,
    /// Files that failed.
    pub failed: Vec<ImportError>,
}

/// Imports images into one containerd.
#[derive(Clone)]
pub struct Importer {
    config: ImportConfig,
    processes: Arc<dyn Processes>,
    runtime: Arc<dyn Runtime>,
}

impl Importer {
    /// An importer that does nothing yet.
    pub fn new(config: ImportConfig, processes: Arc<dyn Processes>, runtime: Arc<dyn Runtime>) -> Self {
        Self { config, processes, runtime }
    }

    /// Makes sure that the pause image is there. Returns when the runtime shows it.
    pub async fn ensure_pause(&self) -> Result<(), ImportError> {
        if self.present(pause::IMAGE).await? {
            return Ok(());
        }
        let name = || pause::IMAGE.to_owned();
        let archive = pause::archive().map_err(|source| ImportError::Read { path: name().into(), source })?;
        self.import("-", archive).await.map_err(|source| ImportError::Import { name: name(), source })?;
        self.pin(pause::IMAGE).await;
        self.wait_shown(pause::IMAGE).await?;
        info!(image = pause::IMAGE, "pause image imported");
        Ok(())
    }

    /// Imports what is in the directory now, then whatever appears there, until told to stop.
    pub async fn run(self, stop: CancellationToken) {
        let mut changes = match watch::Changes::of(&self.config.images_dir) {
            Ok(changes) => changes,
            Err(source) => {
                let error = ImportError::Read { path: self.config.images_dir.clone(), source };
                warn!(error = %chain(&error), "image archives are not watched");
                return;
            }
        };
        loop {
            self.scan().await;
            tokio::select! {
                () = stop.cancelled() => return,
                change = changes.next() => if let Err(error) = change {
                    warn!(%error, "image archives are no longer watched");
                    return;
                },
            }
        }
    }

    /// Looks through the directory once; failures are logged and reported, and do not keep others from being imported.
    pub async fn scan(&self) -> Report {
        let mut report = Report::default();
        let files = match candidates(&self.config.images_dir) {
            Ok(files) if files.is_empty() => return report,
            Ok(files) => files,
            Err(source) => {
                let path = self.config.images_dir.clone();
                report.failed.push(ImportError::Read { path, source });
                return report;
            }
        };
        let mut record = Record::load(&self.config.record);
        record.retain(&files);
        let present = match self.runtime.list_images(None).await {
            Ok(images) => images.into_iter().flat_map(|image| image.repo_tags).collect::<BTreeSet<_>>(),
            Err(error) => {
                report.failed.push(ImportError::Runtime(error));
                return report;
            }
        };
        for file in files {
            self.consider(&file, &mut record, &present, &mut report).await;
        }
        if let Err(error) = record.save(&self.config.record) {
            warn!(%error, file = %self.config.record.display(), "imported images are not remembered");
        }
        report
    }

    async fn consider(
        &self,
        file: &Path,
        record: &mut Record,
        present: &BTreeSet<String>,
        report: &mut Report,
    ) {
        let state = match Remembered::of(file, record).await {
            Ok(state) => state,
            Err(source) => return report.failed.push(ImportError::Read { path: file.to_owned(), source }),
        };
        if state.imported() && state.images.iter().all(|image| present.contains(image)) {
            report.unchanged += 1;
            return record.set(file, state);
        }
        debug!(file = %file.display(), "importing images");
        match self.take(file).await {
            Ok(images) => {
                info!(file = %file.display(), ?images, "images imported");
                report.imported.extend(images.iter().cloned());
                record.set(file, state.with(images));
            }
            Err(error) => {
                warn!(file = %file.display(), error = %chain(&error), "images not imported");
                report.failed.push(error);
            }
        }
    }

    async fn take(&self, file: &Path) -> Result<Vec<String>, ImportError> {
        if file.extension().is_some_and(|ending| ending == "txt") {
            return self.pull_list(file).await;
        }
        let name = file.display().to_string();
        let images =
            self.import(&name, Vec::new()).await.map_err(|source| ImportError::Import { name, source })?;
        for image in &images {
            self.wait_shown(image).await?;
        }
        Ok(images)
    }

    async fn pull_list(&self, list: &Path) -> Result<Vec<String>, ImportError> {
        let text = tokio::fs::read_to_string(list)
            .await
            .map_err(|source| ImportError::Read { path: list.to_owned(), source })?;
        let mut images = Vec::new();
        for image in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let image = canonical_name(image);
            let spec = v1::ImageSpec { image: image.clone(), ..Default::default() };
            let request = v1::PullImageRequest { image: Some(spec), ..Default::default() };
            self.runtime.pull_image(request).await.map_err(|source| ImportError::Pull {
                image: image.clone(),
                list: list.to_owned(),
                source,
            })?;
            images.push(image);
        }
        Ok(images)
    }

    fn ctr(&self, words: &[&str]) -> Command {
        let socket = self.config.containerd_socket.display().to_string();
        let all = ["--address", &socket, "--namespace", NAMESPACE].into_iter().chain(words.iter().copied());
        Command::new("ctr", all.map(str::to_owned).collect::<Vec<_>>())
    }

    /// Hands an archive to containerd; the names of the images in it.
    async fn import(&self, file: &str, stdin: Vec<u8>) -> Result<Vec<String>, ProcessError> {
        let words = ["images", "import", "--snapshotter", &self.config.snapshotter, file];
        let output = run(self.processes.as_ref(), self.ctr(&words).stdin(stdin), IMPORT_LIMIT).await?;
        Ok(unpacked(&String::from_utf8_lossy(&output.stdout)))
    }

    /// An older containerd does not know pinned images; the kubelet then keeps the image by its name.
    async fn pin(&self, image: &str) {
        let words = ["images", "label", image, PINNED];
        if let Err(error) = run(self.processes.as_ref(), self.ctr(&words), COMMAND_LIMIT).await {
            debug!(%error, image, "image not pinned");
        }
    }

    async fn present(&self, image: &str) -> Result<bool, ImportError> {
        let spec = v1::ImageSpec { image: image.to_owned(), ..Default::default() };
        self.runtime.image_status(spec).await.map(|found| found.is_some()).map_err(ImportError::Runtime)
    }

    /// The CRI plugin hears of images by events, a moment after the import has ended.
    async fn wait_shown(&self, image: &str) -> Result<(), ImportError> {
        let shown = async {
            while !self.present(image).await? {
                tokio::time::sleep(NOTICE_INTERVAL).await;
            }
            Ok(())
        };
        let late = |_elapsed| ImportError::NotShown { image: image.to_owned() };
        tokio::time::timeout(NOTICE_LIMIT, shown).await.map_err(late)?
    }
}

/// The files of a directory that are archives or lists, by name.
fn candidates(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match std::fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let mut files: Vec<_> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.is_file() && wanted(&path.file_name().unwrap_or_default().to_string_lossy()))
        .collect();
    files.sort();
    Ok(files)
}

fn wanted(name: &str) -> bool {
    !name.starts_with('.') && ARCHIVE_ENDINGS.iter().chain(&[".txt"]).any(|ending| name.ends_with(ending))
}

/// Names of the images that came from archives, by the record of an importer.
pub fn imported(record: &std::path::Path) -> Vec<String> {
    Record::load(record).images()
}

/// The images that `ctr images import` says it has unpacked, or saved where it does not unpack.
fn unpacked(output: &str) -> Vec<String> {
    let name = |line: &str| {
        let words = line.trim().strip_prefix("unpacking ").or_else(|| line.trim().strip_suffix("saved"))?;
        words.split_whitespace().next().map(str::to_owned)
    };
    let mut images: Vec<_> = output.lines().filter_map(name).collect();
    images.sort();
    images.dedup();
    images
}

/// An error with all its causes in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests;
