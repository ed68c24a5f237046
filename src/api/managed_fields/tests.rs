//! Ownership, told as stories of several managers on one object.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::api::error::ApiError;
use crate::api::meta;
use crate::api::patch::test_values::any_value;
use crate::api::schema::Schemas;

mod applies;
mod merges;
mod sets;
mod updates;

/// One object on which managers act in turn, at one second after another.
struct Story {
    api_version: &'static str,
    kind: &'static str,
    initial: Value,
    live: Option<Value>,
    seconds: u32,
}

impl Story {
    fn new(api_version: &'static str, kind: &'static str) -> Self {
        let mut initial = json!({});
        crate::api::protobuf::complete(&mut initial, api_version, kind);
        Self { api_version, kind, initial, live: None, seconds: 0 }
    }

    fn deployment() -> Self {
        Self::new("apps/v1", "Deployment")
    }

    fn options<'a>(&'a self, manager: &'a str, now: &'a str) -> Options<'a> {
        Options {
            manager,
            api_version: self.api_version,
            subresource: "",
            now,
            schema: Schemas::builtin().for_kind(self.api_version, self.kind).unwrap(),
            initial: &self.initial,
            ignored: &[],
            force: false,
        }
    }

    fn now(&mut self) -> String {
        self.seconds += 1;
        format!("2026-01-01T00:00:{:02}Z", self.seconds)
    }

    fn object(&self, body: Value) -> Value {
        let mut object =
            json!({"apiVersion": self.api_version, "kind": self.kind, "metadata": {"name": "x"}});
        for (key, value) in body.as_object().unwrap() {
            match (key.as_str(), value) {
                ("metadata", Value::Object(more)) => {
                    object["metadata"].as_object_mut().unwrap().extend(more.clone());
                }
                _ => object[key] = value.clone(),
            }
        }
        object
    }

    fn try_apply(&mut self, manager: &str, body: Value, force: bool) -> Result<(), ApiError> {
        let now = self.now();
        let applied = self.object(body);
        let options = Options { force, ..self.options(manager, &now) };
        let merged = apply(self.live.as_ref(), &applied, &options)?;
        self.live = Some(merged);
        Ok(())
    }

    fn apply(&mut self, manager: &str, body: Value) {
        self.try_apply(manager, body, false).unwrap();
    }

    fn force(&mut self, manager: &str, body: Value) {
        self.try_apply(manager, body, true).unwrap();
    }

    /// Writes the whole object, keeping the entries as a client would that read them.
    fn update(&mut self, manager: &str, body: Value) {
        let now = self.now();
        let mut new = self.object(body);
        let options = self.options(manager, &now);
        track_update(self.live.as_ref(), &mut new, &options);
        self.live = Some(new);
    }

    fn live(&self) -> &Value {
        self.live.as_ref().unwrap()
    }

    fn spec(&self) -> &Value {
        &self.live()["spec"]
    }

    /// `operation manager@second: paths`, one line for each entry.
    fn owners(&self) -> Vec<String> {
        let list = meta::get(self.live(), "managedFields").and_then(Value::as_array);
        let line = |entry: &Value| {
            let set = Set::parse(&entry["fieldsV1"]).unwrap();
            let time = entry["time"].as_str().unwrap_or_default();
            let second = time.get(17..19).unwrap_or_default().trim_start_matches('0').to_owned();
            let text = |name: &str| entry[name].as_str().unwrap_or_default().to_owned();
            format!("{} {}@{second}: {}", text("operation"), text("manager"), set.paths().join(" "))
        };
        list.into_iter().flatten().map(line).collect()
    }
}

#[track_caller]
fn assert_owners(story: &Story, expected: &[&str]) {
    assert_eq!(story.owners(), expected);
}

proptest! {
    #[test]
    fn arbitrary_objects_never_panic(a in any_value(), b in any_value(), c in any_value()) {
        let story = Story::new("v1", "Pod");
        let options = story.options("m", "2026-01-01T00:00:00Z");
        let mut new = b.clone();
        track_update(Some(&a), &mut new, &options);
        let mut created = a.clone();
        track_update(None, &mut created, &options);
        if let Ok(merged) = apply(Some(&new), &c, &options) {
            let _again = apply(Some(&merged), &b, &Options { force: true, ..options });
        }
    }

    #[test]
    fn applying_twice_changes_nothing(mut a in any_value(), mut b in any_value()) {
        let story = Story::new("v1", "Pod");
        let options = story.options("m", "2026-01-01T00:00:00Z");
        options.schema.fit(&mut a);
        options.schema.fit(&mut b);
        if a.is_object() && b.is_object() && let Ok(once) = apply(Some(&a), &b, &Options { force: true, ..options }) {
            let later = Options { now: "2027-01-01T00:00:00Z", ..options };
            if let Ok(twice) = apply(Some(&once), &b, &later) {
                prop_assert_eq!(twice, once);
            }
        }
    }
}
