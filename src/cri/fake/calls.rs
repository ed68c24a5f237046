//! The fake runtime's answers to CRI calls.

use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use tonic::Code;

use super::state::{KILLED, TERMINATED, matches};
use super::{FakeRuntime, State};
use crate::cri::{CriError, EventStream, Result, Runtime, v1};

impl FakeRuntime {
    /// Records the call, then changes the state and tells subscribers what happened.
    fn change<T>(
        &self,
        operation: &'static str,
        subject: &str,
        change: impl FnOnce(&mut State) -> Result<(T, Vec<v1::ContainerEventResponse>)>,
    ) -> Result<T> {
        let (answer, events) = {
            let mut state = self.lock();
            state.called(operation, subject)?;
            change(&mut state)?
        };
        events.into_iter().for_each(|event| self.emit(Some(event)));
        Ok(answer)
    }

    fn read<T>(
        &self,
        operation: &'static str,
        subject: &str,
        read: impl FnOnce(&mut State) -> Result<T>,
    ) -> Result<T> {
        let mut state = self.lock();
        state.called(operation, subject)?;
        read(&mut state)
    }
}

fn condition(kind: &str, status: bool) -> v1::RuntimeCondition {
    let (reason, message) = match (kind, status) {
        ("NetworkReady", false) => {
            ("NetworkPluginNotReady", "Network plugin returns error: cni plugin not initialized")
        }
        _ => ("", ""),
    };
    v1::RuntimeCondition {
        r#type: kind.to_owned(),
        status,
        reason: reason.to_owned(),
        message: message.to_owned(),
    }
}

fn no_figures<T>(operation: &'static str) -> Result<T> {
    Err(CriError::rpc(operation, Code::Unimplemented, "the fake runtime has no figures"))
}

#[async_trait]
impl Runtime for FakeRuntime {
    async fn version(&self) -> Result<v1::VersionResponse> {
        self.read("Version", "", |_| {
            Ok(v1::VersionResponse {
                version: "0.1.0".to_owned(),
                runtime_name: "fake".to_owned(),
                runtime_version: "v1.0.0".to_owned(),
                runtime_api_version: "v1".to_owned(),
            })
        })
    }

    async fn status(&self, _verbose: bool) -> Result<v1::StatusResponse> {
        self.read("Status", "", |state| {
            let conditions =
                vec![condition("RuntimeReady", true), condition("NetworkReady", state.network_ready)];
            Ok(v1::StatusResponse { status: Some(v1::RuntimeStatus { conditions }), ..Default::default() })
        })
    }

    async fn runtime_config(&self) -> Result<v1::RuntimeConfigResponse> {
        self.read("RuntimeConfig", "", |_| {
            let cgroup_driver = v1::CgroupDriver::Cgroupfs.into();
            Ok(v1::RuntimeConfigResponse { linux: Some(v1::LinuxRuntimeConfiguration { cgroup_driver }) })
        })
    }

    async fn update_runtime_config(&self, pod_cidr: &str) -> Result<()> {
        self.read("UpdateRuntimeConfig", pod_cidr, |_| Ok(()))
    }

    async fn run_pod_sandbox(&self, config: v1::PodSandboxConfig, runtime_handler: &str) -> Result<String> {
        let name = config.metadata.as_ref().map(|m| m.name.clone()).unwrap_or_default();
        self.change("RunPodSandbox", &name, |state| {
            let id = state.run_sandbox(config, runtime_handler);
            let events = [
                v1::ContainerEventType::ContainerCreatedEvent,
                v1::ContainerEventType::ContainerStartedEvent,
            ]
            .into_iter()
            .filter_map(|kind| state.sandbox_event(&id, kind))
            .collect();
            Ok((id, events))
        })
    }

    async fn stop_pod_sandbox(&self, id: &str) -> Result<()> {
        self.change("StopPodSandbox", id, |state| Ok(((), state.stop_sandbox(id))))
    }

    async fn remove_pod_sandbox(&self, id: &str) -> Result<()> {
        self.change("RemovePodSandbox", id, |state| Ok(((), state.remove_sandbox(id))))
    }

    async fn pod_sandbox_status(&self, id: &str, _verbose: bool) -> Result<v1::PodSandboxStatusResponse> {
        self.read("PodSandboxStatus", id, |state| {
            state.sandbox("PodSandboxStatus", id)?;
            Ok(v1::PodSandboxStatusResponse {
                status: state.sandbox_status(id),
                containers_statuses: state.container_statuses(id),
                timestamp: state.now,
                ..Default::default()
            })
        })
    }

    async fn list_pod_sandboxes(&self, filter: Option<v1::PodSandboxFilter>) -> Result<Vec<v1::PodSandbox>> {
        let filter = filter.unwrap_or_default();
        self.read("ListPodSandbox", &filter.id, |state| {
            let wanted = |(id, sandbox): &(&String, &super::state::Sandbox)| {
                (filter.id.is_empty() || filter.id == **id)
                    && filter.state.is_none_or(|wanted| wanted.state() == sandbox.state)
                    && matches(&sandbox.config.labels, &filter.label_selector)
            };
            Ok(state
                .sandboxes
                .iter()
                .filter(wanted)
                .map(|(id, sandbox)| v1::PodSandbox {
                    id: id.clone(),
                    metadata: sandbox.config.metadata.clone(),
                    state: sandbox.state.into(),
                    created_at: sandbox.created_at,
                    labels: sandbox.config.labels.clone(),
                    annotations: sandbox.config.annotations.clone(),
                    runtime_handler: sandbox.handler.clone(),
                })
                .collect())
        })
    }

    async fn update_pod_sandbox_resources(
        &self,
        request: v1::UpdatePodSandboxResourcesRequest,
    ) -> Result<()> {
        let id = request.pod_sandbox_id;
        self.read("UpdatePodSandboxResources", &id, |state| {
            state.sandbox("UpdatePodSandboxResources", &id).map(drop)
        })
    }

    async fn create_container(
        &self,
        pod_sandbox_id: &str,
        config: v1::ContainerConfig,
        _sandbox_config: v1::PodSandboxConfig,
    ) -> Result<String> {
        let name = config.metadata.as_ref().map(|m| m.name.clone()).unwrap_or_default();
        self.change("CreateContainer", &name, |state| {
            let id = state.create(pod_sandbox_id, config)?;
            let event = state.event(&id, v1::ContainerEventType::ContainerCreatedEvent);
            Ok((id, event.into_iter().collect()))
        })
    }

    async fn start_container(&self, id: &str) -> Result<()> {
        self.change("StartContainer", id, |state| Ok(((), state.start(id)?)))
    }

    async fn stop_container(&self, id: &str, grace: Duration) -> Result<()> {
        let code = if grace.is_zero() { KILLED } else { TERMINATED };
        self.change("StopContainer", id, |state| {
            Ok(((), state.exit(id, code, "Error", "").into_iter().collect()))
        })
    }

    async fn remove_container(&self, id: &str) -> Result<()> {
        self.change("RemoveContainer", id, |state| Ok(((), state.remove_container(id))))
    }

    async fn list_containers(&self, filter: Option<v1::ContainerFilter>) -> Result<Vec<v1::Container>> {
        let filter = filter.unwrap_or_default();
        self.read("ListContainers", &filter.pod_sandbox_id, |state| {
            let wanted = |(id, container): &(&String, &super::state::Container)| {
                (filter.id.is_empty() || filter.id == **id)
                    && (filter.pod_sandbox_id.is_empty() || filter.pod_sandbox_id == container.sandbox)
                    && filter.state.is_none_or(|wanted| wanted.state == container.status.state)
                    && matches(&container.config.labels, &filter.label_selector)
            };
            Ok(state
                .containers
                .iter()
                .filter(wanted)
                .map(|(id, container)| v1::Container {
                    id: id.clone(),
                    pod_sandbox_id: container.sandbox.clone(),
                    metadata: container.config.metadata.clone(),
                    image: container.config.image.clone(),
                    image_ref: container.status.image_ref.clone(),
                    state: container.status.state,
                    created_at: container.status.created_at,
                    labels: container.config.labels.clone(),
                    annotations: container.config.annotations.clone(),
                    image_id: container.status.image_id.clone(),
                })
                .collect())
        })
    }

    async fn container_status(&self, id: &str, _verbose: bool) -> Result<v1::ContainerStatusResponse> {
        self.read("ContainerStatus", id, |state| {
            let status = state.container("ContainerStatus", id)?.status.clone();
            Ok(v1::ContainerStatusResponse { status: Some(status), ..Default::default() })
        })
    }

    async fn update_container_resources(&self, request: v1::UpdateContainerResourcesRequest) -> Result<()> {
        let id = request.container_id;
        self.read("UpdateContainerResources", &id, |state| {
            let resources = Some(v1::ContainerResources { linux: request.linux });
            state.container("UpdateContainerResources", &id)?.status.resources = resources;
            Ok(())
        })
    }

    async fn reopen_container_log(&self, id: &str) -> Result<()> {
        self.read("ReopenContainerLog", id, |state| state.container("ReopenContainerLog", id).map(drop))
    }

    async fn checkpoint_container(&self, id: &str, _location: &str, _timeout: Duration) -> Result<()> {
        self.read("CheckpointContainer", id, |state| state.container("CheckpointContainer", id).map(drop))
    }

    async fn container_events(&self) -> Result<EventStream> {
        self.read("GetContainerEvents", "", |state| match state.events_supported {
            true => Ok(()),
            false => Err(CriError::rpc("GetContainerEvents", Code::Unimplemented, "unknown method")),
        })?;
        let receiver = self.events.subscribe();
        Ok(futures::stream::unfold(receiver, |mut receiver| async move {
            let event = receiver.recv().await.map_err(|_lagged_or_closed| {
                CriError::rpc("GetContainerEvents", Code::ResourceExhausted, "events were lost")
            });
            Some((event, receiver))
        })
        .boxed())
    }

    async fn exec_sync(
        &self,
        id: &str,
        command: &[String],
        _timeout: Duration,
    ) -> Result<v1::ExecSyncResponse> {
        let handler = self.read("ExecSync", id, |state| {
            let running = v1::ContainerState::ContainerRunning;
            if state.container("ExecSync", id)?.status.state() != running {
                return Err(CriError::rpc("ExecSync", Code::Unknown, "container is not running"));
            }
            Ok(state.exec.clone())
        })?;
        handler.map_or_else(|| Ok(v1::ExecSyncResponse::default()), |handler| handler(id, command))
    }

    async fn exec(&self, request: v1::ExecRequest) -> Result<String> {
        let id = request.container_id;
        self.read("Exec", &id, |state| state.container("Exec", &id).map(drop))?;
        Ok(format!("http://127.0.0.1:0/exec/{id}"))
    }

    async fn attach(&self, request: v1::AttachRequest) -> Result<String> {
        let id = request.container_id;
        self.read("Attach", &id, |state| state.container("Attach", &id).map(drop))?;
        Ok(format!("http://127.0.0.1:0/attach/{id}"))
    }

    async fn port_forward(&self, request: v1::PortForwardRequest) -> Result<String> {
        let id = request.pod_sandbox_id;
        self.read("PortForward", &id, |state| state.sandbox("PortForward", &id).map(drop))?;
        Ok(format!("http://127.0.0.1:0/portforward/{id}"))
    }

    async fn container_stats(&self, id: &str) -> Result<v1::ContainerStats> {
        self.read("ContainerStats", id, |_| no_figures("ContainerStats"))
    }

    async fn list_container_stats(
        &self,
        _filter: Option<v1::ContainerStatsFilter>,
    ) -> Result<Vec<v1::ContainerStats>> {
        self.read("ListContainerStats", "", |_| Ok(Vec::new()))
    }

    async fn pod_sandbox_stats(&self, id: &str) -> Result<v1::PodSandboxStats> {
        self.read("PodSandboxStats", id, |_| no_figures("PodSandboxStats"))
    }

    async fn list_pod_sandbox_stats(
        &self,
        _filter: Option<v1::PodSandboxStatsFilter>,
    ) -> Result<Vec<v1::PodSandboxStats>> {
        self.read("ListPodSandboxStats", "", |_| Ok(Vec::new()))
    }

    async fn list_metric_descriptors(&self) -> Result<Vec<v1::MetricDescriptor>> {
        self.read("ListMetricDescriptors", "", |_| no_figures("ListMetricDescriptors"))
    }

    async fn list_pod_sandbox_metrics(&self) -> Result<Vec<v1::PodSandboxMetrics>> {
        self.read("ListPodSandboxMetrics", "", |_| no_figures("ListPodSandboxMetrics"))
    }

    async fn list_images(&self, filter: Option<v1::ImageFilter>) -> Result<Vec<v1::Image>> {
        let name = filter.and_then(|filter| filter.image).map(|spec| spec.image).unwrap_or_default();
        self.read("ListImages", &name, |state| match name.is_empty() {
            true => Ok(state.images.values().cloned().collect()),
            false => Ok(state.image(&name).cloned().into_iter().collect()),
        })
    }

    async fn image_status(&self, image: v1::ImageSpec) -> Result<Option<v1::Image>> {
        self.read("ImageStatus", &image.image, |state| Ok(state.image(&image.image).cloned()))
    }

    async fn pull_image(&self, request: v1::PullImageRequest) -> Result<String> {
        let name = request.image.map(|spec| spec.image).unwrap_or_default();
        self.read("PullImage", &name, |state| match state.pullable.contains(&name) {
            true => Ok(state.add_image(&name)),
            false => {
                let message = format!("failed to pull and unpack image \"{name}\": {name}: not found");
                Err(CriError::rpc("PullImage", Code::NotFound, message))
            }
        })
    }

    async fn remove_image(&self, image: v1::ImageSpec) -> Result<()> {
        self.read("RemoveImage", &image.image, |state| {
            let Some(id) = state.image(&image.image).map(|found| found.id.clone()) else { return Ok(()) };
            state.images.retain(|_, other| other.id != id);
            Ok(())
        })
    }

    async fn image_fs_info(&self) -> Result<v1::ImageFsInfoResponse> {
        self.read("ImageFsInfo", "", |state| {
            let used = state.images.values().map(|image| image.size).sum();
            let usage = v1::FilesystemUsage {
                timestamp: state.now,
                fs_id: Some(v1::FilesystemIdentifier { mountpoint: "/".to_owned() }),
                used_bytes: Some(v1::UInt64Value { value: used }),
                inodes_used: Some(v1::UInt64Value { value: 1 }),
            };
            Ok(v1::ImageFsInfoResponse { image_filesystems: vec![usage], container_filesystems: Vec::new() })
        })
    }
}
