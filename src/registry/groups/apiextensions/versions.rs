//! Checks of one version of a definition, and of how versions are converted.

use serde_json::Value;

use crate::api::field::{FieldError, FieldErrors, Path};
use crate::api::jsonpath::JsonPath;
use crate::api::structural::{Structural, check};
use crate::registry::custom::rules::Rules;
use crate::registry::groups::admissionregistration::checks::{service, url};

const COLUMN_TYPES: [&str; 5] = ["boolean", "date", "integer", "number", "string"];
const COLUMN_FORMATS: [&str; 8] =
    ["binary", "byte", "date", "date-time", "double", "float", "int32", "int64"];
const MOST_SELECTABLE: usize = 8;

fn text<'a>(value: &'a Value, path: &str) -> &'a str {
    value.pointer(path).and_then(Value::as_str).unwrap_or_default()
}

fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value.get(key).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// Checks a version; `before` is what it replaces.
pub(super) fn check(version: &Value, before: Option<&Value>, at: &Path, errors: &mut FieldErrors) {
    match version.pointer("/schema/openAPIV3Schema") {
        None => {
            let at = at.child("schema").child("openAPIV3Schema");
            errors.push(FieldError::required(&at, "schemas are required"));
        }
        Some(schema) => {
            let at = at.child("schema").child("openAPIV3Schema");
            let unchanged = before.and_then(|old| old.pointer("/schema/openAPIV3Schema")) == Some(schema);
            if !unchanged {
                let known = errors.len();
                check::schema(schema, &at, errors);
                if errors.len() == known {
                    let _rules = Rules::compile(&Structural::parse(schema), &at, errors);
                }
            }
        }
    }
    let warning = text(version, "/deprecationWarning");
    if !warning.is_empty() && version.get("deprecated") != Some(&Value::Bool(true)) {
        let why = "can only be set for deprecated versions";
        errors.push(FieldError::invalid(&at.child("deprecationWarning"), warning, why));
    }
    scale(version, &at.child("subresources"), errors);
    columns(version, &at.child("additionalPrinterColumns"), errors);
    selectable(version, &at.child("selectableFields"), errors);
}

fn scale(version: &Value, at: &Path, errors: &mut FieldErrors) {
    let Some(scale) = version.pointer("/subresources/scale") else { return };
    for (field, root, required) in [
        ("specReplicasPath", ".spec.", true),
        ("statusReplicasPath", ".status.", true),
        ("labelSelectorPath", "", false),
    ] {
        let path = text(scale, &format!("/{field}"));
        let at = at.child(format!("scale.{field}"));
        if path.is_empty() {
            if required {
                errors.push(FieldError::required(&at, ""));
            }
            continue;
        }
        if !simple_path(path, &at, errors) {
            continue;
        }
        let below = path.starts_with(".spec.") || path.starts_with(".status.");
        if root.is_empty() && !below {
            errors.push(FieldError::invalid(
                &at,
                path,
                "should be a json path under either .spec or .status",
            ));
        } else if !path.starts_with(root) {
            let why = format!("should be a json path under {}", root.trim_end_matches('.'));
            errors.push(FieldError::invalid(&at, path, why));
        }
    }
}

fn simple_path(path: &str, at: &Path, errors: &mut FieldErrors) -> bool {
    let why = if path.is_empty() {
        "must not be empty".to_owned()
    } else if !path.starts_with('.') {
        "must be a simple json path starting with .".to_owned()
    } else if path == "." {
        return true;
    } else {
        match JsonPath::parse(path) {
            Ok(parsed) if parsed.fields().is_some() => return true,
            Ok(_) => "must be a json path in the dot notation".to_owned(),
            Err(error) => error.to_string(),
        }
    };
    errors.push(FieldError::invalid(at, path, why));
    false
}

fn columns(version: &Value, at: &Path, errors: &mut FieldErrors) {
    for (i, column) in list(version, "additionalPrinterColumns").iter().enumerate() {
        let at = at.index(i);
        if text(column, "/name").is_empty() {
            errors.push(FieldError::required(&at.child("name"), ""));
        }
        let kind = text(column, "/type");
        if kind.is_empty() {
            let why = format!("must be one of {}", COLUMN_TYPES.join(","));
            errors.push(FieldError::required(&at.child("type"), why));
        } else if !COLUMN_TYPES.contains(&kind) {
            let why = format!("must be one of {}", COLUMN_TYPES.join(","));
            errors.push(FieldError::invalid(&at.child("type"), kind, why));
        }
        let format = text(column, "/format");
        if !format.is_empty() && !COLUMN_FORMATS.contains(&format) {
            let why = format!("must be one of {}", COLUMN_FORMATS.join(","));
            errors.push(FieldError::invalid(&at.child("format"), format, why));
        }
        let path = text(column, "/jsonPath");
        if path.is_empty() {
            errors.push(FieldError::required(&at.child("jsonPath"), ""));
        } else if !path.starts_with('.') {
            let why = "must be a simple json path starting with .";
            errors.push(FieldError::invalid(&at.child("jsonPath"), path, why));
        } else if let Err(error) = JsonPath::parse(path) {
            errors.push(FieldError::invalid(&at.child("jsonPath"), path, error.to_string()));
        }
    }
}

fn selectable(version: &Value, at: &Path, errors: &mut FieldErrors) {
    let fields = list(version, "selectableFields");
    if fields.len() > MOST_SELECTABLE {
        errors.push(FieldError::too_many(at, fields.len(), MOST_SELECTABLE));
    }
    let mut seen = Vec::new();
    for (i, field) in fields.iter().enumerate() {
        let path = text(field, "/jsonPath");
        let at = at.index(i).child("jsonPath");
        if path.is_empty() {
            errors.push(FieldError::required(&at, ""));
            continue;
        }
        if seen.contains(&path) {
            errors.push(FieldError::duplicate(&at, path));
        }
        seen.push(path);
        if path.starts_with(".metadata") {
            let why = "must not point to fields in metadata";
            errors.push(FieldError::invalid(&at, path, why));
            continue;
        }
        let parsed = JsonPath::parse(path).ok().filter(|_| path.starts_with('.'));
        let Some(names) = parsed.as_ref().and_then(JsonPath::fields) else {
            let why = "must be a simple json path starting with .";
            errors.push(FieldError::invalid(&at, path, why));
            continue;
        };
        let schema = version.pointer("/schema/openAPIV3Schema");
        let found = schema.and_then(|schema| {
            names.iter().try_fold(schema, |schema, name| schema.get("properties")?.get(*name))
        });
        match found {
            None => errors.push(FieldError::invalid(
                &at,
                path,
                "is an invalid path: does not refer to a valid field",
            )),
            Some(field) if !matches!(text(field, "/type"), "string" | "boolean" | "integer") => {
                let why = "must point to a field of type string, boolean or integer. Enum string fields and strings with formats are allowed.";
                errors.push(FieldError::invalid(&at, path, why));
            }
            Some(_) => {}
        }
    }
}

/// Checks how versions are converted.
pub(super) fn conversion(conversion: Option<&Value>, at: &Path, errors: &mut FieldErrors) {
    let Some(conversion) = conversion else { return };
    let webhook = conversion.get("webhook");
    match text(conversion, "/strategy") {
        "" => errors.push(FieldError::required(&at.child("strategy"), "")),
        "None" => {
            if webhook.is_some_and(|webhook| webhook.get("clientConfig").is_some()) {
                let why = "should not be set when strategy is not set to Webhook";
                errors.push(FieldError::forbidden(&at.child("webhookClientConfig"), why));
            }
        }
        "Webhook" => by_webhook(webhook, at, errors),
        other => {
            errors.push(FieldError::not_supported(&at.child("strategy"), other, &["None", "Webhook"]));
        }
    }
}

fn by_webhook(webhook: Option<&Value>, at: &Path, errors: &mut FieldErrors) {
    let client = webhook.and_then(|webhook| webhook.get("clientConfig"));
    let own = at.child("webhookClientConfig");
    match client.map(|client| (client.get("url"), client.get("service"))) {
        None => errors.push(FieldError::required(&own, "required when strategy is set to Webhook")),
        Some((Some(_), Some(_)) | (None, None)) => {
            errors.push(FieldError::required(&own, "exactly one of url or service is required"));
        }
        Some((Some(found), None)) => url(found.as_str().unwrap_or_default(), &own.child("url"), errors),
        Some((None, Some(found))) => {
            let port = found.get("port").and_then(Value::as_i64).and_then(|port| i32::try_from(port).ok());
            let path = found.get("path").and_then(Value::as_str);
            let place = (text(found, "/name"), text(found, "/namespace"), path, port.unwrap_or(443));
            service(place, &own.child("service"), errors);
        }
    }
    let reviews = webhook.map_or(&[][..], |webhook| list(webhook, "conversionReviewVersions"));
    let at = at.child("conversionReviewVersions");
    if reviews.is_empty() {
        errors.push(FieldError::required(&at, ""));
    } else if !reviews.iter().any(|version| matches!(version.as_str(), Some("v1" | "v1beta1"))) {
        let why = "must include at least one of v1, v1beta1";
        errors.push(FieldError::invalid(&at, reviews, why));
    }
}
