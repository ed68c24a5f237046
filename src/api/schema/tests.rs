//! Schemas of built-in kinds: their types, how they merge, and that they agree with the published document.

use serde_json::{Value, json};

use super::*;

mod upstream;

fn schema(api_version: &str, kind: &str) -> Schema<'static> {
    Schemas::builtin().for_kind(api_version, kind).unwrap_or_else(|| panic!("{api_version} {kind}"))
}

fn at(schema: Schema<'static>, path: &str) -> Schema<'static> {
    path.split('.').fold(schema, |schema, step| match step {
        "[]" => schema.item().unwrap(),
        step => schema.field(step).unwrap_or_else(|| panic!("{path}: {step}")),
    })
}

#[test]
fn fields_have_their_types() {
    let pod = schema("v1", "Pod");
    let cases = [
        ("spec", Kind::Struct),
        ("metadata.labels", Kind::Map),
        ("metadata.labels.any/key", Kind::Scalar(Scalar::String)),
        ("metadata.creationTimestamp", Kind::Scalar(Scalar::Time)),
        ("metadata.generation", Kind::Scalar(Scalar::Int64)),
        ("metadata.managedFields.[].fieldsV1", Kind::Any),
        ("spec.containers", Kind::List),
        ("spec.containers.[].ports.[].containerPort", Kind::Scalar(Scalar::Int32)),
        ("spec.containers.[].resources.limits.cpu", Kind::Scalar(Scalar::Quantity)),
        ("spec.containers.[].livenessProbe.httpGet.port", Kind::Scalar(Scalar::IntOrString)),
        ("spec.hostNetwork", Kind::Scalar(Scalar::Boolean)),
    ];
    for (path, kind) in cases {
        assert_eq!(at(pod, path).kind(), kind, "{path}");
    }
    assert_eq!(at(schema("v1", "Secret"), "data.x").kind(), Kind::Scalar(Scalar::Bytes));
    assert!(pod.field("sepc").is_none() && pod.item().is_none());
    assert!(pod.fields().any(|(name, _)| name == "status"));
}

#[test]
fn lists_and_maps_merge_as_the_facts_say() {
    let pod = schema("v1", "Pod");
    let containers = at(pod, "spec.containers");
    assert_eq!(containers.list_type(), ListType::Map);
    assert_eq!(containers.map_keys().collect::<Vec<_>>(), ["name"]);
    assert_eq!(containers.patch_merge_key(), Some("name"));
    assert!(containers.patch_strategy().merge && !containers.patch_strategy().retain_keys);
    let ports = at(pod, "spec.containers.[].ports");
    assert_eq!(ports.map_keys().collect::<Vec<_>>(), ["containerPort", "protocol"]);
    assert_eq!(ports.patch_merge_key(), Some("containerPort"));
    assert_eq!(ports.item().unwrap().key_default("protocol"), Some("TCP"));
    assert!(at(pod, "spec.volumes").patch_strategy().retain_keys);
    assert_eq!(at(pod, "metadata.finalizers").list_type(), ListType::Set);
    assert_eq!(at(pod, "spec.containers.[].command").list_type(), ListType::Atomic);
    assert!(at(pod, "spec.nodeSelector").is_atomic() && !at(pod, "metadata.labels").is_atomic());
    let deployment = schema("apps/v1", "Deployment");
    assert!(at(deployment, "spec.selector").is_atomic());
    assert!(at(deployment, "spec.strategy").patch_strategy().retain_keys);
    // The type is atomic, this use of it is not.
    assert!(!at(schema("v1", "PersistentVolume"), "spec.claimRef").is_atomic());
    assert!(at(schema("v1", "Binding"), "target").is_atomic());
    assert!(containers.item().unwrap().requires("name") && !containers.item().unwrap().requires("image"));
}

#[test]
fn recursive_types_end() {
    let crd = schema("apiextensions.k8s.io/v1", "CustomResourceDefinition");
    let props = at(crd, "spec.versions.[].schema.openAPIV3Schema.properties.a.properties.b.title");
    assert_eq!(props.kind(), Kind::Scalar(Scalar::String));
    assert!(at(crd, "spec.versions.[].schema.openAPIV3Schema.items").preserves_unknown());
}

#[test]
fn kinds_are_found() {
    let schemas = Schemas::builtin();
    for (group, version, kind) in [
        ("", "v1", "PodList"),
        ("", "v1", "Status"),
        ("", "v1", "DeleteOptions"),
        ("policy", "v1", "Eviction"),
        ("autoscaling", "v1", "Scale"),
        ("authentication.k8s.io", "v1", "TokenRequest"),
        ("rbac.authorization.k8s.io", "v1", "ClusterRole"),
    ] {
        assert!(schemas.for_gvk(group, version, kind).is_some(), "{group}/{version} {kind}");
    }
    assert_eq!(schemas.definition_name("apps", "v1", "Deployment"), Some("io.k8s.api.apps.v1.Deployment"));
    assert!(schemas.for_gvk("apps", "v1", "Pod").is_none());
    assert!(schemas.definition("io.k8s.api.core.v1.PodSpec").is_some());
}

#[test]
fn fitting_drops_the_unknown_and_tells_its_path() {
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod", "extra": 1,
        "metadata": {"name": "a", "creationTimestamp": null, "labels": {"a": null, "b": "c"}},
        "spec": {"containers": [{"name": "x"}, {"name": "y", "imge": "z", "resources": {"limits": {"cpu": 2, "memory": 0.5}}}]},
    });
    let report = schema("v1", "Pod").fit(&mut pod);
    assert_eq!(
        report,
        Report { unknown: vec!["extra".into(), "spec.containers[1].imge".into()], mismatch: None }
    );
    assert_eq!(
        pod,
        json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "labels": {"a": "", "b": "c"}},
            "spec": {"containers": [{"name": "x"}, {"name": "y", "resources": {"limits": {"cpu": "2", "memory": "0.5"}}}]},
        })
    );
}

#[test]
fn normalizing_keeps_the_unknown() {
    let mut pod = json!({"extra": 1, "spec": {"hostNetwork": null, "overhead": {"cpu": 1}, "also": null}});
    schema("v1", "Pod").normalize(&mut pod);
    assert_eq!(pod, json!({"extra": 1, "spec": {"overhead": {"cpu": "1"}, "also": null}}));
}

#[test]
fn fitting_tells_the_first_wrong_type() {
    let cases = [
        (json!({"spec": {"replicas": "2"}}), "string into Go struct field spec.replicas of type int32"),
        (
            json!({"spec": {"replicas": 3000000000i64}}),
            "number 3000000000 into Go struct field spec.replicas of type int32",
        ),
        (json!({"spec": {"replicas": 1.5}}), "number 1.5 into Go struct field spec.replicas of type int32"),
        (json!({"spec": []}), "array into Go struct field spec of type object"),
        (json!({"spec": {"paused": "yes"}}), "string into Go struct field spec.paused of type bool"),
        (
            json!({"spec": {"template": {"spec": {"containers": [{"args": [1]}]}}}}),
            "number 1 into Go struct field spec.template.spec.containers[0].args[0] of type string",
        ),
        (
            json!({"spec": {"template": {"spec": {"containers": {}}}}}),
            "object into Go struct field spec.template.spec.containers of type list",
        ),
    ];
    for (mut value, text) in cases {
        let report = schema("apps/v1", "Deployment").fit(&mut value);
        assert_eq!(report.mismatch, Some(format!("json: cannot unmarshal {text}")));
    }
}

#[test]
fn definitions_with_descriptions_are_inflated_on_demand() {
    let definitions = openapi::definitions().unwrap();
    let pod: Value = serde_json::from_str(definitions["io.k8s.api.core.v1.Pod"].get()).unwrap();
    assert!(pod["description"].as_str().unwrap().starts_with("Pod is"));
    assert_eq!(
        pod["x-kubernetes-group-version-kind"],
        json!([{"group": "", "version": "v1", "kind": "Pod"}])
    );
}

#[test]
fn what_is_no_schema_is_refused() {
    assert!(Schemas::load(&b"[]"[..]).is_err());
    let odd = Schemas::load(
        &br##"{"a": {"type": "object", "properties": {"x": {"$ref": "#/definitions/gone"}}}}"##[..],
    );
    assert!(odd.unwrap().definition("a").unwrap().field("x").unwrap().preserves_unknown());
}
