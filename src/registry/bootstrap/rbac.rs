//! Upstream's roles and bindings, from `manifests/rbac.yaml`.
//!
//! Reconciling follows upstream's rules: missing rules and subjects are added, additional ones stay, and an object that
//! is annotated `rbac.authorization.kubernetes.io/autoupdate: "false"` is left alone.

use std::collections::BTreeMap;

use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};
use serde::Deserialize;
use serde_json::{Value, json};

use super::BootstrapError;
use super::apply::{Applier, Change};

const POLICY: &str = include_str!("../../../manifests/rbac.yaml");
const AUTO_UPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";
const GROUP: &str = "rbac.authorization.k8s.io";
/// Namespace of the accounts of built-in controllers.
const SYSTEM: &str = "kube-system";

/// The file.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Policy {
    cluster_roles: Vec<RoleRow>,
    cluster_role_bindings: Vec<BindingRow>,
    controllers: Vec<RoleRow>,
    roles: Vec<RoleRow>,
    role_bindings: Vec<BindingRow>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RoleRow {
    name: String,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    /// Roles labelled `aggregate-to-<this>` are put together into this one.
    #[serde(default)]
    aggregate: Vec<String>,
    #[serde(default)]
    rules: Vec<RuleRow>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleRow {
    g: Option<Vec<String>>,
    r: Option<Vec<String>>,
    n: Option<Vec<String>>,
    u: Option<Vec<String>>,
    v: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct BindingRow {
    name: String,
    /// The role, where its name is not the binding's.
    role: Option<String>,
    #[serde(default)]
    users: Vec<String>,
    #[serde(default)]
    groups: Vec<String>,
    /// `namespace/name` of service accounts.
    #[serde(default)]
    accounts: Vec<String>,
}

/// How many objects are made at a time: the store commits what comes together in one go.
const AT_A_TIME: usize = 64;

/// Makes or mends the roles and bindings.
pub(super) async fn reconcile(apply: &Applier<'_>) -> Result<(), BootstrapError> {
    let policy = policy()?;
    let mut work: Vec<BoxFuture<'_, Result<(), BootstrapError>>> = Vec::new();
    for role in &policy.cluster_roles {
        work.push(apply.ensure::<ClusterRole>(cluster_role(&role.name, role), mend_role).boxed());
    }
    for role in &policy.controllers {
        let name = format!("system:controller:{}", role.name);
        work.push(apply.ensure::<ClusterRole>(cluster_role(&name, role), mend_role).boxed());
        let account = account_binding(name, &role.name);
        work.push(apply.ensure::<ClusterRoleBinding>(account, mend_binding).boxed());
    }
    for row in &policy.cluster_role_bindings {
        work.push(apply.ensure::<ClusterRoleBinding>(binding(row, "ClusterRole"), mend_binding).boxed());
    }
    for row in &policy.roles {
        let mut role = cluster_role(&row.name, row);
        place(&mut role, &row.name);
        work.push(apply.ensure::<Role>(role, mend_role).boxed());
    }
    for row in &policy.role_bindings {
        let mut object = binding(row, "Role");
        place(&mut object, &row.name);
        work.push(apply.ensure::<RoleBinding>(object, mend_binding).boxed());
    }
    stream::iter(work).buffer_unordered(AT_A_TIME).try_collect().await
}

/// Binds a controller's role to its account.
fn account_binding(name: String, account: &str) -> Value {
    let accounts = vec![format!("{SYSTEM}/{account}")];
    let row = BindingRow { name, role: None, users: Vec::new(), groups: Vec::new(), accounts };
    binding(&row, "ClusterRole")
}

fn policy() -> Result<Policy, BootstrapError> {
    serde_saphyr::from_str(POLICY).map_err(|error| BootstrapError::Roles(error.to_string()))
}

fn cluster_role(name: &str, row: &RoleRow) -> Value {
    let mut labels = row.labels.clone();
    labels.insert("kubernetes.io/bootstrapping".to_owned(), "rbac-defaults".to_owned());
    let mut role =
        json!({"metadata": {"name": name, "labels": labels, "annotations": {AUTO_UPDATE: "true"}}});
    if row.aggregate.is_empty() {
        role["rules"] = row.rules.iter().map(rule).collect();
    } else {
        let select = |to: &String| json!({"matchLabels": {format!("{GROUP_LABEL}{to}"): "true"}});
        role["aggregationRule"] =
            json!({"clusterRoleSelectors": row.aggregate.iter().map(select).collect::<Vec<_>>()});
    }
    role
}

const GROUP_LABEL: &str = "rbac.authorization.k8s.io/aggregate-to-";

fn rule(row: &RuleRow) -> Value {
    let mut rule = json!({"verbs": row.v});
    if let Some(paths) = &row.u {
        rule["nonResourceURLs"] = json!(paths);
        return rule;
    }
    rule["apiGroups"] = json!(row.g.clone().unwrap_or_else(|| vec![String::new()]));
    rule["resources"] = json!(row.r);
    if let Some(names) = &row.n {
        rule["resourceNames"] = json!(names);
    }
    rule
}

fn binding(row: &BindingRow, kind: &str) -> Value {
    let named = |kind: &str, name: &String| json!({"kind": kind, "apiGroup": GROUP, "name": name});
    let mut subjects: Vec<Value> = row.groups.iter().map(|name| named("Group", name)).collect();
    subjects.extend(row.users.iter().map(|name| named("User", name)));
    subjects.extend(row.accounts.iter().filter_map(|account| {
        let (namespace, name) = account.split_once('/')?;
        Some(json!({"kind": "ServiceAccount", "namespace": namespace, "name": name}))
    }));
    let own = row.name.rsplit_once('/').map_or(row.name.as_str(), |(_, name)| name);
    let role = row.role.as_deref().unwrap_or(own);
    let mut object = json!({
        "metadata": {
            "name": row.name, "labels": {"kubernetes.io/bootstrapping": "rbac-defaults"},
            "annotations": {AUTO_UPDATE: "true"},
        },
        "roleRef": {"apiGroup": GROUP, "kind": kind, "name": role},
    });
    if !subjects.is_empty() {
        object["subjects"] = json!(subjects);
    }
    object
}

/// Splits `namespace/name` into the two.
fn place(object: &mut Value, name: &str) {
    if let Some((namespace, name)) = name.split_once('/') {
        object["metadata"]["namespace"] = namespace.into();
        object["metadata"]["name"] = name.into();
    }
}

fn mend_role(there: &Value, wanted: &Value) -> Change {
    let mut changed = there.clone();
    if wanted.get("aggregationRule").is_some() {
        // Its rules are the aggregation controller's.
        changed["aggregationRule"] = wanted["aggregationRule"].clone();
    } else {
        add_missing(&mut changed, wanted, "rules");
    }
    mended(there, changed, wanted)
}

fn mend_binding(there: &Value, wanted: &Value) -> Change {
    let mut changed = there.clone();
    add_missing(&mut changed, wanted, "subjects");
    mended(there, changed, wanted)
}

fn mended(there: &Value, mut changed: Value, wanted: &Value) -> Change {
    let annotations = there.pointer("/metadata/annotations");
    if annotations.and_then(|all| all.get(AUTO_UPDATE)) == Some(&json!("false")) {
        return Change::None;
    }
    if let Some(labels) = wanted.pointer("/metadata/labels").and_then(Value::as_object) {
        for (key, value) in labels {
            changed["metadata"]["labels"][key] = value.clone();
        }
    }
    if changed == *there { Change::None } else { Change::To(changed) }
}

fn add_missing(object: &mut Value, wanted: &Value, list: &str) {
    let Some(wanted) = wanted.get(list).and_then(Value::as_array) else { return };
    let there = object.get(list).and_then(Value::as_array).cloned().unwrap_or_default();
    let missing: Vec<Value> = wanted.iter().filter(|item| !there.contains(item)).cloned().collect();
    if !missing.is_empty() {
        object[list] = there.into_iter().chain(missing).collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_parses_and_names_are_unique() {
        let policy = policy().unwrap();
        let mut names: Vec<_> = policy.cluster_roles.iter().map(|role| role.name.clone()).collect();
        names.extend(policy.controllers.iter().map(|role| format!("system:controller:{}", role.name)));
        let count = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), count);
        for needed in ["cluster-admin", "system:node", "view", "system:controller:deployment-controller"] {
            assert!(names.iter().any(|name| name == needed), "{needed}");
        }
    }

    #[test]
    fn every_binding_has_its_role() {
        let policy = policy().unwrap();
        for row in &policy.cluster_role_bindings {
            let role = row.role.as_ref().unwrap_or(&row.name);
            assert!(policy.cluster_roles.iter().any(|one| one.name == *role), "{role}");
        }
        for row in &policy.role_bindings {
            let (namespace, own) = row.name.split_once('/').unwrap();
            let role = format!("{namespace}/{}", row.role.as_deref().unwrap_or(own));
            assert!(policy.roles.iter().any(|one| one.name == role), "{role}");
        }
    }

    #[test]
    fn rules_are_for_resources_or_for_paths() {
        let policy = policy().unwrap();
        for role in policy.cluster_roles.iter().chain(&policy.controllers).chain(&policy.roles) {
            assert!(role.aggregate.is_empty() != role.rules.is_empty(), "{}", role.name);
            for one in &role.rules {
                assert!(one.r.is_some() != one.u.is_some() && !one.v.is_empty(), "{}: {one:?}", role.name);
            }
        }
        let core = rule(&policy.roles[0].rules[0]);
        assert_eq!(core["apiGroups"], json!([""]));
    }

    #[test]
    fn what_people_added_stays_and_what_is_missing_comes_back() {
        let wanted = json!({"metadata": {"labels": {}}, "rules": [{"verbs": ["a"]}, {"verbs": ["b"]}]});
        let there = json!({"metadata": {"labels": {}}, "rules": [{"verbs": ["x"]}, {"verbs": ["b"]}]});
        let Change::To(changed) = mend_role(&there, &wanted) else { panic!("nothing mended") };
        assert_eq!(changed["rules"], json!([{"verbs": ["x"]}, {"verbs": ["b"]}, {"verbs": ["a"]}]));
        assert!(matches!(mend_role(&changed, &wanted), Change::None));
        let kept = json!({"metadata": {"labels": {}, "annotations": {AUTO_UPDATE: "false"}}, "rules": []});
        assert!(matches!(mend_role(&kept, &wanted), Change::None));
    }

    #[test]
    fn namespaced_rows_are_placed() {
        let policy = policy().unwrap();
        let row = policy.role_bindings.iter().find(|row| row.role.is_some()).unwrap();
        let mut object = binding(row, "Role");
        place(&mut object, &row.name);
        assert_eq!(object["metadata"]["namespace"], "kube-system");
        assert_eq!(object["metadata"]["name"], "system::extension-apiserver-authentication-reader");
        assert_eq!(object["roleRef"]["name"], "extension-apiserver-authentication-reader");
    }
}
