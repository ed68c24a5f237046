//! Volumes of CSI drivers: staged once per node, published once per pod, and taken back in the opposite order.
//!
//! The places are upstream's, since drivers and their sidecars rely on them. What a pod has is written beside it
//! (`vol_data.json`) before anything is mounted, so that everything can be undone without the API.

mod attach;
pub mod disk;
mod expand;
mod source;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use k8s_openapi::api::core::v1::{Pod, Secret};
use k8s_openapi::api::storage::v1::{CSIDriver, CSIDriverSpec};
use kube::{Api, Client};
use serde_json::json;

use super::ownership;
use super::payload::TokenKey;
use super::token::Tokens;
use crate::host::Host;
use crate::host::mounts::MountError;
use crate::kubelet::config::KubeletConfig;
use crate::kubelet::containers::mounts::ReadyVolume;
use crate::kubelet::plugins::Drivers;
use crate::kubelet::spec;
use crate::plugins::PluginError;
use crate::plugins::csi::{Capability, Driver, Strings, access_mode, v1};
use disk::{Places, VolumeData};
pub use source::Wanted;

/// A volume of a driver that is not ready, or not given back.
#[derive(Debug, thiserror::Error)]
pub enum CsiError {
    /// There is no such driver here, or not yet.
    #[error("driver name {0} not found in the list of registered CSI drivers")]
    NotRegistered(String),
    /// The driver failed.
    #[error(transparent)]
    Driver(#[from] PluginError),
    /// The API does not give an object.
    #[error("get {0}")]
    Get(String, #[source] kube::Error),
    /// A Secret that the volume names is not there.
    #[error("failed to get secret {0}")]
    Secret(String),
    /// The volume is not attached to this node yet.
    #[error("volume attachment {0} is not there yet")]
    NotAttached(String),
    /// Attaching failed.
    #[error("volume attachment {name}: {message}")]
    Attach {
        /// The VolumeAttachment.
        name: String,
        /// What its driver says.
        message: String,
    },
    /// The driver does not do this kind of volume.
    #[error("driver {driver} does not support volume lifecycle mode {mode}")]
    Lifecycle {
        /// The driver.
        driver: String,
        /// `Persistent` or `Ephemeral`.
        mode: &'static str,
    },
    /// A file or directory of ours.
    #[error("{0}")]
    File(String, #[source] std::io::Error),
    /// The table of mounts cannot be read.
    #[error(transparent)]
    Mounts(#[from] MountError),
    /// A token for the driver.
    #[error("token for the driver")]
    Token(#[source] kube::Error),
}

/// The CSI volumes of this node.
pub struct CsiVolumes {
    config: Arc<KubeletConfig>,
    client: Client,
    host: Host,
    drivers: Drivers,
    /// One stage, publish, unpublish or unstage of a volume at a time.
    locks: Mutex<HashMap<String, Weak<tokio::sync::Mutex<()>>>>,
}

impl CsiVolumes {
    /// Volumes of the drivers that register.
    pub fn new(config: Arc<KubeletConfig>, client: Client, host: Host, drivers: Drivers) -> Self {
        Self { config, client, host, drivers, locks: Mutex::default() }
    }

    /// The registered drivers.
    pub fn drivers(&self) -> &Drivers {
        &self.drivers
    }

    fn places(&self) -> Places<'_> {
        Places::below(&self.config.root_dir)
    }

    fn lock(&self, driver: &str, handle: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
        locks.retain(|_, lock| lock.strong_count() > 0);
        let key = format!("{driver}^{handle}");
        if let Some(lock) = locks.get(&key).and_then(Weak::upgrade) {
            return lock;
        }
        let lock = Arc::new(tokio::sync::Mutex::new(()));
        locks.insert(key, Arc::downgrade(&lock));
        lock
    }

    fn driver(&self, name: &str) -> Result<Driver, CsiError> {
        self.drivers.get(name).ok_or_else(|| CsiError::NotRegistered(name.to_owned()))
    }

    /// What the cluster says of the driver; a driver that says nothing has upstream's defaults.
    async fn rules(&self, driver: &str) -> Result<CSIDriverSpec, CsiError> {
        let api: Api<CSIDriver> = Api::all(self.client.clone());
        let found = api.get_opt(driver).await;
        let found = found.map_err(|e| CsiError::Get(format!("CSIDriver {driver:?}"), e))?;
        Ok(found.map(|driver| driver.spec).unwrap_or_default())
    }

    /// Whether a driver of the pod's volumes wants to be asked again and again.
    pub async fn republishes(&self, pod: &Pod) -> bool {
        for (_, data) in self.places().of_pod(spec::uid(pod)) {
            if self.rules(&data.driver_name).await.is_ok_and(|rules| rules.requires_republish == Some(true)) {
                return true;
            }
        }
        false
    }

    /// Makes a volume ready for a pod. May be repeated.
    pub async fn mount(&self, pod: &Pod, wanted: &Wanted, tokens: &Tokens) -> Result<ReadyVolume, CsiError> {
        let lock = self.lock(&wanted.driver, &wanted.handle);
        let _held = lock.lock().await;
        let driver = self.driver(&wanted.driver)?;
        let rules = self.rules(&wanted.driver).await?;
        wanted.check(&rules)?;
        let (places, uid) = (self.places(), spec::uid(pod));
        let attached = !wanted.ephemeral() && rules.attach_required.unwrap_or(true);
        let data = VolumeData::of(wanted, &self.config.node_name, attached);
        let target = places.target(uid, wanted);
        data.write(&places.data_dir(uid, wanted))?;
        let ready = ReadyVolume {
            path: target.clone(),
            read_only: wanted.read_only,
            block: wanted.block,
            image: None,
        };
        let published = self.host.mounts.is_mounted(&target)?;
        if published && rules.requires_republish != Some(true) {
            return Ok(ready);
        }
        let context = match attached {
            true => {
                self.report_use().await?;
                self.attachment(&data.attachment_id).await?
            }
            false => Strings::new(),
        };
        let staging = self.stage(&driver, pod, wanted, &data, &context).await?;
        // The target itself is made by the driver.
        if let Some(parent) = target.parent() {
            make_directory(parent)?;
        }
        let request = v1::NodePublishVolumeRequest {
            volume_id: wanted.handle.clone(),
            publish_context: context,
            staging_target_path: staging.map(|path| path.display().to_string()).unwrap_or_default(),
            target_path: target.display().to_string(),
            volume_capability: Some(capability(&driver, pod, wanted)),
            readonly: wanted.read_only,
            secrets: self.secret(wanted.publish_secret.as_ref()).await?,
            volume_context: self.volume_context(pod, wanted, &rules, tokens).await?,
        };
        driver.publish(request).await?;
        if !published {
            self.expand(&driver, pod, wanted, &target).await?;
            self.own(&driver, pod, wanted, &rules, &target)?;
        }
        Ok(ready)
    }

    /// Prepares the volume for the node, when the driver wants that; where it is then.
    async fn stage(
        &self,
        driver: &Driver,
        pod: &Pod,
        wanted: &Wanted,
        data: &VolumeData,
        context: &Strings,
    ) -> Result<Option<PathBuf>, CsiError> {
        if wanted.ephemeral() || !driver.can(Capability::StageUnstageVolume) {
            return Ok(None);
        }
        let staging = self.places().staging(wanted);
        if !self.host.mounts.is_mounted(&staging)? {
            make_directory(&staging)?;
            data.write(&self.places().staged_data_dir(wanted))?;
            let request = v1::NodeStageVolumeRequest {
                volume_id: wanted.handle.clone(),
                publish_context: context.clone(),
                staging_target_path: staging.display().to_string(),
                volume_capability: Some(capability(driver, pod, wanted)),
                secrets: self.secret(wanted.stage_secret.as_ref()).await?,
                volume_context: wanted.attributes.clone(),
            };
            driver.stage(request).await?;
        }
        Ok(Some(staging))
    }

    async fn secret(&self, place: Option<&(String, String)>) -> Result<Strings, CsiError> {
        let Some((namespace, name)) = place else { return Ok(Strings::new()) };
        let api: Api<Secret> = Api::namespaced(self.client.clone(), namespace);
        let full = || format!("{namespace}/{name}");
        let found = api.get_opt(name).await.map_err(|e| CsiError::Get(format!("secret {}", full()), e))?;
        let data = found.ok_or_else(|| CsiError::Secret(full()))?.data.unwrap_or_default();
        Ok(data
            .into_iter()
            .map(|(key, value)| (key, String::from_utf8_lossy(&value.0).into_owned()))
            .collect())
    }

    /// The volume's attributes, with what the driver wants to know of the pod.
    async fn volume_context(
        &self,
        pod: &Pod,
        wanted: &Wanted,
        rules: &CSIDriverSpec,
        tokens: &Tokens,
    ) -> Result<Strings, CsiError> {
        let mut context = wanted.attributes.clone();
        if rules.pod_info_on_mount == Some(true) {
            let account = spec::pod_spec(pod).service_account_name.clone().unwrap_or_default();
            let facts = [
                ("pod.name", spec::name(pod).to_owned()),
                ("pod.namespace", spec::namespace(pod).to_owned()),
                ("pod.uid", spec::uid(pod).to_owned()),
                ("serviceAccount.name", account),
                ("ephemeral", wanted.ephemeral().to_string()),
            ];
            context.extend(facts.map(|(key, value)| (format!("csi.storage.k8s.io/{key}"), value)));
        }
        let mut issued = BTreeMap::new();
        for request in rules.token_requests.iter().flatten() {
            let audience = Some(request.audience.clone()).filter(|audience| !audience.is_empty());
            let key = TokenKey { audience, seconds: request.expiration_seconds.unwrap_or(3600) };
            let token = tokens.issue(&self.client, pod, &key, self.host.clock.now()).await;
            let (token, expires) = token.map_err(CsiError::Token)?;
            issued.insert(
                request.audience.clone(),
                json!({"token": token, "expirationTimestamp": expires.to_string()}),
            );
        }
        if !issued.is_empty() {
            context.insert("csi.storage.k8s.io/serviceAccount.tokens".to_owned(), json!(issued).to_string());
        }
        Ok(context)
    }

    /// Gives the files to the pod's group, when driver and volume are of the kind for that.
    fn own(
        &self,
        driver: &Driver,
        pod: &Pod,
        wanted: &Wanted,
        rules: &CSIDriverSpec,
        target: &Path,
    ) -> Result<(), CsiError> {
        let context = spec::pod_spec(pod).security_context.as_ref();
        let group = context.and_then(|c| c.fs_group).and_then(|group| u32::try_from(group).ok());
        let Some(group) = group.filter(|_| !driver.can(Capability::VolumeMountGroup)) else { return Ok(()) };
        if !wanted.owned_by_group(rules.fs_group_policy.as_deref()) {
            return Ok(());
        }
        let lazily = context.and_then(|c| c.fs_group_change_policy.as_deref()) == Some("OnRootMismatch");
        ownership::set(target, group, false, lazily)
            .map_err(|e| CsiError::File("applyFSGroup failed".to_owned(), e))
    }

    /// Takes back everything that a pod has of drivers. Nothing to take back is no error.
    pub async fn unmount_all(&self, uid: &str) -> Result<(), CsiError> {
        let mut changed = false;
        for (directory, data) in self.places().of_pod(uid) {
            let lock = self.lock(&data.driver_name, &data.volume_handle);
            let _held = lock.lock().await;
            let target = self.places().target_of(&directory, uid, &data);
            let mounted = self.host.mounts.is_mounted(&target)?;
            match self.driver(&data.driver_name) {
                Ok(driver) => {
                    driver.unpublish(&data.volume_handle, &target).await?;
                    let shared = self.places().used_by_others(&data, &directory);
                    if !shared && !data.ephemeral() {
                        self.unstage(&driver, &data).await?;
                    }
                }
                // A driver that never came has mounted nothing.
                Err(_) if !mounted && !self.places().staging_of(&data).1.join(disk::FILE).exists() => {}
                Err(gone) => return Err(gone),
            }
            disk::forget(&directory)?;
            changed |= !data.attachment_id.is_empty();
        }
        if changed { self.report_use().await } else { Ok(()) }
    }

    async fn unstage(&self, driver: &Driver, data: &VolumeData) -> Result<(), CsiError> {
        let (staging, directory) = self.places().staging_of(data);
        if directory.join(disk::FILE).exists() {
            driver.unstage(&data.volume_handle, &staging).await?;
            disk::forget(&directory)?;
        }
        Ok(())
    }
}

fn capability(driver: &Driver, pod: &Pod, wanted: &Wanted) -> v1::VolumeCapability {
    use v1::volume_capability::{AccessType, BlockVolume, MountVolume};
    let context = spec::pod_spec(pod).security_context.as_ref();
    let group = context.and_then(|c| c.fs_group).filter(|_| driver.can(Capability::VolumeMountGroup));
    let access = match wanted.block {
        true => AccessType::Block(BlockVolume {}),
        false => AccessType::Mount(MountVolume {
            fs_type: wanted.fs_type.clone(),
            mount_flags: wanted.mount_options.clone(),
            volume_mount_group: group.map(|group| group.to_string()).unwrap_or_default(),
        }),
    };
    v1::VolumeCapability {
        access_mode: Some(access_mode(&wanted.access_modes, driver)),
        access_type: Some(access),
    }
}

fn make_directory(path: &Path) -> Result<(), CsiError> {
    std::fs::create_dir_all(path).map_err(|e| CsiError::File(format!("make {}", path.display()), e))
}
