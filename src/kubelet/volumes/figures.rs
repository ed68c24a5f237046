//! How full the volumes of pods are: what drivers say of theirs, what the kernel says of what is mounted, and what lies
//! in directories of the node's own disk.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, Volume};
use kube::{Api, Client};
use tokio::time::Instant;

use super::claim::claim_of;
use super::csi::disk::{Places, VolumeData};
use crate::host::Host;
use crate::host::filesystems::{FilesystemUsage, tree_usage};
use crate::kubelet::plugins::Drivers;
use crate::kubelet::spec;
use crate::plugins::csi::{Capability, v1};

/// A directory is not counted again before.
const COUNT_AGAIN: Duration = Duration::from_secs(60);

/// One volume of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeUse {
    /// Its name in the pod's spec.
    pub name: String,
    /// Name of the claim behind it, in the pod's namespace.
    pub claim: Option<String>,
    /// Space and inodes; `used` is the volume's own even where it shares a file system.
    pub usage: FilesystemUsage,
    /// Inodes of the volume.
    pub inodes_used: u64,
}

/// Bytes and inodes, and when they were counted.
type Counted = (Instant, (u64, u64));

/// Looks at the volumes of one node.
pub struct VolumeFigures {
    client: Client,
    drivers: Drivers,
    host: Host,
    root: PathBuf,
    /// The persistent volumes of claims that have been asked for: a bound claim keeps its volume.
    bound: Mutex<HashMap<(String, String), String>>,
    /// What lies below directories.
    counted: Mutex<HashMap<PathBuf, Counted>>,
}

/// Where a volume is.
enum Place {
    /// A directory of the pod's own.
    Own(PathBuf),
    /// A file system.
    Mounted(PathBuf),
    /// A driver's.
    Driver(PathBuf, VolumeData),
}

impl VolumeFigures {
    /// Volumes below the kubelet's root.
    pub fn new(client: Client, drivers: Drivers, host: Host, root: PathBuf) -> Self {
        Self { client, drivers, host, root, bound: Mutex::default(), counted: Mutex::default() }
    }

    /// The volumes of a pod of which anything is known, in the order of the spec.
    pub async fn of(&self, pod: &Pod, uid: &str) -> Vec<VolumeUse> {
        self.those(pod, uid, |_| true).await
    }

    /// The same for volumes with claims only.
    pub async fn of_claims(&self, pod: &Pod, uid: &str) -> Vec<VolumeUse> {
        self.those(pod, uid, |claim| claim.is_some()).await
    }

    async fn those(&self, pod: &Pod, uid: &str, wanted: impl Fn(Option<&String>) -> bool) -> Vec<VolumeUse> {
        let mut out = Vec::new();
        for volume in spec::pod_spec(pod).volumes.iter().flatten() {
            let claim = claim_of(pod, volume).map(|(name, _)| name);
            if !wanted(claim.as_ref()) {
                continue;
            }
            let Some(place) = self.place(pod, uid, volume, claim.as_deref()).await else { continue };
            let Some(found) = self.look(place).await else { continue };
            out.push(VolumeUse { name: volume.name.clone(), claim, ..found });
        }
        out
    }

    async fn place(&self, pod: &Pod, uid: &str, volume: &Volume, claim: Option<&str>) -> Option<Place> {
        let volumes = self.root.join("pods").join(uid).join("volumes");
        let own = |plugin: &str| {
            Some(Place::Own(volumes.join(format!("kubernetes.io~{plugin}")).join(&volume.name)))
        };
        if let Some(source) = &volume.empty_dir {
            let Some(Place::Own(path)) = own("empty-dir") else { return None };
            let mounted = source.medium.as_deref().is_some_and(|medium| !medium.is_empty());
            return Some(if mounted { Place::Mounted(path) } else { Place::Own(path) });
        }
        if volume.config_map.is_some() {
            return own("configmap");
        }
        if volume.secret.is_some() {
            return own("secret");
        }
        if volume.projected.is_some() {
            return own("projected");
        }
        if volume.downward_api.is_some() {
            return own("downward-api");
        }
        let name = match claim {
            Some(claim) => self.persistent(spec::namespace(pod), claim).await?,
            None => volume.name.clone(),
        };
        let driven = Places::below(&self.root).of_pod(uid).into_iter().find(|(_, data)| data.name == name);
        if let Some((directory, data)) = driven {
            return Some(Place::Driver(Places::below(&self.root).target_of(&directory, uid, &data), data));
        }
        let mounted =
            ["local-volume", "nfs"].map(|plugin| volumes.join(format!("kubernetes.io~{plugin}")).join(&name));
        mounted.into_iter().find(|path| path.is_dir()).map(Place::Mounted)
    }

    /// Name of the persistent volume of a claim.
    async fn persistent(&self, namespace: &str, claim: &str) -> Option<String> {
        let key = (namespace.to_owned(), claim.to_owned());
        let locked = || self.bound.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = locked().get(&key) {
            return Some(known.clone());
        }
        let claims: Api<PersistentVolumeClaim> = Api::namespaced(self.client.clone(), namespace);
        let found = claims.get_opt(claim).await.ok()??;
        let name = found.spec?.volume_name.filter(|name| !name.is_empty())?;
        locked().insert(key, name.clone());
        Some(name)
    }

    async fn look(&self, place: Place) -> Option<VolumeUse> {
        match place {
            Place::Own(path) => {
                let filesystem = self.filesystem(&path)?;
                let (used, inodes_used) = self.tree(path).await?;
                Some(of_usage(FilesystemUsage { used, ..filesystem }, inodes_used))
            }
            Place::Mounted(path) => self.filesystem(&path).map(whole),
            Place::Driver(target, data) => {
                let driver = self.drivers.get(&data.driver_name);
                match driver.filter(|driver| driver.can(Capability::GetVolumeStats)) {
                    Some(driver) => {
                        let answer = driver.usage(&data.volume_handle, &target).await;
                        answer.ok().map(|answer| of_driver(&answer))
                    }
                    None => None,
                }
            }
        }
    }

    /// What lies below a directory. Counting takes long when that is much, so it is done once a minute at most.
    async fn tree(&self, path: PathBuf) -> Option<(u64, u64)> {
        let locked = || self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if let Some((_, known)) = locked().get(&path).filter(|(at, _)| now - *at < COUNT_AGAIN) {
            return Some(*known);
        }
        let directory = path.clone();
        let counted = tokio::task::spawn_blocking(move || tree_usage(&directory)).await.ok()?;
        let mut all = locked();
        all.retain(|_, (at, _)| now - *at < COUNT_AGAIN);
        all.insert(path, (now, counted));
        Some(counted)
    }

    fn filesystem(&self, path: &Path) -> Option<FilesystemUsage> {
        if !path.exists() {
            return None;
        }
        self.host.filesystems.usage(path).ok()
    }
}

fn of_usage(usage: FilesystemUsage, inodes_used: u64) -> VolumeUse {
    VolumeUse { name: String::new(), claim: None, usage, inodes_used }
}

fn whole(usage: FilesystemUsage) -> VolumeUse {
    of_usage(usage, usage.inodes.saturating_sub(usage.inodes_free))
}

fn of_driver(answer: &[v1::VolumeUsage]) -> VolumeUse {
    use v1::volume_usage::Unit;
    let number = |value: i64| u64::try_from(value).unwrap_or(0);
    let (mut usage, mut inodes_used) = (FilesystemUsage::default(), 0);
    for one in answer {
        match one.unit() {
            Unit::Bytes => {
                usage.capacity = number(one.total);
                usage.available = number(one.available);
                usage.used = number(one.used);
            }
            Unit::Inodes => {
                usage.inodes = number(one.total);
                usage.inodes_free = number(one.available);
                inodes_used = number(one.used);
            }
            Unit::Unknown => {}
        }
    }
    of_usage(usage, inodes_used)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::fake::FakeHost;
    use crate::kubelet::pods::fixture;
    use serde_json::json;

    fn figures(root: &Path, host: &FakeHost) -> VolumeFigures {
        let claim = json!({"kind": "PersistentVolumeClaim", "apiVersion": "v1", "metadata": {"name": "c"},
            "spec": {"volumeName": "pv"}});
        let api = tower::service_fn(move |_: http::Request<kube::client::Body>| {
            let claim = claim.to_string();
            async {
                Ok::<_, std::convert::Infallible>(http::Response::new(
                    http_body_util::Full::<bytes::Bytes>::from(claim),
                ))
            }
        });
        let client = Client::new(api, "default");
        VolumeFigures::new(client, Drivers::default(), host.host(), root.to_owned())
    }

    #[tokio::test]
    async fn directories_are_counted_and_file_systems_asked() {
        let (dir, host) = (tempfile::tempdir().unwrap(), FakeHost::default());
        let volumes = dir.path().join("pods/u1/volumes");
        for path in
            ["kubernetes.io~empty-dir/v", "kubernetes.io~empty-dir/m", "kubernetes.io~local-volume/pv"]
        {
            std::fs::create_dir_all(volumes.join(path)).unwrap();
        }
        std::fs::write(volumes.join("kubernetes.io~empty-dir/v/f"), vec![1; 100_000]).unwrap();
        let small = FilesystemUsage { capacity: 1000, available: 600, used: 400, inodes: 10, inodes_free: 7 };
        host.filesystems.set(&volumes.join("kubernetes.io~empty-dir/m"), small);
        host.filesystems
            .set(&volumes.join("kubernetes.io~local-volume"), FilesystemUsage { used: 5, ..small });
        let pod = fixture::pod(json!({"containers": [], "volumes": [
            {"name": "v", "emptyDir": {}}, {"name": "m", "emptyDir": {"medium": "Memory"}},
            {"name": "h", "hostPath": {"path": "/"}}, {"name": "gone", "configMap": {"name": "x"}},
            {"name": "p", "persistentVolumeClaim": {"claimName": "c"}}]}));
        let got = figures(dir.path(), &host).of(&pod, "u1").await;
        let names: Vec<_> = got.iter().map(|v| (v.name.as_str(), v.claim.as_deref())).collect();
        assert_eq!(names, [("v", None), ("m", None), ("p", Some("c"))]);
        assert!(got[0].usage.used >= 100_000 && got[0].inodes_used == 2 && got[0].usage.capacity > 1 << 30);
        assert_eq!((got[1].usage, got[1].inodes_used), (small, 3));
        assert_eq!(got[2].usage.used, 5);
    }

    #[test]
    fn drivers_count_bytes_and_inodes() {
        use v1::volume_usage::Unit;
        let one = |unit: Unit, total| v1::VolumeUsage { unit: unit.into(), total, available: 60, used: 40 };
        let got = of_driver(&[one(Unit::Bytes, 100), one(Unit::Inodes, 101)]);
        assert_eq!((got.usage.capacity, got.usage.inodes, got.inodes_used), (100, 101, 40));
    }
}
