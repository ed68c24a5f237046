//! The scheduler: queue, node snapshot, filter, score, bind. An ordinary API client.
//!
//! [`core`] decides without I/O: [`queue`] says which pod is next, [`cluster`] what the nodes look like, [`decide`] which
//! node is best by the [`plugins`], [`preemption`] who has to leave for a more important pod, [`storage`] which volumes its claims get there. [`run`] feeds it from
//! informers and [`effects`] carries its decisions out.

pub mod affinity;
pub mod budgets;
pub mod cluster;
pub mod core;
pub mod decide;
pub mod effects;
pub mod framework;
pub mod plugins;
pub mod pod_info;
pub mod preemption;
pub mod queue;
pub mod resources;
pub mod storage;
pub mod volumes;

mod run;

#[cfg(test)]
pub(crate) mod fixtures;

pub use run::{run, schedule};

/// How the scheduler runs.
#[derive(Debug, Clone)]
pub struct SchedulerConfig {
    /// Pods with this `spec.schedulerName` are scheduled.
    pub scheduler_name: String,
    /// Who this process is in the leader election; unique among the servers of the cluster.
    pub identity: String,
    /// Seed of the choice between equally good nodes.
    pub seed: u64,
}

impl Default for SchedulerConfig {
    fn default() -> Self {
        Self { scheduler_name: "default-scheduler".into(), identity: "kube-scheduler".into(), seed: 0 }
    }
}
