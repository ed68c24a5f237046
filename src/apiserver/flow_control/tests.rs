//! Classification by the objects of the cluster.

use serde_json::{Value, json};

use super::*;

fn schema(value: Value) -> FlowSchema {
    serde_json::from_value(value).unwrap()
}

fn info(method: &str, uri: &str) -> RequestInfo {
    RequestInfo::new(&method.parse().unwrap(), &uri.parse().unwrap())
}

fn user(name: &str, groups: &[&str]) -> UserInfo {
    UserInfo {
        name: name.to_owned(),
        groups: groups.iter().map(|group| (*group).to_owned()).collect(),
        ..UserInfo::default()
    }
}

fn everything(name: &str, precedence: i32, level: &str, subject: Value, by: Option<&str>) -> FlowSchema {
    let mut object = json!({"metadata": {"name": name, "uid": format!("uid-{name}")}, "spec": {
        "matchingPrecedence": precedence, "priorityLevelConfiguration": {"name": level},
        "rules": [{"subjects": [subject], "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"],
            "clusterScope": true, "namespaces": ["*"]}],
            "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}]}]}});
    if let Some(by) = by {
        object["spec"]["distinguisherMethod"] = json!({"type": by});
    }
    schema(object)
}

#[test]
fn the_first_schema_that_matches_counts() {
    let group = |name: &str| json!({"kind": "Group", "group": {"name": name}});
    let account =
        json!({"kind": "ServiceAccount", "serviceAccount": {"namespace": "kube-system", "name": "*"}});
    let leases = schema(json!({"metadata": {"name": "leases"}, "spec": {"matchingPrecedence": 100,
        "priorityLevelConfiguration": {"name": "leader-election"}, "distinguisherMethod": {"type": "ByUser"},
        "rules": [{"subjects": [{"kind": "User", "user": {"name": "system:kube-scheduler"}}],
            "resourceRules": [{"verbs": ["get", "update"], "apiGroups": ["coordination.k8s.io"],
                "resources": ["leases"], "namespaces": ["*"]}]}]}}));
    let objects = vec![
        everything("rest", 9900, "global", group("system:authenticated"), Some("ByUser")),
        everything("system", 900, "high", account, Some("ByNamespace")),
        leases,
        everything("dangling", 1, "missing", group("system:authenticated"), None),
    ];
    let schemas = Schemas::new(objects, &|level| level != "missing");
    let scheduler = user("system:kube-scheduler", &["system:authenticated"]);
    let lease = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/a";
    for (user, method, uri, expected) in [
        (&scheduler, "GET", lease, "leases"),
        (&scheduler, "DELETE", lease, "rest"),
        (&scheduler, "GET", "/api/v1/pods", "rest"),
        (
            &user("system:serviceaccount:kube-system:a", &["system:authenticated"]),
            "GET",
            "/api/v1/pods",
            "system",
        ),
        (&user("system:serviceaccount:other:a", &["system:authenticated"]), "GET", "/version", "rest"),
        (&user("x", &["system:masters"]), "GET", "/api/v1/pods", "exempt"),
        (&user("x", &[]), "GET", "/api/v1/pods", "catch-all"),
    ] {
        let flow = schemas.classify(user, &info(method, uri));
        assert_eq!(&*flow.schema, expected, "{} {method} {uri}", user.name);
    }
}

#[test]
fn flows_are_told_apart_by_user_or_namespace() {
    let all = json!({"kind": "User", "user": {"name": "*"}});
    let hash = |by: Option<&str>, name: &str, namespace: &str| {
        let schemas = Schemas::new(vec![everything("s", 5, "l", all.clone(), by)], &|_| true);
        schemas.classify(&user(name, &[]), &info("GET", &format!("/api/v1/namespaces/{namespace}/pods"))).hash
    };
    assert_eq!(hash(None, "a", "x"), hash(None, "b", "y"));
    assert_ne!(hash(Some("ByUser"), "a", "x"), hash(Some("ByUser"), "b", "x"));
    assert_eq!(hash(Some("ByUser"), "a", "x"), hash(Some("ByUser"), "a", "y"));
    assert_ne!(hash(Some("ByNamespace"), "a", "x"), hash(Some("ByNamespace"), "a", "y"));
}

#[test]
fn levels_share_the_server_by_their_shares() {
    let level = |name: &str, shares: i32| -> PriorityLevelConfiguration {
        serde_json::from_value(json!({"metadata": {"name": name}, "spec": {"type": "Limited",
            "limited": {"nominalConcurrencyShares": shares, "limitResponse": {"type": "Reject"}}}}))
        .unwrap()
    };
    let objects = [level("a", 30), level("b", 65)];
    let levels = levels_of(&objects, 100, &HashMap::new());
    assert_eq!(levels["a"].shape().nominal, 30);
    assert_eq!(levels["b"].shape().nominal, 65);
    assert!(levels.contains_key("exempt") && levels.contains_key("catch-all"));
    let again = levels_of(&objects, 100, &levels);
    assert!(Arc::ptr_eq(&again["a"], &levels["a"]), "what has not changed goes on");
}

#[tokio::test]
async fn a_request_without_a_place_is_told_when_to_come_back() {
    use http_body_util::BodyExt as _;
    let response = Rejected.response();
    assert_eq!(
        (response.status(), &response.headers()["retry-after"]),
        (StatusCode::TOO_MANY_REQUESTS, &HeaderValue::from(1))
    );
    assert_eq!(response.headers()["content-type"], "text/plain; charset=utf-8");
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(body, "Too many requests, please try again later.\n");
}
