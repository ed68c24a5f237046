//! hostPath volumes: checks of type, creation where the type asks for it.

use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;

/// A path on the host that is not what the volume says.
#[derive(Debug, thiserror::Error)]
pub enum HostPathError {
    /// Something else is there, or nothing.
    #[error("hostPath type check failed: {path} is not {wanted}")]
    Type {
        /// The path.
        path: String,
        /// What it should be.
        wanted: &'static str,
    },
    /// The path cannot be made.
    #[error("create {path}")]
    Create {
        /// The path.
        path: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// Checks the path, and makes it for the `…OrCreate` types.
pub fn prepare(path: &Path, kind: &str) -> Result<(), HostPathError> {
    let file_type = std::fs::metadata(path).ok().map(|m| m.file_type());
    let wrong = |wanted| Err(HostPathError::Type { path: path.display().to_string(), wanted });
    let created = |result: io::Result<()>| {
        result.map_err(|source| HostPathError::Create { path: path.display().to_string(), source })
    };
    match (kind, file_type) {
        ("", _) => Ok(()),
        ("DirectoryOrCreate", None) => created(make_directory(path)),
        ("FileOrCreate", None) => created(make_file(path)),
        ("DirectoryOrCreate" | "Directory", Some(t)) if t.is_dir() => Ok(()),
        ("FileOrCreate" | "File", Some(t)) if t.is_file() => Ok(()),
        ("Socket", Some(t)) if t.is_socket() => Ok(()),
        ("CharDevice", Some(t)) if t.is_char_device() => Ok(()),
        ("BlockDevice", Some(t)) if t.is_block_device() => Ok(()),
        ("DirectoryOrCreate" | "Directory", _) => wrong("a directory"),
        ("FileOrCreate" | "File", _) => wrong("a file"),
        ("Socket", _) => wrong("a socket file"),
        ("CharDevice", _) => wrong("a character device"),
        ("BlockDevice", _) => wrong("a block device"),
        _ => wrong("of a known type"),
    }
}

fn make_directory(path: &Path) -> io::Result<()> {
    std::fs::create_dir_all(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))
}

fn make_file(path: &Path) -> io::Result<()> {
    std::fs::OpenOptions::new().create(true).append(true).open(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o644))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_type_accepts_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("f");
        std::fs::write(&file, "").unwrap();
        let missing = dir.path().join("none");
        let socket = dir.path().join("s");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        for (path, kind, ok) in [
            (dir.path(), "", true),
            (missing.as_path(), "", true),
            (dir.path(), "Directory", true),
            (file.as_path(), "Directory", false),
            (file.as_path(), "File", true),
            (missing.as_path(), "File", false),
            (socket.as_path(), "Socket", true),
            (Path::new("/dev/null"), "CharDevice", true),
            (file.as_path(), "BlockDevice", false),
        ] {
            assert_eq!(prepare(path, kind).is_ok(), ok, "{} {kind}", path.display());
        }
    }

    #[test]
    fn the_create_types_create() {
        let dir = tempfile::tempdir().unwrap();
        prepare(&dir.path().join("a/b"), "DirectoryOrCreate").unwrap();
        assert!(dir.path().join("a/b").is_dir());
        prepare(&dir.path().join("a/f"), "FileOrCreate").unwrap();
        assert!(dir.path().join("a/f").is_file());
        assert!(prepare(&dir.path().join("x/f"), "FileOrCreate").is_err(), "the parent must exist");
    }
}
