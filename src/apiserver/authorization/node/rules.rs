//! What every node may do, whatever pods it runs: upstream's fixed node rules.

use super::super::{Attributes, Decision};

const READ: &[&str] = &["get", "list", "watch"];
const EVENT: &[&str] = &["create", "patch", "update"];
const CREATE: &[&str] = &["create"];

/// Group, resource (with subresource) and verbs.
const RULES: &[(&str, &str, &[&str])] = &[
    ("", "services", READ),
    ("", "namespaces", &["get"]),
    ("", "events", EVENT),
    ("events.k8s.io", "events", EVENT),
    ("", "persistentvolumeclaims/status", &["get", "update", "patch"]),
    ("authentication.k8s.io", "tokenreviews", CREATE),
    ("authorization.k8s.io", "subjectaccessreviews", CREATE),
    ("authorization.k8s.io", "localsubjectaccessreviews", CREATE),
    ("certificates.k8s.io", "certificatesigningrequests", &["create", "get", "list", "watch"]),
    ("node.k8s.io", "runtimeclasses", READ),
    ("storage.k8s.io", "csidrivers", READ),
    (
        "resource.k8s.io",
        "resourceslices",
        &["get", "list", "watch", "create", "update", "patch", "delete", "deletecollection"],
    ),
];

/// Decides by the fixed rules.
pub(super) fn decide(attributes: &Attributes<'_>) -> Decision {
    let Some(r) = &attributes.resource else { return Decision::NoOpinion(String::new()) };
    let wanted = if r.subresource.is_empty() {
        r.resource.to_owned()
    } else {
        format!("{}/{}", r.resource, r.subresource)
    };
    let allowed = RULES.iter().any(|(group, resource, verbs)| {
        *group == r.group && *resource == wanted && verbs.contains(&attributes.verb)
    });
    if allowed { Decision::Allow(String::new()) } else { Decision::NoOpinion(String::new()) }
}
