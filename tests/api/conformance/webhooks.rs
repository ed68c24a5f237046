//! `[sig-api-machinery] AdmissionWebhook`, `CustomResourceConversionWebhook`, `CustomResourceFieldSelectors`: against
//! webhooks behind a Service that do what those of upstream's test image do.

mod served;

use serde_json::{Value, json};

use super::{DEFINITIONS, Watch, count, post, put, send_as, until};
use crate::server::TestServer;
use served::{client_config, serve};

const VALIDATING: &str = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations";
const MUTATING: &str = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations";
const OWN: &str = "/api/v1/namespaces/webhook";
const STRATEGIC: (&str, &str) = ("application/strategic-merge-patch+json", "application/json");

/// A webhook about requests in namespaces with a label.
fn hook(server: &TestServer, name: &str, path: &str, operations: &[&str], resource: (&str, &str)) -> Value {
    json!({"name": name, "sideEffects": "None", "admissionReviewVersions": ["v1", "v1beta1"],
        "clientConfig": client_config(server, path), "namespaceSelector": {"matchLabels": {"webhook": "true"}},
        "rules": [{"operations": operations, "apiGroups": [resource.0], "apiVersions": ["*"], "resources": [resource.1]}]})
}

/// A server with the webhooks and the namespace that they are about.
async fn prepared() -> TestServer {
    let server = TestServer::start().await;
    serve(&server).await;
    post(
        &server,
        "/api/v1/namespaces",
        json!({"metadata": {"name": "webhook", "labels": {"webhook": "true"}}}),
    )
    .await;
    post(&server, &format!("{OWN}/serviceaccounts"), json!({"metadata": {"name": "default"}})).await;
    server
}

/// Configures webhooks and waits until they are asked.
async fn register(server: &TestServer, path: &str, name: &str, mut webhooks: Vec<Value>) {
    // A marker that is refused, or changed, tells that the configuration is known.
    let mut marker = hook(server, "is-ready.k8s.io", "/always-deny", &["CREATE"], ("", "configmaps"));
    marker["objectSelector"] = json!({"matchLabels": {name: "ready"}});
    webhooks.push(marker);
    post(server, path, json!({"metadata": {"name": name}, "webhooks": webhooks})).await;
    let probe = json!({"metadata": {"generateName": "marker-", "labels": {name: "ready"}}});
    until(async || {
        let (code, body) =
            server.send("POST", &format!("{OWN}/configmaps?dryRun=All"), Some(probe.clone())).await;
        body["message"]
            .as_str()
            .is_some_and(|m| code != 201 && m.contains("this webhook denies all requests"))
            .then_some(())
    })
    .await;
}

/// The message with which a request is refused.
async fn refused(server: &TestServer, method: &str, path: &str, body: Option<Value>) -> (u16, String) {
    let (code, body) = server.send(method, path, body).await;
    assert!(code >= 400, "{method} {path} was not refused: {body}");
    (code, body["message"].as_str().unwrap_or_default().to_owned())
}

fn pod(name: &str, label: &str, container: &str) -> Value {
    json!({"metadata": {"name": name, "labels": {"webhook-e2e-test": label}},
        "spec": {"containers": [{"name": container, "image": "pause"}]}})
}

fn map(name: &str, data: Value) -> Value {
    json!({"metadata": {"name": name}, "data": data})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_and_config_maps_are_denied() {
    let server = prepared().await;
    let mut maps = hook(
        &server,
        "deny-unwanted-configmap-data.k8s.io",
        "/configmaps",
        &["CREATE", "UPDATE", "DELETE"],
        ("", "configmaps"),
    );
    maps["namespaceSelector"]["matchExpressions"] =
        json!([{"key": "skip-webhook-admission", "operator": "NotIn", "values": ["yes"]}]);
    let mut pods = hook(
        &server,
        "deny-unwanted-pod-container-name-and-label.k8s.io",
        "/pods",
        &["CREATE"],
        ("", "pods"),
    );
    pods["timeoutSeconds"] = json!(1);
    let mut unreachable = hook(&server, "fail-open.k8s.io", "/configmaps", &["CREATE"], ("", "configmaps"));
    unreachable["clientConfig"]["caBundle"] = Value::Null;
    unreachable["failurePolicy"] = json!("Ignore");
    register(&server, VALIDATING, "e2e-validating", vec![pods, maps, unreachable]).await;

    let all = format!("{OWN}/pods");
    let bad = pod("disallowed-pod", "webhook-disallow", "webhook-disallow");
    let (code, message) = refused(&server, "POST", &all, Some(bad)).await;
    assert_eq!(code, 400);
    assert!(message.contains("the pod contains unwanted container name"), "{message}");
    assert!(message.contains("the pod contains unwanted label"), "{message}");
    let (code, message) =
        refused(&server, "POST", &all, Some(pod("hanging-pod", "wait-forever", "wait-forever"))).await;
    assert_eq!(code, 500);
    assert!(message.contains("webhook") && message.contains("deadline"), "{message}");
    assert_eq!(server.send("GET", &format!("{all}/hanging-pod"), None).await.0, 404);

    let all = format!("{OWN}/configmaps");
    let unwanted = "the configmap contains unwanted key and value";
    let bad = json!({"webhook-e2e-test": "webhook-disallow"});
    let (_, message) = refused(&server, "POST", &all, Some(map("disallowed-configmap", bad.clone()))).await;
    assert!(message.contains(unwanted), "{message}");
    let mut allowed = post(&server, &all, map("allowed-configmap", json!({"admit": "this"}))).await;
    allowed["data"] = bad.clone();
    let one = format!("{all}/allowed-configmap");
    let (_, message) = refused(&server, "PUT", &one, Some(allowed)).await;
    assert!(message.contains(unwanted), "{message}");
    let change = json!({"data": bad}).to_string();
    let (code, _, body) = send_as(&server, ("PATCH", &one), STRATEGIC, change).await;
    assert!(code == 400 && body["message"].as_str().unwrap().contains(unwanted), "{body}");
    let labels = json!({"webhook": "true", "skip-webhook-admission": "yes"});
    post(&server, "/api/v1/namespaces", json!({"metadata": {"name": "exempted", "labels": labels}})).await;
    post(&server, "/api/v1/namespaces/exempted/configmaps", map("disallowed-configmap", bad.clone())).await;

    // A webhook configured otherwise is asked otherwise.
    let (_, mut configuration) = server.send("GET", &format!("{VALIDATING}/e2e-validating"), None).await;
    configuration["webhooks"][1]["rules"][0]["operations"] = json!(["UPDATE"]);
    put(&server, &format!("{VALIDATING}/e2e-validating"), configuration).await;
    until(async || {
        let path = format!("{all}?dryRun=All");
        (server.send("POST", &path, Some(map("now-fine", bad.clone()))).await.0 == 201).then_some(())
    })
    .await;
    let change = json!([{"op": "replace", "path": "/webhooks/1/rules/0/operations/0", "value": "CREATE"}]);
    let types = ("application/json-patch+json", "application/json");
    let (code, _, body) =
        send_as(&server, ("PATCH", &format!("{VALIDATING}/e2e-validating")), types, change.to_string()).await;
    assert_eq!(code, 200, "{body}");
    until(async || {
        let path = format!("{all}?dryRun=All");
        (server.send("POST", &path, Some(map("not-fine", bad.clone()))).await.0 == 400).then_some(())
    })
    .await;
    let (code, _) = server.send("DELETE", VALIDATING, None).await;
    assert_eq!(code, 200);
    until(async || {
        let path = format!("{all}?dryRun=All");
        (server.send("POST", &path, Some(map("fine-again", bad.clone()))).await.0 == 201).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attaching_to_a_pod_is_denied() {
    let server = prepared().await;
    let denies =
        hook(&server, "deny-attaching-pod.k8s.io", "/pods/attach", &["CONNECT"], ("", "pods/attach"));
    register(&server, VALIDATING, "e2e-attach", vec![denies]).await;
    let mut attached = pod("to-be-attached-pod", "x", "container1");
    attached["spec"]["nodeName"] = json!("node");
    post(&server, &format!("{OWN}/pods"), attached).await;
    let path = format!(
        "{OWN}/pods/to-be-attached-pod/attach?container=container1&stdin=true&stdout=true&stderr=true"
    );
    for method in ["GET", "POST"] {
        let (code, message) = refused(&server, method, &path, None).await;
        assert_eq!(code, 400);
        assert!(message.contains("attaching to pod 'to-be-attached-pod' is not allowed"), "{message}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_webhook_that_cannot_be_reached_refuses_unless_its_failures_are_ignored() {
    let server = prepared().await;
    let mut closed = hook(&server, "fail-closed.k8s.io", "/configmaps", &["CREATE"], ("", "configmaps"));
    closed["clientConfig"]["caBundle"] = Value::Null;
    closed["namespaceSelector"]["matchExpressions"] =
        json!([{"key": "fail-closed-webhook", "operator": "In", "values": ["true"]}]);
    let mut absent = hook(&server, "absent.k8s.io", "/", &["CREATE"], ("", "secrets"));
    absent["clientConfig"]["service"]["name"] = json!("absent");
    register(&server, VALIDATING, "e2e-fail-closed", vec![closed, absent]).await;
    let labels = json!({"webhook": "true", "fail-closed-webhook": "true"});
    post(&server, "/api/v1/namespaces", json!({"metadata": {"name": "closed", "labels": labels}})).await;
    let (code, body) =
        server.send("POST", "/api/v1/namespaces/closed/configmaps", Some(map("foo", json!({})))).await;
    assert_eq!((code, &body["reason"]), (500, &json!("InternalError")), "{body}");
    let message = body["message"].as_str().unwrap();
    let start = "Internal error occurred: failed calling webhook \"fail-closed.k8s.io\": failed to call webhook: Post \
        \"https://e2e-test-webhook.hooks.svc:8443/configmaps?timeout=10s\": tls: failed to verify certificate: x509: ";
    assert!(message.starts_with(start), "{message}");
    let (code, message) =
        refused(&server, "POST", &format!("{OWN}/secrets"), Some(map("s", json!({})))).await;
    let wanted = "Internal error occurred: failed calling webhook \"absent.k8s.io\": failed to call webhook: Post \
        \"https://absent.hooks.svc:8443/?timeout=10s\": service \"absent\" not found";
    assert_eq!((code, message.as_str()), (500, wanted));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn timeouts_are_honoured() {
    let server = prepared().await;
    for (i, (path, seconds, policy, wanted)) in [
        ("/never", 1, "Fail", 500),
        ("/never", 1, "Ignore", 201),
        ("/always-allow", 10, "Fail", 201),
        ("/always-allow", 0, "Fail", 201),
    ]
    .into_iter()
    .enumerate()
    {
        let mut slow =
            hook(&server, "allow-configmap-with-delay-webhook.k8s.io", path, &["CREATE"], ("", "configmaps"));
        slow["failurePolicy"] = json!(policy);
        if seconds > 0 {
            slow["timeoutSeconds"] = json!(seconds);
        }
        slow["objectSelector"] = json!({"matchLabels": {"slow": "true"}});
        register(&server, VALIDATING, &format!("e2e-slow-{i}"), vec![slow]).await;
        let mut object = map(&format!("e2e-slow-{i}"), json!({}));
        object["metadata"]["labels"] = json!({"slow": "true"});
        let (code, body) = server.send("POST", &format!("{OWN}/configmaps"), Some(object)).await;
        assert_eq!(code, wanted, "{path} {policy}: {body}");
        if wanted == 500 {
            let message = body["message"].as_str().unwrap();
            assert!(message.ends_with("/never?timeout=1s\": context deadline exceeded"), "{message}");
        }
        let (code, _) = server.send("DELETE", &format!("{VALIDATING}/e2e-slow-{i}"), None).await;
        assert_eq!(code, 200);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn config_maps_and_pods_are_mutated_and_defaulted_after_it() {
    let server = prepared().await;
    let maps = |stage: u8| {
        let name = format!("adding-configmap-data-stage-{stage}.k8s.io");
        let mut hook = hook(&server, &name, "/mutating-configmaps", &["CREATE"], ("", "configmaps"));
        hook["matchConditions"] =
            json!([{"name": "skip-me", "expression": "object.metadata.name != 'skip-me'"}]);
        hook
    };
    let pods = hook(&server, "adding-init-container.k8s.io", "/mutating-pods", &["CREATE"], ("", "pods"));
    register(&server, MUTATING, "e2e-mutating", vec![maps(1), maps(2), pods]).await;
    let start = json!({"mutation-start": "yes"});
    let mutated = post(&server, &format!("{OWN}/configmaps"), map("to-be-mutated", start.clone())).await;
    let both = json!({"mutation-start": "yes", "mutation-stage-1": "yes", "mutation-stage-2": "yes"});
    assert_eq!(mutated["data"], both);
    let skipped = post(&server, &format!("{OWN}/configmaps"), map("skip-me", start.clone())).await;
    assert_eq!(skipped["data"], start);
    let made = post(&server, &format!("{OWN}/pods"), pod("webhook-to-be-mutated", "x", "example")).await;
    let added = &made["spec"]["initContainers"];
    assert_eq!(added.as_array().unwrap().len(), 1);
    assert_eq!(
        (&added[0]["name"], &added[0]["terminationMessagePolicy"]),
        (&json!("webhook-added-init-container"), &json!("File"))
    );
    let mounts = added[0]["volumeMounts"].as_array().unwrap();
    assert_eq!(
        mounts[0]["mountPath"], "/var/run/secrets/kubernetes.io/serviceaccount",
        "as in every container"
    );
    // Reconfigured by update and by patch, as upstream's test does it.
    let one = format!("{MUTATING}/e2e-mutating");
    let change = json!([{"op": "replace", "path": "/webhooks/0/rules/0/operations/0", "value": "UPDATE"},
        {"op": "replace", "path": "/webhooks/1/rules/0/operations/0", "value": "UPDATE"}]);
    let types = ("application/json-patch+json", "application/json");
    let (code, _, body) = send_as(&server, ("PATCH", &one), types, change.to_string()).await;
    assert_eq!(code, 200, "{body}");
    let dry = format!("{OWN}/configmaps?dryRun=All");
    let seen = async || server.send("POST", &dry, Some(map("probe", start.clone()))).await.1["data"].clone();
    until(async || (seen().await == start).then_some(())).await;
    let (_, mut configuration) = server.send("GET", &one, None).await;
    configuration["webhooks"][0]["rules"][0]["operations"] = json!(["CREATE"]);
    put(&server, &one, configuration).await;
    let first = json!({"mutation-start": "yes", "mutation-stage-1": "yes"});
    until(async || (seen().await == first).then_some(())).await;
    let (code, _) = server.send("DELETE", MUTATING, None).await;
    assert_eq!(code, 200);
    until(async || (seen().await == start).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn webhook_configurations_are_out_of_reach_of_webhooks() {
    let server = prepared().await;
    let mut denies = hook(
        &server,
        "deny-webhook-configuration-deletions.k8s.io",
        "/always-deny",
        &["DELETE"],
        ("admissionregistration.k8s.io", "*"),
    );
    let mut adds = hook(
        &server,
        "add-label-to-webhook-configurations.k8s.io",
        "/add-label",
        &["CREATE"],
        ("admissionregistration.k8s.io", "*"),
    );
    for webhook in [&mut denies, &mut adds] {
        webhook.as_object_mut().unwrap().remove("namespaceSelector");
    }
    register(&server, VALIDATING, "e2e-denies", vec![denies]).await;
    register(&server, MUTATING, "e2e-adds", vec![adds]).await;
    for path in [VALIDATING, MUTATING] {
        let dummy = hook(&server, "dummy.k8s.io", "", &["CREATE"], ("", "invalid"));
        let made = post(&server, path, json!({"metadata": {"name": "dummy"}, "webhooks": [dummy]})).await;
        assert!(made["metadata"]["labels"].is_null(), "{made}");
        let (code, body) = server.send("DELETE", &format!("{path}/dummy"), None).await;
        assert_eq!(code, 200, "{body}");
    }
}

/// Defines a kind of two versions, stored in the first, whose objects may say anything.
async fn define(server: &TestServer, group: &str, schemas: [Value; 2], conversion: Value) {
    let version = |name: &str, stored: bool, schema: &Value| {
        let mut version =
            json!({"name": name, "served": true, "storage": stored, "schema": {"openAPIV3Schema": schema}});
        if let Some(Value::Array(fields)) = schema.get("selectable") {
            version["selectableFields"] = json!(fields);
            version["schema"]["openAPIV3Schema"].as_object_mut().unwrap().remove("selectable");
        }
        version
    };
    let definition = json!({"metadata": {"name": format!("crds.{group}")}, "spec": {"group": group, "scope": "Namespaced",
        "names": {"plural": "crds", "kind": "E2eTestCrd"}, "conversion": conversion,
        "versions": [version("v1", true, &schemas[0]), version("v2", false, &schemas[1])]}});
    post(server, DEFINITIONS, definition).await;
    let path = format!("/apis/{group}/v1/namespaces/webhook/crds");
    until(async || (server.send("GET", &path, None).await.0 == 200).then_some(())).await;
}

fn open() -> Value {
    json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})
}

fn custom(group: &str, version: &str, name: &str, data: Value) -> Value {
    json!({"apiVersion": format!("{group}/{version}"), "kind": "E2eTestCrd", "metadata": {"name": name}, "data": data})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn custom_resources_and_definitions_are_denied() {
    let server = prepared().await;
    let group = "webhook-crd.example.com";
    define(&server, group, [open(), open()], json!({"strategy": "None"})).await;
    let objects = hook(
        &server,
        "deny-unwanted-custom-resource-data.k8s.io",
        "/custom-resource",
        &["CREATE", "UPDATE", "DELETE"],
        (group, "crds"),
    );
    let mut definitions = hook(
        &server,
        "deny-crd-with-unwanted-label.k8s.io",
        "/crd",
        &["CREATE"],
        ("apiextensions.k8s.io", "customresourcedefinitions"),
    );
    definitions["objectSelector"] = json!({"matchLabels": {"webhook-e2e-test": "webhook-disallow"}});
    register(&server, VALIDATING, "e2e-custom", vec![objects, definitions]).await;
    let all = format!("/apis/{group}/v1/namespaces/webhook/crds");
    let unwanted = "the custom resource contains unwanted data";
    let bad = json!({"webhook-e2e-test": "webhook-disallow"});
    let (_, message) =
        refused(&server, "POST", &all, Some(custom(group, "v1", "cr-instance-1", bad.clone()))).await;
    assert!(message.contains(unwanted), "{message}");
    let kept = json!({"webhook-e2e-test": "webhook-nondeletable"});
    let mut object = post(&server, &all, custom(group, "v1", "cr-instance-2", kept)).await;
    let one = format!("{all}/cr-instance-2");
    object["data"] = bad;
    let (_, message) = refused(&server, "PUT", &one, Some(object.clone())).await;
    assert!(message.contains(unwanted), "{message}");
    let (code, message) = refused(&server, "DELETE", &one, None).await;
    assert!(
        message.contains("the custom resource cannot be deleted because it contains unwanted key and value"),
        "{code} {message}"
    );
    object["data"] = json!({"webhook-e2e-test": "webhook-allow"});
    put(&server, &one, object).await;
    assert_eq!(server.send("DELETE", &one, None).await.0, 200);
    let definition = json!({"metadata": {"name": "denied.crd.example.com", "labels": {"webhook-e2e-test": "webhook-disallow"}},
        "spec": {"group": "crd.example.com", "scope": "Cluster", "names": {"plural": "denied", "kind": "Denied"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": open()}}]}});
    let (_, message) = refused(&server, "POST", DEFINITIONS, Some(definition)).await;
    assert!(message.contains("the crd contains unwanted label"), "{message}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn custom_resources_are_mutated_pruned_and_kept_over_a_change_of_the_stored_version() {
    let server = prepared().await;
    let groups = ["mutated.example.com", "pruned.example.com"];
    let pruning = json!({"type": "object", "properties": {"data": {"type": "object", "properties": {
        "mutation-start": {"type": "string"}, "mutation-stage-1": {"type": "string"}}}}});
    define(&server, groups[0], [open(), open()], json!({"strategy": "None"})).await;
    define(&server, groups[1], [pruning.clone(), pruning], json!({"strategy": "None"})).await;
    for group in groups {
        let stage = |i: u8, operations: &[&str]| {
            let name = format!("mutate-custom-resource-data-stage-{i}.k8s.io");
            hook(&server, &name, "/mutating-custom-resource", operations, (group, "crds"))
        };
        let name = format!("e2e-{}", group.split_once('.').unwrap().0);
        register(&server, MUTATING, &name, vec![stage(1, &["CREATE", "UPDATE"]), stage(2, &["CREATE"])])
            .await;
    }
    let start = json!({"mutation-start": "yes"});
    let both = json!({"mutation-start": "yes", "mutation-stage-1": "yes", "mutation-stage-2": "yes"});
    for (group, wanted) in
        [(groups[0], both.clone()), (groups[1], json!({"mutation-start": "yes", "mutation-stage-1": "yes"}))]
    {
        let all = format!("/apis/{group}/v1/namespaces/webhook/crds");
        let made = post(&server, &all, custom(group, "v1", "cr-instance-1", start.clone())).await;
        assert_eq!(made["data"], wanted);
    }
    let versions = json!([{"name": "v1", "served": true, "storage": false, "schema": {"openAPIV3Schema": open()}},
        {"name": "v2", "served": true, "storage": true, "schema": {"openAPIV3Schema": open()}}]);
    let definition = format!("{DEFINITIONS}/crds.{}", groups[0]);
    let change = json!({"spec": {"versions": versions}}).to_string();
    let (code, _, body) = send_as(&server, ("PATCH", &definition), STRATEGIC, change).await;
    assert_eq!(code, 200, "{body}");
    assert_eq!(body["status"]["storedVersions"], json!(["v1", "v2"]));
    let one = format!("/apis/{}/v2/namespaces/webhook/crds/cr-instance-1", groups[0]);
    let dummy = json!([{"op": "add", "path": "/dummy", "value": "test"}]).to_string();
    let types = ("application/json-patch+json", "application/json");
    let (code, _, patched) = send_as(&server, ("PATCH", &one), types, dummy).await;
    assert_eq!(code, 200, "{patched}");
    assert_eq!((&patched["data"], &patched["dummy"]), (&both, &json!("test")));
}

/// Objects of the first version say `hostPort`, those of the second `host` and `port`.
async fn convertible(server: &TestServer, group: &str) {
    let text = json!({"type": "string"});
    let schemas = [
        json!({"type": "object", "properties": {"hostPort": text}, "selectable": [{"jsonPath": ".hostPort"}]}),
        json!({"type": "object", "properties": {"host": text, "port": text},
            "selectable": [{"jsonPath": ".host"}, {"jsonPath": ".port"}]}),
    ];
    let conversion = json!({"strategy": "Webhook", "webhook": {"conversionReviewVersions": ["v1", "v1beta1"],
        "clientConfig": client_config(server, "/crdconvert")}});
    define(server, group, schemas, conversion).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn custom_resources_are_converted_between_versions_one_by_one_and_in_lists() {
    let server = prepared().await;
    let group = "stable.example.com";
    convertible(&server, group).await;
    let all = |version: &str| format!("/apis/{group}/{version}/namespaces/webhook/crds");
    let first = json!({"apiVersion": format!("{group}/v1"), "kind": "E2eTestCrd", "metadata": {"name": "cr-instance-1"},
        "hostPort": "localhost:8080"});
    post(&server, &all("v1"), first).await;
    let (code, seen) = server.send("GET", &format!("{}/cr-instance-1", all("v2")), None).await;
    assert_eq!((code, &seen["host"], &seen["port"]), (200, &json!("localhost"), &json!("8080")), "{seen}");
    assert!(seen.get("hostPort").is_none() && seen["apiVersion"] == format!("{group}/v2"), "{seen}");
    let second = json!({"apiVersion": format!("{group}/v2"), "kind": "E2eTestCrd", "metadata": {"name": "cr-instance-2"},
        "host": "other", "port": "80"});
    post(&server, &all("v2"), second).await;
    // Now objects of both versions are stored.
    let change = json!([{"op": "replace", "path": "/spec/versions/0/storage", "value": false},
        {"op": "replace", "path": "/spec/versions/1/storage", "value": true}]);
    let types = ("application/json-patch+json", "application/json");
    let definition = format!("{DEFINITIONS}/crds.{group}");
    let (code, _, body) = send_as(&server, ("PATCH", &definition), types, change.to_string()).await;
    assert_eq!(code, 200, "{body}");
    let third = json!({"apiVersion": format!("{group}/v2"), "kind": "E2eTestCrd", "metadata": {"name": "cr-instance-3"},
        "host": "third", "port": "1"});
    post(&server, &all("v2"), third).await;
    let (_, list) = server.send("GET", &all("v1"), None).await;
    let shown: Vec<&str> =
        list["items"].as_array().unwrap().iter().map(|item| item["hostPort"].as_str().unwrap()).collect();
    assert_eq!(shown, ["localhost:8080", "other:80", "third:1"]);
    let (_, list) = server.send("GET", &all("v2"), None).await;
    let shown: Vec<&str> =
        list["items"].as_array().unwrap().iter().map(|item| item["host"].as_str().unwrap()).collect();
    assert_eq!(shown, ["localhost", "other", "third"]);
    assert!(list["items"].as_array().unwrap().iter().all(|item| item["apiVersion"] == format!("{group}/v2")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn custom_resources_are_listed_and_watched_by_their_selectable_fields_in_every_version() {
    let server = prepared().await;
    let group = "stable.example.com";
    convertible(&server, group).await;
    let all = |version: &str| format!("/apis/{group}/{version}/namespaces/webhook/crds");
    let by = |version: &str, selector: &str| format!("{}?fieldSelector={selector}", all(version));
    let host = by("v2", "host%3Dhost1");
    let host_and_port = by("v2", "host%3Dhost1,port%3D80");
    let first = by("v1", "hostPort%3Dhost1%3A80");
    let mut watches = Vec::new();
    for path in [&host, &host_and_port, &first] {
        watches.push(Watch::open(&server, path).await);
    }
    for (name, fields) in [
        ("a", json!({"host": "host1", "port": "80"})),
        ("b", json!({"host": "host1", "port": "8080"})),
        ("c", json!({"host": "host2"})),
    ] {
        let mut object =
            json!({"apiVersion": format!("{group}/v2"), "kind": "E2eTestCrd", "metadata": {"name": name}});
        object.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        post(&server, &all("v2"), object).await;
    }
    for (path, wanted) in
        [(&host, 2), (&host_and_port, 1), (&first, 1), (&by("v1", "hostPort%3Dhost1%3A8080"), 1)]
    {
        assert_eq!(count(&server, path).await, wanted, "{path}");
    }
    assert_eq!([watches[0].named().await, watches[0].named().await], ["ADDED a", "ADDED b"]);
    for watch in &mut watches[1..] {
        assert_eq!(watch.named().await, "ADDED a");
    }
    let options = json!({"kind": "DeleteOptions", "apiVersion": "v1", "gracePeriodSeconds": 0});
    let (code, body) = server.send("DELETE", &host_and_port, Some(options)).await;
    assert_eq!(code, 200, "{body}");
    let (_, mut other) = server.send("GET", &format!("{}/b", all("v2")), None).await;
    other["host"] = json!("host2");
    put(&server, &format!("{}/b", all("v2")), other).await;
    for path in [&host, &host_and_port] {
        assert_eq!(count(&server, path).await, 0, "{path}");
    }
    assert_eq!([watches[0].named().await, watches[0].named().await], ["DELETED a", "DELETED b"]);
    for watch in &mut watches[1..] {
        assert_eq!(watch.named().await, "DELETED a");
    }
}
