//! RBAC by tables: rules, bindings, groups, service accounts, escalation; and upstream's wording of a refusal.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use k8s_openapi::api::rbac::v1::{PolicyRule, RoleRef};
use serde_json::{Value, json};

use super::node::{NodeAuthorizer, NodeSource, References};
use super::rbac::{Objects, Rbac, RbacSource, covers};
use super::*;

struct Fixed {
    objects: Objects,
    version: AtomicU64,
    reads: AtomicUsize,
}

impl RbacSource for Fixed {
    fn version(&self) -> u64 {
        self.version.load(Ordering::Relaxed)
    }

    fn objects(&self) -> Objects {
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.objects.clone()
    }
}

struct NoPods;

impl NodeSource for NoPods {
    fn any_pod(&self, _: &str, _: &str, _: &dyn Fn(&References) -> bool) -> bool {
        false
    }

    fn claim_of_volume(&self, _: &str) -> Option<(String, String)> {
        None
    }

    fn claims_with_secret(&self, _: &str, _: &str) -> Vec<(String, String)> {
        Vec::new()
    }

    fn node_of_attachment(&self, _: &str) -> Option<String> {
        None
    }

    fn node_of_pod(&self, _: &str, _: &str) -> Option<String> {
        None
    }
}

fn of<K: serde::de::DeserializeOwned>(value: Value) -> Arc<K> {
    Arc::new(serde_json::from_value(value).unwrap())
}

fn source() -> Arc<Fixed> {
    let role =
        |kind: &str, name: &str| json!({"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name});
    let objects = Objects {
        cluster_roles: vec![
            of(json!({"metadata": {"name": "view"}, "rules": [
                {"verbs": ["get", "list", "watch"], "apiGroups": [""], "resources": ["pods", "pods/log"]},
                {"verbs": ["get"], "nonResourceURLs": ["/version", "/logs/*"]},
            ]})),
            of(json!({"metadata": {"name": "scaler"}, "rules": [
                {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*/scale"]},
            ]})),
        ],
        roles: vec![of(json!({"metadata": {"name": "one-secret", "namespace": "a"}, "rules": [
            {"verbs": ["get", "update"], "apiGroups": [""], "resources": ["secrets"], "resourceNames": ["s1"]},
        ]}))],
        role_bindings: vec![
            of(
                json!({"metadata": {"name": "jane", "namespace": "a"}, "roleRef": role("ClusterRole", "view"),
                "subjects": [{"kind": "User", "name": "jane"}]}),
            ),
            of(json!({"metadata": {"name": "sa", "namespace": "a"}, "roleRef": role("Role", "one-secret"),
                "subjects": [{"kind": "ServiceAccount", "name": "bot"},
                             {"kind": "ServiceAccount", "name": "bot", "namespace": "b"}]})),
            of(
                json!({"metadata": {"name": "dangling", "namespace": "a"}, "roleRef": role("Role", "missing"),
                "subjects": [{"kind": "User", "name": "joe"}]}),
            ),
        ],
        cluster_role_bindings: vec![
            of(json!({"metadata": {"name": "ops"}, "roleRef": role("ClusterRole", "view"),
                "subjects": [{"kind": "Group", "name": "ops"}]})),
            of(json!({"metadata": {"name": "scale"}, "roleRef": role("ClusterRole", "scaler"),
                "subjects": [{"kind": "User", "name": "hpa"}]})),
        ],
    };
    Arc::new(Fixed { objects, version: AtomicU64::new(1), reads: AtomicUsize::new(0) })
}

fn authorizer() -> Authorizer {
    Authorizer::new(NodeAuthorizer::new(Arc::new(NoPods)), Rbac::new(source()))
}

fn user(name: &str, groups: &[&str]) -> UserInfo {
    UserInfo {
        name: name.to_owned(),
        groups: groups.iter().map(|&g| g.to_owned()).collect(),
        ..Default::default()
    }
}

fn on<'a>(
    verb: &'a str,
    group: &'a str,
    resource: &'a str,
    namespace: &'a str,
    name: &'a str,
) -> Attributes<'a> {
    let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
    let resource = ResourceAttributes { group, version: "v1", namespace, resource, subresource, name };
    Attributes { verb, resource: Some(resource), ..Attributes::default() }
}

fn path<'a>(verb: &'a str, path: &'a str) -> Attributes<'a> {
    Attributes { verb, path, ..Attributes::default() }
}

#[test]
fn bindings_give_what_their_role_says_where_it_counts() {
    let authorizer = authorizer();
    let (jane, ops, hpa) = (user("jane", &[]), user("x", &["ops"]), user("hpa", &[]));
    let (bot_a, bot_b) = (user("system:serviceaccount:a:bot", &[]), user("system:serviceaccount:b:bot", &[]));
    let cases = [
        (&jane, on("get", "", "pods", "a", "p"), true),
        (&jane, on("get", "", "pods/log", "a", "p"), true),
        (&jane, on("get", "", "pods/exec", "a", "p"), false),
        (&jane, on("get", "", "pods", "b", "p"), false),
        (&jane, on("list", "", "pods", "", ""), false),
        (&jane, on("delete", "", "pods", "a", "p"), false),
        (&jane, on("get", "metrics.k8s.io", "pods", "a", "p"), false),
        (&jane, path("get", "/version"), false),
        (&ops, on("list", "", "pods", "", ""), true),
        (&ops, on("watch", "", "pods", "b", ""), true),
        (&ops, path("get", "/version"), true),
        (&ops, path("get", "/logs/a/b"), true),
        (&ops, path("post", "/version"), false),
        (&ops, path("get", "/versions"), false),
        (&hpa, on("update", "apps", "deployments/scale", "z", "d"), true),
        (&hpa, on("update", "apps", "deployments", "z", "d"), false),
        (&bot_a, on("get", "", "secrets", "a", "s1"), true),
        (&bot_b, on("get", "", "secrets", "a", "s1"), true),
        (&bot_a, on("get", "", "secrets", "a", "s2"), false),
        (&bot_a, on("list", "", "secrets", "a", ""), false),
        (&bot_a, on("get", "", "secrets", "b", "s1"), false),
        (&user("joe", &[]), on("get", "", "pods", "a", "p"), false),
        (&user("joe", &["system:masters"]), on("delete", "x", "y", "", ""), true),
    ];
    for (user, attributes, expected) in cases {
        assert_eq!(
            authorizer.authorize(user, &attributes).allowed(),
            expected,
            "{} {attributes:?}",
            user.name
        );
    }
}

#[test]
fn refusals_are_worded_as_upstream_words_them() {
    let authorizer = authorizer();
    let joe = user("joe", &[]);
    let cases = [
        (
            on("list", "", "pods", "default", ""),
            r#"pods is forbidden: User "joe" cannot list resource "pods" in API group "" in the namespace "default""#,
        ),
        (
            on("get", "apps", "deployments/scale", "a", "web"),
            r#"deployments.apps "web" is forbidden: User "joe" cannot get resource "deployments/scale" in API group "apps" in the namespace "a""#,
        ),
        (
            on("create", "", "namespaces", "", ""),
            r#"namespaces is forbidden: User "joe" cannot create resource "namespaces" in API group "" at the cluster scope"#,
        ),
        (path("get", "/metrics"), r#"forbidden: User "joe" cannot get path "/metrics""#),
    ];
    for (attributes, message) in cases {
        let error = authorizer.check(&joe, &attributes).unwrap_err();
        assert_eq!((error.code(), error.message()), (403, message));
    }
}

#[test]
fn roles_are_compiled_once_per_change() {
    let source = source();
    let rbac = Rbac::new(source.clone());
    let jane = user("jane", &[]);
    for _ in 0..3 {
        assert!(rbac.authorize(&jane, &on("get", "", "pods", "a", "p")).allowed());
    }
    assert_eq!(source.reads.load(Ordering::Relaxed), 1);
    source.version.store(2, Ordering::Relaxed);
    rbac.index();
    assert_eq!(source.reads.load(Ordering::Relaxed), 2);
}

#[test]
fn rules_of_users_and_roles_can_be_listed() {
    let rbac = Rbac::new(source());
    assert_eq!(rbac.rules_for(&user("jane", &[]), "a").len(), 2);
    assert!(rbac.rules_for(&user("jane", &[]), "b").is_empty());
    let role = |kind: &str, name: &str| RoleRef {
        api_group: Some("rbac.authorization.k8s.io".to_owned()),
        kind: kind.to_owned(),
        name: name.to_owned(),
    };
    assert_eq!(rbac.rules_of("a", &role("Role", "one-secret")).len(), 1);
    assert!(rbac.rules_of("b", &role("Role", "one-secret")).is_empty());
    assert_eq!(rbac.rules_of("b", &role("ClusterRole", "view")).len(), 2);
}

#[test]
fn owned_rules_cover_wanted_ones_together_or_not_at_all() {
    let rules = |value: Value| -> Vec<PolicyRule> { serde_json::from_value(value).unwrap() };
    let rule = |verbs: &[&str], groups: &[&str], resources: &[&str], names: &[&str]| json!({"verbs": verbs, "apiGroups": groups, "resources": resources, "resourceNames": names});
    let cases = [
        (json!([]), json!([rule(&["get"], &[""], &["pods"], &[])]), 1),
        (
            json!([rule(&["*"], &["*"], &["*"], &[])]),
            json!([rule(&["get", "list"], &["", "apps"], &["pods"], &["x"])]),
            0,
        ),
        (
            json!([rule(&["get"], &[""], &["pods"], &[]), rule(&["list"], &[""], &["pods"], &[])]),
            json!([rule(&["get", "list"], &[""], &["pods"], &[])]),
            0,
        ),
        (
            json!([rule(&["get"], &[""], &["pods"], &["a"])]),
            json!([rule(&["get"], &[""], &["pods"], &[])]),
            1,
        ),
        (
            json!([rule(&["get"], &[""], &["pods"], &["a"])]),
            json!([rule(&["get"], &[""], &["pods"], &["a", "b"])]),
            1,
        ),
        (json!([rule(&["get"], &[""], &["pods"], &[])]), json!([rule(&["*"], &[""], &["pods"], &[])]), 1),
        (
            json!([rule(&["get"], &[""], &["*/scale"], &[])]),
            json!([rule(&["get"], &[""], &["x/scale", "x"], &[])]),
            1,
        ),
        (
            json!([{"verbs": ["get"], "nonResourceURLs": ["/a/*"]}]),
            json!([{"verbs": ["get"], "nonResourceURLs": ["/a/b", "/a/b/*", "/b"]}]),
            1,
        ),
    ];
    for (owned, wanted, missing) in cases {
        assert_eq!(
            covers(&rules(owned.clone()), &rules(wanted.clone())).len(),
            missing,
            "{owned} for {wanted}"
        );
    }
}
