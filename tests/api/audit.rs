//! The audit log of a server that was told to keep one.

use std::path::Path;

use axum::body::Body;
use http::Request;
use kube_lite::apiserver::ApiServerConfig;
use kube_lite::apiserver::audit::AuditOptions;
use serde_json::{Value, json};

use crate::server::TestServer;

const POLICY: &str = r#"
apiVersion: audit.k8s.io/v1
kind: Policy
omitManagedFields: true
rules:
- {level: None, users: ["system:apiserver"]}
- {level: RequestResponse, resources: [{group: "", resources: [configmaps]}]}
- {level: Metadata, omitStages: [RequestReceived]}
"#;

/// The lines about a URI, in order.
fn lines(path: &Path, uri: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap();
    let all = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    all.filter(|line| line["requestURI"] == uri).collect()
}

#[tokio::test]
async fn requests_are_recorded_as_the_policy_says() {
    let dir = tempfile::tempdir().unwrap();
    let (policy, log) = (dir.path().join("policy.yaml"), dir.path().join("logs/audit.log"));
    std::fs::write(&policy, POLICY).unwrap();
    let audit =
        AuditOptions { policy_file: Some(policy), log_path: Some(log.clone()), ..AuditOptions::default() };
    let server = TestServer::with(ApiServerConfig { audit, ..ApiServerConfig::default() }).await;
    let maps = "/api/v1/namespaces/default/configmaps";
    let map = json!({"metadata": {"name": "a"}, "data": {"k": "v"}});
    let (code, _) = server.send("POST", maps, Some(map.clone())).await;
    assert_eq!(code, 201);
    let (code, _) = server.send("POST", maps, Some(map)).await;
    assert_eq!(code, 409);
    let request = Request::get("/api/v1/namespaces/default/pods?limit=1")
        .header("impersonate-user", "jane")
        .header("audit-id", "my-own-id")
        .header("user-agent", "test/1")
        .body(Body::empty())
        .unwrap();
    let response = server.raw(request).await;
    assert_eq!(
        (response.status().as_u16(), &response.headers()["audit-id"]),
        (403, &"my-own-id".parse().unwrap())
    );
    let watch = format!("{maps}?watch=1&timeoutSeconds=1");
    let request = Request::get(&watch).body(Body::empty()).unwrap();
    drop(server.raw(request).await);
    server.stop.cancel();
    server.api.drain().await;

    let created = lines(&log, maps);
    let stages: Vec<_> = created.iter().map(|line| line["stage"].as_str().unwrap()).collect();
    assert_eq!(stages, ["RequestReceived", "ResponseComplete", "RequestReceived", "ResponseComplete"]);
    let done = &created[1];
    assert_eq!(
        (&done["level"], &done["verb"], &done["user"]["username"]),
        (&json!("RequestResponse"), &json!("create"), &json!("admin"))
    );
    assert_eq!(
        done["objectRef"],
        json!({"resource": "configmaps", "namespace": "default", "name": "a", "apiVersion": "v1"})
    );
    assert_eq!(done["requestObject"]["data"], json!({"k": "v"}));
    assert!(
        done["responseObject"]["metadata"]["uid"].is_string()
            && done["responseObject"]["metadata"]["managedFields"].is_null()
    );
    assert_eq!(done["responseStatus"], json!({"metadata": {}, "code": 201}));
    assert_eq!(done["annotations"]["authorization.k8s.io/decision"], "allow");
    assert_eq!(created[0]["auditID"], done["auditID"]);
    let refused = &created[3]["responseStatus"];
    assert_eq!(
        (&refused["code"], &refused["reason"], &refused["status"]),
        (&json!(409), &json!("AlreadyExists"), &json!("Failure"))
    );
    let listed = lines(&log, "/api/v1/namespaces/default/pods?limit=1");
    assert_eq!(listed.len(), 1, "its first stage is left out");
    let line = &listed[0];
    assert_eq!(
        (&line["auditID"], &line["userAgent"], &line["impersonatedUser"]["username"]),
        (&json!("my-own-id"), &json!("test/1"), &json!("jane"))
    );
    assert_eq!(
        (&line["annotations"]["authorization.k8s.io/decision"], &line["responseObject"]),
        (&json!("forbid"), &Value::Null)
    );
    let stages: Vec<_> = lines(&log, &watch).into_iter().map(|line| line["stage"].clone()).collect();
    assert_eq!(stages, ["RequestReceived", "ResponseStarted", "ResponseComplete"]);
}
