//! What the fake runtime remembers, and how it changes.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use tonic::Code;

use super::{Behaviour, ExecHandler};
use crate::cri::{CriError, Result, v1};

/// Where the fake clock starts: 2026-01-01T00:00:00Z in nanoseconds.
const EPOCH: i64 = 1_767_225_600_000_000_000;
const MILLISECOND: i64 = 1_000_000;
/// What a process killed by SIGKILL reports.
pub(super) const KILLED: i32 = 137;
/// What a process ended by SIGTERM reports.
pub(super) const TERMINATED: i32 = 143;

pub(super) struct Sandbox {
    pub(super) config: v1::PodSandboxConfig,
    pub(super) handler: String,
    pub(super) state: v1::PodSandboxState,
    pub(super) created_at: i64,
    pub(super) ip: String,
}

pub(super) struct Container {
    pub(super) sandbox: String,
    pub(super) config: v1::ContainerConfig,
    pub(super) status: v1::ContainerStatus,
}

pub(super) struct State {
    pub(super) now: i64,
    pub(super) next_id: u64,
    pub(super) reachable: bool,
    pub(super) network_ready: bool,
    pub(super) events_supported: bool,
    pub(super) sandboxes: BTreeMap<String, Sandbox>,
    pub(super) containers: BTreeMap<String, Container>,
    pub(super) images: BTreeMap<String, v1::Image>,
    pub(super) pullable: BTreeSet<String>,
    pub(super) scripts: HashMap<String, VecDeque<Behaviour>>,
    pub(super) failures: HashMap<&'static str, VecDeque<CriError>>,
    pub(super) exec: Option<Arc<ExecHandler>>,
    pub(super) calls: Vec<(&'static str, String)>,
}

impl State {
    pub(super) fn new() -> Self {
        Self {
            now: EPOCH,
            next_id: 1,
            reachable: true,
            network_ready: true,
            events_supported: true,
            sandboxes: BTreeMap::new(),
            containers: BTreeMap::new(),
            images: BTreeMap::new(),
            pullable: BTreeSet::new(),
            scripts: HashMap::new(),
            failures: HashMap::new(),
            exec: None,
            calls: Vec::new(),
        }
    }

    /// Records a call, and answers the failure that was ordered for it, if any.
    pub(super) fn called(&mut self, operation: &'static str, subject: &str) -> Result<()> {
        self.calls.push((operation, subject.to_owned()));
        if !self.reachable {
            let source = Box::new(tonic::Status::unavailable("connection refused"));
            return Err(CriError::Unreachable { operation, endpoint: "fake".into(), source });
        }
        match self.failures.get_mut(operation).and_then(VecDeque::pop_front) {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    fn tick(&mut self) -> i64 {
        self.now += MILLISECOND;
        self.now
    }

    /// Ids sort in the order of creation.
    fn new_id(&mut self, kind: &str) -> String {
        let id = format!("{kind}-{:04}", self.next_id);
        self.next_id += 1;
        id
    }

    pub(super) fn add_image(&mut self, name: &str) -> String {
        let number = name.bytes().fold(0u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
        let id = format!("sha256:{number:064x}");
        let image = v1::Image {
            id: id.clone(),
            repo_tags: vec![name.to_owned()],
            size: 1 << 20,
            ..Default::default()
        };
        self.images.insert(name.to_owned(), image);
        id
    }

    /// An image by name or id.
    pub(super) fn image(&self, reference: &str) -> Option<&v1::Image> {
        self.images.get(reference).or_else(|| self.images.values().find(|image| image.id == reference))
    }

    pub(super) fn run_sandbox(&mut self, config: v1::PodSandboxConfig, handler: &str) -> String {
        let id = self.new_id("sandbox");
        let created_at = self.tick();
        let host_network = config
            .linux
            .as_ref()
            .and_then(|linux| linux.security_context.as_ref())
            .and_then(|context| context.namespace_options.as_ref())
            .is_some_and(|options| options.network() == v1::NamespaceMode::Node);
        let number = self.next_id;
        let ip =
            if host_network { String::new() } else { format!("10.42.{}.{}", number / 250, number % 250 + 2) };
        let state = v1::PodSandboxState::SandboxReady;
        self.sandboxes
            .insert(id.clone(), Sandbox { config, handler: handler.to_owned(), state, created_at, ip });
        id
    }

    pub(super) fn sandbox(&self, operation: &'static str, id: &str) -> Result<&Sandbox> {
        self.sandboxes
            .get(id)
            .ok_or_else(|| CriError::rpc(operation, Code::NotFound, format!("sandbox {id:?}: not found")))
    }

    pub(super) fn container(&mut self, operation: &'static str, id: &str) -> Result<&mut Container> {
        self.containers
            .get_mut(id)
            .ok_or_else(|| CriError::rpc(operation, Code::NotFound, format!("container {id:?}: not found")))
    }

    pub(super) fn create(&mut self, sandbox: &str, config: v1::ContainerConfig) -> Result<String> {
        const OPERATION: &str = "CreateContainer";
        if self.sandbox(OPERATION, sandbox)?.state != v1::PodSandboxState::SandboxReady {
            return Err(CriError::rpc(OPERATION, Code::Unknown, "sandbox is not running"));
        }
        let image = config.image.clone().unwrap_or_default();
        let Some(image_id) = self.image(&image.image).map(|found| found.id.clone()) else {
            return Err(CriError::rpc(
                OPERATION,
                Code::NotFound,
                format!("image {:?}: not found", image.image),
            ));
        };
        let id = self.new_id("container");
        let status = v1::ContainerStatus {
            id: id.clone(),
            metadata: config.metadata.clone(),
            state: v1::ContainerState::ContainerCreated.into(),
            created_at: self.tick(),
            image: Some(image),
            image_ref: image_id.clone(),
            image_id,
            labels: config.labels.clone(),
            annotations: config.annotations.clone(),
            mounts: config.mounts.clone(),
            log_path: config.log_path.clone(),
            resources: config
                .linux
                .as_ref()
                .map(|linux| v1::ContainerResources { linux: linux.resources.clone() }),
            ..Default::default()
        };
        self.containers.insert(id.clone(), Container { sandbox: sandbox.to_owned(), config, status });
        Ok(id)
    }

    /// Starts a container; a scripted exit happens at once, so there may be a second event.
    pub(super) fn start(&mut self, id: &str) -> Result<Vec<v1::ContainerEventResponse>> {
        const OPERATION: &str = "StartContainer";
        let started_at = self.tick();
        let container = self.container(OPERATION, id)?;
        if container.status.state() != v1::ContainerState::ContainerCreated {
            return Err(CriError::rpc(
                OPERATION,
                Code::FailedPrecondition,
                "container is not in created state",
            ));
        }
        let name = container.config.metadata.as_ref().map(|m| m.name.clone()).unwrap_or_default();
        let behaviour = self.scripts.get_mut(&name).and_then(VecDeque::pop_front).unwrap_or(Behaviour::Run);
        if let Behaviour::FailToStart(message) = behaviour {
            self.finish(id, 128, "StartError", &message);
            return Err(CriError::rpc(OPERATION, Code::Unknown, message));
        }
        let status = &mut self.container(OPERATION, id)?.status;
        status.started_at = started_at;
        status.set_state(v1::ContainerState::ContainerRunning);
        let mut events = vec![self.event(id, v1::ContainerEventType::ContainerStartedEvent)];
        if let Behaviour::Exit(code) = behaviour {
            let reason = if code == 0 { "Completed" } else { "Error" };
            events.push(self.exit(id, code, reason, ""));
        }
        Ok(events.into_iter().flatten().collect())
    }

    /// A running container ends; `None` when it was not running.
    pub(super) fn exit(
        &mut self,
        id: &str,
        code: i32,
        reason: &str,
        message: &str,
    ) -> Option<v1::ContainerEventResponse> {
        let container = self.containers.get(id)?;
        if container.status.state() != v1::ContainerState::ContainerRunning {
            return None;
        }
        self.finish(id, code, reason, message);
        self.event(id, v1::ContainerEventType::ContainerStoppedEvent)
    }

    fn finish(&mut self, id: &str, code: i32, reason: &str, message: &str) {
        let now = self.tick();
        if let Some(container) = self.containers.get_mut(id) {
            let status = &mut container.status;
            status.set_state(v1::ContainerState::ContainerExited);
            status.finished_at = now;
            status.exit_code = code;
            status.reason = reason.to_owned();
            status.message = message.to_owned();
        }
    }

    pub(super) fn stop_sandbox(&mut self, id: &str) -> Vec<v1::ContainerEventResponse> {
        let inside = self.containers_in(id);
        let mut events: Vec<_> = inside.iter().filter_map(|c| self.exit(c, KILLED, "Error", "")).collect();
        if let Some(sandbox) = self.sandboxes.get_mut(id) {
            let was_ready = sandbox.state == v1::PodSandboxState::SandboxReady;
            sandbox.state = v1::PodSandboxState::SandboxNotready;
            if was_ready {
                events.extend(self.sandbox_event(id, v1::ContainerEventType::ContainerStoppedEvent));
            }
        }
        events
    }

    pub(super) fn remove_sandbox(&mut self, id: &str) -> Vec<v1::ContainerEventResponse> {
        let mut events = self.stop_sandbox(id);
        for container in self.containers_in(id) {
            events.extend(self.remove_container(&container));
        }
        let event = self.sandbox_event(id, v1::ContainerEventType::ContainerDeletedEvent);
        if self.sandboxes.remove(id).is_some() {
            events.extend(event);
        }
        events
    }

    pub(super) fn remove_container(&mut self, id: &str) -> Vec<v1::ContainerEventResponse> {
        let mut events: Vec<_> = self.exit(id, KILLED, "Error", "").into_iter().collect();
        let event = self.event(id, v1::ContainerEventType::ContainerDeletedEvent);
        if self.containers.remove(id).is_some() {
            events.extend(event);
        }
        events
    }

    fn containers_in(&self, sandbox: &str) -> Vec<String> {
        self.containers.iter().filter(|(_, c)| c.sandbox == sandbox).map(|(id, _)| id.clone()).collect()
    }

    pub(super) fn newest_container(&self, name: &str) -> Option<String> {
        let named = |c: &Container| c.config.metadata.as_ref().is_some_and(|m| m.name == name);
        self.containers.iter().rev().find(|(_, c)| named(c)).map(|(id, _)| id.clone())
    }

    pub(super) fn sandbox_status(&self, id: &str) -> Option<v1::PodSandboxStatus> {
        let sandbox = self.sandboxes.get(id)?;
        let namespaces = sandbox
            .config
            .linux
            .as_ref()
            .and_then(|linux| linux.security_context.as_ref())
            .map(|context| v1::Namespace { options: context.namespace_options.clone() });
        Some(v1::PodSandboxStatus {
            id: id.to_owned(),
            metadata: sandbox.config.metadata.clone(),
            state: sandbox.state.into(),
            created_at: sandbox.created_at,
            network: Some(v1::PodSandboxNetworkStatus { ip: sandbox.ip.clone(), additional_ips: Vec::new() }),
            linux: Some(v1::LinuxPodSandboxStatus { namespaces }),
            labels: sandbox.config.labels.clone(),
            annotations: sandbox.config.annotations.clone(),
            runtime_handler: sandbox.handler.clone(),
        })
    }

    pub(super) fn container_statuses(&self, sandbox: &str) -> Vec<v1::ContainerStatus> {
        self.containers.values().filter(|c| c.sandbox == sandbox).map(|c| c.status.clone()).collect()
    }

    /// The event that tells of a change of a container, with the state after the change.
    pub(super) fn event(&self, id: &str, kind: v1::ContainerEventType) -> Option<v1::ContainerEventResponse> {
        let sandbox = &self.containers.get(id)?.sandbox;
        Some(self.event_in(sandbox, id, kind))
    }

    /// Sandboxes report themselves as a container with the sandbox's id.
    pub(super) fn sandbox_event(
        &self,
        id: &str,
        kind: v1::ContainerEventType,
    ) -> Option<v1::ContainerEventResponse> {
        self.sandboxes.contains_key(id).then(|| self.event_in(id, id, kind))
    }

    fn event_in(&self, sandbox: &str, id: &str, kind: v1::ContainerEventType) -> v1::ContainerEventResponse {
        v1::ContainerEventResponse {
            container_id: id.to_owned(),
            container_event_type: kind.into(),
            created_at: self.now,
            pod_sandbox_status: self.sandbox_status(sandbox),
            containers_statuses: self.container_statuses(sandbox),
        }
    }
}

/// Whether all pairs of `wanted` are in `labels`.
pub(super) fn matches(labels: &BTreeMap<String, String>, wanted: &BTreeMap<String, String>) -> bool {
    wanted.iter().all(|(key, value)| labels.get(key) == Some(value))
}
