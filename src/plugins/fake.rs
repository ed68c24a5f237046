//! A CSI driver for tests: it remembers what it was asked, and leaves mounting to whoever plays the machine.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use super::csi::v1::node_server::{Node, NodeServer};
use super::csi::{Capability, v1};
use super::registration::registration_server::{Registration, RegistrationServer};
use super::registration::{InfoRequest, PluginInfo, RegistrationStatus, RegistrationStatusResponse};
use super::serve;

/// What the driver does to the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// A volume appears at a path.
    Mount {
        /// The driver's name of the volume.
        volume: String,
        /// Where.
        target: PathBuf,
        /// As a device.
        block: bool,
    },
    /// What is mounted at a path goes, and the path with it when the driver made it.
    Unmount {
        /// Where.
        target: PathBuf,
        /// The driver made the path.
        remove: bool,
    },
}

type Act = Box<dyn Fn(Effect) -> Result<(), String> + Send + Sync>;

struct Inner {
    name: String,
    endpoint: PathBuf,
    capabilities: Vec<Capability>,
    act: Act,
    calls: Mutex<Vec<String>>,
    contexts: Mutex<Vec<super::csi::Strings>>,
}

/// The driver. Cheap to clone.
#[derive(Clone)]
pub struct FakeDriver(Arc<Inner>);

impl FakeDriver {
    /// A driver that listens at `endpoint` once it is served.
    pub fn new(
        name: &str,
        endpoint: &Path,
        capabilities: &[Capability],
        act: impl Fn(Effect) -> Result<(), String> + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(Inner {
            name: name.to_owned(),
            endpoint: endpoint.to_owned(),
            capabilities: capabilities.to_vec(),
            act: Box::new(act),
            calls: Mutex::default(),
            contexts: Mutex::default(),
        }))
    }

    /// The calls so far: name, volume and what else matters.
    pub fn calls(&self) -> Vec<String> {
        self.0.calls.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The volume contexts that came with calls to publish.
    pub fn contexts(&self) -> Vec<super::csi::Strings> {
        self.0.contexts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Serves the driver, and where `registry` names a socket there, its registration, until `stop`.
    ///
    /// # Errors
    /// A socket cannot be bound.
    pub async fn serve(self, registry: Option<PathBuf>, stop: CancellationToken) -> std::io::Result<()> {
        let own = serve::bind(&self.0.endpoint)?;
        let router = serve::with(Router::new(), "csi.v1.Node", NodeServer::new(self.clone()));
        let registration = match registry {
            Some(path) => Some(serve::bind(&path)?),
            None => None,
        };
        let registering = async {
            let Some(listener) = registration else { return };
            let server = RegistrationServer::new(self);
            let router = serve::with(Router::new(), "pluginregistration.Registration", server);
            serve::serve(listener, router, stop.clone()).await;
        };
        tokio::join!(serve::serve(own, router, stop.clone()), registering);
        Ok(())
    }

    fn note(&self, call: String) {
        self.0.calls.lock().unwrap_or_else(PoisonError::into_inner).push(call);
    }

    fn act(&self, effect: Effect) -> Result<(), Status> {
        (self.0.act)(effect).map_err(Status::internal)
    }
}

fn is_block(capability: Option<&v1::VolumeCapability>) -> bool {
    use v1::volume_capability::AccessType;
    matches!(capability.and_then(|c| c.access_type.as_ref()), Some(AccessType::Block(_)))
}

#[async_trait::async_trait]
impl Registration for FakeDriver {
    async fn get_info(&self, _: Request<InfoRequest>) -> Result<Response<PluginInfo>, Status> {
        Ok(Response::new(PluginInfo {
            r#type: "CSIPlugin".to_owned(),
            name: self.0.name.clone(),
            endpoint: self.0.endpoint.display().to_string(),
            supported_versions: vec!["1.0.0".to_owned()],
        }))
    }

    async fn notify_registration_status(
        &self,
        request: Request<RegistrationStatus>,
    ) -> Result<Response<RegistrationStatusResponse>, Status> {
        let RegistrationStatus { plugin_registered, error } = request.into_inner();
        self.note(format!("registered {plugin_registered}{error}"));
        Ok(Response::new(RegistrationStatusResponse {}))
    }
}

#[async_trait::async_trait]
impl Node for FakeDriver {
    async fn node_stage_volume(
        &self,
        request: Request<v1::NodeStageVolumeRequest>,
    ) -> Result<Response<v1::NodeStageVolumeResponse>, Status> {
        let request = request.into_inner();
        let secrets: Vec<_> = request.secrets.keys().map(String::as_str).collect();
        let from: Vec<_> = request.publish_context.values().map(String::as_str).collect();
        self.note(format!("stage {} [{}] [{}]", request.volume_id, from.join(","), secrets.join(",")));
        if !is_block(request.volume_capability.as_ref()) {
            let target = PathBuf::from(request.staging_target_path);
            self.act(Effect::Mount { volume: request.volume_id, target, block: false })?;
        }
        Ok(Response::new(v1::NodeStageVolumeResponse {}))
    }

    async fn node_unstage_volume(
        &self,
        request: Request<v1::NodeUnstageVolumeRequest>,
    ) -> Result<Response<v1::NodeUnstageVolumeResponse>, Status> {
        let request = request.into_inner();
        self.note(format!("unstage {}", request.volume_id));
        self.act(Effect::Unmount { target: request.staging_target_path.into(), remove: false })?;
        Ok(Response::new(v1::NodeUnstageVolumeResponse {}))
    }

    async fn node_publish_volume(
        &self,
        request: Request<v1::NodePublishVolumeRequest>,
    ) -> Result<Response<v1::NodePublishVolumeResponse>, Status> {
        let request = request.into_inner();
        let mode = if request.readonly { " ro" } else { "" };
        self.note(format!("publish {}{mode}", request.volume_id));
        self.0.contexts.lock().unwrap_or_else(PoisonError::into_inner).push(request.volume_context);
        let block = is_block(request.volume_capability.as_ref());
        self.act(Effect::Mount { volume: request.volume_id, target: request.target_path.into(), block })?;
        Ok(Response::new(v1::NodePublishVolumeResponse {}))
    }

    async fn node_unpublish_volume(
        &self,
        request: Request<v1::NodeUnpublishVolumeRequest>,
    ) -> Result<Response<v1::NodeUnpublishVolumeResponse>, Status> {
        let request = request.into_inner();
        self.note(format!("unpublish {}", request.volume_id));
        self.act(Effect::Unmount { target: request.target_path.into(), remove: true })?;
        Ok(Response::new(v1::NodeUnpublishVolumeResponse {}))
    }

    async fn node_get_volume_stats(
        &self,
        _: Request<v1::NodeGetVolumeStatsRequest>,
    ) -> Result<Response<v1::NodeGetVolumeStatsResponse>, Status> {
        let bytes = v1::VolumeUsage {
            available: 60,
            total: 100,
            used: 40,
            unit: v1::volume_usage::Unit::Bytes.into(),
        };
        Ok(Response::new(v1::NodeGetVolumeStatsResponse { usage: vec![bytes] }))
    }

    async fn node_expand_volume(
        &self,
        request: Request<v1::NodeExpandVolumeRequest>,
    ) -> Result<Response<v1::NodeExpandVolumeResponse>, Status> {
        let request = request.into_inner();
        let capacity_bytes = request.capacity_range.unwrap_or_default().required_bytes;
        self.note(format!("expand {} {capacity_bytes}", request.volume_id));
        Ok(Response::new(v1::NodeExpandVolumeResponse { capacity_bytes }))
    }

    async fn node_get_capabilities(
        &self,
        _: Request<v1::NodeGetCapabilitiesRequest>,
    ) -> Result<Response<v1::NodeGetCapabilitiesResponse>, Status> {
        use v1::node_service_capability::{Rpc, Type};
        let one = |capability: &Capability| v1::NodeServiceCapability {
            r#type: Some(Type::Rpc(Rpc { r#type: (*capability).into() })),
        };
        let capabilities = self.0.capabilities.iter().map(one).collect();
        Ok(Response::new(v1::NodeGetCapabilitiesResponse { capabilities }))
    }

    async fn node_get_info(
        &self,
        _: Request<v1::NodeGetInfoRequest>,
    ) -> Result<Response<v1::NodeGetInfoResponse>, Status> {
        let segments = [("topology.test/zone".to_owned(), "a".to_owned())].into();
        Ok(Response::new(v1::NodeGetInfoResponse {
            node_id: "id-of-node".to_owned(),
            max_volumes_per_node: 7,
            accessible_topology: Some(v1::Topology { segments }),
        }))
    }
}
