//! The calls that the kubelet makes to a container runtime.

use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;

use super::{Result, v1};

/// Container events as they come; ends when the runtime goes away.
pub type EventStream = BoxStream<'static, Result<v1::ContainerEventResponse>>;

/// A CRI v1 runtime and its image service.
///
/// Calls may be made from any task and cancelled by dropping them. Stopping and removing are idempotent: what does not
/// exist is not an error. Everything else answers `NotFound` for unknown ids.
#[async_trait]
pub trait Runtime: Send + Sync + 'static {
    /// Name and version of the runtime.
    async fn version(&self) -> Result<v1::VersionResponse>;
    /// Conditions (`RuntimeReady`, `NetworkReady`), handlers and features of the runtime.
    async fn status(&self, verbose: bool) -> Result<v1::StatusResponse>;
    /// What the runtime wants the kubelet to do, above all the cgroup driver. `Unimplemented` on older runtimes.
    async fn runtime_config(&self) -> Result<v1::RuntimeConfigResponse>;
    /// Tells the runtime the pod CIDR of this node.
    async fn update_runtime_config(&self, pod_cidr: &str) -> Result<()>;

    /// Creates and starts a pod's sandbox; returns its id.
    async fn run_pod_sandbox(&self, config: v1::PodSandboxConfig, runtime_handler: &str) -> Result<String>;
    /// Stops the sandbox, kills what still runs in it and gives back its network resources.
    async fn stop_pod_sandbox(&self, id: &str) -> Result<()>;
    /// Removes the sandbox with all its containers.
    async fn remove_pod_sandbox(&self, id: &str) -> Result<()>;
    /// Status of one sandbox; newer runtimes add those of its containers.
    async fn pod_sandbox_status(&self, id: &str, verbose: bool) -> Result<v1::PodSandboxStatusResponse>;
    /// The sandboxes that match the filter.
    async fn list_pod_sandboxes(&self, filter: Option<v1::PodSandboxFilter>) -> Result<Vec<v1::PodSandbox>>;
    /// Tells the runtime the resources of the whole pod after a resize.
    async fn update_pod_sandbox_resources(&self, request: v1::UpdatePodSandboxResourcesRequest)
    -> Result<()>;

    /// Creates a container in a sandbox; returns its id.
    async fn create_container(
        &self,
        pod_sandbox_id: &str,
        config: v1::ContainerConfig,
        sandbox_config: v1::PodSandboxConfig,
    ) -> Result<String>;
    /// Starts a created container.
    async fn start_container(&self, id: &str) -> Result<()>;
    /// Sends the stop signal, and kills the container when `grace` is over. Returns when it has exited.
    async fn stop_container(&self, id: &str, grace: Duration) -> Result<()>;
    /// Removes the container, killing it if it runs.
    async fn remove_container(&self, id: &str) -> Result<()>;
    /// The containers that match the filter.
    async fn list_containers(&self, filter: Option<v1::ContainerFilter>) -> Result<Vec<v1::Container>>;
    /// Status of one container; `info` is filled when `verbose`.
    async fn container_status(&self, id: &str, verbose: bool) -> Result<v1::ContainerStatusResponse>;
    /// Changes limits of a container that exists.
    async fn update_container_resources(&self, request: v1::UpdateContainerResourcesRequest) -> Result<()>;
    /// Makes the runtime open the log file again after it has been renamed.
    async fn reopen_container_log(&self, id: &str) -> Result<()>;
    /// Writes a checkpoint of a container to `location`.
    async fn checkpoint_container(&self, id: &str, location: &str, timeout: Duration) -> Result<()>;
    /// Starts receiving container events. `Unimplemented` on older runtimes.
    async fn container_events(&self) -> Result<EventStream>;

    /// Runs a command in a container to its end. A zero `timeout` means no limit; past it the command is killed and
    /// the call answers `DeadlineExceeded`.
    async fn exec_sync(
        &self,
        id: &str,
        command: &[String],
        timeout: Duration,
    ) -> Result<v1::ExecSyncResponse>;
    /// Prepares an exec session; returns the URL that streams it.
    async fn exec(&self, request: v1::ExecRequest) -> Result<String>;
    /// Prepares an attach session; returns the URL that streams it.
    async fn attach(&self, request: v1::AttachRequest) -> Result<String>;
    /// Prepares port forwarding into a sandbox; returns the URL that streams it.
    async fn port_forward(&self, request: v1::PortForwardRequest) -> Result<String>;

    /// Usage figures of one container.
    async fn container_stats(&self, id: &str) -> Result<v1::ContainerStats>;
    /// Usage figures of the running containers that match the filter.
    async fn list_container_stats(
        &self,
        filter: Option<v1::ContainerStatsFilter>,
    ) -> Result<Vec<v1::ContainerStats>>;
    /// Usage figures of one sandbox. `Unimplemented` on older runtimes.
    async fn pod_sandbox_stats(&self, id: &str) -> Result<v1::PodSandboxStats>;
    /// Usage figures of the sandboxes that match the filter.
    async fn list_pod_sandbox_stats(
        &self,
        filter: Option<v1::PodSandboxStatsFilter>,
    ) -> Result<Vec<v1::PodSandboxStats>>;
    /// Which metrics [`Runtime::list_pod_sandbox_metrics`] will return.
    async fn list_metric_descriptors(&self) -> Result<Vec<v1::MetricDescriptor>>;
    /// Metrics of all sandboxes.
    async fn list_pod_sandbox_metrics(&self) -> Result<Vec<v1::PodSandboxMetrics>>;

    /// The images on this node that match the filter.
    async fn list_images(&self, filter: Option<v1::ImageFilter>) -> Result<Vec<v1::Image>>;
    /// One image, or `None` when it is not on this node.
    async fn image_status(&self, image: v1::ImageSpec) -> Result<Option<v1::Image>>;
    /// Pulls an image; returns the id by which the runtime knows it.
    async fn pull_image(&self, request: v1::PullImageRequest) -> Result<String>;
    /// Removes an image with all its names.
    async fn remove_image(&self, image: v1::ImageSpec) -> Result<()>;
    /// Space used by images and by containers' writable layers.
    async fn image_fs_info(&self) -> Result<v1::ImageFsInfoResponse>;
}
