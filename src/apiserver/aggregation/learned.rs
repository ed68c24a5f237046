//! What other servers serve: their discovery, and their part of the OpenAPI documents.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::{Request, header};
use http_body_util::{BodyExt as _, Limited};
use serde_json::{Map, Value, json};

use super::delegates::Delegate;
use super::{Failure, availability, identity};
use crate::apiserver::ApiServer;

/// The most that a server may say about what it serves.
const MOST: usize = 16 * 1024 * 1024;
/// How long it may take to say it: documents of OpenAPI are made when somebody first asks.
const PATIENCE: Duration = Duration::from_secs(60);
/// Aggregated discovery if the server has it, else the plain kind.
const DISCOVERY: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,\
    application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json";

/// What all other servers serve.
#[derive(Debug, Default)]
pub(in crate::apiserver) struct Learned {
    /// Changes when anything else does.
    pub(in crate::apiserver) version: u64,
    /// By group and version.
    pub(in crate::apiserver) versions: BTreeMap<(String, String), Arc<RemoteVersion>>,
}

impl Learned {
    /// The versions of a group.
    pub(in crate::apiserver) fn of_group(&self, group: &str) -> impl Iterator<Item = &Arc<RemoteVersion>> {
        self.versions.values().filter(move |one| one.group == group)
    }
}

/// What another server serves of one group and version.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::apiserver) struct RemoteVersion {
    pub(in crate::apiserver) group: String,
    pub(in crate::apiserver) version: String,
    /// Priority of the group, and of the version in it.
    pub(in crate::apiserver) priority: (i32, i32),
    /// Its entry in aggregated discovery, `freshness` included.
    pub(in crate::apiserver) discovery: Value,
    /// Where its document of OpenAPI v3 is, relative to the server.
    pub(in crate::apiserver) openapi_v3: Option<String>,
    /// Its paths and definitions of OpenAPI v2, as JSON.
    pub(in crate::apiserver) openapi_v2: Option<Bytes>,
}

impl RemoteVersion {
    /// All that is known before the server has answered.
    pub(super) fn unknown(delegate: &Delegate) -> Self {
        Self {
            group: delegate.group.clone(),
            version: delegate.version.clone(),
            priority: delegate.priority,
            discovery: json!({"version": delegate.version, "freshness": "Stale"}),
            openapi_v3: None,
            openapi_v2: None,
        }
    }

    /// What was known, of a server that no longer answers.
    pub(super) fn stale(&self) -> Self {
        let mut stale = self.clone();
        stale.discovery["freshness"] = "Stale".into();
        stale
    }
}

impl ApiServer {
    /// Asks another server what it serves. OpenAPI documents may be missing; discovery may not.
    pub(super) async fn learn_of(&self, delegate: &Delegate) -> Result<RemoteVersion, String> {
        let mut learned = RemoteVersion::unknown(delegate);
        let mut discovery = match self.fetch(delegate, "/apis", DISCOVERY).await? {
            (200, body) => entry_of(&decode(&body)?, &delegate.group, &delegate.version),
            _ => None,
        };
        if discovery.is_none() {
            let (code, body) = self.fetch(delegate, &delegate.path(), "application/json").await?;
            if code != 200 {
                return Err(format!("{}: {code}", delegate.path()));
            }
            discovery = Some(converted(&decode(&body)?, &delegate.group, &delegate.version));
        }
        learned.discovery = discovery.unwrap_or_default();
        learned.discovery["freshness"] = "Current".into();
        if let (200, body) = self.fetch(delegate, "/openapi/v3", "application/json").await? {
            learned.openapi_v3 = url_of(&decode(&body)?, delegate);
        }
        if let (200, body) = self.fetch(delegate, "/openapi/v2", "application/json").await? {
            learned.openapi_v2 = Some(part_of(&decode(&body)?, delegate).to_string().into());
        }
        Ok(learned)
    }

    async fn fetch(&self, delegate: &Delegate, path: &str, accept: &str) -> Result<(u16, Bytes), String> {
        let mut request = Request::builder()
            .uri(path)
            .header(header::ACCEPT, accept)
            .body(Body::empty())
            .map_err(|error| error.to_string())?;
        identity::set(request.headers_mut(), &availability::prober());
        let exchange = async {
            let response =
                self.ask(delegate, &delegate.trust, request, false).await.map_err(|why| match why {
                    Failure::Unresolved(why) | Failure::Unreachable(why) => why,
                })?;
            let code = response.status().as_u16();
            let body = Limited::new(response.into_body(), MOST).collect().await;
            Ok((code, body.map_err(|error| error.to_string())?.to_bytes()))
        };
        let answer = tokio::time::timeout(PATIENCE, exchange).await;
        answer.map_err(|_| "context deadline exceeded".to_owned())?
    }
}

fn decode(body: &[u8]) -> Result<Value, String> {
    serde_json::from_slice(body).map_err(|error| error.to_string())
}

fn items<'a>(value: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> {
    value.get(key).and_then(Value::as_array).into_iter().flatten()
}

/// The entry of a version in an `APIGroupDiscoveryList`; `None` when the document is of another kind.
fn entry_of(list: &Value, group: &str, version: &str) -> Option<Value> {
    if list["kind"] != "APIGroupDiscoveryList" {
        return None;
    }
    let own = items(list, "items").find(|one| one["metadata"]["name"] == group)?;
    items(own, "versions").find(|one| one["version"] == version).cloned()
}

/// An `APIResourceList` as an entry of aggregated discovery.
fn converted(list: &Value, group: &str, version: &str) -> Value {
    let kind_of = |one: &Value| {
        let or = |key: &str, default: &str| {
            let own = one[key].as_str().filter(|text| !text.is_empty());
            own.unwrap_or(default).to_owned()
        };
        json!({"group": or("group", group), "version": or("version", version), "kind": one["kind"]})
    };
    let mut resources: Vec<Value> = Vec::new();
    let named = |one: &Value| one["name"].as_str().unwrap_or_default().to_owned();
    let (below, own): (Vec<_>, Vec<_>) = items(list, "resources").partition(|one| named(one).contains('/'));
    for one in own {
        let scope = if one["namespaced"] == true { "Namespaced" } else { "Cluster" };
        let mut entry = json!({"resource": one["name"], "responseKind": kind_of(one), "scope": scope,
            "singularResource": one["singularName"], "verbs": one["verbs"]});
        for key in ["shortNames", "categories"] {
            if let Some(names) = one.get(key) {
                entry[key] = names.clone();
            }
        }
        resources.push(entry);
    }
    for one in below {
        let name = named(one);
        let Some((parent, subresource)) = name.split_once('/') else { continue };
        let entry = json!({"subresource": subresource, "responseKind": kind_of(one), "verbs": one["verbs"]});
        let at = match resources.iter().position(|own| own["resource"] == parent) {
            Some(at) => at,
            None => {
                let scope = if one["namespaced"] == true { "Namespaced" } else { "Cluster" };
                resources.push(json!({"resource": parent, "scope": scope, "verbs": []}));
                resources.len() - 1
            }
        };
        match resources[at].get_mut("subresources").and_then(Value::as_array_mut) {
            Some(known) => known.push(entry),
            None => resources[at]["subresources"] = json!([entry]),
        }
    }
    json!({"version": version, "resources": resources})
}

/// Where the root of OpenAPI v3 says that the document of the delegate's group and version is.
fn url_of(root: &Value, delegate: &Delegate) -> Option<String> {
    let path = format!("apis/{}/{}", delegate.group, delegate.version);
    let url = root.get("paths")?.get(&path)?.get("serverRelativeURL")?.as_str()?;
    // Only the delegate's own path is passed on to it.
    url.starts_with(&format!("/openapi/v3/{path}")).then(|| url.to_owned())
}

/// The paths of the delegate in a document of OpenAPI v2, and the definitions that they need.
fn part_of(document: &Value, delegate: &Delegate) -> Value {
    let (exact, below) = (delegate.path(), format!("{}/", delegate.path()));
    let all = document.get("paths").and_then(Value::as_object).cloned().unwrap_or_default();
    let paths: Map<String, Value> =
        all.into_iter().filter(|(path, _)| *path == exact || path.starts_with(&below)).collect();
    let definitions = document.get("definitions").and_then(Value::as_object);
    let mut needed = Map::new();
    let mut open = Vec::new();
    paths.values().for_each(|path| references(path, &mut open));
    while let Some(name) = open.pop() {
        let Some(definition) = definitions.and_then(|all| all.get(&name)) else { continue };
        if needed.insert(name, definition.clone()).is_none() {
            references(definition, &mut open);
        }
    }
    json!({"paths": paths, "definitions": needed})
}

/// The names of the definitions that a value refers to.
fn references(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            let own = map.get("$ref").and_then(Value::as_str);
            found.extend(own.and_then(|own| own.strip_prefix("#/definitions/")).map(str::to_owned));
            map.values().for_each(|below| references(below, found));
        }
        Value::Array(list) => list.iter().for_each(|below| references(below, found)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delegate() -> Delegate {
        let service = json!({"metadata": {"name": "v1.g"}, "spec": {"group": "g", "version": "v1",
            "groupPriorityMinimum": 1, "versionPriority": 1, "service": {"namespace": "n", "name": "s"}}});
        Delegate::of(&serde_json::from_value(service).unwrap()).unwrap()
    }

    #[test]
    fn plain_discovery_becomes_an_entry_of_the_aggregated_kind() {
        let list = json!({"kind": "APIResourceList", "resources": [
            {"name": "things", "singularName": "thing", "namespaced": true, "kind": "Thing", "verbs": ["get"], "shortNames": ["th"]},
            {"name": "things/status", "singularName": "", "namespaced": true, "kind": "Thing", "verbs": ["update"]},
            {"name": "others/scale", "namespaced": false, "kind": "Scale", "group": "autoscaling", "version": "v1", "verbs": ["get"]},
        ]});
        let found = converted(&list, "g", "v1");
        let resources = found["resources"].as_array().unwrap();
        assert_eq!(resources[0]["responseKind"], json!({"group": "g", "version": "v1", "kind": "Thing"}));
        assert_eq!(
            (resources[0]["scope"].as_str(), &resources[0]["shortNames"]),
            (Some("Namespaced"), &json!(["th"]))
        );
        assert_eq!(resources[0]["subresources"][0]["subresource"], "status");
        assert_eq!(resources[1]["subresources"][0]["responseKind"]["group"], "autoscaling");
        assert_eq!(entry_of(&list, "g", "v1"), None);
    }

    #[test]
    fn only_the_delegates_own_part_of_openapi_is_taken() {
        let document = json!({
            "paths": {
                "/apis/g/v1/things": {"get": {"responses": {"200": {"schema": {"$ref": "#/definitions/g.v1.Thing"}}}}},
                "/apis/g/v1beta1/things": {}, "/apis/other/v1/x": {}, "/version": {},
            },
            "definitions": {"g.v1.Thing": {"properties": {"a": {"$ref": "#/definitions/g.v1.Part"}}},
                "g.v1.Part": {"type": "object"}, "g.v1.Unused": {}},
        });
        let part = part_of(&document, &delegate());
        let keys = |name: &str| part[name].as_object().unwrap().keys().cloned().collect::<Vec<_>>();
        assert_eq!(
            (keys("paths"), keys("definitions")),
            (vec!["/apis/g/v1/things".into()], vec!["g.v1.Part".into(), "g.v1.Thing".into()])
        );
        let root = |url: &str| json!({"paths": {"apis/g/v1": {"serverRelativeURL": url}}});
        let own = "/openapi/v3/apis/g/v1?hash=1";
        assert_eq!(url_of(&root(own), &delegate()).as_deref(), Some(own));
        assert_eq!(url_of(&root("/api/v1/secrets"), &delegate()), None);
    }
}
