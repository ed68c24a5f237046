//! Field selectors of custom resources whose versions a webhook converts: the fields of a version are in no stored
//! object, so they are looked for after the conversion, and a watch remembers which objects its client has been shown.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::Value;

use crate::api::error::ApiError;
use crate::api::meta;
use crate::api::selector::FieldSelector;
use crate::cache::{EventType, Object, WatchEvent};
use crate::registry::render;
use crate::registry::resource::{Resource, Storage};
use crate::registry::write::encode;

/// Objects that are converted with one call.
const CHUNK: usize = 200;

/// Whether the fields that a selector names are known only after a conversion.
pub(super) fn needed(resource: &Resource, fields: &FieldSelector) -> bool {
    let own = fields.requirements().iter().any(|requirement| !requirement.field.starts_with("metadata."));
    own && matches!(&resource.storage, Storage::Custom(convert) if convert.changes_fields())
}

/// Whether a selector selects an object in its row's own form.
fn selects(own: &Bytes, fields: &FieldSelector) -> Result<bool, ApiError> {
    let object: Value = serde_json::from_slice(own).map_err(ApiError::internal)?;
    let text = |path: &str| {
        let found = path.split('.').try_fold(&object, |value, part| value.get(part));
        match found {
            Some(Value::String(text)) => text.clone(),
            Some(value @ (Value::Bool(_) | Value::Number(_))) => value.to_string(),
            _ => String::new(),
        }
    };
    Ok(fields.requirements().iter().all(|one| (text(&one.field) == one.value) == one.equals))
}

/// Those of the objects that a selector selects, at most `most` of them.
pub(super) async fn selected(
    resource: &Resource,
    objects: Vec<Arc<Object>>,
    fields: &FieldSelector,
    most: usize,
) -> Result<Vec<Arc<Object>>, ApiError> {
    let mut found = Vec::new();
    for chunk in objects.chunks(CHUNK) {
        let stored: Vec<&Bytes> = chunk.iter().map(|object| object.json()).collect();
        let own = render::own_forms(resource, &stored).await?;
        for (object, own) in chunk.iter().zip(&own) {
            if selects(own, fields)? {
                found.push(object.clone());
            }
            if found.len() == most {
                return Ok(found);
            }
        }
    }
    Ok(found)
}

/// What a watch with such a selector has shown its client: the last form of each object, by key.
pub(super) struct Shown {
    fields: FieldSelector,
    objects: HashMap<String, Bytes>,
}

impl Shown {
    /// A client that knows `objects`, of which only those count that the selector selects.
    pub(super) async fn new(
        resource: &Resource,
        objects: Vec<Arc<Object>>,
        fields: &FieldSelector,
    ) -> Result<Self, ApiError> {
        let mut shown = Self { fields: fields.clone(), objects: HashMap::new() };
        for object in selected(resource, objects, fields, usize::MAX).await? {
            let own = render::own_form(resource, object.json()).await?;
            shown.objects.insert(object.key().to_owned(), own);
        }
        Ok(shown)
    }

    /// What the client is to be told of a change, if anything.
    pub(super) async fn told(
        &mut self,
        resource: &Resource,
        event: &WatchEvent,
    ) -> Result<Option<(EventType, Bytes)>, ApiError> {
        let Some(object) = event.object() else { return Ok(None) };
        let key = object.key().to_owned();
        let own = match event.event_type() {
            EventType::Deleted => None,
            _ => Some(render::own_form(resource, object.json()).await?),
        };
        let own = match own {
            Some(own) if selects(&own, &self.fields)? => Some(own),
            _ => None,
        };
        let before = match &own {
            Some(own) => self.objects.insert(key, own.clone()),
            None => self.objects.remove(&key),
        };
        Ok(match (before, own) {
            (None, Some(own)) => Some((EventType::Added, own)),
            (Some(_), Some(own)) => Some((EventType::Modified, own)),
            // What goes is shown as it was, with the version of its going.
            (Some(last), None) => {
                let mut last: Value = serde_json::from_slice(&last).map_err(ApiError::internal)?;
                meta::set_resource_version(&mut last, &event.revision().to_string());
                Some((EventType::Deleted, encode::canonical(&last).map_err(ApiError::internal)?))
            }
            (None, None) => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_see_the_converted_object() {
        let own = Bytes::from(r#"{"metadata": {"name": "a"}, "host": "h", "spec": {"n": 3, "on": true}}"#);
        let cases = [
            ("host=h", true),
            ("host=h,spec.n=3,spec.on=true,metadata.name=a", true),
            ("host!=h", false),
            ("spec.missing=", true),
            ("spec.n=4", false),
        ];
        for (selector, expected) in cases {
            let fields = FieldSelector::parse(selector).unwrap();
            assert_eq!(selects(&own, &fields).unwrap(), expected, "{selector}");
        }
    }
}
