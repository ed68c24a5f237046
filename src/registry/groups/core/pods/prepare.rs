//! What becomes of a pod before it is stored: fields whose features are off in v1.36 are dropped, and label keys turn
//! into selectors.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Container, LifecycleHandler, Pod, PodAffinityTerm, PodSpec, PodTemplateSpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};

/// Drops what belongs to features that are off, unless the old spec has it already.
pub fn drop_disabled(spec: &mut PodSpec, old: Option<&PodSpec>) {
    let kept = |used: fn(&PodSpec) -> bool| old.is_some_and(used);
    if !kept(|old| old.scheduling_group.is_some()) {
        spec.scheduling_group = None;
    }
    if !kept(stops_by_signal) {
        containers_mut(spec).filter_map(|container| container.lifecycle.as_mut()).for_each(|own| {
            own.stop_signal = None;
        });
        spec.ephemeral_containers.iter_mut().flatten().filter_map(|own| own.lifecycle.as_mut()).for_each(
            |own| {
                own.stop_signal = None;
            },
        );
        drop_empty_lifecycles(spec);
    }
    let projections = |spec: &PodSpec, used: fn(&k8s_openapi::api::core::v1::VolumeProjection) -> bool| {
        spec.volumes
            .iter()
            .flatten()
            .filter_map(|volume| volume.projected.as_ref())
            .flat_map(|projected| projected.sources.iter().flatten())
            .any(used)
    };
    let bundles = old.is_some_and(|old| projections(old, |source| source.cluster_trust_bundle.is_some()));
    let certificates = old.is_some_and(|old| projections(old, |source| source.pod_certificate.is_some()));
    let volumes = spec.volumes.iter_mut().flatten().filter_map(|volume| volume.projected.as_mut());
    for source in volumes.flat_map(|projected| projected.sources.iter_mut().flatten()) {
        if !bundles {
            source.cluster_trust_bundle = None;
        }
        if !certificates {
            source.pod_certificate = None;
        }
    }
}

/// [`drop_disabled`] for a template.
pub fn drop_disabled_in(template: &mut PodTemplateSpec, old: Option<&PodTemplateSpec>) {
    if let Some(spec) = template.spec.as_mut() {
        drop_disabled(spec, old.and_then(|old| old.spec.as_ref()));
    }
}

fn containers_mut(spec: &mut PodSpec) -> impl Iterator<Item = &mut Container> {
    spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten())
}

fn stops_by_signal(spec: &PodSpec) -> bool {
    let all = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    all.filter_map(|container| container.lifecycle.as_ref()).any(|own| own.stop_signal.is_some())
}

/// A lifecycle that said nothing but the signal says nothing now.
fn drop_empty_lifecycles(spec: &mut PodSpec) {
    let empty = |hook: &Option<LifecycleHandler>| hook.is_none();
    for container in containers_mut(spec) {
        let own = container.lifecycle.as_ref();
        if own.is_some_and(|own| empty(&own.post_start) && empty(&own.pre_stop)) {
            container.lifecycle = None;
        }
    }
}

/// Turns keys of labels into conditions on the values that the pod itself has.
pub fn select_by_own_labels(pod: &mut Pod) {
    let labels = pod.metadata.labels.clone().unwrap_or_default();
    let Some(spec) = pod.spec.as_mut() else { return };
    let affinity = spec.affinity.as_mut();
    let (near, far) =
        affinity.map_or((None, None), |own| (own.pod_affinity.as_mut(), own.pod_anti_affinity.as_mut()));
    if let Some(own) = near {
        own.required_during_scheduling_ignored_during_execution
            .iter_mut()
            .flatten()
            .for_each(|t| term(t, &labels));
        let preferred = own.preferred_during_scheduling_ignored_during_execution.iter_mut().flatten();
        preferred.for_each(|weighted| term(&mut weighted.pod_affinity_term, &labels));
    }
    if let Some(own) = far {
        own.required_during_scheduling_ignored_during_execution
            .iter_mut()
            .flatten()
            .for_each(|t| term(t, &labels));
        let preferred = own.preferred_during_scheduling_ignored_during_execution.iter_mut().flatten();
        preferred.for_each(|weighted| term(&mut weighted.pod_affinity_term, &labels));
    }
    for constraint in spec.topology_spread_constraints.iter_mut().flatten() {
        let keys = constraint.match_label_keys.as_deref().unwrap_or_default();
        merge(constraint.label_selector.as_mut(), keys, "In", &labels);
    }
}

fn term(term: &mut PodAffinityTerm, labels: &BTreeMap<String, String>) {
    let selector = &mut term.label_selector;
    merge(selector.as_mut(), term.match_label_keys.as_deref().unwrap_or_default(), "In", labels);
    merge(selector.as_mut(), term.mismatch_label_keys.as_deref().unwrap_or_default(), "NotIn", labels);
}

fn merge(
    selector: Option<&mut LabelSelector>,
    keys: &[String],
    operator: &str,
    labels: &BTreeMap<String, String>,
) {
    let Some(selector) = selector else { return };
    for (key, value) in keys.iter().filter_map(|key| Some((key, labels.get(key)?))) {
        selector.match_expressions.get_or_insert_default().push(LabelSelectorRequirement {
            key: key.clone(),
            operator: operator.into(),
            values: Some(vec![value.clone()]),
        });
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, from_value, json, to_value};

    use super::*;

    #[test]
    fn fields_of_features_that_are_off_are_dropped_unless_they_were_there() {
        let spec: PodSpec = from_value(json!({
            "containers": [{"name": "a", "lifecycle": {"stopSignal": "SIGINT"}},
                {"name": "b", "lifecycle": {"stopSignal": "SIGINT", "preStop": {"sleep": {"seconds": 1}}}}],
            "schedulingGroup": {"podGroupName": "g"},
            "volumes": [{"name": "v", "projected": {"sources": [{"clusterTrustBundle": {"path": "p"}}]}}],
        }))
        .unwrap();
        let mut dropped = spec.clone();
        drop_disabled(&mut dropped, None);
        assert_eq!(
            to_value(&dropped).unwrap(),
            json!({"containers": [{"name": "a"}, {"name": "b", "lifecycle": {"preStop": {"sleep": {"seconds": 1}}}}],
                "volumes": [{"name": "v", "projected": {"sources": [{}]}}]})
        );
        let mut kept = spec.clone();
        drop_disabled(&mut kept, Some(&spec));
        assert_eq!(kept, spec);
    }

    #[test]
    fn keys_of_labels_become_conditions_on_the_pods_own_values() {
        let mut pod: Pod = from_value(json!({"metadata": {"labels": {"a": "1", "b": "2"}}, "spec": {"containers": [],
            "topologySpreadConstraints": [
                {"maxSkew": 1, "topologyKey": "t", "whenUnsatisfiable": "DoNotSchedule",
                    "labelSelector": {"matchLabels": {"x": "y"}}, "matchLabelKeys": ["a", "none"]}],
            "affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
                {"topologyKey": "t", "labelSelector": {}, "matchLabelKeys": ["a"], "mismatchLabelKeys": ["b"]}]}}}}))
        .unwrap();
        select_by_own_labels(&mut pod);
        let spec = to_value(pod.spec).unwrap();
        let own = |key: &str, operator: &str, value: &str| -> Value {
            json!({"key": key, "operator": operator, "values": [value]})
        };
        assert_eq!(
            spec["topologySpreadConstraints"][0]["labelSelector"]["matchExpressions"],
            json!([own("a", "In", "1")])
        );
        let term = &spec["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"][0];
        assert_eq!(
            term["labelSelector"]["matchExpressions"],
            json!([own("a", "In", "1"), own("b", "NotIn", "2")])
        );
    }
}
