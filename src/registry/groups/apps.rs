//! `apps`.

mod controller_revisions;
mod daemon_sets;
mod deployments;
mod replica_sets;
pub(super) mod rolling;
mod stateful_sets;

use crate::registry::resource::{Resource, SCALE, STATUS, SelectableField};

const REPLICAS: &[SelectableField] =
    &[SelectableField { label: "status.replicas", path: &["status", "replicas"], absent: "0" }];

/// The rows.
pub fn rows() -> Vec<Resource> {
    let all = &["all"];
    vec![
        Resource::of(controller_revisions::RevisionStrategy).columns(controller_revisions::COLUMNS),
        Resource::of(daemon_sets::DaemonSetStrategy)
            .short(&["ds"])
            .categories(all)
            .columns(daemon_sets::COLUMNS)
            .with(STATUS)
            .generation(),
        Resource::of(deployments::DeploymentStrategy)
            .short(&["deploy"])
            .categories(all)
            .columns(deployments::COLUMNS)
            .with(SCALE)
            .with(STATUS)
            .generation(),
        Resource::of(replica_sets::ReplicaSetStrategy)
            .short(&["rs"])
            .categories(all)
            .columns(replica_sets::COLUMNS)
            .with(SCALE)
            .with(STATUS)
            .generation()
            .selectable(REPLICAS),
        Resource::of(stateful_sets::StatefulSetStrategy)
            .short(&["sts"])
            .categories(all)
            .columns(stateful_sets::COLUMNS)
            .with(SCALE)
            .with(STATUS)
            .generation(),
    ]
}
