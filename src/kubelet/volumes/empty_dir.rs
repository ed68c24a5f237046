//! emptyDir volumes: a directory on disk, or a file system in memory.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use k8s_openapi::api::core::v1::EmptyDirVolumeSource;

use crate::host::mounts::{MountError, MountKind, Mounts};
use crate::kubelet::containers::resources::{page_size, page_suffix, units};

/// An emptyDir that cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum EmptyDirError {
    /// The directory.
    #[error("make directory")]
    Directory(#[source] io::Error),
    /// The file system in memory.
    #[error("mount")]
    Mount(#[source] MountError),
    /// The medium has no known name.
    #[error("unknown storage medium {0:?}")]
    Medium(String),
    /// The pod asks for pages of several sizes, and the volume names none.
    #[error(
        "medium HugePages can be used only if a container of the pod asks for huge pages, all of one size: {0:?}"
    )]
    PageSizes(Vec<String>),
    /// No container asks for such pages.
    #[error("no container of the pod asks for the pages of medium {0:?}")]
    PageSize(String),
}

/// Makes the volume at `path`; one that is there already is kept with its content. A file system in memory is no
/// larger than `room`, in bytes; `pages` are the sizes of huge pages that the pod asks for.
pub fn prepare(
    mounts: &dyn Mounts,
    path: &Path,
    source: &EmptyDirVolumeSource,
    room: Option<i64>,
    pages: &[u64],
) -> Result<(), EmptyDirError> {
    let medium = source.medium.as_deref().unwrap_or_default();
    let fresh = !path.exists();
    std::fs::create_dir_all(path).map_err(EmptyDirError::Directory)?;
    if fresh {
        let open = std::fs::Permissions::from_mode(0o777);
        std::fs::set_permissions(path, open).map_err(EmptyDirError::Directory)?;
    }
    let kind = match medium {
        "" => return Ok(()),
        "Memory" => {
            let size = source.size_limit.as_ref().map(units).into_iter().chain(room).filter(|s| *s > 0).min();
            MountKind::Tmpfs { size: size.and_then(|s| u64::try_from(s).ok()), mode: 0o777 }
        }
        huge if huge.starts_with("HugePages") => {
            let size = page_of(huge, pages)?;
            MountKind::Device {
                fstype: "hugetlbfs".to_owned(),
                source: "nodev".to_owned(),
                // The kernel says 2M where Kubernetes says 2Mi.
                options: format!("pagesize={}", page_suffix(size).trim_end_matches('i')),
                read_only: false,
            }
        }
        other => return Err(EmptyDirError::Medium(other.to_owned())),
    };
    if mounts.is_mounted(path).map_err(EmptyDirError::Mount)? {
        return Ok(());
    }
    mounts.mount(path, &kind).map_err(EmptyDirError::Mount)
}

/// The size of the pages of a medium such as `HugePages-2Mi`, or of `HugePages`, which leaves it to the pod.
fn page_of(medium: &str, pages: &[u64]) -> Result<u64, EmptyDirError> {
    match (medium.strip_prefix("HugePages-").map(page_size), pages) {
        (Some(Some(size)), _) if pages.contains(&size) => Ok(size),
        (Some(Some(_)), _) => Err(EmptyDirError::PageSize(medium.to_owned())),
        (None, [size]) if medium == "HugePages" => Ok(*size),
        (None, _) if medium == "HugePages" => {
            Err(EmptyDirError::PageSizes(pages.iter().map(|size| page_suffix(*size)).collect()))
        }
        _ => Err(EmptyDirError::Medium(medium.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::fake::FakeMounts;
    use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

    #[test]
    fn memory_is_mounted_once_with_its_limit() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("v");
        let mounts = FakeMounts::default();
        let source =
            EmptyDirVolumeSource { medium: Some("Memory".into()), size_limit: Some(Quantity("64Mi".into())) };
        prepare(&mounts, &path, &source, Some(1 << 30), &[]).unwrap();
        prepare(&mounts, &path, &source, None, &[]).unwrap();
        assert_eq!(mounts.at(&path), Some(MountKind::Tmpfs { size: Some(64 << 20), mode: 0o777 }));
        assert_eq!(mounts.targets().len(), 1);
    }

    #[test]
    fn memory_without_a_limit_of_its_own_is_bounded_by_what_the_pod_may_use() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("v");
        let mounts = FakeMounts::default();
        let source = EmptyDirVolumeSource { medium: Some("Memory".into()), size_limit: None };
        prepare(&mounts, &path, &source, Some(1 << 20), &[]).unwrap();
        assert_eq!(mounts.at(&path), Some(MountKind::Tmpfs { size: Some(1 << 20), mode: 0o777 }));
    }

    #[test]
    fn disk_is_a_directory_open_to_all() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("v");
        let mounts = FakeMounts::default();
        prepare(&mounts, &path, &EmptyDirVolumeSource::default(), None, &[]).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o777);
        assert!(mounts.targets().is_empty());
        let odd = EmptyDirVolumeSource { medium: Some("Paper".into()), size_limit: None };
        assert!(matches!(prepare(&mounts, &path, &odd, None, &[]), Err(EmptyDirError::Medium(_))));
    }

    #[test]
    fn huge_pages_are_of_the_size_that_the_pod_asks_for() {
        let (two, gib) = (2 << 20, 1 << 30);
        for (medium, pages, want) in [
            ("HugePages-2Mi", vec![two, gib], Some("pagesize=2M")),
            ("HugePages-1Gi", vec![two, gib], Some("pagesize=1G")),
            ("HugePages", vec![two], Some("pagesize=2M")),
            ("HugePages", vec![two, gib], None),
            ("HugePages", vec![], None),
            ("HugePages-2Mi", vec![gib], None),
            ("HugePages-x", vec![gib], None),
        ] {
            let dir = tempfile::tempdir().unwrap();
            let (path, mounts) = (dir.path().join("v"), FakeMounts::default());
            let source = EmptyDirVolumeSource { medium: Some(medium.into()), size_limit: None };
            let made = prepare(&mounts, &path, &source, None, &pages);
            let options = mounts.at(&path).map(|kind| match kind {
                MountKind::Device { fstype, options, .. } => format!("{fstype} {options}"),
                other => panic!("{other:?}"),
            });
            assert_eq!(
                (made.is_ok(), options),
                (want.is_some(), want.map(|o| format!("hugetlbfs {o}"))),
                "{medium}"
            );
        }
    }
}
