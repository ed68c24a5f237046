//! One event: a line of JSON.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderMap, request};
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use super::policy::{Stage, Verdict};
use super::{media_type, without_managed_fields};
use crate::api::protobuf;
use crate::apiserver::authentication::InProcessUser;
use crate::apiserver::authorization::Decision;
use crate::apiserver::request_info::RequestInfo;
use crate::registry::UserInfo;

/// An event in the making.
pub(super) struct Event(Value);

fn now() -> String {
    Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string()
}

fn user(info: &UserInfo) -> Value {
    let mut out = json!({"username": info.name});
    if !info.uid.is_empty() {
        out["uid"] = info.uid.as_str().into();
    }
    if !info.groups.is_empty() {
        out["groups"] = json!(info.groups);
    }
    if !info.extra.is_empty() {
        out["extra"] = json!(info.extra);
    }
    out
}

/// Who sent the request: proxies as they say it, then the connection.
fn source_ips(head: &request::Parts) -> Vec<String> {
    let text = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let mut ips: Vec<String> = text("x-forwarded-for")
        .split(',')
        .chain([text("x-real-ip")])
        .filter_map(|text| text.trim().parse::<std::net::IpAddr>().ok())
        .map(|ip| ip.to_string())
        .collect();
    ips.dedup();
    let peer = match head.extensions.get::<SocketAddr>() {
        Some(peer) => Some(peer.ip().to_string()),
        None => head.extensions.get::<InProcessUser>().map(|_| "127.0.0.1".to_owned()),
    };
    ips.extend(peer.filter(|peer| ips.last() != Some(peer)));
    ips
}

fn reference(info: &RequestInfo) -> Option<Value> {
    let target = info.target.as_ref()?;
    let parts = [
        ("resource", &target.resource),
        ("namespace", &target.namespace),
        ("name", &target.name),
        ("apiGroup", &target.group),
        ("apiVersion", &target.version),
        ("subresource", &target.subresource),
    ];
    let mut out = json!({});
    for (key, value) in parts.into_iter().filter(|(_, value)| !value.is_empty()) {
        out[key] = value.as_str().into();
    }
    Some(out)
}

impl Event {
    pub(super) fn new(
        verdict: &Verdict,
        info: &RequestInfo,
        head: &request::Parts,
        asking: Option<&UserInfo>,
        id: &str,
    ) -> Self {
        let uri = head.uri.path_and_query().map_or("/", |path| path.as_str());
        let mut event = json!({"kind": "Event", "apiVersion": "audit.k8s.io/v1", "level": verdict.level.as_str(),
            "auditID": id, "stage": "", "requestURI": uri, "verb": info.verb,
            "user": asking.map_or_else(|| json!({}), user),
            "sourceIPs": source_ips(head), "requestReceivedTimestamp": now()});
        if let Some(agent) = head.headers.get("user-agent").and_then(|value| value.to_str().ok()) {
            event["userAgent"] = agent.into();
        }
        if let Some(reference) = reference(info) {
            event["objectRef"] = reference;
        }
        Self(event)
    }

    pub(super) fn impersonated(&mut self, acting: &UserInfo) {
        self.0["impersonatedUser"] = user(acting);
    }

    /// The body of the request, which may name the object where the URL does not.
    pub(super) fn request(&mut self, object: Option<Value>) {
        let Some(object) = object else { return };
        if let Some(reference) = self.0.get_mut("objectRef") {
            for key in ["name", "uid", "resourceVersion"] {
                let own = object["metadata"][key].as_str().filter(|own| !own.is_empty());
                if let (Some(own), None) = (own, reference.get(key)) {
                    reference[key] = own.into();
                }
            }
        }
        self.0["requestObject"] = object;
    }

    pub(super) fn response(&mut self, object: Option<Value>) {
        if let Some(object) = object {
            self.0["responseObject"] = object;
        }
    }

    /// What the answer was; `failure` is the body of one that says what is wrong.
    pub(super) fn status(&mut self, code: u16, failure: Option<Value>) {
        let mut status = failure.unwrap_or_else(|| json!({}));
        if let Value::Object(map) = &mut status {
            map.remove("kind");
            map.remove("apiVersion");
        }
        if !status["metadata"].is_object() {
            status["metadata"] = json!({});
        }
        status["code"] = code.into();
        self.0["responseStatus"] = status;
    }

    pub(super) fn decision(&mut self, decision: &Decision) {
        let (word, reason) = match decision {
            Decision::Allow(reason) => ("allow", reason),
            Decision::NoOpinion(reason) => ("forbid", reason),
        };
        self.0["annotations"] =
            json!({"authorization.k8s.io/decision": word, "authorization.k8s.io/reason": reason});
    }

    /// The line that tells of a stage.
    pub(super) fn line(&mut self, stage: Stage) -> Bytes {
        self.0["stage"] = stage.as_str().into();
        self.0["stageTimestamp"] = now().into();
        format!("{}\n", self.0).into()
    }
}

/// The object in a body; `None` for what is none.
pub(super) fn object(headers: &HeaderMap, body: &[u8], omit_managed_fields: bool) -> Option<Value> {
    let mut object: Value = match media_type(headers) {
        _ if body.is_empty() => return None,
        protobuf::MEDIA_TYPE => serde_json::from_slice(&protobuf::decode(body, ("", "")).ok()?).ok()?,
        "application/yaml" | "application/apply-patch+yaml" => crate::api::yaml::decode(body).ok()?.value,
        _ => serde_json::from_slice(body).ok()?,
    };
    if omit_managed_fields {
        without_managed_fields(&mut object);
    }
    Some(object)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_the_proxies_and_the_connection() {
        let request = http::Request::get("/").header("x-forwarded-for", "10.0.0.1, junk, 10.0.0.2");
        let mut head = request.body(()).unwrap().into_parts().0;
        head.extensions.insert("192.0.2.1:5".parse::<SocketAddr>().unwrap());
        assert_eq!(source_ips(&head), ["10.0.0.1", "10.0.0.2", "192.0.2.1"]);
    }

    #[test]
    fn a_created_object_is_named_by_its_body() {
        let head = http::Request::post("/api/v1/namespaces/a/configmaps").body(()).unwrap().into_parts().0;
        let info = RequestInfo::new(&head.method, &head.uri);
        let mut event = Event::new(&Verdict::default(), &info, &head, None, "id");
        let mut headers = HeaderMap::new();
        headers.insert("content-type", "application/json".parse().unwrap());
        let body = br#"{"metadata": {"name": "m", "managedFields": [{}]}}"#;
        event.request(object(&headers, body, true));
        event.status(201, None);
        let line: Value = serde_json::from_slice(&event.line(Stage::ResponseComplete)).unwrap();
        assert_eq!(
            line["objectRef"],
            json!({"resource": "configmaps", "namespace": "a", "name": "m", "apiVersion": "v1"})
        );
        assert_eq!(line["requestObject"], json!({"metadata": {"name": "m"}}));
        assert_eq!(line["responseStatus"], json!({"metadata": {}, "code": 201}));
        assert_eq!(
            (line["stage"].as_str(), line["verb"].as_str()),
            (Some("ResponseComplete"), Some("create"))
        );
    }
}
