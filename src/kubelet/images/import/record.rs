//! What has been imported, by the content of the file it came from.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use aws_lc_rs::digest::{Context, SHA256};
use serde::{Deserialize, Serialize};
use tokio::io::AsyncReadExt;

use crate::kubelet::images::archive::hex;

/// A file and what came out of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Remembered {
    size: u64,
    /// Nanoseconds since 1970, as the file system has it.
    modified: u128,
    sha256: String,
    /// The images; empty as long as the file has not been imported.
    pub(super) images: Vec<String>,
}

impl Remembered {
    pub(super) fn imported(&self) -> bool {
        !self.images.is_empty()
    }

    /// The same file, with what came out of it.
    pub(super) fn with(self, images: Vec<String>) -> Self {
        Self { images, ..self }
    }

    /// What is known about a file. Its content is read only if size or time have changed since it was.
    pub(super) async fn of(file: &Path, record: &Record) -> io::Result<Self> {
        let metadata = tokio::fs::metadata(file).await?;
        let modified = metadata.modified()?.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos());
        let known = record.files.get(file);
        if let Some(known) = known.filter(|known| (known.size, known.modified) == (metadata.len(), modified))
        {
            return Ok(known.clone());
        }
        let sha256 = digest(file).await?;
        let images =
            record.files.values().find(|other| other.sha256 == sha256).map(|other| other.images.clone());
        Ok(Self { size: metadata.len(), modified, sha256, images: images.unwrap_or_default() })
    }
}

async fn digest(file: &Path) -> io::Result<String> {
    let mut file = tokio::fs::File::open(file).await?;
    let mut context = Context::new(&SHA256);
    let mut buffer = vec![0; 256 << 10];
    loop {
        let count = file.read(&mut buffer).await?;
        if count == 0 {
            return Ok(hex(context.finish().as_ref()));
        }
        context.update(&buffer[..count]);
    }
}

/// All files that were imported.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    files: BTreeMap<PathBuf, Remembered>,
}

impl Record {
    /// A record that is missing or damaged is an empty one: everything is imported again, which does no harm.
    pub(super) fn load(path: &Path) -> Self {
        let text = std::fs::read(path).unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or_default()
    }

    pub(super) fn save(&self, path: &Path) -> io::Result<()> {
        let temporary = path.with_extension("new");
        if let Some(directory) = path.parent() {
            std::fs::create_dir_all(directory)?;
        }
        std::fs::write(&temporary, serde_json::to_vec_pretty(self)?)?;
        std::fs::rename(temporary, path)
    }

    /// Everything that came out of the files.
    pub(super) fn images(self) -> Vec<String> {
        self.files.into_values().flat_map(|file| file.images).collect()
    }

    /// Forgets files that are gone.
    pub(super) fn retain(&mut self, files: &[PathBuf]) {
        self.files.retain(|file, _| files.contains(file));
    }

    pub(super) fn set(&mut self, file: &Path, state: Remembered) {
        self.files.insert(file.to_owned(), state);
    }
}
