//! Snapshots of the datastore: made while the server runs, checked by their sums, kept within limits, restored.
//!
//! A snapshot is a file and, beside it, a description with its SHA-256. The embedded datastore's is a copy of its file,
//! etcd's what its maintenance API gives; either can be restored into either datastore.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail, ensure};
use aws_lc_rs::digest;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use super::datastore;
use crate::config::{Datastore, DatastoreConfig, Schedule, SnapshotConfig};
use crate::pki::files;
use crate::store::sqlite::{SqliteOptions, SqliteStore};
use crate::store::transfer::{self, Format};
use crate::store::{Revision, Store};

const DESCRIPTION: &str = ".json";

/// What stands beside a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Description {
    /// The snapshot's name, which is its file's.
    pub name: String,
    /// When it was made.
    pub created: String,
    /// The resourceVersion that it shows, or a little later one.
    pub revision: u64,
    /// Bytes of the file.
    pub size: u64,
    /// SHA-256 of the file, in hexadecimal.
    pub sha256: String,
}

/// Where snapshots are, and what they are called.
#[derive(Debug, Clone)]
pub struct Snapshots {
    directory: PathBuf,
    /// What the names begin with; the node's name and the time follow.
    prefix: String,
    retention: usize,
}

impl Snapshots {
    /// Snapshots as configured, of a node.
    pub fn new(config: &SnapshotConfig, server_dir: &Path, node: &str) -> Self {
        let prefix = format!("{}-{node}-", config.snapshot_name);
        Self { directory: config.directory(server_dir), prefix, retention: config.snapshot_retention }
    }

    /// Makes a snapshot of a store in use, then removes those beyond the retention.
    ///
    /// # Errors
    /// The copy or its description cannot be written; nothing is left then.
    pub async fn save(&self, source: &Source) -> anyhow::Result<Description> {
        files::make_private_dir(&self.directory)?;
        let created = Timestamp::now();
        let mut second = created.as_second();
        while self.directory.join(format!("{}{second}", self.prefix)).exists() {
            second += 1;
        }
        let name = format!("{}{second}", self.prefix);
        let path = self.directory.join(&name);
        let revision = source.copy_to(&path).await.with_context(|| format!("write {}", path.display()))?;
        let description = describe(&path, name, created, revision)?;
        let text = serde_json::to_vec_pretty(&description)?;
        if let Err(error) = files::write_private(&description_of(&path), &text) {
            fs::remove_file(&path).ok();
            return Err(error.into());
        }
        self.prune()?;
        Ok(description)
    }

    /// The snapshots in the directory, oldest first.
    ///
    /// # Errors
    /// The directory or a description cannot be read.
    pub fn list(&self) -> anyhow::Result<Vec<Description>> {
        let mut found = Vec::new();
        let entries = match fs::read_dir(&self.directory) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(found),
            entries => entries.with_context(|| format!("read {}", self.directory.display()))?,
        };
        for entry in entries {
            let path = entry?.path();
            if path.extension().is_some_and(|end| end == "json") {
                found.push(read_description(&path)?);
            }
        }
        found.sort_by(|a, b| (&a.created, &a.name).cmp(&(&b.created, &b.name)));
        Ok(found)
    }

    /// Removes the oldest snapshots of this name and node beyond the retention; the result is their names.
    ///
    /// # Errors
    /// A file cannot be removed.
    pub fn prune(&self) -> anyhow::Result<Vec<String>> {
        let mut own = self.list()?;
        own.retain(|snapshot| snapshot.name.starts_with(&self.prefix));
        let surplus = match self.retention {
            0 => 0,
            keep => own.len().saturating_sub(keep),
        };
        let mut removed = Vec::new();
        for snapshot in own.into_iter().take(surplus) {
            let path = self.directory.join(&snapshot.name);
            // The snapshot first: a description without it is found by the next look, a file without one is not.
            remove_if_there(&path)?;
            remove_if_there(&description_of(&path))?;
            removed.push(snapshot.name);
        }
        Ok(removed)
    }

    /// Removes one snapshot.
    ///
    /// # Errors
    /// There is no such snapshot, or it cannot be removed.
    pub fn delete(&self, name: &str) -> anyhow::Result<()> {
        ensure!(!name.contains('/'), "{name}: a snapshot is named as `kube-lite snapshot list` shows it");
        let path = self.directory.join(name);
        ensure!(path.exists(), "there is no snapshot {name} in {}", self.directory.display());
        remove_if_there(&path)?;
        remove_if_there(&description_of(&path))
    }

    /// Finds a snapshot by its name or path and checks it against its sum.
    ///
    /// # Errors
    /// It is not there, or not what it was.
    pub fn verified(&self, name: &str) -> anyhow::Result<PathBuf> {
        let path = match name.contains('/') {
            true => PathBuf::from(name),
            false => self.directory.join(name),
        };
        ensure!(path.exists(), "there is no snapshot {}", path.display());
        let description = description_of(&path);
        if description.exists() {
            let expected = read_description(&description)?;
            let (size, sha256) = sum(&path)?;
            ensure!(
                (size, &sha256) == (expected.size, &expected.sha256),
                "{} is damaged: it has {size} bytes and SHA-256 {sha256}, {} says {} and {}",
                path.display(),
                description.display(),
                expected.size,
                expected.sha256,
            );
        }
        Ok(path)
    }

    /// Makes snapshots by the schedule until `stop`. A failure is logged; the next time it is tried again.
    pub async fn run(self, source: Source, schedule: Schedule, stop: CancellationToken) {
        while let Some(next) = schedule.next(Timestamp::now()) {
            let wait = next.duration_since(Timestamp::now());
            let wait = std::time::Duration::try_from(wait).unwrap_or_default();
            if stop.run_until_cancelled(tokio::time::sleep(wait)).await.is_none() {
                return;
            }
            match self.save(&source).await {
                Ok(made) => info!(name = %made.name, size = made.size, "snapshot made"),
                Err(error) => error!(error = format!("{error:#}"), "no snapshot could be made"),
            }
        }
    }
}

/// What a snapshot is made of.
pub enum Source {
    /// A store of this process.
    Store(Arc<dyn Store>),
    /// The embedded store's file, which another process may have open.
    File(PathBuf),
}

impl Source {
    /// The datastore of the flags; the server may be running or not.
    ///
    /// # Errors
    /// There is no such file, or etcd cannot be reached.
    pub async fn open(config: &DatastoreConfig, server_dir: &Path) -> anyhow::Result<Self> {
        Ok(match config.datastore(server_dir)? {
            Datastore::Sqlite(path) => {
                ensure!(path.exists(), "there is no datastore {}", path.display());
                Self::File(path)
            }
            etcd => Self::Store(datastore::open_for_tool(config, &etcd).await?),
        })
    }

    async fn copy_to(&self, path: &Path) -> anyhow::Result<Revision> {
        match self {
            Self::Store(store) => Ok(store.snapshot(path).await?),
            Self::File(file) => {
                let (file, path) = (file.clone(), path.to_owned());
                Ok(tokio::task::spawn_blocking(move || SqliteStore::copy_file(&file, &path)).await??)
            }
        }
    }
}

/// Puts a snapshot in the place of the datastore that the flags name. The embedded datastore is moved aside, etcd must
/// be empty. The result is how many entries there are now.
///
/// # Errors
/// The snapshot is damaged, the datastore is in use, or etcd is not empty.
pub async fn restore(config: &DatastoreConfig, server_dir: &Path, snapshot: &Path) -> anyhow::Result<usize> {
    let (entries, _) =
        transfer::entries_of(snapshot).with_context(|| format!("read {}", snapshot.display()))?;
    let count = entries.len();
    match (config.datastore(server_dir)?, transfer::format_of(snapshot)?) {
        (Datastore::Sqlite(path), format) => {
            set_aside(&path)?;
            match format {
                // As it was, with all revisions.
                Format::Sqlite => SqliteStore::copy_file(snapshot, &path).map(|_| ())?,
                Format::Etcd => {
                    let store = datastore::open_for_tool(config, &Datastore::Sqlite(path)).await?;
                    transfer::fill(&store, entries).await?;
                    store.shutdown().await;
                }
            }
        }
        (etcd, _) => {
            let store = datastore::open_for_tool(config, &etcd).await?;
            transfer::fill(&store, entries).await.context("fill etcd")?;
        }
    }
    Ok(count)
}

/// Moves the embedded datastore out of the way, unless a server has it open.
fn set_aside(path: &Path) -> anyhow::Result<()> {
    if let Some(directory) = path.parent() {
        files::make_private_dir(directory)?;
    }
    if !path.exists() {
        return Ok(());
    }
    // Damaged files must not stand in the way of restoring them: only a living owner does.
    match SqliteStore::open(path, SqliteOptions::default()) {
        Err(error @ crate::store::StoreError::InUse { .. }) => {
            bail!("{error}: stop kube-lite on this host, then restore again");
        }
        Ok(store) => store.close(),
        Err(_) => {}
    }
    let suffix = format!(".before-restore-{}", Timestamp::now().as_second());
    for end in ["", "-wal", "-shm"] {
        let from = with_suffix(path, end);
        if from.exists() {
            let to = with_suffix(path, &format!("{suffix}{end}"));
            fs::rename(&from, &to).with_context(|| format!("move {} to {}", from.display(), to.display()))?;
        }
    }
    Ok(())
}

/// Copies everything from one datastore into another one, which must be empty; the result is how many entries.
///
/// # Errors
/// One of them cannot be opened (the embedded one: is in use), or the second holds something.
pub async fn migrate(config: &DatastoreConfig, from: &Datastore, to: &Datastore) -> anyhow::Result<usize> {
    ensure!(from != to, "--from and --to are the same datastore");
    if let Datastore::Sqlite(path) = from {
        ensure!(path.exists(), "there is no datastore {}", path.display());
    }
    let source = datastore::open_for_tool(config, from).await?;
    let (entries, _) = transfer::entries_in(&source).await.context("read the datastore of --from")?;
    let count = entries.len();
    let target = datastore::open_for_tool(config, to).await?;
    transfer::fill(&target, entries).await.context("fill the datastore of --to")?;
    target.shutdown().await;
    source.shutdown().await;
    Ok(count)
}

fn describe(
    path: &Path,
    name: String,
    created: Timestamp,
    revision: Revision,
) -> anyhow::Result<Description> {
    let (size, sha256) = sum(path)?;
    Ok(Description { name, created: created.to_string(), revision: revision.0, size, sha256 })
}

fn sum(path: &Path) -> anyhow::Result<(u64, String)> {
    use std::io::Read as _;
    let read = || format!("read {}", path.display());
    let mut file = fs::File::open(path).with_context(read)?;
    let (mut sum, mut size) = (digest::Context::new(&digest::SHA256), 0);
    let mut chunk = vec![0; 1 << 16];
    loop {
        match file.read(&mut chunk).with_context(read)? {
            0 => break,
            n => {
                sum.update(&chunk[..n]);
                size += n as u64;
            }
        }
    }
    let hex = sum.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok((size, hex))
}

fn read_description(path: &Path) -> anyhow::Result<Description> {
    let text = fs::read(path).with_context(|| format!("read {}", path.display()))?;
    serde_json::from_slice(&text)
        .with_context(|| format!("{} is no description of a snapshot", path.display()))
}

fn description_of(path: &Path) -> PathBuf {
    with_suffix(path, DESCRIPTION)
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn remove_if_there(path: &Path) -> anyhow::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
