//! One matrix over the table of kinds: every verb of every kind, in every shape and format.

use axum::body::Body;
use http::{Request, Response};
use http_body_util::BodyExt as _;
use kube_lite::api::protobuf;
use kube_lite::registry::{Resource, Verb};
use serde_json::{Value, json};

use crate::minimal;
use crate::protobuf::{decoded, encoded};
use crate::server::TestServer;

const JSON: &str = "application/json";
const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io";
const METADATA: &str = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io";

/// One kind under test.
struct Kind<'a> {
    server: &'a TestServer,
    row: &'a Resource,
    /// Path of the collection.
    path: String,
    /// A smallest valid object.
    object: Value,
    /// What went wrong.
    problems: Vec<String>,
}

/// What came back: the code and the object, whatever its format.
type Answer = (u16, Value);

async fn answer(response: Response<Body>) -> Answer {
    let code = response.status().as_u16();
    let content_type = response.headers()["content-type"].to_str().unwrap().to_owned();
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    let value = if content_type.starts_with(protobuf::MEDIA_TYPE) {
        decoded(&bytes)
    } else {
        serde_json::from_slice(&bytes).unwrap_or_else(|_| String::from_utf8_lossy(&bytes).into_owned().into())
    };
    (code, value)
}

/// An object without what changes with every write or has no meaning when it is empty.
fn essence(value: &Value) -> Value {
    match value {
        Value::Object(map) => map
            .iter()
            .filter(|(name, _)| {
                !matches!(name.as_str(), "resourceVersion" | "managedFields" | "uid" | "creationTimestamp")
            })
            .map(|(name, value)| (name.clone(), essence(value)))
            .filter(|(_, value)| match value {
                Value::Object(map) => !map.is_empty(),
                Value::Array(items) => !items.is_empty(),
                value => !value.is_null(),
            })
            .collect::<serde_json::Map<_, _>>()
            .into(),
        Value::Array(items) => items.iter().map(essence).collect(),
        value => value.clone(),
    }
}

impl Kind<'_> {
    fn name(&self) -> &str {
        self.object["metadata"]["name"].as_str().unwrap()
    }

    fn has(&self, verb: Verb) -> bool {
        self.row.verbs.contains(&verb)
    }

    /// Sends a request below the collection.
    async fn send(&self, method: &str, below: &str, types: (&str, &str), body: impl Into<Body>) -> Answer {
        let request = Request::builder()
            .method(method)
            .uri(format!("{}{below}", self.path))
            .header("content-type", types.0)
            .header("accept", types.1)
            .body(body.into())
            .unwrap();
        answer(self.server.raw(request).await).await
    }

    fn expect(&mut self, what: &str, codes: &[u16], answer: &Answer) {
        if !codes.contains(&answer.0) {
            self.problems.push(format!("{what} {}: {} {}", self.path, answer.0, answer.1));
        }
    }

    fn equal(&mut self, what: &str, found: &Value, expected: &Value) {
        let (found, expected) = (essence(found), essence(expected));
        if found != expected {
            self.problems.push(format!("{what} {}: {found}\n  instead of {expected}", self.path));
        }
    }

    async fn creates(&mut self) {
        let body = self.object.to_string();
        let dry = self.send("POST", "?dryRun=All", (JSON, JSON), body.clone()).await;
        self.expect("dry run of create", &[201], &dry);
        if self.has(Verb::Get) {
            let absent = self.send("GET", &format!("/{}", self.name()), (JSON, JSON), "").await;
            self.expect("get after a dry run", &[404], &absent);
        }
        let made =
            self.send("POST", "", (protobuf::MEDIA_TYPE, protobuf::MEDIA_TYPE), encoded(&self.object)).await;
        self.expect("create in protobuf", &[201], &made);
        if self.has(Verb::Get) {
            let again = self.send("POST", "", (JSON, JSON), body).await;
            self.expect("create again", &[409], &again);
        }
    }

    async fn reads(&mut self) {
        let one = format!("/{}", self.name());
        let json = self.send("GET", &one, (JSON, JSON), "").await;
        self.expect("get", &[200], &json);
        let (kind, api_version) = (self.row.kind.to_string(), self.row.api_version().into_owned());
        self.equal("kind of", &json.1["kind"], &json!(kind));
        self.equal("apiVersion of", &json.1["apiVersion"], &json!(api_version));
        let protobuf = self.send("GET", &one, (JSON, protobuf::MEDIA_TYPE), "").await;
        self.expect("get in protobuf", &[200], &protobuf);
        let written = self.send("GET", &one, (JSON, "application/yaml"), "").await;
        self.expect("get in YAML", &[200], &written);
        let mut back = protobuf.1;
        without_zeros(&mut back, &json.1);
        self.equal("protobuf of", &back, &json.1);
        for (accept, kind) in [(TABLE, "Table"), (METADATA, "PartialObjectMetadata")] {
            let shaped = self.send("GET", &one, (JSON, accept), "").await;
            self.expect(kind, &[200], &shaped);
            self.equal(kind, &shaped.1["kind"], &json!(kind));
        }
        self.lists(&json.1).await;
    }

    async fn lists(&mut self, object: &Value) {
        let list_kind = self.row.list_kind.to_string();
        let shapes = [
            (JSON, list_kind.as_str(), true),
            (protobuf::MEDIA_TYPE, list_kind.as_str(), true),
            (METADATA, "PartialObjectMetadataList", true),
            (TABLE, "Table", false),
        ];
        let selector = format!("?fieldSelector=metadata.name={}", self.name());
        for (accept, kind, has_items) in shapes {
            let list = self.send("GET", &selector, (JSON, accept), "").await;
            self.expect("list", &[200], &list);
            self.equal("kind of list of", &list.1["kind"], &json!(kind));
            if has_items {
                let names: Vec<&Value> = list.1["items"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .map(|item| &item["metadata"]["name"])
                    .collect();
                let found = json!(names);
                self.equal("list of", &found, &json!([object["metadata"]["name"]]));
            } else {
                let found = list.1["rows"][0]["object"]["metadata"]["name"].clone();
                self.equal("row of", &found, &object["metadata"]["name"]);
            }
        }
    }

    async fn watches(&mut self) {
        let path =
            format!("{}?watch=true&resourceVersion=0&fieldSelector=metadata.name={}", self.path, self.name());
        for accept in [JSON, protobuf::WATCH_MEDIA_TYPE] {
            let request = Request::builder().uri(&path).header("accept", accept).body(Body::empty()).unwrap();
            let response = self.server.raw(request).await;
            let answer =
                (response.status().as_u16(), json!(response.headers()["content-type"].to_str().unwrap()));
            self.expect("watch", &[200], &answer);
            self.equal("content type of watch of", &answer.1, &json!(accept));
            let frame = response.into_body().frame().await.unwrap().unwrap().into_data().unwrap();
            let object = if accept == JSON {
                serde_json::from_slice::<Value>(&frame).unwrap()["object"].clone()
            } else {
                decoded(&frame[frame.windows(4).position(|window| window == b"k8s\0").unwrap()..])
            };
            let expected = json!([*self.row.kind, self.name()]);
            self.equal("event of", &json!([object["kind"], object["metadata"]["name"]]), &expected);
        }
    }

    async fn updates(&mut self) {
        let one = format!("/{}", self.name());
        let (_, mut object) = self.send("GET", &one, (JSON, JSON), "").await;
        let generation = object["metadata"]["generation"].clone();
        object["metadata"]["labels"]["updated"] = "json".into();
        let dry = self.send("PUT", &format!("{one}?dryRun=All"), (JSON, JSON), object.to_string()).await;
        self.expect("dry run of update", &[200], &dry);
        let updated = self.send("PUT", &one, (JSON, JSON), object.to_string()).await;
        self.expect("update", &[200], &updated);
        let mut object = updated.1;
        object["metadata"]["labels"]["updated"] = "protobuf".into();
        let types = (protobuf::MEDIA_TYPE, protobuf::MEDIA_TYPE);
        let updated = self.send("PUT", &one, types, encoded(&object)).await;
        self.expect("update in protobuf", &[200], &updated);
        self.equal("label of", &updated.1["metadata"]["labels"]["updated"], &json!("protobuf"));
        // Where a label counts for the generation, it does so in JSON too.
        if generation == object["metadata"]["generation"] {
            self.equal("generation after protobuf of", &updated.1["metadata"]["generation"], &generation);
        }
        let stale = self.send("PUT", &one, types, encoded(&object)).await;
        self.expect("update of an old version", &[409], &stale);
    }

    async fn patches(&mut self) {
        let one = format!("/{}", self.name());
        let merge = json!({"metadata": {"labels": {"patched": "yes"}}});
        let mut apply = merge.clone();
        apply["apiVersion"] = self.row.api_version().into();
        apply["kind"] = self.row.kind.as_ref().into();
        apply["metadata"]["name"] = self.name().into();
        let add = json!([{"op": "add", "path": "/metadata/labels/patched", "value": "yes"}]);
        let kinds = [
            ("application/json-patch+json", "", add),
            ("application/merge-patch+json", "", merge.clone()),
            ("application/strategic-merge-patch+json", "", merge),
            ("application/apply-patch+yaml", "?fieldManager=matrix&force=true", apply),
        ];
        for (content_type, query, patch) in kinds {
            let path = format!("{one}{query}");
            let patched =
                self.send("PATCH", &path, (content_type, protobuf::MEDIA_TYPE), patch.to_string()).await;
            self.expect(content_type, &[200], &patched);
            self.equal(content_type, &patched.1["metadata"]["labels"]["patched"], &json!("yes"));
            let clear = r#"{"metadata":{"labels":{"patched":null}}}"#;
            let types = ("application/merge-patch+json", JSON);
            let cleared = self.send("PATCH", &one, types, clear).await;
            self.expect("merge patch to null", &[200], &cleared);
        }
    }

    async fn parts(&mut self) {
        for part in
            self.row.subresources.clone().iter().filter(|part| matches!(part.name, "status" | "scale"))
        {
            for accept in [JSON, protobuf::MEDIA_TYPE] {
                let path = format!("/{}/{}", self.name(), part.name);
                let found = self.send("GET", &path, (JSON, accept), "").await;
                self.expect(part.name, &[200], &found);
            }
        }
    }

    /// Takes the finalizers away that admission gives to storage, and that no controller is here to take away.
    async fn free(&mut self) {
        if self.row.kind.starts_with("PersistentVolume") {
            let types = ("application/merge-patch+json", JSON);
            let free = r#"{"metadata":{"finalizers":null}}"#;
            let freed = self.send("PATCH", &format!("/{}", self.name()), types, free).await;
            self.expect("merge patch of finalizers", &[200], &freed);
        }
    }

    async fn deletes(&mut self) {
        let one = format!("/{}", self.name());
        let options = json!({"apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0,
            "propagationPolicy": "Background"});
        let dry = self.send("DELETE", &format!("{one}?dryRun=All"), (JSON, JSON), "").await;
        self.expect("dry run of delete", &[200], &dry);
        let there = self.send("GET", &one, (JSON, JSON), "").await;
        self.expect("get after a dry run of delete", &[200], &there);
        let types = (protobuf::MEDIA_TYPE, protobuf::MEDIA_TYPE);
        self.free().await;
        if self.has(Verb::DeleteCollection) {
            let selector = format!("?fieldSelector=metadata.name={}", self.name());
            let deleted = self.send("DELETE", &selector, types, encoded(&options)).await;
            self.expect("deletecollection", &[200], &deleted);
            let again = self.send("POST", "", (JSON, JSON), self.object.to_string()).await;
            self.expect("create after deletecollection", &[201], &again);
            self.free().await;
        }
        let deleted = self.send("DELETE", &one, types, encoded(&options)).await;
        self.expect("delete", &[200], &deleted);
        if *self.row.kind != *"Namespace" {
            let gone = self.send("GET", &one, (JSON, JSON), "").await;
            self.expect("get after delete", &[404], &gone);
        }
    }
}

/// Takes out of `value` what is zero there and absent in `model`: upstream's JSON has such fields and ours may not.
fn without_zeros(value: &mut Value, model: &Value) {
    match (value, model) {
        (Value::Object(map), Value::Object(model)) => {
            map.retain(|name, value| model.contains_key(name) || !is_zero(value));
            for (name, value) in map {
                without_zeros(value, model.get(name).unwrap_or(&Value::Null));
            }
        }
        (Value::Array(items), Value::Array(models)) => {
            items.iter_mut().zip(models).for_each(|(item, model)| without_zeros(item, model));
        }
        _ => {}
    }
}

fn is_zero(value: &Value) -> bool {
    match value {
        Value::Object(map) => map.values().all(is_zero),
        Value::Array(items) => items.is_empty(),
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty() || text == "0",
        Value::Bool(flag) => !flag,
        Value::Null => true,
    }
}

#[tokio::test]
async fn every_verb_of_every_kind_works_in_every_format() {
    let server = TestServer::start().await;
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}});
    server.send("POST", "/api/v1/namespaces/default/serviceaccounts", Some(account)).await;
    let mut problems = Vec::new();
    let mut kinds = 0;
    let rows: Vec<_> = server.api.registry().catalog().iter().cloned().collect();
    for row in &rows {
        let Some(object) = minimal::object(&row.api_version(), &row.kind) else { continue };
        kinds += 1;
        let base = if row.group.is_empty() { "/api" } else { "/apis" };
        let namespace = if row.namespaced() { "/namespaces/default" } else { "" };
        let path = format!("{base}/{}{namespace}/{}", row.api_version(), row.plural);
        let mut kind = Kind { server: &server, row, path, object, problems: Vec::new() };
        if kind.has(Verb::Create) {
            kind.creates().await;
        }
        if kind.has(Verb::Get) && kind.has(Verb::Create) {
            kind.reads().await;
            kind.watches().await;
            kind.updates().await;
            kind.patches().await;
            kind.parts().await;
            kind.deletes().await;
        }
        problems.append(&mut kind.problems);
    }
    assert!(kinds > 30, "only {kinds} kinds");
    assert!(problems.is_empty(), "{} problems:\n{}", problems.len(), problems.join("\n"));
}
