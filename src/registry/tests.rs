//! The pipeline over a real store and cache: what clients see of verbs, whatever the kind.

mod admission;
mod lifecycle;
mod matrix;
mod reads;
mod services;
mod writes;

use std::sync::Arc;

use futures::StreamExt;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::api::error::ApiError;
use crate::cache::Cache;
use crate::registry::{
    Body, DeleteOptions, FieldValidation, GetOptions, ListOptions, PatchKind, Registry, RegistryConfig,
    Reply, RequestContext, Resource, WatchOptions,
};
use crate::store::sqlite::{SqliteOptions, SqliteStore};

/// A registry over a store of its own, with the namespace `default` and its service account.
pub(super) struct World {
    pub registry: Arc<Registry>,
    _stop: DropGuard,
    _folder: TempDir,
}

pub(super) type Answer = Result<Value, ApiError>;

fn value(reply: Reply) -> Value {
    serde_json::from_slice(&reply.body).unwrap()
}

impl World {
    pub async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(&folder.path().join("state.db"), SqliteOptions::default()).unwrap();
        let cache = Cache::new(store.clone());
        let registry = Registry::new(store, cache.clone(), RegistryConfig::default()).unwrap();
        let stop = CancellationToken::new();
        tokio::spawn(cache.run(stop.clone()));
        registry.ready().await.unwrap();
        let world = Self { registry, _stop: stop.drop_guard(), _folder: folder };
        world.create("v1/namespaces", "", json!({"metadata": {"name": "default"}})).await.unwrap();
        world
            .create("v1/serviceaccounts", "default", json!({"metadata": {"name": "default"}}))
            .await
            .unwrap();
        world
    }

    /// The row of `[group/]version/plural`.
    pub fn row(&self, path: &str) -> Arc<Resource> {
        let mut parts: Vec<&str> = path.split('/').collect();
        if parts.len() == 2 {
            parts.insert(0, "");
        }
        self.registry.find_row(parts[0], parts[1], parts[2]).unwrap()
    }

    pub fn cx(&self) -> RequestContext {
        let mut cx = RequestContext::default();
        cx.field_manager = "tests".into();
        cx.field_validation = FieldValidation::Strict;
        cx
    }

    pub async fn create(&self, path: &str, namespace: &str, object: Value) -> Answer {
        self.create_with(&self.cx(), path, namespace, object).await
    }

    pub async fn create_with(
        &self,
        cx: &RequestContext,
        path: &str,
        namespace: &str,
        object: Value,
    ) -> Answer {
        let body = Body::json(object.to_string());
        self.registry.create(cx, &self.row(path), None, namespace, "", body).await.map(value)
    }

    pub async fn act(&self, path: &str, part: &str, namespace: &str, name: &str, object: Value) -> Answer {
        let body = Body::json(object.to_string());
        self.registry.create(&self.cx(), &self.row(path), Some(part), namespace, name, body).await.map(value)
    }

    pub async fn get(&self, path: &str, namespace: &str, name: &str) -> Answer {
        let options = GetOptions::default();
        self.registry.get(&self.cx(), &self.row(path), None, namespace, name, &options).await.map(value)
    }

    pub async fn update(&self, path: &str, part: Option<&str>, object: Value) -> Answer {
        self.update_with(&self.cx(), path, part, object).await
    }

    pub async fn update_with(
        &self,
        cx: &RequestContext,
        path: &str,
        part: Option<&str>,
        object: Value,
    ) -> Answer {
        let row = self.row(path);
        let namespace =
            if row.namespaced() { object["metadata"]["namespace"].as_str().unwrap_or("default") } else { "" };
        let name = object["metadata"]["name"].as_str().unwrap();
        let body = Body::json(object.to_string());
        self.registry.update(cx, &row, part, namespace, name, body).await.map(value)
    }

    pub async fn patch(
        &self,
        path: &str,
        part: Option<&str>,
        (namespace, name): (&str, &str),
        kind: PatchKind,
        patch: Value,
    ) -> Answer {
        let body = Body::json(patch.to_string());
        self.registry.patch(&self.cx(), &self.row(path), part, namespace, name, kind, body).await.map(value)
    }

    pub async fn delete(&self, path: &str, namespace: &str, name: &str, options: DeleteOptions) -> Answer {
        self.registry.delete(&self.cx(), &self.row(path), namespace, name, options).await.map(value)
    }

    pub async fn list(&self, path: &str, namespace: &str, query: &[(&str, &str)]) -> Answer {
        let query: Vec<_> = query.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let options = ListOptions::from_query(&query)?;
        self.registry.list(&self.cx(), &self.row(path), namespace, &options).await.map(value)
    }

    /// The first `count` events of a watch.
    pub async fn watch(
        &self,
        cx: &RequestContext,
        path: &str,
        query: &[(&str, &str)],
        count: usize,
    ) -> Vec<Value> {
        let query: Vec<_> = query.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let options = WatchOptions::from_query(&query).unwrap();
        let lines = self.registry.watch(cx, &self.row(path), "", &options).await.unwrap();
        lines.take(count).map(|line| serde_json::from_slice(&line).unwrap()).collect().await
    }
}

pub(super) fn config_map(name: &str) -> Value {
    json!({"metadata": {"name": name}, "data": {"a": "1"}})
}

pub(super) fn pod(name: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "i:1"}]}})
}

pub(super) fn names(list: &Value) -> Vec<&str> {
    list["items"].as_array().unwrap().iter().map(|item| item["metadata"]["name"].as_str().unwrap()).collect()
}
