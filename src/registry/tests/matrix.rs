//! Every row: its names as in upstream's discovery, and its verbs on a smallest object.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::json;

use super::*;
use crate::registry::resource::Storage;
use crate::registry::{Catalog, Propagation};

/// The rest of a smallest valid object, by kind.
fn rest(kind: &str) -> Value {
    let template =
        json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i:1"}]}});
    let workload = json!({"spec": {"selector": {"matchLabels": {"a": "b"}}, "template": template.clone()}});
    match kind {
        "Pod" => json!({"spec": {"containers": [{"name": "c", "image": "i:1"}]}}),
        "Service" => json!({"spec": {"ports": [{"port": 80}]}}),
        "Deployment" | "ReplicaSet" | "StatefulSet" | "DaemonSet" => workload,
        "ControllerRevision" => json!({"revision": 1, "data": {}}),
        "Job" | "CronJob" => {
            let mut template = template;
            template["spec"]["restartPolicy"] = "Never".into();
            let job = json!({"spec": {"template": template}});
            if kind == "Job" { job } else { json!({"spec": {"schedule": "* * * * *", "jobTemplate": job}}) }
        }
        "HorizontalPodAutoscaler" => {
            json!({"spec": {"maxReplicas": 2, "scaleTargetRef": {"kind": "Deployment", "name": "d"}}})
        }
        "RoleBinding" | "ClusterRoleBinding" => json!({"roleRef": {"kind": "ClusterRole", "name": "r"}}),
        "EndpointSlice" => json!({"addressType": "IPv4", "endpoints": []}),
        "APIService" => {
            json!({"metadata": {"name": "v9.matrix"}, "spec": {"group": "matrix", "version": "v9",
            "groupPriorityMinimum": 1, "versionPriority": 1}})
        }
        "PersistentVolumeClaim" => json!({"spec": {"accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1Gi"}}}}),
        "PersistentVolume" => {
            json!({"spec": {"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"},
            "hostPath": {"path": "/a"}}})
        }
        "PodTemplate" => json!({"template": template}),
        "ReplicationController" => json!({"spec": {"template": template}}),
        "RuntimeClass" => json!({"handler": "h"}),
        "CertificateSigningRequest" => json!({"spec": {"request": certificate_request(),
            "signerName": "example.com/a", "usages": ["client auth"]}}),
        "FlowSchema" => json!({"spec": {"priorityLevelConfiguration": {"name": "l"}}}),
        "PriorityLevelConfiguration" => json!({"spec": {"type": "Limited",
            "limited": {"limitResponse": {"type": "Queue"}}}}),
        "IPAddress" => json!({"metadata": {"name": "10.9.8.7"}, "spec": {"parentRef":
            {"resource": "services", "namespace": "a", "name": "b"}}}),
        "ServiceCIDR" => json!({"spec": {"cidrs": ["10.9.0.0/16"]}}),
        "IngressClass" => json!({"spec": {"controller": "example.com/a"}}),
        "Ingress" => json!({"spec": {"defaultBackend": {"service": {"name": "s", "port": {"number": 80}}}}}),
        "StorageClass" => json!({"provisioner": "example.com/a"}),
        "VolumeAttributesClass" => json!({"driverName": "example.com", "parameters": {"a": "b"}}),
        "CSINode" => json!({"spec": {"drivers": []}}),
        "CSIStorageCapacity" => json!({"storageClassName": "c"}),
        "VolumeAttachment" => json!({"spec": {"attacher": "a", "nodeName": "n",
            "source": {"persistentVolumeName": "p"}}}),
        "ResourceClaimTemplate" => json!({"spec": {"spec": {}}}),
        "ResourceSlice" => json!({"spec": {"driver": "d", "nodeName": "n",
            "pool": {"name": "p", "generation": 1, "resourceSliceCount": 1}}}),
        "ValidatingAdmissionPolicy" => json!({"spec": {"matchConstraints": matches(),
            "validations": [{"expression": "true"}]}}),
        "ValidatingAdmissionPolicyBinding" => {
            json!({"spec": {"policyName": "p", "validationActions": ["Audit"]}})
        }
        "MutatingAdmissionPolicy" => json!({"spec": {"matchConstraints": matches(),
            "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": "[]"}}],
            "reinvocationPolicy": "Never"}}),
        "MutatingAdmissionPolicyBinding" => json!({"spec": {"policyName": "p"}}),
        "Event" => json!({"involvedObject": {"namespace": "default"}}),
        _ => json!({}),
    }
}

/// What a policy that concerns nothing real matches.
fn matches() -> Value {
    json!({"resourceRules": [{"operations": ["CREATE"], "apiGroups": ["none.example"], "apiVersions": ["v1"],
        "resources": ["things"]}]})
}

/// A request for a certificate as such objects carry it: PEM in base64.
fn certificate_request() -> String {
    use base64::Engine as _;
    let key = rcgen::KeyPair::generate().unwrap();
    let request = rcgen::CertificateParams::default().serialize_request(&key).unwrap();
    base64::engine::general_purpose::STANDARD.encode(request.pem().unwrap())
}

#[tokio::test]
async fn every_verb_of_every_stored_row_works() {
    let world = World::new().await;
    for row in world.registry.catalog().clone().iter().filter(|row| matches!(row.storage, Storage::Own)) {
        // Their names say what they define; `custom/tests.rs` has them.
        if row.plural == "customresourcedefinitions" {
            continue;
        }
        let mut path = row.api_version().into_owned();
        path.push('/');
        path.push_str(&row.plural);
        let namespace = if row.namespaced() { "default" } else { "" };
        let mut object = rest(&row.kind);
        let name = object["metadata"]["name"].as_str().unwrap_or("matrix").to_owned();
        let name = name.as_str();
        object["metadata"] = json!({"name": name});
        let context = |what: &str, error: ApiError| panic!("{what} {path}: {error}");
        let made = world.create(&path, namespace, object).await.unwrap_or_else(|e| context("create", e));
        assert_eq!(
            (made["kind"].as_str(), made["apiVersion"].as_str()),
            (Some(&*row.kind), Some(&*row.api_version()))
        );
        assert_eq!(world.get(&path, namespace, name).await.unwrap(), made, "{path}");
        let list = world.list(&path, namespace, &[]).await.unwrap_or_else(|e| context("list", e));
        assert!(names(&list).contains(&name) && list["kind"] == *row.list_kind, "{path}");
        let same = world.update(&path, None, made.clone()).await.unwrap_or_else(|e| context("update", e));
        assert_eq!(same, made, "an update with the same changes nothing: {path}");
        let label = json!({"metadata": {"labels": {"x": "y"}}});
        for kind in [PatchKind::Merge, PatchKind::Strategic] {
            let patched = world.patch(&path, None, (namespace, name), kind, label.clone()).await;
            assert_eq!(patched.unwrap_or_else(|e| context("patch", e))["metadata"]["labels"]["x"], "y");
        }
        let mut cx = world.cx();
        cx.representation = crate::registry::Representation::Table(crate::registry::IncludeObject::None);
        let table = world.registry.list(&cx, row, namespace, &ListOptions::default()).await;
        let table = value(table.unwrap_or_else(|e| panic!("table {path}: {e}")));
        let columns = table["columnDefinitions"].as_array().unwrap().len();
        assert_eq!(table["rows"][0]["cells"].as_array().unwrap().len(), columns, "{path}");
        if row.plural.starts_with("persistentvolume") {
            // Protected until a controller says that they are in no use.
            let free = json!({"metadata": {"finalizers": null}});
            let freed = world.patch(&path, None, (namespace, name), PatchKind::Merge, free).await;
            freed.unwrap_or_else(|e| context("free", e));
        }
        // There is nobody who would see to orphans.
        let background = DeleteOptions { propagation: Some(Propagation::Background), ..Default::default() };
        world.delete(&path, namespace, name, background).await.unwrap_or_else(|e| context("delete", e));
        if row.plural != "namespaces" {
            assert_eq!(world.get(&path, namespace, name).await.unwrap_err().code(), 404, "{path}");
        }
    }
}

/// What discovery says of a resource, one fact a line.
type Facts = BTreeMap<String, String>;

fn texts(value: &Value) -> String {
    let all: Vec<_> = value.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    all.join(",")
}

fn reference(name: &str) -> Option<Value> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/k8s-1.36").join(name);
    let inside = Path::new("/work/shared/k8s-1.36").join(name);
    let text = std::fs::read(file).or_else(|_| std::fs::read(inside)).ok()?;
    serde_json::from_slice(&text).ok()
}

/// The facts of the recorded discovery document, which has every group but core.
fn recorded(document: &Value) -> Facts {
    let mut facts = Facts::new();
    for group in document["items"].as_array().unwrap() {
        let name = group["metadata"]["name"].as_str().unwrap_or_default();
        for version in group["versions"].as_array().unwrap() {
            for resource in version["resources"].as_array().unwrap() {
                let version = version["version"].as_str().unwrap();
                let key = format!("{name}/{version}/{}", resource["resource"].as_str().unwrap());
                let kind = resource["responseKind"]["kind"].as_str().unwrap_or_default();
                let fact = format!(
                    "{kind} {} {} short={} categories={} verbs={}",
                    resource["scope"].as_str().unwrap(),
                    resource["singularResource"].as_str().unwrap_or_default(),
                    texts(&resource["shortNames"]),
                    texts(&resource["categories"]),
                    texts(&resource["verbs"]),
                );
                facts.insert(key.clone(), fact);
                for part in resource["subresources"].as_array().into_iter().flatten() {
                    let kind = part["responseKind"]["kind"].as_str().unwrap_or_default();
                    let name = part["subresource"].as_str().unwrap();
                    facts.insert(format!("{key}/{name}"), format!("{kind} verbs={}", texts(&part["verbs"])));
                }
            }
        }
    }
    facts
}

fn served() -> Facts {
    let mut facts = Facts::new();
    for row in Catalog::builtin().iter() {
        let key = format!("{}/{}/{}", row.group, row.version, row.plural);
        let verbs: Vec<_> = row.verbs.iter().map(|verb| verb.as_str()).collect();
        let fact = format!(
            "{} {} {} short={} categories={} verbs={}",
            row.kind,
            if row.namespaced() { "Namespaced" } else { "Cluster" },
            row.singular,
            row.short_names.join(","),
            row.categories.join(","),
            verbs.join(","),
        );
        facts.insert(key.clone(), fact);
        for part in &row.subresources {
            let kind = part.body.map_or(row.kind.as_ref(), |(_, _, kind)| kind);
            let verbs = part.verbs.join(",");
            facts.insert(format!("{key}/{}", part.name), format!("{kind} verbs={verbs}"));
        }
    }
    facts
}

#[test]
fn rows_agree_with_upstreams_discovery() {
    let Some(document) = reference("discovery-aggregated-v2.json") else {
        eprintln!("skipped: no reference data");
        return;
    };
    let stable = |key: &str| {
        let mut parts = key.split('/');
        let group = parts.next().unwrap_or_default();
        !group.is_empty() && group != "apiextensions.k8s.io" && matches!(parts.next(), Some("v1" | "v2"))
    };
    let upstream: Facts = recorded(&document).into_iter().filter(|(key, _)| stable(key)).collect();
    let own: Facts = served().into_iter().filter(|(key, _)| stable(key)).collect();
    let keys: std::collections::BTreeSet<_> = upstream.keys().chain(own.keys()).collect();
    let differences: Vec<String> = keys
        .into_iter()
        .filter(|key| upstream.get(*key) != own.get(*key))
        .map(|key| format!("{key}\n  upstream {:?}\n  here     {:?}", upstream.get(key), own.get(key)))
        .collect();
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

/// The paths of upstream's OpenAPI document with their methods; watches under `/watch/` are an old form.
fn paths(document: &Value) -> std::collections::BTreeSet<String> {
    let mut found = std::collections::BTreeSet::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        let stable = path.starts_with("/api/v1/") && !path.starts_with("/api/v1/watch/");
        if !stable || path.ends_with("{path}") || path.ends_with('/') {
            continue;
        }
        for (method, operation) in methods.as_object().unwrap().iter().filter(|(key, _)| *key != "parameters")
        {
            let action = operation["x-kubernetes-action"].as_str().unwrap_or_default();
            let connects = action == "connect";
            if !connects {
                found.insert(format!("{method} {path} {action}"));
            }
        }
    }
    found
}

fn own_paths() -> std::collections::BTreeSet<String> {
    let mut found = std::collections::BTreeSet::new();
    for row in Catalog::builtin().iter().filter(|row| row.group.is_empty()) {
        let base = if row.namespaced() { "/api/v1/namespaces/{namespace}" } else { "/api/v1" };
        let base = format!("{base}/{}", row.plural);
        for verb in row.verbs {
            let line = match verb.as_str() {
                "list" | "watch" => format!("get {base} list"),
                "create" => format!("post {base} post"),
                "deletecollection" => format!("delete {base} deletecollection"),
                "update" => format!("put {base}/{{name}} put"),
                verb => format!("{verb} {base}/{{name}} {verb}"),
            };
            found.insert(line);
            if row.namespaced() && matches!(verb.as_str(), "list") {
                found.insert(format!("get /api/v1/{} list", row.plural));
            }
        }
        for part in
            row.subresources.iter().filter(|part| !part.body.is_some_and(|(_, _, k)| k.ends_with("Options")))
        {
            for verb in part.verbs {
                let (method, action) = match *verb {
                    "update" => ("put", "put"),
                    "create" => ("post", "post"),
                    other => (other, other),
                };
                found.insert(format!("{method} {base}/{{name}}/{} {action}", part.name));
            }
        }
    }
    found
}

#[test]
fn core_rows_have_the_operations_of_upstreams_document() {
    let Some(document) = reference("swagger.json") else {
        eprintln!("skipped: no reference data");
        return;
    };
    let upstream = paths(&document);
    let own = own_paths();
    let missing: Vec<_> = upstream.difference(&own).collect();
    let extra: Vec<_> = own.difference(&upstream).collect();
    assert!(missing.is_empty() && extra.is_empty(), "missing {missing:#?}\nextra {extra:#?}");
}

#[tokio::test]
async fn a_binding_is_the_binding_of_the_pod_it_names() {
    let world = World::new().await;
    world.create("v1/pods", "default", pod("p")).await.unwrap();
    let binding = json!({"metadata": {"name": "p"}, "target": {"kind": "Node", "name": "n"}});
    world.create("v1/bindings", "default", binding.clone()).await.unwrap();
    assert_eq!(world.get("v1/pods", "default", "p").await.unwrap()["spec"]["nodeName"], "n");
    assert_eq!(world.create("v1/bindings", "default", binding).await.unwrap_err().code(), 409);
}

#[tokio::test]
async fn component_statuses_are_made_when_asked_for() {
    let world = World::new().await;
    let list = world.list("v1/componentstatuses", "", &[]).await.unwrap();
    assert_eq!(names(&list), ["scheduler", "controller-manager", "etcd-0"]);
    let store = world.get("v1/componentstatuses", "", "etcd-0").await.unwrap();
    assert_eq!(store["conditions"][0]["status"], "True");
    assert_eq!(world.get("v1/componentstatuses", "", "x").await.unwrap_err().code(), 404);
}

#[tokio::test]
async fn every_group_that_is_served_is_registered() {
    let world = World::new().await;
    crate::registry::bootstrap::run(&world.registry).await.unwrap();
    let list = world.list("apiregistration.k8s.io/v1/apiservices", "", &[]).await.unwrap();
    let served = names(&list);
    assert!(served.contains(&"v1.") && served.contains(&"v2.autoscaling"), "{served:?}");
    let apps = world.get("apiregistration.k8s.io/v1/apiservices", "", "v1.apps").await.unwrap();
    assert_eq!(apps["status"]["conditions"][0]["reason"], "Local");
}
