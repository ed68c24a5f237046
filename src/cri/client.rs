//! The gRPC client of a CRI v1 runtime on a unix socket.
//!
//! The connection is made by the first call and made again by the first call after it broke, so a client outlives
//! restarts of the runtime. Calls share one connection.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Response, Status};

use super::runtime::{EventStream, Runtime};
use super::v1::image_service_client::ImageServiceClient;
use super::v1::runtime_service_client::RuntimeServiceClient;
use super::{CriError, Result, v1};

/// What a runtime has to answer an ordinary call; a busy node is slow, not broken.
const CALL_TIMEOUT: Duration = Duration::from_secs(120);
/// Starting a sandbox includes network plugins.
const SANDBOX_TIMEOUT: Duration = Duration::from_secs(240);
/// Largest message accepted; lists beyond it are streamed where the runtime can.
const MAX_MESSAGE: usize = 16 << 20;

/// A client of the container runtime at one endpoint. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Client {
    endpoint: Arc<str>,
    runtime: RuntimeServiceClient<Channel>,
    images: ImageServiceClient<Channel>,
}

impl Client {
    /// A client for `unix:///path/to.sock` or a bare absolute path. Does not wait for anybody to listen there; must be
    /// called inside a tokio runtime.
    pub fn connect(endpoint: &str) -> Result<Self> {
        let path = socket_path(endpoint)?;
        // The authority is never resolved: the connector goes to the socket whatever the URI says.
        let channel = Endpoint::from_static("http://localhost").connect_with_connector_lazy(
            tower::service_fn(move |_: http::Uri| {
                let path = path.clone();
                async move { UnixStream::connect(path).await.map(TokioIo::new) }
            }),
        );
        Ok(Self {
            endpoint: endpoint.into(),
            runtime: RuntimeServiceClient::new(channel.clone()).max_decoding_message_size(MAX_MESSAGE),
            images: ImageServiceClient::new(channel).max_decoding_message_size(MAX_MESSAGE),
        })
    }

    /// Where this client connects to.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    async fn within<T>(
        &self,
        operation: &'static str,
        limit: Option<Duration>,
        call: impl Future<Output = std::result::Result<Response<T>, Status>> + Send,
    ) -> Result<T> {
        let answer = match limit {
            None => call.await,
            Some(after) => tokio::time::timeout(after, call)
                .await
                .map_err(|_elapsed| CriError::Timeout { operation, after })?,
        };
        answer
            .map(Response::into_inner)
            .map_err(|status| CriError::from_status(operation, &self.endpoint, status))
    }
}

/// The file that an endpoint names.
fn socket_path(endpoint: &str) -> Result<PathBuf> {
    let path = endpoint.strip_prefix("unix://").unwrap_or(endpoint);
    if Path::new(path).is_absolute() {
        return Ok(PathBuf::from(path));
    }
    Err(CriError::Endpoint { endpoint: endpoint.to_owned() })
}

/// Both codes are in use for an answer that exceeds the size limit of one side.
fn too_large(error: &CriError) -> bool {
    matches!(error.code(), Code::ResourceExhausted | Code::OutOfRange)
}

fn whole_seconds(grace: Duration) -> i64 {
    let up = if grace.subsec_nanos() > 0 { 1 } else { 0 };
    i64::try_from(grace.as_secs()).unwrap_or(i64::MAX).saturating_add(up)
}

/// One unary call: `unary!(self.runtime, version, "Version", request)`, with an optional time limit.
macro_rules! unary {
    ($self:ident . $service:ident, $method:ident, $operation:literal, $request:expr) => {
        unary!($self.$service, $method, $operation, $request, Some(CALL_TIMEOUT))
    };
    ($self:ident . $service:ident, $method:ident, $operation:literal, $request:expr, $limit:expr) => {{
        let mut service = $self.$service.clone();
        $self.within($operation, $limit, service.$method($request)).await
    }};
}

/// A list by its unary call, or by the streaming one when it does not fit into one message.
macro_rules! list {
    ($self:ident . $service:ident, $method:ident -> $items:ident, $operation:literal, $request:expr,
     else $stream:ident -> $parts:ident, $stream_request:expr) => {{
        match unary!($self.$service, $method, $operation, $request) {
            Ok(answer) => Ok(answer.$items),
            Err(error) if too_large(&error) => {
                let mut parts = unary!($self.$service, $stream, $operation, $stream_request)?;
                let mut items = Vec::new();
                while let Some(part) = $self
                    .within($operation, Some(CALL_TIMEOUT), async {
                        parts.message().await.map(Response::new)
                    })
                    .await?
                {
                    items.extend(part.$parts);
                }
                Ok(items)
            }
            Err(error) => Err(error),
        }
    }};
}

#[async_trait]
impl Runtime for Client {
    async fn version(&self) -> Result<v1::VersionResponse> {
        unary!(self.runtime, version, "Version", v1::VersionRequest { version: "v1".to_owned() })
    }

    async fn status(&self, verbose: bool) -> Result<v1::StatusResponse> {
        unary!(self.runtime, status, "Status", v1::StatusRequest { verbose })
    }

    async fn runtime_config(&self) -> Result<v1::RuntimeConfigResponse> {
        unary!(self.runtime, runtime_config, "RuntimeConfig", v1::RuntimeConfigRequest {})
    }

    async fn update_runtime_config(&self, pod_cidr: &str) -> Result<()> {
        let network_config = Some(v1::NetworkConfig { pod_cidr: pod_cidr.to_owned() });
        let request =
            v1::UpdateRuntimeConfigRequest { runtime_config: Some(v1::RuntimeConfig { network_config }) };
        unary!(self.runtime, update_runtime_config, "UpdateRuntimeConfig", request).map(drop)
    }

    async fn run_pod_sandbox(&self, config: v1::PodSandboxConfig, runtime_handler: &str) -> Result<String> {
        let request =
            v1::RunPodSandboxRequest { config: Some(config), runtime_handler: runtime_handler.to_owned() };
        unary!(self.runtime, run_pod_sandbox, "RunPodSandbox", request, Some(SANDBOX_TIMEOUT))
            .map(|answer| answer.pod_sandbox_id)
    }

    async fn stop_pod_sandbox(&self, id: &str) -> Result<()> {
        let request = v1::StopPodSandboxRequest { pod_sandbox_id: id.to_owned() };
        gone_is_fine(unary!(self.runtime, stop_pod_sandbox, "StopPodSandbox", request))
    }

    async fn remove_pod_sandbox(&self, id: &str) -> Result<()> {
        let request = v1::RemovePodSandboxRequest { pod_sandbox_id: id.to_owned() };
        gone_is_fine(unary!(self.runtime, remove_pod_sandbox, "RemovePodSandbox", request))
    }

    async fn pod_sandbox_status(&self, id: &str, verbose: bool) -> Result<v1::PodSandboxStatusResponse> {
        let request = v1::PodSandboxStatusRequest { pod_sandbox_id: id.to_owned(), verbose };
        unary!(self.runtime, pod_sandbox_status, "PodSandboxStatus", request)
    }

    async fn list_pod_sandboxes(&self, filter: Option<v1::PodSandboxFilter>) -> Result<Vec<v1::PodSandbox>> {
        list!(self.runtime, list_pod_sandbox -> items, "ListPodSandbox",
            v1::ListPodSandboxRequest { filter: filter.clone() },
            else stream_pod_sandboxes -> pod_sandboxes, v1::StreamPodSandboxesRequest { filter })
    }

    async fn update_pod_sandbox_resources(
        &self,
        request: v1::UpdatePodSandboxResourcesRequest,
    ) -> Result<()> {
        unary!(self.runtime, update_pod_sandbox_resources, "UpdatePodSandboxResources", request).map(drop)
    }

    async fn create_container(
        &self,
        pod_sandbox_id: &str,
        config: v1::ContainerConfig,
        sandbox_config: v1::PodSandboxConfig,
    ) -> Result<String> {
        let request = v1::CreateContainerRequest {
            pod_sandbox_id: pod_sandbox_id.to_owned(),
            config: Some(config),
            sandbox_config: Some(sandbox_config),
        };
        unary!(self.runtime, create_container, "CreateContainer", request).map(|answer| answer.container_id)
    }

    async fn start_container(&self, id: &str) -> Result<()> {
        let request = v1::StartContainerRequest { container_id: id.to_owned() };
        unary!(self.runtime, start_container, "StartContainer", request).map(drop)
    }

    async fn stop_container(&self, id: &str, grace: Duration) -> Result<()> {
        let request = v1::StopContainerRequest { container_id: id.to_owned(), timeout: whole_seconds(grace) };
        let limit = Some(grace.saturating_add(CALL_TIMEOUT));
        gone_is_fine(unary!(self.runtime, stop_container, "StopContainer", request, limit))
    }

    async fn remove_container(&self, id: &str) -> Result<()> {
        let request = v1::RemoveContainerRequest { container_id: id.to_owned() };
        gone_is_fine(unary!(self.runtime, remove_container, "RemoveContainer", request))
    }

    async fn list_containers(&self, filter: Option<v1::ContainerFilter>) -> Result<Vec<v1::Container>> {
        list!(self.runtime, list_containers -> containers, "ListContainers",
            v1::ListContainersRequest { filter: filter.clone() },
            else stream_containers -> containers, v1::StreamContainersRequest { filter })
    }

    async fn container_status(&self, id: &str, verbose: bool) -> Result<v1::ContainerStatusResponse> {
        let request = v1::ContainerStatusRequest { container_id: id.to_owned(), verbose };
        unary!(self.runtime, container_status, "ContainerStatus", request)
    }

    async fn update_container_resources(&self, request: v1::UpdateContainerResourcesRequest) -> Result<()> {
        unary!(self.runtime, update_container_resources, "UpdateContainerResources", request).map(drop)
    }

    async fn reopen_container_log(&self, id: &str) -> Result<()> {
        let request = v1::ReopenContainerLogRequest { container_id: id.to_owned() };
        unary!(self.runtime, reopen_container_log, "ReopenContainerLog", request).map(drop)
    }

    async fn checkpoint_container(&self, id: &str, location: &str, timeout: Duration) -> Result<()> {
        let request = v1::CheckpointContainerRequest {
            container_id: id.to_owned(),
            location: location.to_owned(),
            timeout: whole_seconds(timeout),
        };
        let limit = (!timeout.is_zero()).then(|| timeout.saturating_add(CALL_TIMEOUT));
        unary!(self.runtime, checkpoint_container, "CheckpointContainer", request, limit).map(drop)
    }

    async fn container_events(&self) -> Result<EventStream> {
        const OPERATION: &str = "GetContainerEvents";
        let endpoint = Arc::clone(&self.endpoint);
        let events =
            unary!(self.runtime, get_container_events, "GetContainerEvents", v1::GetEventsRequest {})?;
        Ok(events
            .map(move |event| event.map_err(|status| CriError::from_status(OPERATION, &endpoint, status)))
            .boxed())
    }

    async fn exec_sync(
        &self,
        id: &str,
        command: &[String],
        timeout: Duration,
    ) -> Result<v1::ExecSyncResponse> {
        let request = v1::ExecSyncRequest {
            container_id: id.to_owned(),
            cmd: command.to_vec(),
            timeout: whole_seconds(timeout),
        };
        // The runtime enforces the limit; ours only guards against a runtime that hangs.
        let limit = (!timeout.is_zero()).then(|| timeout.saturating_add(CALL_TIMEOUT));
        unary!(self.runtime, exec_sync, "ExecSync", request, limit)
    }

    async fn exec(&self, request: v1::ExecRequest) -> Result<String> {
        unary!(self.runtime, exec, "Exec", request).map(|answer| answer.url)
    }

    async fn attach(&self, request: v1::AttachRequest) -> Result<String> {
        unary!(self.runtime, attach, "Attach", request).map(|answer| answer.url)
    }

    async fn port_forward(&self, request: v1::PortForwardRequest) -> Result<String> {
        unary!(self.runtime, port_forward, "PortForward", request).map(|answer| answer.url)
    }

    async fn container_stats(&self, id: &str) -> Result<v1::ContainerStats> {
        let request = v1::ContainerStatsRequest { container_id: id.to_owned() };
        unary!(self.runtime, container_stats, "ContainerStats", request)?
            .stats
            .ok_or(CriError::Incomplete { operation: "ContainerStats", field: "stats" })
    }

    async fn list_container_stats(
        &self,
        filter: Option<v1::ContainerStatsFilter>,
    ) -> Result<Vec<v1::ContainerStats>> {
        list!(self.runtime, list_container_stats -> stats, "ListContainerStats",
            v1::ListContainerStatsRequest { filter: filter.clone() },
            else stream_container_stats -> container_stats, v1::StreamContainerStatsRequest { filter })
    }

    async fn pod_sandbox_stats(&self, id: &str) -> Result<v1::PodSandboxStats> {
        let request = v1::PodSandboxStatsRequest { pod_sandbox_id: id.to_owned() };
        unary!(self.runtime, pod_sandbox_stats, "PodSandboxStats", request)?
            .stats
            .ok_or(CriError::Incomplete { operation: "PodSandboxStats", field: "stats" })
    }

    async fn list_pod_sandbox_stats(
        &self,
        filter: Option<v1::PodSandboxStatsFilter>,
    ) -> Result<Vec<v1::PodSandboxStats>> {
        list!(self.runtime, list_pod_sandbox_stats -> stats, "ListPodSandboxStats",
            v1::ListPodSandboxStatsRequest { filter: filter.clone() },
            else stream_pod_sandbox_stats -> pod_sandbox_stats, v1::StreamPodSandboxStatsRequest { filter })
    }

    async fn list_metric_descriptors(&self) -> Result<Vec<v1::MetricDescriptor>> {
        let request = v1::ListMetricDescriptorsRequest {};
        unary!(self.runtime, list_metric_descriptors, "ListMetricDescriptors", request)
            .map(|answer| answer.descriptors)
    }

    async fn list_pod_sandbox_metrics(&self) -> Result<Vec<v1::PodSandboxMetrics>> {
        list!(self.runtime, list_pod_sandbox_metrics -> pod_metrics, "ListPodSandboxMetrics",
            v1::ListPodSandboxMetricsRequest {},
            else stream_pod_sandbox_metrics -> pod_sandbox_metrics, v1::StreamPodSandboxMetricsRequest {})
    }

    async fn list_images(&self, filter: Option<v1::ImageFilter>) -> Result<Vec<v1::Image>> {
        list!(self.images, list_images -> images, "ListImages",
            v1::ListImagesRequest { filter: filter.clone() },
            else stream_images -> images, v1::StreamImagesRequest { filter })
    }

    async fn image_status(&self, image: v1::ImageSpec) -> Result<Option<v1::Image>> {
        let request = v1::ImageStatusRequest { image: Some(image), verbose: false };
        unary!(self.images, image_status, "ImageStatus", request).map(|answer| answer.image)
    }

    async fn pull_image(&self, request: v1::PullImageRequest) -> Result<String> {
        // How long a pull may take is for the caller to say: it depends on the image and the line.
        unary!(self.images, pull_image, "PullImage", request, None).map(|answer| answer.image_ref)
    }

    async fn remove_image(&self, image: v1::ImageSpec) -> Result<()> {
        let request = v1::RemoveImageRequest { image: Some(image) };
        gone_is_fine(unary!(self.images, remove_image, "RemoveImage", request))
    }

    async fn image_fs_info(&self) -> Result<v1::ImageFsInfoResponse> {
        unary!(self.images, image_fs_info, "ImageFsInfo", v1::ImageFsInfoRequest {})
    }
}

/// Stopping and removing what does not exist has succeeded already; not every runtime says so.
fn gone_is_fine<T>(answer: Result<T>) -> Result<()> {
    match answer {
        Err(error) if !error.is_not_found() => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_unix_sockets() {
        assert_eq!(socket_path("unix:///run/a.sock").unwrap(), PathBuf::from("/run/a.sock"));
        assert_eq!(socket_path("/run/a.sock").unwrap(), PathBuf::from("/run/a.sock"));
        for bad in ["tcp://127.0.0.1:1", "unix://a.sock", "", "a.sock"] {
            assert!(matches!(socket_path(bad), Err(CriError::Endpoint { .. })), "{bad}");
        }
    }

    #[test]
    fn grace_periods_round_up_to_seconds() {
        for (grace, seconds) in [(0, 0), (1, 1), (999, 1), (1000, 1), (1001, 2)] {
            assert_eq!(whole_seconds(Duration::from_millis(grace)), seconds, "{grace} ms");
        }
    }

    #[tokio::test]
    async fn nobody_listening_is_unreachable_and_the_next_call_tries_again() {
        let dir = tempfile::tempdir().unwrap();
        let client = Client::connect(dir.path().join("no.sock").to_str().unwrap()).unwrap();
        for _ in 0..2 {
            let error = client.version().await.unwrap_err();
            assert!(matches!(error, CriError::Unreachable { operation: "Version", .. }), "{error}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_runtime_is_given_up_after_the_limit() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("silent.sock");
        let _listener = tokio::net::UnixListener::bind(&path).unwrap();
        let client = Client::connect(path.to_str().unwrap()).unwrap();
        let error = client.version().await.unwrap_err();
        assert!(matches!(error, CriError::Timeout { after: CALL_TIMEOUT, .. }), "{error}");
    }

    #[test]
    fn removing_what_is_gone_succeeds() {
        assert!(gone_is_fine::<()>(Err(CriError::rpc("X", Code::NotFound, "gone"))).is_ok());
        assert!(gone_is_fine::<()>(Err(CriError::rpc("X", Code::Internal, "no"))).is_err());
    }
}
