//! Image volumes: the runtime mounts them itself where it can; an older containerd is asked through its own client to
//! mount the image below the pod's directory.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::host::Host;
use crate::host::processes::{self, Command, ProcessError};

const LIMIT: Duration = Duration::from_secs(60);

/// How to mount images for a containerd that cannot do it for pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageMounts {
    /// Its socket.
    pub socket: PathBuf,
    /// Where it unpacks images.
    pub snapshotter: String,
}

/// An image that cannot be mounted.
#[derive(Debug, thiserror::Error)]
pub enum ImageMountError {
    /// The place to mount it cannot be made or looked at.
    #[error("make {0}")]
    Target(String, #[source] std::io::Error),
    /// The runtime's client failed.
    #[error("mount image")]
    Client(#[from] ProcessError),
    /// The table of mounts cannot be read.
    #[error(transparent)]
    Mounts(#[from] crate::host::mounts::MountError),
}

/// Since this version containerd mounts images for pods.
const CAPABLE: (u32, u32) = (2, 1);

/// Whether the runtime mounts images itself. One whose version says nothing is taken at its word.
pub fn runtime_can(name: &str, version: &str) -> bool {
    let mut parts = version.trim_start_matches('v').split(['.', '-', '+', '~']).map(str::parse::<u32>);
    match (name, parts.next(), parts.next()) {
        ("containerd", Some(Ok(major)), Some(Ok(minor))) => (major, minor) >= CAPABLE,
        _ => true,
    }
}

/// Mounts the image read-only at `target`; may be repeated.
pub async fn mount(
    host: &Host,
    how: &ImageMounts,
    image: &str,
    target: &Path,
) -> Result<(), ImageMountError> {
    std::fs::create_dir_all(target).map_err(|e| ImageMountError::Target(target.display().to_string(), e))?;
    if host.mounts.is_mounted(target)? {
        return Ok(());
    }
    let (socket, target) = (how.socket.display().to_string(), target.display().to_string());
    let words =
        ["-a", &socket, "-n", "k8s.io", "images", "mount", "--snapshotter", &how.snapshotter, image, &target];
    processes::run(host.processes.as_ref(), Command::new("ctr", words), LIMIT).await?;
    Ok(())
}

/// Gives back what a mount held in containerd. The mount itself is already gone; a failure only costs a little space
/// until containerd forgets the lease.
pub async fn release(host: &Host, how: &ImageMounts, target: &Path) {
    let (socket, target) = (how.socket.display().to_string(), target.display().to_string());
    let base = ["-a", &socket, "-n", "k8s.io"];
    for words in
        [vec!["leases", "rm", &target], vec!["snapshots", "--snapshotter", &how.snapshotter, "rm", &target]]
    {
        let command = Command::new("ctr", base.iter().copied().chain(words).map(str::to_owned));
        if let Err(error) = processes::run(host.processes.as_ref(), command, LIMIT).await {
            tracing::debug!(target, error = &error as &dyn std::error::Error, "image mount not given back");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_runtimes_mount_images_themselves() {
        for (name, version, can) in [
            ("containerd", "1.6.20~ds1", false),
            ("containerd", "v2.0.4", false),
            ("containerd", "v2.1.0-rc.1", true),
            ("containerd", "3.0", true),
            ("cri-o", "1.33.0", true),
            ("containerd", "unknown", true),
        ] {
            assert_eq!(runtime_can(name, version), can, "{name} {version}");
        }
    }
}
