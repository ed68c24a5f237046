//! `[sig-api-machinery] ResourceQuota`: admission charges, the controller counts again.

use serde_json::{Value, json};

use super::{controlled, count, patch, post, put, send_as, until};
use crate::server::TestServer;

const QUOTAS: &str = "/api/v1/namespaces/default/resourcequotas";
const NAMESPACE: &str = "/api/v1/namespaces/default";

/// What upstream's tests limit, with more or other limits.
async fn limit(server: &TestServer, name: &str, more: Value) {
    let mut hard = json!({"pods": "5", "services": "10", "services.nodeports": "1", "services.loadbalancers": "1",
        "replicationcontrollers": "10", "resourcequotas": "1", "cpu": "1", "memory": "500Mi", "configmaps": "10",
        "secrets": "10", "persistentvolumeclaims": "10", "requests.storage": "10Gi", "ephemeral-storage": "50Gi",
        "gold.storageclass.storage.k8s.io/persistentvolumeclaims": "10",
        "gold.storageclass.storage.k8s.io/requests.storage": "10Gi", "requests.example.com/dongle": "3",
        "count/replicasets.apps": "5"});
    hard.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    post(server, QUOTAS, json!({"metadata": {"name": name}, "spec": {"hard": hard}})).await;
}

/// Waits until the status says what its spec limits, and that this much is used.
async fn used(server: &TestServer, name: &str, wanted: Value) {
    let path = format!("{QUOTAS}/{name}");
    let asked = tokio::time::timeout(std::time::Duration::from_secs(30), async {
        loop {
            let (_, quota) = server.send("GET", &path, None).await;
            let all = wanted
                .as_object()
                .unwrap()
                .iter()
                .all(|(key, amount)| quota["status"]["used"][key] == *amount);
            if all && quota["status"]["hard"] == quota["spec"]["hard"] {
                return;
            }
            tokio::task::yield_now().await;
        }
    });
    let (_, last) = (asked.await, server.send("GET", &path, None).await);
    let status = &last.1["status"]["used"];
    for (key, amount) in wanted.as_object().unwrap() {
        assert_eq!(status[key], *amount, "{name} {key}: {last:?}");
    }
}

/// Makes one object, sees it counted, deletes it and sees it counted no more.
async fn lives(server: &TestServer, path: &str, object: Value, key: &str, before: usize) {
    used(server, "test-quota", json!({"resourcequotas": "1", key: before.to_string()})).await;
    let name = object["metadata"]["name"].as_str().unwrap().to_owned();
    post(server, path, object).await;
    used(server, "test-quota", json!({key: (before + 1).to_string()})).await;
    let (code, body) =
        server.send("DELETE", &format!("{path}/{name}?propagationPolicy=Background"), None).await;
    assert_eq!(code, 200, "{body}");
    used(server, "test-quota", json!({key: before.to_string()})).await;
}

fn template() -> Value {
    json!({"metadata": {"labels": {"name": "nginx"}}, "spec": {"containers": [{"name": "nginx", "image": "nginx"}]}})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn objects_are_counted_over_their_whole_life() {
    let server = controlled().await;
    // The namespace's own bundle is counted too.
    until(async || (count(&server, &format!("{NAMESPACE}/configmaps")).await == 1).then_some(())).await;
    limit(&server, "test-quota", json!({"secrets": "1", "configmaps": "2"})).await;
    used(
        &server,
        "test-quota",
        json!({"resourcequotas": "1", "pods": "0", "cpu": "0", "requests.storage": "0"}),
    )
    .await;
    let secret = json!({"metadata": {"name": "test-secret"}, "data": {"data-1": "dmFsdWUtMQo="}});
    lives(&server, &format!("{NAMESPACE}/secrets"), secret, "secrets", 0).await;
    let map = json!({"metadata": {"name": "test-configmap"}, "data": {"a": "b"}});
    lives(&server, &format!("{NAMESPACE}/configmaps"), map, "configmaps", 1).await;
    let controller = json!({"metadata": {"name": "test-rc"},
        "spec": {"replicas": 0, "selector": {"name": "nginx"}, "template": template()}});
    lives(&server, &format!("{NAMESPACE}/replicationcontrollers"), controller, "replicationcontrollers", 0)
        .await;
    let set = json!({"metadata": {"name": "test-rs"},
        "spec": {"replicas": 0, "selector": {"matchLabels": {"name": "nginx"}}, "template": template()}});
    lives(&server, "/apis/apps/v1/namespaces/default/replicasets", set, "count/replicasets.apps", 0).await;
}

fn service(name: &str, kind: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"type": kind, "ports": [{"port": 80, "targetPort": 80}]}})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn services_are_counted_with_their_node_ports_and_load_balancers() {
    let server = controlled().await;
    let path = format!("{NAMESPACE}/services");
    // `kubernetes` is in this namespace, where upstream's test has one without any Service.
    let own = count(&server, &path).await;
    limit(&server, "test-quota", json!({})).await;
    used(&server, "test-quota", json!({"resourcequotas": "1", "services": own.to_string()})).await;
    post(&server, &path, service("test-service", "ClusterIP")).await;
    post(&server, &path, service("test-service-np", "NodePort")).await;
    let (code, body) = server.send("POST", &path, Some(service("test-service-lb", "LoadBalancer"))).await;
    assert_eq!((code, &body["reason"]), (403, &json!("Forbidden")), "{body}");
    let message = "exceeded quota: test-quota, requested: services.nodeports=1, used: services.nodeports=1, limited: services.nodeports=1";
    assert!(body["message"].as_str().unwrap().ends_with(message), "{body}");
    let both =
        json!({"services": (own + 2).to_string(), "services.nodeports": "1", "services.loadbalancers": "0"});
    used(&server, "test-quota", both).await;
    for name in ["test-service", "test-service-np"] {
        let (code, _) = server.send("DELETE", &format!("{path}/{name}"), None).await;
        assert_eq!(code, 200);
    }
    let none = json!({"services": own.to_string(), "services.nodeports": "0", "services.loadbalancers": "0"});
    used(&server, "test-quota", none).await;
}

fn pod(name: &str, requests: Value, limits: Value) -> Value {
    json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "pause", "image": "pause",
        "resources": {"requests": requests, "limits": limits}}]}})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_are_charged_for_what_they_request_until_they_are_deleted() {
    let server = controlled().await;
    post(&server, &format!("{NAMESPACE}/serviceaccounts"), json!({"metadata": {"name": "own"}})).await;
    let pods = format!("{NAMESPACE}/pods");
    limit(&server, "test-quota", json!({})).await;
    used(&server, "test-quota", json!({"resourcequotas": "1"})).await;
    let dongles = json!({"example.com/dongle": "2"});
    let requests =
        json!({"cpu": "500m", "memory": "252Mi", "ephemeral-storage": "30Gi", "example.com/dongle": "2"});
    until(async || {
        let path = format!("{NAMESPACE}/serviceaccounts/default");
        (server.send("GET", &path, None).await.0 == 200).then_some(())
    })
    .await;
    let made = post(&server, &pods, pod("test-pod", requests, dongles.clone())).await;
    let charged = json!({"resourcequotas": "1", "pods": "1", "cpu": "500m", "memory": "252Mi", "ephemeral-storage": "30Gi",
        "requests.example.com/dongle": "2"});
    used(&server, "test-quota", charged.clone()).await;
    let too_much = [
        (
            pod("fail-pod", json!({"cpu": "600m", "memory": "100Mi"}), json!({})),
            "exceeded quota: test-quota, requested: cpu=600m, used: cpu=500m, limited: cpu=1",
        ),
        (
            pod(
                "fail-pod-for-extended-resource",
                json!({"cpu": "500m", "memory": "100Mi", "ephemeral-storage": "10Gi", "example.com/dongle": "2"}),
                dongles,
            ),
            "requested: requests.example.com/dongle=2, used: requests.example.com/dongle=2, limited: requests.example.com/dongle=3",
        ),
    ];
    for (object, message) in too_much {
        let (code, body) = server.send("POST", &pods, Some(object)).await;
        assert_eq!((code, &body["reason"]), (403, &json!("Forbidden")), "{body}");
        assert!(body["message"].as_str().unwrap().ends_with(message), "{body}");
    }
    let mut changed = made;
    changed["spec"]["containers"][0]["resources"]["requests"] =
        json!({"cpu": "100m", "memory": "100Mi", "ephemeral-storage": "10Gi"});
    let (code, body) = server.send("PUT", &format!("{pods}/test-pod"), Some(changed)).await;
    assert_eq!((code, &body["reason"]), (422, &json!("Invalid")), "{body}");
    used(&server, "test-quota", charged).await;
    let (code, _) = server.send("DELETE", &format!("{pods}/test-pod?gracePeriodSeconds=0"), None).await;
    assert_eq!(code, 200);
    let free = json!({"resourcequotas": "1", "pods": "0", "cpu": "0", "memory": "0", "ephemeral-storage": "0",
        "requests.example.com/dongle": "0"});
    used(&server, "test-quota", free).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quota_is_about_the_pods_of_its_scopes_alone() {
    let server = controlled().await;
    let pods = format!("{NAMESPACE}/pods");
    until(async || {
        let path = format!("{NAMESPACE}/serviceaccounts/default");
        (server.send("GET", &path, None).await.0 == 200).then_some(())
    })
    .await;
    for (scope, hard) in [
        ("Terminating", json!({"pods": "5"})),
        ("NotTerminating", json!({"pods": "5"})),
        ("BestEffort", json!({"pods": "5"})),
        ("NotBestEffort", json!({"pods": "5"})),
    ] {
        let name = format!("quota-{}", scope.to_lowercase());
        post(&server, QUOTAS, json!({"metadata": {"name": name}, "spec": {"hard": hard, "scopes": [scope]}}))
            .await;
        used(&server, &name, json!({"pods": "0"})).await;
    }
    let (requests, limits) =
        (json!({"cpu": "500m", "memory": "200Mi"}), json!({"cpu": "1", "memory": "400Mi"}));
    let mut ends = pod("terminating-pod", requests.clone(), limits.clone());
    ends["spec"]["activeDeadlineSeconds"] = json!(3600);
    for (object, counted, not) in [
        (
            pod("test-pod", requests, limits),
            ["notterminating", "notbesteffort"],
            ["terminating", "besteffort"],
        ),
        (ends, ["terminating", "notbesteffort"], ["notterminating", "besteffort"]),
        (
            pod("besteffort-pod", json!({}), json!({})),
            ["notterminating", "besteffort"],
            ["terminating", "notbesteffort"],
        ),
    ] {
        let name = object["metadata"]["name"].as_str().unwrap().to_owned();
        post(&server, &pods, object).await;
        for scope in counted {
            used(&server, &format!("quota-{scope}"), json!({"pods": "1"})).await;
        }
        for scope in not {
            used(&server, &format!("quota-{scope}"), json!({"pods": "0"})).await;
        }
        let (code, _) = server.send("DELETE", &format!("{pods}/{name}?gracePeriodSeconds=0"), None).await;
        assert_eq!(code, 200);
        for scope in counted {
            used(&server, &format!("quota-{scope}"), json!({"pods": "0"})).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn quotas_are_updated_and_deleted() {
    let server = controlled().await;
    let one = format!("{QUOTAS}/test-quota");
    let hard = json!({"cpu": "1", "memory": "500Mi"});
    let labels = json!({"e2e": "quota"});
    let quota = json!({"metadata": {"name": "test-quota", "labels": labels}, "spec": {"hard": hard}});
    let mut made = post(&server, QUOTAS, quota).await;
    assert_eq!(made["spec"]["hard"], hard);
    let updated = until(async || {
        made["spec"]["hard"] = json!({"cpu": "2", "memory": "1Gi"});
        let (code, body) = server.send("PUT", &one, Some(made.clone())).await;
        if code == 200 {
            return Some(body);
        }
        made = server.send("GET", &one, None).await.1;
        None
    })
    .await;
    assert_eq!(updated["spec"]["hard"], json!({"cpu": "2", "memory": "1Gi"}));
    let change =
        json!({"metadata": {"labels": {"test-quota": "patched"}}, "spec": {"hard": {"memory": "750Mi"}}});
    let patched = patch(&server, &one, change).await;
    assert_eq!(patched["metadata"]["labels"]["test-quota"], "patched");
    assert_eq!(patched["spec"]["hard"], json!({"cpu": "2", "memory": "750Mi"}));
    let everywhere = "/api/v1/resourcequotas?labelSelector=test-quota%3Dpatched";
    assert_eq!(count(&server, everywhere).await, 1);
    let (code, _) = server.send("DELETE", &format!("{QUOTAS}?labelSelector=e2e%3Dquota"), None).await;
    assert_eq!((code, count(&server, everywhere).await), (200, 0));
    assert_eq!(server.send("GET", &one, None).await.0, 404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_status_of_a_quota_can_be_changed_and_is_put_right_again() {
    let server = controlled().await;
    let one = format!("{QUOTAS}/e2e-rq-status");
    let status = format!("{one}/status");
    let hard = json!({"cpu": "500m", "memory": "500Mi"});
    post(&server, QUOTAS, json!({"metadata": {"name": "e2e-rq-status"}, "spec": {"hard": hard}})).await;
    let updated = until(async || {
        let (_, mut quota) = server.send("GET", &one, None).await;
        quota["status"] = json!({"hard": quota["spec"]["hard"]});
        let (code, body) = server.send("PUT", &status, Some(quota)).await;
        (code == 200).then_some(body)
    })
    .await;
    assert_eq!(updated["status"]["hard"], hard);
    let larger = json!({"cpu": "1", "memory": "1Gi"});
    let patched = patch(&server, &one, json!({"spec": {"hard": larger}})).await;
    assert_eq!(patched["spec"]["hard"], larger);
    let patched = patch(&server, &status, json!({"status": {"hard": larger}})).await;
    assert_eq!((&patched["status"]["hard"], &patched["spec"]["hard"]), (&larger, &larger));
    let (_, seen) = server.send("GET", &status, None).await;
    assert_eq!((&seen["kind"], &seen["status"]["hard"]), (&json!("ResourceQuota"), &larger));
    let repatched = patch(&server, &status, json!({"status": {"hard": {"cpu": "2", "memory": "2Gi"}}})).await;
    assert_eq!(repatched["status"]["hard"], json!({"cpu": "2", "memory": "2Gi"}));
    assert_eq!(repatched["spec"]["hard"], larger, "the spec is not changed");
    until(async || (server.send("GET", &one, None).await.1["status"]["hard"] == larger).then_some(())).await;
}

#[tokio::test]
async fn a_quota_may_not_limit_what_its_scopes_exclude() {
    let server = TestServer::start().await;
    let quota = json!({"metadata": {"name": "q"}, "spec": {"hard": {"cpu": "1"}, "scopes": ["BestEffort"]}});
    let (code, _, body) =
        send_as(&server, ("POST", QUOTAS), ("application/json", "application/json"), quota.to_string()).await;
    assert_eq!(code, 422, "{body}");
    let fine = json!({"metadata": {"name": "q"}, "spec": {"hard": {"pods": "1"}, "scopes": ["BestEffort"]}});
    let mut made = post(&server, QUOTAS, fine).await;
    made["spec"]["scopes"] = json!(["NotBestEffort"]);
    let (code, body) = server.send("PUT", &format!("{QUOTAS}/q"), Some(made.clone())).await;
    assert_eq!(code, 422, "scopes stay as they are: {body}");
    made["spec"]["scopes"] = json!(["BestEffort"]);
    put(&server, &format!("{QUOTAS}/q"), made).await;
}
