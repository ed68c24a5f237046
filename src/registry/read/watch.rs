//! Watches: the cache's event lines, in the shape the client asked for.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use futures::StreamExt;
use serde_json::{Value, json};

use super::converted::{self, Shown};
use super::get::parse_version;
use super::select;
use crate::api::error::ApiError;
use crate::api::protobuf;
use crate::api::selector::FieldSelector;
use crate::cache::{CacheError, Consistency, EventType, Selection, WatchEvent, WatchFrom, WatchRequest};
use crate::registry::context::{IncludeObject, Representation, RequestContext};
use crate::registry::options::{VersionMatch, WatchOptions};
use crate::registry::resource::{Resource, Storage};
use crate::registry::service::{Registry, WatchBody};
use crate::registry::{errors, render, table};
use crate::store::Revision;

const INITIAL_END: &str = "k8s.io/initial-events-end";

/// Turns events of the cache into lines, or frames of protobuf, for one client.
struct Lines {
    resource: Arc<Resource>,
    representation: Representation,
    protobuf: bool,
    /// Whether a table has been sent, which brought the column definitions.
    columns_sent: bool,
}

impl Lines {
    async fn line(&mut self, event: &WatchEvent) -> Result<Bytes, ApiError> {
        let plain =
            self.representation == Representation::Object && matches!(self.resource.storage, Storage::Own);
        if plain && !self.protobuf {
            return Ok(event.line());
        }
        if event.event_type() == EventType::Bookmark {
            return self.event("BOOKMARK", &self.bookmark(event));
        }
        let own = self.own(event).await?;
        if let Representation::Table(include) = self.representation
            && !self.columns_sent
        {
            self.columns_sent = true;
            return self.event(event.event_type().as_str(), &self.table(event, &own, include, true)?);
        }
        let mut problem = None;
        let bytes = event.encoded(&self.encoding(), |event| {
            match self.shape(event, own).and_then(|object| self.event(event.event_type().as_str(), &object)) {
                Ok(bytes) => bytes,
                Err(error) => {
                    problem = Some(error);
                    Bytes::new()
                }
            }
        });
        problem.map_or(Ok(bytes), Err)
    }

    /// The line of an event that is this watch's own, with the object in the row's own form.
    fn own_line(&mut self, kind: EventType, event: &WatchEvent, own: Bytes) -> Result<Bytes, ApiError> {
        let object = match self.representation {
            Representation::Table(include) => {
                let columns = !std::mem::replace(&mut self.columns_sent, true);
                self.table(event, &own, include, columns)?
            }
            shape => render::one(shape, &self.resource, own)?,
        };
        self.event(kind.as_str(), &object)
    }

    /// Names the encoding, so that the cache makes it once for all who want the same.
    fn encoding(&self) -> String {
        let protobuf = if self.protobuf { "/protobuf" } else { "" };
        format!("{}/{:?}{protobuf}", self.resource.api_version(), self.representation)
    }

    /// One event in the client's encoding.
    fn event(&self, kind: &str, object: &[u8]) -> Result<Bytes, ApiError> {
        if !self.protobuf {
            return Ok(line(kind, object));
        }
        let object = protobuf::encode(object).map_err(ApiError::internal)?;
        Ok(protobuf::watch_frame(kind, &object).into())
    }

    /// The event that ends a failed watch.
    fn error(&self, error: &ApiError) -> Bytes {
        let status = status(error);
        self.event("ERROR", status.as_bytes()).unwrap_or_else(|_| line("ERROR", status.as_bytes()))
    }

    async fn own(&self, event: &WatchEvent) -> Result<Bytes, ApiError> {
        let object = event.object().ok_or_else(|| ApiError::internal("an event without an object"))?;
        render::own_form(&self.resource, object.json()).await
    }

    fn shape(&self, event: &WatchEvent, own: Bytes) -> Result<Bytes, ApiError> {
        match self.representation {
            Representation::Object | Representation::Metadata => {
                render::one(self.representation, &self.resource, own)
            }
            Representation::Table(include) => self.table(event, &own, include, false),
        }
    }

    fn table(
        &self,
        event: &WatchEvent,
        own: &[u8],
        include: IncludeObject,
        columns: bool,
    ) -> Result<Bytes, ApiError> {
        let row = table::rows::row(&self.resource, own, include)?;
        let list_meta = json!({"resourceVersion": event.revision().to_string()});
        table::rows::table(&self.resource, list_meta, vec![row], columns)
    }

    fn bookmark(&self, event: &WatchEvent) -> Bytes {
        let mut metadata = json!({"resourceVersion": event.revision().to_string()});
        if event.ends_initial() {
            metadata["annotations"] = json!({INITIAL_END: "true"});
        }
        let partial =
            || json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata", "metadata": metadata});
        let object = match self.representation {
            Representation::Object => {
                json!({"apiVersion": self.resource.api_version(), "kind": self.resource.kind, "metadata": metadata})
            }
            Representation::Metadata => partial(),
            Representation::Table(_) => json!({
                "apiVersion": "meta.k8s.io/v1", "kind": "Table", "metadata": metadata, "columnDefinitions": [],
                "rows": [{"cells": [], "object": partial()}],
            }),
        };
        object.to_string().into()
    }
}

/// One event as a line.
fn line(kind: &str, object: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(object.len() + 40);
    out.put_slice(format!(r#"{{"type":"{kind}","object":"#).as_bytes());
    out.put_slice(object);
    out.put_slice(b"}\n");
    out.freeze()
}

/// An error as an object.
fn status(error: &ApiError) -> String {
    let mut status = serde_json::to_value(error.status()).unwrap_or_default();
    if let Value::Object(map) = &mut status {
        map.insert("apiVersion".into(), "v1".into());
        map.insert("kind".into(), "Status".into());
    }
    status.to_string()
}

impl Registry {
    pub(in crate::registry) async fn watch_objects(
        &self,
        cx: &RequestContext,
        resource: &Arc<Resource>,
        namespace: &str,
        options: &WatchOptions,
    ) -> Result<WatchBody, ApiError> {
        select::check_fields(resource, &options.fields)?;
        let from = self.start(options).await?;
        let shown = if converted::needed(resource, &options.fields) {
            Some(self.shown_before(resource, namespace, options, from).await?)
        } else {
            None
        };
        let request = WatchRequest {
            from,
            selection: selection(resource, namespace, options),
            bookmarks: options.bookmarks,
            mark_initial_end: options.send_initial_events == Some(true),
        };
        let cache = self.cache_of(resource)?;
        let lines = Lines {
            resource: Arc::clone(resource),
            representation: cx.representation,
            protobuf: cx.protobuf_events,
            columns_sent: false,
        };
        let events = match cache.watch(request).await {
            Ok(events) => events,
            // A watch that starts too far back is told so by its first event, as clients expect.
            Err(error @ CacheError::Expired { .. }) => {
                let end = lines.error(&errors::cache(resource, error));
                return Ok(futures::stream::once(async move { end }).boxed());
            }
            Err(error) => return Err(errors::cache(resource, error)),
        };
        // An error is the last event.
        let body = futures::stream::unfold(Some((events, lines, shown)), |state| async move {
            let (mut events, mut lines, mut shown) = state?;
            let line = loop {
                let event = match events.next().await? {
                    Ok(event) => event,
                    Err(error) => break Err(errors::cache(&lines.resource, error)),
                };
                let Some(shown) = shown.as_mut().filter(|_| event.event_type() != EventType::Bookmark) else {
                    break lines.line(&event).await;
                };
                match shown.told(&lines.resource, &event).await {
                    Ok(Some((kind, own))) => break lines.own_line(kind, &event, own),
                    Ok(None) => {}
                    Err(error) => break Err(error),
                }
            };
            Some(match line {
                Ok(line) => (line, Some((events, lines, shown))),
                Err(error) => (lines.error(&error), None),
            })
        });
        Ok(body.boxed())
    }

    /// What a client that watches from somewhere has seen of the objects that its selector selects.
    async fn shown_before(
        &self,
        resource: &Resource,
        namespace: &str,
        options: &WatchOptions,
        from: WatchFrom,
    ) -> Result<Shown, ApiError> {
        let mut objects = Vec::new();
        if let WatchFrom::After(revision) = from {
            // A version that is forgotten is told by the watch itself.
            if let Ok(snapshot) = self.cache_of(resource)?.snapshot(Consistency::Exact(revision)).await {
                let scope = (!namespace.is_empty()).then_some(namespace);
                let all = snapshot.iter(scope, None);
                let all = all.filter(|object| options.labels.matches(|key| object.label(key)));
                objects.extend(all.cloned());
            }
        }
        Shown::new(resource, objects, &options.fields).await
    }

    async fn start(&self, options: &WatchOptions) -> Result<WatchFrom, ApiError> {
        let version = parse_version(&options.resource_version)?;
        match options.send_initial_events {
            None if options.version_match.is_some() => Err(select::invalid_options(
                "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
            )),
            Some(_) if options.version_match != Some(VersionMatch::NotOlderThan) => {
                Err(select::invalid_options(
                    "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
                ))
            }
            Some(true) => Ok(WatchFrom::State(match version {
                None => Consistency::Latest,
                Some(0) => Consistency::Any,
                Some(version) => Consistency::NotOlderThan(Revision(version)),
            })),
            Some(false) if matches!(version, None | Some(0)) => {
                let now = self.store().current_revision().await.map_err(ApiError::internal)?;
                Ok(WatchFrom::After(now))
            }
            _ => Ok(match version {
                None => WatchFrom::State(Consistency::Latest),
                Some(0) => WatchFrom::State(Consistency::Any),
                Some(version) => WatchFrom::After(Revision(version)),
            }),
        }
    }
}

/// What of the selectors the cache can index, and a filter for the rest.
fn selection(resource: &Resource, namespace: &str, options: &WatchOptions) -> Selection {
    let mut selection = Selection::default();
    let fields = &options.fields;
    let namespace = if namespace.is_empty() {
        fields.required_value("metadata.namespace").unwrap_or_default()
    } else {
        namespace
    };
    if !namespace.is_empty() && resource.namespaced() {
        selection.namespace = Some(namespace.to_owned());
    }
    selection.name = fields.required_value("metadata.name").map(str::to_owned);
    let own = fields;
    let of_metadata = FieldSelector::everything();
    // What is known only after a conversion is not for the cache to select by.
    let fields = if converted::needed(resource, own) { &of_metadata } else { own };
    selection.field = fields
        .requirements()
        .iter()
        .find(|r| r.equals && !r.value.is_empty() && !r.field.starts_with("metadata."))
        .map(|r| (r.field.clone(), r.value.clone()));
    if !options.labels.is_everything() || !fields.is_everything() {
        let (labels, fields) = (options.labels.clone(), fields.clone());
        selection.filter = Some(Arc::new(move |object| select::selected(object, &labels, &fields)));
    }
    selection
}
