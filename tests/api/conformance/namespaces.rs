//! `[sig-api-machinery] Namespaces`, `OrderedNamespaceDeletion`; `[sig-auth] ServiceAccounts` as far as controllers and
//! the API go.

use serde_json::{Value, json};

use super::{MERGE, controlled, count, patch, post, put, send_as, until};
use crate::server::TestServer;

const NAMESPACES: &str = "/api/v1/namespaces";

async fn furnished(server: &TestServer, namespace: &str) {
    post(server, NAMESPACES, json!({"metadata": {"name": namespace, "labels": {"e2e": namespace}}})).await;
    let account = format!("{NAMESPACES}/{namespace}/serviceaccounts/default");
    until(async || (server.send("GET", &account, None).await.0 == 200).then_some(())).await;
}

async fn get(server: &TestServer, path: &str) -> Value {
    let (code, body) = server.send("GET", path, None).await;
    assert_eq!(code, 200, "{body}");
    body
}

async fn gone(server: &TestServer, path: &str) {
    until(async || (server.send("GET", path, None).await.0 == 404).then_some(())).await;
}

fn pod(name: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "nginx", "image": "pause"}]}})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_and_services_are_removed_with_their_namespace() {
    let server = controlled().await;
    for (plural, name, object) in [
        ("pods", "test-pod", pod("test-pod")),
        (
            "services",
            "test-service",
            json!({"metadata": {"name": "test-service"}, "spec": {"ports": [{"port": 80}]}}),
        ),
    ] {
        let namespace = format!("nsdeletetest-{plural}");
        furnished(&server, &namespace).await;
        let all = format!("{NAMESPACES}/{namespace}/{plural}");
        post(&server, &all, object).await;
        let own = format!("{NAMESPACES}/{namespace}");
        let (code, told) = server.send("DELETE", &own, None).await;
        assert_eq!((code, &told["status"]["phase"]), (200, &json!("Terminating")), "{told}");
        gone(&server, &own).await;
        furnished(&server, &namespace).await;
        assert_eq!(server.send("GET", &format!("{all}/{name}"), None).await.0, 404);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_are_deleted_before_anything_else_of_their_namespace() {
    let server = controlled().await;
    furnished(&server, "nsdeletetest").await;
    let own = format!("{NAMESPACES}/nsdeletetest");
    let mut held = pod("test-pod");
    held["metadata"]["finalizers"] = json!(["e2e.example.com/finalizer"]);
    post(&server, &format!("{own}/pods"), held).await;
    post(&server, &format!("{own}/configmaps"), json!({"metadata": {"name": "test-configmap"}})).await;
    server.send("DELETE", &own, None).await;
    let told = until(async || {
        let namespace = get(&server, &own).await;
        let conditions = namespace["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let told = conditions.iter().any(|c| c["type"] == "NamespaceDeletionContentFailure");
        let pod = get(&server, &format!("{own}/pods/test-pod")).await;
        (told && pod["metadata"]["deletionTimestamp"].is_string()).then_some(namespace)
    })
    .await;
    assert_eq!(told["status"]["phase"], "Terminating");
    get(&server, &format!("{own}/configmaps/test-configmap")).await;
    // As upstream's test does it: the whole pod is sent, with no finalizers.
    let mut pod = get(&server, &format!("{own}/pods/test-pod")).await;
    pod["metadata"]["finalizers"] = json!([]);
    put(&server, &format!("{own}/pods/test-pod"), pod).await;
    gone(&server, &own).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_namespace_takes_labels_a_status_and_finalizers() {
    let server = controlled().await;
    let mut made =
        post(&server, NAMESPACES, json!({"metadata": {"name": "e2e-ns", "labels": {"e2e": "1"}}})).await;
    assert_eq!(made["spec"]["finalizers"], json!(["kubernetes"]));
    let own = format!("{NAMESPACES}/e2e-ns");
    let types = ("application/strategic-merge-patch+json", "application/json");
    let label = json!({"metadata": {"labels": {"testLabel": "testValue"}}}).to_string();
    let (code, _, body) = send_as(&server, ("PATCH", &own), types, label).await;
    assert_eq!((code, &body["metadata"]["labels"]["testLabel"]), (200, &json!("testValue")), "{body}");
    let version =
        |object: &Value| object["metadata"]["resourceVersion"].as_str().unwrap().parse::<u64>().unwrap();
    assert!(version(&body) > version(&made));
    assert_eq!(get(&server, &own).await["metadata"]["labels"]["testLabel"], "testValue");

    let status = format!("{own}/status");
    assert_eq!(get(&server, &status).await["status"]["phase"], "Active");
    // Go writes the time that is not set.
    let condition = json!({"type": "StatusPatch", "status": "True", "lastTransitionTime": null, "reason": "E2E",
        "message": "Patched by an e2e test"});
    let change = json!({"metadata": {"annotations": {"e2e-patched-ns-status": "e2e-ns"}}, "status": {"conditions": [condition]}});
    let mut patched = patch(&server, &status, change).await;
    assert_eq!(patched["metadata"]["annotations"]["e2e-patched-ns-status"], "e2e-ns");
    let last = patched["status"]["conditions"].as_array().unwrap().last().unwrap();
    assert_eq!((&last["reason"], &last["message"]), (&json!("E2E"), &json!("Patched by an e2e test")));
    let more = json!({"type": "StatusUpdate", "status": "True", "lastTransitionTime": null, "reason": "E2E",
        "message": "Updated by an e2e test"});
    patched["status"]["conditions"].as_array_mut().unwrap().push(more);
    let updated = put(&server, &status, patched).await;
    let last = updated["status"]["conditions"].as_array().unwrap().last().unwrap();
    assert_eq!((&last["type"], &last["message"]), (&json!("StatusUpdate"), &json!("Updated by an e2e test")));

    made = updated;
    made["metadata"]["labels"]["e2e-ns"] = json!("updated");
    let mut updated = put(&server, &own, made).await;
    assert_eq!(updated["metadata"]["labels"]["e2e-ns"], "updated");

    let fake = "e2e.example.com/fakeFinalizer";
    updated["spec"]["finalizers"] = json!(["kubernetes", fake]);
    let mut finalized = put(&server, &format!("{own}/finalize"), updated).await;
    assert_eq!(finalized["spec"]["finalizers"], json!(["kubernetes", fake]));
    finalized["spec"]["finalizers"] = json!(["kubernetes"]);
    let finalized = put(&server, &format!("{own}/finalize"), finalized).await;
    assert_eq!(finalized["spec"]["finalizers"], json!(["kubernetes"]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn service_accounts_live_and_the_root_certificate_is_in_every_namespace() {
    let server = controlled().await;
    furnished(&server, "svcaccounts").await;
    let accounts = format!("{NAMESPACES}/svcaccounts/serviceaccounts");
    let labels = json!({"test-serviceaccount-static": "true"});
    post(&server, &accounts, json!({"metadata": {"name": "testserviceaccount", "labels": labels}})).await;
    let one = format!("{accounts}/testserviceaccount");
    let types = ("application/strategic-merge-patch+json", "application/json");
    let change = json!({"metadata": {"labels": {"test-serviceaccount": "patched"}}, "automountServiceAccountToken": false});
    let (code, _, body) = send_as(&server, ("PATCH", &one), types, change.to_string()).await;
    assert_eq!((code, &body["automountServiceAccountToken"]), (200, &json!(false)), "{body}");
    let everywhere = "/api/v1/serviceaccounts?labelSelector=test-serviceaccount-static%3Dtrue";
    let (_, list) = server.send("GET", everywhere, None).await;
    assert_eq!(list["items"][0]["metadata"]["labels"]["test-serviceaccount"], "patched");
    let mine = format!("{accounts}?labelSelector=test-serviceaccount-static%3Dtrue");
    let (code, _) = server.send("DELETE", &mine, None).await;
    assert_eq!((code, count(&server, everywhere).await), (200, 0));

    let made = post(&server, &accounts, json!({"metadata": {"name": "e2e-sa"}})).await;
    let mut changed = made;
    changed["automountServiceAccountToken"] = json!(true);
    assert_eq!(
        put(&server, &format!("{accounts}/e2e-sa"), changed).await["automountServiceAccountToken"],
        true
    );

    let bundle = format!("{NAMESPACES}/svcaccounts/configmaps/kube-root-ca.crt");
    until(async || (server.send("GET", &bundle, None).await.0 == 200).then_some(())).await;
    server.send("DELETE", &bundle, None).await;
    until(async || (server.send("GET", &bundle, None).await.0 == 200).then_some(())).await;
    let (code, _, body) =
        send_as(&server, ("PATCH", &bundle), MERGE, json!({"data": {"ca.crt": ""}}).to_string()).await;
    assert_eq!(code, 200, "{body}");
    let whole = async || (get(&server, &bundle).await["data"] == json!({"ca.crt": "the root"})).then_some(());
    until(whole).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_can_opt_out_of_the_token() {
    let server = controlled().await;
    furnished(&server, "svcaccounts").await;
    let own = format!("{NAMESPACES}/svcaccounts");
    let account = |name: &str, automount: bool| json!({"metadata": {"name": name}, "automountServiceAccountToken": automount});
    post(&server, &format!("{own}/serviceaccounts"), account("mount", true)).await;
    post(&server, &format!("{own}/serviceaccounts"), account("nomount", false)).await;
    for (account, says, mounts) in [
        ("default", None, true),
        ("default", Some(true), true),
        ("default", Some(false), false),
        ("mount", None, true),
        ("mount", Some(true), true),
        ("mount", Some(false), false),
        ("nomount", None, false),
        ("nomount", Some(true), true),
        ("nomount", Some(false), false),
    ] {
        let name = format!(
            "pod-service-account-{account}-{}",
            says.map_or("unset".to_owned(), |says| says.to_string())
        );
        let mut pod = pod(&name);
        pod["spec"]["serviceAccountName"] = json!(account);
        if let Some(says) = says {
            pod["spec"]["automountServiceAccountToken"] = json!(says);
        }
        let made = post(&server, &format!("{own}/pods"), pod).await;
        let found = made["spec"]["containers"][0]["volumeMounts"].as_array().cloned().unwrap_or_default();
        let token = |mount: &Value| mount["mountPath"] == "/var/run/secrets/kubernetes.io/serviceaccount";
        assert_eq!(found.iter().any(token), mounts, "{name}: {found:?}");
    }
}
