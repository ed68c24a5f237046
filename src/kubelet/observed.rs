//! What the runtime says about one pod, in the kubelet's own terms.
//!
//! This is the only input about the runtime that planning and status derivation see; `runtime.rs` fills it from CRI.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{LinuxContainerUser, ResourceRequirements};

/// Sandboxes and containers of one pod.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ObservedPod {
    /// Newest first.
    pub sandboxes: Vec<ObservedSandbox>,
    /// Newest first.
    pub containers: Vec<ObservedContainer>,
}

/// One sandbox.
#[derive(Clone, Debug, PartialEq)]
pub struct ObservedSandbox {
    /// Runtime's id.
    pub id: String,
    /// How many sandboxes the pod had before.
    pub attempt: u32,
    /// Its namespaces and its pause process are alive.
    pub ready: bool,
    /// When it was made.
    pub created_at: Timestamp,
    /// Pod IPs, empty for host network.
    pub ips: Vec<String>,
}

/// Where a container is in its life, with CRI's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunState {
    /// Made, never started.
    Created,
    /// Its process runs.
    Running,
    /// Its process ended.
    Exited,
    /// The runtime does not know.
    Unknown,
}

/// One container.
#[derive(Clone, Debug, PartialEq)]
pub struct ObservedContainer {
    /// Runtime's id.
    pub id: String,
    /// Name in the pod spec.
    pub name: String,
    /// How often it was restarted before.
    pub attempt: u32,
    /// The sandbox it lives in.
    pub sandbox_id: String,
    /// Where it is in its life.
    pub state: RunState,
    /// When it was made.
    pub created_at: Timestamp,
    /// When its process started.
    pub started_at: Option<Timestamp>,
    /// When its process ended.
    pub finished_at: Option<Timestamp>,
    /// Exit code of the process.
    pub exit_code: i32,
    /// The runtime's reason, such as `OOMKilled`.
    pub reason: String,
    /// Termination message, already read from file or log.
    pub message: String,
    /// Image as the pod spec names it.
    pub image: String,
    /// Image as the runtime identifies it.
    pub image_id: String,
    /// Hash annotation.
    pub hash: String,
    /// How long to wait before the restart that follows this run.
    pub backoff: Duration,
    /// Grace period annotation, for orphans.
    pub grace: Option<Duration>,
    /// preStop handler annotation (JSON), for orphans.
    pub pre_stop: Option<String>,
    /// Requests and limits that it was made with, for containers that have any.
    pub resources: Option<ResourceRequirements>,
    /// Who its first process runs as, where the runtime says so.
    pub user: Option<LinuxContainerUser>,
    /// Absolute path of the log file.
    pub log_path: String,
}

impl ObservedPod {
    /// The newest ready sandbox.
    pub fn ready_sandbox(&self) -> Option<&ObservedSandbox> {
        self.sandboxes.iter().find(|s| s.ready)
    }

    /// The newest container of this name, whatever sandbox it lives in.
    pub fn latest(&self, name: &str) -> Option<&ObservedContainer> {
        self.containers.iter().find(|c| c.name == name)
    }

    /// Every container of this name, newest first.
    pub fn of<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a ObservedContainer> {
        self.containers.iter().filter(move |c| c.name == name)
    }

    /// The newest container of this name inside one sandbox.
    pub fn latest_in(&self, sandbox: &str, name: &str) -> Option<&ObservedContainer> {
        self.containers.iter().find(|c| c.name == name && c.sandbox_id == sandbox)
    }

    /// Containers that run, or may run as far as the runtime knows.
    pub fn alive(&self) -> impl Iterator<Item = &ObservedContainer> {
        self.containers.iter().filter(|c| matches!(c.state, RunState::Running | RunState::Unknown))
    }

    /// Whether the runtime lists exactly this: ids of sandboxes and containers with the states that CRI has for them.
    pub fn is_listed_as(&self, listing: Option<&BTreeMap<String, i32>>) -> bool {
        let sandboxes = self.sandboxes.iter().map(|s| (&s.id, i32::from(!s.ready)));
        let containers = self.containers.iter().map(|c| (&c.id, c.state as i32));
        let known = self.sandboxes.len() + self.containers.len();
        known == listing.map_or(0, BTreeMap::len)
            && sandboxes.chain(containers).all(|(id, state)| listing.and_then(|l| l.get(id)) == Some(&state))
    }

    /// Puts newest first; the order that every reader relies on.
    pub fn sort(&mut self) {
        self.sandboxes.sort_by_key(|s| std::cmp::Reverse((s.created_at, s.attempt)));
        self.containers.sort_by_key(|c| std::cmp::Reverse((c.attempt, c.created_at)));
    }
}

impl ObservedContainer {
    /// Whether the process runs.
    pub fn running(&self) -> bool {
        self.state == RunState::Running
    }
}
