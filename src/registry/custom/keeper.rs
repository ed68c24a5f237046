//! The loop over CustomResourceDefinitions: rows, status, and the objects of definitions that go.
//!
//! Level-triggered: every round reads all definitions and makes what differs from what they ask for. Rows come before
//! the status that announces them, so that who sees `Established` can use the kind at once.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::rows::Definition;
use super::{CustomRows, names};
use crate::api::error::ApiError;
use crate::api::meta;
use crate::cache::{Consistency, Selection, WatchFrom, WatchRequest};
use crate::registry::context::{Body, RequestContext, UserInfo};
use crate::registry::options::{DeleteOptions, ListOptions};
use crate::registry::resource::Resource;
use crate::registry::service::Registry;

/// The finalizer under which the objects of a definition are removed.
pub const CLEANUP: &str = "customresourcecleanup.apiextensions.k8s.io";
/// A round that could not finish is repeated after this long.
const RETRY: Duration = Duration::from_millis(500);
/// A round without cause, should an event have been missed.
const RESYNC: Duration = Duration::from_secs(300);

/// What a round left over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Round {
    Settled,
    Pending,
}

impl Registry {
    /// Keeps rows and definitions in line until `stop`. The caller spawns this once and owns the task.
    pub async fn keep_custom_resources(self: Arc<Self>, stop: CancellationToken) {
        stop.run_until_cancelled(self.keep()).await;
    }

    async fn keep(&self) {
        let Some(row) = self.catalog().by_plural("apiextensions.k8s.io", "v1", "customresourcedefinitions")
        else {
            return;
        };
        loop {
            let request = WatchRequest {
                from: WatchFrom::State(Consistency::Any),
                selection: Selection::default(),
                bookmarks: false,
                mark_initial_end: false,
            };
            let Ok(cache) = self.cache_of(row) else { return };
            let Ok(mut events) = cache.watch(request).await else {
                tokio::time::sleep(RETRY).await;
                continue;
            };
            let mut wait = Duration::ZERO;
            loop {
                if let Ok(None | Some(Err(_))) = tokio::time::timeout(wait, events.next()).await {
                    break;
                }
                // What else has happened is seen by the same round.
                while let Ok(Some(Ok(_))) = tokio::time::timeout(Duration::ZERO, events.next()).await {}
                wait = match self.round().await {
                    Round::Settled => RESYNC,
                    Round::Pending => RETRY,
                };
            }
        }
    }

    /// Every definition, from the cache.
    fn definitions(&self) -> Vec<Value> {
        let row = self.catalog().by_plural("apiextensions.k8s.io", "v1", "customresourcedefinitions");
        let Some(cache) = row.and_then(|row| self.cache_of(row).ok()) else { return Vec::new() };
        let snapshot = cache.current();
        snapshot.iter(None, None).filter_map(|object| serde_json::from_slice(object.json()).ok()).collect()
    }

    async fn round(&self) -> Round {
        let mut all = self.definitions();
        let now = meta::now_rfc3339();
        let mut changed = Vec::new();
        for i in 0..all.len() {
            if Definition(&all[i]).is_terminating() {
                continue;
            }
            let wanted = names::status(&all[i], &all, &now);
            if all[i].get("status") != Some(&wanted) {
                all[i]["status"] = wanted;
                changed.push(i);
            }
        }
        self.make_rows(&all);
        let mut round = Round::Settled;
        for i in changed {
            if let Err(error) = self.write_status(&all[i]).await {
                tracing::debug!(definition = Definition(&all[i]).name(), %error, "status is not written yet");
                round = Round::Pending;
            }
        }
        for definition in all.iter().filter(|one| Definition(one).is_terminating()) {
            match self.clean_up(definition).await {
                Ok(true) => {}
                Ok(false) => round = Round::Pending,
                Err(error) => {
                    let name = meta::name(definition);
                    tracing::debug!(definition = name, %error, "objects are not removed yet");
                    round = Round::Pending;
                }
            }
        }
        round
    }

    /// Makes rows of what the cache has now; the first thing after a start.
    pub(in crate::registry) fn sync_custom_rows(&self) {
        self.make_rows(&self.definitions());
    }

    fn make_rows(&self, all: &[Value]) {
        let mut known = self.custom_sources.lock().unwrap_or_else(PoisonError::into_inner);
        let served: Vec<&Value> = all.iter().filter(|one| Definition(one).is_served()).collect();
        let wanted: Vec<Value> = served
            .iter()
            .map(|one| json!([Definition(one).fingerprint(), Definition(one).is_terminating()]))
            .collect();
        if *known == wanted {
            return;
        }
        for gone in known.iter().filter(|old| !wanted.iter().any(|new| new[0] == old[0])) {
            let prefix = format!(
                "/registry/{}/{}/",
                gone.pointer("/0/1/group").and_then(Value::as_str).unwrap_or_default(),
                gone.pointer("/0/1/names/plural").and_then(Value::as_str).unwrap_or_default()
            );
            self.cache().unregister(&prefix);
        }
        let mut rows: Vec<Resource> = Vec::new();
        for definition in served.into_iter().map(Definition) {
            let cache = self.cache().register(definition.cache_spec());
            rows.extend(definition.rows(&cache, self.shared_hooks()));
        }
        *known = wanted;
        let mut current = self.custom.write().unwrap_or_else(PoisonError::into_inner);
        let version = current.version + 1;
        tracing::debug!(version, rows = rows.len(), "custom resources changed");
        *current = Arc::new(CustomRows { version, catalog: rows.into_iter().collect() });
    }

    async fn write_status(&self, definition: &Value) -> Result<(), ApiError> {
        let row = self
            .catalog()
            .by_plural("apiextensions.k8s.io", "v1", "customresourcedefinitions")
            .ok_or_else(|| ApiError::internal("definitions are not served"))?;
        let body = Body::json(serde_json::to_vec(definition).map_err(ApiError::internal)?);
        let name = meta::name(definition);
        self.update(&keeper(), row, Some("status"), "", name, body).await.map(|_| ())
    }

    /// Removes the objects of a definition, then its finalizer. True when nothing is left to do.
    async fn clean_up(&self, definition: &Value) -> Result<bool, ApiError> {
        if !meta::finalizers(definition).any(|finalizer| finalizer == CLEANUP) {
            return Ok(true);
        }
        let own = Definition(definition);
        let rows = self.custom_rows();
        let prefix = own.prefix();
        let left = match rows.catalog.iter().find(|row| row.storage_prefix == prefix) {
            Some(row) => {
                self.delete_collection(&keeper(), row, "", DeleteOptions::default(), &ListOptions::default())
                    .await?;
                !self.select(row, "", &ListOptions::default()).await?.objects.is_empty()
            }
            None => false,
        };
        if left {
            return Ok(false);
        }
        let mut done = definition.clone();
        let finalizers: Vec<&str> = meta::finalizers(definition).filter(|f| *f != CLEANUP).collect();
        let finalizers = json!(finalizers);
        meta::set(&mut done, "finalizers", Some(finalizers));
        let row = self
            .catalog()
            .by_plural("apiextensions.k8s.io", "v1", "customresourcedefinitions")
            .ok_or_else(|| ApiError::internal("definitions are not served"))?;
        let body = Body::json(serde_json::to_vec(&done).map_err(ApiError::internal)?);
        match self.update(&keeper(), row, None, "", own.name(), body).await {
            Err(error) if error.code() != 404 => Err(error),
            _ => Ok(true),
        }
    }
}

/// The server itself.
fn keeper() -> RequestContext {
    let user = UserInfo {
        name: "system:apiserver".into(),
        groups: vec!["system:masters".into(), "system:authenticated".into()],
        ..UserInfo::default()
    };
    let mut cx = RequestContext::for_user(Arc::new(user));
    cx.user_agent = "kube-apiserver".into();
    cx
}
