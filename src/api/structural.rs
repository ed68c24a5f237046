//! Structural schemas: what a CustomResourceDefinition says about its objects, and what the server does by it:
//! pruning, defaulting, validation, and the shape that patches and field ownership need.
//!
//! The model follows upstream's structural schemas: every field has a type outside of `allOf`, `anyOf`, `oneOf` and
//! `not`; these only restrict values.

pub mod check;
mod defaults;
mod formats;
mod lists;
mod numbers;
mod parse;
mod prune;
mod validate;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use crate::api::schema::ListType;
pub use formats::{date_time as parse_time, duration as parse_duration, go_duration, holds as format_holds};
pub use numbers::go_float;
pub use validate::{Checked, correlated, validate};

/// The type of a value, as the schema calls it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are those of JSON Schema")]
pub enum Type {
    Object,
    Array,
    String,
    Integer,
    Number,
    Boolean,
}

impl Type {
    /// The name in a schema.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Object => "object",
            Self::Array => "array",
            Self::String => "string",
            Self::Integer => "integer",
            Self::Number => "number",
            Self::Boolean => "boolean",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "object" => Self::Object,
            "array" => Self::Array,
            "string" => Self::String,
            "integer" => Self::Integer,
            "number" => Self::Number,
            "boolean" => Self::Boolean,
            _ => return None,
        })
    }
}

/// What `additionalProperties` says.
#[derive(Clone, Debug)]
pub enum Additional {
    /// Any value, or none.
    Allowed(bool),
    /// Values of a schema.
    Schema(Box<Structural>),
}

/// A rule of `x-kubernetes-validations`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// The expression.
    pub rule: String,
    /// What to tell when it does not hold.
    pub message: String,
    /// An expression that makes the message.
    pub message_expression: String,
    /// `FieldValueInvalid` unless another reason is given.
    pub reason: String,
    /// The field to blame, relative to where the rule is.
    pub field_path: String,
    /// Whether `oldSelf` may be absent.
    pub optional_old_self: Option<bool>,
}

/// Restrictions of a value.
#[derive(Clone, Debug, Default)]
pub struct Limits {
    /// The only values allowed.
    pub one_of_values: Vec<Value>,
    /// A regular expression for strings.
    pub pattern: Option<(String, Option<regex::Regex>)>,
    /// A named format of strings.
    pub format: String,
    /// Lengths in characters.
    pub min_length: Option<i64>,
    /// Lengths in characters.
    pub max_length: Option<i64>,
    /// Number of items.
    pub min_items: Option<i64>,
    /// Number of items.
    pub max_items: Option<i64>,
    /// Number of keys.
    pub min_properties: Option<i64>,
    /// Number of keys.
    pub max_properties: Option<i64>,
    /// The least number, and whether it is itself excluded.
    pub minimum: Option<(f64, bool)>,
    /// The greatest number, and whether it is itself excluded.
    pub maximum: Option<(f64, bool)>,
    /// Numbers are multiples of this.
    pub multiple_of: Option<f64>,
    /// Fields that must be there.
    pub required: Vec<String>,
    /// Items are unique.
    pub unique_items: bool,
}

/// A structural schema.
#[derive(Clone, Debug, Default)]
pub struct Structural {
    /// The type; none where `x-kubernetes-int-or-string` or `x-kubernetes-preserve-unknown-fields` stand for it.
    pub kind: Option<Type>,
    /// Whether null is a value.
    pub nullable: bool,
    /// `x-kubernetes-int-or-string`.
    pub int_or_string: bool,
    /// `x-kubernetes-preserve-unknown-fields`.
    pub preserve_unknown: bool,
    /// `x-kubernetes-embedded-resource`.
    pub embedded: bool,
    /// Known fields.
    pub properties: BTreeMap<String, Structural>,
    /// Other keys.
    pub additional: Option<Additional>,
    /// Items of lists.
    pub items: Option<Box<Structural>>,
    /// The default.
    pub default: Option<Value>,
    /// `x-kubernetes-list-type`.
    pub list_type: Option<ListType>,
    /// `x-kubernetes-list-map-keys`.
    pub list_keys: Vec<String>,
    /// `x-kubernetes-map-type` is `atomic`.
    pub atomic_map: bool,
    /// `x-kubernetes-validations`.
    pub rules: Vec<Rule>,
    /// Restrictions.
    pub limits: Limits,
    /// All of these hold.
    pub all_of: Vec<Structural>,
    /// Any of these holds.
    pub any_of: Vec<Structural>,
    /// One of these holds.
    pub one_of: Vec<Structural>,
    /// This does not hold.
    pub not: Option<Box<Structural>>,
}

impl Structural {
    /// Reads a schema from `openAPIV3Schema`. What it does not know is skipped; [`check`] complains about it.
    pub fn parse(schema: &Value) -> Self {
        parse::schema(schema)
    }

    /// The schema of a version that has none: everything is kept.
    pub fn anything() -> Arc<Self> {
        Arc::new(Self { kind: Some(Type::Object), preserve_unknown: true, ..Self::default() })
    }

    /// Whether there is a default anywhere.
    pub fn has_defaults(&self) -> bool {
        self.default.is_some() || self.children().any(Self::has_defaults)
    }

    /// The schemas of fields, keys and items.
    pub fn children(&self) -> impl Iterator<Item = &Self> {
        let additional = match &self.additional {
            Some(Additional::Schema(schema)) => Some(&**schema),
            _ => None,
        };
        self.properties.values().chain(additional).chain(self.items.as_deref())
    }

    /// Removes the fields that the schema does not know; the paths of what was removed.
    pub fn prune(&self, object: &mut Value) -> Vec<String> {
        prune::prune(self, object)
    }

    /// Fills in defaults, and drops nulls where there is a default and null is no value.
    pub fn fill_defaults(&self, object: &mut Value) {
        defaults::drop_nulls(self, object);
        defaults::fill(self, object);
    }

    /// The schema of a field or key.
    pub fn field(&self, name: &str) -> Option<&Self> {
        self.properties.get(name).or(match &self.additional {
            Some(Additional::Schema(schema)) => Some(schema),
            _ => None,
        })
    }
}

#[cfg(test)]
mod tests;
