//! Deployments.

use k8s_openapi::api::apps::v1::{Deployment, DeploymentStrategy as Rollout, RollingUpdateDeployment};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use k8s_openapi::jiff::Timestamp;
use serde_json::Value;

use super::rolling;
use crate::api::field::{FieldError, FieldErrors, Path};
use crate::registry::context::RequestContext;
use crate::registry::groups::core::pods;
use crate::registry::strategy::Strategy;
use crate::registry::table::{AGE, Column, NAME, age_cell, column, name_cell, wide};
use crate::registry::validation::{immutable, non_negative};

/// The columns of Deployments.
pub const COLUMNS: &[Column] = &[
    NAME,
    column("Ready", "string", "Number of the pod with ready state"),
    column("Up-to-date", "string", "Pods that have the present template."),
    column("Available", "string", "Pods that have been ready for long enough."),
    AGE,
    wide("Containers", "string", "Names of the containers in the template."),
    wide("Images", "string", "Images of the containers in the template."),
    wide("Selector", "string", "Labels of the pods."),
];

/// The strategy of Deployments.
pub struct DeploymentStrategy;

impl Strategy for DeploymentStrategy {
    type Object = Deployment;

    fn default(&self, deployment: &mut Deployment) {
        let spec = deployment.spec.get_or_insert_default();
        spec.replicas.get_or_insert(1);
        spec.revision_history_limit.get_or_insert(10);
        spec.progress_deadline_seconds.get_or_insert(600);
        rollout(spec.strategy.get_or_insert_default());
        pods::defaults::template(&mut spec.template);
    }

    fn validate(&self, deployment: &Deployment, errors: &mut FieldErrors) {
        let Some(spec) = &deployment.spec else { return };
        let at = Path::new("spec");
        rolling::counts(&[("replicas", spec.replicas)], &at, errors);
        rolling::selector_and_template(&spec.selector, Some(&spec.template), &rolling::REPLICAS, &at, errors);
        validate_rollout(spec.strategy.as_ref(), &at.child("strategy"), errors);
        let limits = [
            ("minReadySeconds", spec.min_ready_seconds),
            ("revisionHistoryLimit", spec.revision_history_limit),
            ("progressDeadlineSeconds", spec.progress_deadline_seconds),
        ];
        rolling::counts(&limits, &at, errors);
        if let Some(deadline) =
            spec.progress_deadline_seconds.filter(|d| *d <= spec.min_ready_seconds.unwrap_or(0))
        {
            let at = at.child("progressDeadlineSeconds");
            errors.push(FieldError::invalid(&at, deadline, "must be greater than minReadySeconds"));
        }
    }

    fn validate_update(&self, deployment: &Deployment, old: &Deployment, errors: &mut FieldErrors) {
        let (Some(new), Some(old)) = (&deployment.spec, &old.spec) else { return };
        immutable(&new.selector, &old.selector, &Path::new("spec").child("selector"), errors);
    }

    fn validate_status_update(&self, deployment: &Deployment, old: &Deployment, errors: &mut FieldErrors) {
        let none = Default::default();
        let status = deployment.status.as_ref().unwrap_or(&none);
        let at = Path::new("status");
        non_negative(status.observed_generation, &at.child("observedGeneration"), errors);
        let (all, ready) = (("status.replicas", status.replicas), ("readyReplicas", status.ready_replicas));
        let counts = [
            ("replicas", status.replicas),
            ("updatedReplicas", status.updated_replicas),
            ("readyReplicas", status.ready_replicas),
            ("availableReplicas", status.available_replicas),
            ("unavailableReplicas", status.unavailable_replicas),
        ];
        rolling::counts(&counts, &at, errors);
        for count in &counts[1..4] {
            rolling::at_most(*count, all, &at, errors);
        }
        rolling::at_most(counts[3], ready, &at, errors);
        let before = old.status.as_ref().and_then(|status| status.collision_count);
        rolling::collisions(status.collision_count, before, errors);
    }

    fn prepare_for_create(&self, _: &RequestContext, deployment: &mut Deployment) {
        rolling::drop_disabled(&mut deployment.spec.get_or_insert_default().template, None);
    }

    fn prepare_for_update(&self, _: &RequestContext, deployment: &mut Deployment, old: &Deployment) {
        let template = &mut deployment.spec.get_or_insert_default().template;
        rolling::drop_disabled(template, old.spec.as_ref().map(|spec| &spec.template));
    }

    fn warnings(&self, deployment: &Deployment, old: Option<&Deployment>) -> Vec<String> {
        let Some(spec) = &deployment.spec else { return Vec::new() };
        rolling::warnings(
            Some(&deployment.metadata),
            (spec, old.and_then(|old| old.spec.as_ref())),
            &spec.template,
        )
    }

    fn prepare_for_status_update(&self, _: &RequestContext, deployment: &mut Deployment, old: &Deployment) {
        deployment.metadata.labels.clone_from(&old.metadata.labels);
    }

    fn counts_as_spec_change(&self, deployment: &Deployment, old: &Deployment) -> bool {
        deployment.metadata.annotations != old.metadata.annotations
    }

    fn cells(&self, deployment: &Deployment, now: Timestamp) -> Vec<Value> {
        let status = deployment.status.clone().unwrap_or_default();
        let spec = deployment.spec.as_ref();
        let (names, images) = rolling::containers_and_images(spec.and_then(|s| s.template.spec.as_ref()));
        let wanted = spec.and_then(|s| s.replicas).unwrap_or(0);
        vec![
            name_cell(&deployment.metadata),
            format!("{}/{wanted}", status.ready_replicas.unwrap_or(0)).into(),
            status.updated_replicas.unwrap_or(0).into(),
            status.available_replicas.unwrap_or(0).into(),
            age_cell(&deployment.metadata, now),
            names.into(),
            images.into(),
            rolling::selector_cell(spec.map(|s| &s.selector)).into(),
        ]
    }
}

fn rollout(strategy: &mut Rollout) {
    if strategy.type_.as_deref().is_none_or(str::is_empty) {
        strategy.type_ = Some("RollingUpdate".into());
    }
    if strategy.type_.as_deref() == Some("RollingUpdate") {
        let rolling = strategy.rolling_update.get_or_insert_with(RollingUpdateDeployment::default);
        rolling.max_unavailable.get_or_insert_with(|| IntOrString::String("25%".into()));
        rolling.max_surge.get_or_insert_with(|| IntOrString::String("25%".into()));
    }
}

fn validate_rollout(strategy: Option<&Rollout>, at: &Path, errors: &mut FieldErrors) {
    let Some(strategy) = strategy else { return };
    match strategy.type_.as_deref().unwrap_or_default() {
        "Recreate" => {
            if strategy.rolling_update.is_some() {
                let message = "may not be specified when strategy `type` is 'Recreate'";
                errors.push(FieldError::forbidden(&at.child("rollingUpdate"), message));
            }
        }
        "RollingUpdate" => {
            let at = at.child("rollingUpdate");
            let Some(rolling) = &strategy.rolling_update else {
                errors.push(FieldError::required(&at, "this should be defaulted and never be nil"));
                return;
            };
            let (unavailable, surge) = (rolling.max_unavailable.as_ref(), rolling.max_surge.as_ref());
            rolling::number_or_percent(unavailable, &at.child("maxUnavailable"), errors);
            rolling::number_or_percent(surge, &at.child("maxSurge"), errors);
            if rolling::both_zero(unavailable, surge) {
                let message = "may not be 0 when `maxSurge` is 0";
                errors.push(FieldError::invalid(&at.child("maxUnavailable"), unavailable, message));
            }
            rolling::at_most_all(unavailable, &at.child("maxUnavailable"), errors);
        }
        other => {
            errors.push(FieldError::not_supported(at, other, &["Recreate", "RollingUpdate"]));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn deployment(spec: Value) -> Deployment {
        let mut object = serde_json::from_value(json!({"spec": spec})).unwrap();
        Strategy::default(&DeploymentStrategy, &mut object);
        object
    }

    fn good() -> Value {
        json!({"selector": {"matchLabels": {"a": "b"}}, "template": {"metadata": {"labels": {"a": "b"}},
            "spec": {"containers": [{"name": "c", "image": "i:1"}]}}})
    }

    #[test]
    fn defaults_are_upstreams() {
        let spec = serde_json::to_value(deployment(good())).unwrap()["spec"].take();
        assert_eq!(spec["replicas"], 1);
        assert_eq!(spec["revisionHistoryLimit"], 10);
        assert_eq!(spec["progressDeadlineSeconds"], 600);
        assert_eq!(
            spec["strategy"],
            json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}})
        );
        assert_eq!(spec["template"]["spec"]["restartPolicy"], "Always");
        assert!(spec["template"]["spec"].get("enableServiceLinks").is_none(), "only pods themselves have it");
    }

    #[test]
    fn problems_are_named_as_upstream_names_them() {
        let cases = [
            ("/replicas", json!(-1), "spec.replicas: Invalid value: -1: must be greater than or equal to 0"),
            (
                "/selector",
                json!({"matchLabels": {"x": "y"}}),
                "spec.template.metadata.labels: Invalid value: {\"a\":\"b\"}: `selector` does not match template `labels`",
            ),
            (
                "/template/spec/restartPolicy",
                json!("Never"),
                "spec.template.spec.restartPolicy: Unsupported value: \"Never\": supported values: \"Always\"",
            ),
            ("/strategy", json!({"type": "X"}), "spec.strategy: Unsupported value: \"X\""),
            (
                "/strategy",
                json!({"rollingUpdate": {"maxSurge": "many", "maxUnavailable": 1}}),
                "spec.strategy.rollingUpdate.maxSurge: Invalid value: \"many\": a valid percent string must be",
            ),
            (
                "/template/spec/activeDeadlineSeconds",
                json!(1),
                "spec.template.spec.activeDeadlineSeconds: Forbidden: activeDeadlineSeconds in ReplicaSet is not Supported",
            ),
            (
                "/strategy",
                json!({"rollingUpdate": {"maxSurge": 0, "maxUnavailable": 0}}),
                "spec.strategy.rollingUpdate.maxUnavailable: Invalid value: 0: may not be 0 when `maxSurge` is 0",
            ),
            (
                "/progressDeadlineSeconds",
                json!(0),
                "spec.progressDeadlineSeconds: Invalid value: 0: must be greater than minReadySeconds",
            ),
        ];
        let check = |object: &Deployment| {
            let mut errors = FieldErrors::new();
            Strategy::validate(&DeploymentStrategy, object, &mut errors);
            errors.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(check(&deployment(good())), Vec::<String>::new());
        let mut unselected = good();
        unselected["selector"] = json!({});
        assert_eq!(
            check(&deployment(unselected)),
            [
                "spec.selector: Required value",
                "spec.template.metadata.labels: Invalid value: {\"a\":\"b\"}: `selector` does not match template `labels`"
            ]
        );
        for (pointer, value, expected) in cases {
            let mut spec = good();
            let (parent, key) = pointer.rsplit_once('/').unwrap();
            spec.pointer_mut(parent).unwrap()[key] = value;
            let found = check(&deployment(spec));
            assert!(found.len() == 1 && found[0].starts_with(expected), "{found:?}\nwanted {expected}");
        }
    }
    #[test]
    fn counts_in_the_status_fit_each_other() {
        let of = |status: Value| {
            let mut object = deployment(good());
            object.status = serde_json::from_value(status).unwrap();
            object
        };
        let check = |new: Value, old: Value| {
            let mut errors = FieldErrors::new();
            Strategy::validate_status_update(&DeploymentStrategy, &of(new), &of(old), &mut errors);
            errors.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(check(json!({"replicas": 2, "readyReplicas": 2}), json!({})), Vec::<String>::new());
        assert_eq!(
            check(json!({"replicas": 1, "readyReplicas": 2}), json!({})),
            ["status.readyReplicas: Invalid value: 2: cannot be greater than status.replicas"]
        );
        assert_eq!(
            check(json!({"replicas": 1, "availableReplicas": 1}), json!({})),
            ["status.availableReplicas: Invalid value: 1: cannot be greater than readyReplicas"]
        );
        assert_eq!(
            check(json!({"collisionCount": 1}), json!({"collisionCount": 2})),
            ["status.collisionCount: Invalid value: 1: cannot be decremented"]
        );
    }

    #[test]
    fn a_template_of_old_habits_is_warned_about_when_the_spec_changes() {
        let mut spec = good();
        spec["template"]["spec"]["nodeSelector"] = json!({"beta.kubernetes.io/os": "linux"});
        let (mut new, mut old) = (deployment(spec), deployment(good()));
        new.metadata.name = Some("a".into());
        old.metadata.name = Some("a".into());
        let expected = [
            "spec.template.spec.nodeSelector[beta.kubernetes.io/os]: deprecated since v1.14; use \"kubernetes.io/os\" instead",
        ];
        assert_eq!(DeploymentStrategy.warnings(&new, None), expected);
        assert_eq!(DeploymentStrategy.warnings(&new, Some(&old)), expected);
        assert_eq!(DeploymentStrategy.warnings(&new, Some(&new)), Vec::<String>::new());
        old.metadata.name = Some("a.b".into());
        let start = "metadata.name: this is used in Pod names and hostnames, which can result in surprising behavior; a DNS label";
        assert!(DeploymentStrategy.warnings(&old, None)[0].starts_with(start));
    }
}
