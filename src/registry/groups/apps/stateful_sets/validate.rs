//! What a StatefulSet must say.

use k8s_openapi::api::apps::v1::{
    StatefulSet, StatefulSetPersistentVolumeClaimRetentionPolicy, StatefulSetSpec, StatefulSetUpdateStrategy,
};
use k8s_openapi::api::core::v1::{PersistentVolumeClaimVolumeSource, PodTemplateSpec, Volume};

use crate::api::field::{FieldError, FieldErrors, Path};
use crate::api::names;
use crate::registry::groups::apps::rolling;
use crate::registry::groups::core::persistent_volume_claims;
use crate::registry::validation::{each, known, non_negative};

const RETENTIONS: [&str; 2] = ["Retain", "Delete"];
const SET: rolling::Workload = rolling::Workload { kind: "StatefulSet", selector_required: true };

/// Checks a spec, new or changed.
pub(super) fn spec(spec: &StatefulSetSpec, errors: &mut FieldErrors) {
    let at = Path::new("spec");
    management(spec.pod_management_policy.as_deref().unwrap_or_default(), &at, errors);
    strategy(spec.update_strategy.as_ref(), &at.child("updateStrategy"), errors);
    let at_retention = at.child("persistentVolumeClaimRetentionPolicy");
    retention(spec.persistent_volume_claim_retention_policy.as_ref(), &at_retention, errors);
    rolling::counts(&[("replicas", spec.replicas), ("minReadySeconds", spec.min_ready_seconds)], &at, errors);
    if let Some(ordinals) = &spec.ordinals {
        // The place is upstream's, which leaves out the spec.
        let at = Path::new("ordinals").child("start");
        non_negative(ordinals.start.map(i64::from), &at, errors);
    }
    rolling::selector_and_template(&spec.selector, Some(&with_claims(spec)), &SET, &at, errors);
}

fn management(policy: &str, at: &Path, errors: &mut FieldErrors) {
    let at = at.child("podManagementPolicy");
    match policy {
        "" => errors.push(FieldError::required(&at, "")),
        "OrderedReady" | "Parallel" => {}
        other => {
            errors.push(FieldError::invalid(&at, other, "must be 'OrderedReady' or 'Parallel'"));
        }
    }
}

fn strategy(strategy: Option<&StatefulSetUpdateStrategy>, at: &Path, errors: &mut FieldErrors) {
    let none = StatefulSetUpdateStrategy::default();
    let strategy = strategy.unwrap_or(&none);
    let at_rolling = at.child("rollingUpdate");
    match strategy.type_.as_deref().unwrap_or_default() {
        "" => errors.push(FieldError::required(at, "")),
        "OnDelete" => {
            if let Some(rolling) = &strategy.rolling_update {
                let message = "only allowed for updateStrategy 'RollingUpdate'";
                errors.push(FieldError::invalid(&at_rolling, rolling, message));
            }
        }
        "RollingUpdate" => {
            if let Some(rolling) = &strategy.rolling_update {
                let partition = rolling.partition.map(i64::from);
                non_negative(partition, &at_rolling.child("partition"), errors);
                if let Some(lost) = &rolling.max_unavailable {
                    let at = at_rolling.child("maxUnavailable");
                    rolling::number_or_percent(Some(lost), &at, errors);
                    if rolling::is_zero(Some(lost)) {
                        errors.push(FieldError::invalid(&at, lost, "cannot be 0"));
                    }
                    rolling::at_most_all(Some(lost), &at, errors);
                }
            }
        }
        _ => errors.push(FieldError::invalid(at, strategy, "must be 'RollingUpdate' or 'OnDelete'")),
    }
}

fn retention(
    policy: Option<&StatefulSetPersistentVolumeClaimRetentionPolicy>,
    at: &Path,
    errors: &mut FieldErrors,
) {
    let Some(policy) = policy else { return };
    for (field, value) in [("whenDeleted", &policy.when_deleted), ("whenScaled", &policy.when_scaled)] {
        known(Some(value.as_deref().unwrap_or_default()), &RETENTIONS, &at.child(field), errors);
    }
}

/// The template with a volume for each claim, so that mounts of claims are found, and without the names that the set
/// gives its pods.
fn with_claims(spec: &StatefulSetSpec) -> PodTemplateSpec {
    let mut template = spec.template.clone();
    let Some(pod) = &mut template.spec else { return template };
    let mut volumes: Vec<Volume> = Vec::new();
    for claim in spec.volume_claim_templates.iter().flatten() {
        let name = claim.metadata.name.clone().unwrap_or_default();
        let source = PersistentVolumeClaimVolumeSource { claim_name: name.clone(), read_only: Some(false) };
        volumes.push(Volume { name, persistent_volume_claim: Some(source), ..Default::default() });
    }
    let own = pod.volumes.take().unwrap_or_default();
    let own = own.into_iter().filter(|own| volumes.iter().all(|volume| volume.name != own.name));
    let own: Vec<Volume> = own.collect();
    volumes.extend(own);
    pod.volumes = (!volumes.is_empty()).then_some(volumes);
    (pod.hostname, pod.subdomain) = (None, None);
    template
}

/// Checks what holds for new sets only.
pub(super) fn create(set: &StatefulSet, errors: &mut FieldErrors) {
    if let Some(name) = set.metadata.name.as_deref() {
        each(names::is_dns1123_label(name), name, &Path::new("metadata").child("name"), errors);
    }
    let Some(spec) = &set.spec else { return };
    let at = Path::new("spec");
    if let Some(service) = spec.service_name.as_deref().filter(|name| !name.is_empty()) {
        each(names::is_dns1123_label(service), service, &at.child("serviceName"), errors);
    }
    for (i, claim) in spec.volume_claim_templates.iter().flatten().enumerate() {
        let at = at.child("volumeClaimTemplates").index(i).child("spec");
        persistent_volume_claims::validate_spec(&claim.spec.clone().unwrap_or_default(), &at, errors);
    }
}

/// Checks a change of the status.
pub(super) fn status(set: &StatefulSet, old: &StatefulSet, errors: &mut FieldErrors) {
    let none = Default::default();
    let status = set.status.as_ref().unwrap_or(&none);
    let at = Path::new("status");
    let counts = [
        ("replicas", Some(status.replicas)),
        ("readyReplicas", status.ready_replicas),
        ("currentReplicas", status.current_replicas),
        ("updatedReplicas", status.updated_replicas),
        ("availableReplicas", status.available_replicas),
    ];
    rolling::counts(&counts, &at, errors);
    non_negative(status.observed_generation, &at.child("observedGeneration"), errors);
    let before = old.status.as_ref().and_then(|status| status.collision_count);
    rolling::collisions(status.collision_count, before, errors);
    for count in &counts[1..] {
        rolling::at_most(*count, ("status.replicas", Some(status.replicas)), &at, errors);
    }
    rolling::at_most(counts[4], ("status.readyReplicas", status.ready_replicas), &at, errors);
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::registry::groups::apps::stateful_sets::StatefulSetStrategy;
    use crate::registry::strategy::Strategy;

    fn set(pointer: &str, value: Value) -> StatefulSet {
        let mut object = json!({"metadata": {"name": "a"}, "spec": {"selector": {"matchLabels": {"a": "b"}},
            "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"hostname": "Any_Name",
                "containers": [{"name": "c", "image": "i", "volumeMounts": [{"name": "data", "mountPath": "/data"}]}]}},
            "volumeClaimTemplates": [{"metadata": {"name": "data"},
                "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}]}});
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        object.pointer_mut(parent).unwrap()[key] = value;
        let mut set = serde_json::from_value(object).unwrap();
        Strategy::default(&StatefulSetStrategy, &mut set);
        set
    }

    #[test]
    fn problems_are_named_as_upstream_names_them() {
        let cases = [
            ("/metadata/name", json!("a"), None),
            (
                "/metadata/name",
                json!("a.b"),
                Some("metadata.name: Invalid value: \"a.b\": a lowercase RFC 1123 label"),
            ),
            (
                "/spec/podManagementPolicy",
                json!("X"),
                Some("spec.podManagementPolicy: Invalid value: \"X\": must be 'OrderedReady' or 'Parallel'"),
            ),
            (
                "/spec/updateStrategy",
                json!({"type": "X"}),
                Some(
                    "spec.updateStrategy: Invalid value: {\"type\":\"X\"}: must be 'RollingUpdate' or 'OnDelete'",
                ),
            ),
            (
                "/spec/updateStrategy",
                json!({"type": "OnDelete", "rollingUpdate": {"partition": 1}}),
                Some(
                    "spec.updateStrategy.rollingUpdate: Invalid value: {\"partition\":1}: only allowed for updateStrategy 'RollingUpdate'",
                ),
            ),
            (
                "/spec/updateStrategy",
                json!({"rollingUpdate": {"partition": -1}}),
                Some(
                    "spec.updateStrategy.rollingUpdate.partition: Invalid value: -1: must be greater than or equal to 0",
                ),
            ),
            (
                "/spec/persistentVolumeClaimRetentionPolicy",
                json!({"whenScaled": "X"}),
                Some(
                    "spec.persistentVolumeClaimRetentionPolicy.whenScaled: Unsupported value: \"X\": supported values: \"Retain\", \"Delete\"",
                ),
            ),
            (
                "/spec/ordinals",
                json!({"start": -1}),
                Some("ordinals.start: Invalid value: -1: must be greater than or equal to 0"),
            ),
            (
                "/spec/serviceName",
                json!("A"),
                Some("spec.serviceName: Invalid value: \"A\": a lowercase RFC 1123 label"),
            ),
            (
                "/spec/volumeClaimTemplates",
                json!([]),
                Some("spec.template.spec.containers[0].volumeMounts[0].name: Not found: \"data\""),
            ),
            (
                "/spec/volumeClaimTemplates/0/spec",
                json!({"resources": {"requests": {"storage": "1Gi"}}}),
                Some(
                    "spec.volumeClaimTemplates[0].spec.accessModes: Required value: at least 1 access mode is required",
                ),
            ),
        ];
        for (pointer, value, expected) in cases {
            let set = set(pointer, value);
            let mut errors = FieldErrors::new();
            spec(set.spec.as_ref().unwrap(), &mut errors);
            create(&set, &mut errors);
            let found: Vec<String> = errors.iter().map(ToString::to_string).collect();
            match expected {
                None => assert_eq!(found, Vec::<String>::new()),
                Some(expected) => {
                    assert!(
                        found.len() == 1 && found[0].starts_with(expected),
                        "{found:?}\nwanted {expected}"
                    );
                }
            }
        }
    }

    #[test]
    fn counts_in_the_status_fit_each_other() {
        let of = |status: Value| set("/status", status);
        let check = |new: Value, old: Value| {
            let mut errors = FieldErrors::new();
            status(&of(new), &of(old), &mut errors);
            errors.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(
            check(json!({"replicas": 1, "readyReplicas": 1}), json!({"replicas": 0})),
            Vec::<String>::new()
        );
        assert_eq!(
            check(json!({"replicas": 1, "availableReplicas": 1}), json!({"replicas": 0})),
            ["status.availableReplicas: Invalid value: 1: cannot be greater than status.readyReplicas"]
        );
        assert_eq!(
            check(json!({"replicas": 1, "collisionCount": 0}), json!({"replicas": 0, "collisionCount": 1})),
            ["status.collisionCount: Invalid value: 0: cannot be decremented"]
        );
    }
}
