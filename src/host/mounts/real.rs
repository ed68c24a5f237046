//! Mounts by system calls.

use std::fs;
use std::path::Path;

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use super::{MountError, MountInfo, MountKind, Mounts, parse_mountinfo};

const MOUNTINFO: &str = "/proc/self/mountinfo";

/// Mounts of our mount namespace.
#[derive(Debug, Clone, Copy)]
pub struct RealMounts;

impl Mounts for RealMounts {
    fn list(&self) -> Result<Vec<MountInfo>, MountError> {
        let path = Path::new(MOUNTINFO);
        let text = fs::read_to_string(path).map_err(|error| MountError::new("read", path, error))?;
        Ok(parse_mountinfo(&text))
    }

    fn mount(&self, target: &Path, kind: &MountKind) -> Result<(), MountError> {
        match kind {
            MountKind::Bind { source, read_only } => bind(source, target, *read_only),
            MountKind::Tmpfs { size, mode } => {
                let size = size.map(|bytes| format!(",size={bytes}")).unwrap_or_default();
                let options = format!("mode={mode:o}{size}");
                let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
                mount(Some("tmpfs"), target, Some("tmpfs"), flags, Some(options.as_str()))
                    .map_err(|errno| MountError::new("mount tmpfs on", target, errno))
            }
            MountKind::Device { fstype, source, options, read_only } => {
                let flags = if *read_only { MsFlags::MS_RDONLY } else { MsFlags::empty() };
                mount(Some(source.as_str()), target, Some(fstype.as_str()), flags, Some(options.as_str()))
                    .map_err(|errno| MountError::new("mount", target, errno))
            }
        }
    }

    fn make_shared(&self, target: &Path) -> Result<(), MountError> {
        let flags = MsFlags::MS_SHARED | MsFlags::MS_REC;
        mount(None::<&str>, target, None::<&str>, flags, None::<&str>)
            .map_err(|errno| MountError::new("make shared", target, errno))
    }

    fn unmount(&self, target: &Path, detach: bool) -> Result<(), MountError> {
        let flags = if detach { MntFlags::MNT_DETACH } else { MntFlags::empty() };
        match umount2(target, flags | MntFlags::UMOUNT_NOFOLLOW) {
            // EINVAL: nothing is mounted there.
            Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => Ok(()),
            Err(errno) => Err(MountError::new("unmount", target, errno)),
        }
    }
}

/// A bind mount becomes read-only only by a second call.
fn bind(source: &Path, target: &Path, read_only: bool) -> Result<(), MountError> {
    let failed = |errno| MountError::new("bind mount on", target, errno);
    let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
    mount(Some(source), target, None::<&str>, flags, None::<&str>).map_err(failed)?;
    if read_only {
        let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
        mount(None::<&str>, target, None::<&str>, flags, None::<&str>).map_err(failed)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_is_mounted() {
        assert!(RealMounts.is_mounted(Path::new("/")).unwrap());
        assert!(!RealMounts.is_mounted(Path::new("/no/such/mount")).unwrap());
    }

    #[test]
    fn unmounting_what_is_not_mounted_is_no_error_for_root() {
        let dir = tempfile::tempdir().unwrap();
        let answer = RealMounts.unmount(dir.path(), false);
        assert!(answer.is_ok() || !nix::unistd::geteuid().is_root(), "{answer:?}");
    }

    #[test]
    fn failures_name_operation_and_target() {
        let missing = Path::new("/no/such/target");
        let kind = MountKind::Tmpfs { size: Some(1 << 20), mode: 0o755 };
        let error = RealMounts.mount(missing, &kind).unwrap_err();
        assert_eq!(error.to_string(), "mount tmpfs on /no/such/target");
    }
}
