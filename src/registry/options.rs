//! The options of each verb, as parsed from the query or from a `DeleteOptions` body.

use k8s_openapi::apimachinery::pkg::apis::meta::v1 as meta_v1;

use crate::api::error::{ApiError, GroupKind};
use crate::api::field::{FieldError, FieldErrors, Path};
use crate::api::selector::{FieldSelector, LabelSelector};
use crate::registry::context::Body;

/// `resourceVersionMatch`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VersionMatch {
    /// The state at exactly the given version.
    Exact,
    /// Any state at least as new as the given version.
    NotOlderThan,
}

/// Options of `get`.
#[derive(Clone, Debug, Default)]
pub struct GetOptions {
    /// Empty: the latest state; `0`: any; else not older than.
    pub resource_version: String,
}

/// Options of `list` and `deletecollection`.
#[derive(Clone, Debug, Default)]
pub struct ListOptions {
    /// Label selector.
    pub labels: LabelSelector,
    /// Field selector.
    pub fields: FieldSelector,
    /// See [`VersionMatch`]; empty means the latest state.
    pub resource_version: String,
    /// How `resource_version` is meant.
    pub version_match: Option<VersionMatch>,
    /// Page size; 0 is everything.
    pub limit: usize,
    /// Token of the previous page.
    pub continue_token: String,
}

/// Options of `watch`.
#[derive(Clone, Debug, Default)]
pub struct WatchOptions {
    /// Label selector.
    pub labels: LabelSelector,
    /// Field selector.
    pub fields: FieldSelector,
    /// Start after this version; empty or `0` begins with the present state as ADDED events.
    pub resource_version: String,
    /// `allowWatchBookmarks`.
    pub bookmarks: bool,
    /// `sendInitialEvents`, when given.
    pub send_initial_events: Option<bool>,
    /// How `resource_version` is meant; only with `send_initial_events`.
    pub version_match: Option<VersionMatch>,
    /// `timeoutSeconds`; the HTTP layer closes the stream.
    pub timeout_seconds: Option<u64>,
}

/// What happens to dependents when their owner is deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    /// Dependents stay, without the owner reference.
    Orphan,
    /// Dependents are deleted after the owner.
    Background,
    /// Dependents are deleted before the owner.
    Foreground,
}

/// Conditions that must hold for a delete.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Preconditions {
    /// The object's uid.
    pub uid: Option<String>,
    /// The object's resource version.
    pub resource_version: Option<String>,
}

/// Options of `delete` and `deletecollection`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeleteOptions {
    /// `gracePeriodSeconds`.
    pub grace_period_seconds: Option<i64>,
    /// `propagationPolicy` (or the old `orphanDependents`).
    pub propagation: Option<Propagation>,
    /// `preconditions`.
    pub preconditions: Preconditions,
    /// `dryRun=All`.
    pub dry_run: bool,
    /// `ignoreStoreReadErrorWithClusterBreakingPotential`; accepted and without effect.
    pub ignore_read_error: bool,
}

type Query<'a> = &'a [(String, String)];

fn param<'a>(query: Query<'a>, name: &str) -> Option<&'a str> {
    query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
}

/// Parses a boolean parameter as Go does (`strconv.ParseBool`, and present-but-empty is true for nobody).
pub fn bool_param(query: Query<'_>, name: &str) -> bool {
    !matches!(param(query, name), None | Some("" | "0" | "false" | "False" | "FALSE" | "f" | "F"))
}

fn version_match(query: Query<'_>) -> Result<Option<VersionMatch>, ApiError> {
    match param(query, "resourceVersionMatch") {
        None | Some("") => Ok(None),
        Some("Exact") => Ok(Some(VersionMatch::Exact)),
        Some("NotOlderThan") => Ok(Some(VersionMatch::NotOlderThan)),
        Some(other) => Err(ApiError::bad_request(format!(
            "resourceVersionMatch: Unsupported value: \"{other}\": supported values: \"Exact\", \"NotOlderThan\""
        ))),
    }
}

fn selectors(query: Query<'_>) -> Result<(LabelSelector, FieldSelector), ApiError> {
    let labels = param(query, "labelSelector").unwrap_or_default();
    let fields = param(query, "fieldSelector").unwrap_or_default();
    let labels = LabelSelector::parse(labels).map_err(|e| ApiError::bad_request(e.to_string()))?;
    let fields = FieldSelector::parse(fields).map_err(|e| ApiError::bad_request(e.to_string()))?;
    Ok((labels, fields))
}

fn number<T: std::str::FromStr>(query: Query<'_>, name: &str) -> Result<Option<T>, ApiError> {
    match param(query, name) {
        None | Some("") => Ok(None),
        Some(text) => text.parse().map(Some).map_err(|_| {
            ApiError::bad_request(format!("strconv.ParseInt: parsing \"{text}\": invalid syntax"))
        }),
    }
}

impl GetOptions {
    /// Reads the options from decoded query parameters.
    pub fn from_query(query: Query<'_>) -> Self {
        Self { resource_version: param(query, "resourceVersion").unwrap_or_default().to_owned() }
    }
}

impl ListOptions {
    /// Reads the options from decoded query parameters.
    pub fn from_query(query: Query<'_>) -> Result<Self, ApiError> {
        let (labels, fields) = selectors(query)?;
        let limit: i64 = number(query, "limit")?.unwrap_or(0);
        Ok(Self {
            labels,
            fields,
            resource_version: param(query, "resourceVersion").unwrap_or_default().to_owned(),
            version_match: version_match(query)?,
            limit: usize::try_from(limit).unwrap_or(0),
            continue_token: param(query, "continue").unwrap_or_default().to_owned(),
        })
    }
}

impl WatchOptions {
    /// Reads the options from decoded query parameters.
    pub fn from_query(query: Query<'_>) -> Result<Self, ApiError> {
        let (labels, fields) = selectors(query)?;
        Ok(Self {
            labels,
            fields,
            resource_version: param(query, "resourceVersion").unwrap_or_default().to_owned(),
            bookmarks: bool_param(query, "allowWatchBookmarks"),
            send_initial_events: param(query, "sendInitialEvents")
                .map(|_| bool_param(query, "sendInitialEvents")),
            version_match: version_match(query)?,
            timeout_seconds: number(query, "timeoutSeconds")?,
        })
    }
}

impl DeleteOptions {
    /// Reads the options from a decoded `DeleteOptions`.
    pub fn from_meta(options: Option<meta_v1::DeleteOptions>) -> Result<Self, ApiError> {
        let options = options.unwrap_or_default();
        let preconditions = options.preconditions.unwrap_or_default();
        if options.orphan_dependents.is_some() && options.propagation_policy.is_some() {
            return Err(invalid_delete("orphanDependents and deletionPropagation cannot be both set"));
        }
        let propagation = match options.propagation_policy.as_deref() {
            None | Some("") => options
                .orphan_dependents
                .map(|orphan| if orphan { Propagation::Orphan } else { Propagation::Background }),
            Some(policy) => Some(propagation(policy)?),
        };
        Ok(Self {
            grace_period_seconds: options.grace_period_seconds,
            propagation,
            preconditions: Preconditions {
                uid: preconditions.uid.filter(|uid| !uid.is_empty()),
                resource_version: preconditions.resource_version.filter(|version| !version.is_empty()),
            },
            dry_run: options.dry_run.is_some_and(|dry_run| !dry_run.is_empty()),
            ignore_read_error: false,
        })
    }

    /// Reads the options from the body of a delete, which wins, or from decoded query parameters.
    pub fn from_request(query: Query<'_>, body: Option<&Body>) -> Result<Self, ApiError> {
        if let Some(body) = body.filter(|body| !body.bytes.is_empty()) {
            let incoming = crate::registry::write::body::parse(body, ("v1", "DeleteOptions"))?;
            let (options, _) = crate::registry::decode::decode_any::<meta_v1::DeleteOptions>(incoming.value)
                .map_err(|error| ApiError::bad_request(error.to_string()))?;
            return Self::from_meta(Some(options));
        }
        Self::from_meta(Some(meta_v1::DeleteOptions {
            grace_period_seconds: number(query, "gracePeriodSeconds")?,
            propagation_policy: param(query, "propagationPolicy").map(str::to_owned),
            orphan_dependents: param(query, "orphanDependents")
                .map(|_| bool_param(query, "orphanDependents")),
            dry_run: param(query, "dryRun").map(|value| vec![value.to_owned()]),
            ..Default::default()
        }))
    }
}

fn propagation(policy: &str) -> Result<Propagation, ApiError> {
    match policy {
        "Orphan" => Ok(Propagation::Orphan),
        "Background" => Ok(Propagation::Background),
        "Foreground" => Ok(Propagation::Foreground),
        other => Err(invalid_delete(&format!(
            "Unsupported value: {other:?}: supported values: \"Background\", \"Foreground\", \"Orphan\""
        ))),
    }
}

fn invalid_delete(problem: &str) -> ApiError {
    let error = FieldError::invalid(&Path::new("propagationPolicy"), "", problem);
    ApiError::invalid(&GroupKind::new("meta.k8s.io", "DeleteOptions"), "", FieldErrors(vec![error]))
}
