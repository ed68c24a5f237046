//! Calls to the node service of a CSI driver.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tonic::Code;
use tonic::transport::Channel;

use super::{PluginError, answer, channel};
use v1::node_client::NodeClient;
use v1::node_service_capability::rpc;

/// How long a driver may take, as upstream.
const LIMIT: Duration = Duration::from_secs(120);

/// The messages of CSI, generated from `proto/csi.proto`.
#[allow(missing_docs, clippy::all, reason = "generated code")]
pub mod v1 {
    tonic::include_proto!("csi.v1");

    macro_rules! without_secrets {
        ($($request:ident),*) => {$(
            impl std::fmt::Debug for $request {
                fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                    f.debug_struct(stringify!($request)).field("volume_id", &self.volume_id).finish_non_exhaustive()
                }
            }
        )*};
    }
    without_secrets!(NodeStageVolumeRequest, NodePublishVolumeRequest, NodeExpandVolumeRequest);
}

/// What a driver can do on a node.
pub use rpc::Type as Capability;

/// A registered driver. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Driver {
    /// Its name, such as `hostpath.csi.k8s.io`.
    pub name: String,
    /// Its socket.
    pub endpoint: PathBuf,
    client: NodeClient<Channel>,
    capabilities: BTreeSet<i32>,
}

impl Driver {
    /// Connects to a driver and asks what it can do.
    ///
    /// # Errors
    /// The driver does not answer.
    pub async fn connect(name: &str, endpoint: &Path) -> Result<Self, PluginError> {
        let client = NodeClient::new(channel(endpoint));
        let mut asking = client.clone();
        let call = asking.node_get_capabilities(v1::NodeGetCapabilitiesRequest {});
        let capabilities = match answer("NodeGetCapabilities", LIMIT, call).await {
            Ok(answer) => answer.capabilities,
            // A driver may do without.
            Err(PluginError::Rpc { code: Code::Unimplemented, .. }) => Vec::new(),
            Err(error) => return Err(error),
        };
        let known = capabilities.into_iter().filter_map(|capability| match capability.r#type? {
            v1::node_service_capability::Type::Rpc(rpc) => Some(rpc.r#type),
        });
        let (name, endpoint) = (name.to_owned(), endpoint.to_owned());
        Ok(Self { name, endpoint, client, capabilities: known.collect() })
    }

    /// Whether it said that it can.
    pub fn can(&self, capability: Capability) -> bool {
        self.capabilities.contains(&i32::from(capability))
    }

    /// Who this node is to the driver.
    ///
    /// # Errors
    /// As the driver says; the same for all calls below.
    pub async fn info(&self) -> Result<v1::NodeGetInfoResponse, PluginError> {
        let mut client = self.client.clone();
        answer("NodeGetInfo", LIMIT, client.node_get_info(v1::NodeGetInfoRequest {})).await
    }

    /// Prepares a volume for all pods of the node.
    pub async fn stage(&self, request: v1::NodeStageVolumeRequest) -> Result<(), PluginError> {
        let mut client = self.client.clone();
        answer("NodeStageVolume", LIMIT, client.node_stage_volume(request)).await.map(drop)
    }

    /// Undoes [`Driver::stage`].
    pub async fn unstage(&self, volume: &str, staging: &Path) -> Result<(), PluginError> {
        let mut client = self.client.clone();
        let (volume_id, staging_target_path) = (volume.to_owned(), staging.display().to_string());
        let request = v1::NodeUnstageVolumeRequest { volume_id, staging_target_path };
        answer("NodeUnstageVolume", LIMIT, client.node_unstage_volume(request)).await.map(drop)
    }

    /// Makes a volume appear where one pod has it.
    pub async fn publish(&self, request: v1::NodePublishVolumeRequest) -> Result<(), PluginError> {
        let mut client = self.client.clone();
        answer("NodePublishVolume", LIMIT, client.node_publish_volume(request)).await.map(drop)
    }

    /// Undoes [`Driver::publish`].
    pub async fn unpublish(&self, volume: &str, target: &Path) -> Result<(), PluginError> {
        let mut client = self.client.clone();
        let (volume_id, target_path) = (volume.to_owned(), target.display().to_string());
        let request = v1::NodeUnpublishVolumeRequest { volume_id, target_path };
        answer("NodeUnpublishVolume", LIMIT, client.node_unpublish_volume(request)).await.map(drop)
    }

    /// Makes the file system as large as the volume has become; the size in bytes, 0 when the driver does not tell.
    pub async fn expand(&self, request: v1::NodeExpandVolumeRequest) -> Result<i64, PluginError> {
        let mut client = self.client.clone();
        let expanded = answer("NodeExpandVolume", LIMIT, client.node_expand_volume(request)).await?;
        Ok(expanded.capacity_bytes)
    }

    /// How full a volume is.
    pub async fn usage(&self, volume: &str, path: &Path) -> Result<Vec<v1::VolumeUsage>, PluginError> {
        let mut client = self.client.clone();
        let request = v1::NodeGetVolumeStatsRequest {
            volume_id: volume.to_owned(),
            volume_path: path.display().to_string(),
            staging_target_path: String::new(),
        };
        Ok(answer("NodeGetVolumeStats", LIMIT, client.node_get_volume_stats(request)).await?.usage)
    }
}

/// A capability with the access mode of the first of a volume's modes.
pub fn access_mode(modes: &[String], driver: &Driver) -> v1::volume_capability::AccessMode {
    use v1::volume_capability::access_mode::Mode;
    let precise = driver.can(Capability::SingleNodeMultiWriter);
    let mode = match modes.first().map(String::as_str) {
        Some("ReadOnlyMany") => Mode::MultiNodeReaderOnly,
        Some("ReadWriteMany") => Mode::MultiNodeMultiWriter,
        Some("ReadWriteOncePod") if precise => Mode::SingleNodeSingleWriter,
        _ if precise => Mode::SingleNodeMultiWriter,
        _ => Mode::SingleNodeWriter,
    };
    v1::volume_capability::AccessMode { mode: mode.into() }
}

/// Strings by name, as the interface passes secrets and contexts.
pub type Strings = BTreeMap<String, String>;
