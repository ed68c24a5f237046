//! Makes a pod's volumes ready, keeps those from the API up to date, gives everything back in the end.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{ConfigMap, Node, Pod, Secret, Volume};
use kube::{Api, Client};

use super::csi::CsiVolumes;
use super::payload::{self, Objects, PayloadError, References};
use super::token::Tokens;
use super::{atomic, claim, csi, empty_dir, host_path, image, ownership, persistent, sub_path};
use crate::host::Host;
use crate::host::mounts::{MountError, unmount_below};
use crate::kubelet::config::KubeletConfig;
use crate::kubelet::containers::field_ref::NodeFacts;
use crate::kubelet::containers::mounts::{ReadyVolume, WantedMount};
use crate::kubelet::containers::resources;
use crate::kubelet::plugins::Drivers;
use crate::kubelet::spec;

/// Why a volume is not ready.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    /// An object cannot be read from the API.
    #[error("get {kind} \"{name}\"")]
    Get {
        /// Kind of the object.
        kind: &'static str,
        /// Its name.
        name: String,
        /// What the API said.
        #[source]
        source: kube::Error,
    },
    /// The files cannot be made up.
    #[error(transparent)]
    Payload(#[from] PayloadError),
    /// The files cannot be written.
    #[error("write files")]
    Write(#[source] io::Error),
    /// An emptyDir failed.
    #[error(transparent)]
    EmptyDir(#[from] empty_dir::EmptyDirError),
    /// A hostPath failed.
    #[error(transparent)]
    HostPath(#[from] host_path::HostPathError),
    /// The group could not be set.
    #[error("apply fsGroup")]
    FsGroup(#[source] io::Error),
    /// A sub path failed.
    #[error(transparent)]
    SubPath(#[from] sub_path::SubPathError),
    /// The claim gives no volume.
    #[error(transparent)]
    Claim(#[from] claim::ClaimError),
    /// A persistent volume failed.
    #[error(transparent)]
    Persistent(#[from] persistent::PersistentError),
    /// A driver failed.
    #[error(transparent)]
    Csi(#[from] csi::CsiError),
    /// An image could not be mounted.
    #[error(transparent)]
    Image(#[from] image::ImageMountError),
    /// This node does not know the type.
    #[error("volume type is not supported on this node")]
    Unsupported,
}

/// One volume that is not ready.
#[derive(Debug, thiserror::Error)]
#[error("MountVolume.SetUp failed for volume \"{volume}\" ")]
pub struct SetUpError {
    /// Name of the volume.
    pub volume: String,
    /// Why.
    #[source]
    pub source: VolumeError,
}

/// Volumes of all pods of this node.
pub struct Volumes {
    config: Arc<KubeletConfig>,
    client: Client,
    host: Host,
    tokens: Tokens,
    csi: Arc<CsiVolumes>,
}

/// What cleaning up ran into.
#[derive(Debug, thiserror::Error)]
pub enum CleanError {
    /// A driver does not take a volume back.
    #[error(transparent)]
    Csi(#[from] csi::CsiError),
    /// Something is still mounted.
    #[error("unmount")]
    Unmount(#[source] MountError),
    /// A directory could not be removed.
    #[error("remove {0}")]
    Remove(String, #[source] io::Error),
}

impl Volumes {
    /// Volumes below the configured root, with the drivers that register.
    pub fn new(config: Arc<KubeletConfig>, client: Client, host: Host, drivers: Drivers) -> Self {
        let csi = CsiVolumes::new(config.clone(), client.clone(), host.clone(), drivers);
        Self { config, client, host, tokens: Tokens::default(), csi: Arc::new(csi) }
    }

    /// The registered CSI drivers.
    pub fn drivers(&self) -> &Drivers {
        self.csi.drivers()
    }

    /// The volumes of CSI drivers.
    pub fn csi(&self) -> &Arc<CsiVolumes> {
        &self.csi
    }

    /// The time.
    pub fn now(&self) -> jiff::Timestamp {
        self.host.clock.now()
    }

    /// The tokens of the pods.
    pub fn tokens(&self) -> &Tokens {
        &self.tokens
    }

    /// Where the pod's volumes are, whether ready or not.
    pub fn locate(&self, pod: &Pod) -> BTreeMap<String, ReadyVolume> {
        let dir = self.config.pod_dir(spec::uid(pod)).join("volumes");
        let volumes = spec::pod_spec(pod).volumes.iter().flatten();
        volumes.map(|v| (v.name.clone(), locate(&dir, v))).collect()
    }

    /// Makes all volumes ready. May be repeated at any time.
    pub async fn prepare(
        &self,
        pod: &Pod,
        facts: &NodeFacts,
        node: Option<&Node>,
    ) -> Result<BTreeMap<String, ReadyVolume>, SetUpError> {
        let mut located = self.locate(pod);
        for volume in spec::pod_spec(pod).volumes.iter().flatten() {
            let failed = |source| SetUpError { volume: volume.name.clone(), source };
            let path = &located[&volume.name].path;
            if payload::is_projected(volume) {
                self.project(pod, volume, path, facts, None).await.map(drop).map_err(failed)?;
            } else if let Some(elsewhere) = self.persistent(pod, volume, node).await.map_err(failed)? {
                located.insert(volume.name.clone(), elsewhere);
            } else {
                self.make(pod, volume, path, facts).map_err(failed)?;
            }
        }
        Ok(located)
    }

    /// Writes the volumes whose content comes from the API again; `known` answers for objects that are watched.
    pub async fn refresh(&self, pod: &Pod, facts: &NodeFacts, known: &Objects) -> Result<bool, SetUpError> {
        let located = self.locate(pod);
        let mut changed = false;
        for volume in spec::pod_spec(pod).volumes.iter().flatten().filter(|v| payload::is_projected(v)) {
            let path = &located[&volume.name].path;
            let written = self.project(pod, volume, path, facts, Some(known)).await;
            changed |= written.map_err(|source| SetUpError { volume: volume.name.clone(), source })?;
        }
        Ok(changed)
    }

    /// A volume that is not the pod's own, when this is one.
    async fn persistent(
        &self,
        pod: &Pod,
        volume: &Volume,
        node: Option<&Node>,
    ) -> Result<Option<ReadyVolume>, VolumeError> {
        let volumes = self.config.pod_dir(spec::uid(pod)).join("volumes");
        if let Some(source) = &volume.nfs {
            let read_only = source.read_only.unwrap_or(false);
            let path = persistent::nfs(&self.host, &volume.name, source, &[], read_only, &volumes).await?;
            return Ok(Some(ReadyVolume { path, read_only, block: false, image: None }));
        }
        if let Some(wanted) = csi::Wanted::inline(pod, volume) {
            return Ok(Some(self.csi.mount(pod, &wanted, &self.tokens).await?));
        }
        let Some(claimed) = claim::resolve(&self.client, pod, volume, node).await? else { return Ok(None) };
        if let Some(wanted) = csi::Wanted::persistent(&claimed.volume, claimed.read_only) {
            return Ok(Some(self.csi.mount(pod, &wanted, &self.tokens).await?));
        }
        let name = claimed.volume.metadata.name.unwrap_or_default();
        let spec = claimed.volume.spec.unwrap_or_default();
        let placed = persistent::place(&self.host, &name, &spec, claimed.read_only, &volumes).await?;
        if placed.owned {
            self.own(pod, &placed.ready.path)?;
        }
        Ok(Some(placed.ready))
    }

    /// Mounts a pulled image for a runtime that cannot; `None` when the runtime does it.
    pub async fn mount_image(
        &self,
        pod: &Pod,
        volume: &str,
        image: &str,
    ) -> Result<Option<PathBuf>, VolumeError> {
        let Some(how) = &self.config.image_mounts else { return Ok(None) };
        let target = self.image_dir(spec::uid(pod)).join(volume);
        image::mount(&self.host, how, image, &target).await?;
        Ok(Some(target))
    }

    fn image_dir(&self, uid: &str) -> PathBuf {
        self.config.pod_dir(uid).join("volumes/kubernetes.io~image")
    }

    fn make(&self, pod: &Pod, volume: &Volume, path: &Path, facts: &NodeFacts) -> Result<(), VolumeError> {
        if let Some(source) = &volume.empty_dir {
            let of_node = Some(facts.allocatable_memory).filter(|m| *m > 0);
            let room = resources::pod_limit(pod, "memory").map(|m| m / 1000).into_iter().chain(of_node).min();
            let pages = resources::page_sizes(pod);
            empty_dir::prepare(self.host.mounts.as_ref(), path, source, room, &pages)?;
            return self.own(pod, path);
        }
        if let Some(source) = &volume.host_path {
            return Ok(host_path::prepare(path, source.type_.as_deref().unwrap_or_default())?);
        }
        // An image is pulled when a container that mounts it starts.
        if volume.image.is_some() { Ok(()) } else { Err(VolumeError::Unsupported) }
    }

    fn own(&self, pod: &Pod, path: &Path) -> Result<(), VolumeError> {
        let context = spec::pod_spec(pod).security_context.as_ref();
        let Some(group) = fs_group(pod) else { return Ok(()) };
        let lazily = context.and_then(|c| c.fs_group_change_policy.as_deref()) == Some("OnRootMismatch");
        ownership::set(path, group, false, lazily).map_err(VolumeError::FsGroup)
    }

    async fn project(
        &self,
        pod: &Pod,
        volume: &Volume,
        path: &Path,
        facts: &NodeFacts,
        known: Option<&Objects>,
    ) -> Result<bool, VolumeError> {
        let one = only(pod, volume);
        let objects = self.fetch(&one, known).await?;
        let files = payload::payload(pod, volume, facts, &objects)?;
        atomic::write(path, &files, fs_group(pod), self.host.clock.now()).map_err(VolumeError::Write)
    }

    async fn fetch(&self, pod: &Pod, known: Option<&Objects>) -> Result<Objects, VolumeError> {
        let References { config_maps, secrets, tokens } = payload::references(pod);
        let mut out = Objects::default();
        for name in config_maps {
            let object = match known.and_then(|k| k.config_maps.get(&name)) {
                Some(known) => known.clone(),
                None => self.config_map(pod, &name).await?,
            };
            out.config_maps.insert(name, object);
        }
        for name in secrets {
            let object = match known.and_then(|k| k.secrets.get(&name)) {
                Some(known) => known.clone(),
                None => self.secret(pod, &name).await?,
            };
            out.secrets.insert(name, object);
        }
        for key in tokens {
            let token = self.tokens.get(&self.client, pod, &key, self.host.clock.now()).await;
            let get = |source| VolumeError::Get { kind: "token", name: spec::name(pod).to_owned(), source };
            out.tokens.insert(key, token.map_err(get)?);
        }
        Ok(out)
    }

    /// A ConfigMap of the pod's namespace, fresh from the API.
    pub async fn config_map(&self, pod: &Pod, name: &str) -> Result<Option<ConfigMap>, VolumeError> {
        let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), spec::namespace(pod));
        let get = |source| VolumeError::Get { kind: "configmap", name: name.to_owned(), source };
        api.get_opt(name).await.map_err(get)
    }

    /// A Secret of the pod's namespace, fresh from the API.
    pub async fn secret(&self, pod: &Pod, name: &str) -> Result<Option<Secret>, VolumeError> {
        let api: Api<Secret> = Api::namespaced(self.client.clone(), spec::namespace(pod));
        let get = |source| VolumeError::Get { kind: "secret", name: name.to_owned(), source };
        api.get_opt(name).await.map_err(get)
    }

    /// Path on the host of one volume mount, sub path included.
    pub fn resolve(&self, pod: &Pod, container: &str, mount: &WantedMount) -> Result<PathBuf, VolumeError> {
        let Some(sub) = &mount.sub_path else { return Ok(mount.volume.path.clone()) };
        let target = self
            .config
            .pod_dir(spec::uid(pod))
            .join("volume-subpaths")
            .join(container)
            .join(mount.index.to_string());
        Ok(sub_path::prepare(self.host.mounts.as_ref(), &mount.volume.path, sub, &target)?)
    }

    /// Unmounts and removes everything that the pod had on this node. Nothing to remove is no error.
    pub async fn clean(&self, uid: &str) -> Result<(), CleanError> {
        self.tokens.forget(uid);
        self.csi.unmount_all(uid).await?;
        let (dir, mounts) = (self.config.pod_dir(uid), self.host.mounts.clone());
        let images = self.config.image_mounts.as_ref().zip(std::fs::read_dir(self.image_dir(uid)).ok());
        let images: Vec<_> = images
            .into_iter()
            .flat_map(|(how, entries)| entries.flatten().map(move |e| (how, e.path())))
            .collect();
        let work = move || {
            if !dir.exists() {
                return Ok(());
            }
            // Never delete through a mount: what is mounted belongs to somebody else.
            unmount_below(mounts.as_ref(), &dir).map_err(CleanError::Unmount)?;
            let removed = std::fs::remove_dir_all(&dir);
            removed.map_err(|e| CleanError::Remove(dir.display().to_string(), e))
        };
        match tokio::task::spawn_blocking(work).await {
            Ok(done) => {
                for (how, target) in images {
                    image::release(&self.host, how, &target).await;
                }
                done
            }
            Err(join) => Err(CleanError::Remove(uid.to_owned(), io::Error::other(join))),
        }
    }
}

/// The pod with only this volume, so that one missing object blames the right one.
fn only(pod: &Pod, volume: &Volume) -> Pod {
    let mut one = Pod { metadata: pod.metadata.clone(), ..Pod::default() };
    one.spec = Some(k8s_openapi::api::core::v1::PodSpec {
        volumes: Some(vec![volume.clone()]),
        service_account_name: spec::pod_spec(pod).service_account_name.clone(),
        ..Default::default()
    });
    one
}

fn fs_group(pod: &Pod) -> Option<u32> {
    let group = spec::pod_spec(pod).security_context.as_ref()?.fs_group?;
    u32::try_from(group).ok()
}

fn locate(dir: &Path, volume: &Volume) -> ReadyVolume {
    let plugin = |name: &str| dir.join(format!("kubernetes.io~{name}")).join(&volume.name);
    let (path, read_only) = if let Some(source) = &volume.host_path {
        (PathBuf::from(&source.path), false)
    } else if volume.config_map.is_some() {
        (plugin("configmap"), true)
    } else if volume.secret.is_some() {
        (plugin("secret"), true)
    } else if volume.projected.is_some() {
        (plugin("projected"), true)
    } else if volume.downward_api.is_some() {
        (plugin("downward-api"), true)
    } else {
        (plugin("empty-dir"), false)
    };
    let image = volume.image.as_ref().and_then(|i| i.reference.clone());
    ReadyVolume { path, read_only: read_only || image.is_some(), block: false, image }
}
