//! Checks of pods and of the pod specs of every kind that has a template, as upstream's `pkg/apis/core/validation` does
//! them in v1.36 with its features as they are by default.

mod annotations;
mod containers;
mod env;
mod ephemeral;
mod handlers;
mod host;
mod identity;
mod mounts;
mod node_affinity;
mod ports;
mod projected;
mod resize;
mod resources;
mod scheduling;
mod security;
mod status;
mod systems;
mod update;
mod volumes;
mod windows;

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, PodTemplateSpec, SecurityContext, Volume};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::api::field::{FieldError, FieldErrors, Path};
use crate::registry::validation::{metadata, one_of};

pub use ephemeral::update as ephemeral_update;
pub use node_affinity::{selector as node_selector, term as node_term};
pub use resize::resize;
pub use resources::{
    Amounts, container_amounts, container_name, hold as hold_amount, is_extended, name_shape, overcommits,
};
pub use scheduling::tolerations;
pub use status::update as status_update;
pub use update::update;

const DNS_POLICIES: [&str; 4] = ["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"];
const RESTART_POLICIES: [&str; 3] = ["Always", "OnFailure", "Never"];
const PREEMPTION: [&str; 2] = ["PreemptLowerPriority", "Never"];

/// Whose spec is checked: some rules hold for pods and not for templates of pods.
#[derive(Clone, Copy)]
enum Owner<'a> {
    Pod(&'a ObjectMeta),
    Template,
}

impl Owner<'_> {
    fn is_pod(self) -> bool {
        matches!(self, Self::Pod(_))
    }

    /// The pod's name, as far as it is known.
    fn name(&self) -> Option<&str> {
        match self {
            Self::Pod(meta) => meta.name.as_deref().filter(|name| !name.is_empty()),
            Self::Template => None,
        }
    }
}

/// What containers of all sorts have in common.
struct Scope<'a> {
    spec: &'a PodSpec,
    /// The volumes that are as they should be: mounts of others are not found.
    volumes: Vec<&'a Volume>,
    claims: BTreeSet<&'a str>,
    owner: Owner<'a>,
}

impl Scope<'_> {
    fn volume(&self, name: &str) -> Option<&Volume> {
        self.volumes.iter().find(|volume| volume.name == name).copied()
    }

    /// The pod has its own users.
    fn own_users(&self) -> bool {
        self.spec.host_users == Some(false)
    }
}

/// What all sorts of containers share, with the place of each: init containers, containers, ephemeral containers.
struct Part<'a> {
    at: Path,
    name: &'a str,
    security: Option<&'a SecurityContext>,
    devices: bool,
}

fn parts<'a>(spec: &'a PodSpec, at: &Path) -> Vec<Part<'a>> {
    let own = |list: &'static str, i: usize, container: &'a Container| Part {
        at: at.child(list).index(i),
        name: &container.name,
        security: container.security_context.as_ref(),
        devices: container.volume_devices.as_ref().is_some_and(|devices| !devices.is_empty()),
    };
    let init = spec.init_containers.iter().flatten().enumerate();
    let init = init.map(|(i, container)| own("initContainers", i, container));
    let plain = spec.containers.iter().enumerate().map(|(i, container)| own("containers", i, container));
    let ephemeral = spec.ephemeral_containers.iter().flatten().enumerate().map(|(i, container)| Part {
        at: at.child("ephemeralContainers").index(i),
        name: &container.name,
        security: container.security_context.as_ref(),
        devices: container.volume_devices.as_ref().is_some_and(|devices| !devices.is_empty()),
    });
    init.chain(plain).chain(ephemeral).collect()
}

/// Checks a pod template: labels, annotations and the pod spec.
pub fn template(template: &PodTemplateSpec, at: &Path, errors: &mut FieldErrors) {
    let none = (ObjectMeta::default(), PodSpec::default());
    let meta = template.metadata.as_ref().unwrap_or(&none.0);
    let spec = template.spec.as_ref().unwrap_or(&none.1);
    if let Some(labels) = &meta.labels {
        metadata::validate_labels(labels, &at.child("labels"), errors);
    }
    if let Some(annotations) = &meta.annotations {
        metadata::validate_annotations(annotations, &at.child("annotations"), errors);
    }
    annotations::check(meta, spec, &at.child("annotations"), errors);
    pod_spec(spec, Owner::Template, &at.child("spec"), errors);
    annotations::agree(meta, spec, &at.child("spec"), errors);
    if spec.ephemeral_containers.as_ref().is_some_and(|list| !list.is_empty()) {
        let message = "ephemeral containers not allowed in pod template";
        errors.push(FieldError::forbidden(&at.child("spec").child("ephemeralContainers"), message));
    }
}

/// Checks a pod as it is, new or changed.
pub fn pod(pod: &Pod, errors: &mut FieldErrors) {
    let none = PodSpec::default();
    let (spec, at) = (pod.spec.as_ref().unwrap_or(&none), Path::new("spec"));
    annotations::check(&pod.metadata, spec, &Path::new("metadata").child("annotations"), errors);
    pod_spec(spec, Owner::Pod(&pod.metadata), &at, errors);
    if spec.service_account_name.as_deref().is_none_or(str::is_empty) {
        projected::no_tokens(spec, &at.child("volumes"), errors);
    }
    for (list, all) in [
        ("containers", spec.containers.as_slice()),
        ("initContainers", spec.init_containers.as_deref().unwrap_or_default()),
    ] {
        for (i, container) in all.iter().enumerate() {
            containers::trimmed(container.image.as_deref(), &at.child(list).index(i), errors);
        }
    }
}

/// Checks what holds for new pods only.
pub fn create(pod: &Pod, errors: &mut FieldErrors) {
    let none = PodSpec::default();
    let (spec, at) = (pod.spec.as_ref().unwrap_or(&none), Path::new("spec"));
    if spec.ephemeral_containers.as_ref().is_some_and(|list| !list.is_empty()) {
        errors.push(FieldError::forbidden(&at.child("ephemeralContainers"), "cannot be set on create"));
    }
    let gated = spec.scheduling_gates.as_ref().is_some_and(|gates| !gates.is_empty());
    if gated && spec.node_name.as_deref().is_some_and(|node| !node.is_empty()) {
        let message = "cannot be set until all schedulingGates have been cleared";
        errors.push(FieldError::forbidden(&at.child("nodeName"), message));
    }
    annotations::agree(&pod.metadata, spec, &at, errors);
}

fn pod_spec(spec: &PodSpec, owner: Owner<'_>, at: &Path, errors: &mut FieldErrors) {
    if spec.termination_grace_period_seconds.is_none() {
        errors.push(FieldError::required(&at.child("terminationGracePeriodSeconds"), ""));
    }
    let all = spec.volumes.as_deref().unwrap_or_default();
    let volumes = volumes::validate(all, owner.name(), &at.child("volumes"), errors);
    let claims = spec.resource_claims.iter().flatten().map(|claim| claim.name.as_str());
    let scope = Scope { spec, volumes, claims: claims.filter(|name| !name.is_empty()).collect(), owner };
    resources::pod_claims(spec, &at.child("resourceClaims"), errors);
    containers::validate(&scope, at, errors);
    ephemeral::validate(&scope, &at.child("ephemeralContainers"), errors);
    resources::pod(&scope, &at.child("resources"), errors);
    ports::host_network(spec, owner.is_pod(), at, errors);
    one_of(spec.restart_policy.as_deref(), &RESTART_POLICIES, &at.child("restartPolicy"), errors);
    one_of(spec.dns_policy.as_deref(), &DNS_POLICIES, &at.child("dnsPolicy"), errors);
    if let Some(selector) = &spec.node_selector {
        metadata::validate_labels(selector, &at.child("nodeSelector"), errors);
    }
    security::pod(spec, &at.child("securityContext"), errors);
    if let Some(affinity) = &spec.affinity {
        scheduling::affinity(affinity, &at.child("affinity"), errors);
    }
    identity::dns(spec, &at.child("dnsConfig"), errors);
    scheduling::gates(spec, at, errors);
    scheduling::spread(spec, &at.child("topologySpreadConstraints"), errors);
    windows::host_process(spec, at, errors);
    host::users(spec, at, errors);
    identity::hostname_override(spec, &at.child("hostnameOverride"), errors);
    identity::names(spec, at, errors);
    tolerations(spec.tolerations.as_deref().unwrap_or_default(), &at.child("tolerations"), errors);
    identity::host_aliases(spec, &at.child("hostAliases"), errors);
    identity::classes(spec, at, errors);
    if let Some(policy) = &spec.preemption_policy {
        one_of(Some(policy), &PREEMPTION, &at.child("preemptionPolicy"), errors);
    }
    resources::overhead(spec, &at.child("overhead"), errors);
    systems::validate(spec, at, errors);
    env::files(spec, at, errors);
}

#[cfg(test)]
mod tests;
