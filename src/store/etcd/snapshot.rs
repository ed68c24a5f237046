//! A copy of the whole of etcd through its maintenance API: the file that `etcdctl snapshot restore` takes.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aws_lc_rs::digest;
use bytes::Bytes;

use super::Inner;
use super::wire::v3::kv_client::KvClient;
use super::wire::v3::maintenance_client::MaintenanceClient;
use super::wire::{get, revision_of, v3};
use crate::store::{Revision, StoreError};

/// The copy ends with the SHA-256 of what comes before.
const SUM_BYTES: usize = 32;

/// Streams a copy to `path`, which must not exist; it appears there complete, checked and flushed, or not at all.
pub(super) async fn save(inner: &Inner, path: &Path) -> Result<Revision, StoreError> {
    if path.exists() {
        return Err(io(std::io::ErrorKind::AlreadyExists.into()));
    }
    let partial = partial_name(path);
    let result = stream_to(inner, &partial).await;
    let revision = match result {
        Ok(revision) => revision,
        Err(error) => {
            std::fs::remove_file(&partial).ok();
            return Err(error);
        }
    };
    std::fs::rename(&partial, path).map_err(io)?;
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(io)?;
    }
    Ok(revision)
}

async fn stream_to(inner: &Inner, partial: &Path) -> Result<Revision, StoreError> {
    let (at, member) = inner.members.preferred();
    let lost = |status: tonic::Status| {
        inner.members.failed(at);
        StoreError::Unavailable { source: Arc::new(status) }
    };
    // The copy is what this member has: a consistent read makes sure that it is not behind.
    let mut kv = KvClient::new(member.channel.clone());
    let answer = kv.range(v3::RangeRequest { count_only: true, ..get("\0") });
    let answer = tokio::time::timeout(inner.options.request_timeout, answer)
        .await
        .map_err(|error| StoreError::Unavailable { source: Arc::new(error) })?
        .map_err(lost)?;
    let revision = revision_of(answer.get_ref().header.as_ref());
    let mut client = MaintenanceClient::new(member.channel).max_decoding_message_size(super::MAX_MESSAGE);
    let mut blobs = client.snapshot(v3::SnapshotRequest {}).await.map_err(lost)?.into_inner();
    let file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(partial).map_err(io)?;
    let mut copy = Copy { file, sum: digest::Context::new(&digest::SHA256), tail: Vec::new(), bytes: 0 };
    while let Some(blob) = blobs.message().await.map_err(lost)? {
        // Writing waits for the disk.
        copy = tokio::task::spawn_blocking(move || copy.add(&blob.blob).map(|()| copy))
            .await
            .map_err(|error| StoreError::Unavailable { source: Arc::new(error) })??;
    }
    tokio::task::spawn_blocking(move || copy.finish())
        .await
        .map_err(|error| StoreError::Unavailable { source: Arc::new(error) })??;
    Ok(revision)
}

/// A copy on its way: all but the last bytes have gone into the sum.
struct Copy {
    file: File,
    sum: digest::Context,
    tail: Vec<u8>,
    bytes: usize,
}

impl Copy {
    fn add(&mut self, blob: &Bytes) -> Result<(), StoreError> {
        self.file.write_all(blob).map_err(io)?;
        self.bytes += blob.len();
        self.tail.extend_from_slice(blob);
        let certain = self.tail.len().saturating_sub(SUM_BYTES);
        self.sum.update(&self.tail[..certain]);
        self.tail.drain(..certain);
        Ok(())
    }

    fn finish(self) -> Result<(), StoreError> {
        if self.bytes <= SUM_BYTES || self.sum.finish().as_ref() != self.tail {
            let detail = "the copy that etcd sent is incomplete or does not match its checksum".to_owned();
            return Err(StoreError::Corrupt { detail });
        }
        self.file.sync_all().map_err(io)
    }
}

fn partial_name(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".partial");
    PathBuf::from(name)
}

fn io(error: std::io::Error) -> StoreError {
    match error.kind() {
        std::io::ErrorKind::StorageFull => StoreError::Full { source: Arc::new(error) },
        _ => StoreError::Io { source: Arc::new(error) },
    }
}
