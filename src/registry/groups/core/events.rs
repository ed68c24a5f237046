//! Events, in their core form and in that of `events.k8s.io`.

use k8s_openapi::api::core::v1::Event;
use k8s_openapi::api::events::v1 as events_v1;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Map, Value};

use crate::api::field::{FieldError, FieldErrors, Path};
use crate::api::json;
use crate::registry::convert::Conversion;
use crate::registry::strategy::Strategy;
use crate::registry::table::duration::age;
use crate::registry::table::{Column, NAME, column, wide};

/// The columns of events.
pub const COLUMNS: &[Column] = &[
    column("Last Seen", "string", "Time since the event happened last."),
    column("Type", "string", "Normal or Warning."),
    column("Reason", "string", "What happened, in one word."),
    column("Object", "string", "What it happened to."),
    wide("Subobject", "string", "Which part of the object."),
    wide("Source", "string", "Who says so."),
    column("Message", "string", "What happened."),
    wide("First Seen", "string", "Time since the event happened first."),
    wide("Count", "string", "How often it happened."),
    Column { priority: 1, ..NAME },
];

/// The longest action, reason or instance.
const LONGEST_WORD: usize = 128;
/// The longest note.
const LONGEST_NOTE: usize = 1024;

/// The strategy of core events.
pub struct EventStrategy;
/// The strategy of `events.k8s.io` events.
pub struct NewEventStrategy;

impl Strategy for EventStrategy {
    type Object = Event;

    fn validate(&self, event: &Event, errors: &mut FieldErrors) {
        let own = event.metadata.namespace.as_deref().unwrap_or_default();
        let involved = event.involved_object.namespace.as_deref().unwrap_or_default();
        let expected = if involved.is_empty() { "default" } else { involved };
        if own != expected && !(involved.is_empty() && own == "kube-system") {
            let at = Path::new("involvedObject").child("namespace");
            errors.push(FieldError::invalid(&at, involved, "does not match event.namespace"));
        }
    }

    fn cells(&self, event: &Event, now: Timestamp) -> Vec<Value> {
        cells(event, now)
    }
}

impl Strategy for NewEventStrategy {
    type Object = events_v1::Event;

    fn validate(&self, event: &events_v1::Event, errors: &mut FieldErrors) {
        let own = event.metadata.namespace.as_deref().unwrap_or_default();
        let about =
            event.regarding.as_ref().and_then(|object| object.namespace.as_deref()).unwrap_or_default();
        let expected = if about.is_empty() { "default" } else { about };
        if own != expected && !(about.is_empty() && own == "kube-system") {
            let at = Path::new("involvedObject").child("namespace");
            errors.push(FieldError::invalid(&at, about, "does not match event.namespace"));
        }
        // Objects of the old form, which have no such time, are not held to the rules of the new one.
        if event.event_time.is_none() {
            if event.deprecated_first_timestamp.is_none() && event.deprecated_last_timestamp.is_none() {
                errors.push(FieldError::required(&Path::new("eventTime"), ""));
            }
            return;
        }
        let texts = [
            ("reportingController", &event.reporting_controller),
            ("reportingInstance", &event.reporting_instance),
            ("action", &event.action),
            ("reason", &event.reason),
        ];
        for (field, text) in texts {
            let text = text.as_deref().unwrap_or_default();
            if text.is_empty() {
                errors.push(FieldError::required(&Path::new(field), ""));
            } else if field == "reportingController" {
                crate::registry::validation::each(
                    crate::api::names::is_qualified_name(text),
                    text,
                    &Path::new(field),
                    errors,
                );
            } else if text.len() > LONGEST_WORD {
                errors.push(FieldError::invalid(&Path::new(field), "", "can have at most 128 characters"));
            }
        }
        if event.note.as_ref().is_some_and(|note| note.len() > LONGEST_NOTE) {
            errors.push(FieldError::invalid(&Path::new("message"), "", "can have at most 1024 characters"));
        }
        let kind = event.type_.as_deref().unwrap_or_default();
        if !matches!(kind, "Normal" | "Warning") {
            errors.push(FieldError::invalid(
                &Path::new("type"),
                "",
                "has invalid value: must be Normal or Warning",
            ));
        }
    }

    fn cells(&self, event: &events_v1::Event, now: Timestamp) -> Vec<Value> {
        let core = serde_json::to_value(event)
            .ok()
            .and_then(|value| json::typed_value::<Event>(&EventForms.to_stored(value)).ok());
        core.map(|event| cells(&event, now)).unwrap_or_default()
    }
}

fn cells(event: &Event, now: Timestamp) -> Vec<Value> {
    let micro = event.event_time.as_ref().map(|t| t.0);
    let first = event.first_timestamp.as_ref().map(|t| t.0).or(micro);
    let series = event.series.as_ref();
    let last = series
        .and_then(|s| s.last_observed_time.as_ref().map(|t| t.0))
        .or(event.last_timestamp.as_ref().map(|t| t.0))
        .or(first);
    let count = series.and_then(|s| s.count).or(event.count).unwrap_or(1);
    let object = &event.involved_object;
    let kind = object.kind.as_deref().unwrap_or_default().to_lowercase();
    let name = object.name.as_deref().unwrap_or_default();
    vec![
        age(last, now).into(),
        event.type_.clone().unwrap_or_default().into(),
        event.reason.clone().unwrap_or_default().into(),
        if name.is_empty() { kind.into() } else { format!("{kind}/{name}").into() },
        object.field_path.clone().unwrap_or_default().into(),
        source(event).into(),
        event.message.clone().unwrap_or_default().trim().to_owned().into(),
        age(first, now).into(),
        count.to_string().into(),
        event.metadata.name.clone().into(),
    ]
}

fn source(event: &Event) -> String {
    let source = event.source.clone().unwrap_or_default();
    let component = source.component.filter(|c| !c.is_empty()).or(event.reporting_component.clone());
    let host = source.host.filter(|h| !h.is_empty()).or(event.reporting_instance.clone());
    let parts: Vec<String> =
        [component, host].into_iter().flatten().filter(|part| !part.is_empty()).collect();
    parts.join(", ")
}

/// The same fields under two sets of names: `events.k8s.io`, then core.
const NAMES: [(&str, &str); 8] = [
    ("regarding", "involvedObject"),
    ("note", "message"),
    ("reportingController", "reportingComponent"),
    ("reportingInstance", "reportingInstance"),
    ("deprecatedSource", "source"),
    ("deprecatedFirstTimestamp", "firstTimestamp"),
    ("deprecatedLastTimestamp", "lastTimestamp"),
    ("deprecatedCount", "count"),
];

/// Between `events.k8s.io` and the core form, which is stored.
pub struct EventForms;

fn rename(
    value: Value,
    api_version: &str,
    names: impl Iterator<Item = (&'static str, &'static str)>,
) -> Value {
    let Value::Object(mut map) = value else { return value };
    let mut moved = Map::new();
    for (from, to) in names {
        if let Some(found) = map.remove(from) {
            moved.insert(to.into(), found);
        }
    }
    map.append(&mut moved);
    map.insert("apiVersion".into(), api_version.into());
    Value::Object(map)
}

impl Conversion for EventForms {
    fn to_stored(&self, own: Value) -> Value {
        let mut stored = rename(own, "v1", NAMES.into_iter());
        if let Value::Object(map) = &mut stored {
            map.entry("involvedObject").or_insert_with(|| Value::Object(Map::new()));
        }
        stored
    }

    fn restored(&self, stored: Value) -> Value {
        rename(stored, "events.k8s.io/v1", NAMES.into_iter().map(|(new, old)| (old, new)))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn events_convert_both_ways() {
        let new = json!({"apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": "e"}, "reason": "r",
            "regarding": {"kind": "Pod"}, "note": "n", "reportingController": "c", "deprecatedCount": 2});
        let stored = EventForms.to_stored(new.clone());
        assert_eq!(
            stored,
            json!({"apiVersion": "v1", "kind": "Event", "metadata": {"name": "e"}, "reason": "r",
                "involvedObject": {"kind": "Pod"}, "message": "n", "reportingComponent": "c", "count": 2})
        );
        assert_eq!(EventForms.restored(stored), new);
    }

    #[test]
    fn an_event_shows_what_happened_to_what() {
        let event: Event =
            serde_json::from_value(json!({"metadata": {"name": "e"}, "type": "Normal", "reason": "Started",
            "message": "Started container\n", "involvedObject": {"kind": "Pod", "name": "p"},
            "source": {"component": "kubelet", "host": "n"}, "count": 3,
            "firstTimestamp": "2026-01-01T00:00:00Z", "lastTimestamp": "2026-01-01T00:05:00Z"}))
            .unwrap();
        let shown: Vec<String> = cells(&event, "2026-01-01T00:05:10Z".parse().unwrap())
            .iter()
            .map(|cell| cell.as_str().unwrap_or_default().to_owned())
            .collect();
        assert_eq!(
            shown,
            ["10s", "Normal", "Started", "pod/p", "", "kubelet, n", "Started container", "5m10s", "3", "e"]
        );
    }
}
