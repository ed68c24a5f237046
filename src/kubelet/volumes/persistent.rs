//! Puts persistent volumes (and inline NFS) where a pod's containers can have them: hostPath, local, nfs.

use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use k8s_openapi::api::core::v1::{NFSVolumeSource, PersistentVolumeSpec};

use super::host_path::{self, HostPathError};
use crate::host::Host;
use crate::host::mounts::{MountError, MountKind};
use crate::host::processes::{self, Command, ProcessError};
use crate::kubelet::containers::mounts::ReadyVolume;

/// How long a server on the network may take.
const NFS_LIMIT: Duration = Duration::from_secs(120);

/// A persistent volume that cannot be used here.
#[derive(Debug, thiserror::Error)]
pub enum PersistentError {
    /// The path on the host is not there, or not what it should be.
    #[error(transparent)]
    HostPath(#[from] HostPathError),
    /// The path cannot be looked at.
    #[error("stat {0}")]
    Stat(String, #[source] io::Error),
    /// A volume that is asked for as a device is none.
    #[error("{0} is not a block device")]
    NoDevice(String),
    /// The place to mount it cannot be made.
    #[error("make {0}")]
    Target(String, #[source] io::Error),
    /// The mount failed.
    #[error("mount volume")]
    Mount(#[source] MountError),
    /// The helper for network file systems failed.
    #[error("mount {0}")]
    Helper(String, #[source] ProcessError),
    /// This node does not know the type.
    #[error("volume type is not supported on this node")]
    Unsupported,
}

/// What became of a volume: where it is, and whether its files may be given to the pod's group.
#[derive(Debug)]
pub struct Placed {
    /// The volume.
    pub ready: ReadyVolume,
    /// `fsGroup` applies to it.
    pub owned: bool,
}

/// Makes a persistent volume ready below `volumes`, the pod's own directory. May be repeated.
pub async fn place(
    host: &Host,
    name: &str,
    volume: &PersistentVolumeSpec,
    read_only: bool,
    volumes: &Path,
) -> Result<Placed, PersistentError> {
    let block = volume.volume_mode.as_deref() == Some("Block");
    let at =
        |path: PathBuf, owned| Placed { ready: ReadyVolume { path, read_only, block, image: None }, owned };
    if let Some(source) = &volume.host_path {
        let path = Path::new(&source.path);
        host_path::prepare(path, source.type_.as_deref().unwrap_or_default())?;
        return Ok(at(path.to_owned(), false));
    }
    if let Some(source) = &volume.local {
        let path = Path::new(&source.path);
        let kind =
            std::fs::metadata(path).map_err(|e| PersistentError::Stat(source.path.clone(), e))?.file_type();
        if block {
            let device = kind.is_block_device().then(|| at(path.to_owned(), false));
            return device.ok_or_else(|| PersistentError::NoDevice(source.path.clone()));
        }
        let target = volumes.join("kubernetes.io~local-volume").join(name);
        let mount = if kind.is_block_device() {
            MountKind::Device {
                fstype: source.fs_type.clone().unwrap_or_else(|| "ext4".to_owned()),
                source: source.path.clone(),
                options: volume.mount_options.iter().flatten().cloned().collect::<Vec<_>>().join(","),
                read_only,
            }
        } else {
            MountKind::Bind { source: path.to_owned(), read_only }
        };
        if fresh(host, &target)? {
            host.mounts.mount(&target, &mount).map_err(PersistentError::Mount)?;
        }
        return Ok(at(target, !read_only));
    }
    if let Some(source) = &volume.nfs {
        let options = volume.mount_options.clone().unwrap_or_default();
        let target = nfs(host, name, source, &options, read_only, volumes).await?;
        return Ok(at(target, false));
    }
    Err(PersistentError::Unsupported)
}

/// Mounts a directory of an NFS server; the helper of the host speaks with it.
pub async fn nfs(
    host: &Host,
    name: &str,
    source: &NFSVolumeSource,
    options: &[String],
    read_only: bool,
    volumes: &Path,
) -> Result<PathBuf, PersistentError> {
    let target = volumes.join("kubernetes.io~nfs").join(name);
    if !fresh(host, &target)? {
        return Ok(target);
    }
    let from = format!("{}:{}", source.server, source.path);
    let mut options = options.to_vec();
    if read_only || source.read_only == Some(true) {
        options.push("ro".to_owned());
    }
    let mut words = vec!["-t".to_owned(), "nfs".to_owned()];
    if !options.is_empty() {
        words.extend(["-o".to_owned(), options.join(",")]);
    }
    words.extend([from.clone(), target.display().to_string()]);
    let ran = processes::run(host.processes.as_ref(), Command::new("mount", words), NFS_LIMIT).await;
    ran.map(|_| target).map_err(|error| PersistentError::Helper(from, error))
}

/// Makes the directory; true when nothing is mounted there yet.
fn fresh(host: &Host, target: &Path) -> Result<bool, PersistentError> {
    std::fs::create_dir_all(target).map_err(|e| PersistentError::Target(target.display().to_string(), e))?;
    Ok(!host.mounts.is_mounted(target).map_err(PersistentError::Mount)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::fake::FakeHost;
    use serde_json::{Value, json};

    async fn placed(host: &FakeHost, volume: Value, volumes: &Path) -> Result<Placed, PersistentError> {
        let volume = serde_json::from_value(volume).unwrap();
        place(&host.host(), "pv", &volume, false, volumes).await
    }

    #[tokio::test]
    async fn host_paths_are_used_where_they_are() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data");
        let spec = json!({"hostPath": {"path": path, "type": "DirectoryOrCreate"}});
        let got = placed(&FakeHost::default(), spec, dir.path()).await.unwrap();
        assert_eq!((got.ready.path.as_path(), got.owned), (path.as_path(), false));
        assert!(path.is_dir());
    }

    #[tokio::test]
    async fn local_directories_are_bound_once() {
        let dir = tempfile::tempdir().unwrap();
        let host = FakeHost::default();
        for _ in 0..2 {
            let got = placed(&host, json!({"local": {"path": dir.path()}}), dir.path()).await.unwrap();
            assert!(got.owned && got.ready.path.ends_with("kubernetes.io~local-volume/pv"));
        }
        assert_eq!(host.mounts.targets().len(), 1);
        let missing = placed(&host, json!({"local": {"path": "/no/such"}}), dir.path()).await;
        assert!(matches!(missing, Err(PersistentError::Stat(..))));
    }

    #[tokio::test]
    async fn a_block_volume_must_be_a_device() {
        let dir = tempfile::tempdir().unwrap();
        let spec = json!({"local": {"path": dir.path()}, "volumeMode": "Block"});
        let got = placed(&FakeHost::default(), spec, dir.path()).await;
        assert!(matches!(got, Err(PersistentError::NoDevice(_))));
    }
}
