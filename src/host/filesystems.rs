//! Space and inodes of file systems, and the size of directory trees.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use nix::sys::statvfs::statvfs;

/// How full a file system is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FilesystemUsage {
    /// Bytes altogether.
    pub capacity: u64,
    /// Bytes an unprivileged user can still write.
    pub available: u64,
    /// Bytes in use.
    pub used: u64,
    /// Inodes altogether; 0 where the file system makes them as needed.
    pub inodes: u64,
    /// Inodes not in use.
    pub inodes_free: u64,
}

/// Questions about file systems.
pub trait Filesystems: Send + Sync {
    /// Figures of the file system that holds `path`.
    fn usage(&self, path: &Path) -> io::Result<FilesystemUsage>;
}

/// This machine's file systems.
#[derive(Debug, Clone, Copy)]
pub struct RealFilesystems;

impl Filesystems for RealFilesystems {
    fn usage(&self, path: &Path) -> io::Result<FilesystemUsage> {
        let stat = statvfs(path).map_err(io::Error::from)?;
        let block = stat.fragment_size();
        Ok(FilesystemUsage {
            capacity: stat.blocks() * block,
            available: stat.blocks_available() * block,
            used: (stat.blocks() - stat.blocks_free()) * block,
            inodes: stat.files(),
            inodes_free: stat.files_free(),
        })
    }
}

/// Bytes on disk and inodes of everything below a directory, on its own file system. What vanishes meanwhile, or
/// cannot be read, does not count; neither does what is mounted below.
pub fn tree_usage(root: &Path) -> (u64, u64) {
    let Ok(top) = std::fs::symlink_metadata(root) else { return (0, 0) };
    let (mut bytes, mut inodes, mut seen) = (0, 0, BTreeSet::new());
    let mut todo = vec![(root.to_owned(), top.clone())];
    while let Some((path, metadata)) = todo.pop() {
        if metadata.dev() != top.dev() {
            continue;
        }
        // A file with several names is there once.
        if metadata.nlink() > 1 && !metadata.is_dir() && !seen.insert(metadata.ino()) {
            continue;
        }
        bytes += metadata.blocks() * 512;
        inodes += 1;
        if metadata.is_dir() {
            let entries = std::fs::read_dir(&path).into_iter().flatten().flatten();
            todo.extend(entries.filter_map(|e| Some((e.path(), e.metadata().ok()?))));
        }
    }
    (bytes, inodes)
}

/// File systems with figures given by a test; the longest matching directory counts.
#[derive(Debug, Default)]
pub struct FakeFilesystems(Mutex<BTreeMap<PathBuf, FilesystemUsage>>);

impl FakeFilesystems {
    /// Sets the figures for everything below `path`.
    pub fn set(&self, path: &Path, usage: FilesystemUsage) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(path.to_owned(), usage);
    }
}

impl Filesystems for FakeFilesystems {
    fn usage(&self, path: &Path) -> io::Result<FilesystemUsage> {
        let figures = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let found = path.ancestors().find_map(|ancestor| figures.get(ancestor));
        Ok(found.copied().unwrap_or(FilesystemUsage {
            capacity: 100 << 30,
            available: 60 << 30,
            used: 40 << 30,
            inodes: 1_000_000,
            inodes_free: 900_000,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn real_figures_add_up() {
        let usage = RealFilesystems.usage(Path::new("/")).unwrap();
        assert!(usage.capacity >= usage.used + usage.available, "{usage:?}");
        assert!(usage.capacity > 0);
        assert!(RealFilesystems.usage(Path::new("/no/such/path")).is_err());
    }

    #[test]
    fn a_tree_counts_its_own_files_once() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("d")).unwrap();
        std::fs::write(dir.path().join("d/f"), vec![1; 100_000]).unwrap();
        std::fs::hard_link(dir.path().join("d/f"), dir.path().join("g")).unwrap();
        std::os::unix::fs::symlink("/", dir.path().join("l")).unwrap();
        let (bytes, inodes) = tree_usage(dir.path());
        assert!((100_000..300_000).contains(&bytes), "{bytes}");
        assert_eq!(inodes, 4);
        assert_eq!(tree_usage(Path::new("/no/such")), (0, 0));
    }

    #[test]
    fn fake_figures_hold_below_their_directory() {
        let fake = FakeFilesystems::default();
        let full = FilesystemUsage { capacity: 10, used: 10, ..Default::default() };
        fake.set(Path::new("/data"), full);
        assert_eq!(fake.usage(Path::new("/data/a/b")).unwrap(), full);
        assert_ne!(fake.usage(Path::new("/other")).unwrap(), full);
    }
}
