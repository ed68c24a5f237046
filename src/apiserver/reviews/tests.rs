//! Reviews answer by the same authorizer as requests, and refuse questions that make no sense.

use std::sync::Arc;

use serde_json::{Value, json};

use super::*;
use crate::apiserver::authentication::service_account::{Bound, BoundObjects};
use crate::apiserver::authorization::node::{NodeAuthorizer, NodeSource, References};
use crate::apiserver::authorization::rbac::{Objects, Rbac, RbacSource};
use crate::pki::ClusterPki;
use crate::registry::{TokenIssuer as _, TokenOrder};

struct World;

impl BoundObjects for World {
    fn uid(&self, _: Bound, _: &str, _: &str) -> Option<String> {
        Some("u".to_owned())
    }

    fn uses_secret(&self, _: &str, _: &str) -> bool {
        true
    }
}

impl NodeSource for World {
    fn claims_with_secret(&self, _: &str, _: &str) -> Vec<(String, String)> {
        Vec::new()
    }

    fn any_pod(&self, _: &str, _: &str, _: &dyn Fn(&References) -> bool) -> bool {
        false
    }

    fn claim_of_volume(&self, _: &str) -> Option<(String, String)> {
        None
    }

    fn node_of_attachment(&self, _: &str) -> Option<String> {
        None
    }

    fn node_of_pod(&self, _: &str, _: &str) -> Option<String> {
        None
    }
}

impl RbacSource for World {
    fn version(&self) -> u64 {
        1
    }

    fn objects(&self) -> Objects {
        let of = |value: Value| Arc::new(serde_json::from_value(value).unwrap());
        Objects {
            cluster_roles: vec![of(json!({"metadata": {"name": "view"}, "rules": [
                {"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]},
                {"verbs": ["get"], "nonResourceURLs": ["/version"]}]}))],
            cluster_role_bindings: vec![Arc::new(
                serde_json::from_value(json!({
                    "metadata": {"name": "view"},
                    "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"},
                    "subjects": [{"kind": "User", "name": "jane"}],
                }))
                .unwrap(),
            )],
            ..Objects::default()
        }
    }
}

fn reviews() -> (Reviews, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let pki = Arc::new(ClusterPki::load_or_create(dir.path(), &[]).unwrap());
    let tokens = Arc::new(ServiceAccountTokens::new(pki, "cluster.local", Arc::new(World)));
    let world = Arc::new(World);
    let authorizer = Authorizer::new(NodeAuthorizer::new(world.clone()), Rbac::new(world));
    (Reviews::new(tokens, Arc::new(authorizer)), dir)
}

fn of<K: serde::de::DeserializeOwned>(spec: Value) -> K {
    serde_json::from_value(json!({"spec": spec})).unwrap()
}

#[test]
fn subject_access_reviews_ask_the_authorizer() {
    let (reviews, _dir) = reviews();
    let pods = |verb: &str| json!({"verb": verb, "resource": "pods", "namespace": "a"});
    let cases = [
        (json!({"user": "jane", "resourceAttributes": pods("get")}), true),
        (json!({"user": "jane", "resourceAttributes": pods("list")}), false),
        (json!({"user": "joe", "resourceAttributes": pods("get")}), false),
        (json!({"groups": ["system:masters"], "resourceAttributes": pods("delete")}), true),
        (json!({"user": "jane", "nonResourceAttributes": {"verb": "get", "path": "/version"}}), true),
        (json!({"user": "jane", "nonResourceAttributes": {"verb": "get", "path": "/metrics"}}), false),
    ];
    for (spec, allowed) in cases {
        let review = reviews.subject_access_review(of(spec.clone())).unwrap();
        assert_eq!(review.status.unwrap().allowed, allowed, "{spec}");
    }
}

#[test]
fn reviews_without_subject_or_question_are_refused() {
    let (reviews, _dir) = reviews();
    let pods = json!({"verb": "get", "resource": "pods", "namespace": "a"});
    let path = json!({"verb": "get", "path": "/"});
    for spec in [
        json!({"user": "jane"}),
        json!({"resourceAttributes": pods}),
        json!({"user": "jane", "resourceAttributes": pods, "nonResourceAttributes": path}),
    ] {
        let error = reviews.subject_access_review(of(spec.clone())).unwrap_err();
        assert_eq!(error.code(), 422, "{spec}: {error}");
    }
    let local = |spec: Value| reviews.local_review("a", of(spec));
    assert!(local(json!({"user": "jane", "resourceAttributes": pods})).unwrap().status.unwrap().allowed);
    let elsewhere = json!({"verb": "get", "resource": "pods", "namespace": "b"});
    assert_eq!(local(json!({"user": "jane", "resourceAttributes": elsewhere})).unwrap_err().code(), 422);
    assert_eq!(local(json!({"user": "jane", "nonResourceAttributes": path})).unwrap_err().code(), 422);
}

#[test]
fn own_rules_are_listed() {
    let (reviews, _dir) = reviews();
    let user = |name: &str, groups: &[&str]| UserInfo {
        name: name.to_owned(),
        groups: groups.iter().map(|&g| g.to_owned()).collect(),
        ..UserInfo::default()
    };
    let status = |user: &UserInfo| reviews.rules_review(user, of(json!({"namespace": "a"}))).status.unwrap();
    let jane = status(&user("jane", &[]));
    assert_eq!((jane.resource_rules.len(), jane.non_resource_rules.len()), (1, 1));
    let master = status(&user("root", &["system:masters"]));
    assert_eq!(master.resource_rules[0].verbs, ["*"]);
    assert_eq!(master.non_resource_rules[0].non_resource_urls, Some(vec!["*".to_owned()]));
}

#[tokio::test]
async fn token_review_tells_the_user_and_keeps_the_token_to_itself() {
    let (reviews, _dir) = reviews();
    let order = TokenOrder {
        namespace: "ns".to_owned(),
        service_account: "sa".to_owned(),
        uid: "u".to_owned(),
        audiences: Vec::new(),
        expiration_seconds: 600,
        bound_to: None,
        node: None,
    };
    let token = reviews.tokens.issue(order).await.unwrap().token;
    let good = reviews.token_review(of(json!({"token": token}))).unwrap();
    let status = good.status.unwrap();
    assert_eq!(good.spec.token, "");
    assert_eq!(status.authenticated, Some(true));
    assert_eq!(status.user.unwrap().username.as_deref(), Some("system:serviceaccount:ns:sa"));
    let other_audience = reviews.token_review(of(json!({"token": token, "audiences": ["vault"]}))).unwrap();
    assert_ne!(other_audience.status.unwrap().authenticated, Some(true));
    let bad = reviews.token_review(of(json!({"token": "x"}))).unwrap().status.unwrap();
    assert_eq!((bad.authenticated, bad.error.as_deref()), (None, Some("invalid bearer token")));
    assert_eq!(reviews.token_review(of(json!({"token": ""}))).unwrap_err().code(), 400);
}
