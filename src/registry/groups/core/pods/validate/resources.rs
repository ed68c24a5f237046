//! Checks of resource requests and limits, of containers and of whole pods, and of the claims that they use.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{Container, PodSpec, ResourceClaim, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as RawQuantity;

use super::{Scope, annotations};
use crate::api::field::{FieldError, FieldErrors, Path};
use crate::api::names;
use crate::api::quantity::Quantity;
use crate::registry::validation::{NEGATIVE, each};

/// Amounts by the names of resources.
pub type Amounts = BTreeMap<String, RawQuantity>;

const STANDARD: &str = "must be a standard resource type or fully qualified";
const STANDARD_FOR_CONTAINERS: &str = "must be a standard resource for containers";
const HUGE: &str = "hugepages-";
const LONGEST_EXTENDED: usize = 247;

/// Names without a prefix that mean something to Kubernetes.
const STANDARD_NAMES: [&str; 20] = [
    "cpu",
    "memory",
    "ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "configmaps",
    "persistentvolumeclaims",
    "storage",
    "requests.storage",
    "services.nodeports",
    "services.loadbalancers",
];

fn parse(amounts: Option<&Amounts>, name: &str) -> Option<Quantity> {
    amounts?.get(name).and_then(|raw| Quantity::parse(&raw.0).ok())
}

fn is_native(name: &str) -> bool {
    !name.contains('/') || name.contains("kubernetes.io/")
}

/// Whether less may be requested than is allowed.
pub fn overcommits(name: &str) -> bool {
    is_native(name) && !name.starts_with(HUGE)
}

/// Whether the name is one of an extended resource.
pub fn is_extended(name: &str) -> bool {
    !is_native(name)
        && !name.starts_with("requests.")
        && names::is_qualified_name(&format!("requests.{name}")).is_empty()
        && name.len() <= LONGEST_EXTENDED
}

/// Checks the name of a resource of any sort; whether it is well formed.
pub fn name_shape(name: &str, at: &Path, errors: &mut FieldErrors) -> bool {
    let messages = names::is_qualified_name(name);
    let fine = messages.is_empty();
    each(messages, name, at, errors);
    let huge = name.strip_prefix("requests.").unwrap_or(name).starts_with(HUGE);
    let known = STANDARD_NAMES.contains(&name) || huge;
    if fine && !name.contains('/') && !known {
        errors.push(FieldError::invalid(at, name, STANDARD));
        return false;
    }
    fine
}

/// Checks the name of a resource that containers use.
pub fn container_name(name: &str, at: &Path, errors: &mut FieldErrors) {
    name_shape(name, at, errors);
    let standard = matches!(name, "cpu" | "memory" | "ephemeral-storage") || name.starts_with(HUGE);
    if !name.contains('/') && !standard {
        errors.push(FieldError::invalid(at, name, STANDARD_FOR_CONTAINERS));
    } else if !is_native(name) && !is_extended(name) {
        errors.push(FieldError::invalid(at, name, "doesn't follow extended resource name standard"));
    }
}

fn pod_name(name: &str, at: &Path, errors: &mut FieldErrors) {
    if name_shape(name, at, errors) && !is_of_pods(name) {
        errors.push(FieldError::not_supported(at, name, &["cpu", HUGE, "memory"]));
    }
}

fn is_of_pods(name: &str) -> bool {
    matches!(name, "cpu" | "memory") || name.starts_with(HUGE)
}

/// Checks that an amount is not negative, and whole where parts mean nothing.
pub fn hold(name: &str, raw: &RawQuantity, at: &Path, errors: &mut FieldErrors) {
    let Ok(amount) = Quantity::parse(&raw.0) else { return };
    if amount.sign().is_lt() {
        errors.push(FieldError::invalid(at, amount.to_string(), NEGATIVE));
    }
    let whole = is_extended(name)
        || matches!(
            name,
            "pods"
                | "resourcequotas"
                | "services"
                | "replicationcontrollers"
                | "secrets"
                | "configmaps"
                | "persistentvolumeclaims"
                | "services.nodeports"
                | "services.loadbalancers"
        );
    if whole && amount.milli_value() % 1000 != 0 {
        errors.push(FieldError::invalid(at, amount.to_string(), "must be an integer"));
    }
}

/// Huge pages come in whole pages.
fn huge_pages(name: &str, raw: &RawQuantity, at: &Path, errors: &mut FieldErrors) {
    let Some(size) = name.strip_prefix(HUGE) else { return };
    let (Ok(amount), Ok(page)) = (Quantity::parse(&raw.0), Quantity::parse(size)) else {
        return;
    };
    let (amount_value, page_value) = (amount.value(), page.value());
    let divides = page_value > 0 && amount_value % page_value == 0 && amount.milli_value() % 1000 == 0;
    if page_value <= 0 || !divides {
        let message = format!("{amount} is not positive integer multiple of {name}");
        errors.push(FieldError::invalid(at, amount.to_string(), message));
    }
}

type NameRule = fn(&str, &Path, &mut FieldErrors);

fn requirements(
    limits: Option<&Amounts>,
    requests: Option<&Amounts>,
    rule: NameRule,
    at: &Path,
    errors: &mut FieldErrors,
) {
    let (at_limits, at_requests) = (at.child("limits"), at.child("requests"));
    for (name, raw) in limits.into_iter().flatten() {
        let at = at_limits.key(name.clone());
        rule(name, &at, errors);
        hold(name, raw, &at, errors);
        huge_pages(name, raw, &at, errors);
    }
    for (name, raw) in requests.into_iter().flatten() {
        let at = at_requests.key(name.clone());
        rule(name, &at, errors);
        hold(name, raw, &at, errors);
        within_limit(name, raw, limits, &at_requests, &at_limits, errors);
        huge_pages(name, raw, &at, errors);
    }
    let all = || limits.into_iter().chain(requests).flat_map(BTreeMap::keys);
    if all().any(|name| name.starts_with(HUGE)) && !all().any(|name| name == "cpu" || name == "memory") {
        errors.push(FieldError::forbidden(at, "HugePages require cpu or memory"));
    }
}

fn within_limit(
    name: &str,
    raw: &RawQuantity,
    limits: Option<&Amounts>,
    at: &Path,
    at_limits: &Path,
    errors: &mut FieldErrors,
) {
    let Ok(request) = Quantity::parse(&raw.0) else { return };
    let Some(limit) = parse(limits, name) else {
        if !overcommits(name) {
            let message = "Limit must be set for non overcommitable resources";
            errors.push(FieldError::required(at_limits, message));
        }
        return;
    };
    if !overcommits(name) && request != limit {
        let message = format!("must be equal to {name} limit of {limit}");
        errors.push(FieldError::invalid(at, request.to_string(), message));
    } else if request > limit {
        let message = format!("must be less than or equal to {name} limit of {limit}");
        errors.push(FieldError::invalid(at, request.to_string(), message));
    }
}

/// Checks amounts as those of a container, such as an overhead.
pub fn container_amounts(limits: &Amounts, at: &Path, errors: &mut FieldErrors) {
    requirements(Some(limits), None, container_name, at, errors);
}

/// Checks what a container asks for.
pub(super) fn container(
    own: &ResourceRequirements,
    claims: &BTreeSet<&str>,
    at: &Path,
    errors: &mut FieldErrors,
) {
    requirements(own.limits.as_ref(), own.requests.as_ref(), container_name, at, errors);
    used_claims(own.claims.as_deref().unwrap_or_default(), claims, &at.child("claims"), errors);
}

fn used_claims(used: &[ResourceClaim], claims: &BTreeSet<&str>, at: &Path, errors: &mut FieldErrors) {
    let mut seen: BTreeSet<String> = BTreeSet::new();
    for (i, claim) in used.iter().enumerate() {
        let (at, name) = (at.index(i), claim.name.as_str());
        if name.is_empty() {
            errors.push(FieldError::required(&at, ""));
            continue;
        }
        let request = claim.request.as_deref().filter(|request| !request.is_empty());
        if let Some(request) = request.filter(|_| !seen.contains(name)) {
            each(names::is_dns1123_label(request), request, &at.child("request"), errors);
        }
        let key = request.map_or(name.to_owned(), |request| format!("{name}/{request}"));
        if seen.contains(name) {
            errors.push(FieldError::duplicate(&at, name));
        } else if seen.contains(&key) {
            errors.push(FieldError::duplicate(&at, &key));
        } else if request.is_none() {
            let parts = seen.iter().filter(|key| key.split_once('/').is_some_and(|(own, _)| own == name));
            parts.for_each(|_| errors.push(FieldError::duplicate(&at, name)));
        }
        seen.insert(key);
        if !claims.contains(name) {
            let mut error = FieldError::not_found(&at, name);
            let list: Vec<&str> = claims.iter().copied().collect();
            error.detail = match list.as_slice() {
                [] => "must be one of the names in pod.spec.resourceClaims which is empty".into(),
                list => {
                    format!("must be one of the names in pod.spec.resourceClaims: {}", list.join(", "))
                }
            };
            errors.push(error);
        }
    }
}

/// Checks a pod's claims.
pub(super) fn pod_claims(spec: &PodSpec, at: &Path, errors: &mut FieldErrors) {
    let mut seen = BTreeSet::new();
    for (i, claim) in spec.resource_claims.iter().flatten().enumerate() {
        let at = at.index(i);
        match claim.name.as_str() {
            "" => errors.push(FieldError::required(&at.child("name"), "")),
            name if !seen.insert(name) => errors.push(FieldError::duplicate(&at.child("name"), name)),
            name => each(names::is_dns1123_label(name), name, &at.child("name"), errors),
        }
        let named = [
            ("resourceClaimName", &claim.resource_claim_name),
            ("resourceClaimTemplateName", &claim.resource_claim_template_name),
        ];
        match named.iter().filter(|(_, name)| name.is_some()).count() {
            0 => {
                let message = "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`";
                errors.push(FieldError::invalid(&at, claim, message));
            }
            1 => {}
            _ => {
                let message =
                    "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified";
                errors.push(FieldError::invalid(&at, claim, message));
            }
        }
        for (field, name) in named {
            if let Some(name) = name {
                each(names::is_dns1123_subdomain(name), name, &at.child(field), errors);
            }
        }
    }
}

/// Checks what a pod asks for as a whole, and that its containers fit in.
pub(super) fn pod(scope: &Scope<'_>, at: &Path, errors: &mut FieldErrors) {
    let spec = scope.spec;
    if let super::Owner::Pod(meta) = scope.owner
        && spec.resource_claims.as_ref().is_some_and(|claims| !claims.is_empty())
        && meta.annotations.iter().flatten().any(|(key, _)| key == annotations::MIRROR)
    {
        let message = "static pods do not support resource claims";
        errors.push(FieldError::forbidden(&Path::new(""), message));
    }
    let Some(own) = &spec.resources else { return };
    if spec.os.as_ref().is_some_and(|os| os.name == "windows") {
        errors.push(FieldError::forbidden(at, "may not be set for a windows pod"));
        return;
    }
    if own.claims.is_some() {
        let message = "claims may not be set for Resources at pod-level";
        errors.push(FieldError::forbidden(&at.child("claims"), message));
    }
    let (limits, requests) = (own.limits.as_ref(), own.requests.as_ref());
    requirements(limits, requests, pod_name, at, errors);
    for (name, sum) in aggregate(spec, |own| own.requests.as_ref()) {
        if let Some(amount) = parse(requests, &name).filter(|amount| sum > *amount) {
            let message = format!("must be greater than or equal to aggregate container requests of {sum}");
            errors.push(FieldError::invalid(&at.child("requests").key(name), amount.to_string(), message));
        }
    }
    for (name, sum) in aggregate(spec, |own| own.limits.as_ref()) {
        if let Some(amount) = parse(limits, &name).filter(|amount| name.starts_with(HUGE) && sum > *amount) {
            let message = format!("must be greater than or equal to aggregate container limits of {sum}");
            errors.push(FieldError::invalid(&at.child("limits").key(name), amount.to_string(), message));
        }
    }
    for (i, container) in spec.containers.iter().enumerate() {
        let own = container.resources.as_ref().and_then(|own| own.limits.as_ref());
        for name in own.into_iter().flat_map(BTreeMap::keys) {
            let (Some(limit), Some(most)) = (parse(own, name), parse(limits, name)) else { continue };
            if limit > most {
                let at = at.child("containers").index(i).key(name.clone()).child("limits");
                let message = format!("must be less than or equal to pod limits of {most}");
                errors.push(FieldError::invalid(&at, limit.to_string(), message));
            }
        }
    }
}

/// What the containers of a pod need at most at one time: all of them with the sidecars, or an init container with the
/// sidecars before it.
fn aggregate<'a>(
    spec: &'a PodSpec,
    amounts: impl Fn(&'a ResourceRequirements) -> Option<&'a Amounts>,
) -> BTreeMap<String, Quantity> {
    let of = |container: &'a Container| {
        let own = container.resources.as_ref().and_then(&amounts);
        own.into_iter()
            .flatten()
            .filter_map(|(name, raw)| Some((name.clone(), Quantity::parse(&raw.0).ok()?)))
    };
    let add = |sum: &mut BTreeMap<String, Quantity>, name: String, amount: Quantity| {
        let total = sum.get(&name).map_or(amount, |sum| sum.add(&amount));
        sum.insert(name, total);
    };
    let (mut sidecars, mut most) = (BTreeMap::new(), BTreeMap::<String, Quantity>::new());
    for container in spec.init_containers.iter().flatten() {
        let mut now = sidecars.clone();
        of(container).for_each(|(name, amount)| add(&mut now, name, amount));
        if container.restart_policy.as_deref() == Some("Always") {
            sidecars.clone_from(&now);
        }
        for (name, amount) in now {
            if most.get(&name).is_none_or(|most| *most < amount) {
                most.insert(name, amount);
            }
        }
    }
    let mut all = sidecars;
    for container in &spec.containers {
        of(container).for_each(|(name, amount)| add(&mut all, name, amount));
    }
    for (name, amount) in all {
        if most.get(&name).is_none_or(|most| *most < amount) {
            most.insert(name, amount);
        }
    }
    most
}

/// Checks what running the pod costs besides.
pub(super) fn overhead(spec: &PodSpec, at: &Path, errors: &mut FieldErrors) {
    if let Some(overhead) = &spec.overhead {
        container_amounts(overhead, at, errors);
    }
}
