//! `apiregistration.k8s.io`: which group and version is served by whom.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::{
    APIService, APIServiceCondition, APIServiceStatus,
};
use serde_json::Value;

use crate::api::field::{FieldError, FieldErrors, Path};
use crate::api::names;
use crate::registry::context::RequestContext;
use crate::registry::resource::{NameRule, Resource, STATUS};
use crate::registry::strategy::Strategy;
use crate::registry::table::{AGE, Column, NAME, age_cell, column, name_cell};
use crate::registry::validation::each;
use crate::registry::write::system;

const COLUMNS: &[Column] = &[
    NAME,
    column("Service", "string", "The Service that answers, or Local."),
    column("Available", "string", "Whether it answers."),
    AGE,
];
const MAX_GROUP_PRIORITY: i32 = 20_000;
const MAX_VERSION_PRIORITY: i32 = 1000;

/// The rows.
pub fn rows() -> Vec<Resource> {
    vec![
        Resource::of(ApiServiceStrategy)
            .columns(COLUMNS)
            .categories(&["api-extensions"])
            .names(NameRule::PathSegment)
            .prefix("/registry/apiregistration.k8s.io/apiservices/")
            .with(STATUS),
    ]
}

struct ApiServiceStrategy;

/// A group that this server itself answers is available as soon as it is registered.
fn mark_local(service: &mut APIService) {
    service.status = Some(APIServiceStatus {
        conditions: Some(vec![APIServiceCondition {
            type_: "Available".into(),
            status: "True".into(),
            reason: Some("Local".into()),
            message: Some("Local APIServices are always available".into()),
            last_transition_time: Some(Time(system::now().0)),
        }]),
    });
}

impl Strategy for ApiServiceStrategy {
    type Object = APIService;

    fn default(&self, service: &mut APIService) {
        if let Some(reference) = service.spec.as_mut().and_then(|spec| spec.service.as_mut()) {
            reference.port.get_or_insert(443);
        }
    }

    fn prepare_for_create(&self, _: &RequestContext, service: &mut APIService) {
        service.status = Some(APIServiceStatus::default());
        if service.spec.as_ref().is_none_or(|spec| spec.service.is_none()) {
            mark_local(service);
        }
    }

    fn validate(&self, service: &APIService, errors: &mut FieldErrors) {
        let Some(spec) = &service.spec else { return };
        let (group, version) =
            (spec.group.as_deref().unwrap_or_default(), spec.version.as_deref().unwrap_or_default());
        let at = Path::new("spec");
        let wanted = format!("{version}.{group}");
        let name = service.metadata.name.as_deref().unwrap_or_default();
        if name != wanted {
            let message = format!("must be `spec.version+\".\"+spec.group`: {wanted:?}");
            errors.push(FieldError::invalid(&Path::new("metadata").child("name"), name, message));
        }
        if group.is_empty() && version != "v1" {
            let message = "only v1 may have an empty group and it better be legacy kube";
            errors.push(FieldError::required(&at.child("group"), message));
        }
        if !group.is_empty() {
            each(names::is_dns1123_subdomain(group), group, &at.child("group"), errors);
        }
        each(names::is_dns1035_label(version), version, &at.child("version"), errors);
        let ranges = [
            ("groupPriorityMinimum", spec.group_priority_minimum, MAX_GROUP_PRIORITY),
            ("versionPriority", spec.version_priority, MAX_VERSION_PRIORITY),
        ];
        for (field, value, most) in ranges {
            if !(1..=most).contains(&value) {
                let message = format!("must be positive and less than {}", i64::from(most));
                errors.push(FieldError::invalid(&at.child(field), value, message));
            }
        }
        let bundle = spec.ca_bundle.as_ref().is_some_and(|bundle| !bundle.0.is_empty());
        let Some(reference) = &spec.service else {
            if bundle {
                let message = "local APIServices may not have a caBundle";
                errors.push(FieldError::invalid(&at.child("caBundle"), "", message));
            }
            if spec.insecure_skip_tls_verify == Some(true) {
                let message = "local APIServices may not have insecureSkipTLSVerify";
                errors.push(FieldError::invalid(&at.child("insecureSkipTLSVerify"), true, message));
            }
            return;
        };
        for (field, value) in [("namespace", &reference.namespace), ("name", &reference.name)] {
            if value.as_deref().is_none_or(str::is_empty) {
                errors.push(FieldError::required(&at.child("service").child(field), ""));
            }
        }
        let port = i64::from(reference.port.unwrap_or(443));
        for message in names::is_port_number(port) {
            let message = format!("port is not valid: {message}");
            errors.push(FieldError::invalid(&at.child("service").child("port"), port, message));
        }
        if spec.insecure_skip_tls_verify == Some(true) && bundle {
            let message = "may not be true if caBundle is present";
            errors.push(FieldError::invalid(&at.child("insecureSkipTLSVerify"), true, message));
        }
    }

    fn cells(&self, service: &APIService, now: Timestamp) -> Vec<Value> {
        let reference = service.spec.as_ref().and_then(|spec| spec.service.as_ref());
        let part = |text: &Option<String>| text.clone().unwrap_or_default();
        let backend = reference.map_or_else(
            || "Local".to_owned(),
            |reference| format!("{}/{}", part(&reference.namespace), part(&reference.name)),
        );
        vec![
            name_cell(&service.metadata),
            backend.into(),
            availability(service).into(),
            age_cell(&service.metadata, now),
        ]
    }
}

fn availability(service: &APIService) -> String {
    let conditions = service.status.as_ref().and_then(|status| status.conditions.as_ref());
    match conditions.into_iter().flatten().find(|condition| condition.type_ == "Available") {
        None => "Unknown".into(),
        Some(condition) if condition.status == "True" => "True".into(),
        Some(condition) => {
            format!("{} ({})", condition.status, condition.reason.as_deref().unwrap_or_default())
        }
    }
}

/// Priorities of the built-in groups: of the group, and of the version within it; upstream's numbers.
pub fn priorities(group: &str, version: &str) -> (i32, i32) {
    let order = match group {
        "" => return (18_000, 1),
        "apiregistration.k8s.io" => 18_000,
        "apps" => 17_800,
        "events.k8s.io" => 17_750,
        "authentication.k8s.io" => 17_700,
        "authorization.k8s.io" => 17_600,
        "autoscaling" => 17_500,
        "batch" => 17_400,
        "certificates.k8s.io" => 17_300,
        "networking.k8s.io" => 17_200,
        "policy" => 17_100,
        "rbac.authorization.k8s.io" => 17_000,
        "storage.k8s.io" => 16_800,
        "apiextensions.k8s.io" | "admissionregistration.k8s.io" => 16_700,
        "scheduling.k8s.io" => 16_600,
        "coordination.k8s.io" => 16_500,
        "node.k8s.io" => 16_300,
        "discovery.k8s.io" => 16_200,
        "flowcontrol.apiserver.k8s.io" => 16_100,
        "internal.apiserver.k8s.io" => 16_000,
        "resource.k8s.io" => 15_900,
        "storagemigration.k8s.io" => 15_800,
        "metrics.k8s.io" => 100,
        _ => 1000,
    };
    let version = match (group, version) {
        ("autoscaling", "v2") => 30,
        ("flowcontrol.apiserver.k8s.io", "v1") => 21,
        (_, "v1") => 15,
        _ => 9,
    };
    (order, version)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn service(spec: Value) -> APIService {
        serde_json::from_value(json!({"metadata": {"name": "v1.apps"}, "spec": spec})).unwrap()
    }

    #[test]
    fn a_local_service_is_available_at_once_and_a_remote_one_is_not() {
        let mut local = service(
            json!({"group": "apps", "version": "v1", "groupPriorityMinimum": 1, "versionPriority": 1}),
        );
        ApiServiceStrategy.prepare_for_create(&RequestContext::default(), &mut local);
        let shown = ApiServiceStrategy.cells(&local, Timestamp::UNIX_EPOCH);
        assert_eq!((shown[1].as_str(), shown[2].as_str()), (Some("Local"), Some("True")));
        let mut remote = service(json!({"group": "apps", "version": "v1", "groupPriorityMinimum": 1,
            "versionPriority": 1, "service": {"namespace": "a", "name": "b"}}));
        ApiServiceStrategy.prepare_for_create(&RequestContext::default(), &mut remote);
        let shown = ApiServiceStrategy.cells(&remote, Timestamp::UNIX_EPOCH);
        assert_eq!((shown[1].as_str(), shown[2].as_str()), (Some("a/b"), Some("Unknown")));
    }

    #[test]
    fn the_name_says_version_and_group() {
        let mut errors = FieldErrors::new();
        let wrong = service(
            json!({"group": "batch", "version": "v1", "groupPriorityMinimum": 0, "versionPriority": 1}),
        );
        ApiServiceStrategy.validate(&wrong, &mut errors);
        let found: Vec<_> = errors.iter().map(|error| error.field.as_str()).collect();
        assert_eq!(found, ["metadata.name", "spec.groupPriorityMinimum"]);
    }
}
