//! What the server serves: `/api`, `/apis` and below, in the plain and in the aggregated form.
//!
//! Documents are made from the catalog when first asked for and kept encoded.

mod aggregated;
mod legacy;

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use axum::body::Body;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, ETAG, IF_NONE_MATCH, VARY};
use http::{HeaderMap, HeaderValue, Response, StatusCode};

use super::aggregation::CUSTOM_PRIORITY;
use super::aggregation::{Learned, RemoteVersion};
use super::negotiate::{self, Offer, Shape};
use super::request_info::RequestInfo;
use super::respond::Rendering;
use super::usage;
use crate::api::error::ApiError;
use crate::registry::{Registry, Resource, groups};

/// Groups in the order of upstream's priorities, which clients use to resolve a name that several groups have.
const GROUP_ORDER: [&str; 24] = [
    "",
    "apiregistration.k8s.io",
    "apps",
    "events.k8s.io",
    "authentication.k8s.io",
    "authorization.k8s.io",
    "autoscaling",
    "batch",
    "certificates.k8s.io",
    "networking.k8s.io",
    "policy",
    "rbac.authorization.k8s.io",
    "storage.k8s.io",
    "admissionregistration.k8s.io",
    "apiextensions.k8s.io",
    "scheduling.k8s.io",
    "coordination.k8s.io",
    "node.k8s.io",
    "discovery.k8s.io",
    "resource.k8s.io",
    "flowcontrol.apiserver.k8s.io",
    "internal.apiserver.k8s.io",
    "storagemigration.k8s.io",
    "metrics.k8s.io",
];

/// A version of a group.
struct VersionRows {
    name: String,
    /// Its rows, sorted by plural; none when another server answers.
    rows: Vec<Arc<Resource>>,
    /// What another server serves.
    remote: Option<Arc<RemoteVersion>>,
}

/// The discovery documents of one registry.
pub(super) struct Discovery {
    registry: Arc<Registry>,
    advertise: String,
    usage: bool,
    documents: Mutex<Documents>,
}

/// The documents of the rows of one time and of what other servers serve then; two numbers name them.
#[derive(Default)]
struct Documents {
    version: (u64, u64),
    made: HashMap<(String, &'static str), Option<Document>>,
}

#[derive(Clone)]
struct Document {
    json: Bytes,
    etag: HeaderValue,
}

impl Discovery {
    pub(super) fn new(registry: &Arc<Registry>, advertise: &str, usage: bool) -> Self {
        let advertise = advertise.to_owned();
        Self { registry: registry.clone(), advertise, usage, documents: Mutex::default() }
    }

    /// Answers a discovery path; `None` when the path is no discovery path or names no group of ours.
    pub(super) fn answer(
        &self,
        info: &RequestInfo,
        headers: &HeaderMap,
        learned: &Learned,
    ) -> Option<Result<Response<Body>, ApiError>> {
        let path = info.path.trim_end_matches('/');
        let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
        let root = matches!(parts.as_slice(), ["api"] | ["apis"]);
        if !root && !matches!(parts.as_slice(), ["api", _] | ["apis", _] | ["apis", _, _]) {
            return None;
        }
        let offer = if root { Offer::Discovery } else { Offer::Plain };
        let (format, shape) = match negotiate::accept(headers, offer) {
            Ok(accepted) => accepted,
            Err(error) => return Some(Err(error)),
        };
        let version = if let Shape::AggregatedDiscovery(version) = shape { version } else { "" };
        let document = self.document(path, &parts, version, learned)?;
        Some(Ok(respond(&document, version, Rendering::new(format, info, headers), headers)))
    }

    fn document(
        &self,
        path: &str,
        parts: &[&str],
        aggregated: &'static str,
        learned: &Learned,
    ) -> Option<Document> {
        let mut documents = self.documents.lock().unwrap_or_else(PoisonError::into_inner);
        let version = (self.registry.rows().0, learned.version);
        if documents.version != version {
            *documents = Documents { version, ..Documents::default() };
        }
        if let Some(known) = documents.made.get(&(path.to_owned(), aggregated)) {
            return known.clone();
        }
        let value = match (parts, aggregated) {
            (["api"], "") => Some(legacy::api_versions(&self.versions("", learned), &self.advertise)),
            (["apis"], "") => Some(legacy::group_list(&self.groups(learned))),
            (["api"], version) => {
                Some(aggregated::group_list(&[(String::new(), self.versions("", learned))], version))
            }
            (["apis"], version) => Some(aggregated::group_list(&self.groups(learned), version)),
            (["apis", group], _) => legacy::group(group, &self.versions(group, learned)),
            (["api", version], _) => legacy::resource_list("", version, &self.versions("", learned)),
            (["apis", group, version], _) => {
                legacy::resource_list(group, version, &self.versions(group, learned))
            }
            _ => None,
        };
        // Only what exists is kept: paths are the client's, and without bound.
        let document = Document::new(&value?);
        documents.made.insert((path.to_owned(), aggregated), document.clone());
        document
    }

    /// Everything that is served: what the registry has, and what the kubelets count.
    fn rows(&self) -> Vec<Arc<Resource>> {
        let (_, mut rows) = self.registry.rows();
        if self.usage {
            rows.extend(usage::rows().iter().cloned());
        }
        rows
    }

    /// The groups but core, in order.
    fn groups(&self, learned: &Learned) -> Vec<(String, Vec<VersionRows>)> {
        let rows = self.rows();
        let own = rows.iter().map(|row| row.group.as_ref());
        let mut names: Vec<&str> =
            own.chain(learned.versions.values().map(|one| one.group.as_str())).collect();
        names.retain(|name| !name.is_empty());
        names.sort_unstable();
        names.dedup();
        let mut groups: Vec<_> =
            names.into_iter().map(|name| (name.to_owned(), self.versions(name, learned))).collect();
        groups.sort_by_cached_key(|(name, versions)| rank(name, versions));
        groups
    }

    /// The versions of a group, preferred first.
    fn versions(&self, group: &str, learned: &Learned) -> Vec<VersionRows> {
        let mut versions: Vec<VersionRows> = learned
            .of_group(group)
            .map(|one| VersionRows { name: one.version.clone(), rows: Vec::new(), remote: Some(one.clone()) })
            .collect();
        for row in self.rows().into_iter().filter(|row| row.group == group) {
            match versions.iter_mut().find(|version| version.name == row.version) {
                Some(VersionRows { remote: Some(_), .. }) => {}
                Some(version) => version.rows.push(row.clone()),
                None => versions.push(VersionRows {
                    name: row.version.to_string(),
                    rows: vec![row.clone()],
                    remote: None,
                }),
            }
        }
        let priority = |version: &VersionRows| match &version.remote {
            Some(remote) => remote.priority.1,
            None if GROUP_ORDER.contains(&group) => groups::priorities(group, &version.name).1,
            None => CUSTOM_PRIORITY.1,
        };
        versions.sort_by_key(|version| Reverse((priority(version), version_rank(&version.name))));
        for version in &mut versions {
            version.rows.sort_by(|a, b| a.plural.cmp(&b.plural));
        }
        versions
    }
}

/// The place of a group: by priority, then as upstream's list has them, then by name.
fn rank(group: &str, versions: &[VersionRows]) -> (Reverse<i32>, usize, String) {
    let remote = versions.iter().filter_map(|version| Some(version.remote.as_ref()?.priority.0)).max();
    let own = versions.iter().any(|version| version.remote.is_none());
    let at = GROUP_ORDER.iter().position(|own| *own == group);
    let own = own.then(|| match at {
        // A group never comes before one that stands above it in the list.
        Some(at) => {
            GROUP_ORDER[..=at].iter().map(|group| groups::priorities(group, "v1").0).min().unwrap_or(0)
        }
        None => CUSTOM_PRIORITY.0,
    });
    (Reverse(own.max(remote).unwrap_or(0)), at.unwrap_or(GROUP_ORDER.len()), group.to_owned())
}

/// Stable versions before beta before alpha, higher before lower; names of another form come last.
fn version_rank(version: &str) -> (u8, u32, u32) {
    let number = |text: &str| text.parse().unwrap_or(0);
    let Some(rest) = version.strip_prefix('v').filter(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    else {
        return (0, 0, 0);
    };
    match (rest.split_once("beta"), rest.split_once("alpha")) {
        (Some((major, minor)), _) => (1, number(major), number(minor)),
        (_, Some((major, minor))) => (0, number(major), number(minor)),
        _ => (2, number(rest), 0),
    }
}

impl Document {
    fn new(value: &serde_json::Value) -> Option<Self> {
        let json = Bytes::from(serde_json::to_vec(value).ok()?);
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA512, &json);
        let hex: String = digest.as_ref().iter().map(|byte| format!("{byte:02X}")).collect();
        Some(Self { json, etag: HeaderValue::from_str(&format!("\"{hex}\"")).ok()? })
    }
}

fn respond(
    document: &Document,
    aggregated: &str,
    rendering: Rendering,
    headers: &HeaderMap,
) -> Response<Body> {
    let unchanged = headers.get(IF_NONE_MATCH).is_some_and(|tag| *tag == document.etag);
    let mut response = if unchanged && !aggregated.is_empty() {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        response
    } else {
        rendering.respond(200, document.json.clone())
    };
    let own = response.headers_mut();
    own.append(VARY, HeaderValue::from_static("Accept"));
    if !aggregated.is_empty() {
        own.insert(ETAG, document.etag.clone());
        own.insert("cache-control", HeaderValue::from_static("public"));
        let format =
            own.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("application/json");
        let content_type = format!("{format};g=apidiscovery.k8s.io;v={aggregated};as=APIGroupDiscoveryList");
        if let Ok(content_type) = HeaderValue::from_str(&content_type) {
            own.insert(CONTENT_TYPE, content_type);
        }
    }
    response
}

#[cfg(test)]
mod tests;
