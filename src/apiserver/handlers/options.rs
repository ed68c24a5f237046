//! Options of requests, from the query and from bodies.

use std::sync::Arc;

use http::HeaderMap;
use serde::Deserialize;

use crate::api::error::{ApiError, GroupKind};
use crate::api::field::{FieldError, FieldErrors, Path};
use crate::api::protobuf;
use crate::apiserver::negotiate::Format;
use crate::apiserver::request_info::RequestInfo;
use crate::registry::{DeleteOptions, FieldValidation, Preconditions, Propagation, RequestContext, UserInfo};

/// Longest name of a field manager.
const LONGEST_MANAGER: usize = 128;

/// What the registry must know of a request besides its target and body.
pub(super) fn context(
    user: Arc<UserInfo>,
    info: &RequestInfo,
    headers: &HeaderMap,
) -> Result<RequestContext, ApiError> {
    let mut context = RequestContext::for_user(user);
    let agent = headers.get(http::header::USER_AGENT).and_then(|value| value.to_str().ok());
    context.user_agent = agent.unwrap_or_default().to_owned();
    let mut errors = FieldErrors::default();
    context.dry_run =
        dry_run(info.query.iter().filter(|(key, _)| key == "dryRun").map(|(_, v)| v.as_str()), &mut errors);
    context.field_manager = info.param("fieldManager").to_owned();
    check_manager(&context.field_manager, &mut errors);
    context.field_validation = match info.param("fieldValidation") {
        "" | "Warn" => FieldValidation::Warn,
        "Strict" => FieldValidation::Strict,
        "Ignore" => FieldValidation::Ignore,
        other => {
            let supported = ["Ignore", "Strict", "Warn"];
            errors.push(FieldError::not_supported(&Path::new("fieldValidation"), other, &supported));
            FieldValidation::Warn
        }
    };
    context.force = info.flag("force");
    if errors.is_empty() {
        return Ok(context);
    }
    let kind = match info.verb.as_str() {
        "update" => "UpdateOptions",
        "patch" => "PatchOptions",
        "delete" | "deletecollection" => "DeleteOptions",
        _ => "CreateOptions",
    };
    Err(ApiError::invalid(&GroupKind::new("meta.k8s.io", kind), "", errors))
}

fn dry_run<'a>(values: impl Iterator<Item = &'a str>, errors: &mut FieldErrors) -> bool {
    let mut wanted = false;
    for value in values.filter(|value| !value.is_empty()) {
        if value == "All" {
            wanted = true;
        } else {
            errors.push(FieldError::not_supported(&Path::new("dryRun"), value, &["All"]));
        }
    }
    wanted
}

fn check_manager(manager: &str, errors: &mut FieldErrors) {
    if manager.len() > LONGEST_MANAGER {
        errors.push(FieldError::too_long(&Path::new("fieldManager"), LONGEST_MANAGER));
    }
    if manager.chars().any(char::is_control) {
        errors.push(FieldError::invalid(
            &Path::new("fieldManager"),
            manager,
            "should only contain printable characters",
        ));
    }
}

fn invalid_patch_options(error: FieldError) -> ApiError {
    let mut errors = FieldErrors::default();
    errors.push(error);
    ApiError::invalid(&GroupKind::new("meta.k8s.io", "PatchOptions"), "", errors)
}

/// 422 for an apply without `fieldManager`.
pub(super) fn manager_required() -> ApiError {
    invalid_patch_options(FieldError::required(&Path::new("fieldManager"), "is required for apply patch"))
}

/// 422 for `force` with a patch that is no apply.
pub(super) fn force_forbidden() -> ApiError {
    invalid_patch_options(FieldError::forbidden(
        &Path::new("force"),
        "may not be specified for non-apply patch",
    ))
}

/// `DeleteOptions` as clients send them in the body.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct DeleteBody {
    kind: Option<String>,
    dry_run: Option<Vec<String>>,
    grace_period_seconds: Option<i64>,
    propagation_policy: Option<String>,
    orphan_dependents: Option<bool>,
    preconditions: Option<PreconditionsBody>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct PreconditionsBody {
    uid: Option<String>,
    resource_version: Option<String>,
}

/// Options of a delete: the body if there is one, else the query.
pub(super) fn delete(info: &RequestInfo, body: &[u8], format: Format) -> Result<DeleteOptions, ApiError> {
    let wanted =
        if body.iter().all(u8::is_ascii_whitespace) { from_query(info)? } else { from_body(body, format)? };
    let mut errors = FieldErrors::default();
    let dry_run = dry_run(wanted.dry_run.iter().flatten().map(String::as_str), &mut errors);
    let propagation = propagation(&wanted, &mut errors);
    if !errors.is_empty() {
        return Err(ApiError::invalid(&GroupKind::new("meta.k8s.io", "DeleteOptions"), "", errors));
    }
    let preconditions = wanted.preconditions.unwrap_or_default();
    Ok(DeleteOptions {
        grace_period_seconds: wanted.grace_period_seconds,
        propagation,
        preconditions: Preconditions {
            uid: preconditions.uid,
            resource_version: preconditions.resource_version,
        },
        dry_run,
        ..DeleteOptions::default()
    })
}

fn from_query(info: &RequestInfo) -> Result<DeleteBody, ApiError> {
    let grace = match info.param("gracePeriodSeconds") {
        "" => None,
        text => Some(text.parse().map_err(|_| {
            ApiError::bad_request(format!("strconv.ParseInt: parsing {text:?}: invalid syntax"))
        })?),
    };
    let given = |name: &str| Some(info.param(name).to_owned()).filter(|value| !value.is_empty());
    Ok(DeleteBody {
        kind: None,
        dry_run: given("dryRun").map(|value| vec![value]),
        grace_period_seconds: grace,
        propagation_policy: given("propagationPolicy"),
        orphan_dependents: given("orphanDependents").map(|_| info.flag("orphanDependents")),
        preconditions: None,
    })
}

fn from_body(body: &[u8], format: Format) -> Result<DeleteBody, ApiError> {
    let bad = |error: String| ApiError::bad_request(format!("unable to decode the delete options: {error}"));
    let parsed: DeleteBody = match format {
        Format::Json => serde_json::from_slice(body).map_err(|error| bad(error.to_string()))?,
        Format::Yaml => {
            let text = std::str::from_utf8(body).map_err(|error| bad(error.to_string()))?;
            serde_saphyr::from_str(text).map_err(|error| bad(error.to_string()))?
        }
        Format::Protobuf => {
            let json = protobuf::decode(body, ("v1", "DeleteOptions")).map_err(|e| bad(e.to_string()))?;
            serde_json::from_slice(&json).map_err(|error| bad(error.to_string()))?
        }
    };
    match parsed.kind.as_deref() {
        None | Some("" | "DeleteOptions") => Ok(parsed),
        Some(other) => Err(ApiError::bad_request(format!("expected DeleteOptions, got {other}"))),
    }
}

fn propagation(wanted: &DeleteBody, errors: &mut FieldErrors) -> Option<Propagation> {
    if wanted.orphan_dependents.is_some() && wanted.propagation_policy.is_some() {
        errors.push(FieldError::invalid(
            &Path::new("propagationPolicy"),
            wanted.propagation_policy.as_deref().unwrap_or_default(),
            "orphanDependents and deletionPropagation cannot be both set",
        ));
    }
    match (wanted.propagation_policy.as_deref(), wanted.orphan_dependents) {
        (Some("Orphan"), _) | (None, Some(true)) => Some(Propagation::Orphan),
        (Some("Background"), _) | (None, Some(false)) => Some(Propagation::Background),
        (Some("Foreground"), _) => Some(Propagation::Foreground),
        (Some(other), _) => {
            let supported = ["Foreground", "Background", "Orphan", "nil"];
            errors.push(FieldError::not_supported(&Path::new("propagationPolicy"), other, &supported));
            None
        }
        (None, None) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(uri: &str) -> RequestInfo {
        RequestInfo::new(&http::Method::DELETE, &uri.parse().unwrap())
    }

    const PATH: &str = "/api/v1/namespaces/a/pods/b";

    #[test]
    fn delete_options_come_from_the_body_or_the_query() {
        let body = br#"{"kind":"DeleteOptions","apiVersion":"v1","gracePeriodSeconds":0,"propagationPolicy":"Foreground",
            "preconditions":{"uid":"u"},"dryRun":["All"]}"#;
        let options = delete(&info(PATH), body, Format::Json).unwrap();
        assert_eq!(options.grace_period_seconds, Some(0));
        assert_eq!(options.propagation, Some(Propagation::Foreground));
        assert_eq!(options.preconditions.uid.as_deref(), Some("u"));
        assert!(options.dry_run);
        let uri = format!("{PATH}?gracePeriodSeconds=5&propagationPolicy=Orphan&dryRun=All");
        let options = delete(&info(&uri), b" \n", Format::Json).unwrap();
        assert_eq!((options.grace_period_seconds, options.propagation), (Some(5), Some(Propagation::Orphan)));
        assert!(options.dry_run);
    }

    #[test]
    fn old_orphan_dependents_still_count() {
        for (value, expected) in [("true", Propagation::Orphan), ("false", Propagation::Background)] {
            let body = format!("{{\"orphanDependents\":{value}}}");
            assert_eq!(
                delete(&info(PATH), body.as_bytes(), Format::Json).unwrap().propagation,
                Some(expected)
            );
        }
    }

    #[test]
    fn wrong_delete_options_are_refused() {
        let cases: [(&[u8], u16); 6] = [
            (b"{", 400),
            (br#"{"kind":"Pod"}"#, 400),
            (br#"{"gracePeriodSeconds":"x"}"#, 400),
            (br#"{"propagationPolicy":"Sideways"}"#, 422),
            (br#"{"dryRun":["Some"]}"#, 422),
            (br#"{"orphanDependents":true,"propagationPolicy":"Orphan"}"#, 422),
        ];
        for (body, code) in cases {
            let error = delete(&info(PATH), body, Format::Json).unwrap_err();
            assert_eq!(error.code(), code, "{}: {error}", String::from_utf8_lossy(body));
        }
        assert_eq!(
            delete(&info(&format!("{PATH}?gracePeriodSeconds=x")), b"", Format::Json).unwrap_err().code(),
            400
        );
    }
}
