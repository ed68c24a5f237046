//! Policies over a real registry.

use serde_json::{Value, json};

use crate::registry::tests::{World, config_map};

const GROUP: &str = "admissionregistration.k8s.io/v1";

fn matches() -> Value {
    json!({"resourceRules": [{"operations": ["CREATE", "UPDATE"], "apiGroups": [""], "apiVersions": ["v1"],
        "resources": ["configmaps"]}]})
}

async fn create(world: &World, kind: &str, name: &str, spec: Value) {
    let object = json!({"metadata": {"name": name}, "spec": spec});
    let made = world.create(&format!("{GROUP}/{kind}"), "", object).await.unwrap();
    let revision = made["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap();
    world.registry.cache().wait_until(crate::store::Revision(revision)).await.unwrap();
}

#[tokio::test]
async fn a_policy_denies_and_warns_in_upstreams_words() {
    let world = World::new().await;
    let spec = json!({"matchConstraints": matches(),
        "matchConditions": [{"name": "named", "expression": "object.metadata.name != 'free'"}],
        "variables": [{"name": "size", "expression": "size(object.data)"},
            {"name": "double", "expression": "variables.size * 2"}, {"name": "broken", "expression": "1 / 0"}],
        "validations": [{"expression": "variables.double <= 2", "messageExpression": "'size is ' + string(variables.size)"},
            {"expression": "request.operation == 'CREATE'"}]});
    create(&world, "validatingadmissionpolicies", "p", spec).await;
    world
        .create(
            "v1/configmaps",
            "default",
            json!({"metadata": {"name": "early"}, "data": {"a": "1", "b": "2"}}),
        )
        .await
        .unwrap();
    let binding = json!({"policyName": "p", "validationActions": ["Deny"]});
    create(&world, "validatingadmissionpolicybindings", "b", binding).await;
    let two = |name: &str| json!({"metadata": {"name": name}, "data": {"a": "1", "b": "2"}});
    let error = world.create("v1/configmaps", "default", two("x")).await.unwrap_err();
    assert_eq!((error.code(), error.reason().as_str()), (422, "Invalid"));
    assert_eq!(
        error.message(),
        "configmaps \"x\" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'b' denied request: size is 2"
    );
    world.create("v1/configmaps", "default", two("free")).await.unwrap();
    let mut made = world.create("v1/configmaps", "default", config_map("y")).await.unwrap();
    made["data"]["a"] = "2".into();
    let error = world.update("v1/configmaps", None, made).await.unwrap_err();
    assert!(error.message().ends_with("failed expression: request.operation == 'CREATE'"), "{error}");
}

#[tokio::test]
async fn expressions_are_checked_against_the_kinds_they_match() {
    let world = World::new().await;
    let stop = tokio_util::sync::CancellationToken::new();
    tokio::spawn(world.registry.clone().keep_policies(stop.clone()));
    let _stop = stop.drop_guard();
    let spec = json!({"matchConstraints": {"resourceRules": [{"operations": ["CREATE"], "apiGroups": ["apps"],
            "apiVersions": ["v1"], "resources": ["deployments"]}]},
        "validations": [{"expression": "object.spec.replicas > '1'"}, {"expression": "object.spec.replicas > 1"}]});
    create(&world, "validatingadmissionpolicies", "p", spec).await;
    let wait = async {
        loop {
            let read = world.get(&format!("{GROUP}/validatingadmissionpolicies"), "", "p").await.unwrap();
            if read["status"]["observedGeneration"] == 1 {
                return read;
            }
            tokio::task::yield_now().await;
        }
    };
    let read = tokio::time::timeout(std::time::Duration::from_secs(20), wait).await.unwrap();
    let warnings = read["status"]["typeChecking"]["expressionWarnings"].as_array().unwrap().clone();
    assert_eq!((warnings.len(), &warnings[0]["fieldRef"]), (1, &json!("spec.validations[0].expression")));
    let warning = warnings[0]["warning"].as_str().unwrap();
    assert!(
        warning.starts_with("apps/v1, Kind=Deployment: ERROR: <input>:1:22: found no matching overload"),
        "{warning}"
    );
}

#[tokio::test]
async fn parameters_are_found_or_missed() {
    let world = World::new().await;
    let spec = json!({"matchConstraints": matches(), "paramKind": {"apiVersion": "v1", "kind": "ConfigMap"},
        "matchConditions": [{"name": "not-params", "expression": "object.metadata.name != 'limits'"}],
        "validations": [{"expression": "size(object.data) <= int(params.data.most)", "message": "too many"}]});
    create(&world, "validatingadmissionpolicies", "p", spec).await;
    let binding = json!({"policyName": "p", "validationActions": ["Deny"],
        "paramRef": {"name": "limits", "namespace": "default", "parameterNotFoundAction": "Deny"}});
    create(&world, "validatingadmissionpolicybindings", "b", binding).await;
    let error = world.create("v1/configmaps", "default", config_map("x")).await.unwrap_err();
    assert!(error.message().contains("no params found for policy binding with `Deny`"), "{error}");
    let mut limits = config_map("limits");
    limits["data"] = json!({"most": "1"});
    let error = world.create("v1/configmaps", "default", limits).await.unwrap_err();
    // The parameters are bound before conditions are asked, as upstream does.
    assert_eq!(error.code(), 422);
}

#[tokio::test]
async fn mutating_policies_merge_and_patch() {
    let world = World::new().await;
    let apply = json!({"matchConstraints": matches(), "reinvocationPolicy": "Never", "mutations": [
        {"patchType": "ApplyConfiguration",
            "applyConfiguration": {"expression": "Object{metadata: Object.metadata{labels: {'by': 'policy'}}}"}},
        {"patchType": "JSONPatch",
            "jsonPatch": {"expression": "[JSONPatch{op: 'add', path: '/data/' + jsonpatch.escapeKey('x'), value: 'y'}]"}}]});
    create(&world, "mutatingadmissionpolicies", "m", apply).await;
    create(&world, "mutatingadmissionpolicybindings", "b", json!({"policyName": "m"})).await;
    let made = world.create("v1/configmaps", "default", config_map("a")).await.unwrap();
    assert_eq!(made["metadata"]["labels"], json!({"by": "policy"}));
    assert_eq!(made["data"], json!({"a": "1", "x": "y"}));
}
