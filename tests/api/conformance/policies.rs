//! `[sig-api-machinery] ValidatingAdmissionPolicy`, `MutatingAdmissionPolicy`, `AdmissionWebhook`: what needs no webhook.

use serde_json::{Value, json};

use super::{post, send_as, until};
use crate::server::TestServer;

const GROUP: &str = "/apis/admissionregistration.k8s.io/v1";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";

fn rules(resource: &str) -> Value {
    json!({"resourceRules": [{"apiGroups": ["apps"], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"],
        "resources": [resource]}]})
}

fn deployment(name: &str, replicas: u32) -> Value {
    let labels = json!({"app": name});
    json!({"metadata": {"name": name}, "spec": {"replicas": replicas, "selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "x"}]}}}})
}

#[tokio::test]
async fn a_validating_policy_judges_deployments_and_its_expressions_refer_to_variables() {
    let server = TestServer::start().await;
    let policy = json!({"metadata": {"name": "few.example.com"}, "spec": {"matchConstraints": rules("deployments"),
        "variables": [{"name": "replicas", "expression": "object.spec.replicas"},
            {"name": "oddReplicas", "expression": "variables.replicas % 2 == 1"}],
        "validations": [
            {"expression": "variables.replicas > 1"},
            {"expression": "variables.oddReplicas", "messageExpression": "'odd is wanted, not ' + string(variables.replicas)"}]}});
    post(&server, &format!("{GROUP}/validatingadmissionpolicies"), policy).await;
    let binding = json!({"metadata": {"name": "few"}, "spec": {"policyName": "few.example.com", "validationActions": ["Deny"]}});
    post(&server, &format!("{GROUP}/validatingadmissionpolicybindings"), binding).await;
    let refused = until(async || {
        let (code, body) =
            server.send("POST", &format!("{DEPLOYMENTS}?dryRun=All"), Some(deployment("one", 1))).await;
        (code == 422).then_some(body)
    })
    .await;
    let message = "deployments.apps \"one\" is forbidden: ValidatingAdmissionPolicy 'few.example.com' with binding 'few' \
        denied request: failed expression: variables.replicas > 1";
    assert_eq!((&refused["message"], &refused["reason"]), (&json!(message), &json!("Invalid")));
    let (code, refused) = server.send("POST", DEPLOYMENTS, Some(deployment("two", 2))).await;
    assert!(
        code == 422 && refused["message"].as_str().unwrap().ends_with("denied request: odd is wanted, not 2"),
        "{refused}"
    );
    post(&server, DEPLOYMENTS, deployment("three", 3)).await;
}

#[tokio::test]
async fn a_validating_policy_tells_of_expressions_that_do_not_fit_their_types() {
    let server = TestServer::start().await;
    let policy = json!({"metadata": {"name": "confused.example.com"}, "spec": {"matchConstraints": rules("deployments"),
        "validations": [{"expression": "object.spec.replicas > '1'"}]}});
    let policies = format!("{GROUP}/validatingadmissionpolicies");
    post(&server, &policies, policy).await;
    let status = until(async || {
        let (_, policy) = server.send("GET", &format!("{policies}/confused.example.com"), None).await;
        policy["status"]["typeChecking"].is_object().then(|| policy["status"].clone())
    })
    .await;
    assert_eq!(status["observedGeneration"], 1);
    let warnings = &status["typeChecking"]["expressionWarnings"];
    assert_eq!(warnings[0]["fieldRef"], "spec.validations[0].expression", "{status}");
    assert!(
        warnings[0]["warning"].as_str().unwrap().contains("found no matching overload for '_>_'"),
        "{warnings}"
    );
}

#[tokio::test]
async fn a_mutating_policy_changes_deployments_and_their_annotations() {
    let server = TestServer::start().await;
    let policy = json!({"metadata": {"name": "mark.example.com"}, "spec": {"matchConstraints": rules("deployments"),
        "reinvocationPolicy": "Never",
        "mutations": [{"patchType": "ApplyConfiguration", "applyConfiguration": {"expression":
            "Object{ metadata: Object.metadata{ annotations: { \"mutated-by\": \"admission-policy\" } } }"}}]}});
    post(&server, &format!("{GROUP}/mutatingadmissionpolicies"), policy).await;
    let binding = json!({"metadata": {"name": "mark"}, "spec": {"policyName": "mark.example.com"}});
    post(&server, &format!("{GROUP}/mutatingadmissionpolicybindings"), binding).await;
    until(async || {
        let (_, made) =
            server.send("POST", &format!("{DEPLOYMENTS}?dryRun=All"), Some(deployment("d", 2))).await;
        (made["metadata"]["annotations"]["mutated-by"] == "admission-policy").then_some(())
    })
    .await;
}

#[tokio::test]
async fn webhook_configurations_with_invalid_match_conditions_are_rejected() {
    let server = TestServer::start().await;
    for kind in ["mutatingwebhookconfigurations", "validatingwebhookconfigurations"] {
        let path = format!("{GROUP}/{kind}");
        let hook = |expression: &str| {
            json!({"metadata": {"name": "conditions"}, "webhooks": [{"name": "a.example.com", "sideEffects": "None",
                "admissionReviewVersions": ["v1"], "clientConfig": {"url": "https://example.com/"},
                "matchConditions": [{"name": "expression-1", "expression": expression}]}]})
        };
        let (code, body) = server.send("POST", &path, Some(hook("... [] bad expression"))).await;
        assert_eq!(code, 422, "{body}");
        assert!(body["message"].as_str().unwrap().contains("compilation failed"), "{body}");
        post(&server, &path, hook("object.metadata.namespace == 'production'")).await;
        let types = ("application/json-patch+json", "application/json");
        let change =
            json!([{"op": "replace", "path": "/webhooks/0/matchConditions/0/expression", "value": "true"}]);
        let (code, _, body) =
            send_as(&server, ("PATCH", &format!("{path}/conditions")), types, change.to_string()).await;
        assert_eq!((code, &body["webhooks"][0]["matchConditions"][0]["expression"]), (200, &json!("true")));
        let (code, _) = server.send("DELETE", &path, None).await;
        let (_, list) = server.send("GET", &path, None).await;
        assert_eq!((code, list["items"].as_array().unwrap().len()), (200, 0));
    }
}
