//! `rbac.authorization.k8s.io`.

use k8s_openapi::api::rbac::v1::{
    ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, RoleRef, Subject,
};
use k8s_openapi::jiff::Timestamp;
use serde_json::Value;

use crate::api::field::{FieldError, FieldErrors, Path};
use crate::api::names;
use crate::registry::resource::{NameRule, Resource};
use crate::registry::strategy::Strategy;
use crate::registry::table::{AGE, Column, NAME, age_cell, column, name_cell, wide};
use crate::registry::validation::each;

const GROUP: &str = "rbac.authorization.k8s.io";

const BINDING_COLUMNS: &[Column] = &[
    NAME,
    column("Role", "string", "The role that is granted."),
    AGE,
    wide("Users", "string", "Users who are granted the role."),
    wide("Groups", "string", "Groups that are granted the role."),
    wide("ServiceAccounts", "string", "Service accounts that are granted the role."),
];

/// The rows.
pub fn rows() -> Vec<Resource> {
    let rows = [
        Resource::of(ClusterRoleBindings).columns(BINDING_COLUMNS),
        Resource::of(ClusterRoles),
        Resource::of(RoleBindings).columns(BINDING_COLUMNS),
        Resource::of(Roles),
    ];
    rows.into_iter().map(|row| row.names(NameRule::PathSegment).create_on_update()).collect()
}

struct ClusterRoles;
struct Roles;
struct ClusterRoleBindings;
struct RoleBindings;

impl Strategy for ClusterRoles {
    type Object = ClusterRole;

    fn validate(&self, role: &ClusterRole, errors: &mut FieldErrors) {
        rules(role.rules.as_deref(), false, errors);
        let selectors = role.aggregation_rule.as_ref().map(|rule| rule.cluster_role_selectors.as_deref());
        if selectors.is_some_and(|selectors| selectors.is_none_or(<[_]>::is_empty)) {
            let at = Path::new("aggregationRule").child("clusterRoleSelectors");
            errors.push(FieldError::required(
                &at,
                "at least one clusterRoleSelector required if aggregationRule is non-nil",
            ));
        }
    }
}

impl Strategy for Roles {
    type Object = Role;

    fn validate(&self, role: &Role, errors: &mut FieldErrors) {
        rules(role.rules.as_deref(), true, errors);
    }
}

impl Strategy for ClusterRoleBindings {
    type Object = ClusterRoleBinding;

    fn default(&self, binding: &mut ClusterRoleBinding) {
        default_role(&mut binding.role_ref);
        binding.subjects.iter_mut().flatten().for_each(default_subject);
    }

    fn validate(&self, binding: &ClusterRoleBinding, errors: &mut FieldErrors) {
        role_ref(&binding.role_ref, &["ClusterRole"], errors);
        subjects(binding.subjects.as_deref(), true, errors);
    }

    fn validate_update(
        &self,
        binding: &ClusterRoleBinding,
        old: &ClusterRoleBinding,
        errors: &mut FieldErrors,
    ) {
        same_role(&binding.role_ref, &old.role_ref, errors);
    }

    fn cells(&self, binding: &ClusterRoleBinding, now: Timestamp) -> Vec<Value> {
        let mut cells = vec![
            name_cell(&binding.metadata),
            role_text(&binding.role_ref),
            age_cell(&binding.metadata, now),
        ];
        cells.extend(who(binding.subjects.as_deref()));
        cells
    }
}

impl Strategy for RoleBindings {
    type Object = RoleBinding;

    fn default(&self, binding: &mut RoleBinding) {
        default_role(&mut binding.role_ref);
        binding.subjects.iter_mut().flatten().for_each(default_subject);
    }

    fn validate(&self, binding: &RoleBinding, errors: &mut FieldErrors) {
        role_ref(&binding.role_ref, &["Role", "ClusterRole"], errors);
        subjects(binding.subjects.as_deref(), false, errors);
    }

    fn validate_update(&self, binding: &RoleBinding, old: &RoleBinding, errors: &mut FieldErrors) {
        same_role(&binding.role_ref, &old.role_ref, errors);
    }

    fn cells(&self, binding: &RoleBinding, now: Timestamp) -> Vec<Value> {
        let mut cells = vec![
            name_cell(&binding.metadata),
            role_text(&binding.role_ref),
            age_cell(&binding.metadata, now),
        ];
        cells.extend(who(binding.subjects.as_deref()));
        cells
    }
}

fn default_role(role: &mut RoleRef) {
    if role.api_group.as_deref().is_none_or(str::is_empty) {
        role.api_group = Some(GROUP.into());
    }
}

fn default_subject(subject: &mut Subject) {
    if subject.api_group.as_deref().is_none_or(str::is_empty)
        && matches!(subject.kind.as_str(), "User" | "Group")
    {
        subject.api_group = Some(GROUP.into());
    }
}

fn rules(rules: Option<&[PolicyRule]>, namespaced: bool, errors: &mut FieldErrors) {
    let empty = |list: &Option<Vec<String>>| list.as_ref().is_none_or(Vec::is_empty);
    for (i, rule) in rules.into_iter().flatten().enumerate() {
        let at = Path::new("rules").index(i);
        if rule.verbs.is_empty() {
            errors.push(FieldError::required(&at.child("verbs"), "verbs must contain at least one value"));
        }
        if !empty(&rule.non_resource_urls) {
            if namespaced {
                let message = "namespaced rules cannot apply to non-resource URLs";
                errors.push(FieldError::invalid(
                    &at.child("nonResourceURLs"),
                    &rule.non_resource_urls,
                    message,
                ));
            }
            if !empty(&rule.api_groups) || !empty(&rule.resources) || !empty(&rule.resource_names) {
                let message = "rules cannot apply to both regular resources and non-resource URLs";
                errors.push(FieldError::invalid(
                    &at.child("nonResourceURLs"),
                    &rule.non_resource_urls,
                    message,
                ));
            }
            continue;
        }
        if empty(&rule.api_groups) {
            let message = "resource rules must supply at least one api group";
            errors.push(FieldError::required(&at.child("apiGroups"), message));
        }
        if empty(&rule.resources) {
            let message = "resource rules must supply at least one resource";
            errors.push(FieldError::required(&at.child("resources"), message));
        }
    }
}

fn role_ref(role: &RoleRef, kinds: &[&str], errors: &mut FieldErrors) {
    let at = Path::new("roleRef");
    let group = role.api_group.as_deref().unwrap_or_default();
    if group != GROUP {
        errors.push(FieldError::not_supported(&at.child("apiGroup"), group, &[GROUP]));
    }
    if !kinds.contains(&role.kind.as_str()) {
        errors.push(FieldError::not_supported(&at.child("kind"), &role.kind, kinds));
    }
    if role.name.is_empty() {
        errors.push(FieldError::required(&at.child("name"), ""));
    } else {
        each(names::is_path_segment_name(&role.name), &role.name, &at.child("name"), errors);
    }
}

fn subjects(subjects: Option<&[Subject]>, namespace_required: bool, errors: &mut FieldErrors) {
    for (i, subject) in subjects.into_iter().flatten().enumerate() {
        let at = Path::new("subjects").index(i);
        if subject.name.is_empty() {
            errors.push(FieldError::required(&at.child("name"), ""));
        }
        let group = subject.api_group.as_deref().unwrap_or_default();
        match subject.kind.as_str() {
            "ServiceAccount" => {
                if !subject.name.is_empty() {
                    each(
                        names::is_dns1123_subdomain(&subject.name),
                        &subject.name,
                        &at.child("name"),
                        errors,
                    );
                }
                if !group.is_empty() {
                    errors.push(FieldError::not_supported(&at.child("apiGroup"), group, &[""]));
                }
                if namespace_required && subject.namespace.as_deref().is_none_or(str::is_empty) {
                    errors.push(FieldError::required(&at.child("namespace"), ""));
                }
            }
            kind @ ("User" | "Group") => {
                if subject.name.is_empty() {
                    let message = format!("{} name cannot be empty", kind.to_lowercase());
                    errors.push(FieldError::invalid(&at.child("name"), "", message));
                }
                if group != GROUP {
                    errors.push(FieldError::not_supported(&at.child("apiGroup"), group, &[GROUP]));
                }
            }
            other => {
                let kinds = ["ServiceAccount", "User", "Group"];
                errors.push(FieldError::not_supported(&at.child("kind"), other, &kinds));
            }
        }
    }
}

fn same_role(new: &RoleRef, old: &RoleRef, errors: &mut FieldErrors) {
    if new != old {
        errors.push(FieldError::invalid(&Path::new("roleRef"), new, "cannot change roleRef"));
    }
}

fn role_text(role: &RoleRef) -> Value {
    format!("{}/{}", role.kind, role.name).into()
}

/// Users, groups and service accounts, each as one cell.
fn who(subjects: Option<&[Subject]>) -> [Value; 3] {
    ["User", "Group", "ServiceAccount"].map(|kind| {
        let of_kind = subjects.into_iter().flatten().filter(|subject| subject.kind == kind);
        let names: Vec<String> = of_kind
            .map(|subject| match subject.namespace.as_deref().filter(|_| kind == "ServiceAccount") {
                Some(namespace) => format!("{namespace}/{}", subject.name),
                None => subject.name.clone(),
            })
            .collect();
        names.join(", ").into()
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn rules_need_verbs_and_something_to_apply_them_to() {
        let cases = [
            (json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}), None),
            (
                json!({"verbs": ["get"], "nonResourceURLs": ["/x"]}),
                Some("rules[0].nonResourceURLs: Invalid value"),
            ),
            (
                json!({"apiGroups": [""], "resources": ["pods"]}),
                Some("rules[0].verbs: Required value: verbs must"),
            ),
            (json!({"verbs": ["get"], "resources": ["pods"]}), Some("rules[0].apiGroups: Required value")),
            (json!({"verbs": ["get"], "apiGroups": [""]}), Some("rules[0].resources: Required value")),
        ];
        for (rule, expected) in cases {
            let role: Role = serde_json::from_value(json!({"rules": [rule]})).unwrap();
            let mut errors = FieldErrors::new();
            Roles.validate(&role, &mut errors);
            let found: Vec<_> = errors.iter().map(ToString::to_string).collect();
            match expected {
                None => assert!(found.is_empty(), "{found:?}"),
                Some(expected) => assert!(found.len() == 1 && found[0].starts_with(expected), "{found:?}"),
            }
        }
    }

    #[test]
    fn bindings_are_defaulted_and_keep_their_role() {
        let mut binding: ClusterRoleBinding = serde_json::from_value(json!({"metadata": {"name": "b"},
            "roleRef": {"kind": "ClusterRole", "name": "r"},
            "subjects": [{"kind": "User", "name": "u"}, {"kind": "ServiceAccount", "name": "s", "namespace": "n"}]}))
        .unwrap();
        ClusterRoleBindings.default(&mut binding);
        let mut errors = FieldErrors::new();
        ClusterRoleBindings.validate(&binding, &mut errors);
        assert!(errors.is_empty(), "{errors:?}");
        let mut other = binding.clone();
        other.role_ref.name = "x".into();
        ClusterRoleBindings.validate_update(&other, &binding, &mut errors);
        assert!(errors.iter().any(|error| error.to_string().ends_with("cannot change roleRef")));
        let cells = ClusterRoleBindings.cells(&binding, Timestamp::now());
        assert_eq!((&cells[1], &cells[3], &cells[5]), (&json!("ClusterRole/r"), &json!("u"), &json!("n/s")));
    }

    #[test]
    fn bindings_name_a_role_and_whom_they_mean() {
        let check = |subject: Value, role: Value| {
            let binding: RoleBinding = serde_json::from_value(
                json!({"metadata": {"name": "b"}, "subjects": [subject], "roleRef": role}),
            )
            .unwrap();
            let mut errors = FieldErrors::new();
            RoleBindings.validate(&binding, &mut errors);
            errors.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        let role = json!({"apiGroup": GROUP, "kind": "Role", "name": "r"});
        let account = json!({"kind": "ServiceAccount", "name": "a"});
        assert_eq!(check(account.clone(), role.clone()), Vec::<String>::new());
        assert_eq!(
            check(account.clone(), json!({"apiGroup": "x", "kind": "Other", "name": "a/b"})),
            [
                "roleRef.apiGroup: Unsupported value: \"x\": supported values: \"rbac.authorization.k8s.io\"",
                "roleRef.kind: Unsupported value: \"Other\": supported values: \"Role\", \"ClusterRole\"",
                "roleRef.name: Invalid value: \"a/b\": may not contain '/'",
            ]
        );
        assert_eq!(
            check(json!({"kind": "User", "apiGroup": GROUP, "name": ""}), role.clone()),
            [
                "subjects[0].name: Required value",
                "subjects[0].name: Invalid value: \"\": user name cannot be empty"
            ]
        );
        let found = check(json!({"kind": "ServiceAccount", "name": "Not A Name"}), role);
        assert!(
            found[0].starts_with(
                "subjects[0].name: Invalid value: \"Not A Name\": a lowercase RFC 1123 subdomain"
            ),
            "{found:?}"
        );
    }
}
