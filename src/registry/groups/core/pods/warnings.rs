//! Warnings about pods and templates that are accepted and yet look like a mistake, as upstream's
//! `pkg/api/pod/warnings.go` words them.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{
    Container, ContainerPort, NodeSelectorTerm, PodAffinityTerm, PodSpec, PodTemplateSpec, Volume,
    WeightedPodAffinityTerm,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as RawQuantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::api::field::{Path, go_quote};
use crate::api::names;
use crate::api::quantity::Quantity;
use crate::registry::groups::core::persistent_volume_claims;
use crate::registry::validation::text;

const SECCOMP: &str = "non-functional in v1.27+; use the \"seccompProfile\" field instead";
const SECCOMP_POD: &str = "seccomp.security.alpha.kubernetes.io/pod";
const SECCOMP_CONTAINER: &str = "container.seccomp.security.alpha.kubernetes.io/";
const APP_ARMOR: &str = "container.apparmor.security.beta.kubernetes.io/";
const NULL_SELECTOR: &str = "a null labelSelector results in matching no pod";

const ANNOTATIONS: [(&str, &str); 3] = [
    (
        "scheduler.alpha.kubernetes.io/critical-pod",
        "non-functional in v1.16+; use the \"priorityClassName\" field instead",
    ),
    ("security.alpha.kubernetes.io/sysctls", "non-functional in v1.11+; use the \"sysctls\" field instead"),
    (
        "security.alpha.kubernetes.io/unsafe-sysctls",
        "non-functional in v1.11+; use the \"sysctls\" field instead",
    ),
];

const NODE_LABELS: [(&str, &str); 8] = [
    ("beta.kubernetes.io/arch", "deprecated since v1.14; use \"kubernetes.io/arch\" instead"),
    ("beta.kubernetes.io/os", "deprecated since v1.14; use \"kubernetes.io/os\" instead"),
    (
        "failure-domain.beta.kubernetes.io/region",
        "deprecated since v1.17; use \"topology.kubernetes.io/region\" instead",
    ),
    (
        "failure-domain.beta.kubernetes.io/zone",
        "deprecated since v1.17; use \"topology.kubernetes.io/zone\" instead",
    ),
    (
        "beta.kubernetes.io/instance-type",
        "deprecated since v1.17; use \"node.kubernetes.io/instance-type\" instead",
    ),
    ("app.kubernetes.io/created-by", "deprecated since v1.9"),
    (
        "scheduler.alpha.kubernetes.io/preferAvoidPods",
        "deprecated since v1.22; use Taints and Tolerations instead",
    ),
    ("node-role.kubernetes.io/master", "use \"node-role.kubernetes.io/control-plane\" instead"),
];

/// What is to be said about a label of nodes that has been replaced.
pub fn node_label(key: &str) -> Option<&'static str> {
    NODE_LABELS.iter().find(|(label, _)| *label == key).map(|(_, message)| *message)
}

/// Warnings about a term that selects nodes; for a preference also about values that no label can have.
pub fn node_term(term: &NodeSelectorTerm, values: bool, at: &Path) -> Vec<String> {
    let mut warnings = Vec::new();
    for (i, expression) in term.match_expressions.iter().flatten().enumerate() {
        let at = at.child("matchExpressions").index(i);
        if let Some(message) = node_label(&expression.key) {
            warnings.push(format!("{}: {} is {message}", at.child("key"), expression.key));
        }
        for (j, value) in expression.values.iter().flatten().enumerate().filter(|_| values) {
            for message in names::is_label_value(value) {
                warnings.push(format!("{}: {value} is invalid, {message}", at.child("values").index(j)));
            }
        }
    }
    warnings
}

/// The place of a top-level field, below a template or a pod.
fn place(template: Option<&Path>, field: &'static str) -> Path {
    template.map_or_else(|| Path::new(field), |at| at.child(field))
}

/// The warning about a name that is no label but becomes `what`.
pub fn name(meta: &ObjectMeta, what: &str) -> Option<String> {
    let messages = names::is_dns1123_label(meta.name.as_deref().unwrap_or_default());
    let recommended = "which can result in surprising behavior; a DNS label is recommended";
    (!messages.is_empty())
        .then(|| format!("metadata.name: this is used in {what}, {recommended}: [{}]", messages.join(" ")))
}

/// Warnings about a template.
pub fn template(template: &PodTemplateSpec, at: &Path) -> Vec<String> {
    let none = (ObjectMeta::default(), PodSpec::default());
    let meta = template.metadata.as_ref().unwrap_or(&none.0);
    of(template.spec.as_ref().unwrap_or(&none.1), meta, Some(at))
}

/// Warnings about a pod, or about a template at its place.
pub fn of(spec: &PodSpec, meta: &ObjectMeta, template: Option<&Path>) -> Vec<String> {
    let at = place(template, "spec");
    let notes = place(template, "metadata").child("annotations");
    let noted = |key: &str| meta.annotations.as_ref().is_some_and(|own| own.contains_key(key));
    let mut all = Warnings { list: Vec::new() };
    all.nodes(spec, &at);
    for (key, message) in ANNOTATIONS.iter().filter(|(key, _)| noted(key)) {
        all.say(&notes.key(*key), message);
    }
    for (i, volume) in spec.volumes.iter().flatten().enumerate() {
        all.volume(volume, &at.child("volumes").index(i));
    }
    all.tokens(spec, &at.child("volumes"));
    all.twice(spec, &at);
    if let Some(overhead) = &spec.overhead {
        all.fractions(Some(overhead), &at.child("overhead"));
    }
    let context = spec.security_context.as_ref();
    if context.is_none_or(|own| own.seccomp_profile.is_none()) && noted(SECCOMP_POD) {
        all.say(&notes.key(SECCOMP_POD), SECCOMP);
    }
    let pod_armor = context.is_some_and(|own| own.app_armor_profile.is_some());
    for (container, at) in containers(spec, &at) {
        let own = container.security_context.as_ref();
        let key = format!("{SECCOMP_CONTAINER}{}", container.name);
        if own.is_none_or(|own| own.seccomp_profile.is_none()) && noted(&key) {
            all.say(&notes.key(key), SECCOMP);
        }
        let key = format!("{APP_ARMOR}{}", container.name);
        if !pod_armor && own.is_none_or(|own| own.app_armor_profile.is_none()) && noted(&key) {
            all.say(&notes.key(key), "deprecated since v1.30; use the \"appArmorProfile\" field instead");
        }
        let resources = container.resources.as_ref();
        all.fractions(resources.and_then(|own| own.limits.as_ref()), &at.child("resources").child("limits"));
        let requests = resources.and_then(|own| own.requests.as_ref());
        all.fractions(requests, &at.child("resources").child("requests"));
        all.variables(container, &at.child("env"));
    }
    all.ports(spec, &at);
    if spec.termination_grace_period_seconds.is_some_and(|seconds| seconds < 0) {
        let message = "must be >= 0; negative values are invalid and will be treated as 1";
        all.say(&at.child("terminationGracePeriodSeconds"), message);
    }
    all.pods(spec, &at);
    all.list
}

fn containers<'a>(spec: &'a PodSpec, at: &Path) -> Vec<(&'a Container, Path)> {
    let init = spec.init_containers.iter().flatten().enumerate();
    let init = init.map(|(i, own)| (own, at.child("initContainers").index(i)));
    let plain = spec.containers.iter().enumerate();
    init.chain(plain.map(|(i, own)| (own, at.child("containers").index(i)))).collect()
}

struct Warnings {
    list: Vec<String>,
}

impl Warnings {
    fn say(&mut self, at: &Path, message: &str) {
        self.list.push(format!("{at}: {message}"));
    }

    fn nodes(&mut self, spec: &PodSpec, at: &Path) {
        for key in spec.node_selector.iter().flatten().map(|(key, _)| key) {
            if let Some(message) = node_label(key) {
                self.say(&at.child("nodeSelector").key(key.clone()), message);
            }
        }
        if let Some(own) = spec.affinity.as_ref().and_then(|own| own.node_affinity.as_ref()) {
            let at = at.child("affinity").child("nodeAffinity");
            let at_terms =
                at.child("requiredDuringSchedulingIgnoredDuringExecution").child("nodeSelectorTerms");
            let required = own.required_during_scheduling_ignored_during_execution.iter();
            for (i, term) in required.flat_map(|own| &own.node_selector_terms).enumerate() {
                self.list.extend(node_term(term, false, &at_terms.index(i)));
            }
            let at = at.child("preferredDuringSchedulingIgnoredDuringExecution");
            let preferred = own.preferred_during_scheduling_ignored_during_execution.iter().flatten();
            for (i, term) in preferred.enumerate() {
                self.list.extend(node_term(&term.preference, true, &at.index(i).child("preference")));
            }
        }
        for (i, constraint) in spec.topology_spread_constraints.iter().flatten().enumerate() {
            let at = at.child("topologySpreadConstraints").index(i);
            let key = &constraint.topology_key;
            if let Some(message) = node_label(key) {
                self.list.push(format!("{}: {key} is {message}", at.child("topologyKey")));
            }
            if constraint.label_selector.is_none() {
                self.say(&at.child("labelSelector"), NULL_SELECTOR);
            }
        }
    }

    fn volume(&mut self, volume: &Volume, at: &Path) {
        let gone = [
            (
                "photonPersistentDisk",
                volume.photon_persistent_disk.is_some(),
                "deprecated in v1.11, non-functional in v1.16+",
            ),
            ("gitRepo", volume.git_repo.is_some(), "deprecated in v1.11, and disabled by default in v1.33+"),
            ("scaleIO", volume.scale_io.is_some(), "deprecated in v1.16, non-functional in v1.22+"),
            ("flocker", volume.flocker.is_some(), "deprecated in v1.22, non-functional in v1.25+"),
            ("storageOS", volume.storageos.is_some(), "deprecated in v1.22, non-functional in v1.25+"),
            ("quobyte", volume.quobyte.is_some(), "deprecated in v1.22, non-functional in v1.25+"),
            ("glusterfs", volume.glusterfs.is_some(), "deprecated in v1.25, non-functional in v1.26+"),
            ("cephfs", volume.cephfs.is_some(), "deprecated in v1.28, non-functional in v1.31+"),
            ("rbd", volume.rbd.is_some(), "deprecated in v1.28, non-functional in v1.31+"),
        ];
        for (field, _, message) in gone.into_iter().filter(|(_, used, _)| *used) {
            self.say(&at.child(field), message);
        }
        if let Some(own) = volume.ephemeral.as_ref().and_then(|own| own.volume_claim_template.as_ref()) {
            let at = at.child("ephemeral").child("volumeClaimTemplate").child("spec");
            self.list.extend(persistent_volume_claims::spec_warnings(&own.spec, &at));
        }
    }

    /// Files in the way of a token.
    fn tokens(&mut self, spec: &PodSpec, at: &Path) {
        let projected = || {
            let volumes = spec.volumes.iter().flatten().enumerate();
            volumes.filter_map(|(i, volume)| Some((i, volume.projected.as_ref()?)))
        };
        let sources = projected().flat_map(|(_, own)| own.sources.iter().flatten());
        let tokens: BTreeSet<&str> = sources
            .filter_map(|source| source.service_account_token.as_ref())
            .map(|own| own.path.as_str())
            .collect();
        for (i, own) in projected() {
            for source in own.sources.iter().flatten() {
                let keys = |items: Option<&Vec<k8s_openapi::api::core::v1::KeyToPath>>| {
                    items.into_iter().flatten().map(|item| item.path.clone()).collect::<Vec<_>>()
                };
                let fields = source.downward_api.iter().flat_map(|own| own.items.iter().flatten());
                let lists = [
                    ("configMap", keys(source.config_map.as_ref().and_then(|own| own.items.as_ref()))),
                    ("secrets", keys(source.secret.as_ref().and_then(|own| own.items.as_ref()))),
                    ("downwardAPI", fields.map(|item| item.path.clone()).collect()),
                ];
                for (field, paths) in lists {
                    for (j, path) in
                        paths.iter().enumerate().filter(|(_, path)| tokens.contains(path.as_str()))
                    {
                        let at = at.index(i).child("projected").child("sources").child(field).index(j);
                        let path = go_quote(path);
                        self.say(&at, &format!("has duplicated path with ServiceAccountToken {path}"));
                    }
                }
            }
        }
    }

    fn twice(&mut self, spec: &PodSpec, at: &Path) {
        let mut seen = BTreeSet::new();
        for (i, alias) in spec.host_aliases.iter().flatten().enumerate() {
            if !seen.insert(&alias.ip) {
                let at = at.child("hostAliases").index(i).child("ip");
                self.say(&at, &format!("duplicate ip {}", go_quote(&alias.ip)));
            }
        }
        let mut seen = BTreeSet::new();
        let secrets = spec.image_pull_secrets.as_deref().unwrap_or_default();
        let at = at.child("imagePullSecrets");
        for (i, secret) in secrets.iter().enumerate() {
            if !seen.insert(&secret.name) {
                self.say(&at.index(i).child("name"), &format!("duplicate name {}", go_quote(&secret.name)));
            }
        }
        for (i, _) in secrets.iter().enumerate().filter(|(_, secret)| secret.name.is_empty()) {
            self.say(&at.index(i).child("name"), "invalid empty name \"\"");
        }
    }

    fn fractions(&mut self, amounts: Option<&BTreeMap<String, RawQuantity>>, at: &Path) {
        for name in ["memory", "ephemeral-storage"] {
            let amount = amounts.and_then(|own| own.get(name)).and_then(|raw| Quantity::parse(&raw.0).ok());
            if let Some(amount) = amount.filter(|amount| amount.milli_value() % 1000 != 0) {
                let amount = go_quote(&amount.to_string());
                let message = format!("fractional byte value {amount} is invalid, must be an integer");
                self.say(&at.key(name), &message);
            }
        }
    }

    fn variables(&mut self, container: &Container, at: &Path) {
        let mut seen = BTreeSet::new();
        for (i, variable) in container.env.iter().flatten().enumerate() {
            if seen.insert(&variable.name) {
                continue;
            }
            let (own, value) = (format!("$({})", variable.name), text(&variable.value));
            if variable.value_from.is_some() || value == own || !value.contains(&own) {
                let name = go_quote(&variable.name);
                let message =
                    format!("hides previous definition of {name}, which may be dropped when using apply");
                self.say(&at.index(i), &message);
            }
        }
    }

    fn ports(&mut self, spec: &PodSpec, at: &Path) {
        let mut taken: BTreeMap<String, Vec<(Path, &ContainerPort)>> = BTreeMap::new();
        for (container, at) in containers(spec, at) {
            for (i, port) in container.ports.iter().flatten().enumerate() {
                let at = at.child("ports").index(i);
                let (ip, number) = (text(&port.host_ip), port.host_port.unwrap_or(0));
                if !ip.is_empty() && number == 0 {
                    self.say(&at, &format!("hostIP set without hostPort: {}", shown(port)));
                }
                let key = format!("{}/{}", port.container_port, text(&port.protocol));
                let others = taken.entry(key).or_default();
                for (other, own) in others.iter() {
                    let (other_ip, other_number) = (text(&own.host_ip), own.host_port.unwrap_or(0));
                    let kind = if ip == other_ip && number == other_number {
                        "duplicate"
                    } else if number == 0 || other_number == 0 {
                        "overlapping"
                    } else if number == other_number && ip.is_empty() != other_ip.is_empty() {
                        "dangerously ambiguous"
                    } else {
                        continue;
                    };
                    self.say(&at, &format!("{kind} port definition with {other}"));
                }
                others.push((at, port));
            }
        }
    }

    fn pods(&mut self, spec: &PodSpec, at: &Path) {
        let Some(affinity) = &spec.affinity else { return };
        if let Some(own) = &affinity.pod_affinity {
            let required = own.required_during_scheduling_ignored_during_execution.as_deref();
            let preferred = own.preferred_during_scheduling_ignored_during_execution.as_deref();
            self.terms(required, preferred, &at.child("affinity").child("podAffinity"));
        }
        if let Some(own) = &affinity.pod_anti_affinity {
            let required = own.required_during_scheduling_ignored_during_execution.as_deref();
            let preferred = own.preferred_during_scheduling_ignored_during_execution.as_deref();
            self.terms(required, preferred, &at.child("affinity").child("podAntiAffinity"));
        }
    }

    fn terms(
        &mut self,
        required: Option<&[PodAffinityTerm]>,
        preferred: Option<&[WeightedPodAffinityTerm]>,
        at: &Path,
    ) {
        let list = at.child("requiredDuringSchedulingIgnoredDuringExecution");
        for (i, _) in
            required.into_iter().flatten().enumerate().filter(|(_, own)| own.label_selector.is_none())
        {
            self.say(&list.index(i).child("labelSelector"), NULL_SELECTOR);
        }
        let list = at.child("preferredDuringSchedulingIgnoredDuringExecution");
        for (i, own) in preferred.into_iter().flatten().enumerate() {
            if own.pod_affinity_term.label_selector.is_none() {
                let at = list.index(i).child("podAffinityTerm").child("labelSelector");
                self.say(&at, NULL_SELECTOR);
            }
        }
    }
}

/// A port as Go prints its fields.
fn shown(port: &ContainerPort) -> String {
    format!(
        "{{Name:{} HostPort:{} ContainerPort:{} Protocol:{} HostIP:{}}}",
        text(&port.name),
        port.host_port.unwrap_or(0),
        port.container_port,
        text(&port.protocol),
        text(&port.host_ip)
    )
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, from_value, json};

    use super::*;

    fn warnings(spec: Value, annotations: Value) -> Vec<String> {
        of(&from_value(spec).unwrap(), &from_value(json!({"annotations": annotations})).unwrap(), None)
    }

    #[test]
    fn what_looks_like_a_mistake_is_named() {
        let one = |container: Value| json!({"containers": [container]});
        let cases = [
            (one(json!({"name": "a"})), vec![]),
            (
                json!({"containers": [], "nodeSelector": {"beta.kubernetes.io/os": "linux"}}),
                vec![
                    "spec.nodeSelector[beta.kubernetes.io/os]: deprecated since v1.14; use \"kubernetes.io/os\" instead",
                ],
            ),
            (
                one(
                    json!({"name": "a", "env": [{"name": "A", "value": "1"}, {"name": "A", "value": "$(A)2"},
                    {"name": "A", "value": "3"}]}),
                ),
                vec![
                    "spec.containers[0].env[2]: hides previous definition of \"A\", which may be dropped when using apply",
                ],
            ),
            (
                one(json!({"name": "a", "resources": {"requests": {"memory": "100m"}}})),
                vec![
                    "spec.containers[0].resources.requests[memory]: fractional byte value \"100m\" is invalid, must be an integer",
                ],
            ),
            (
                one(json!({"name": "a", "ports": [{"containerPort": 80, "protocol": "TCP"},
                    {"containerPort": 80, "protocol": "TCP"},
                    {"containerPort": 80, "protocol": "TCP", "hostPort": 1, "hostIP": "1.2.3.4"}]})),
                vec![
                    "spec.containers[0].ports[1]: duplicate port definition with spec.containers[0].ports[0]",
                    "spec.containers[0].ports[2]: overlapping port definition with spec.containers[0].ports[0]",
                    "spec.containers[0].ports[2]: overlapping port definition with spec.containers[0].ports[1]",
                ],
            ),
            (
                json!({"containers": [], "imagePullSecrets": [{"name": ""}, {"name": "a"}, {"name": "a"}],
                    "hostAliases": [{"ip": "1.1.1.1"}, {"ip": "1.1.1.1"}], "terminationGracePeriodSeconds": -1}),
                vec![
                    "spec.hostAliases[1].ip: duplicate ip \"1.1.1.1\"",
                    "spec.imagePullSecrets[2].name: duplicate name \"a\"",
                    "spec.imagePullSecrets[0].name: invalid empty name \"\"",
                    "spec.terminationGracePeriodSeconds: must be >= 0; negative values are invalid and will be treated as 1",
                ],
            ),
            (
                json!({"containers": [], "topologySpreadConstraints": [
                    {"maxSkew": 1, "topologyKey": "failure-domain.beta.kubernetes.io/zone", "whenUnsatisfiable": "x"}],
                    "volumes": [{"name": "v", "rbd": {"monitors": [], "image": ""}}]}),
                vec![
                    "spec.topologySpreadConstraints[0].topologyKey: failure-domain.beta.kubernetes.io/zone is deprecated \
                     since v1.17; use \"topology.kubernetes.io/zone\" instead",
                    "spec.topologySpreadConstraints[0].labelSelector: a null labelSelector results in matching no pod",
                    "spec.volumes[0].rbd: deprecated in v1.28, non-functional in v1.31+",
                ],
            ),
            (
                json!({"containers": [], "volumes": [{"name": "v", "projected": {"sources": [
                    {"serviceAccountToken": {"path": "t"}},
                    {"secret": {"name": "s", "items": [{"key": "k", "path": "t"}]}}]}}]}),
                vec![
                    "spec.volumes[0].projected.sources.secrets[0]: has duplicated path with ServiceAccountToken \"t\"",
                ],
            ),
        ];
        for (spec, expected) in cases {
            assert_eq!(warnings(spec.clone(), json!({})), expected, "{spec}");
        }
    }

    #[test]
    fn annotations_that_do_nothing_are_named() {
        let spec = json!({"containers": [{"name": "a"}]});
        assert_eq!(
            warnings(
                spec,
                json!({"scheduler.alpha.kubernetes.io/critical-pod": "",
                "container.seccomp.security.alpha.kubernetes.io/a": ""})
            ),
            [
                "metadata.annotations[scheduler.alpha.kubernetes.io/critical-pod]: non-functional in v1.16+; use the \
                 \"priorityClassName\" field instead",
                "metadata.annotations[container.seccomp.security.alpha.kubernetes.io/a]: non-functional in v1.27+; use \
                 the \"seccompProfile\" field instead",
            ]
        );
    }
}
