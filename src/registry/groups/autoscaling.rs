//! `autoscaling`: HorizontalPodAutoscalers, stored as `v2`.

use k8s_openapi::api::autoscaling::v2;

use crate::registry::resource::{Resource, STATUS};

/// The rows.
pub fn rows() -> Vec<Resource> {
    vec![Resource::plain::<v2::HorizontalPodAutoscaler>().short(&["hpa"]).categories(&["all"]).sub(STATUS)]
}
