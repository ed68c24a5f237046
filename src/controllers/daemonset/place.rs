//! Which nodes a DaemonSet's pods belong on, and the pod for one node.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{
    Node, NodeAffinity, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, Pod, PodSpec, Toleration,
};

use crate::api::selector::node::{self, NodeFace};
use crate::controllers::workload::revisions::POD_LABEL;
use crate::controllers::workload::{ownership, template};

/// Taints that every daemon pod tolerates: the daemon may be what mends the node.
const TOLERATED: [(&str, &str); 6] = [
    ("node.kubernetes.io/not-ready", "NoExecute"),
    ("node.kubernetes.io/unreachable", "NoExecute"),
    ("node.kubernetes.io/disk-pressure", "NoSchedule"),
    ("node.kubernetes.io/memory-pressure", "NoSchedule"),
    ("node.kubernetes.io/pid-pressure", "NoSchedule"),
    ("node.kubernetes.io/unschedulable", "NoSchedule"),
];
const NETWORK_UNAVAILABLE: (&str, &str) = ("node.kubernetes.io/network-unavailable", "NoSchedule");
const GENERATION_ANNOTATION: &str = "deprecated.daemonset.template.generation";
const GENERATION_LABEL: &str = "pod-template-generation";

/// What a node means to a DaemonSet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fit {
    /// A pod must run there.
    Run,
    /// No pod is placed there, but one that runs may stay.
    Stay,
    /// No pod may be there.
    Leave,
}

/// Judges one node.
pub fn fit(set: &DaemonSet, node: &Node) -> Fit {
    let Some(spec) = set.spec.as_ref().and_then(|spec| spec.template.spec.as_ref()) else {
        return Fit::Leave;
    };
    let name = node.metadata.name.as_deref().unwrap_or_default();
    let pinned = spec.node_name.as_deref().filter(|pinned| !pinned.is_empty());
    let face = NodeFace { name, labels: node.metadata.labels.as_ref() };
    if pinned.is_some_and(|pinned| pinned != name) || !face.suits(spec) {
        return Fit::Leave;
    }
    let tolerations = tolerations(spec);
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default();
    let repelled = |effect: &str| {
        taints.iter().any(|taint| taint.effect == effect && !node::tolerates(&tolerations, taint))
    };
    match (repelled("NoExecute"), repelled("NoSchedule")) {
        (true, _) => Fit::Leave,
        (false, true) => Fit::Stay,
        (false, false) => Fit::Run,
    }
}

/// The template's tolerations and those of every daemon pod.
fn tolerations(spec: &PodSpec) -> Vec<Toleration> {
    let mut all = spec.tolerations.clone().unwrap_or_default();
    let network = spec.host_network.unwrap_or(false).then_some(NETWORK_UNAVAILABLE);
    for (key, effect) in TOLERATED.into_iter().chain(network) {
        let toleration = Toleration {
            key: Some(key.to_owned()),
            operator: Some("Exists".to_owned()),
            effect: Some(effect.to_owned()),
            ..Toleration::default()
        };
        if !all.contains(&toleration) {
            all.push(toleration);
        }
    }
    all
}

/// The generation that the deprecated annotation carries.
pub fn template_generation(set: &DaemonSet) -> Option<&str> {
    set.metadata.annotations.as_ref()?.get(GENERATION_ANNOTATION).map(String::as_str)
}

/// The pod is of the revision `hash` or of the template that the set numbers as its present one.
pub fn is_updated(set: &DaemonSet, pod: &Pod, hash: &str) -> bool {
    let label =
        |key: &str| pod.metadata.labels.as_ref().and_then(|labels| labels.get(key)).map(String::as_str);
    let generation = template_generation(set);
    label(POD_LABEL) == Some(hash) || generation.is_some() && label(GENERATION_LABEL) == generation
}

/// The pod of `set` for the node called `node`.
pub fn pod_for(set: &DaemonSet, node: &str, hash: &str) -> Pod {
    let template = set.spec.as_ref().map(|spec| spec.template.clone()).unwrap_or_default();
    let owner = ownership::controller_reference("apps/v1", "DaemonSet", &set.metadata);
    let namespace = set.metadata.namespace.as_deref().unwrap_or_default();
    let name = set.metadata.name.as_deref().unwrap_or_default();
    let mut pod = template::pod_from_template(&template, namespace, name, owner);
    let labels = pod.metadata.labels.get_or_insert_with(BTreeMap::new);
    labels.insert(POD_LABEL.to_owned(), hash.to_owned());
    if let Some(generation) = template_generation(set) {
        labels.insert(GENERATION_LABEL.to_owned(), generation.to_owned());
    }
    let spec = pod.spec.get_or_insert_default();
    spec.tolerations = Some(tolerations(spec));
    bind(spec, node);
    pod
}

/// Lets the pod run on one node only. The template's own demands were checked when the node was chosen.
fn bind(spec: &mut PodSpec, node: &str) {
    let requirement = NodeSelectorRequirement {
        key: "metadata.name".to_owned(),
        operator: "In".to_owned(),
        values: Some(vec![node.to_owned()]),
    };
    let term = NodeSelectorTerm { match_fields: Some(vec![requirement]), match_expressions: None };
    let affinity = spec.affinity.get_or_insert_default();
    let node_affinity = affinity.node_affinity.get_or_insert_with(NodeAffinity::default);
    node_affinity.required_during_scheduling_ignored_during_execution =
        Some(NodeSelector { node_selector_terms: vec![term] });
}

/// The node that a pod is on or is bound to.
pub fn node_of(pod: &Pod) -> Option<&str> {
    let spec = pod.spec.as_ref()?;
    if let Some(name) = spec.node_name.as_deref().filter(|name| !name.is_empty()) {
        return Some(name);
    }
    let affinity = spec.affinity.as_ref()?.node_affinity.as_ref()?;
    let required = affinity.required_during_scheduling_ignored_during_execution.as_ref()?;
    let fields = required.node_selector_terms.iter().flat_map(|term| term.match_fields.iter().flatten());
    let mut names = fields.filter(|field| field.key == "metadata.name" && field.operator == "In");
    names.next()?.values.as_ref()?.first().map(String::as_str)
}
