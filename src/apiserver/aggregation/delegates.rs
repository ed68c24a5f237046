//! APIServices that another server answers.

use std::sync::Arc;

use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService;

use super::connect::Trust;
use crate::api::json;
use crate::cache::Snapshot;

/// Port of a Service that the APIService does not name.
const DEFAULT_PORT: u16 = 443;

/// Another server that answers a group and version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::apiserver) struct Delegate {
    /// Name of the APIService.
    pub(super) name: String,
    pub(super) group: String,
    pub(super) version: String,
    /// Where its Service is.
    pub(super) namespace: String,
    pub(super) service: String,
    pub(super) port: u16,
    pub(super) trust: Trust,
    /// Whether it answered when it was looked at last.
    pub(super) available: bool,
    /// Its place in discovery.
    pub(super) priority: (i32, i32),
}

impl Delegate {
    /// The server behind an APIService; none for a group that this server answers itself.
    pub(super) fn of(service: &APIService) -> Option<Self> {
        let spec = service.spec.as_ref()?;
        let reference = spec.service.as_ref()?;
        let conditions = service.status.as_ref().and_then(|status| status.conditions.as_deref());
        let text = |value: &Option<String>| value.clone().unwrap_or_default();
        Some(Self {
            name: text(&service.metadata.name),
            group: text(&spec.group),
            version: text(&spec.version),
            namespace: text(&reference.namespace),
            service: text(&reference.name),
            port: reference.port.and_then(|port| u16::try_from(port).ok()).unwrap_or(DEFAULT_PORT),
            trust: Trust {
                insecure: spec.insecure_skip_tls_verify == Some(true),
                authorities: spec.ca_bundle.as_ref().map(|bundle| bundle.0.clone()).unwrap_or_default(),
            },
            available: conditions
                .unwrap_or_default()
                .iter()
                .any(|condition| condition.type_ == "Available" && condition.status == "True"),
            priority: (spec.group_priority_minimum, spec.version_priority),
        })
    }

    /// The name that its certificate must have.
    pub(super) fn host(&self) -> String {
        format!("{}.{}.svc", self.service, self.namespace)
    }

    /// Where it is served, below the root.
    pub(super) fn path(&self) -> String {
        format!("/apis/{}/{}", self.group, self.version)
    }
}

/// All that are answered elsewhere. There are few.
#[derive(Debug, Default)]
pub(super) struct Delegates(pub(super) Vec<Arc<Delegate>>);

impl Delegates {
    /// Reads every cached APIService; one that cannot be read is answered here.
    pub(super) fn of(services: &Snapshot) -> Self {
        let decoded = services.iter(None, None).filter_map(|o| json::typed(o.json()).ok());
        Self(decoded.filter_map(|service| Delegate::of(&service)).map(Arc::new).collect())
    }

    pub(super) fn find(&self, group: &str, version: &str) -> Option<Arc<Delegate>> {
        self.0.iter().find(|one| one.group == group && one.version == version).cloned()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn service(spec: serde_json::Value, available: &str) -> APIService {
        serde_json::from_value(json!({
            "metadata": {"name": "v1.a.example"}, "spec": spec,
            "status": {"conditions": [{"type": "Other", "status": "True"}, {"type": "Available", "status": available}]},
        }))
        .unwrap()
    }

    #[test]
    fn a_delegate_has_a_service_and_is_available_as_its_condition_says() {
        let spec = json!({"group": "a.example", "version": "v1", "groupPriorityMinimum": 1, "versionPriority": 2,
            "service": {"namespace": "ns", "name": "api"}});
        let found = Delegate::of(&service(spec.clone(), "True")).unwrap();
        assert_eq!((found.host(), found.path()), ("api.ns.svc".to_owned(), "/apis/a.example/v1".to_owned()));
        assert!(found.available && found.port == 443);
        assert!(!Delegate::of(&service(spec, "Unknown")).unwrap().available);
        let local =
            json!({"group": "a.example", "version": "v1", "groupPriorityMinimum": 1, "versionPriority": 2});
        assert_eq!(Delegate::of(&service(local, "True")), None);
    }
}
