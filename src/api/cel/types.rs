//! Types, and the types that schemas give to values.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use super::parse::RESERVED;
use crate::api::schema::{self, Scalar, Schema};
use crate::api::structural::{Additional, Structural, Type as SchemaType};

/// The type of an expression.
#[derive(Clone, Debug, Default, PartialEq)]
#[allow(missing_docs, reason = "the names are those of the language")]
pub enum Type {
    /// Not known before the expression is evaluated.
    #[default]
    Dyn,
    Null,
    Bool,
    Int,
    Uint,
    Double,
    String,
    Bytes,
    Duration,
    Timestamp,
    List(Box<Type>),
    Map(Box<Type>, Box<Type>),
    /// An object whose fields are known.
    Object(Arc<Object>),
    Optional(Box<Type>),
    Type,
    /// One of Kubernetes' types, by name.
    Foreign(&'static str),
}

/// An object type.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Object {
    /// Its name in messages.
    pub name: String,
    /// Its fields, by their escaped names.
    pub fields: BTreeMap<String, Type>,
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dyn => f.write_str("dyn"),
            Self::Null => f.write_str("null"),
            Self::Bool => f.write_str("bool"),
            Self::Int => f.write_str("int"),
            Self::Uint => f.write_str("uint"),
            Self::Double => f.write_str("double"),
            Self::String => f.write_str("string"),
            Self::Bytes => f.write_str("bytes"),
            Self::Duration => f.write_str("google.protobuf.Duration"),
            Self::Timestamp => f.write_str("google.protobuf.Timestamp"),
            Self::List(item) => write!(f, "list({item})"),
            Self::Map(key, value) => write!(f, "map({key}, {value})"),
            Self::Object(object) => f.write_str(&object.name),
            Self::Optional(inner) => write!(f, "optional_type({inner})"),
            Self::Type => f.write_str("type"),
            Self::Foreign(name) => f.write_str(name),
        }
    }
}

impl Type {
    /// A list.
    pub fn list(item: Type) -> Self {
        Self::List(Box::new(item))
    }

    /// A map with text for keys.
    pub fn map(value: Type) -> Self {
        Self::Map(Box::new(Self::String), Box::new(value))
    }

    /// An object with these fields.
    pub fn object(name: &str, fields: impl IntoIterator<Item = (&'static str, Type)>) -> Self {
        let fields = fields.into_iter().map(|(name, kind)| (name.to_owned(), kind)).collect();
        Self::Object(Arc::new(Object { name: name.to_owned(), fields }))
    }

    /// An object with fields of any names.
    pub fn fields(name: &str, fields: Vec<(String, Type)>) -> Self {
        Self::Object(Arc::new(Object { name: name.to_owned(), fields: fields.into_iter().collect() }))
    }

    /// The type that a structural schema gives; `name` is what messages call it.
    pub fn of_structural(schema: &Structural, name: &str) -> Self {
        of_structural(schema, name, false)
    }

    /// The type of a custom resource: the fields of the schema, and those that every object has.
    pub fn of_resource(schema: &Structural, name: &str) -> Self {
        of_structural(schema, name, true)
    }

    /// The type of a built-in kind, to a depth beyond which nothing is known.
    pub fn of_schema(schema: Schema<'_>, name: &str) -> Self {
        of_schema(schema, name, 12)
    }

    /// Whether a value of this type may stand where `other` is wanted.
    pub fn fits(&self, other: &Type) -> bool {
        match (self, other) {
            (Self::Dyn, _) | (_, Self::Dyn) => true,
            // Fields of objects may be null.
            (Self::Null, Self::Object(_) | Self::Duration | Self::Timestamp | Self::Optional(_)) => true,
            (Self::Object(_) | Self::Duration | Self::Timestamp, Self::Null) => true,
            (Self::List(a), Self::List(b)) | (Self::Optional(a), Self::Optional(b)) => a.fits(b),
            (Self::Map(a, x), Self::Map(b, y)) => a.fits(b) && x.fits(y),
            (a, b) => a == b,
        }
    }
}

fn metadata() -> Type {
    Type::object("metadata", [("name", Type::String), ("generateName", Type::String)])
}

fn of_structural(schema: &Structural, name: &str, resource: bool) -> Type {
    if schema.int_or_string {
        return Type::Dyn;
    }
    match schema.kind {
        Some(SchemaType::Boolean) => Type::Bool,
        Some(SchemaType::Integer) => Type::Int,
        Some(SchemaType::Number) => Type::Double,
        Some(SchemaType::String) => match schema.limits.format.as_str() {
            "byte" => Type::Bytes,
            "duration" => Type::Duration,
            "date" | "date-time" => Type::Timestamp,
            _ => Type::String,
        },
        Some(SchemaType::Array) => match schema.items.as_deref() {
            Some(items) => Type::list(of_structural(items, &format!("{name}.@idx"), items.embedded)),
            None => Type::list(Type::Dyn),
        },
        Some(SchemaType::Object) => {
            if let Some(Additional::Schema(below)) = &schema.additional {
                return Type::map(of_structural(below, &format!("{name}.@elem"), below.embedded));
            }
            let resource = resource || schema.embedded;
            if schema.properties.is_empty() && !resource {
                return if schema.preserve_unknown || schema.additional.is_some() {
                    Type::Dyn
                } else {
                    Type::Object(Arc::new(Object { name: name.to_owned(), fields: BTreeMap::new() }))
                };
            }
            let mut fields: BTreeMap<String, Type> = schema
                .properties
                .iter()
                .filter_map(|(field, below)| {
                    let kind = of_structural(below, &format!("{name}.{field}"), below.embedded);
                    Some((escaped(field)?, kind))
                })
                .collect();
            if resource {
                fields.insert("apiVersion".to_owned(), Type::String);
                fields.insert("kind".to_owned(), Type::String);
                fields.insert("metadata".to_owned(), metadata());
            }
            Type::Object(Arc::new(Object { name: name.to_owned(), fields }))
        }
        None => Type::Dyn,
    }
}

fn of_schema(schema: Schema<'_>, name: &str, depth: usize) -> Type {
    if depth == 0 {
        return Type::Dyn;
    }
    match schema.kind() {
        schema::Kind::Any => Type::Dyn,
        schema::Kind::Scalar(scalar) => match scalar {
            Scalar::String | Scalar::Quantity => Type::String,
            Scalar::Boolean => Type::Bool,
            Scalar::Int32 | Scalar::Int64 => Type::Int,
            Scalar::Float => Type::Double,
            Scalar::Bytes => Type::Bytes,
            Scalar::Time => Type::Timestamp,
            Scalar::IntOrString => Type::Dyn,
        },
        schema::Kind::List => Type::list(
            schema.item().map_or(Type::Dyn, |item| of_schema(item, &format!("{name}.@idx"), depth - 1)),
        ),
        schema::Kind::Map => Type::map(
            schema.field("").map_or(Type::Dyn, |below| of_schema(below, &format!("{name}.@elem"), depth - 1)),
        ),
        schema::Kind::Struct => {
            let fields = schema
                .fields()
                .filter_map(|(field, below)| {
                    Some((escaped(field)?, of_schema(below, &format!("{name}.{field}"), depth - 1)))
                })
                .collect();
            Type::Object(Arc::new(Object { name: name.to_owned(), fields }))
        }
    }
}

/// Whether a field of that name could not be written as it is.
fn needs_underscores(field: &str) -> bool {
    RESERVED.contains(&field) || matches!(field, "true" | "false" | "null")
}

/// The name by which expressions know a field; none for names that cannot be written.
pub fn escaped(field: &str) -> Option<String> {
    if needs_underscores(field) {
        return Some(format!("__{field}__"));
    }
    let begins = field.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    let writable = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '/' | '-');
    if !begins || !field.chars().all(writable) {
        return None;
    }
    let name = field.replace("__", "__underscores__");
    Some(name.replace('.', "__dot__").replace('/', "__slash__").replace('-', "__dash__"))
}

/// The field that an escaped name stands for; none when nothing in it is escaped.
pub fn unescaped(name: &str) -> Option<String> {
    if !name.contains("__") {
        return None;
    }
    if let Some(word) = name.strip_prefix("__").and_then(|rest| rest.strip_suffix("__"))
        && needs_underscores(word)
    {
        return Some(word.to_owned());
    }
    let plain = name.replace("__dot__", ".").replace("__slash__", "/").replace("__dash__", "-");
    Some(plain.replace("__underscores__", "__"))
}
