//! Requests to the model: paths, verbs, watches, discovery.

use super::{
    FakeApi,
    model::{Collection, Status},
};
use bytes::Bytes;
use futures::{StreamExt, future::BoxFuture, stream};
use http::{Request, Response};
use http_body_util::{Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::Frame;
use kube::client::Body;
use serde_json::{Value, json};
use std::{
    collections::HashMap,
    convert::Infallible,
    sync::Arc,
    task::{Context, Poll},
};

type Answer = Response<UnsyncBoxBody<Bytes, Infallible>>;

#[derive(Clone)]
pub(super) struct Service(pub(super) Arc<FakeApi>);

impl tower::Service<Request<Body>> for Service {
    type Response = Answer;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Answer, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let api = self.0.clone();
        Box::pin(async move { Ok(answer(api, request).await) })
    }
}

struct Target {
    collection: Collection,
    namespace: String,
    name: Option<String>,
    sub: Option<String>,
}

/// `/api/v1/namespaces/x/pods/p/status` and the like.
fn target(path: &str) -> Option<Target> {
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    let (group, rest) = match parts.as_slice() {
        ["api", _version, rest @ ..] => ("", rest),
        ["apis", group, _version, rest @ ..] => (*group, rest),
        _ => return None,
    };
    let own = |text: Option<&&str>| text.map(|text| (*text).to_owned());
    let (namespace, rest) = match rest {
        ["namespaces", _, "status" | "finalize"] => ("", rest),
        ["namespaces", namespace, inner @ ..] if !inner.is_empty() => (*namespace, inner),
        _ => ("", rest),
    };
    let collection = Collection { group: group.to_owned(), plural: own(rest.first())? };
    Some(Target {
        collection,
        namespace: namespace.to_owned(),
        name: own(rest.get(1)),
        sub: own(rest.get(2)),
    })
}

async fn answer(api: Arc<FakeApi>, request: Request<Body>) -> Answer {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path().to_owned();
    let method = parts.method.as_str().to_owned();
    api.log.lock().unwrap().push(format!("{method} {path}"));
    let fault = api.take_fault(&method, &path);
    if let Some((status, false)) = &fault {
        return error(status);
    }
    let body = body.collect_bytes().await.unwrap();
    let body: Value = if body.is_empty() { Value::Null } else { serde_json::from_slice(&body).unwrap() };
    let query: HashMap<String, String> = parts
        .uri
        .query()
        .unwrap_or_default()
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    if path == "/api" || path == "/apis" {
        return json_answer(200, &discovery(&api, &path));
    }
    let Some(target) = target(&path) else { return error(&Status::new(404, "NotFound")) };
    if query.get("watch").is_some_and(|watch| watch == "true") {
        return watch(
            api,
            target,
            query.get("resourceVersion").and_then(|v| v.parse().ok()).unwrap_or_default(),
        );
    }
    let patch_type =
        parts.headers.get("content-type").and_then(|value| value.to_str().ok()).unwrap_or_default();
    match (api.change(|model| verb(model, &method, &target, body, patch_type)), fault) {
        (_, Some((status, _))) => error(&status),
        (Ok(value), None) => json_answer(if method == "POST" { 201 } else { 200 }, &value),
        (Err(status), None) => error(&status),
    }
}

fn verb(
    model: &mut super::model::Model,
    method: &str,
    target: &Target,
    body: Value,
    patch_type: &str,
) -> Result<Value, Status> {
    let Target { collection, namespace, name, sub } = target;
    match (method, name) {
        ("GET", None) => Ok(list(model.revision, model.list(collection, namespace))),
        ("GET", Some(name)) => model.get(collection, namespace, name),
        ("POST", None) => model.create(collection, namespace, body),
        ("PUT", Some(name)) => model.update(collection, namespace, name, sub.as_deref(), body),
        ("PATCH", Some(name)) => {
            let mut object = model.get(collection, namespace, name)?;
            if patch_type.starts_with("application/json-patch") {
                let patch: json_patch::Patch = serde_json::from_value(body).unwrap();
                json_patch::patch(&mut object, &patch).map_err(|_| Status::new(422, "Invalid"))?;
            } else {
                json_patch::merge(&mut object, &body);
            }
            model.update(collection, namespace, name, sub.as_deref(), object)
        }
        ("DELETE", Some(name)) => model.delete(collection, namespace, name, &body),
        ("DELETE", None) => {
            let items = model.list(collection, namespace);
            for item in &items {
                let name = item["metadata"]["name"].as_str().unwrap();
                let namespace = item["metadata"]["namespace"].as_str().unwrap_or_default();
                model.delete(collection, namespace, name, &body)?;
            }
            Ok(list(model.revision, items))
        }
        _ => Err(Status::new(405, "MethodNotAllowed")),
    }
}

fn list(revision: u64, items: Vec<Value>) -> Value {
    json!({"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": revision.to_string()}, "items": items})
}

fn watch(api: Arc<FakeApi>, target: Target, from: u64) -> Answer {
    let (oldest, cuts) = {
        let model = api.model();
        (model.oldest, model.cuts)
    };
    if from < oldest {
        return error(&Status::new(410, "Expired"));
    }
    let changes = api.revision.subscribe();
    let lines =
        stream::unfold((api, target, from, changes), move |(api, target, from, mut changes)| async move {
            loop {
                changes.borrow_and_update();
                let (lines, revision) = {
                    let model = api.model();
                    if model.cuts != cuts {
                        return None;
                    }
                    let new = model.history.iter().filter(|event| event.revision > from);
                    let wanted = new.filter(|event| {
                        event.id.0 == target.collection
                            && (target.namespace.is_empty() || event.id.1 == target.namespace)
                    });
                    let line = |event: &super::model::Event| {
                        // The type comes first, as every API server writes it.
                        format!("{{\"type\":{},\"object\":{}}}\n", json!(event.kind), event.object)
                    };
                    (wanted.map(line).collect::<String>(), model.revision)
                };
                if !lines.is_empty() {
                    let frame = Ok::<_, Infallible>(Frame::data(Bytes::from(lines)));
                    return Some((frame, (api, target, revision, changes)));
                }
                if changes.changed().await.is_err() {
                    return None;
                }
            }
        });
    let body = UnsyncBoxBody::new(StreamBody::new(lines.boxed()));
    Response::builder().status(200).body(body).unwrap()
}

/// The aggregated form.
fn discovery(api: &FakeApi, path: &str) -> Value {
    let kinds = api.model().kinds.clone();
    let mut groups: Vec<Value> = Vec::new();
    for kind in kinds.iter().filter(|kind| kind.group.is_empty() == (path == "/api")) {
        let resource = json!({
            "resource": kind.plural,
            "responseKind": {"group": kind.group, "version": kind.version, "kind": kind.kind},
            "scope": if kind.namespaced { "Namespaced" } else { "Cluster" },
            "singularResource": kind.kind.to_lowercase(),
            "verbs": ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"],
        });
        let known = groups
            .iter_mut()
            .find(|group| group["metadata"]["name"].as_str().unwrap_or_default() == kind.group);
        match known {
            Some(group) => group["versions"][0]["resources"].as_array_mut().unwrap().push(resource),
            None => groups.push(json!({
                "metadata": {"name": kind.group},
                "versions": [{"version": kind.version, "resources": [resource], "freshness": "Current"}],
            })),
        }
    }
    json!({"apiVersion": "apidiscovery.k8s.io/v2", "kind": "APIGroupDiscoveryList", "metadata": {}, "items": groups})
}

fn error(status: &Status) -> Answer {
    let causes: Vec<Value> = status.cause.iter().map(|cause| json!({"reason": cause})).collect();
    let body = json!({
        "apiVersion": "v1", "kind": "Status", "metadata": {}, "status": "Failure",
        "message": status.reason, "reason": status.reason, "code": status.code, "details": {"causes": causes},
    });
    json_answer(status.code, &body)
}

fn json_answer(code: u16, value: &Value) -> Answer {
    let body = UnsyncBoxBody::new(Full::new(Bytes::from(value.to_string())));
    Response::builder().status(code).header("content-type", "application/json").body(body).unwrap()
}
