//! Webhooks over a real registry, asked by a fake caller.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine as _;
use serde_json::{Value, json};

use super::config::Rule;
use crate::registry::tests::{World, config_map};
use crate::registry::{Hooks, WebhookClient, WebhookError, WebhookTarget};

/// Answers by the path of the service, and remembers what was asked.
#[derive(Default)]
struct Fake {
    asked: Mutex<Vec<Value>>,
}

#[async_trait]
impl WebhookClient for Fake {
    async fn call(&self, target: &WebhookTarget, _: Duration, review: &Value) -> Result<Value, WebhookError> {
        self.asked.lock().unwrap().push(review.clone());
        let path = target.service.as_ref().map(|service| service.2.clone()).unwrap_or_default();
        let mut response = json!({"uid": review["request"]["uid"], "allowed": true});
        match path.as_str() {
            "/deny" => {
                response["allowed"] = false.into();
                response["status"] = json!({"message": "not here", "code": 403, "reason": "Forbidden"});
            }
            "/mutate" => {
                let patch = json!([{"op": "add", "path": "/data/added", "value": "yes"}]).to_string();
                response["patchType"] = "JSONPatch".into();
                response["patch"] = base64::engine::general_purpose::STANDARD.encode(patch).into();
                response["warnings"] = json!(["mutated"]);
            }
            "/broken" => return Err(WebhookError("failed to call webhook: broken".to_owned())),
            _ => {}
        }
        Ok(json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response}))
    }
}

async fn world() -> (World, Arc<Fake>) {
    let world = World::new().await;
    let fake = Arc::new(Fake::default());
    world.registry.set_hooks(Hooks { webhooks: Some(fake.clone()), ..Hooks::default() });
    (world, fake)
}

fn webhook(path: &str, operations: &[&str], extra: Value) -> Value {
    let mut webhook = json!({
        "name": format!("{}.demo.io", path.trim_start_matches('/').to_owned() + ".x"),
        "clientConfig": {"service": {"namespace": "default", "name": "hook", "path": path}},
        "rules": [{"operations": operations, "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"]}],
        "sideEffects": "None", "admissionReviewVersions": ["v1"],
    });
    if let (Value::Object(webhook), Value::Object(extra)) = (&mut webhook, extra) {
        webhook.extend(extra);
    }
    webhook
}

async fn configure(world: &World, kind: &str, webhooks: Vec<Value>) {
    let path = format!("admissionregistration.k8s.io/v1/{kind}");
    let made =
        world.create(&path, "", json!({"metadata": {"name": "c"}, "webhooks": webhooks})).await.unwrap();
    // The cache follows by moments.
    let revision = made["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap();
    world.registry.cache().wait_until(crate::store::Revision(revision)).await.unwrap();
}

#[tokio::test]
async fn validating_webhooks_deny_in_upstreams_words() {
    let (world, fake) = world().await;
    let hooks = vec![webhook("/deny", &["CREATE", "DELETE"], json!({}))];
    let other = config_map("before");
    world.create("v1/configmaps", "default", other).await.unwrap();
    configure(&world, "validatingwebhookconfigurations", hooks).await;
    let error = world.create("v1/configmaps", "default", config_map("a")).await.unwrap_err();
    assert_eq!(error.message(), "admission webhook \"deny.x.demo.io\" denied the request: not here");
    assert_eq!(error.code(), 403);
    let options = crate::registry::DeleteOptions::default();
    let error = world.delete("v1/configmaps", "default", "before", options).await.unwrap_err();
    assert_eq!(error.code(), 403);
    let asked = fake.asked.lock().unwrap();
    let request = &asked[0]["request"];
    assert_eq!(request["operation"], "CREATE");
    assert_eq!(request["kind"], json!({"group": "", "version": "v1", "kind": "ConfigMap"}));
    assert_eq!((&request["name"], &request["namespace"]), (&json!("a"), &json!("default")));
    assert_eq!(request["object"]["data"]["a"], "1");
    let request = &asked[1]["request"];
    assert_eq!(
        (&request["object"], &request["oldObject"]["metadata"]["name"]),
        (&Value::Null, &json!("before"))
    );
}

#[tokio::test]
async fn mutating_webhooks_change_objects_and_warn() {
    let (world, _) = world().await;
    let condition =
        json!({"matchConditions": [{"name": "not-skipped", "expression": "object.metadata.name != 'skip'"}]});
    configure(&world, "mutatingwebhookconfigurations", vec![webhook("/mutate", &["*"], condition)]).await;
    let cx = world.cx();
    let made = world.create_with(&cx, "v1/configmaps", "default", config_map("a")).await.unwrap();
    assert_eq!(made["data"], json!({"a": "1", "added": "yes"}));
    assert_eq!(cx.take_warnings(), ["mutated"]);
    let made = world.create("v1/configmaps", "default", config_map("skip")).await.unwrap();
    assert_eq!(made["data"], json!({"a": "1"}));
}

#[tokio::test]
async fn webhooks_that_fail_are_passed_over_only_when_that_is_allowed() {
    let (world, _) = world().await;
    let ignored = webhook("/broken", &["CREATE"], json!({"failurePolicy": "Ignore", "name": "i.x.demo.io"}));
    let fatal =
        webhook("/broken", &["UPDATE"], json!({"objectSelector": {"matchLabels": {"strict": "yes"}}}));
    configure(&world, "validatingwebhookconfigurations", vec![ignored, fatal]).await;
    let mut made = world.create("v1/configmaps", "default", config_map("a")).await.unwrap();
    made["data"]["b"] = "2".into();
    let mut made = world.update("v1/configmaps", None, made).await.unwrap();
    made["metadata"]["labels"] = json!({"strict": "yes"});
    let error = world.update("v1/configmaps", None, made).await.unwrap_err();
    assert_eq!(
        error.message(),
        "Internal error occurred: failed calling webhook \"broken.x.demo.io\": failed to call webhook: broken"
    );
}

#[tokio::test]
async fn a_deletion_is_judged_by_what_is_there_when_it_happens() {
    /// Refuses to delete what says so, which it comes to say while the webhook is asked for the first time.
    struct Race(Arc<crate::registry::Registry>, Arc<crate::registry::Resource>, Mutex<usize>);
    #[async_trait]
    impl WebhookClient for Race {
        async fn call(&self, _: &WebhookTarget, _: Duration, review: &Value) -> Result<Value, WebhookError> {
            let first = std::mem::replace(&mut *self.2.lock().unwrap(), 1) == 0;
            if first {
                let user = Arc::new(crate::registry::UserInfo::default());
                let cx = crate::registry::RequestContext::for_user(user);
                let body = crate::registry::Body::json(json!({"data": {"kept": "yes"}}).to_string());
                let kind = crate::registry::PatchKind::Merge;
                self.0.patch(&cx, &self.1, None, "default", "a", kind, body).await.unwrap();
            }
            let allowed = review["request"]["oldObject"]["data"]["kept"] != "yes";
            let response = json!({"uid": review["request"]["uid"], "allowed": allowed});
            Ok(json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response}))
        }
    }
    let world = World::new().await;
    let race = Race(world.registry.clone(), world.row("v1/configmaps"), Mutex::default());
    world.registry.set_hooks(Hooks { webhooks: Some(Arc::new(race)), ..Hooks::default() });
    world.create("v1/configmaps", "default", config_map("a")).await.unwrap();
    configure(&world, "validatingwebhookconfigurations", vec![webhook("/race", &["DELETE"], json!({}))])
        .await;
    let options = crate::registry::DeleteOptions::default();
    let error = world.delete("v1/configmaps", "default", "a", options).await.unwrap_err();
    assert!(error.message().contains("denied the request"), "{error}");
    assert_eq!(world.get("v1/configmaps", "default", "a").await.unwrap()["data"]["kept"], "yes");
}

#[tokio::test]
async fn webhooks_are_asked_about_reviews_and_policies_are_not() {
    struct Answer;
    #[async_trait]
    impl crate::registry::ReviewHandler for Answer {
        async fn review(
            &self,
            _: &crate::registry::RequestContext,
            _: &crate::registry::Resource,
            _: &str,
            object: Value,
        ) -> Result<Value, crate::api::error::ApiError> {
            Ok(object)
        }
    }
    let world = World::new().await;
    let fake = Arc::new(Fake::default());
    world.registry.set_hooks(Hooks {
        webhooks: Some(fake.clone()),
        reviews: Some(Arc::new(Answer)),
        ..Hooks::default()
    });
    let rule = json!({"operations": ["CREATE"], "apiGroups": ["authentication.k8s.io"], "apiVersions": ["v1"], "resources": ["*"]});
    let spec =
        json!({"matchConstraints": {"resourceRules": [rule]}, "validations": [{"expression": "false"}]});
    let policies = "admissionregistration.k8s.io/v1/validatingadmissionpolicies";
    world.create(policies, "", json!({"metadata": {"name": "p"}, "spec": spec})).await.unwrap();
    let binding = json!({"policyName": "p", "validationActions": ["Deny"]});
    let bindings = format!("{policies}bindings").replace("policiesbindings", "policybindings");
    world.create(&bindings, "", json!({"metadata": {"name": "p"}, "spec": binding})).await.unwrap();
    let review = json!({"spec": {"token": "t"}});
    configure(
        &world,
        "mutatingwebhookconfigurations",
        vec![webhook("/ok", &["*"], json!({"rules": [rule]}))],
    )
    .await;
    world.create("authentication.k8s.io/v1/tokenreviews", "", review.clone()).await.unwrap();
    assert_eq!(fake.asked.lock().unwrap()[0]["request"]["kind"]["kind"], "TokenReview");
    let hooks = vec![webhook("/deny", &["*"], json!({"rules": [rule]}))];
    configure(&world, "validatingwebhookconfigurations", hooks).await;
    let error = world.create("authentication.k8s.io/v1/tokenreviews", "", review).await.unwrap_err();
    assert_eq!(error.message(), "admission webhook \"deny.x.demo.io\" denied the request: not here");
}

#[tokio::test]
async fn configurations_themselves_are_not_stood_in_the_way_of() {
    let (world, fake) = world().await;
    let everything = json!({"rules": [{"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*"]}]});
    configure(&world, "validatingwebhookconfigurations", vec![webhook("/deny", &["*"], everything)]).await;
    let path = "admissionregistration.k8s.io/v1/validatingwebhookconfigurations";
    world.delete(path, "", "c", crate::registry::DeleteOptions::default()).await.unwrap();
    assert!(fake.asked.lock().unwrap().is_empty());
}

#[test]
fn rules_cover_resources_and_subresources() {
    let rule = |resources: &[&str]| {
        Rule::of(
            &json!({"operations": ["CREATE"], "apiGroups": ["*"], "apiVersions": ["v1"], "resources": resources}),
        )
    };
    let cases = [
        (&["pods"][..], "pods", "", true),
        (&["pods"], "pods", "status", false),
        (&["pods/status"], "pods", "status", true),
        (&["pods/*"], "pods", "", true),
        (&["*/scale"], "deployments", "scale", true),
        (&["*"], "pods", "", true),
        (&["*"], "pods", "exec", false),
        (&["*/*"], "pods", "exec", true),
    ];
    for (resources, plural, subresource, expected) in cases {
        let found = rule(resources).covers("CREATE", ("", "v1", plural), subresource, true, "a");
        assert_eq!(found, expected, "{resources:?} {plural}/{subresource}");
    }
    assert!(!rule(&["pods"]).covers("UPDATE", ("", "v1", "pods"), "", true, "a"));
}
