//! What a pod's status may say.

use std::collections::BTreeSet;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Container, ContainerStatus, Pod, PodSpec, PodStatus};

use super::{annotations, security};
use crate::api::field::{FieldError, FieldErrors, Path};
use crate::api::names;
use crate::registry::validation::{IMMUTABLE, each, text};

const HEALTH: [&str; 3] = ["Healthy", "Unhealthy", "Unknown"];
const NOT_NEGATIVE: &str = "must be a non-negative integer";

/// Checks a change of a pod's status.
pub fn update(new: &Pod, old: &Pod, errors: &mut FieldErrors) {
    annotations::update(&new.metadata, &old.metadata, errors);
    let none = (PodSpec::default(), PodStatus::default(), PodStatus::default());
    let spec = old.spec.as_ref().unwrap_or(&none.0);
    let status = new.status.as_ref().unwrap_or(&none.1);
    let was = old.status.as_ref().unwrap_or(&none.2);
    let at = Path::new("status");
    conditions(status, &at.child("conditions"), errors);
    nominated(status, was, spec, &at.child("nominatedNodeName"), errors);
    if let Some(number) = status.observed_generation.filter(|number| *number < 0) {
        errors.push(FieldError::invalid(&at.child("observedGeneration"), number, NOT_NEGATIVE));
    }
    if status.qos_class != was.qos_class {
        errors.push(FieldError::invalid(&at.child("qosClass"), text(&status.qos_class), IMMUTABLE));
    }
    transitions(status, was, spec, &at, errors);
    claims(status, spec, &at.child("resourceClaimStatuses"), errors);
    addresses(status, was, &at, errors);
    containers(status, spec, &at, errors);
}

fn conditions(status: &PodStatus, at: &Path, errors: &mut FieldErrors) {
    for (i, condition) in status.conditions.iter().flatten().enumerate() {
        let (at, kind) = (at.index(i), condition.type_.as_str());
        if let Some(number) = condition.observed_generation.filter(|number| *number < 0) {
            errors.push(FieldError::invalid(&at.child("observedGeneration"), number, NOT_NEGATIVE));
        }
        if !matches!(kind, "PodScheduled" | "Ready" | "Initialized") {
            each(names::is_qualified_name(kind), kind, &at.child("Type"), errors);
        }
    }
}

fn nominated(status: &PodStatus, was: &PodStatus, spec: &PodSpec, at: &Path, errors: &mut FieldErrors) {
    let (node, before) = (text(&status.nominated_node_name), text(&was.nominated_node_name));
    if node.is_empty() || node == before {
        return;
    }
    each(names::is_dns1123_subdomain(node), node, at, errors);
    if !text(&spec.node_name).is_empty() {
        let message = "may not be set on pods that are already bound to a node";
        errors.push(FieldError::forbidden(at, message));
    }
}

type Statuses = Option<Vec<ContainerStatus>>;

/// What ended stays ended, unless it is started again.
fn transitions(status: &PodStatus, was: &PodStatus, spec: &PodSpec, at: &Path, errors: &mut FieldErrors) {
    let all = || spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let restarts_all = all()
        .flat_map(|container| container.restart_policy_rules.iter().flatten())
        .any(|rule| rule.action == "RestartAllContainers");
    if !restarts_all {
        let again = |container: Option<&Container>, code| {
            container.is_some_and(|container| restarts(container, spec, code))
        };
        let plain = |name: &str, code| again(spec.containers.iter().find(|own| own.name == name), code);
        let init = |name: &str, code| {
            again(spec.init_containers.iter().flatten().find(|own| own.name == name), code)
        };
        let at_plain = at.child("containerStatuses");
        ended(&status.container_statuses, &was.container_statuses, plain, &at_plain, errors);
        let at_init = at.child("initContainerStatuses");
        ended(&status.init_container_statuses, &was.init_container_statuses, init, &at_init, errors);
    }
    let (now, then) = (&status.ephemeral_container_statuses, &was.ephemeral_container_statuses);
    ended(now, then, |_, _| false, &at.child("ephemeralContainerStatuses"), errors);
}

/// Whether a container that ended so is started again: by its rules, its own policy or its pod's.
fn restarts(container: &Container, spec: &PodSpec, code: i32) -> bool {
    for rule in container.restart_policy_rules.iter().flatten() {
        let Some(codes) = rule.exit_codes.as_ref().filter(|_| rule.action == "Restart") else { continue };
        let named = codes.values.iter().flatten().any(|value| *value == code);
        if (codes.operator == "In" && named) || (codes.operator == "NotIn" && !named) {
            return true;
        }
    }
    match container.restart_policy.as_deref().or(spec.restart_policy.as_deref()) {
        Some("Always") => true,
        Some("OnFailure") => code != 0,
        _ => false,
    }
}

fn ended(
    now: &Statuses,
    was: &Statuses,
    again: impl Fn(&str, i32) -> bool,
    at: &Path,
    errors: &mut FieldErrors,
) {
    let over = |status: &ContainerStatus| status.state.as_ref().and_then(|state| state.terminated.clone());
    for (i, old) in was.iter().flatten().enumerate() {
        let Some(end) = over(old) else { continue };
        let new = now.iter().flatten().find(|status| status.name == old.name);
        if new.is_some_and(|new| over(new).is_none()) && !again(&old.name, end.exit_code) {
            let message = "may not be transitioned to non-terminated state";
            errors.push(FieldError::forbidden(&at.index(i).child("state"), message));
        }
    }
}

fn claims(status: &PodStatus, spec: &PodSpec, at: &Path, errors: &mut FieldErrors) {
    let mut seen = BTreeSet::new();
    for (i, claim) in status.resource_claim_statuses.iter().flatten().enumerate() {
        let (at, name) = (at.index(i), claim.name.as_str());
        if !spec.resource_claims.iter().flatten().any(|own| own.name == name) {
            let message = "must match the name of an entry in `spec.resourceClaims`";
            errors.push(FieldError::invalid(&at.child("name"), name, message));
        }
        if !seen.insert(name) {
            errors.push(FieldError::duplicate(&at.child("name"), name));
        }
        if let Some(claim) = &claim.resource_claim_name {
            each(names::is_dns1123_subdomain(claim), claim, &at.child("resourceClaimName"), errors);
        }
    }
}

fn addresses(status: &PodStatus, was: &PodStatus, at: &Path, errors: &mut FieldErrors) {
    let pod: Vec<&str> = status.pod_ips.iter().flatten().map(|own| own.ip.as_str()).collect();
    let pod_was: Vec<&str> = was.pod_ips.iter().flatten().map(|own| own.ip.as_str()).collect();
    let host: Vec<&str> = status.host_ips.iter().flatten().map(|own| own.ip.as_str()).collect();
    let host_was: Vec<&str> = was.host_ips.iter().flatten().map(|own| own.ip.as_str()).collect();
    let shown = serde_json::json!(status.pod_ips);
    families(&pod, &pod_was, shown, &at.child("podIPs"), errors);
    let at = at.child("hostIPs");
    if let Some(first) = host.first().filter(|first| **first != text(&status.host_ip)) {
        errors.push(FieldError::invalid(&at.index(0).child("ip"), first, "must be equal to `hostIP`"));
    }
    families(&host, &host_was, serde_json::json!(status.host_ips), &at, errors);
}

/// Addresses, at most one of each family.
fn families(ips: &[&str], was: &[&str], shown: serde_json::Value, at: &Path, errors: &mut FieldErrors) {
    for (i, ip) in ips.iter().enumerate().filter(|(_, ip)| !was.contains(ip)) {
        each(names::is_ip(ip), ip, &at.index(i), errors);
    }
    let parsed: Vec<IpAddr> = ips.iter().filter_map(|ip| ip.parse().ok()).collect();
    let dual = parsed.iter().any(IpAddr::is_ipv4) && parsed.iter().any(IpAddr::is_ipv6);
    if ips.len() > 1 && (!dual || ips.len() > 2) {
        let message = "may specify no more than one IP for each IP family";
        errors.push(FieldError::invalid(at, shown, message));
    }
}

fn containers(status: &PodStatus, spec: &PodSpec, at: &Path, errors: &mut FieldErrors) {
    let windows = spec.os.as_ref().is_some_and(|os| os.name == "windows");
    let init = spec.init_containers.as_deref().unwrap_or_default();
    let lists = [
        ("containerStatuses", &status.container_statuses, Some(spec.containers.as_slice())),
        ("initContainerStatuses", &status.init_container_statuses, Some(init)),
        ("ephemeralContainerStatuses", &status.ephemeral_container_statuses, None),
    ];
    for (field, statuses, own) in lists {
        for (i, status) in statuses.iter().flatten().enumerate() {
            let at = at.child(field).index(i);
            if let Some(user) = status.user.as_ref().and_then(|user| user.linux.as_ref()) {
                let at = at.child("user").child("linux");
                if windows {
                    errors.push(FieldError::forbidden(&at, "cannot be set for a windows pod"));
                } else {
                    security::id(Some(user.uid), &at.child("uid"), errors);
                    security::id(Some(user.gid), &at.child("gid"), errors);
                    for (i, group) in user.supplemental_groups.iter().flatten().enumerate() {
                        security::id(Some(*group), &at.child("supplementalGroups").index(i), errors);
                    }
                }
            }
            let at = at.child("allocatedResourcesStatus");
            match own {
                None if status.allocated_resources_status.as_ref().is_some_and(|list| !list.is_empty()) => {
                    errors.push(FieldError::forbidden(&at, "must not be specified in container status"));
                }
                None => {}
                Some(own) => {
                    allocated(status, own.iter().find(|own| own.name == status.name), &at, errors);
                }
            }
        }
    }
}

fn allocated(status: &ContainerStatus, own: Option<&Container>, at: &Path, errors: &mut FieldErrors) {
    for (i, device) in status.allocated_resources_status.iter().flatten().enumerate() {
        let at = at.index(i);
        let resources = own.and_then(|own| own.resources.as_ref());
        let (known, message) = if device.name.starts_with("claim:") {
            let claims = resources.iter().flat_map(|own| own.claims.iter().flatten());
            let mut names = claims.map(|claim| match claim.request.as_deref().unwrap_or_default() {
                "" => format!("claim:{}", claim.name),
                request => format!("claim:{}/{request}", claim.name),
            });
            let message = "must match one of the container's resource claims in a format \
                           'claim:<claimName>/<request>' or 'claim:<claimName>' if request is empty";
            (names.any(|name| name == device.name), message)
        } else {
            let mut requests = resources.iter().flat_map(|own| own.requests.iter().flatten());
            let message = "must match one of the container's resource requests";
            (requests.any(|(name, _)| *name == device.name), message)
        };
        if own.is_some() && !known {
            errors.push(FieldError::invalid(&at.child("name"), &device.name, message));
        }
        let mut seen = BTreeSet::new();
        for (j, health) in device.resources.iter().flatten().enumerate() {
            let at = at.child("resources").index(j);
            let state = health.health.as_deref().unwrap_or_default();
            crate::registry::validation::known(Some(state), &HEALTH, &at.child("health"), errors);
            if !seen.insert(&health.resource_id) {
                errors.push(FieldError::duplicate(&at.child("resourceID"), &health.resource_id));
            }
        }
    }
}
