//! Rotation of container logs: `0.log` becomes `0.log.<time>`, and `0.log.<time>.gz` at the rotation after; the oldest
//! ones go.

use std::fs::{File, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use flate2::{Compression, write::GzEncoder};
use jiff::Timestamp;

use crate::cri::Runtime;

const COMPRESSED: &str = "gz";
/// A file that is being compressed into.
const PART: &str = "tmp";

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
    let own = path.to_owned();
    let tidied = tokio::task::spawn_blocking(move || tidy(&own, max_files)).await;
    tidied.map_err(io::Error::other)??;
    let renamed = PathBuf::from(format!("{}.{}", path.display(), stamp(now)));
    std::fs::rename(path, &renamed)?;
    if let Err(error) = runtime.reopen_container_log(container_id).await {
        // Without a reopened log the container would write into the renamed file for ever.
        std::fs::rename(&renamed, path)?;
        return Err(io::Error::other(error));
    }
    Ok(true)
}

/// Removes what an interrupted rotation left behind and what is too much, and compresses the rest.
fn tidy(path: &Path, max_files: u32) -> io::Result<()> {
    let all = rotated(path)?;
    let ends = |log: &Path, with: &str| log.extension().is_some_and(|ending| ending == with);
    let (unused, kept): (Vec<_>, Vec<_>) =
        all.iter().cloned().partition(|log| ends(log, PART) || all.contains(&with_ending(log, COMPRESSED)));
    for log in unused {
        std::fs::remove_file(log)?;
    }
    let excess = surplus(kept.clone(), max_files);
    for log in kept {
        if excess.contains(&log) {
            std::fs::remove_file(log)?;
        } else if !ends(&log, COMPRESSED) {
            compress(&log)?;
        }
    }
    Ok(())
}

fn with_ending(log: &Path, ending: &str) -> PathBuf {
    PathBuf::from(format!("{}.{ending}", log.display()))
}

fn compress(log: &Path) -> io::Result<()> {
    let (part, done) = (with_ending(log, PART), with_ending(log, COMPRESSED));
    let mut from = File::open(log)?;
    let mode = from.metadata()?.permissions().mode();
    let to = File::options().write(true).create(true).truncate(true).mode(0o600).open(&part)?;
    let mut encoder = GzEncoder::new(to, Compression::default());
    io::copy(&mut from, &mut encoder)?;
    let mut to = encoder.finish()?;
    to.flush()?;
    to.set_permissions(Permissions::from_mode(mode))?;
    std::fs::rename(part, done)?;
    std::fs::remove_file(log)
}

/// Former logs of a container, oldest first.
fn rotated(path: &Path) -> io::Result<Vec<PathBuf>> {
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
    now.strftime("%Y%m%d-%H%M%S").to_string()
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
    async fn a_rotation_compresses_the_one_before_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        let fake = FakeRuntime::new();
        let id = crate::kubelet::pods::fixture::running_in(&fake).await;
        let runtime: Arc<dyn Runtime> = Arc::new(fake);
        let names = || {
            let entries =
                std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
            let mut names: Vec<_> = entries.collect();
            names.sort();
            names
        };
        // What an interrupted rotation leaves behind.
        for left in ["0.log.19691231-000000.tmp", "0.log.19691230-000000", "0.log.19691230-000000.gz"] {
            std::fs::write(dir.path().join(left), "old").unwrap();
        }
        for second in 0..4 {
            std::fs::write(&path, format!("log {second}\n").repeat(1000)).unwrap();
            std::fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
            let now = Timestamp::from_second(second).unwrap();
            assert!(rotate(&runtime, &id, &path, 5, 4, now).await.unwrap());
        }
        assert_eq!(
            names(),
            ["0.log.19700101-000001.gz", "0.log.19700101-000002.gz", "0.log.19700101-000003"]
        );
        let file = File::open(dir.path().join("0.log.19700101-000002.gz")).unwrap();
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o640);
        let text = io::read_to_string(flate2::read::GzDecoder::new(file)).unwrap();
        assert_eq!(text, "log 2\n".repeat(1000));
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
