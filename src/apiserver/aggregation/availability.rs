//! Whether another server answers: the condition `Available` of its APIService.
//!
//! Reasons and messages are upstream's. The look itself believes any certificate, as upstream's: it tells nobody
//! anything, and a wrong certificate shows in the requests that are passed on.

use std::time::Duration;

use axum::body::Body;
use http::{Request, header};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::{Value, json};

use super::connect::Trust;
use super::delegates::Delegate;
use super::{Failure, identity};
use crate::apiserver::ApiServer;
use crate::registry::UserInfo;

/// How long another server may take to answer what is asked to see whether it does.
pub(super) const TIMEOUT: Duration = Duration::from_secs(5);
/// A look is repeated at once this many times before it counts as failed.
const ATTEMPTS: usize = 5;

/// What was found: status, reason and message of the condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) status: &'static str,
    pub(super) reason: &'static str,
    pub(super) message: String,
}

impl Finding {
    fn failed(reason: &'static str, message: String) -> Self {
        Self { status: "False", reason, message }
    }

    /// Everything is as it should be.
    pub(super) fn passed() -> Self {
        Self { status: "True", reason: "Passed", message: "all checks passed".to_owned() }
    }

    /// The group is this server's own.
    pub(super) fn local() -> Self {
        let message = "Local APIServices are always available".to_owned();
        Self { status: "True", reason: "Local", message }
    }

    /// The conditions with this one among them; `None` when they say it already.
    pub(super) fn among(&self, conditions: &[Value], now: &str) -> Option<Vec<Value>> {
        let known = conditions.iter().find(|condition| condition["type"] == "Available");
        let since = known.filter(|known| known["status"] == self.status);
        let since = since.and_then(|known| known["lastTransitionTime"].as_str()).unwrap_or(now);
        let condition = json!({"type": "Available", "status": self.status, "reason": self.reason,
            "message": self.message, "lastTransitionTime": since});
        if known == Some(&condition) {
            return None;
        }
        let mut all: Vec<Value> = conditions.to_vec();
        match all.iter_mut().find(|one| one["type"] == "Available") {
            Some(place) => *place = condition,
            None => all.push(condition),
        }
        Some(all)
    }
}

/// What is wrong with the Service of a delegate and its endpoints, seen without asking it.
pub(super) fn of_service(
    delegate: &Delegate,
    service: Option<&Service>,
    slices: &[EndpointSlice],
) -> Option<Finding> {
    let Delegate { service: name, namespace, port, .. } = delegate;
    let Some(service) = service else {
        let message = format!("service/{name} in {namespace:?} is not present");
        return Some(Finding::failed("ServiceNotFound", message));
    };
    let spec = service.spec.as_ref();
    if spec.and_then(|spec| spec.type_.as_deref()).unwrap_or("ClusterIP") != "ClusterIP" {
        return None;
    }
    let ports = spec.and_then(|spec| spec.ports.as_deref()).unwrap_or_default();
    let Some(found) = ports.iter().find(|own| own.port == i32::from(*port)) else {
        let message = format!("service/{name} in {namespace:?} is not listening on port {port}");
        return Some(Finding::failed("ServicePortError", message));
    };
    if slices.is_empty() {
        let message = format!("cannot find endpointslices for service/{name} in {namespace:?}");
        return Some(Finding::failed("EndpointsNotFound", message));
    }
    let port_name = found.name.as_deref().unwrap_or_default();
    if slices.iter().any(|slice| has_ready(slice, port_name)) {
        return None;
    }
    let message = format!(
        "endpointslices for service/{name} in {namespace:?} have no addresses with port name {port_name:?}"
    );
    Some(Finding::failed("MissingEndpoints", message))
}

fn has_ready(slice: &EndpointSlice, port_name: &str) -> bool {
    let conditions =
        |e: &k8s_openapi::api::discovery::v1::Endpoint| e.conditions.as_ref().and_then(|c| c.ready);
    let ready = slice.endpoints.iter().flatten().any(|endpoint| conditions(endpoint) != Some(false));
    let mut ports = slice.ports.iter().flatten();
    ready && ports.any(|own| own.name.as_deref().unwrap_or_default() == port_name && own.port.is_some())
}

/// The server itself, as it asks others whether they live.
pub(super) fn prober() -> UserInfo {
    UserInfo {
        name: "system:kube-aggregator".into(),
        groups: vec!["system:masters".into()],
        ..UserInfo::default()
    }
}

impl ApiServer {
    /// Asks another server for what every one must serve.
    pub(super) async fn probe(&self, delegate: &Delegate) -> Finding {
        let mut last = String::new();
        for _ in 0..ATTEMPTS {
            match tokio::time::timeout(TIMEOUT, self.probe_once(delegate)).await {
                Ok(Ok(())) => return Finding::passed(),
                Ok(Err(why)) => last = why,
                // Another five seconds would tell nothing new.
                Err(_) => {
                    last = format!("timed out waiting for {}", url(delegate));
                    break;
                }
            }
        }
        Finding::failed("FailedDiscoveryCheck", last)
    }

    async fn probe_once(&self, delegate: &Delegate) -> Result<(), String> {
        let url = url(delegate);
        let mut request = Request::builder()
            .uri(delegate.path())
            .header(header::ACCEPT, "application/json")
            .body(Body::empty())
            .map_err(|error| error.to_string())?;
        identity::set(request.headers_mut(), &prober());
        let trust = Trust { insecure: true, authorities: Vec::new() };
        let response = self.ask(delegate, &trust, request, false).await.map_err(|failure| match failure {
            Failure::Unresolved(why) => why,
            Failure::Unreachable(why) => {
                format!("failing or missing response from {url}: Get {url:?}: {why}")
            }
        })?;
        let code = response.status();
        if code.is_success() {
            return Ok(());
        }
        Err(format!("failing or missing response from {url}: bad status from {url}: {}", code.as_u16()))
    }
}

fn url(delegate: &Delegate) -> String {
    format!("https://{}:{}{}", delegate.host(), delegate.port, delegate.path())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delegate() -> Delegate {
        let service = json!({"metadata": {"name": "v1.g"}, "spec": {"group": "g", "version": "v1",
            "groupPriorityMinimum": 1, "versionPriority": 1, "service": {"namespace": "n", "name": "s", "port": 443}}});
        Delegate::of(&serde_json::from_value(service).unwrap()).unwrap()
    }

    fn reason(service: Value, slices: Value) -> Option<&'static str> {
        let service: Option<Service> = serde_json::from_value(service).unwrap();
        let slices: Vec<EndpointSlice> = serde_json::from_value(slices).unwrap();
        of_service(&delegate(), service.as_ref(), &slices).map(|finding| finding.reason)
    }

    #[test]
    fn services_and_endpoints_are_judged_as_upstream_does() {
        let service =
            |port: u16| json!({"spec": {"type": "ClusterIP", "ports": [{"name": "https", "port": port}]}});
        let slice = |ready: bool, name: &str| {
            json!([{"addressType": "IPv4", "ports": [{"name": name, "port": 8443}],
                "endpoints": [{"addresses": ["10.0.0.1"], "conditions": {"ready": ready}}]}])
        };
        let cases = [
            (Value::Null, json!([]), Some("ServiceNotFound")),
            (service(80), slice(true, "https"), Some("ServicePortError")),
            (service(443), json!([]), Some("EndpointsNotFound")),
            (service(443), slice(false, "https"), Some("MissingEndpoints")),
            (service(443), slice(true, "other"), Some("MissingEndpoints")),
            (service(443), slice(true, "https"), None),
            (json!({"spec": {"type": "ExternalName", "externalName": "x"}}), json!([]), None),
        ];
        for (service, slices, expected) in cases {
            assert_eq!(reason(service.clone(), slices.clone()), expected, "{service} {slices}");
        }
    }

    #[test]
    fn other_conditions_stay_and_the_time_is_that_of_the_last_change() {
        let other = json!({"type": "StatusUpdated", "status": "True"});
        let first = Finding::passed().among(std::slice::from_ref(&other), "t1").unwrap();
        assert_eq!((&first[0], &first[1]["lastTransitionTime"]), (&other, &json!("t1")));
        assert_eq!(Finding::passed().among(&first, "t2"), None);
        let failed = Finding::failed("FailedDiscoveryCheck", "x".into());
        let second = failed.among(&first, "t2").unwrap();
        assert_eq!((second.len(), &second[1]["lastTransitionTime"]), (2, &json!("t2")));
        let third = Finding::failed("FailedDiscoveryCheck", "y".into()).among(&second, "t3").unwrap();
        assert_eq!(third[1]["lastTransitionTime"], "t2");
    }
}
