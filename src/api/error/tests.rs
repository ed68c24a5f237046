//! Each error carries upstream's code, reason, details and wording.

use serde_json::json;

use super::*;
use crate::api::field::{FieldError, Path};

fn pods() -> GroupResource {
    GroupResource::new("", "pods")
}

fn deployments() -> GroupResource {
    GroupResource::new("apps", "deployments")
}

#[test]
fn codes_reasons_and_messages() {
    let cases = [
        (ApiError::not_found(&pods(), "web"), 404, Reason::NotFound, r#"pods "web" not found"#),
        (
            ApiError::not_found(&deployments(), "web"),
            404,
            Reason::NotFound,
            r#"deployments.apps "web" not found"#,
        ),
        (
            ApiError::already_exists(&pods(), "web"),
            409,
            Reason::AlreadyExists,
            r#"pods "web" already exists"#,
        ),
        (
            ApiError::object_modified(&pods(), "web"),
            409,
            Reason::Conflict,
            "Operation cannot be fulfilled on pods \"web\": the object has been modified; please apply your \
             changes to the latest version and try again",
        ),
        (ApiError::unauthorized(""), 401, Reason::Unauthorized, "Unauthorized"),
        (ApiError::forbidden(&pods(), "web", "no"), 403, Reason::Forbidden, r#"pods "web" is forbidden: no"#),
        (ApiError::forbidden(&pods(), "", "no"), 403, Reason::Forbidden, "pods is forbidden: no"),
        (ApiError::forbidden(&GroupResource::new("", ""), "", "no"), 403, Reason::Forbidden, "forbidden: no"),
        (
            ApiError::method_not_supported(&pods(), "patch"),
            405,
            Reason::MethodNotAllowed,
            r#"patch is not supported on resources of kind "pods""#,
        ),
        (ApiError::expired("too old"), 410, Reason::Expired, "too old"),
        (ApiError::gone("gone"), 410, Reason::Gone, "gone"),
        (
            ApiError::generic_not_found("/apis/x"),
            404,
            Reason::NotFound,
            "the server could not find the requested resource",
        ),
        (
            ApiError::unsupported_media_type(&["application/json", "application/yaml"]),
            415,
            Reason::UnsupportedMediaType,
            "the body of the request was in an unknown format - accepted media types include: \
             application/json, application/yaml",
        ),
        (
            ApiError::not_acceptable(&["application/json"]),
            406,
            Reason::NotAcceptable,
            "only the following media types are accepted: application/json",
        ),
        (
            ApiError::too_large("limit is 3145728"),
            413,
            Reason::RequestEntityTooLarge,
            "Request entity too large: limit is 3145728",
        ),
        (ApiError::too_many_requests("wait", 1), 429, Reason::TooManyRequests, "wait"),
        (
            ApiError::server_timeout(&pods(), "create", 2),
            500,
            Reason::ServerTimeout,
            "The create operation against pods could not be completed at this time, please try again.",
        ),
        (ApiError::timeout("slow", 0), 504, Reason::Timeout, "Timeout: slow"),
        (ApiError::service_unavailable("not yet"), 503, Reason::ServiceUnavailable, "not yet"),
        (ApiError::internal("disk"), 500, Reason::InternalError, "Internal error occurred: disk"),
        (ApiError::bad_request("bad"), 400, Reason::BadRequest, "bad"),
    ];
    for (error, code, reason, message) in cases {
        assert_eq!((error.code(), error.reason(), error.message()), (code, reason, message));
        assert_eq!(error.to_string(), message);
    }
}

#[test]
fn the_body_is_a_status_object() {
    let error = ApiError::not_found(&deployments(), "web");
    assert_eq!(
        serde_json::to_value(error.status()).unwrap(),
        json!({
            "apiVersion": "v1", "kind": "Status", "metadata": {}, "status": "Failure", "code": 404,
            "reason": "NotFound", "message": "deployments.apps \"web\" not found",
            "details": {"group": "apps", "kind": "deployments", "name": "web"},
        })
    );
}

#[test]
fn invalid_lists_a_cause_for_each_field() {
    let mut errors = FieldErrors::new();
    errors.push(FieldError::required(&Path::new("spec").child("selector"), ""));
    errors.push(FieldError::invalid(&Path::new("spec").child("replicas"), -1, "must be >= 0"));
    let error = ApiError::invalid(&GroupKind::new("apps", "Deployment"), "web", errors);
    assert_eq!(
        error.message(),
        "Deployment.apps \"web\" is invalid: [spec.selector: Required value, spec.replicas: Invalid value: \
         -1: must be >= 0]"
    );
    let causes = error.status().details.as_ref().unwrap().causes.as_ref().unwrap();
    assert_eq!(causes.len(), 2);
    assert_eq!(causes[1].field.as_deref(), Some("spec.replicas"));
    assert_eq!(causes[1].message.as_deref(), Some("Invalid value: -1: must be >= 0"));
    assert_eq!(causes[1].reason.as_deref(), Some("FieldValueInvalid"));
}

#[test]
fn retry_and_causes_are_kept() {
    let error =
        ApiError::too_many_requests("wait", 3).with_cause("Budget", "spec", "none left").with_uid("u");
    assert_eq!(error.retry_after_seconds(), Some(3));
    let details = error.status().details.clone().unwrap();
    assert_eq!(details.uid.as_deref(), Some("u"));
    assert_eq!(details.causes.unwrap()[0].reason.as_deref(), Some("Budget"));
    let name = ApiError::generate_name_conflict(&pods(), "web-x", 1);
    assert_eq!((name.code(), name.retry_after_seconds()), (409, Some(1)));
}

#[test]
fn reasons_survive_a_round_trip() {
    for (reason, text) in Reason::ALL {
        assert_eq!(Reason::parse(text), reason);
        assert_eq!(reason.to_string(), text);
    }
    assert_eq!(Reason::parse("SomethingNew"), Reason::Unknown);
}
