//! Private files: written whole or not at all, readable by their owner only.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Suffix of a file that is being written; such a file is never read and is removed at the next start.
const TEMPORARY: &str = ".kube-lite-tmp";

/// A file operation failed.
#[derive(Debug, thiserror::Error)]
#[error("{operation} {path}")]
pub struct FileError {
    /// What was tried.
    pub operation: &'static str,
    /// On which file or directory.
    pub path: PathBuf,
    /// The cause.
    #[source]
    pub source: io::Error,
}

fn failed(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> FileError {
    let path = path.to_owned();
    move |source| FileError { operation, path, source }
}

/// Makes a directory (and its parents) that only its owner may enter; tightens one that exists.
pub fn make_private_dir(dir: &Path) -> Result<(), FileError> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed("create directory", dir))?;
    set_mode(dir, 0o700)
}

/// Replaces `path` by `content` with mode 0600: temporary file, fsync, rename, fsync of the directory.
pub fn write_private(path: &Path, content: &[u8]) -> Result<(), FileError> {
    write_atomic(path, content, 0o600)
}

/// [`write_private`] with another mode, for files that others may read.
pub fn write_atomic(path: &Path, content: &[u8], mode: u32) -> Result<(), FileError> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(TEMPORARY);
    let temporary = path.with_file_name(name);
    // A leftover may belong to a crashed writer and have any mode: begin with a new file.
    match fs::remove_file(&temporary) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            return Err(failed("remove", &temporary)(source));
        }
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&temporary)
        .map_err(failed("create", &temporary))?;
    file.set_permissions(Permissions::from_mode(mode)).map_err(failed("set mode of", &temporary))?;
    file.write_all(content).and_then(|()| file.sync_all()).map_err(failed("write", &temporary))?;
    fs::rename(&temporary, path).map_err(failed("write", path))?;
    if let Some(dir) = path.parent().filter(|dir| !dir.as_os_str().is_empty()) {
        File::open(dir).and_then(|dir| dir.sync_all()).map_err(failed("sync directory", dir))?;
    }
    Ok(())
}

/// Reads a private file and tightens its mode; `None` when there is no such file.
pub fn read_private(path: &Path) -> Result<Option<String>, FileError> {
    match fs::read(path) {
        Ok(content) => {
            set_mode(path, 0o600)?;
            // Bytes that are not UTF-8 are no PEM either; the caller reports the content.
            Ok(Some(String::from_utf8_lossy(&content).into_owned()))
        }
        Err(source) if source.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(failed("read", path)(source)),
    }
}

/// Removes what a crashed writer left in `dir`.
pub fn remove_leftovers(dir: &Path) -> Result<(), FileError> {
    for entry in fs::read_dir(dir).map_err(failed("list directory", dir))? {
        let entry = entry.map_err(failed("list directory", dir))?;
        if entry.file_name().to_string_lossy().ends_with(TEMPORARY) {
            fs::remove_file(entry.path()).map_err(failed("remove", &entry.path()))?;
        }
    }
    Ok(())
}

fn set_mode(path: &Path, mode: u32) -> Result<(), FileError> {
    let present = fs::metadata(path).map_err(failed("read mode of", path))?.permissions().mode() & 0o7777;
    if present == mode {
        return Ok(());
    }
    fs::set_permissions(path, Permissions::from_mode(mode)).map_err(failed("set mode of", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn written_file_is_private_and_replaces_the_old_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.key");
        write_private(&path, b"one").unwrap();
        write_private(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(mode(&path), 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no temporary file stays");
    }

    #[test]
    fn leftover_of_a_crash_is_ignored_and_removed() {
        let dir = tempfile::tempdir().unwrap();
        let leftover = dir.path().join(format!("a.key{TEMPORARY}"));
        fs::write(&leftover, b"half").unwrap();
        write_private(&dir.path().join("a.key"), b"whole").unwrap();
        fs::write(&leftover, b"half").unwrap();
        remove_leftovers(dir.path()).unwrap();
        assert!(!leftover.exists());
        assert_eq!(read_private(&dir.path().join("a.key")).unwrap().unwrap(), "whole");
    }

    #[test]
    fn reading_tightens_a_loose_mode_and_knows_absence() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.key");
        assert!(read_private(&path).unwrap().is_none());
        fs::write(&path, b"x").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        read_private(&path).unwrap();
        assert_eq!(mode(&path), 0o600);
    }

    #[test]
    fn directory_is_private() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("server/tls");
        make_private_dir(&path).unwrap();
        assert_eq!(mode(&path), 0o700);
    }
}
