//! Rotation of container logs: `0.log` becomes `0.log.<time>`, the oldest ones go.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;

use crate::cri::Runtime;

/// Rotates one running container's log when it is larger than allowed.
pub async fn rotate(
    runtime: &Arc<dyn Runtime>,
    container_id: &str,
    path: &Path,
    max_bytes: u64,
    max_files: u32,
    now: Timestamp,
) -> io::Result<bool> {
    let length = match std::fs::metadata(path) {
        Ok(metadata) => metadata.len(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    if length < max_bytes {
        return Ok(false);
    }
    for old in surplus(rotated(path)?, max_files) {
        std::fs::remove_file(old)?;
    }
    let renamed = PathBuf::from(format!("{}.{}", path.display(), stamp(now)));
    std::fs::rename(path, &renamed)?;
    if let Err(error) = runtime.reopen_container_log(container_id).await {
        // Without a reopened log the container would write into the renamed file for ever.
        std::fs::rename(&renamed, path)?;
        return Err(io::Error::other(error));
    }
    Ok(true)
}

/// Former logs of a container, oldest first.
pub fn rotated(path: &Path) -> io::Result<Vec<PathBuf>> {
    let Some((directory, name)) = path.parent().zip(path.file_name().and_then(|n| n.to_str())) else {
        return Ok(Vec::new());
    };
    let prefix = format!("{name}.");
    let mut out = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_name().to_str().is_some_and(|n| n.starts_with(&prefix)) {
            out.push(entry.path());
        }
    }
    out.sort();
    Ok(out)
}

/// What must go so that, with the present log and the one about to be renamed, `max_files` remain.
fn surplus(mut rotated: Vec<PathBuf>, max_files: u32) -> Vec<PathBuf> {
    let keep = usize::try_from(max_files.max(2) - 2).unwrap_or(0);
    let cut = rotated.len().saturating_sub(keep);
    rotated.truncate(cut);
    rotated
}

fn stamp(now: Timestamp) -> String {
    now.strftime("%Y%m%d-%H%M%S%.6f").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cri::{CriError, fake::FakeRuntime};

    #[test]
    fn the_oldest_go_first() {
        let names: Vec<PathBuf> = ["1", "2", "3", "4"].iter().map(PathBuf::from).collect();
        assert_eq!(surplus(names.clone(), 5), [PathBuf::from("1")]);
        assert_eq!(surplus(names.clone(), 2).len(), 4);
        assert!(surplus(names, 9).is_empty());
    }

    #[tokio::test]
    async fn a_small_log_stays_and_a_failed_reopen_undoes_the_rename() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        std::fs::write(&path, "12345").unwrap();
        let fake = FakeRuntime::new();
        let runtime: Arc<dyn Runtime> = Arc::new(fake.clone());
        let now = Timestamp::UNIX_EPOCH;
        assert!(!rotate(&runtime, "c", &path, 6, 5, now).await.unwrap());
        fake.fail_next("ReopenContainerLog", CriError::rpc("ReopenContainerLog", tonic::Code::Internal, "x"));
        assert!(rotate(&runtime, "c", &path, 5, 5, now).await.is_err());
        assert!(path.exists());
    }
}
