//! A container runtime in memory, for tests of everything above CRI.
//!
//! Deterministic: ids count up, the clock moves only by [`FakeRuntime::advance`] and by one millisecond per change, and
//! containers do what they are told: they run until [`FakeRuntime::exit`] is called or somebody stops them, unless
//! their exits were scripted by name with [`FakeRuntime::script`]. Every call is recorded and any call can be made to
//! fail once with [`FakeRuntime::fail_next`].

mod calls;
mod state;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::broadcast;

use self::state::State;
use super::{CriError, v1};

/// Events kept for a slow subscriber before it loses the oldest ones; far above what a test makes.
const EVENT_BUFFER: usize = 1024;

/// What a container does once started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Behaviour {
    /// Runs until it is stopped or [`FakeRuntime::exit`] is called.
    Run,
    /// Exits at once with this code.
    Exit(i32),
    /// Does not start; the runtime answers this message.
    FailToStart(String),
}

/// What `exec_sync` answers.
pub type ExecHandler = dyn Fn(&str, &[String]) -> super::Result<v1::ExecSyncResponse> + Send + Sync;

/// A container runtime in memory. Clones share the same state.
#[derive(Clone)]
pub struct FakeRuntime {
    state: Arc<Mutex<State>>,
    events: broadcast::Sender<v1::ContainerEventResponse>,
}

impl Default for FakeRuntime {
    fn default() -> Self {
        Self::new()
    }
}

impl FakeRuntime {
    /// An empty runtime that is ready.
    pub fn new() -> Self {
        let (events, _) = broadcast::channel(EVENT_BUFFER);
        Self { state: Arc::new(Mutex::new(State::new())), events }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts an image onto the node; returns its id.
    pub fn add_image(&self, name: &str) -> String {
        self.lock().add_image(name)
    }

    /// Makes an image available for pulling.
    pub fn add_pullable(&self, name: &str) {
        self.lock().pullable.insert(name.to_owned());
    }

    /// What the next containers of this name do, in turn; afterwards they run.
    pub fn script(&self, container_name: &str, behaviours: impl IntoIterator<Item = Behaviour>) {
        self.lock().scripts.entry(container_name.to_owned()).or_default().extend(behaviours);
    }

    /// What `exec_sync` answers, given container id and command. Without it every command succeeds silently.
    pub fn on_exec(
        &self,
        handler: impl Fn(&str, &[String]) -> super::Result<v1::ExecSyncResponse> + Send + Sync + 'static,
    ) {
        self.lock().exec = Some(Arc::new(handler));
    }

    /// A running container exits with this code.
    pub fn exit(&self, container_id: &str, code: i32) {
        self.exit_because(container_id, code, if code == 0 { "Completed" } else { "Error" }, "");
    }

    /// A running container exits with code, reason (for example `OOMKilled`) and message.
    pub fn exit_because(&self, container_id: &str, code: i32, reason: &str, message: &str) {
        let event = self.lock().exit(container_id, code, reason, message);
        self.emit(event);
    }

    /// The sandbox dies with all its containers, as after a reboot or a killed pause process.
    pub fn kill_sandbox(&self, pod_sandbox_id: &str) {
        let events = self.lock().stop_sandbox(pod_sandbox_id);
        events.into_iter().for_each(|event| self.emit(Some(event)));
    }

    /// The next call of `operation` (an RPC's name) fails with this error; several queue up.
    pub fn fail_next(&self, operation: &'static str, error: CriError) {
        self.lock().failures.entry(operation).or_default().push_back(error);
    }

    /// Every call fails as if nobody listened at the socket, or no longer.
    pub fn set_reachable(&self, reachable: bool) {
        self.lock().reachable = reachable;
    }

    /// Sets the runtime's `NetworkReady` condition.
    pub fn set_network_ready(&self, ready: bool) {
        self.lock().network_ready = ready;
    }

    /// Whether the runtime knows container events; older ones answer `Unimplemented`.
    pub fn set_events_supported(&self, supported: bool) {
        self.lock().events_supported = supported;
    }

    /// Moves the runtime's clock.
    pub fn advance(&self, by: Duration) {
        let nanos = i64::try_from(by.as_nanos()).unwrap_or(i64::MAX);
        let mut state = self.lock();
        state.now = state.now.saturating_add(nanos);
    }

    /// The RPCs made so far, in order, each with the id or name it was about.
    pub fn calls(&self) -> Vec<(&'static str, String)> {
        self.lock().calls.clone()
    }

    /// Forgets the recorded calls.
    pub fn clear_calls(&self) {
        self.lock().calls.clear();
    }

    /// Id of the newest container with this name, in whatever state.
    pub fn container_named(&self, name: &str) -> Option<String> {
        self.lock().newest_container(name)
    }

    /// The configuration that a container was created with.
    pub fn container_config(&self, id: &str) -> Option<v1::ContainerConfig> {
        self.lock().containers.get(id).map(|container| container.config.clone())
    }

    /// The configuration that a sandbox was run with.
    pub fn sandbox_config(&self, id: &str) -> Option<v1::PodSandboxConfig> {
        self.lock().sandboxes.get(id).map(|sandbox| sandbox.config.clone())
    }

    fn emit(&self, event: Option<v1::ContainerEventResponse>) {
        if let Some(event) = event {
            // No subscriber is no error.
            drop(self.events.send(event));
        }
    }
}

#[cfg(test)]
mod tests;
