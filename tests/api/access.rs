//! Who may do what: roles take effect at once, tokens work, impersonation needs a permission.

use axum::body::Body;
use http::Request;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};

use crate::server::TestServer;

const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";

async fn give(server: &TestServer, subject: Value, rules: Value) {
    let meta = json!({"name": "reader", "namespace": "default"});
    let role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": meta, "rules": rules});
    let (code, body) = server.send("POST", &format!("{RBAC}/namespaces/default/roles"), Some(role)).await;
    assert_eq!(code, 201, "{body}");
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": meta, "subjects": [subject],
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "reader"},
    });
    let (code, body) =
        server.send("POST", &format!("{RBAC}/namespaces/default/rolebindings"), Some(binding)).await;
    assert_eq!(code, 201, "{body}");
}

fn read_maps() -> Value {
    json!([{"verbs": ["get", "list"], "apiGroups": [""], "resources": ["configmaps"]}])
}

#[tokio::test]
async fn roles_count_from_the_next_request_on_while_they_exist() {
    let server = TestServer::start().await;
    let list = |namespace: &'static str| {
        let server = &server;
        async move {
            let path = format!("/api/v1/namespaces/{namespace}/configmaps");
            server.send_as("jane", &[], "GET", &path, None).await
        }
    };
    let (code, status) = list("default").await;
    assert_eq!(code, 403);
    let message = r#"configmaps is forbidden: User "jane" cannot list resource "configmaps" in API group "" in the namespace "default""#;
    assert_eq!(status["message"], message);
    give(
        &server,
        json!({"kind": "User", "name": "jane", "apiGroup": "rbac.authorization.k8s.io"}),
        read_maps(),
    )
    .await;
    assert_eq!((list("default").await.0, list("kube-system").await.0), (200, 403));
    server.send("DELETE", &format!("{RBAC}/namespaces/default/rolebindings/reader"), None).await;
    // What is taken away is gone as soon as the cache has followed the store, which takes moments.
    let gone = async { while list("default").await.0 != 403 {} };
    tokio::time::timeout(std::time::Duration::from_secs(10), gone).await.unwrap();
}

#[tokio::test]
async fn reviews_agree_with_what_happens() {
    let server = TestServer::start().await;
    give(
        &server,
        json!({"kind": "Group", "name": "devs", "apiGroup": "rbac.authorization.k8s.io"}),
        read_maps(),
    )
    .await;
    let review = |verb: &str| {
        json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": {
            "groups": ["devs"], "resourceAttributes": {"verb": verb, "resource": "configmaps", "namespace": "default"}}})
    };
    let path = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
    for (verb, allowed) in [("get", true), ("delete", false)] {
        let (code, body) = server.send("POST", path, Some(review(verb))).await;
        assert_eq!((code, &body["status"]["allowed"]), (201, &json!(allowed)), "{body}");
    }
}

#[tokio::test]
async fn service_account_tokens_are_issued_accepted_and_end_with_the_account() {
    let listening = TestServer::listening().await;
    let server = &listening.server;
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "bot"}});
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    server.send("POST", accounts, Some(account)).await;
    give(server, json!({"kind": "ServiceAccount", "name": "bot", "namespace": "default"}), read_maps()).await;
    let order = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 600}});
    let (code, answer) = server.send("POST", &format!("{accounts}/bot/token"), Some(order)).await;
    assert_eq!(code, 201, "{answer}");
    let token = answer["status"]["token"].as_str().unwrap().to_owned();

    let review =
        json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token}});
    let (_, review) = server.send("POST", "/apis/authentication.k8s.io/v1/tokenreviews", Some(review)).await;
    assert_eq!(review["status"]["user"]["username"], "system:serviceaccount:default:bot", "{review}");

    let list = |token: String| {
        let mut config = kube::Config::new(listening.url().parse().unwrap());
        config.root_cert = Some(vec![server.pki.server_ca().certificates()[0].to_vec()]);
        config.auth_info.token = Some(token.into());
        async move {
            let client = kube::Client::try_from(config).unwrap();
            let request = Request::get("/api/v1/namespaces/default/configmaps").body(Vec::new()).unwrap();
            client.request::<Value>(request).await
        }
    };
    assert_eq!(list(token.clone()).await.unwrap()["kind"], "ConfigMapList");
    assert!(matches!(list(format!("{token}x")).await, Err(kube::Error::Api(status)) if status.code == 401));
    server.send("DELETE", &format!("{accounts}/bot"), None).await;
    let gone = async {
        while !matches!(list(token.clone()).await, Err(kube::Error::Api(status)) if status.code == 401) {}
    };
    tokio::time::timeout(std::time::Duration::from_secs(10), gone).await.unwrap();
    listening.stop().await;
}

#[tokio::test]
async fn impersonation_takes_a_permission_and_loses_ones_own() {
    let server = TestServer::start().await;
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}).to_string();
    let request = |user: &str| {
        Request::post("/apis/authentication.k8s.io/v1/selfsubjectreviews")
            .header("content-type", "application/json")
            .header("impersonate-user", user)
            .header("impersonate-group", "devs")
            .body(Body::from(review.clone()))
            .unwrap()
    };
    let refused = server.raw_as("jane", &[], request("root")).await;
    assert_eq!(refused.status(), 403);
    let list =
        Request::get("/api/v1/secrets").header("impersonate-user", "jane").body(Body::empty()).unwrap();
    assert_eq!(server.raw(list).await.status(), 403, "the impersonated user's permissions count");
    let masters = Request::post("/apis/authentication.k8s.io/v1/selfsubjectreviews")
        .header("content-type", "application/json")
        .header("impersonate-user", "jane")
        .header("impersonate-group", "system:masters")
        .body(Body::from(review.clone()))
        .unwrap();
    let bytes = server.raw(masters).await.into_body().collect().await.unwrap().to_bytes();
    let answer: Value = serde_json::from_slice(&bytes).unwrap();
    assert_eq!(
        answer["status"]["userInfo"],
        json!({"username": "jane", "groups": ["system:masters", "system:authenticated"]})
    );
}
