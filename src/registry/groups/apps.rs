//! `apps`.

use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet, Deployment, ReplicaSet, StatefulSet};

use crate::registry::resource::{Resource, SCALE, STATUS, SelectableField};

const REPLICAS: &[SelectableField] =
    &[SelectableField { label: "status.replicas", path: &["status", "replicas"], absent: "0" }];

/// The rows.
pub fn rows() -> Vec<Resource> {
    let all = &["all"];
    vec![
        Resource::plain::<ControllerRevision>(),
        Resource::plain::<DaemonSet>().short(&["ds"]).categories(all).sub(STATUS).generation(),
        Resource::plain::<Deployment>()
            .short(&["deploy"])
            .categories(all)
            .sub(SCALE)
            .sub(STATUS)
            .generation(),
        Resource::plain::<ReplicaSet>()
            .short(&["rs"])
            .categories(all)
            .sub(SCALE)
            .sub(STATUS)
            .generation()
            .selectable(REPLICAS),
        Resource::plain::<StatefulSet>().short(&["sts"]).categories(all).sub(SCALE).sub(STATUS).generation(),
    ]
}
