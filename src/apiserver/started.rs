//! What the server does once at its start, as checks of readiness under upstream's names.
//!
//! Each looks for what the step leaves behind, and once found it counts as done for good: what people remove later is
//! no reason to get no requests.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use super::health::{Asked, Checks};
use crate::registry::Registry;

/// A step: its name, and the group, plural, namespace and name of an object that it makes.
type Step = (&'static str, [&'static str; 4]);

const STEPS: [Step; 8] = [
    (
        "poststarthook/rbac/bootstrap-roles",
        ["rbac.authorization.k8s.io", "clusterroles", "", "cluster-admin"],
    ),
    (
        "poststarthook/scheduling/bootstrap-system-priority-classes",
        ["scheduling.k8s.io", "priorityclasses", "", "system-node-critical"],
    ),
    (
        "poststarthook/priority-and-fairness-config-producer",
        ["flowcontrol.apiserver.k8s.io", "flowschemas", "", "exempt"],
    ),
    ("poststarthook/start-system-namespaces-controller", ["", "namespaces", "", "kube-system"]),
    ("poststarthook/bootstrap-controller", ["", "services", "default", "kubernetes"]),
    (
        "poststarthook/start-kubernetes-service-cidr-controller",
        ["networking.k8s.io", "servicecidrs", "", "kubernetes"],
    ),
    (
        "poststarthook/start-cluster-authentication-info-controller",
        ["", "configmaps", "kube-system", "extension-apiserver-authentication"],
    ),
    ("autoregister-completion", ["apiregistration.k8s.io", "apiservices", "", "v1."]),
];

/// Adds every step to the checks.
pub(super) fn add(checks: &Checks, registry: &Arc<Registry>) {
    for (step, object) in STEPS {
        let (registry, done) = (Arc::downgrade(registry), AtomicBool::new(false));
        checks.add(step, Asked::ForReadiness, move || {
            if done.load(Ordering::Relaxed) {
                return Ok(());
            }
            let found = is_there(&registry, object);
            done.store(found, Ordering::Relaxed);
            if found { Ok(()) } else { Err("not finished".to_owned()) }
        });
    }
}

fn is_there(registry: &Weak<Registry>, [group, plural, namespace, name]: [&str; 4]) -> bool {
    // A server that goes away is not asked to begin again.
    let Some(registry) = registry.upgrade() else { return true };
    let row = registry.catalog().by_plural(group, "v1", plural);
    let cache = row.and_then(|row| registry.cached(row));
    cache.is_some_and(|cache| cache.get(namespace, name).is_some())
}
