//! ReplicaSets.

use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetStatus};
use k8s_openapi::jiff::Timestamp;
use serde_json::Value;

use super::rolling;
use crate::api::field::{FieldErrors, Path};
use crate::registry::context::RequestContext;
use crate::registry::groups::core::pods;
use crate::registry::strategy::Strategy;
use crate::registry::table::{AGE, Column, NAME, age_cell, column, name_cell, wide};
use crate::registry::validation::{immutable, non_negative};

/// The columns of ReplicaSets.
pub const COLUMNS: &[Column] = &[
    NAME,
    column("Desired", "integer", "Pods that are wanted."),
    column("Current", "integer", "Pods that there are."),
    column("Ready", "integer", "Pods that are ready."),
    AGE,
    wide("Containers", "string", "Names of the containers in the template."),
    wide("Images", "string", "Images of the containers in the template."),
    wide("Selector", "string", "Labels of the pods."),
];

/// The strategy of ReplicaSets.
pub struct ReplicaSetStrategy;

impl Strategy for ReplicaSetStrategy {
    type Object = ReplicaSet;

    fn default(&self, set: &mut ReplicaSet) {
        let spec = set.spec.get_or_insert_default();
        spec.replicas.get_or_insert(1);
        if let Some(template) = spec.template.as_mut() {
            pods::defaults::template(template);
        }
    }

    fn prepare_for_create(&self, _: &RequestContext, set: &mut ReplicaSet) {
        set.status = Some(ReplicaSetStatus::default());
        if let Some(template) = &mut set.spec.get_or_insert_default().template {
            rolling::drop_disabled(template, None);
        }
    }

    fn prepare_for_update(&self, _: &RequestContext, set: &mut ReplicaSet, old: &ReplicaSet) {
        if let Some(template) = &mut set.spec.get_or_insert_default().template {
            rolling::drop_disabled(template, old.spec.as_ref().and_then(|spec| spec.template.as_ref()));
        }
    }

    fn warnings(&self, set: &ReplicaSet, old: Option<&ReplicaSet>) -> Vec<String> {
        let Some(spec) = &set.spec else { return Vec::new() };
        let template = spec.template.clone().unwrap_or_default();
        rolling::warnings(Some(&set.metadata), (spec, old.and_then(|old| old.spec.as_ref())), &template)
    }

    fn validate_status_update(&self, set: &ReplicaSet, _: &ReplicaSet, errors: &mut FieldErrors) {
        let none = ReplicaSetStatus::default();
        let status = set.status.as_ref().unwrap_or(&none);
        let at = Path::new("status");
        let (all, ready) =
            (("status.replicas", Some(status.replicas)), ("readyReplicas", status.ready_replicas));
        let counts = [
            ("replicas", Some(status.replicas)),
            ("fullyLabeledReplicas", status.fully_labeled_replicas),
            ("readyReplicas", status.ready_replicas),
            ("availableReplicas", status.available_replicas),
        ];
        rolling::counts(&counts, &at, errors);
        non_negative(status.observed_generation, &at.child("observedGeneration"), errors);
        for count in &counts[1..] {
            rolling::at_most(*count, all, &at, errors);
        }
        rolling::at_most(counts[3], ready, &at, errors);
    }

    fn validate(&self, set: &ReplicaSet, errors: &mut FieldErrors) {
        let Some(spec) = &set.spec else { return };
        let at = Path::new("spec");
        rolling::counts(
            &[("replicas", spec.replicas), ("minReadySeconds", spec.min_ready_seconds)],
            &at,
            errors,
        );
        rolling::selector_and_template(
            &spec.selector,
            spec.template.as_ref(),
            &rolling::REPLICAS,
            &at,
            errors,
        );
    }

    fn validate_update(&self, set: &ReplicaSet, old: &ReplicaSet, errors: &mut FieldErrors) {
        let (Some(new), Some(old)) = (&set.spec, &old.spec) else { return };
        immutable(&new.selector, &old.selector, &Path::new("spec").child("selector"), errors);
    }

    fn cells(&self, set: &ReplicaSet, now: Timestamp) -> Vec<Value> {
        let spec = set.spec.as_ref();
        let status = set.status.clone().unwrap_or_default();
        let template = spec.and_then(|s| s.template.as_ref()).and_then(|t| t.spec.as_ref());
        let (names, images) = rolling::containers_and_images(template);
        vec![
            name_cell(&set.metadata),
            spec.and_then(|s| s.replicas).unwrap_or(0).into(),
            status.replicas.into(),
            status.ready_replicas.unwrap_or(0).into(),
            age_cell(&set.metadata, now),
            names.into(),
            images.into(),
            rolling::selector_cell(spec.map(|s| &s.selector)).into(),
        ]
    }
}
