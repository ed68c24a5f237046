//! The mounts of a container: its volumes, the managed hosts file, the file for its termination message.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{Container, VolumeMount};

use super::expand::expand;
use crate::cri::v1;

/// A volume that is ready on the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadyVolume {
    /// Directory or file on the host.
    pub path: PathBuf,
    /// The volume itself cannot be written.
    pub read_only: bool,
    /// It is a device and not a file system.
    pub block: bool,
    /// Image that the runtime mounts itself; the path means nothing then.
    pub image: Option<String>,
}

/// A volume mount that cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MountError {
    /// The pod has no such volume.
    #[error("cannot find volume \"{volume}\" to mount into container \"{container}\"")]
    NoVolume {
        /// Name of the volume.
        volume: String,
        /// Name of the container.
        container: String,
    },
    /// A device is asked for as a file system, or the other way round.
    #[error(
        "volume \"{volume}\" has volumeMode {mode}, but is specified in {list} of container \"{container}\""
    )]
    Mode {
        /// Name of the volume.
        volume: String,
        /// What the volume is.
        mode: &'static str,
        /// Where the container names it.
        list: &'static str,
        /// Name of the container.
        container: String,
    },
    /// The sub path leaves the volume.
    #[error("subPath \"{0}\" must not contain '..' and must be relative")]
    SubPath(String),
    /// The sub path refers to a variable that is not set.
    #[error("subPathExpr \"{0}\" refers to a variable that is not set")]
    SubPathExpr(String),
}

/// One wanted mount, with the sub path still to be resolved on the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WantedMount {
    /// Index in the container's `volumeMounts`.
    pub index: usize,
    /// The volume.
    pub volume: ReadyVolume,
    /// Path inside the volume, when only a part of it is mounted.
    pub sub_path: Option<PathBuf>,
    /// Path inside the container.
    pub container_path: String,
    /// Not writable.
    pub read_only: bool,
    /// Not writable below either.
    pub recursive_read_only: bool,
    /// How mounts made later travel between host and container.
    pub propagation: i32,
}

/// Reads a container's volume mounts against the volumes that are ready.
pub fn wanted_mounts(
    container: &Container,
    volumes: &BTreeMap<String, ReadyVolume>,
    env: &[(String, String)],
) -> Result<Vec<WantedMount>, MountError> {
    let mounts = container.volume_mounts.iter().flatten().enumerate();
    mounts.map(|(index, mount)| wanted(container, index, mount, volumes, env)).collect()
}

fn wanted(
    container: &Container,
    index: usize,
    mount: &VolumeMount,
    volumes: &BTreeMap<String, ReadyVolume>,
    env: &[(String, String)],
) -> Result<WantedMount, MountError> {
    let volume = volumes.get(&mount.name).ok_or_else(|| MountError::NoVolume {
        volume: mount.name.clone(),
        container: container.name.clone(),
    })?;
    if volume.block {
        return Err(wrong_mode(container, &mount.name, "Block", "volumeMounts"));
    }
    let read_only = mount.read_only.unwrap_or(false);
    let sub_path = sub_path(mount, env)?;
    Ok(WantedMount {
        index,
        volume: volume.clone(),
        sub_path,
        container_path: Path::new("/").join(&mount.mount_path).display().to_string(),
        read_only: read_only || volume.read_only,
        recursive_read_only: read_only && mount.recursive_read_only.as_deref() == Some("Enabled"),
        propagation: propagation(mount.mount_propagation.as_deref()),
    })
}

fn wrong_mode(container: &Container, volume: &str, mode: &'static str, list: &'static str) -> MountError {
    MountError::Mode { volume: volume.to_owned(), mode, list, container: container.name.clone() }
}

/// Reads a container's `volumeDevices` against the volumes that are ready.
pub fn devices(
    container: &Container,
    volumes: &BTreeMap<String, ReadyVolume>,
) -> Result<Vec<v1::Device>, MountError> {
    let wanted = container.volume_devices.iter().flatten();
    wanted
        .map(|device| {
            let missing =
                || MountError::NoVolume { volume: device.name.clone(), container: container.name.clone() };
            let volume = volumes.get(&device.name).ok_or_else(missing)?;
            if !volume.block {
                return Err(wrong_mode(container, &device.name, "Filesystem", "volumeDevices"));
            }
            Ok(v1::Device {
                container_path: device.device_path.clone(),
                host_path: volume.path.display().to_string(),
                permissions: if volume.read_only { "r" } else { "mrw" }.to_owned(),
            })
        })
        .collect()
}

fn sub_path(mount: &VolumeMount, env: &[(String, String)]) -> Result<Option<PathBuf>, MountError> {
    let text = match (mount.sub_path.as_deref(), mount.sub_path_expr.as_deref()) {
        (Some(plain), _) if !plain.is_empty() => plain.to_owned(),
        (_, Some(expr)) if !expr.is_empty() => {
            let out = expand(expr, |name| env.iter().find(|(k, _)| k == name).map(|(_, v)| v.as_str()));
            if out.contains("$(") {
                return Err(MountError::SubPathExpr(expr.to_owned()));
            }
            out
        }
        _ => return Ok(None),
    };
    if text.is_empty() {
        return Ok(None);
    }
    let path = PathBuf::from(&text);
    let inside = path
        .components()
        .all(|c| matches!(c, std::path::Component::Normal(_) | std::path::Component::CurDir));
    if inside { Ok(Some(path)) } else { Err(MountError::SubPath(text)) }
}

fn propagation(word: Option<&str>) -> i32 {
    let mode = match word {
        Some("HostToContainer") => v1::MountPropagation::PropagationHostToContainer,
        Some("Bidirectional") => v1::MountPropagation::PropagationBidirectional,
        _ => v1::MountPropagation::PropagationPrivate,
    };
    mode.into()
}

impl WantedMount {
    /// The CRI mount, once the path on the host is known.
    pub fn into_cri(self, host_path: &Path) -> v1::Mount {
        if let Some(image) = self.volume.image {
            return v1::Mount {
                container_path: self.container_path,
                readonly: true,
                image: Some(v1::ImageSpec { image, ..v1::ImageSpec::default() }),
                image_sub_path: self.sub_path.map(|p| p.display().to_string()).unwrap_or_default(),
                ..v1::Mount::default()
            };
        }
        v1::Mount {
            container_path: self.container_path,
            host_path: host_path.display().to_string(),
            readonly: self.read_only,
            propagation: self.propagation,
            recursive_read_only: self.recursive_read_only,
            ..v1::Mount::default()
        }
    }
}

/// Whether the container puts something of its own at this path.
pub fn mounts_at(container: &Container, path: &str) -> bool {
    container.volume_mounts.iter().flatten().any(|m| m.mount_path.trim_end_matches('/') == path)
}

/// Host file for the termination message of one run of a container.
pub fn termination_log(pod_dir: &Path, container: &str, attempt: u32) -> PathBuf {
    pod_dir.join("containers").join(container).join(attempt.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn one(mount: serde_json::Value) -> Result<WantedMount, MountError> {
        let container: Container =
            serde_json::from_value(json!({"name": "a", "volumeMounts": [mount]})).unwrap();
        let volume = ReadyVolume { path: "/v".into(), read_only: false, block: false, image: None };
        let env = [("X".to_owned(), "sub/dir".to_owned()), ("UP".to_owned(), "../x".to_owned())];
        let mut all = wanted_mounts(&container, &[("vol".to_owned(), volume)].into(), &env)?;
        Ok(all.remove(0))
    }

    #[test]
    fn flags_and_propagation_are_kept() {
        let got = one(json!({"name": "vol", "mountPath": "data", "readOnly": true,
                             "recursiveReadOnly": "Enabled", "mountPropagation": "Bidirectional"}))
        .unwrap();
        assert_eq!(
            (got.container_path.as_str(), got.read_only, got.recursive_read_only),
            ("/data", true, true)
        );
        assert_eq!(got.into_cri(Path::new("/h")).propagation, 2);
    }

    #[test]
    fn sub_paths_stay_inside_the_volume() {
        for (mount, want) in [
            (json!({"name": "vol", "mountPath": "/d", "subPath": "a/b"}), Ok(Some("a/b"))),
            (json!({"name": "vol", "mountPath": "/d", "subPathExpr": "$(X)/y"}), Ok(Some("sub/dir/y"))),
            (json!({"name": "vol", "mountPath": "/d", "subPath": "../b"}), Err(())),
            (json!({"name": "vol", "mountPath": "/d", "subPath": "/b"}), Err(())),
            (json!({"name": "vol", "mountPath": "/d", "subPathExpr": "$(UP)"}), Err(())),
            (json!({"name": "vol", "mountPath": "/d", "subPathExpr": "$(NONE)"}), Err(())),
            (json!({"name": "vol", "mountPath": "/d"}), Ok(None)),
        ] {
            let got = one(mount.clone()).map(|m| m.sub_path).map_err(|_| ());
            assert_eq!(got, want.map(|w| w.map(PathBuf::from)), "{mount}");
        }
    }

    #[test]
    fn devices_and_file_systems_are_not_mixed_up() {
        let container: Container = serde_json::from_value(json!({"name": "a",
            "volumeMounts": [{"name": "f", "mountPath": "/f"}],
            "volumeDevices": [{"name": "b", "devicePath": "/dev/x"}]}))
        .unwrap();
        let volume = |block| ReadyVolume { path: "/v".into(), read_only: true, block, image: None };
        let volumes = |f, b| [("f".to_owned(), volume(f)), ("b".to_owned(), volume(b))].into();
        let got = devices(&container, &volumes(false, true)).unwrap().remove(0);
        assert_eq!((got.container_path.as_str(), got.permissions.as_str()), ("/dev/x", "r"));
        assert!(devices(&container, &volumes(false, false)).is_err());
        assert!(wanted_mounts(&container, &volumes(true, true), &[]).is_err());
    }

    #[test]
    fn an_image_is_left_to_the_runtime() {
        let mut mount = one(json!({"name": "vol", "mountPath": "/d", "subPath": "a"})).unwrap();
        mount.volume.image = Some("sha256:1".into());
        let got = mount.into_cri(Path::new("/nothing"));
        assert_eq!((got.host_path.as_str(), got.image_sub_path.as_str(), got.readonly), ("", "a", true));
        assert_eq!(got.image.unwrap().image, "sha256:1");
    }

    #[test]
    fn a_missing_volume_is_named() {
        let error = one(json!({"name": "other", "mountPath": "/d"})).unwrap_err();
        assert_eq!(error.to_string(), "cannot find volume \"other\" to mount into container \"a\"");
    }
}
