//! The life of an object as upstream's suite plays it for nearly every kind: discovery, create, get, list, watch, the
//! patches, update, status, delete, delete a collection, with what each step must answer.

use axum::body::Body;
use http::Request;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};

use super::{count, post, put, send_as};
use crate::server::TestServer;

/// The label that selects the objects of one such life.
const LABEL: &str = "e2e-test";
const SELECTOR: &str = "labelSelector=e2e-test%3Dlife";

/// How a kind's objects live.
pub struct Life<'a> {
    /// Path of the group and version, and what follows it: a namespace or nothing, and the plural.
    pub group: &'a str,
    pub resource: &'a str,
    /// Without a name.
    pub object: Value,
    /// What an update or a patch changes, besides a label; null where only the label may change.
    pub change: Value,
    /// What a patch of the status says; null where there is none.
    pub status: Value,
}

impl Life<'_> {
    fn path(&self) -> String {
        format!("{}/{}", self.group, self.resource)
    }

    fn named(&self, name: &str) -> Value {
        let mut object = self.object.clone();
        object["metadata"]["name"] = name.into();
        object["metadata"]["labels"][LABEL] = "life".into();
        object
    }

    /// Every step, on objects called `NAME-0`, `NAME-1` and `NAME-2`.
    pub async fn play(&self, server: &TestServer, name: &str) {
        self.play_as(server, |i| format!("{name}-{i}")).await;
    }

    /// Every step, on three objects with these names.
    pub async fn play_as(&self, server: &TestServer, name: impl Fn(usize) -> String) {
        let path = self.path();
        self.is_discovered(server).await;
        let (_, before) = server.send("GET", &format!("{path}?{SELECTOR}"), None).await;
        let version = before["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
        let one = format!("{path}/{}", name(0));
        let created = post(server, &path, self.named(&name(0))).await;
        let (code, again) = server.send("POST", &path, Some(self.named(&name(0)))).await;
        assert_eq!((code, &again["reason"]), (409, &json!("AlreadyExists")), "{path}");
        let (_, got) = server.send("GET", &one, None).await;
        assert_eq!(got["metadata"]["uid"], created["metadata"]["uid"], "{path}");
        let patches = self.is_patched(server, &one, &got).await;
        self.is_updated(server, &one).await;
        if !self.status.is_null() {
            self.has_a_status(server, &one).await;
        }
        for i in 1..3 {
            post(server, &path, self.named(&name(i))).await;
        }
        assert_eq!(count(server, &format!("{path}?{SELECTOR}")).await, 3, "{path}");
        if let Some((_, plural)) = self.resource.rsplit_once('/') {
            let everywhere = format!("{}/{plural}?{SELECTOR}", self.group);
            assert_eq!(count(server, &everywhere).await, 3, "{everywhere}");
        }
        let (code, _) = server.send("DELETE", &one, None).await;
        assert_eq!((code, server.send("GET", &one, None).await.0), (200, 404), "{path}");
        let (code, _) = server.send("DELETE", &format!("{path}?{SELECTOR}"), None).await;
        assert_eq!((code, count(server, &format!("{path}?{SELECTOR}")).await), (200, 0), "{path}");
        let statuses = if self.status.is_null() { 0 } else { 2 };
        let seen = watched(server, &path, &version, 1 + patches + 1 + statuses + 2 + 3).await;
        let mut wanted = vec!["ADDED"];
        wanted.extend(vec!["MODIFIED"; patches + 1 + statuses]);
        wanted.extend(["ADDED", "ADDED", "DELETED", "DELETED", "DELETED"]);
        assert_eq!(seen, wanted, "{path}");
    }

    async fn is_discovered(&self, server: &TestServer) {
        let (_, resources) = server.send("GET", self.group, None).await;
        let plural = self.resource.rsplit('/').next().unwrap();
        let names: Vec<_> =
            resources["resources"].as_array().unwrap().iter().map(|r| r["name"].as_str().unwrap()).collect();
        assert!(names.contains(&plural), "{plural}: {names:?}");
        let status = format!("{plural}/status");
        assert!(self.status.is_null() || names.contains(&status.as_str()), "{status}: {names:?}");
    }

    /// Every kind of patch, each with a label of its own; the number of patches.
    async fn is_patched(&self, server: &TestServer, one: &str, got: &Value) -> usize {
        let types = ["strategic-merge-patch", "merge-patch", "json-patch", "apply-patch"];
        let mut version = got["metadata"]["resourceVersion"].as_str().unwrap().parse::<u64>().unwrap();
        for (i, kind) in types.into_iter().enumerate() {
            let value = format!("patched-{i}");
            let body = match kind {
                "json-patch" => json!([{"op": "add", "path": "/metadata/labels/patched", "value": value}]),
                "apply-patch" => {
                    let meta = json!({"name": got["metadata"]["name"], "uid": got["metadata"]["uid"],
                        "labels": {"patched": value}});
                    let mut object =
                        json!({"apiVersion": got["apiVersion"], "kind": got["kind"], "metadata": meta});
                    if let Some(namespace) = got["metadata"]["namespace"].as_str() {
                        object["metadata"]["namespace"] = namespace.into();
                    }
                    object
                }
                _ => json!({"metadata": {"labels": {"patched": value}, "uid": got["metadata"]["uid"]}}),
            };
            let end = if kind == "apply-patch" { "yaml" } else { "json" };
            let query = "fieldManager=test-apply&fieldValidation=Strict";
            let query = if kind == "apply-patch" { format!("{query}&force=true") } else { query.to_owned() };
            let (code, _, patched) = send_as(
                server,
                ("PATCH", &format!("{one}?{query}")),
                (&format!("application/{kind}+{end}"), "application/json"),
                body.to_string(),
            )
            .await;
            assert_eq!(
                (code, &patched["metadata"]["labels"]["patched"]),
                (200, &json!(value)),
                "{kind}: {patched}"
            );
            assert_eq!(patched["metadata"]["labels"][LABEL], "life", "{kind}");
            let newer = patched["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap();
            assert!(newer > version, "{kind}: a patched object has a larger version");
            version = newer;
        }
        types.len()
    }

    async fn is_updated(&self, server: &TestServer, one: &str) {
        let (_, mut object) = server.send("GET", one, None).await;
        object["metadata"]["labels"]["updated"] = "true".into();
        merge(&mut object, &self.change);
        let updated = put(server, one, object.clone()).await;
        assert_eq!(updated["metadata"]["labels"]["updated"], "true");
        assert!(includes(&updated, &self.change), "{updated}");
        let (code, stale) = server.send("PUT", one, Some(object)).await;
        assert_eq!((code, &stale["reason"]), (409, &json!("Conflict")), "{one}");
    }

    /// A patch of the status, an update of it, and what reading it says.
    async fn has_a_status(&self, server: &TestServer, one: &str) {
        let status = format!("{one}/status");
        let (_, got) = server.send("GET", &status, None).await;
        let body = json!({"metadata": {"annotations": {"patchedstatus": "true"}}, "status": self.status});
        let merge = ("application/merge-patch+json", "application/json");
        let (code, _, patched) = send_as(server, ("PATCH", &status), merge, body.to_string()).await;
        assert_eq!(code, 200, "{patched}");
        assert_eq!((&patched["kind"], &patched["spec"]), (&got["kind"], &got["spec"]));
        assert!(includes(&patched["status"], &self.status), "{patched}");
        let mut object = patched;
        object["metadata"]["annotations"]["updatedstatus"] = "true".into();
        let updated = put(server, &status, object).await;
        assert!(includes(&updated["status"], &self.status), "{updated}");
        assert_eq!(server.send("GET", &status, None).await.1["status"], updated["status"]);
    }
}

fn merge(object: &mut Value, change: &Value) {
    match change {
        Value::Object(fields) => fields.iter().for_each(|(name, value)| merge(&mut object[name], value)),
        Value::Null => {}
        other => *object = other.clone(),
    }
}

/// Whether all that `part` says is in `whole`.
pub fn includes(whole: &Value, part: &Value) -> bool {
    match part {
        Value::Object(fields) => fields.iter().all(|(name, value)| includes(&whole[name], value)),
        Value::Array(items) => {
            whole.as_array().is_some_and(|w| w.len() == items.len())
                && items.iter().enumerate().all(|(i, item)| includes(&whole[i], item))
        }
        Value::Null => true,
        other => whole == other,
    }
}

/// The types of the events of a watch from a version on, until there are so many.
pub async fn watched(server: &TestServer, path: &str, version: &str, wanted: usize) -> Vec<String> {
    let query = format!("{path}?watch=1&{SELECTOR}&resourceVersion={version}");
    let mut body = server.raw(Request::get(query).body(Body::empty()).unwrap()).await.into_body();
    let mut text = String::new();
    while text.lines().count() < wanted || !text.ends_with('\n') {
        let frame = body.frame().await.unwrap().unwrap();
        text.push_str(std::str::from_utf8(frame.data_ref().unwrap()).unwrap());
    }
    let type_of =
        |line: &str| serde_json::from_str::<Value>(line).unwrap()["type"].as_str().unwrap().to_owned();
    text.lines().take(wanted).map(type_of).collect()
}
