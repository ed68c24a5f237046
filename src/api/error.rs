//! `ApiError`: an error that a client caused or can do something about, as a Kubernetes `Status`.
//!
//! One constructor for each case that upstream knows, with its code, reason, details and wording.
//! Everything that answers requests returns this type; only the HTTP layer turns it into a response.

use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Status, StatusCause, StatusDetails};

use super::field::{FieldErrors, go_quote};

/// A resource, named by its group and plural, as error messages name it: `deployments.apps`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupResource {
    /// The API group; empty for core.
    pub group: String,
    /// The plural, lower-case resource name.
    pub resource: String,
}

impl GroupResource {
    /// The resource `resource` of `group` (empty for core).
    pub fn new(group: impl Into<String>, resource: impl Into<String>) -> Self {
        Self { group: group.into(), resource: resource.into() }
    }
}

impl fmt::Display for GroupResource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_qualified(f, &self.resource, &self.group)
    }
}

/// A kind, named by its group, as error messages name it: `Deployment.apps`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupKind {
    /// The API group; empty for core.
    pub group: String,
    /// The kind.
    pub kind: String,
}

impl GroupKind {
    /// The kind `kind` of `group` (empty for core).
    pub fn new(group: impl Into<String>, kind: impl Into<String>) -> Self {
        Self { group: group.into(), kind: kind.into() }
    }
}

impl fmt::Display for GroupKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_qualified(f, &self.kind, &self.group)
    }
}

fn write_qualified(f: &mut fmt::Formatter<'_>, name: &str, group: &str) -> fmt::Result {
    f.write_str(name)?;
    if group.is_empty() { Ok(()) } else { write!(f, ".{group}") }
}

/// The machine-readable reason of a `Status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names are upstream's own and say what they mean")]
pub enum Reason {
    Unknown,
    Unauthorized,
    Forbidden,
    NotFound,
    AlreadyExists,
    Conflict,
    Gone,
    Invalid,
    ServerTimeout,
    Timeout,
    TooManyRequests,
    BadRequest,
    MethodNotAllowed,
    NotAcceptable,
    RequestEntityTooLarge,
    UnsupportedMediaType,
    InternalError,
    Expired,
    ServiceUnavailable,
}

impl Reason {
    const ALL: [(Reason, &'static str); 19] = [
        (Reason::Unknown, ""),
        (Reason::Unauthorized, "Unauthorized"),
        (Reason::Forbidden, "Forbidden"),
        (Reason::NotFound, "NotFound"),
        (Reason::AlreadyExists, "AlreadyExists"),
        (Reason::Conflict, "Conflict"),
        (Reason::Gone, "Gone"),
        (Reason::Invalid, "Invalid"),
        (Reason::ServerTimeout, "ServerTimeout"),
        (Reason::Timeout, "Timeout"),
        (Reason::TooManyRequests, "TooManyRequests"),
        (Reason::BadRequest, "BadRequest"),
        (Reason::MethodNotAllowed, "MethodNotAllowed"),
        (Reason::NotAcceptable, "NotAcceptable"),
        (Reason::RequestEntityTooLarge, "RequestEntityTooLarge"),
        (Reason::UnsupportedMediaType, "UnsupportedMediaType"),
        (Reason::InternalError, "InternalError"),
        (Reason::Expired, "Expired"),
        (Reason::ServiceUnavailable, "ServiceUnavailable"),
    ];

    /// The reason as it stands in a `Status`.
    pub fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(reason, _)| *reason == self).map_or("", |(_, text)| text)
    }

    /// The reason that a `Status` names; one that is not known here is `Unknown`.
    pub fn parse(text: &str) -> Self {
        Self::ALL.iter().find(|(_, known)| *known == text).map_or(Self::Unknown, |(reason, _)| *reason)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A failed request, as the client will read it.
#[derive(Clone, PartialEq)]
pub struct ApiError(Box<Status>);

impl ApiError {
    fn new(code: u16, reason: Reason, message: impl Into<String>, details: Option<StatusDetails>) -> Self {
        Self(Box::new(Status {
            code: Some(i32::from(code)),
            details,
            message: Some(message.into()),
            metadata: Default::default(),
            reason: Some(reason.as_str().to_owned()).filter(|text| !text.is_empty()),
            status: Some("Failure".to_owned()),
        }))
    }

    /// 404 for an object: `pods "web" not found`.
    pub fn not_found(resource: &GroupResource, name: &str) -> Self {
        let message = format!("{resource} {} not found", go_quote(name));
        Self::new(404, Reason::NotFound, message, Some(about(resource, name)))
    }

    /// 409 for a create: `pods "web" already exists`.
    pub fn already_exists(resource: &GroupResource, name: &str) -> Self {
        let message = format!("{resource} {} already exists", go_quote(name));
        Self::new(409, Reason::AlreadyExists, message, Some(about(resource, name)))
    }

    /// 409 for a create with `generateName` whose every attempt hit an existing name.
    pub fn generate_name_conflict(resource: &GroupResource, name: &str, retry_after_seconds: i32) -> Self {
        let message = format!(
            "{resource} {} already exists, the server was not able to generate a unique name for the object",
            go_quote(name)
        );
        let details =
            StatusDetails { retry_after_seconds: Some(retry_after_seconds), ..about(resource, name) };
        Self::new(409, Reason::AlreadyExists, message, Some(details))
    }

    /// 409 for a write that another one outran, or that breaks a precondition.
    pub fn conflict(resource: &GroupResource, name: &str, message: impl fmt::Display) -> Self {
        let message = format!("Operation cannot be fulfilled on {resource} {}: {message}", go_quote(name));
        Self::new(409, Reason::Conflict, message, Some(about(resource, name)))
    }

    /// The conflict of optimistic locking: the object changed since the client read it.
    pub fn object_modified(resource: &GroupResource, name: &str) -> Self {
        Self::conflict(
            resource,
            name,
            "the object has been modified; please apply your changes to the latest version and try again",
        )
    }

    /// 409 for an apply whose fields others own; `causes` names manager and field of each.
    pub fn apply_conflict(message: impl Into<String>, causes: Vec<StatusCause>) -> Self {
        let details = StatusDetails { causes: Some(causes), ..Default::default() };
        Self::new(409, Reason::Conflict, message, Some(details))
    }

    /// 422 with one cause for each field error: `Pod "web" is invalid: spec.containers: Required value`.
    pub fn invalid(kind: &GroupKind, name: &str, errors: FieldErrors) -> Self {
        let mut message = format!("{kind} {} is invalid", go_quote(name));
        if !errors.is_empty() {
            message.push_str(&format!(": {errors}"));
        }
        let causes: Vec<_> = errors
            .iter()
            .map(|error| StatusCause {
                field: Some(error.field.clone()),
                message: Some(error.body()),
                reason: Some(error.kind.reason().to_owned()),
            })
            .collect();
        let details = StatusDetails {
            causes: Some(causes).filter(|causes| !causes.is_empty()),
            group: some(&kind.group),
            kind: some(&kind.kind),
            name: some(name),
            ..Default::default()
        };
        Self::new(422, Reason::Invalid, message, Some(details))
    }

    /// 422 without an object, for a patch that cannot be applied.
    pub fn unprocessable(message: impl Into<String>) -> Self {
        Self::new(422, Reason::Invalid, message, None)
    }

    /// 400 with `message` as it is.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, Reason::BadRequest, message, None)
    }

    /// 401; an empty `message` becomes `Unauthorized`.
    pub fn unauthorized(message: impl Into<String>) -> Self {
        let message = message.into();
        let message = if message.is_empty() { "Unauthorized".to_owned() } else { message };
        Self::new(401, Reason::Unauthorized, message, None)
    }

    /// 403: `pods "web" is forbidden: why`; `resource` and `name` may be empty.
    pub fn forbidden(resource: &GroupResource, name: &str, why: impl fmt::Display) -> Self {
        let message = match (resource.resource.is_empty(), name.is_empty()) {
            (true, _) => format!("forbidden: {why}"),
            (false, true) => format!("{resource} is forbidden: {why}"),
            (false, false) => format!("{resource} {} is forbidden: {why}", go_quote(name)),
        };
        Self::new(403, Reason::Forbidden, message, Some(about(resource, name)))
    }

    /// 405: the resource exists, but not with this verb.
    pub fn method_not_supported(resource: &GroupResource, verb: &str) -> Self {
        let message =
            format!("{verb} is not supported on resources of kind {}", go_quote(&resource.to_string()));
        Self::new(405, Reason::MethodNotAllowed, message, Some(about(resource, "")))
    }

    /// 410 for a resourceVersion or a continue token that is too old.
    pub fn expired(message: impl Into<String>) -> Self {
        Self::new(410, Reason::Expired, message, None)
    }

    /// 410 for something that was here and is no more.
    pub fn gone(message: impl Into<String>) -> Self {
        Self::new(410, Reason::Gone, message, None)
    }

    /// 404 for a path that names no resource.
    pub fn generic_not_found(path: &str) -> Self {
        let details = StatusDetails {
            causes: Some(vec![StatusCause {
                field: None,
                message: Some(format!("unknown path {path}")),
                reason: Some("UnexpectedServerResponse".to_owned()),
            }]),
            ..Default::default()
        };
        let message = "the server could not find the requested resource";
        Self::new(404, Reason::NotFound, message, Some(details))
    }

    /// 415: the body is in a format that this endpoint does not read.
    pub fn unsupported_media_type<S: AsRef<str>>(accepted: &[S]) -> Self {
        let message = format!(
            "the body of the request was in an unknown format - accepted media types include: {}",
            join(accepted)
        );
        Self::new(415, Reason::UnsupportedMediaType, message, None)
    }

    /// 406: the client accepts no format that this endpoint writes.
    pub fn not_acceptable<S: AsRef<str>>(offered: &[S]) -> Self {
        let message = format!("only the following media types are accepted: {}", join(offered));
        Self::new(406, Reason::NotAcceptable, message, None)
    }

    /// 413: the body is larger than the server reads.
    pub fn too_large(message: impl fmt::Display) -> Self {
        let message = format!("Request entity too large: {message}");
        Self::new(413, Reason::RequestEntityTooLarge, message, None)
    }

    /// 429, with the seconds after which to try again.
    pub fn too_many_requests(message: impl Into<String>, retry_after_seconds: i32) -> Self {
        Self::new(429, Reason::TooManyRequests, message, Some(retry(retry_after_seconds)))
    }

    /// 500 for an operation that did not finish in time and may be tried again.
    pub fn server_timeout(resource: &GroupResource, operation: &str, retry_after_seconds: i32) -> Self {
        let message = format!(
            "The {operation} operation against {resource} could not be completed at this time, please try again."
        );
        let details =
            StatusDetails { retry_after_seconds: Some(retry_after_seconds), ..about(resource, operation) };
        Self::new(500, Reason::ServerTimeout, message, Some(details))
    }

    /// 504: the request took longer than it was allowed to.
    pub fn timeout(message: impl fmt::Display, retry_after_seconds: i32) -> Self {
        let message = format!("Timeout: {message}");
        Self::new(504, Reason::Timeout, message, Some(retry(retry_after_seconds)))
    }

    /// 503: the server, or something it needs, is not ready.
    pub fn service_unavailable(message: impl Into<String>) -> Self {
        Self::new(503, Reason::ServiceUnavailable, message, None)
    }

    /// 500: a fault of the server.
    pub fn internal(message: impl fmt::Display) -> Self {
        let cause = StatusCause { message: Some(message.to_string()), ..Default::default() };
        let details = StatusDetails { causes: Some(vec![cause]), ..Default::default() };
        let message = format!("Internal error occurred: {message}");
        Self::new(500, Reason::InternalError, message, Some(details))
    }

    /// The HTTP status code.
    pub fn code(&self) -> u16 {
        self.0.code.and_then(|code| u16::try_from(code).ok()).filter(|code| *code >= 100).unwrap_or(500)
    }

    /// The machine-readable reason.
    pub fn reason(&self) -> Reason {
        Reason::parse(self.0.reason.as_deref().unwrap_or_default())
    }

    /// The message, without code and reason.
    pub fn message(&self) -> &str {
        self.0.message.as_deref().unwrap_or_default()
    }

    /// The whole `Status`.
    pub fn status(&self) -> &Status {
        &self.0
    }

    /// Takes the `Status` out.
    pub fn into_status(self) -> Status {
        *self.0
    }

    /// The seconds after which the client should try again, if the error says so.
    pub fn retry_after_seconds(&self) -> Option<i32> {
        self.0.details.as_ref()?.retry_after_seconds.filter(|seconds| *seconds > 0)
    }

    /// The same error with one more cause.
    #[must_use]
    pub fn with_cause(mut self, reason: &str, field: &str, message: impl Into<String>) -> Self {
        let cause = StatusCause { field: some(field), message: Some(message.into()), reason: some(reason) };
        let details = self.0.details.get_or_insert_default();
        details.causes.get_or_insert_default().push(cause);
        self
    }

    /// The same error about the object with this UID.
    #[must_use]
    pub fn with_uid(mut self, uid: &str) -> Self {
        self.0.details.get_or_insert_default().uid = some(uid);
        self
    }
}

/// An error that another server (a webhook, an upstream) answered with.
impl From<Status> for ApiError {
    fn from(status: Status) -> Self {
        Self(Box::new(status))
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.message())
    }
}

impl fmt::Debug for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ApiError({} {}: {})", self.code(), self.reason(), self.message())
    }
}

impl std::error::Error for ApiError {}

fn some(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

fn about(resource: &GroupResource, name: &str) -> StatusDetails {
    StatusDetails {
        group: some(&resource.group),
        kind: some(&resource.resource),
        name: some(name),
        ..Default::default()
    }
}

fn retry(seconds: i32) -> StatusDetails {
    StatusDetails { retry_after_seconds: Some(seconds).filter(|s| *s > 0), ..Default::default() }
}

fn join<S: AsRef<str>>(texts: &[S]) -> String {
    texts.iter().map(AsRef::as_ref).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests;
