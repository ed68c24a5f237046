//! DaemonSets.

use k8s_openapi::api::apps::v1::{
    DaemonSet, DaemonSetStatus, DaemonSetUpdateStrategy, RollingUpdateDaemonSet,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use k8s_openapi::jiff::Timestamp;
use serde_json::Value;

use super::rolling;
use crate::api::field::{FieldError, FieldErrors, Path};
use crate::registry::context::RequestContext;
use crate::registry::groups::core::pods;
use crate::registry::strategy::Strategy;
use crate::registry::table::{AGE, Column, NAME, age_cell, column, name_cell, selector_text, wide};
use crate::registry::validation::{immutable, non_negative};

/// The columns of DaemonSets.
pub const COLUMNS: &[Column] = &[
    NAME,
    column("Desired", "integer", "Nodes that should run the pod."),
    column("Current", "integer", "Nodes that run the pod."),
    column("Ready", "integer", "Nodes where the pod is ready."),
    column("Up-to-date", "integer", "Nodes that run the present template."),
    column("Available", "integer", "Nodes where the pod has been ready for long enough."),
    column("Node Selector", "string", "Labels of the nodes."),
    AGE,
    wide("Containers", "string", "Names of the containers in the template."),
    wide("Images", "string", "Images of the containers in the template."),
    wide("Selector", "string", "Labels of the pods."),
];

/// Annotation with the number of the template, which upstream keeps for pods of before revisions; users cannot set it.
pub const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";

fn template_generation(set: &DaemonSet) -> i64 {
    let annotations = set.metadata.annotations.as_ref();
    annotations.and_then(|all| all.get(TEMPLATE_GENERATION)?.parse().ok()).unwrap_or(0)
}

fn set_template_generation(set: &mut DaemonSet, generation: i64) {
    let annotations = set.metadata.annotations.get_or_insert_default();
    annotations.insert(TEMPLATE_GENERATION.to_owned(), generation.to_string());
}

/// Daemons select their pods, but a selector that is missing shows only in the labels that it does not match.
const DAEMONS: rolling::Workload = rolling::Workload { kind: "DaemonSet", selector_required: false };

/// The strategy of DaemonSets.
pub struct DaemonSetStrategy;

impl Strategy for DaemonSetStrategy {
    type Object = DaemonSet;

    fn default(&self, set: &mut DaemonSet) {
        let spec = set.spec.get_or_insert_default();
        spec.revision_history_limit.get_or_insert(10);
        let strategy = spec.update_strategy.get_or_insert_default();
        if strategy.type_.as_deref().is_none_or(str::is_empty) {
            strategy.type_ = Some("RollingUpdate".into());
        }
        if strategy.type_.as_deref() == Some("RollingUpdate") {
            let rolling = strategy.rolling_update.get_or_insert_with(RollingUpdateDaemonSet::default);
            rolling.max_unavailable.get_or_insert(IntOrString::Int(1));
            rolling.max_surge.get_or_insert(IntOrString::Int(0));
        }
        pods::defaults::template(&mut spec.template);
    }

    fn prepare_for_create(&self, _: &RequestContext, set: &mut DaemonSet) {
        set.status = Some(DaemonSetStatus::default());
        rolling::drop_disabled(&mut set.spec.get_or_insert_default().template, None);
        let given = template_generation(set).max(1);
        set_template_generation(set, given);
    }

    fn validate(&self, set: &DaemonSet, errors: &mut FieldErrors) {
        let Some(spec) = &set.spec else { return };
        let at = Path::new("spec");
        rolling::selector_and_template(&spec.selector, Some(&spec.template), &DAEMONS, &at, errors);
        rolling::counts(&[("minReadySeconds", spec.min_ready_seconds)], &at, errors);
        rollout(spec.update_strategy.as_ref(), &at.child("updateStrategy"), errors);
        rolling::counts(&[("revisionHistoryLimit", spec.revision_history_limit)], &at, errors);
    }

    fn prepare_for_update(&self, _: &RequestContext, set: &mut DaemonSet, old: &DaemonSet) {
        let template = &mut set.spec.get_or_insert_default().template;
        rolling::drop_disabled(template, old.spec.as_ref().map(|spec| &spec.template));
        let template = |set: &DaemonSet| set.spec.as_ref().map(|spec| spec.template.clone());
        let changed = template(set) != template(old);
        set_template_generation(set, template_generation(old).max(1) + i64::from(changed));
    }

    fn warnings(&self, set: &DaemonSet, old: Option<&DaemonSet>) -> Vec<String> {
        let Some(spec) = &set.spec else { return Vec::new() };
        rolling::warnings(None, (spec, old.and_then(|old| old.spec.as_ref())), &spec.template)
    }

    fn validate_status_update(&self, set: &DaemonSet, old: &DaemonSet, errors: &mut FieldErrors) {
        let none = DaemonSetStatus::default();
        let status = set.status.as_ref().unwrap_or(&none);
        let at = Path::new("status");
        let counts = [
            ("currentNumberScheduled", Some(status.current_number_scheduled)),
            ("numberMisscheduled", Some(status.number_misscheduled)),
            ("desiredNumberScheduled", Some(status.desired_number_scheduled)),
            ("numberReady", Some(status.number_ready)),
        ];
        rolling::counts(&counts, &at, errors);
        non_negative(status.observed_generation, &at.child("observedGeneration"), errors);
        let counts = [
            ("updatedNumberScheduled", status.updated_number_scheduled),
            ("numberAvailable", status.number_available),
            ("numberUnavailable", status.number_unavailable),
        ];
        rolling::counts(&counts, &at, errors);
        let before = old.status.as_ref().and_then(|status| status.collision_count);
        rolling::collisions(status.collision_count, before, errors);
    }

    fn validate_update(&self, set: &DaemonSet, old: &DaemonSet, errors: &mut FieldErrors) {
        let (Some(new), Some(old)) = (&set.spec, &old.spec) else { return };
        immutable(&new.selector, &old.selector, &Path::new("spec").child("selector"), errors);
    }

    fn cells(&self, set: &DaemonSet, now: Timestamp) -> Vec<Value> {
        let spec = set.spec.as_ref();
        let status = set.status.clone().unwrap_or_default();
        let pod = spec.and_then(|s| s.template.spec.as_ref());
        let (names, images) = rolling::containers_and_images(pod);
        vec![
            name_cell(&set.metadata),
            status.desired_number_scheduled.into(),
            status.current_number_scheduled.into(),
            status.number_ready.into(),
            status.updated_number_scheduled.unwrap_or(0).into(),
            status.number_available.unwrap_or(0).into(),
            selector_text(pod.and_then(|p| p.node_selector.as_ref())).into(),
            age_cell(&set.metadata, now),
            names.into(),
            images.into(),
            rolling::selector_cell(spec.map(|s| &s.selector)).into(),
        ]
    }
}

fn rollout(strategy: Option<&DaemonSetUpdateStrategy>, at: &Path, errors: &mut FieldErrors) {
    let Some(strategy) = strategy else { return };
    match strategy.type_.as_deref().unwrap_or_default() {
        "OnDelete" => {}
        "RollingUpdate" => {
            let at = at.child("rollingUpdate");
            let Some(rolling) = &strategy.rolling_update else {
                errors.push(FieldError::required(&at, ""));
                return;
            };
            let (at_lost, at_surge) = (at.child("maxUnavailable"), at.child("maxSurge"));
            let (lost, surge) = (rolling.max_unavailable.as_ref(), rolling.max_surge.as_ref());
            for (value, at) in [(lost, &at_lost), (surge, &at_surge)] {
                rolling::number_or_percent(value, at, errors);
                rolling::at_most_all(value, at, errors);
            }
            match (rolling::is_zero(lost), rolling::is_zero(surge)) {
                (false, false) => {
                    let message = "may not be set when maxUnavailable is non-zero";
                    errors.push(FieldError::invalid(&at_surge, surge, message));
                }
                (true, true) => errors.push(FieldError::required(&at_lost, "cannot be 0 when maxSurge is 0")),
                _ => {}
            }
        }
        _ => errors.push(FieldError::not_supported(at, strategy, &["RollingUpdate", "OnDelete"])),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn daemons_move_by_surge_or_by_loss() {
        let check = |strategy: Value, selector: Value| {
            let mut set =
                serde_json::from_value(json!({"spec": {"selector": selector, "updateStrategy": strategy,
                "template": {"metadata": {"labels": {"a": "b"}},
                    "spec": {"containers": [{"name": "c", "image": "i"}]}}}}))
                .unwrap();
            Strategy::default(&DaemonSetStrategy, &mut set);
            let mut errors = FieldErrors::new();
            Strategy::validate(&DaemonSetStrategy, &set, &mut errors);
            errors.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        let at = "spec.updateStrategy";
        let cases = [
            (json!({}), vec![]),
            (json!({"type": "OnDelete"}), vec![]),
            (
                json!({"type": "X"}),
                vec![format!(
                    "{at}: Unsupported value: {{\"type\":\"X\"}}: supported values: \"RollingUpdate\", \"OnDelete\""
                )],
            ),
            (
                json!({"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 1}}),
                vec![format!(
                    "{at}.rollingUpdate.maxSurge: Invalid value: 1: may not be set when maxUnavailable is non-zero"
                )],
            ),
            (
                json!({"rollingUpdate": {"maxSurge": 0, "maxUnavailable": 0}}),
                vec![format!(
                    "{at}.rollingUpdate.maxUnavailable: Required value: cannot be 0 when maxSurge is 0"
                )],
            ),
            (
                json!({"rollingUpdate": {"maxUnavailable": "101%"}}),
                vec![format!(
                    "{at}.rollingUpdate.maxUnavailable: Invalid value: \"101%\": must not be greater than 100%"
                )],
            ),
        ];
        for (strategy, expected) in cases {
            assert_eq!(check(strategy, json!({"matchLabels": {"a": "b"}})), expected);
        }
        assert_eq!(
            check(json!({}), json!({})),
            [
                "spec.template.metadata.labels: Invalid value: {\"a\":\"b\"}: `selector` does not match template `labels`"
            ]
        );
    }

    #[test]
    fn the_template_is_numbered() {
        let set = |image: &str| -> DaemonSet {
            let spec = json!({"selector": {}, "template": {"spec": {"containers": [{"name": "c", "image": image}]}}});
            serde_json::from_value(json!({"metadata": {"name": "ds"}, "spec": spec})).unwrap()
        };
        let context = RequestContext::default();
        let mut first = set("v1");
        DaemonSetStrategy.prepare_for_create(&context, &mut first);
        assert_eq!(template_generation(&first), 1);
        let mut same = set("v1");
        DaemonSetStrategy.prepare_for_update(&context, &mut same, &first);
        assert_eq!(template_generation(&same), 1, "an update cannot take it away");
        let mut second = set("v2");
        DaemonSetStrategy.prepare_for_update(&context, &mut second, &same);
        assert_eq!(template_generation(&second), 2);
    }
}
