//! Strategic merge patch by table: object, patch, result.

use proptest::prelude::*;
use serde_json::json;

use super::test_values::any_value;
use super::*;
use crate::api::schema::Schemas;

fn schema(kind: &str) -> Schema<'static> {
    let version = if kind == "Deployment" { "apps/v1" } else { "v1" };
    Schemas::builtin().for_kind(version, kind).unwrap()
}

fn patched(kind: &str, mut live: Value, patch: Value) -> Result<Value, ApiError> {
    strategic_merge_patch(&mut live, patch, schema(kind)).map(|()| live)
}

/// Wraps a pod spec.
fn spec(spec: Value) -> Value {
    json!({ "spec": spec })
}

#[test]
fn objects_merge_and_null_removes() {
    let cases = [
        (
            json!({"data": {"a": "1", "b": "2"}}),
            json!({"data": {"a": "3", "c": "4"}}),
            json!({"data": {"a": "3", "b": "2", "c": "4"}}),
        ),
        (
            json!({"data": {"a": "1", "b": "2"}}),
            json!({"data": {"a": null, "z": null}}),
            json!({"data": {"b": "2"}}),
        ),
        (json!({"data": {"a": "1"}}), json!({"data": null}), json!({})),
        (json!({}), json!({"data": {"a": null, "b": "1"}}), json!({"data": {"b": "1"}})),
        (
            json!({"data": {"a": "1"}}),
            json!({"data": {"$patch": "replace", "b": "2"}}),
            json!({"data": {"b": "2"}}),
        ),
        (json!({"data": {"a": "1"}}), json!({"data": {"$patch": "delete"}}), json!({"data": {}})),
        (json!({}), json!({"data": {"$patch": "replace", "b": "2"}}), json!({"data": {"b": "2"}})),
        (
            json!({"unknown": {"x": [1]}}),
            json!({"unknown": {"x": [2], "y": 1}}),
            json!({"unknown": {"x": [2], "y": 1}}),
        ),
        (json!({"data": "text"}), json!({"data": {"a": "1"}}), json!({"data": {"a": "1"}})),
    ];
    for (live, patch, expected) in cases {
        assert_eq!(patched("ConfigMap", live, patch.clone()).unwrap(), expected, "{patch}");
    }
}

#[test]
fn lists_of_objects_merge_by_key() {
    let live = || {
        spec(json!({"containers": [{"name": "a", "image": "1", "args": ["x"]}, {"name": "b", "image": "1"}]}))
    };
    let cases = [
        (
            json!([{"name": "b", "image": "2"}]),
            json!([{"name": "a", "image": "1", "args": ["x"]}, {"name": "b", "image": "2"}]),
        ),
        (
            json!([{"name": "c", "image": "3"}]),
            json!([{"name": "c", "image": "3"}, {"name": "a", "image": "1", "args": ["x"]}, {"name": "b", "image": "1"}]),
        ),
        (json!([{"name": "a", "$patch": "delete"}]), json!([{"name": "b", "image": "1"}])),
        (json!([{"$patch": "replace"}, {"name": "c"}]), json!([{"name": "c"}])),
        (json!([{"$patch": "replace"}]), json!([])),
        (
            json!([{"name": "a", "$patch": "delete"}, {"name": "c"}]),
            json!([{"name": "c"}, {"name": "b", "image": "1"}]),
        ),
        // Lists without a merge strategy are replaced.
        (
            json!([{"name": "a", "args": ["y"]}]),
            json!([{"name": "a", "image": "1", "args": ["y"]}, {"name": "b", "image": "1"}]),
        ),
        (
            json!([{"name": "a", "args": null}]),
            json!([{"name": "a", "image": "1"}, {"name": "b", "image": "1"}]),
        ),
    ];
    for (patch, expected) in cases {
        let result = patched("Pod", live(), spec(json!({"containers": patch}))).unwrap();
        assert_eq!(result, spec(json!({"containers": expected})), "{patch}");
    }
}

#[test]
fn lists_of_scalars_merge_by_value() {
    let finalizers = |list: Value| json!({"metadata": {"finalizers": list}});
    let merged = patched("Pod", finalizers(json!(["a", "b"])), finalizers(json!(["b", "c"]))).unwrap();
    assert_eq!(merged, finalizers(json!(["a", "b", "c"])));
    let deleted = patched(
        "Pod",
        finalizers(json!(["a", "b", "c"])),
        json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["a", "x"], "finalizers": ["d"]}}),
    )
    .unwrap();
    assert_eq!(deleted["metadata"]["finalizers"].as_array().unwrap().len(), 3);
    assert!(!deleted["metadata"]["finalizers"].as_array().unwrap().contains(&json!("a")));
    let ordered = patched(
        "Pod",
        finalizers(json!(["a", "b", "c"])),
        json!({"metadata": {"$setElementOrder/finalizers": ["c", "a"], "$deleteFromPrimitiveList/finalizers": ["b"]}}),
    )
    .unwrap();
    assert_eq!(ordered, finalizers(json!(["c", "a"])));
}

#[test]
fn the_patch_decides_the_order_of_its_items() {
    let names = |value: &Value| {
        let list = value["spec"]["containers"].as_array().unwrap().clone();
        list.iter().map(|c| c["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>().join("")
    };
    let list = |names: &str| json!(names.chars().map(|n| json!({"name": n})).collect::<Vec<_>>());
    // live, patch, order, result
    let cases = [
        ("abc", "", "cba", "cba"),
        ("abc", "d", "dabc", "dabc"),
        ("abc", "d", "adbc", "adbc"),
        ("axbc", "", "cba", "xcba"),
        ("axb", "c", "bac", "xbac"),
        ("", "ab", "ab", "ab"),
    ];
    for (live, patch, order, expected) in cases {
        let mut body = json!({"spec": {"$setElementOrder/containers": list(order)}});
        if !patch.is_empty() {
            body["spec"]["containers"] = list(patch);
        }
        let live =
            if live.is_empty() { json!({"spec": {}}) } else { spec(json!({"containers": list(live)})) };
        let result = patched("Pod", live, body).unwrap();
        assert_eq!(names(&result), expected, "{patch} in order {order}");
    }
}

#[test]
fn retain_keys_drops_the_others() {
    let volumes = |volume: Value| spec(json!({"volumes": [volume]}));
    let result = patched(
        "Pod",
        volumes(json!({"name": "v", "emptyDir": {}})),
        volumes(json!({"name": "v", "$retainKeys": ["name", "hostPath"], "hostPath": {"path": "/x"}})),
    )
    .unwrap();
    assert_eq!(result, volumes(json!({"name": "v", "hostPath": {"path": "/x"}})));
    let strategy = patched(
        "Deployment",
        spec(json!({"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}})),
        spec(json!({"strategy": {"$retainKeys": ["type"], "type": "Recreate"}})),
    )
    .unwrap();
    assert_eq!(strategy, spec(json!({"strategy": {"type": "Recreate"}})));
    let new = patched(
        "Deployment",
        spec(json!({})),
        spec(json!({"strategy": {"$retainKeys": ["type"], "type": "Recreate"}})),
    );
    assert_eq!(new.unwrap(), spec(json!({"strategy": {"type": "Recreate"}})));
}

#[test]
fn malformed_patches_are_refused() {
    let live = spec(json!({"containers": [{"name": "a"}], "volumes": [{"name": "v", "emptyDir": {}}]}));
    let cases = [
        (json!([]), "must be a JSON object"),
        (spec(json!({"$patch": "explode"})), "unknown patch type found: explode in map"),
        (spec(json!({"containers": [{"image": "x"}]})), "does not contain declared merge key: name"),
        (spec(json!({"containers": [{"$patch": "delete"}]})), "does not contain declared merge key: name"),
        (
            spec(json!({"containers": [{"name": "a", "$patch": "merge"}]})),
            "merging lists cannot yet be specified",
        ),
        (spec(json!({"containers": [{"name": "a", "$patch": "x"}]})), "unknown patch type found: x"),
        (spec(json!({"containers": ["a"]})), "list element types are not identical"),
        (spec(json!({"containers": [["a"]]})), "lists of lists are not supported"),
        (
            spec(json!({"volumes": [{"name": "v", "$retainKeys": "name"}]})),
            "invalid patch format of retainKeys",
        ),
        (
            spec(json!({"volumes": [{"name": "v", "$retainKeys": ["name"], "hostPath": {}}]})),
            "invalid patch format of retainKeys",
        ),
        (spec(json!({"$setElementOrder/containers": 1})), "invalid patch format of setElementOrder list"),
        (
            spec(json!({"$setElementOrder/containers": [{"name": "a"}], "containers": [{"name": "b"}]})),
            "The order in patch list:",
        ),
        (spec(json!({"$deleteFromPrimitiveList/containers": "a"})), "invalid patch format of primitive list"),
    ];
    for (patch, message) in cases {
        let error = patched("Pod", live.clone(), patch.clone()).unwrap_err();
        assert_eq!(error.code(), 400, "{patch}");
        assert!(error.message().contains(message), "{patch}: {error}");
    }
}

#[test]
fn ports_merge_by_number() {
    let ports = |list: Value| json!({"spec": {"ports": list}});
    let result = patched(
        "Service",
        ports(json!([{"port": 80, "targetPort": 1}, {"port": 443}])),
        ports(json!([{"port": 80, "nodePort": 30000}, {"port": 443, "$patch": "delete"}])),
    )
    .unwrap();
    assert_eq!(result, ports(json!([{"port": 80, "targetPort": 1, "nodePort": 30000}])));
}

/// Whether any directive is left in a value.
fn has_directive(value: &Value) -> bool {
    match value {
        Value::Object(map) => map.iter().any(|(key, value)| key.starts_with('$') || has_directive(value)),
        Value::Array(list) => list.iter().any(has_directive),
        _ => false,
    }
}

proptest! {
    #[test]
    fn no_patch_panics_and_no_directive_is_stored(live in any_value(), patch in any_value()) {
        let live = without_directives(live).unwrap_or(Value::Null);
        if !has_directive(&live) && let Ok(result) = patched("Pod", live.clone(), patch.clone()) {
            prop_assert!(!has_directive(&result), "{live} + {patch} = {result}");
        }
    }

    #[test]
    fn without_directives_it_is_idempotent(live in any_value(), patch in any_value()) {
        let (live, patch) = (without_directives(live), without_directives(patch));
        if let (Some(live), Some(patch)) = (live, patch) && let Ok(once) = patched("Pod", live, patch.clone()) {
            prop_assert_eq!(patched("Pod", once.clone(), patch).unwrap(), once);
        }
    }
}
