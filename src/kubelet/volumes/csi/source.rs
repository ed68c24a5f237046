//! A CSI volume as a pod wants it: from a PersistentVolume, or written into the pod's spec.

use k8s_openapi::api::core::v1::{PersistentVolume, Pod, SecretReference, Volume};
use k8s_openapi::api::storage::v1::CSIDriverSpec;

use super::CsiError;
use crate::kubelet::containers::resources::units;
use crate::kubelet::images::archive::sha256;
use crate::kubelet::spec;
use crate::plugins::csi::Strings;

/// What the driver is asked for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Wanted {
    /// Name of the driver.
    pub driver: String,
    /// The driver's name of the volume.
    pub handle: String,
    /// Name of the PersistentVolume, or of the volume in the pod's spec.
    pub name: String,
    /// Type of file system, empty when the driver may choose.
    pub fs_type: String,
    /// Options for the mount.
    pub mount_options: Vec<String>,
    /// Access modes, `ReadWriteOnce` and the like.
    pub access_modes: Vec<String>,
    /// A device and not a file system.
    pub block: bool,
    /// The pod may only read.
    pub read_only: bool,
    /// What the driver has noted about the volume.
    pub attributes: Strings,
    /// Namespace and name of the Secret for staging.
    pub stage_secret: Option<(String, String)>,
    /// The same for publishing.
    pub publish_secret: Option<(String, String)>,
    /// The same for expanding.
    pub expand_secret: Option<(String, String)>,
    /// Bytes that the volume has.
    pub capacity: i64,
    /// Namespace and name of the claim; none for a volume of the pod's own spec.
    pub claim: Option<(String, String)>,
}

fn place(reference: Option<&SecretReference>) -> Option<(String, String)> {
    let reference = reference?;
    Some((reference.namespace.clone()?, reference.name.clone()?))
}

impl Wanted {
    /// The volume behind a claim, when it is a driver's.
    pub fn persistent(volume: &PersistentVolume, read_only: bool) -> Option<Self> {
        let spec = volume.spec.as_ref()?;
        let csi = spec.csi.as_ref()?;
        let claim = spec.claim_ref.as_ref();
        Some(Self {
            driver: csi.driver.clone(),
            handle: csi.volume_handle.clone(),
            name: volume.metadata.name.clone().unwrap_or_default(),
            fs_type: csi.fs_type.clone().unwrap_or_default(),
            mount_options: spec.mount_options.clone().unwrap_or_default(),
            access_modes: spec.access_modes.clone().unwrap_or_default(),
            block: spec.volume_mode.as_deref() == Some("Block"),
            read_only,
            attributes: csi.volume_attributes.clone().unwrap_or_default(),
            stage_secret: place(csi.node_stage_secret_ref.as_ref()),
            publish_secret: place(csi.node_publish_secret_ref.as_ref()),
            expand_secret: place(csi.node_expand_secret_ref.as_ref()),
            capacity: spec.capacity.as_ref().and_then(|all| all.get("storage")).map_or(0, units),
            claim: claim.and_then(|claim| Some((claim.namespace.clone()?, claim.name.clone()?))),
        })
    }

    /// A volume that a pod's spec describes itself.
    pub fn inline(pod: &Pod, volume: &Volume) -> Option<Self> {
        let csi = volume.csi.as_ref()?;
        let secret = csi.node_publish_secret_ref.as_ref().filter(|secret| !secret.name.is_empty());
        Some(Self {
            driver: csi.driver.clone(),
            handle: format!("csi-{}", sha256(format!("{}{}", spec::uid(pod), volume.name).as_bytes())),
            name: volume.name.clone(),
            fs_type: csi.fs_type.clone().unwrap_or_default(),
            read_only: csi.read_only.unwrap_or(false),
            attributes: csi.volume_attributes.clone().unwrap_or_default(),
            publish_secret: secret.map(|secret| (spec::namespace(pod).to_owned(), secret.name.clone())),
            ..Self::default()
        })
    }

    /// It lives and dies with its pod.
    pub fn ephemeral(&self) -> bool {
        self.claim.is_none()
    }

    /// The API's word for that.
    pub fn lifecycle(&self) -> &'static str {
        if self.ephemeral() { "Ephemeral" } else { "Persistent" }
    }

    /// Whether the driver does volumes of this kind.
    pub fn check(&self, rules: &CSIDriverSpec) -> Result<(), CsiError> {
        let modes = rules.volume_lifecycle_modes.as_deref().unwrap_or_default();
        let can = match modes {
            [] => !self.ephemeral(),
            some => some.iter().any(|mode| mode == self.lifecycle()),
        };
        let driver = || self.driver.clone();
        if can { Ok(()) } else { Err(CsiError::Lifecycle { driver: driver(), mode: self.lifecycle() }) }
    }

    /// Whether `fsGroup` applies to the files, under the policy of the driver.
    pub fn owned_by_group(&self, policy: Option<&str>) -> bool {
        if self.block || self.read_only {
            return false;
        }
        match policy {
            Some("None") => false,
            Some("File") => true,
            // A file system that only this node writes.
            _ => {
                !self.fs_type.is_empty()
                    && self.access_modes.iter().any(|mode| mode.starts_with("ReadWriteOnce"))
            }
        }
    }
}
