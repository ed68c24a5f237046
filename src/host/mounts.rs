//! Mounting and unmounting, and the list of what is mounted.

use std::io;
use std::path::{Path, PathBuf};

mod real;

pub use real::RealMounts;

/// One line of `/proc/self/mountinfo`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MountInfo {
    /// Where it is mounted.
    pub target: PathBuf,
    /// The directory of the file system that is mounted there; `/` unless it is a bind mount.
    pub root: PathBuf,
    /// Type of file system.
    pub fstype: String,
    /// Device or whatever the file system calls its source.
    pub source: String,
    /// Options of this mount, for example `rw,nosuid`.
    pub options: String,
    /// Options of the file system.
    pub super_options: String,
    /// Whether mounts below it propagate to other namespaces.
    pub shared: bool,
}

/// What to mount where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MountKind {
    /// The file or directory `source` with everything mounted below it.
    Bind {
        /// What appears at the target.
        source: PathBuf,
        /// No writing through this mount.
        read_only: bool,
    },
    /// A file system in memory.
    Tmpfs {
        /// Most bytes it holds; half of main memory when absent.
        size: Option<u64>,
        /// Permission bits of its root.
        mode: u32,
    },
    /// Any other file system.
    Device {
        /// Type of file system.
        fstype: String,
        /// Device or remote directory.
        source: String,
        /// Options as `mount -o` takes them for the file system.
        options: String,
        /// No writing.
        read_only: bool,
    },
}

/// A mount operation that failed.
#[derive(Debug, thiserror::Error)]
#[error("{operation} {}", target.display())]
pub struct MountError {
    /// What was tried.
    pub operation: &'static str,
    /// Where.
    pub target: PathBuf,
    /// The operating system's reason.
    #[source]
    pub source: io::Error,
}

impl MountError {
    pub(crate) fn new(operation: &'static str, target: &Path, source: impl Into<io::Error>) -> Self {
        Self { operation, target: target.to_owned(), source: source.into() }
    }
}

/// Mounts of this mount namespace.
pub trait Mounts: Send + Sync {
    /// Everything that is mounted, in mount order.
    fn list(&self) -> Result<Vec<MountInfo>, MountError>;
    /// Mounts something on an existing file or directory.
    fn mount(&self, target: &Path, kind: &MountKind) -> Result<(), MountError>;
    /// Makes mounts below `target` propagate to other namespaces.
    fn make_shared(&self, target: &Path) -> Result<(), MountError>;
    /// Unmounts the topmost mount at `target`; nothing mounted there is no error. `detach` also succeeds while in use.
    fn unmount(&self, target: &Path, detach: bool) -> Result<(), MountError>;
    /// Whether something is mounted exactly at `target`.
    fn is_mounted(&self, target: &Path) -> Result<bool, MountError> {
        Ok(self.list()?.iter().any(|mount| mount.target == target))
    }
}

/// Unmounts everything at and below a directory, the innermost first.
pub fn unmount_below(mounts: &dyn Mounts, directory: &Path) -> Result<(), MountError> {
    let targets: Vec<_> = mounts
        .list()?
        .into_iter()
        .map(|mount| mount.target)
        .filter(|target| target.starts_with(directory))
        .collect();
    targets.iter().rev().try_for_each(|target| mounts.unmount(target, true))
}

/// Reads the text of `/proc/self/mountinfo`; lines that make no sense are left out.
pub fn parse_mountinfo(text: &str) -> Vec<MountInfo> {
    text.lines().filter_map(parse_line).collect()
}

fn parse_line(line: &str) -> Option<MountInfo> {
    let (mount, filesystem) = line.split_once(" - ")?;
    let mount: Vec<&str> = mount.split(' ').collect();
    let mut filesystem = filesystem.splitn(3, ' ');
    Some(MountInfo {
        root: unescape(mount.get(3)?).into(),
        target: unescape(mount.get(4)?).into(),
        options: (*mount.get(5)?).to_owned(),
        shared: mount.get(6..)?.iter().any(|field| field.starts_with("shared:")),
        fstype: filesystem.next()?.to_owned(),
        source: unescape(filesystem.next()?),
        super_options: filesystem.next().unwrap_or_default().to_owned(),
    })
}

/// The kernel writes space, tab, newline and backslash as a backslash and three octal digits.
fn unescape(field: &str) -> String {
    let mut out = Vec::with_capacity(field.len());
    let bytes = field.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        let digits = bytes
            .get(at + 1..at + 4)
            .filter(|d| bytes[at] == b'\\' && d.iter().all(|b| (b'0'..=b'7').contains(b)));
        match digits {
            Some(d) => {
                let value = d.iter().fold(0u32, |sum, digit| sum * 8 + u32::from(digit - b'0'));
                out.push(u8::try_from(value).unwrap_or(b'?'));
                at += 4;
            }
            None => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,errors=remount-ro
40 22 0:35 /a /var/lib/a\\040b ro,nosuid master:1 - tmpfs tmpfs rw,size=64k
41 22 0:36 / /plain rw - proc proc rw
nonsense
";

    #[test]
    fn mountinfo_is_read_with_optional_fields_and_escapes() {
        let mounts = parse_mountinfo(TEXT);
        assert_eq!(mounts.len(), 3);
        assert!(mounts[0].shared && !mounts[1].shared && !mounts[2].shared);
        assert_eq!(mounts[1].target, PathBuf::from("/var/lib/a b"));
        assert_eq!(mounts[1].root, PathBuf::from("/a"));
        assert_eq!((mounts[1].fstype.as_str(), mounts[1].super_options.as_str()), ("tmpfs", "rw,size=64k"));
        assert_eq!(mounts[2].options, "rw");
    }

    #[test]
    fn escapes_at_the_end_of_a_field_are_literal() {
        assert_eq!(unescape("a\\04"), "a\\04");
        assert_eq!(unescape("\\134\\040"), "\\ ");
    }
}
