//! The objects and the rules for changing them. No HTTP here.

use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// An error answer.
#[derive(Debug, Clone)]
pub(crate) struct Status {
    pub(crate) code: u16,
    pub(crate) reason: &'static str,
    pub(crate) cause: Option<&'static str>,
}

impl Status {
    pub(crate) const fn new(code: u16, reason: &'static str) -> Self {
        Self { code, reason, cause: None }
    }
}

const NOT_FOUND: Status = Status::new(404, "NotFound");
const CONFLICT: Status = Status::new(409, "Conflict");
const EXISTS: Status = Status::new(409, "AlreadyExists");

/// A kind as discovery shows it.
#[derive(Debug, Clone)]
pub(crate) struct Kind {
    pub(crate) group: &'static str,
    pub(crate) version: &'static str,
    pub(crate) kind: &'static str,
    pub(crate) plural: &'static str,
    pub(crate) namespaced: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Collection {
    pub(super) group: String,
    pub(super) plural: String,
}

type Id = (Collection, String, String);

pub(super) struct Event {
    pub(super) revision: u64,
    pub(super) kind: &'static str,
    pub(super) id: Id,
    pub(super) object: Value,
}

#[derive(Default)]
pub(super) struct Model {
    pub(super) objects: BTreeMap<Id, Value>,
    pub(super) history: Vec<Event>,
    pub(super) revision: u64,
    pub(super) oldest: u64,
    pub(super) cuts: u64,
    pub(super) kinds: Vec<Kind>,
}

impl Model {
    pub(super) fn get(&self, collection: &Collection, namespace: &str, name: &str) -> Result<Value, Status> {
        self.objects.get(&id(collection, namespace, name)).cloned().ok_or(NOT_FOUND)
    }

    pub(super) fn list(&self, collection: &Collection, namespace: &str) -> Vec<Value> {
        let of = |(id, _): &(&Id, &Value)| &id.0 == collection && (namespace.is_empty() || id.1 == namespace);
        self.objects.iter().filter(of).map(|(_, object)| object.clone()).collect()
    }

    pub(super) fn create(
        &mut self,
        collection: &Collection,
        namespace: &str,
        mut object: Value,
    ) -> Result<Value, Status> {
        let core = |plural: &str| Collection { group: String::new(), plural: plural.to_owned() };
        if !namespace.is_empty()
            && let Some(parent) = self.objects.get(&id(&core("namespaces"), "", namespace))
            && !parent["metadata"]["deletionTimestamp"].is_null()
        {
            return Err(Status { code: 403, reason: "Forbidden", cause: Some("NamespaceTerminating") });
        }
        let next = self.revision + 1;
        let meta = metadata(&mut object);
        if meta.get("name").is_none() {
            let prefix = meta.get("generateName").and_then(Value::as_str).unwrap_or_default();
            let name = format!("{prefix}{next:05x}");
            meta.insert("name".into(), name.into());
        }
        let name = meta["name"].as_str().unwrap().to_owned();
        if self.objects.contains_key(&id(collection, namespace, &name)) {
            return Err(EXISTS);
        }
        meta.entry("uid").or_insert_with(|| format!("uid-{next}").into());
        meta.entry("creationTimestamp").or_insert_with(|| "2026-01-01T00:00:00Z".into());
        if !namespace.is_empty() {
            meta.insert("namespace".into(), namespace.into());
        }
        if *collection == core("namespaces") {
            object["spec"] = json!({"finalizers": ["kubernetes"]});
            object["status"]["phase"] = "Active".into();
        }
        Ok(self.put("ADDED", id(collection, namespace, &name), object))
    }

    /// PUT, with `sub` naming a subresource.
    pub(super) fn update(
        &mut self,
        collection: &Collection,
        namespace: &str,
        name: &str,
        sub: Option<&str>,
        mut object: Value,
    ) -> Result<Value, Status> {
        let old = self.get(collection, namespace, name)?;
        for field in ["resourceVersion", "uid"] {
            let wanted = &object["metadata"][field];
            if wanted.as_str().is_some_and(|wanted| !wanted.is_empty()) && *wanted != old["metadata"][field] {
                return Err(CONFLICT);
            }
        }
        match sub {
            Some("status") => {
                let status = object["status"].take();
                object = old.clone();
                object["status"] = status;
            }
            Some("finalize") => {
                let finalizers = object["spec"]["finalizers"].take();
                object = old.clone();
                object["spec"]["finalizers"] = finalizers;
            }
            _ => {
                if let Some(status) = old.get("status") {
                    object["status"] = status.clone();
                }
            }
        }
        self.replace_all(collection, namespace, name, object)
    }

    /// Replaces everything but what identifies the object.
    pub(super) fn replace_all(
        &mut self,
        collection: &Collection,
        namespace: &str,
        name: &str,
        mut object: Value,
    ) -> Result<Value, Status> {
        let old = self.get(collection, namespace, name)?;
        for field in ["apiVersion", "kind"] {
            object[field] = old[field].clone();
        }
        let meta = metadata(&mut object);
        for field in ["uid", "creationTimestamp", "resourceVersion", "deletionTimestamp", "name", "namespace"]
        {
            match old["metadata"].get(field) {
                Some(value) => meta.insert(field.into(), value.clone()),
                None => meta.remove(field),
            };
        }
        if object == old {
            return Ok(old);
        }
        let id = id(collection, namespace, name);
        if !object["metadata"]["deletionTimestamp"].is_null() && finalizers(&object) == 0 {
            return Ok(self.remove(&id, object));
        }
        Ok(self.put("MODIFIED", id, object))
    }

    pub(super) fn delete(
        &mut self,
        collection: &Collection,
        namespace: &str,
        name: &str,
        options: &Value,
    ) -> Result<Value, Status> {
        let mut object = self.get(collection, namespace, name)?;
        for field in ["resourceVersion", "uid"] {
            let wanted = &options["preconditions"][field];
            if !wanted.is_null() && *wanted != object["metadata"][field] {
                return Err(CONFLICT);
            }
        }
        let policy = options["propagationPolicy"].as_str().unwrap_or("Background");
        let finalizer = match policy {
            "Foreground" => Some("foregroundDeletion"),
            "Orphan" => Some("orphan"),
            _ => None,
        };
        let meta = metadata(&mut object);
        let list = meta.entry("finalizers").or_insert_with(|| json!([]));
        if let (Some(finalizer), Some(list)) = (finalizer, list.as_array_mut())
            && !list.iter().any(|known| known == finalizer)
        {
            list.push(finalizer.into());
        }
        if list.as_array().is_some_and(Vec::is_empty) {
            meta.remove("finalizers");
        }
        let id = id(collection, namespace, name);
        if finalizers(&object) == 0 {
            return Ok(self.remove(&id, object));
        }
        metadata(&mut object).entry("deletionTimestamp").or_insert_with(|| "2026-01-02T00:00:00Z".into());
        if collection.plural == "namespaces" {
            object["status"]["phase"] = "Terminating".into();
        }
        if self.objects.get(&id) == Some(&object) {
            return Ok(object);
        }
        Ok(self.put("MODIFIED", id, object))
    }

    fn put(&mut self, kind: &'static str, id: Id, mut object: Value) -> Value {
        self.revision += 1;
        metadata(&mut object).insert("resourceVersion".into(), self.revision.to_string().into());
        self.objects.insert(id.clone(), object.clone());
        self.history.push(Event { revision: self.revision, kind, id, object: object.clone() });
        object
    }

    fn remove(&mut self, id: &Id, mut object: Value) -> Value {
        self.objects.remove(id);
        self.revision += 1;
        metadata(&mut object).insert("resourceVersion".into(), self.revision.to_string().into());
        let (revision, id) = (self.revision, id.clone());
        self.history.push(Event { revision, kind: "DELETED", id, object: object.clone() });
        object
    }
}

fn id(collection: &Collection, namespace: &str, name: &str) -> Id {
    (collection.clone(), namespace.to_owned(), name.to_owned())
}

fn metadata(object: &mut Value) -> &mut Map<String, Value> {
    if !object["metadata"].is_object() {
        object["metadata"] = json!({});
    }
    object["metadata"].as_object_mut().unwrap()
}

/// What keeps a deleted object in place.
fn finalizers(object: &Value) -> usize {
    let count = |list: &Value| list.as_array().map_or(0, Vec::len);
    let spec = if object["kind"] == "Namespace" { count(&object["spec"]["finalizers"]) } else { 0 };
    count(&object["metadata"]["finalizers"]) + spec
}
