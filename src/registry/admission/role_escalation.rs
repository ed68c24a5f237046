//! RBAC's escalation checks: nobody grants what they do not hold, unless they may `escalate` or `bind`.

use async_trait::async_trait;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, RoleRef};

use super::{Operation, Plugin, Request};
use crate::api::error::ApiError;
use crate::registry::object::Object;

const GROUP: &str = "rbac.authorization.k8s.io";

pub(super) struct RoleEscalation;

#[async_trait]
impl Plugin for RoleEscalation {
    async fn validate(
        &self,
        request: &Request<'_>,
        object: Option<&dyn Object>,
        old: Option<&dyn Object>,
    ) -> Result<(), ApiError> {
        let (Some(object), true) = (object, request.resource.group == GROUP) else { return Ok(()) };
        if request.operation == Operation::Delete {
            return Ok(());
        }
        if request.resource.plural.ends_with("roles") {
            let new = rules(object);
            let aggregated =
                object.downcast_ref::<ClusterRole>().is_some_and(|role| role.aggregation_rule.is_some());
            let unchanged = old.is_some_and(|old| rules(old) == new) && !aggregated;
            return if unchanged { Ok(()) } else { may_hold(request, object, "escalate", new, aggregated) };
        }
        let Some(role) = role_ref(object) else { return Ok(()) };
        let unchanged =
            old.is_some_and(|old| subjects(old) == subjects(object) && role_ref(old) == Some(role));
        if unchanged { Ok(()) } else { may_bind(request, object, role) }
    }
}

fn rules(object: &dyn Object) -> Vec<PolicyRule> {
    let cluster = object.downcast_ref::<ClusterRole>().and_then(|role| role.rules.clone());
    cluster.or_else(|| object.downcast_ref::<Role>().and_then(|role| role.rules.clone())).unwrap_or_default()
}

fn role_ref(object: &dyn Object) -> Option<&RoleRef> {
    let cluster = object.downcast_ref::<ClusterRoleBinding>().map(|binding| &binding.role_ref);
    cluster.or_else(|| object.downcast_ref::<RoleBinding>().map(|binding| &binding.role_ref))
}

fn subjects(object: &dyn Object) -> Option<&Vec<k8s_openapi::api::rbac::v1::Subject>> {
    let cluster = object.downcast_ref::<ClusterRoleBinding>().and_then(|binding| binding.subjects.as_ref());
    cluster.or_else(|| object.downcast_ref::<RoleBinding>().and_then(|binding| binding.subjects.as_ref()))
}

fn may_hold(
    request: &Request<'_>,
    object: &dyn Object,
    verb: &str,
    rules: Vec<PolicyRule>,
    everything: bool,
) -> Result<(), ApiError> {
    let Some(check) = request.registry.bind_check() else { return Ok(()) };
    let user = &request.cx.user;
    let name = object.meta().name.as_deref().unwrap_or_default();
    if check.allowed(user, verb, GROUP, &request.resource.plural, request.namespace, name) {
        return Ok(());
    }
    // Who makes an aggregated role decides about rules to come, so must hold everything.
    let all = PolicyRule {
        api_groups: Some(vec!["*".into()]),
        resources: Some(vec!["*".into()]),
        verbs: vec!["*".into()],
        ..Default::default()
    };
    let wanted = if everything { vec![all] } else { rules };
    refuse(request, name, &check.missing_rules(user, request.namespace, &wanted))
}

fn may_bind(request: &Request<'_>, object: &dyn Object, role: &RoleRef) -> Result<(), ApiError> {
    let Some(check) = request.registry.bind_check() else { return Ok(()) };
    let user = &request.cx.user;
    let plural = if role.kind == "Role" { "roles" } else { "clusterroles" };
    if check.allowed(user, "bind", GROUP, plural, request.namespace, &role.name) {
        return Ok(());
    }
    let rules = check.rules_of(request.namespace, role);
    let name = object.meta().name.as_deref().unwrap_or_default();
    refuse(request, name, &check.missing_rules(user, request.namespace, &rules))
}

fn refuse(request: &Request<'_>, name: &str, missing: &[PolicyRule]) -> Result<(), ApiError> {
    if missing.is_empty() {
        return Ok(());
    }
    let user = &request.cx.user;
    let rules: Vec<String> = missing.iter().map(compact).collect();
    let groups: Vec<String> = user.groups.iter().map(|group| format!("{group:?}")).collect();
    let why = format!(
        "user {:?} (groups=[{}]) is attempting to grant RBAC permissions not currently held:\n{}",
        user.name,
        groups.join(" "),
        rules.join("\n")
    );
    Err(ApiError::forbidden(&request.resource.group_resource(), name, why))
}

fn compact(rule: &PolicyRule) -> String {
    let list = |name: &str, items: Option<&Vec<String>>| {
        let items = items.filter(|items| !items.is_empty())?;
        let quoted: Vec<String> = items.iter().map(|item| format!("{item:?}")).collect();
        Some(format!("{name}:[{}]", quoted.join(" ")))
    };
    let parts = [
        list("APIGroups", rule.api_groups.as_ref()),
        list("Resources", rule.resources.as_ref()),
        list("ResourceNames", rule.resource_names.as_ref()),
        list("NonResourceURLs", rule.non_resource_urls.as_ref()),
        list("Verbs", Some(&rule.verbs)),
    ];
    format!("{{{}}}", parts.into_iter().flatten().collect::<Vec<_>>().join(", "))
}
