//! Pods.

pub mod cells;
pub mod defaults;
pub mod prepare;
pub mod qos;
pub mod validate;
pub mod warnings;

use k8s_openapi::api::core::v1::{Pod, PodCondition, PodStatus};
use k8s_openapi::jiff::Timestamp;
use serde_json::Value;

use crate::api::field::FieldErrors;
use crate::registry::context::RequestContext;
use crate::registry::options::DeleteOptions;
use crate::registry::strategy::Strategy;

/// The strategy of pods.
pub struct PodStrategy;

impl Strategy for PodStrategy {
    type Object = Pod;

    fn default(&self, pod: &mut Pod) {
        defaults::pod(pod);
    }

    fn prepare_for_create(&self, _: &RequestContext, pod: &mut Pod) {
        if let Some(spec) = pod.spec.as_mut() {
            prepare::drop_disabled(spec, None);
        }
        prepare::select_by_own_labels(pod);
        let gated = pod.spec.iter().flat_map(|spec| &spec.scheduling_gates).any(|gates| !gates.is_empty());
        let gate = PodCondition {
            type_: "PodScheduled".into(),
            status: "False".into(),
            reason: Some("SchedulingGated".into()),
            message: Some("Scheduling is blocked due to non-empty scheduling gates".into()),
            ..Default::default()
        };
        pod.status = Some(PodStatus {
            phase: Some("Pending".into()),
            qos_class: Some(qos::class(pod).into()),
            conditions: gated.then(|| vec![gate]),
            ..Default::default()
        });
    }

    fn prepare_for_update(&self, _: &RequestContext, pod: &mut Pod, old: &Pod) {
        if let Some(spec) = pod.spec.as_mut() {
            prepare::drop_disabled(spec, old.spec.as_ref());
        }
    }

    fn prepare_for_status_update(&self, _: &RequestContext, pod: &mut Pod, old: &Pod) {
        let qos = old.status.as_ref().and_then(|status| status.qos_class.clone());
        if let Some(status) = pod.status.as_mut() {
            status.qos_class = status.qos_class.take().or(qos);
        }
    }

    fn validate(&self, pod: &Pod, errors: &mut FieldErrors) {
        validate::pod(pod, errors);
    }

    fn validate_create(&self, pod: &Pod, errors: &mut FieldErrors) {
        validate::create(pod, errors);
    }

    fn validate_update(&self, pod: &Pod, old: &Pod, errors: &mut FieldErrors) {
        validate::update(pod, old, errors);
    }

    fn validate_status_update(&self, pod: &Pod, old: &Pod, errors: &mut FieldErrors) {
        validate::status_update(pod, old, errors);
    }

    fn validate_part(&self, part: &str, pod: &Pod, old: &Pod, errors: &mut FieldErrors) {
        match part {
            "ephemeralcontainers" => validate::ephemeral_update(pod, old, errors),
            "resize" => validate::resize(pod, old, errors),
            _ => {}
        }
    }

    fn warnings(&self, pod: &Pod, old: Option<&Pod>) -> Vec<String> {
        // Pods are changed by programs, which nobody listens to.
        let Some(spec) = pod.spec.as_ref().filter(|_| old.is_none()) else { return Vec::new() };
        let mut warnings = Vec::from_iter(warnings::name(&pod.metadata, "the Pod's hostname"));
        warnings.extend(warnings::of(spec, &pod.metadata, None));
        warnings
    }

    fn graceful_delete(&self, pod: &Pod, options: &mut DeleteOptions) -> bool {
        let spec = pod.spec.as_ref();
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
        let scheduled = spec.and_then(|spec| spec.node_name.as_deref()).is_some_and(|node| !node.is_empty());
        let wanted = options
            .grace_period_seconds
            .or_else(|| spec.and_then(|spec| spec.termination_grace_period_seconds));
        let period = match wanted.unwrap_or(0) {
            _ if !scheduled || matches!(phase, Some("Failed" | "Succeeded")) => 0,
            negative if negative < 0 => 1,
            period => period,
        };
        options.grace_period_seconds = Some(period);
        true
    }

    fn cells(&self, pod: &Pod, now: Timestamp) -> Vec<Value> {
        cells::cells(pod, now)
    }
}
