//! Every row: its names as in upstream's discovery, and its verbs on a smallest object.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::json;

use super::*;
use crate::registry::Catalog;
use crate::registry::resource::Storage;

/// The rest of a smallest valid object, by kind.
fn rest(kind: &str) -> Value {
    let template =
        json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i:1"}]}});
    let workload = json!({"spec": {"selector": {"matchLabels": {"a": "b"}}, "template": template.clone()}});
    match kind {
        "Pod" => json!({"spec": {"containers": [{"name": "c", "image": "i:1"}]}}),
        "Service" => json!({"spec": {"ports": [{"port": 80}]}}),
        "Deployment" | "ReplicaSet" | "StatefulSet" | "DaemonSet" => workload,
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
        "Event" => json!({"involvedObject": {"namespace": "default"}}),
        _ => json!({}),
    }
}

#[tokio::test]
async fn every_verb_of_every_stored_row_works() {
    let world = World::new().await;
    for row in world.registry.catalog().clone().iter().filter(|row| matches!(row.storage, Storage::Own)) {
        let mut path = row.api_version().into_owned();
        path.push('/');
        path.push_str(&row.plural);
        let namespace = if row.namespaced() { "default" } else { "" };
        let mut object = rest(&row.kind);
        object["metadata"] = json!({"name": "matrix"});
        let context = |what: &str, error: ApiError| panic!("{what} {path}: {error}");
        let made = world.create(&path, namespace, object).await.unwrap_or_else(|e| context("create", e));
        assert_eq!(
            (made["kind"].as_str(), made["apiVersion"].as_str()),
            (Some(&*row.kind), Some(&*row.api_version()))
        );
        assert_eq!(world.get(&path, namespace, "matrix").await.unwrap(), made, "{path}");
        let list = world.list(&path, namespace, &[]).await.unwrap_or_else(|e| context("list", e));
        assert!(names(&list).contains(&"matrix") && list["kind"] == *row.list_kind, "{path}");
        let same = world.update(&path, None, made.clone()).await.unwrap_or_else(|e| context("update", e));
        assert_eq!(same, made, "an update with the same changes nothing: {path}");
        let label = json!({"metadata": {"labels": {"x": "y"}}});
        for kind in [PatchKind::Merge, PatchKind::Strategic] {
            let patched = world.patch(&path, None, (namespace, "matrix"), kind, label.clone()).await;
            assert_eq!(patched.unwrap_or_else(|e| context("patch", e))["metadata"]["labels"]["x"], "y");
        }
        let mut cx = world.cx();
        cx.representation = crate::registry::Representation::Table(crate::registry::IncludeObject::None);
        let table = world.registry.list(&cx, row, namespace, &ListOptions::default()).await;
        let table = value(table.unwrap_or_else(|e| panic!("table {path}: {e}")));
        let columns = table["columnDefinitions"].as_array().unwrap().len();
        assert_eq!(table["rows"][0]["cells"].as_array().unwrap().len(), columns, "{path}");
        world
            .delete(&path, namespace, "matrix", DeleteOptions::default())
            .await
            .unwrap_or_else(|e| context("delete", e));
        if row.plural != "namespaces" {
            assert_eq!(world.get(&path, namespace, "matrix").await.unwrap_err().code(), 404, "{path}");
        }
    }
}

/// What discovery says of a resource: kind, scope, singular, short names, categories, verbs, subresources.
type Facts = (String, bool, String, Vec<String>, Vec<String>, Vec<String>, Vec<String>);

fn texts(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().map(|v| v.as_str().unwrap_or_default().to_owned()).collect()
}

#[test]
fn rows_agree_with_upstreams_discovery() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/k8s-1.36/discovery-aggregated-v2.json");
    let Ok(text) = std::fs::read(&file) else {
        eprintln!("skipped: no reference data at {}", file.display());
        return;
    };
    let document: Value = serde_json::from_slice(&text).unwrap();
    let mut upstream: BTreeMap<String, Facts> = BTreeMap::new();
    for group in document["items"].as_array().unwrap() {
        let name = group["metadata"]["name"].as_str().unwrap_or_default();
        for version in group["versions"].as_array().unwrap() {
            for resource in version["resources"].as_array().unwrap() {
                let key = format!(
                    "{name}/{}/{}",
                    version["version"].as_str().unwrap(),
                    resource["resource"].as_str().unwrap()
                );
                let mut parts: Vec<String> = resource["subresources"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .map(|s| s["subresource"].as_str().unwrap_or_default().to_owned())
                    .collect();
                parts.sort();
                upstream.insert(
                    key,
                    (
                        resource["responseKind"]["kind"].as_str().unwrap_or_default().to_owned(),
                        resource["scope"] == "Namespaced",
                        resource["singularResource"].as_str().unwrap_or_default().to_owned(),
                        texts(&resource["shortNames"]),
                        texts(&resource["categories"]),
                        texts(&resource["verbs"]),
                        parts,
                    ),
                );
            }
        }
    }
    let own =
        |list: &[std::borrow::Cow<'static, str>]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
    for row in Catalog::builtin().iter().filter(|row| !row.group.is_empty()) {
        let key = format!("{}/{}/{}", row.group, row.version, row.plural);
        let mut parts: Vec<String> = row.subresources.iter().map(|s| s.name.to_owned()).collect();
        parts.sort();
        let facts: Facts = (
            row.kind.to_string(),
            row.namespaced(),
            row.singular.to_string(),
            own(&row.short_names),
            own(&row.categories),
            row.verbs.iter().map(|v| v.as_str().to_owned()).collect(),
            parts,
        );
        assert_eq!(Some(&facts), upstream.get(&key), "{key}");
    }
}
