//! Starts the controllers, all under the lease `kube-system/kube-controller-manager`: one line per controller.

use super::{
    Clients, Context, ControllersConfig, attach_detach, certificates, clusterrole_aggregation, cronjob,
    daemonset, deployment, disruption, endpoints, endpointslice, endpointslice_mirroring, ephemeral_volume,
    garbage, horizontal_autoscaler, job, legacy_tokens, namespace, node_ipam, node_lifecycle, node_ttl,
    pod_garbage, replicaset, resource_quota, root_ca, service_account, service_account_tokens, service_cidr,
    service_lb, statefulset, storage_protection, taint_eviction, ttl_after_finished, volume_binder,
};
use crate::client::{Informers, LeaderElection, backoff::Backoff};
use futures::{FutureExt, future::BoxFuture};
use k8s_openapi::api::{apps::v1::ReplicaSet, core::v1::ReplicationController};
use kube::Client;
use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};
use tokio::task::JoinSet;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{error, info};

/// The lease that all controllers run under.
pub const LEASE: &str = "kube-controller-manager";

/// The account of the whole manager, for what upstream does with its own rights.
const MANAGER: &str = "system:kube-controller-manager";

type Start = fn(Context, CancellationToken) -> BoxFuture<'static, ()>;

/// One controller: its name for `disabled`, the service account it acts as, and how it starts.
struct Row(&'static str, &'static str, Start);

/// Every controller there is.
const CONTROLLERS: &[Row] = &[
    Row("namespace", "namespace-controller", |c, stop| namespace::run(c, stop).boxed()),
    Row("serviceaccount", "service-account-controller", |c, stop| service_account::run(c, stop).boxed()),
    Row("serviceaccount-token", MANAGER, |c, stop| service_account_tokens::run(c, stop).boxed()),
    Row("legacy-serviceaccount-token-cleaner", "legacy-service-account-token-cleaner", |c, stop| {
        legacy_tokens::run(c, stop).boxed()
    }),
    Row("root-ca-certificate-publisher", "root-ca-cert-publisher", |c, stop| root_ca::run(c, stop).boxed()),
    Row("clusterrole-aggregation", "clusterrole-aggregation-controller", |c, stop| {
        clusterrole_aggregation::run(c, stop).boxed()
    }),
    Row("certificatesigningrequest-approving", "certificate-controller", |c, stop| {
        certificates::run_approver(c, stop).boxed()
    }),
    Row("certificatesigningrequest-signing", "certificate-controller", |c, stop| {
        certificates::run_signer(c, stop).boxed()
    }),
    Row("certificatesigningrequest-cleaner", "certificate-controller", |c, stop| {
        certificates::run_cleaner(c, stop).boxed()
    }),
    Row("node-ipam", "node-controller", |c, stop| node_ipam::run(c, stop).boxed()),
    Row("node-lifecycle", "node-controller", |c, stop| node_lifecycle::run(c, stop).boxed()),
    Row("node-ttl", "ttl-controller", |c, stop| node_ttl::run(c, stop).boxed()),
    Row("taint-eviction", "node-controller", |c, stop| taint_eviction::run(c, stop).boxed()),
    Row("pod-garbage-collector", "pod-garbage-collector", |c, stop| pod_garbage::run(c, stop).boxed()),
    Row("garbage-collector", "generic-garbage-collector", |c, stop| garbage::run(c, stop).boxed()),
    Row("deployment", "deployment-controller", |c, stop| deployment::run(c, stop).boxed()),
    Row("daemonset", "daemon-set-controller", |c, stop| daemonset::run(c, stop).boxed()),
    Row("endpointslice", "endpointslice-controller", |c, stop| endpointslice::run(c, stop).boxed()),
    Row("endpointslicemirroring", "endpointslicemirroring-controller", |c, stop| {
        endpointslice_mirroring::run(c, stop).boxed()
    }),
    Row("endpoints", "endpoint-controller", |c, stop| endpoints::run(c.client, c.informers, stop).boxed()),
    Row("horizontalpodautoscaler", "horizontal-pod-autoscaler", |c, stop| {
        horizontal_autoscaler::run(c, stop).boxed()
    }),
    Row("service-cidr", "service-cidrs-controller", |c, stop| service_cidr::run(c, stop).boxed()),
    Row("servicelb", "service-controller", |c, stop| service_lb::run(c, stop).boxed()),
    Row("job", "job-controller", |c, stop| job::run(c, stop).boxed()),
    Row("statefulset", "statefulset-controller", |c, stop| statefulset::run(c, stop).boxed()),
    Row("cronjob", "cronjob-controller", |c, stop| cronjob::run(c, stop).boxed()),
    Row("ttl-after-finished", "ttl-after-finished-controller", |c, stop| {
        ttl_after_finished::run(c, stop).boxed()
    }),
    Row("disruption", "disruption-controller", |c, stop| disruption::run(c, stop).boxed()),
    Row("persistentvolumeclaim-protection", "pvc-protection-controller", |c, stop| {
        storage_protection::run_claims(c, stop).boxed()
    }),
    Row("persistentvolume-protection", "pv-protection-controller", |c, stop| {
        storage_protection::run_volumes(c, stop).boxed()
    }),
    Row("volumeattributesclass-protection", "volumeattributesclass-protection-controller", |c, stop| {
        storage_protection::run_attributes(c, stop).boxed()
    }),
    Row("resourcequota", "resourcequota-controller", |c, stop| resource_quota::run(c, stop).boxed()),
    Row("persistentvolume-binder", "persistent-volume-binder", |c, stop| volume_binder::run(c, stop).boxed()),
    Row("attach-detach", "attachdetach-controller", |c, stop| attach_detach::run(c, stop).boxed()),
    Row("ephemeral-volume", "ephemeral-volume-controller", |c, stop| ephemeral_volume::run(c, stop).boxed()),
    Row("replicaset", "replicaset-controller", |c, stop| replicaset::run::<ReplicaSet>(c, stop).boxed()),
    Row("replicationcontroller", "replication-controller", |c, stop| {
        replicaset::run::<ReplicationController>(c, stop).boxed()
    }),
];

/// Runs all controllers whenever this process holds the lease, until `stop`. `client` is used for the lease alone.
pub async fn run(
    client: Client,
    clients: Clients,
    informers: Informers,
    config: ControllersConfig,
    stop: CancellationToken,
) {
    let election = LeaderElection::new(client, "kube-system", LEASE, &config.identity);
    let config = Arc::new(config);
    election
        .run(stop, |stop| {
            let (clients, informers, config) = (clients.clone(), informers.clone(), config.clone());
            async move { run_all(&clients, &informers, &config, stop).await }
        })
        .await;
}

/// Runs all controllers without a lease, until `stop`.
pub async fn run_all(
    clients: &Clients,
    informers: &Informers,
    config: &Arc<ControllersConfig>,
    stop: CancellationToken,
) {
    let (mut controllers, tasks) = (JoinSet::new(), TaskTracker::new());
    let wanted = CONTROLLERS.iter().filter(|row| !config.disabled.iter().any(|name| name == row.0));
    for Row(name, account, start) in wanted {
        let context = Context::new(clients, account, informers, config, &tasks, &stop);
        controllers.spawn(keep_running(name, *start, context, stop.clone()));
    }
    info!(controllers = controllers.len(), "controllers started");
    while controllers.join_next().await.is_some() {}
    tasks.close();
    tasks.wait().await;
    info!("controllers stopped");
}

/// Starts a controller again should it end before `stop`.
async fn keep_running(name: &'static str, start: Start, context: Context, stop: CancellationToken) {
    let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
    loop {
        let ended = AssertUnwindSafe(start(context.clone(), stop.clone())).catch_unwind().await;
        if stop.is_cancelled() {
            return;
        }
        error!(controller = name, panicked = ended.is_err(), "controller ended, starting it again");
        if stop.run_until_cancelled(tokio::time::sleep(backoff.next_delay())).await.is_none() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_are_unique() {
        let names: BTreeSet<_> = CONTROLLERS.iter().map(|row| row.0).collect();
        assert_eq!(names.len(), CONTROLLERS.len());
    }
}
