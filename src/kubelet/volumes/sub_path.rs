//! Sub paths of volumes, opened so that no symbolic link leads out of the volume, and pinned by a bind mount.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::sys::stat::{Mode, SFlag, fchmod, fstat, mkdirat};

use crate::host::mounts::{MountError, MountKind, Mounts};

/// Most bytes of a file that is read whole.
const SMALL: u64 = 64 << 10;

/// A sub path that cannot be mounted.
#[derive(Debug, thiserror::Error)]
pub enum SubPathError {
    /// It does not exist and cannot be made, or it leads out of the volume.
    #[error("failed to prepare subPath {path} of volume at {volume}")]
    Open {
        /// The sub path.
        path: String,
        /// The volume.
        volume: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The place to mount it cannot be made.
    #[error("make {0}")]
    Target(String, #[source] io::Error),
    /// The mount failed.
    #[error("bind subPath")]
    Mount(#[source] MountError),
}

/// Binds `sub_path` of the volume to `target`, making directories that are missing. A directory or a file.
pub fn prepare(
    mounts: &dyn Mounts,
    volume: &Path,
    sub_path: &Path,
    target: &Path,
) -> Result<PathBuf, SubPathError> {
    let opened = open_beneath(volume, sub_path).map_err(|errno| SubPathError::Open {
        path: sub_path.display().to_string(),
        volume: volume.display().to_string(),
        source: errno.into(),
    })?;
    let is_dir = fstat(&opened)
        .map(|s| SFlag::from_bits_truncate(s.st_mode & SFlag::S_IFMT.bits()) == SFlag::S_IFDIR)
        .unwrap_or(true);
    if mounts.is_mounted(target).map_err(SubPathError::Mount)? {
        mounts.unmount(target, true).map_err(SubPathError::Mount)?;
    }
    make_target(target, is_dir).map_err(|e| SubPathError::Target(target.display().to_string(), e))?;
    let source = PathBuf::from(format!("/proc/self/fd/{}", opened.as_raw_fd()));
    mounts.mount(target, &MountKind::Bind { source, read_only: false }).map_err(SubPathError::Mount)?;
    Ok(target.to_owned())
}

/// Reads a small text file of a volume; no link leads out of it. `None` when there is none.
pub fn read_beneath(volume: &Path, path: &Path) -> io::Result<Option<String>> {
    use std::io::Read as _;
    let root = open(volume, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
    let how = OpenHow::new()
        .flags(OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    let file = match openat2(root.as_fd(), path, how) {
        Err(Errno::ENOENT) => return Ok(None),
        opened => std::fs::File::from(opened?),
    };
    let mut text = String::new();
    file.take(SMALL).read_to_string(&mut text)?;
    Ok(Some(text))
}

fn make_target(target: &Path, directory: bool) -> io::Result<()> {
    if directory {
        return std::fs::create_dir_all(target);
    }
    if let Some(parent) = target.parent() {
        std::fs::create_dir_all(parent)?;
    }
    std::fs::OpenOptions::new().create(true).append(true).open(target).map(drop)
}

fn beneath(root: &OwnedFd, path: &Path) -> nix::Result<OwnedFd> {
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    openat2(root.as_fd(), path, how)
}

/// Opens the path inside the volume; the kernel refuses every way out of it.
fn open_beneath(volume: &Path, sub_path: &Path) -> nix::Result<OwnedFd> {
    let root = open(volume, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
    match beneath(&root, sub_path) {
        Err(Errno::ENOENT) => {}
        other => return other,
    }
    // What is made is as open as the volume itself, whatever the process' mask says.
    let mode = Mode::from_bits_truncate(fstat(&root)?.st_mode & 0o2777);
    let mut done = PathBuf::new();
    for part in sub_path.components() {
        let parent = if done.as_os_str().is_empty() {
            root.try_clone().map_err(|_| Errno::EMFILE)?
        } else {
            beneath(&root, &done)?
        };
        done.push(part);
        if let Err(Errno::ENOENT) = beneath(&root, &done) {
            match mkdirat(parent.as_fd(), Path::new(part.as_os_str()), mode) {
                Ok(()) => open_up(&parent, part.as_os_str(), mode)?,
                Err(Errno::EEXIST) => {}
                Err(errno) => return Err(errno),
            }
        }
    }
    beneath(&root, sub_path)
}

/// Sets the mode of a directory that was just made; a link that was put in its place meanwhile is not followed.
fn open_up(parent: &OwnedFd, name: &std::ffi::OsStr, mode: Mode) -> nix::Result<()> {
    let how = OpenHow::new()
        .flags(OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS);
    let made = openat2(parent.as_fd(), Path::new(name), how)?;
    fchmod(made.as_fd(), mode)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::fake::FakeMounts;
    use std::os::unix::fs::{PermissionsExt, symlink};

    #[test]
    fn missing_directories_are_made_and_bound() {
        let dir = tempfile::tempdir().unwrap();
        let volume = dir.path().join("v");
        std::fs::create_dir(&volume).unwrap();
        let target = dir.path().join("t/0");
        let mounts = FakeMounts::default();
        std::fs::set_permissions(&volume, std::fs::Permissions::from_mode(0o777)).unwrap();
        prepare(&mounts, &volume, Path::new("a/b"), &target).unwrap();
        assert!(volume.join("a/b").is_dir() && target.is_dir());
        for made in ["a", "a/b"] {
            let mode = std::fs::metadata(volume.join(made)).unwrap().permissions().mode();
            assert_eq!(mode & 0o7777, 0o777, "{made} is as open as the volume");
        }
        assert!(matches!(mounts.at(&target), Some(MountKind::Bind { .. })));
        prepare(&mounts, &volume, Path::new("a/b"), &target).unwrap();
        assert_eq!(mounts.targets().len(), 1, "mounted anew, not twice");
    }

    #[test]
    fn a_file_is_bound_to_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let volume = dir.path().join("v");
        std::fs::create_dir(&volume).unwrap();
        std::fs::write(volume.join("f"), "x").unwrap();
        let target = dir.path().join("t/0");
        prepare(&FakeMounts::default(), &volume, Path::new("f"), &target).unwrap();
        assert!(target.is_file());
    }

    #[test]
    fn files_are_read_inside_the_volume_only() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("f"), "x").unwrap();
        symlink("/etc/hostname", dir.path().join("out")).unwrap();
        assert_eq!(read_beneath(dir.path(), Path::new("f")).unwrap().as_deref(), Some("x"));
        assert_eq!(read_beneath(dir.path(), Path::new("none")).unwrap(), None);
        assert!(read_beneath(dir.path(), Path::new("out")).is_err());
    }

    #[test]
    fn links_may_not_lead_out() {
        let dir = tempfile::tempdir().unwrap();
        let volume = dir.path().join("v");
        std::fs::create_dir_all(volume.join("real")).unwrap();
        symlink("/etc", volume.join("out")).unwrap();
        symlink("..", volume.join("up")).unwrap();
        symlink("real", volume.join("in")).unwrap();
        for (path, ok) in [("out", false), ("up", false), ("out/new", false), ("in", true), ("in/new", true)]
        {
            let target = dir.path().join("t");
            let got = prepare(&FakeMounts::default(), &volume, Path::new(path), &target);
            assert_eq!(got.is_ok(), ok, "{path}");
        }
    }
}
