//! OpenAPI v2 and v3, made from the rows that are served and the definitions of their kinds.
//!
//! Documents are made when somebody first asks and kept compressed. Their hashes come from what they are made of,
//! so that the v3 root, which names a hash for every group, needs no document; a custom resource changes the hash of its
//! own group alone. What other servers serve is merged into the v2 document, and named in the v3 root.

mod document;
mod merge;
mod message;
mod paths;
mod protobuf;
mod protobuf_v3;
mod respond;
mod v2;
mod v3;

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use aws_lc_rs::digest::{Context, SHA256};
use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode};
use tokio::sync::OnceCell;

use respond::{Document, Format};

/// A served kind, as far as OpenAPI must know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Served {
    /// API group; empty is core.
    pub group: String,
    /// Version within the group.
    pub version: String,
    /// Kind.
    pub kind: String,
    /// Plural name, as in URLs.
    pub plural: String,
    /// Whether objects live in a namespace.
    pub namespaced: bool,
    /// Verbs, as discovery names them.
    pub verbs: Vec<String>,
    /// Subresources.
    pub subresources: Vec<ServedSubresource>,
    /// The definitions of a kind that is not built in.
    pub own: Option<OwnDefinitions>,
}

/// The definitions of a kind that is known only at run time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnDefinitions {
    /// The name of the kind's definition; that of its list ends in `List`.
    pub name: String,
    /// The definition of the kind.
    pub object: serde_json::Value,
    /// The definition of its list.
    pub list: serde_json::Value,
}

/// The documents of a group and version that another server answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Elsewhere {
    /// The path below `/openapi/v3/`, such as `apis/example.com/v1`.
    pub path: String,
    /// Where its v3 document is, with its hash; requests for it are passed on.
    pub v3_url: Option<String>,
    /// Its paths and definitions of v2, JSON.
    pub v2: Option<Bytes>,
}

/// A subresource of a served kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServedSubresource {
    /// Name, such as `status`.
    pub name: String,
    /// Group, version and kind of its body.
    pub body: (String, String, String),
    /// Verbs, as discovery names them; `connect` for those that hand the connection over.
    pub verbs: Vec<String>,
}

type Slot = OnceCell<Arc<Document>>;

/// The documents of one group and version.
#[derive(Debug)]
struct Group {
    hash: String,
    json: Slot,
    protobuf: Slot,
}

/// The documents of one set of served kinds. To serve another set, make another one.
#[derive(Debug)]
pub struct OpenApi {
    served: Arc<[Served]>,
    elsewhere: Arc<[Elsewhere]>,
    hash: String,
    v2_json: Slot,
    v2_protobuf: Slot,
    groups: BTreeMap<String, Group>,
}

impl OpenApi {
    /// Documents for `served`, and for what other servers answer; makes none yet.
    pub fn new(served: Vec<Served>, elsewhere: Vec<Elsewhere>) -> Self {
        let mut rows: BTreeMap<String, Vec<&Served>> = BTreeMap::new();
        for row in &served {
            rows.entry(group_path(row)).or_default().push(row);
        }
        let group = |rows: &[&Served]| Group { hash: hash(&rows), json: Slot::new(), protobuf: Slot::new() };
        let groups = rows.into_iter().map(|(path, rows)| (path, group(&rows))).collect();
        Self {
            hash: hash(&(&served, &elsewhere)),
            served: served.into(),
            elsewhere: elsewhere.into(),
            v2_json: Slot::new(),
            v2_protobuf: Slot::new(),
            groups,
        }
    }

    /// Answers a path of OpenAPI; `hash` is the query parameter. `None` when it is none of ours.
    pub async fn answer_path(
        &self,
        path: &str,
        hash: Option<&str>,
        headers: &HeaderMap,
    ) -> Option<Response<Bytes>> {
        match path.trim_end_matches('/') {
            "/openapi/v2" => Some(self.v2(headers).await),
            "/openapi/v3" => Some(self.v3_root(headers)),
            path => {
                let group = path.strip_prefix("/openapi/v3/")?;
                Some(self.v3_group(group, hash, headers).await)
            }
        }
    }

    /// Answers `GET /openapi/v2`.
    pub async fn v2(&self, headers: &HeaderMap) -> Response<Bytes> {
        let Some(format) = respond::choose(headers, &[Format::Json, Format::V2Protobuf]) else {
            return respond::status(StatusCode::NOT_ACCEPTABLE);
        };
        if respond::not_modified(headers, &self.hash) {
            return respond::unchanged(&self.hash);
        }
        let slot = if format == Format::Json { &self.v2_json } else { &self.v2_protobuf };
        let (served, elsewhere) = (Arc::clone(&self.served), Arc::clone(&self.elsewhere));
        let make = move || {
            let mut document = v2::document(&served)?;
            elsewhere
                .iter()
                .filter_map(|one| one.v2.as_deref())
                .for_each(|part| merge::add(&mut document, part));
            match format {
                Format::Json => Ok(document.into_json()),
                Format::V2Protobuf | Format::V3Protobuf => protobuf::document(&document),
            }
        };
        self.answer(slot, make, format, &self.hash, headers).await
    }

    /// Answers `GET /openapi/v3`.
    pub fn v3_root(&self, headers: &HeaderMap) -> Response<Bytes> {
        if respond::choose(headers, &[Format::Json]).is_none() {
            return respond::status(StatusCode::NOT_ACCEPTABLE);
        }
        let own = self
            .groups
            .iter()
            .map(|(path, group)| (path.clone(), format!("/openapi/v3/{path}?hash={}", group.hash)));
        let others = self.elsewhere.iter().filter_map(|one| Some((one.path.clone(), one.v3_url.clone()?)));
        let paths: serde_json::Map<_, _> = own
            .chain(others)
            .map(|(path, url)| (path, serde_json::json!({ "serverRelativeURL": url })))
            .collect();
        let body = serde_json::json!({ "paths": paths }).to_string();
        respond::plain(Bytes::from(body), Format::Json)
    }

    /// Answers `GET /openapi/v3/{path}?hash={hash}`, where `path` is `api/v1` or `apis/apps/v1`.
    pub async fn v3_group(&self, path: &str, hash: Option<&str>, headers: &HeaderMap) -> Response<Bytes> {
        let path = path.trim_matches('/');
        let Some(documents) = self.groups.get(path) else { return respond::status(StatusCode::NOT_FOUND) };
        let Some(format) = respond::choose(headers, &[Format::Json, Format::V3Protobuf]) else {
            return respond::status(StatusCode::NOT_ACCEPTABLE);
        };
        if hash.is_some_and(|hash| hash != documents.hash) {
            return respond::moved(&format!("/openapi/v3/{path}?hash={}", documents.hash));
        }
        if respond::not_modified(headers, &documents.hash) {
            return respond::unchanged(&documents.hash);
        }
        let (served, group) = (Arc::clone(&self.served), path.to_owned());
        let slot = if format == Format::Json { &documents.json } else { &documents.protobuf };
        let make = move || {
            let document = v3::document(&served, &group)?;
            Ok(match format {
                Format::Json => document.to_string().into_bytes(),
                Format::V2Protobuf | Format::V3Protobuf => protobuf_v3::document(&document),
            })
        };
        let mut response = self.answer(slot, make, format, &documents.hash, headers).await;
        if hash.is_some() && response.status() == StatusCode::OK {
            respond::make_immutable(&mut response);
        }
        response
    }

    /// Answers from the slot, which is filled first where it is empty. Making a document costs some milliseconds of
    /// pure computation, so that it does not run on a thread that serves requests.
    async fn answer<M>(
        &self,
        slot: &Slot,
        make: M,
        format: Format,
        hash: &str,
        headers: &HeaderMap,
    ) -> Response<Bytes>
    where
        M: FnOnce() -> Result<Vec<u8>, crate::api::schema::LoadError> + Send + 'static,
    {
        let document = slot
            .get_or_try_init(|| async move {
                let made =
                    tokio::task::spawn_blocking(move || make().map(|bytes| Document::compress(&bytes)));
                match made.await {
                    Ok(Ok(document)) => Ok(Arc::new(document)),
                    Ok(Err(error)) => Err(error.to_string()),
                    Err(error) => Err(error.to_string()),
                }
            })
            .await;
        match document {
            Ok(document) => document.respond(format, hash, headers),
            Err(error) => {
                tracing::error!(%error, "making an OpenAPI document failed");
                respond::status(StatusCode::INTERNAL_SERVER_ERROR)
            }
        }
    }
}

/// The path of a kind's group and version below `/openapi/v3/`, which is also where it is served.
fn group_path(row: &Served) -> String {
    if row.group.is_empty() {
        format!("api/{}", row.version)
    } else {
        format!("apis/{}/{}", row.group, row.version)
    }
}

/// What names documents that are made of `parts`.
fn hash(parts: &dyn std::fmt::Debug) -> String {
    /// The definitions, which are large and always the same.
    static DEFINITIONS: LazyLock<aws_lc_rs::digest::Digest> =
        LazyLock::new(|| aws_lc_rs::digest::digest(&SHA256, crate::api::schema::openapi::compressed()));
    let mut context = Context::new(&SHA256);
    context.update(env!("CARGO_PKG_VERSION").as_bytes());
    context.update(DEFINITIONS.as_ref());
    context.update(format!("{parts:?}").as_bytes());
    context.finish().as_ref().iter().map(|byte| format!("{byte:02X}")).collect()
}

#[cfg(test)]
mod tests;
