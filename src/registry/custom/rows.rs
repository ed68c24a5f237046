//! From a CustomResourceDefinition to the rows of its served versions.

use std::borrow::Cow;
use std::sync::{Arc, OnceLock};

use serde_json::Value;

use super::behaviour::Custom;
use super::columns::Columns;
use super::rules::Rules;
use super::scale::ScalePaths;
use super::versions::{Strategy, Versions};
use super::{Dynamic, names, openapi};
use crate::api::field::{FieldErrors, Path};
use crate::api::schema::Schemas;
use crate::api::structural::Structural;
use crate::cache::{ResourceCache, ResourceSpec, SelectableField};
use crate::registry::hooks::{Hooks, WebhookTarget};
use crate::registry::resource::{ALL_VERBS, NameRule, Resource, SCALE, STATUS, Scope, Storage, Verb};

const TERMINATING_VERBS: &[Verb] =
    &[Verb::Delete, Verb::DeleteCollection, Verb::Get, Verb::List, Verb::Watch];

/// A definition, read for its rows.
pub struct Definition<'a>(pub &'a Value);

fn text<'a>(value: &'a Value, path: &str) -> &'a str {
    value.pointer(path).and_then(Value::as_str).unwrap_or_default()
}

fn texts(value: &Value, path: &str) -> Vec<Cow<'static, str>> {
    let items = value.pointer(path).and_then(Value::as_array).into_iter().flatten();
    items.filter_map(Value::as_str).map(|text| Cow::Owned(text.to_owned())).collect()
}

impl Definition<'_> {
    /// Its name.
    pub fn name(&self) -> &str {
        text(self.0, "/metadata/name")
    }

    fn group(&self) -> &str {
        text(self.0, "/spec/group")
    }

    fn plural(&self) -> &str {
        text(self.0, "/spec/names/plural")
    }

    fn versions(&self) -> impl Iterator<Item = &Value> {
        self.0.pointer("/spec/versions").and_then(Value::as_array).into_iter().flatten()
    }

    fn namespaced(&self) -> bool {
        text(self.0, "/spec/scope") == "Namespaced"
    }

    /// Whether objects are served: the names are settled.
    pub fn is_served(&self) -> bool {
        names::is_true(self.0, "Established")
    }

    /// Whether the definition is being deleted.
    pub fn is_terminating(&self) -> bool {
        self.0.pointer("/metadata/deletionTimestamp").is_some()
    }

    /// The key prefix of the objects.
    pub fn prefix(&self) -> String {
        format!("/registry/{}/{}/", self.group(), self.plural())
    }

    /// What the rows are made of; rows stay as long as it does.
    pub fn fingerprint(&self) -> Value {
        serde_json::json!([
            self.0.pointer("/metadata/uid"),
            self.0.get("spec"),
            self.0.pointer("/status/acceptedNames"),
        ])
    }

    /// What the watch cache must know.
    pub fn cache_spec(&self) -> ResourceSpec {
        let mut fields: Vec<SelectableField> = Vec::new();
        for field in self.versions().flat_map(selectable) {
            if !fields.contains(&field) {
                fields.push(field);
            }
        }
        ResourceSpec {
            prefix: self.prefix(),
            namespaced: self.namespaced(),
            api_version: format!("{}/{}", self.group(), self.stored_version()),
            kind: text(self.0, "/status/acceptedNames/kind").to_owned(),
            resource: self.plural().to_owned(),
            fields,
        }
    }

    fn stored_version(&self) -> &str {
        let stored = self.versions().find(|version| version.get("storage") == Some(&Value::Bool(true)));
        stored.map_or("", |version| text(version, "/name"))
    }

    fn strategy(&self) -> Strategy {
        let conversion = self.0.pointer("/spec/conversion");
        let webhook = conversion.filter(|c| text(c, "/strategy") == "Webhook").and_then(|c| c.get("webhook"));
        let client = webhook.and_then(|webhook| webhook.get("clientConfig"));
        match (webhook, client) {
            (Some(webhook), Some(client)) => Strategy::Webhook {
                target: WebhookTarget::of(client),
                reviews: texts(webhook, "/conversionReviewVersions")
                    .into_iter()
                    .map(Cow::into_owned)
                    .collect(),
            },
            _ => Strategy::None,
        }
    }

    /// The rows of all served versions.
    pub fn rows(&self, cache: &Arc<ResourceCache>, hooks: &Arc<OnceLock<Hooks>>) -> Vec<Resource> {
        let served = self.versions().filter(|version| version.get("served") == Some(&Value::Bool(true)));
        served.map(|version| self.row(version, cache, hooks)).collect()
    }

    fn row(&self, version: &Value, cache: &Arc<ResourceCache>, hooks: &Arc<OnceLock<Hooks>>) -> Resource {
        let names = self.0.pointer("/status/acceptedNames").unwrap_or(&Value::Null);
        let (group, name, kind) = (self.group(), text(version, "/name"), text(names, "/kind"));
        let given = version.pointer("/schema/openAPIV3Schema");
        let schema = match given {
            Some(schema) => Arc::new(self.structural(schema)),
            None => Structural::anything(),
        };
        let status = version.pointer("/subresources/status").is_some();
        let scale = version.pointer("/subresources/scale").and_then(ScalePaths::of);
        let columns = Columns::of(version);
        let dynamic = Dynamic {
            schemas: Schemas::of_custom(&schema),
            columns: columns.clone(),
            fields: selectable(version).collect(),
            scale: scale.clone(),
            definition: openapi::definition(group, name, kind, given),
            terminating: self.is_terminating(),
            cache: cache.clone(),
        };
        let convert = Versions {
            definition: self.name().to_owned(),
            own: format!("{group}/{name}"),
            stored: format!("{group}/{}", self.stored_version()),
            kind: kind.to_owned(),
            strategy: self.strategy(),
            schema: schema.clone(),
            hooks: hooks.clone(),
        };
        let mut subresources = Vec::new();
        subresources.extend(status.then_some(STATUS));
        subresources.extend(scale.is_some().then_some(SCALE));
        let owned = |text: &str| Cow::Owned(text.to_owned());
        Resource {
            group: owned(group),
            version: owned(name),
            kind: owned(kind),
            list_kind: owned(text(names, "/listKind")),
            plural: owned(self.plural()),
            singular: owned(text(names, "/singular")),
            short_names: texts(names, "/shortNames"),
            categories: texts(names, "/categories"),
            scope: if self.namespaced() { Scope::Namespaced } else { Scope::Cluster },
            verbs: if self.is_terminating() { TERMINATING_VERBS } else { ALL_VERBS },
            subresources,
            storage_prefix: self.prefix().into(),
            storage: Storage::Custom(Arc::new(convert)),
            selectable: &[],
            columns: &[],
            behaviour: Arc::new(Custom {
                rules: rules(&schema),
                schema,
                status,
                columns,
                scale,
                warning: self.warning(version, kind),
            }),
            generation: true,
            create_on_update: false,
            unconditional_update: false,
            returns_deleted: false,
            orphans: false,
            ttl: None,
            name_rule: NameRule::Subdomain,
            keeps_status: false,
            deprecation: None,
            dynamic: Some(Arc::new(dynamic)),
        }
    }

    fn structural(&self, schema: &Value) -> Structural {
        let mut schema = Structural::parse(schema);
        if self.0.pointer("/spec/preserveUnknownFields") == Some(&Value::Bool(true)) {
            schema.preserve_unknown = true;
        }
        schema
    }

    fn warning(&self, version: &Value, kind: &str) -> Option<String> {
        if version.get("deprecated") != Some(&Value::Bool(true)) {
            return None;
        }
        let name = text(version, "/name");
        let given = version.get("deprecationWarning").and_then(Value::as_str);
        Some(given.map_or_else(|| format!("{}/{name} {kind} is deprecated", self.group()), str::to_owned))
    }
}

fn selectable(version: &Value) -> impl Iterator<Item = SelectableField> {
    let fields = version.get("selectableFields").and_then(Value::as_array).into_iter().flatten();
    fields.filter_map(|field| {
        let path = field.get("jsonPath")?.as_str()?;
        Some(SelectableField::at(path.trim_start_matches('.').to_owned()))
    })
}

/// The rules of a schema. The definition was checked when it was written; what does not compile any more is left out.
fn rules(schema: &Structural) -> Rules {
    let mut errors = FieldErrors::new();
    let rules = Rules::compile(schema, &Path::new("schema"), &mut errors);
    if !errors.is_empty() {
        tracing::warn!(%errors, "rules of a custom resource are left out");
    }
    rules
}
