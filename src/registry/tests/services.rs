//! Addresses and node ports of Services.

use serde_json::json;

use super::*;

fn service(name: &str, spec: Value) -> Value {
    let mut spec = spec;
    spec["ports"] = json!([{"port": 80}]);
    json!({"metadata": {"name": name}, "spec": spec})
}

#[tokio::test]
async fn services_draw_addresses_and_give_them_back() {
    let world = World::new().await;
    let path = "v1/services";
    let made = world.create(path, "default", service("a", json!({"clusterIP": "10.43.0.10"}))).await.unwrap();
    assert_eq!(made["spec"]["clusterIPs"], json!(["10.43.0.10"]));
    assert_eq!(made["spec"]["ipFamilies"], json!(["IPv4"]));
    let taken =
        world.create(path, "default", service("b", json!({"clusterIP": "10.43.0.10"}))).await.unwrap_err();
    assert!(taken.code() == 422 && taken.message().contains("provided IP is already allocated"), "{taken}");
    world.delete(path, "default", "a", DeleteOptions::default()).await.unwrap();
    world.create(path, "default", service("b", json!({"clusterIP": "10.43.0.10"}))).await.unwrap();
    let headless = world.create(path, "default", service("h", json!({"clusterIP": "None"}))).await.unwrap();
    assert_eq!(headless["spec"]["clusterIPs"], json!(["None"]));
}

#[tokio::test]
async fn a_refused_service_gives_its_address_back() {
    let world = World::new().await;
    let mut bad = service("a", json!({"clusterIP": "10.43.0.11"}));
    bad["spec"]["sessionAffinity"] = "Maybe".into();
    assert_eq!(world.create("v1/services", "default", bad).await.unwrap_err().code(), 422);
    world.create("v1/services", "default", service("a", json!({"clusterIP": "10.43.0.11"}))).await.unwrap();
}

#[tokio::test]
async fn type_changes_draw_and_return_node_ports() {
    let world = World::new().await;
    let path = "v1/services";
    let at = ("default", "a");
    let made = world.create(path, "default", service("a", json!({"type": "NodePort"}))).await.unwrap();
    let port = made["spec"]["ports"][0]["nodePort"].as_i64().unwrap();
    assert!((30000..=32767).contains(&port));
    let replaced = world.update(path, None, service("a", json!({"type": "NodePort"}))).await.unwrap();
    assert_eq!(replaced["spec"]["ports"][0]["nodePort"], port, "what is left out is kept");
    assert_eq!(replaced["spec"]["clusterIP"], made["spec"]["clusterIP"]);
    let inner =
        world.patch(path, None, at, PatchKind::Merge, json!({"spec": {"type": "ClusterIP"}})).await.unwrap();
    assert!(inner["spec"]["ports"][0].get("nodePort").is_none(), "{inner}");
    assert!(inner["spec"].get("externalTrafficPolicy").is_none());
    let mut chosen = service("b", json!({"type": "NodePort"}));
    chosen["spec"]["ports"][0]["nodePort"] = port.into();
    world.create(path, "default", chosen).await.unwrap();
    let patch = json!({"spec": {"clusterIP": "10.43.0.99", "clusterIPs": ["10.43.0.99"]}});
    let fixed = world.patch(path, None, at, PatchKind::Merge, patch).await.unwrap_err();
    assert!(
        fixed
            .message()
            .contains("spec.clusterIPs[0]: Invalid value: [\"10.43.0.99\"]: may not change once set"),
        "{fixed}"
    );
}
