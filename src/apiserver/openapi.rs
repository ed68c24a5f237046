//! OpenAPI v2 and v3, made from the rows that are served and the definitions of their kinds.
//!
//! Documents are made when somebody first asks and kept compressed. Their hashes come from what they are made of,
//! so that the v3 root, which names a hash for every group, needs no document.

mod document;
mod message;
mod paths;
mod protobuf;
mod protobuf_v3;
mod respond;
mod v2;
mod v3;

use std::collections::BTreeMap;
use std::sync::Arc;

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
#[derive(Debug, Default)]
struct Group {
    json: Slot,
    protobuf: Slot,
}

/// The documents of one set of served kinds. To serve another set, make another one.
#[derive(Debug)]
pub struct OpenApi {
    served: Arc<[Served]>,
    hash: String,
    v2_json: Slot,
    v2_protobuf: Slot,
    groups: BTreeMap<String, Group>,
}

impl OpenApi {
    /// Documents for `served`; makes none yet.
    pub fn new(served: Vec<Served>) -> Self {
        let groups = served.iter().map(|row| (group_path(row), Group::default())).collect();
        Self {
            hash: hash(&served),
            served: served.into(),
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
        let served = Arc::clone(&self.served);
        let make = move || match format {
            Format::Json => v2::document(&served).map(|document| document.into_json()),
            Format::V2Protobuf | Format::V3Protobuf => protobuf::document(&v2::document(&served)?),
        };
        self.answer(slot, make, format, headers).await
    }

    /// Answers `GET /openapi/v3`.
    pub fn v3_root(&self, headers: &HeaderMap) -> Response<Bytes> {
        if respond::choose(headers, &[Format::Json]).is_none() {
            return respond::status(StatusCode::NOT_ACCEPTABLE);
        }
        let paths: serde_json::Map<_, _> = self
            .groups
            .keys()
            .map(|path| {
                let url = format!("/openapi/v3/{path}?hash={}", self.hash);
                (path.clone(), serde_json::json!({ "serverRelativeURL": url }))
            })
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
        if hash.is_some_and(|hash| hash != self.hash) {
            return respond::moved(&format!("/openapi/v3/{path}?hash={}", self.hash));
        }
        if respond::not_modified(headers, &self.hash) {
            return respond::unchanged(&self.hash);
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
        let mut response = self.answer(slot, make, format, headers).await;
        if hash.is_some() && response.status() == StatusCode::OK {
            respond::make_immutable(&mut response);
        }
        response
    }

    /// Answers from the slot, which is filled first where it is empty. Making a document costs some milliseconds of
    /// pure computation, so that it does not run on a thread that serves requests.
    async fn answer<M>(&self, slot: &Slot, make: M, format: Format, headers: &HeaderMap) -> Response<Bytes>
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
            Ok(document) => document.respond(format, &self.hash, headers),
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

fn hash(served: &[Served]) -> String {
    let mut context = Context::new(&SHA256);
    context.update(env!("CARGO_PKG_VERSION").as_bytes());
    context.update(crate::api::schema::openapi::compressed());
    context.update(format!("{served:?}").as_bytes());
    context.finish().as_ref().iter().map(|byte| format!("{byte:02X}")).collect()
}

#[cfg(test)]
mod tests;
