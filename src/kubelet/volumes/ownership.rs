//! `fsGroup`: the group that owns a volume's files.

use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown};
use std::path::Path;

const READ_WRITE: u32 = 0o660;
const READ_ONLY: u32 = 0o440;
const DIRECTORY: u32 = 0o110;
const SET_GID: u32 = 0o2000;

/// Gives everything below `root` to the group. With `on_root_mismatch` nothing is done when the root already fits.
pub fn set(root: &Path, group: u32, read_only: bool, on_root_mismatch: bool) -> io::Result<()> {
    if on_root_mismatch && fits(root, group, read_only)? {
        return Ok(());
    }
    walk(root, group, read_only)
}

fn wanted(directory: bool, read_only: bool) -> u32 {
    let bits = if read_only { READ_ONLY } else { READ_WRITE };
    if directory { bits | DIRECTORY | SET_GID } else { bits }
}

fn fits(path: &Path, group: u32, read_only: bool) -> io::Result<bool> {
    let metadata = std::fs::metadata(path)?;
    let bits = wanted(metadata.is_dir(), read_only);
    Ok(metadata.gid() == group && metadata.mode() & bits == bits)
}

/// Children first, so that a walk that was broken off leaves the root unfit and is done again.
fn walk(path: &Path, group: u32, read_only: bool) -> io::Result<()> {
    let metadata = std::fs::symlink_metadata(path)?;
    if metadata.is_dir() {
        for entry in std::fs::read_dir(path)? {
            walk(&entry?.path(), group, read_only)?;
        }
    }
    lchown(path, None, Some(group))?;
    if metadata.file_type().is_symlink() {
        return Ok(());
    }
    let mode = metadata.permissions().mode() | wanted(metadata.is_dir(), read_only);
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_below_gets_the_group() {
        let dir = tempfile::tempdir().unwrap();
        let sub = dir.path().join("d");
        std::fs::create_dir(&sub).unwrap();
        let file = sub.join("f");
        std::fs::write(&file, "").unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        std::os::unix::fs::symlink("/nowhere", dir.path().join("l")).unwrap();
        // The own group is the one that every user may set.
        let group = nix::unistd::getgid().as_raw();
        set(dir.path(), group, false, false).unwrap();
        let mode = |p: &Path| std::fs::metadata(p).unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode(&file), 0o660);
        assert_eq!(mode(&sub) & 0o2070, 0o2070);
        assert!(fits(dir.path(), group, false).unwrap());
    }

    #[test]
    fn on_root_mismatch_leaves_a_fitting_root_alone() {
        let dir = tempfile::tempdir().unwrap();
        let group = nix::unistd::getgid().as_raw();
        set(dir.path(), group, false, true).unwrap();
        let file = dir.path().join("late");
        std::fs::write(&file, "").unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        set(dir.path(), group, false, true).unwrap();
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
