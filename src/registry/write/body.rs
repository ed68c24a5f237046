//! From the bytes of a request to a typed object of the right kind: syntax, identity, unknown fields.

use serde_json::{Map, Value};

use super::Target;
use crate::api::error::ApiError;
use crate::api::json::Decoded;
use crate::api::meta;
use crate::api::protobuf;
use crate::registry::context::{Body, BodyFormat, FieldValidation, RequestContext};
use crate::registry::object::Object;
use crate::registry::resource::Resource;

/// A parsed body.
#[derive(Clone, Debug)]
pub struct Incoming {
    /// The tree.
    pub value: Value,
    /// Complaints about duplicate fields.
    pub duplicates: Vec<String>,
}

/// What a complaint about YAML begins with when it fails a request.
pub const OF_YAML: &str = "yaml: unmarshal errors:\n  ";

/// Parses the body of a create or update of an object of a version and kind.
pub fn parse(body: &Body, (api_version, kind): (&str, &str)) -> Result<Incoming, ApiError> {
    let parsed = match body.format {
        BodyFormat::Json => crate::api::json::decode(&body.bytes).map_err(|e| e.to_string()),
        BodyFormat::Yaml => crate::api::yaml::decode(&body.bytes).map_err(|e| e.to_string()),
        BodyFormat::Protobuf => return from_protobuf(&body.bytes, api_version, kind),
    };
    match parsed {
        Ok(Decoded { value: value @ Value::Object(_), duplicates }) => {
            let line = Some(body).filter(|body| body.format == BodyFormat::Yaml && !duplicates.is_empty());
            if let Some((line, key)) = line.and_then(|body| crate::api::yaml::duplicate_key(&body.bytes)) {
                let complaint = format!("line {line}: key \"{key}\" already set in map");
                return Ok(Incoming { value, duplicates: vec![format!("{OF_YAML}{complaint}")] });
            }
            let duplicates =
                duplicates.into_iter().map(|path| format!("duplicate field \"{path}\"")).collect();
            Ok(Incoming { value, duplicates })
        }
        Ok(_) => {
            Err(unrecognized(kind, "couldn't get version/kind; json parse error: not an object", &body.bytes))
        }
        Err(why) => Err(unrecognized(kind, &format!("couldn't get version/kind; {why}"), &body.bytes)),
    }
}

fn from_protobuf(bytes: &[u8], api_version: &str, kind: &str) -> Result<Incoming, ApiError> {
    let json =
        protobuf::decode(bytes, (api_version, kind)).map_err(|error| match protobuf::type_of(bytes) {
            Some((api_version, found)) if protobuf::is_known(&api_version, &found) => {
                let (_, version) = meta::group_version(&api_version);
                ApiError::bad_request(format!(
                    "{found} in version \"{version}\" cannot be handled as a {kind}: {error}"
                ))
            }
            _ => unrecognized(kind, &error.to_string(), bytes),
        })?;
    let Decoded { value, .. } =
        crate::api::json::decode(&json).map_err(|error| unrecognized(kind, &error.to_string(), bytes))?;
    Ok(Incoming { value, duplicates: Vec::new() })
}

fn unrecognized(kind: &str, why: &str, data: &[u8]) -> ApiError {
    ApiError::bad_request(format!(
        "the object provided is unrecognized (must be of type {kind}): {why} ({})",
        summary(data)
    ))
}

fn summary(data: &[u8]) -> String {
    const MAX: usize = 30;
    let cut = &data[..data.len().min(MAX)];
    let text = match data.first() {
        None => return "<empty>".to_owned(),
        Some(b'{') => String::from_utf8_lossy(cut).into_owned(),
        Some(_) => cut.iter().map(|byte| format!("{byte:02x}")).collect(),
    };
    if data.len() > MAX { format!("{text} ...") } else { text }
}

/// The error for a body that cannot be read as the row's kind.
pub fn cannot_be_handled(resource: &Resource, why: &str) -> ApiError {
    ApiError::bad_request(format!(
        "{} in version \"{}\" cannot be handled as a {}: {why}",
        resource.kind, resource.version, resource.kind
    ))
}

/// Checks `apiVersion` and `kind` against the row and fills them in when they are absent.
pub fn check_type(resource: &Resource, value: &mut Value) -> Result<(), ApiError> {
    let expected = resource.api_version();
    let found_version = meta::api_version(value);
    if !found_version.is_empty() && found_version != expected {
        return Err(ApiError::bad_request(format!(
            "the API version in the data ({found_version}) does not match the expected API version ({expected})"
        )));
    }
    let found_kind = meta::kind(value);
    if !found_kind.is_empty() && found_kind != resource.kind {
        return Err(ApiError::bad_request(format!(
            "{found_kind} in version \"{}\" cannot be handled as a {}: unknown conversion",
            resource.version, resource.kind
        )));
    }
    if let Value::Object(map) = value {
        if !matches!(map.get("metadata"), Some(Value::Object(_) | Value::Null) | None) {
            return Err(cannot_be_handled(resource, "metadata is not an object"));
        }
        map.insert("apiVersion".into(), expected.as_ref().into());
        map.insert("kind".into(), resource.kind.as_ref().into());
        let metadata = map.entry("metadata").or_insert_with(|| Value::Object(Map::new()));
        if metadata.is_null() {
            *metadata = Value::Object(Map::new());
        }
    }
    Ok(())
}

/// Checks the name and namespace of the body of an update against the URL.
pub fn check_name(target: &Target<'_>, value: &Value) -> Result<(), ApiError> {
    let (url, found) = (target.name, meta::name(value));
    if found.is_empty() {
        return Err(ApiError::bad_request(format!(
            "the name of the object ({url} based on URL) was undeterminable: name must be provided"
        )));
    }
    if found != url {
        return Err(ApiError::bad_request(format!(
            "the name of the object ({found}) does not match the name on the URL ({url})"
        )));
    }
    let namespace = meta::namespace(value);
    if !namespace.is_empty() && namespace != target.namespace && !target.namespace.is_empty() {
        return Err(ApiError::bad_request(format!(
            "the namespace of the object ({namespace}) does not match the namespace on the request ({})",
            target.namespace
        )));
    }
    Ok(())
}

/// Puts the namespace of the URL into the body, or complains when the body has another one.
pub fn check_namespace(target: &Target<'_>, value: &mut Value) -> Result<(), ApiError> {
    let found = meta::namespace(value);
    if target.resource.namespaced() {
        if !found.is_empty() && found != target.namespace {
            return Err(ApiError::bad_request(
                "the namespace of the provided object does not match the namespace sent on the request",
            ));
        }
        if found.is_empty() {
            meta::set_namespace(value, target.namespace);
        }
    } else if !found.is_empty() {
        return Err(ApiError::bad_request("namespace may not be set on a cluster-scoped object"));
    }
    Ok(())
}

/// Decodes the tree into the row's type, treating unknown and duplicate fields as the request asks.
pub fn typed(
    cx: &RequestContext,
    resource: &Resource,
    incoming: Incoming,
) -> Result<Box<dyn Object>, ApiError> {
    let (object, complaints) = typed_with_complaints(resource, incoming)?;
    match cx.field_validation {
        FieldValidation::Strict if !complaints.is_empty() => {
            return Err(cannot_be_handled(resource, &strict(&complaints)));
        }
        FieldValidation::Warn => {
            complaints.iter().for_each(|one| cx.warn(one.strip_prefix(OF_YAML).unwrap_or(one)));
        }
        _ => {}
    }
    Ok(object)
}

/// The text of a strict decoding error.
pub fn strict(complaints: &[String]) -> String {
    format!("strict decoding error: {}", complaints.join(", "))
}

/// Decodes the tree, with the complaints about unknown and duplicate fields.
pub fn typed_with_complaints(
    resource: &Resource,
    incoming: Incoming,
) -> Result<(Box<dyn Object>, Vec<String>), ApiError> {
    let decoded = resource
        .behaviour
        .decode(incoming.value)
        .map_err(|error| cannot_be_handled(resource, &error.to_string()))?;
    let mut complaints: Vec<String> =
        decoded.unknown.into_iter().map(|path| format!("unknown field \"{path}\"")).collect();
    // Upstream's YAML is checked before its fields are, and its JSON after.
    let place =
        if incoming.duplicates.iter().any(|one| one.starts_with(OF_YAML)) { 0 } else { complaints.len() };
    drop(complaints.splice(place..place, incoming.duplicates));
    Ok((decoded.object, complaints))
}
