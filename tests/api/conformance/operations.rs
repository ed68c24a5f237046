//! Kinds whose behaviours in upstream's suite are their API operations: create, get, list, watch, patch, update, status,
//! delete, deletecollection.

use serde_json::{Value, json};

use super::{Watch, count, patch, post, put};
use crate::server::TestServer;

/// One kind: where it is, an object of it, a change of the spec and how that shows, and whether it has a status.
struct Case {
    path: &'static str,
    kind: &'static str,
    spec: Value,
    change: Value,
    status: bool,
}

fn rules() -> Value {
    json!({"resourceRules": [{"apiGroups": ["apps"], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["deployments"]}]})
}

fn cases() -> Vec<Case> {
    let annotate = "Object{ metadata: Object.metadata{ annotations: { \"my-foo-annotation\": \"myAnnotationValue\" } } }";
    vec![
        Case {
            path: "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies",
            kind: "ValidatingAdmissionPolicy",
            spec: json!({"validations": [{"expression": "object.spec.replicas <= 100"}], "matchConstraints": rules()}),
            change: json!({"failurePolicy": "Ignore"}),
            status: true,
        },
        Case {
            path: "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings",
            kind: "ValidatingAdmissionPolicyBinding",
            spec: json!({"policyName": "replicalimit-policy.example.com", "validationActions": ["Deny"]}),
            change: json!({"validationActions": ["Warn"]}),
            status: false,
        },
        Case {
            path: "/apis/admissionregistration.k8s.io/v1/mutatingadmissionpolicies",
            kind: "MutatingAdmissionPolicy",
            spec: json!({"reinvocationPolicy": "Never", "matchConstraints": rules(), "mutations": [
                {"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": annotate}}]}),
            change: json!({"failurePolicy": "Ignore"}),
            status: false,
        },
        Case {
            path: "/apis/admissionregistration.k8s.io/v1/mutatingadmissionpolicybindings",
            kind: "MutatingAdmissionPolicyBinding",
            spec: json!({"policyName": "replicalimit-policy.example.com"}),
            change: json!({"policyName": "other.example.com"}),
            status: false,
        },
        Case {
            path: "/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas",
            kind: "FlowSchema",
            spec: json!({"matchingPrecedence": 10000, "priorityLevelConfiguration": {"name": "global-default"},
                "distinguisherMethod": {"type": "ByUser"}, "rules": [{
                    "subjects": [{"kind": "User", "user": {"name": "example-e2e-non-existent-user"}}],
                    "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}]}]}),
            change: json!({"matchingPrecedence": 9999}),
            status: true,
        },
        Case {
            path: "/apis/flowcontrol.apiserver.k8s.io/v1/prioritylevelconfigurations",
            kind: "PriorityLevelConfiguration",
            spec: json!({"type": "Limited", "limited": {"nominalConcurrencyShares": 2, "limitResponse": {"type": "Reject"}}}),
            change: json!({"limited": {"nominalConcurrencyShares": 4}}),
            status: true,
        },
    ]
}

/// Asserts that everything in `wanted` is in `found`.
fn has(found: &Value, wanted: &Value, at: &str) {
    match wanted {
        Value::Object(map) => {
            map.iter().for_each(|(key, value)| has(&found[key], value, &format!("{at}.{key}")))
        }
        Value::Array(list) => {
            assert_eq!(found.as_array().map(Vec::len), Some(list.len()), "{at}");
            list.iter().enumerate().for_each(|(i, value)| has(&found[i], value, &format!("{at}[{i}]")));
        }
        value => assert_eq!(found, value, "{at}"),
    }
}

async fn status(server: &TestServer, case: &Case, one: &str, uid: &Value) {
    let path = format!("{one}/status");
    let (code, read) = server.send("GET", &path, None).await;
    assert_eq!((code, &read["kind"], &read["metadata"]["uid"]), (200, &json!(case.kind), uid));
    let condition = |kind: &str| {
        json!({"type": kind, "status": "False", "reason": "e2e", "message": "Set from an e2e test",
            "lastTransitionTime": "2024-01-01T00:00:00Z"})
    };
    let named = |object: &Value, kind: &str| {
        object["status"]["conditions"].as_array().unwrap().iter().any(|c| c["type"] == kind)
    };
    let patched =
        patch(server, &path, json!({"status": {"conditions": [condition("PatchStatusFailed")]}})).await;
    assert!(named(&patched, "PatchStatusFailed"), "{patched}");
    let updated = super::until(async || {
        let (_, mut object) = server.send("GET", one, None).await;
        object["status"]["conditions"].as_array_mut().unwrap().push(condition("StatusUpdateFailed"));
        let (code, body) = server.send("PUT", &path, Some(object)).await;
        assert!(matches!(code, 200 | 409), "{body}");
        (code == 200).then_some(body)
    })
    .await;
    assert!(named(&updated, "StatusUpdateFailed"), "{updated}");
}

async fn operate(server: &TestServer, case: &Case) {
    let path = case.path;
    let template = json!({"metadata": {"generateName": "e2e-example-", "labels": {"e2e": "operations"}}, "spec": case.spec});
    let mut created = Value::Null;
    for _ in 0..3 {
        created = post(server, path, template.clone()).await;
    }
    has(&created["spec"], &case.spec, path);
    let one = format!("{path}/{}", created["metadata"]["name"].as_str().unwrap());
    let (_, read) = server.send("GET", &one, None).await;
    let uid = &created["metadata"]["uid"];
    assert_eq!(read["metadata"]["uid"], *uid);
    let mine = format!("{path}?labelSelector=e2e%3Doperations");
    let (_, list) = server.send("GET", &mine, None).await;
    assert_eq!(list["items"].as_array().unwrap().len(), 3, "{path}");
    let version = list["metadata"]["resourceVersion"].as_str().unwrap();
    let mut watch = Watch::open(server, &format!("{mine}&resourceVersion={version}")).await;

    let change = json!({"metadata": {"annotations": {"patched": "true"}}, "spec": case.change});
    let patched = patch(server, &one, change).await;
    assert_eq!(patched["metadata"]["annotations"]["patched"], "true");
    has(&patched["spec"], &case.change, path);
    let updated = super::until(async || {
        let (_, mut object) = server.send("GET", &one, None).await;
        object["metadata"]["annotations"]["updated"] = json!("true");
        object["spec"] = created["spec"].clone();
        let (code, body) = server.send("PUT", &one, Some(object)).await;
        assert!(matches!(code, 200 | 409), "{body}");
        (code == 200).then_some(body)
    })
    .await;
    assert_eq!(updated["metadata"]["annotations"]["updated"], "true");
    has(&updated["spec"], &case.spec, path);
    loop {
        let (kind, object) = watch.next().await;
        assert_eq!(kind, "MODIFIED", "{path}");
        if object["metadata"]["annotations"]["patched"] == "true" {
            break;
        }
    }
    if case.status {
        status(server, case, &one, uid).await;
    }
    let (code, body) = server.send("DELETE", &one, None).await;
    assert_eq!((code, server.send("GET", &one, None).await.0), (200, 404), "{body}");
    assert_eq!(count(server, &mine).await, 2, "{path}");
    let (code, _) = server.send("DELETE", &mine, None).await;
    assert_eq!((code, count(server, &mine).await), (200, 0), "{path}");
}

#[tokio::test]
async fn policies_their_bindings_and_flow_control_support_api_operations() {
    let server = TestServer::start().await;
    for case in cases() {
        operate(&server, &case).await;
    }
}

#[tokio::test]
async fn core_events_live_as_the_suite_asks() {
    let server = TestServer::start().await;
    let events = "/api/v1/namespaces/default/events";
    let event = |name: &str| {
        json!({"metadata": {"name": name, "labels": {"testevent-constant": "true"}}, "message": "This is a test event",
            "reason": "Test", "type": "Normal", "count": 1, "involvedObject": {"namespace": "default"}})
    };
    let made = post(&server, events, event("event-test")).await;
    let all = "/api/v1/events?labelSelector=testevent-constant%3Dtrue";
    let (_, list) = server.send("GET", all, None).await;
    let listed = |item: &Value| {
        item["metadata"]["name"] == "event-test"
            && item["metadata"]["namespace"] == "default"
            && item["message"] == "This is a test event"
    };
    assert!(list["items"].as_array().unwrap().iter().any(listed));
    let one = format!("{events}/event-test");
    let types = ("application/strategic-merge-patch+json", "application/json");
    let change = json!({"message": "This is a test event - patched"}).to_string();
    let (code, _, patched) = super::send_as(&server, ("PATCH", &one), types, change).await;
    assert_eq!((code, &patched["message"]), (200, &json!("This is a test event - patched")));
    let (_, mut read) = server.send("GET", &one, None).await;
    assert_eq!(read["message"], "This is a test event - patched");
    read["message"] = json!("This is a test event - updated");
    read["series"] = json!({"count": 100, "lastObservedTime": "2014-11-01T10:00:00.000000Z"});
    let updated = put(&server, &one, read).await;
    assert_eq!(
        (&updated["series"]["count"], &updated["metadata"]["uid"]),
        (&json!(100), &made["metadata"]["uid"])
    );
    let (code, _) = server.send("DELETE", &one, None).await;
    assert_eq!((code, count(&server, all).await), (200, 0));
    for name in ["test-event-1", "test-event-2", "test-event-3"] {
        post(&server, events, event(name)).await;
    }
    let mine = format!("{events}?labelSelector=testevent-constant%3Dtrue");
    assert_eq!(count(&server, &mine).await, 3);
    let (code, _) = server.send("DELETE", &mine, None).await;
    assert_eq!((code, count(&server, &mine).await), (200, 0));
}
