//! Field paths and field errors, as validation reports them: `spec.containers[0].image: Required value`.
//!
//! The wording of every error kind is what upstream's `field.Error` prints, because users and scripts match on it.

use std::borrow::Cow;
use std::fmt::{self, Write as _};
use std::sync::Arc;

use serde::Serialize;
use serde_json::Value;

/// The place of a field in an object. Cloning and extending share the prefix.
#[derive(Clone, Debug)]
pub struct Path(Arc<Node>);

#[derive(Debug)]
struct Node {
    parent: Option<Path>,
    step: Step,
}

#[derive(Debug)]
enum Step {
    Field(Cow<'static, str>),
    Index(usize),
    Key(Cow<'static, str>),
}

impl Path {
    /// A path that starts at the top-level field `name`.
    pub fn new(name: impl Into<Cow<'static, str>>) -> Self {
        Self(Arc::new(Node { parent: None, step: Step::Field(name.into()) }))
    }

    /// The field `name` below this one.
    #[must_use]
    pub fn child(&self, name: impl Into<Cow<'static, str>>) -> Self {
        self.with(Step::Field(name.into()))
    }

    /// The list element `index` below this one.
    #[must_use]
    pub fn index(&self, index: usize) -> Self {
        self.with(Step::Index(index))
    }

    /// The map entry `key` below this one.
    #[must_use]
    pub fn key(&self, key: impl Into<Cow<'static, str>>) -> Self {
        self.with(Step::Key(key.into()))
    }

    fn with(&self, step: Step) -> Self {
        Self(Arc::new(Node { parent: Some(self.clone()), step }))
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(parent) = &self.0.parent {
            parent.fmt(f)?;
        }
        match &self.0.step {
            Step::Field(name) if self.0.parent.is_some() => write!(f, ".{name}"),
            Step::Field(name) => f.write_str(name),
            Step::Index(index) => write!(f, "[{index}]"),
            Step::Key(key) => write!(f, "[{key}]"),
        }
    }
}

/// What is wrong with a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The value refers to something that does not exist.
    NotFound,
    /// The value is missing.
    Required,
    /// The value must be unique and is not.
    Duplicate,
    /// The value breaks a rule that the detail names.
    Invalid,
    /// The value is none of the allowed ones.
    NotSupported,
    /// The value is well formed but not permitted here.
    Forbidden,
    /// The string is too long.
    TooLong,
    /// The string is too short.
    TooShort,
    /// The list has too many items.
    TooMany,
    /// The server failed while it checked the value.
    Internal,
    /// The value has the wrong JSON type.
    TypeInvalid,
}

impl ErrorKind {
    /// The reason of the `StatusCause`.
    pub fn reason(self) -> &'static str {
        match self {
            Self::NotFound => "FieldValueNotFound",
            Self::Required => "FieldValueRequired",
            Self::Duplicate => "FieldValueDuplicate",
            Self::Invalid => "FieldValueInvalid",
            Self::NotSupported => "FieldValueNotSupported",
            Self::Forbidden => "FieldValueForbidden",
            Self::TooLong => "FieldValueTooLong",
            Self::TooShort => "FieldValueTooShort",
            Self::TooMany => "FieldValueTooMany",
            Self::Internal => "InternalError",
            Self::TypeInvalid => "FieldValueTypeInvalid",
        }
    }

    fn words(self) -> &'static str {
        match self {
            Self::NotFound => "Not found",
            Self::Required => "Required value",
            Self::Duplicate => "Duplicate value",
            Self::Invalid | Self::TypeInvalid => "Invalid value",
            Self::NotSupported => "Unsupported value",
            Self::Forbidden => "Forbidden",
            Self::TooLong => "Too long",
            Self::TooShort => "Too short",
            Self::TooMany => "Too many",
            Self::Internal => "Internal error",
        }
    }
}

/// One violation: which field, what kind, the offending value if it is to be shown, and a detail.
#[derive(Clone, Debug, PartialEq)]
pub struct FieldError {
    /// The kind of violation.
    pub kind: ErrorKind,
    /// The path, as text.
    pub field: String,
    /// The offending value; `None` when it is not shown.
    pub value: Option<Value>,
    /// What to do about it; may be empty.
    pub detail: String,
}

impl FieldError {
    fn new(kind: ErrorKind, path: &Path, value: Option<Value>, detail: impl Into<String>) -> Self {
        Self { kind, field: path.to_string(), value, detail: detail.into() }
    }

    /// `path: Required value[: detail]`.
    pub fn required(path: &Path, detail: impl Into<String>) -> Self {
        Self::new(ErrorKind::Required, path, None, detail)
    }

    /// `path: Invalid value: value: detail`.
    pub fn invalid(path: &Path, value: impl Serialize, detail: impl Into<String>) -> Self {
        Self::new(ErrorKind::Invalid, path, Some(shown(value)), detail)
    }

    /// `path: Invalid value: detail`, for a value that is not worth showing.
    pub fn invalid_unshown(path: &Path, detail: impl Into<String>) -> Self {
        Self::new(ErrorKind::Invalid, path, None, detail)
    }

    /// `path: Invalid value: detail`, for a value that has the wrong type or is too big to show.
    pub fn type_invalid(path: &Path, value: impl Serialize, detail: impl Into<String>) -> Self {
        Self::new(ErrorKind::TypeInvalid, path, Some(shown(value)), detail)
    }

    /// `path: Unsupported value: value: supported values: "a", "b"`.
    pub fn not_supported<S: AsRef<str>>(path: &Path, value: impl Serialize, supported: &[S]) -> Self {
        let list: Vec<_> = supported.iter().map(|s| go_quote(s.as_ref())).collect();
        let detail =
            if list.is_empty() { String::new() } else { format!("supported values: {}", list.join(", ")) };
        Self::new(ErrorKind::NotSupported, path, Some(shown(value)), detail)
    }

    /// `path: Duplicate value: value`.
    pub fn duplicate(path: &Path, value: impl Serialize) -> Self {
        Self::new(ErrorKind::Duplicate, path, Some(shown(value)), "")
    }

    /// `path: Forbidden: detail`.
    pub fn forbidden(path: &Path, detail: impl Into<String>) -> Self {
        Self::new(ErrorKind::Forbidden, path, None, detail)
    }

    /// `path: Not found: value`.
    pub fn not_found(path: &Path, value: impl Serialize) -> Self {
        Self::new(ErrorKind::NotFound, path, Some(shown(value)), "")
    }

    /// `path: Too long: may not be more than max bytes`.
    pub fn too_long(path: &Path, max: usize) -> Self {
        Self::new(ErrorKind::TooLong, path, None, format!("may not be more than {max} bytes"))
    }

    /// `path: Too short: must be at least min characters`.
    pub fn too_short(path: &Path, min: usize) -> Self {
        let characters = if min == 1 { "character" } else { "characters" };
        Self::new(ErrorKind::TooShort, path, None, format!("must be at least {min} {characters}"))
    }

    /// `path: Too many: actual: must have at most max items`.
    pub fn too_many(path: &Path, actual: usize, max: usize) -> Self {
        let items = if max == 1 { "item" } else { "items" };
        Self::new(ErrorKind::TooMany, path, Some(actual.into()), format!("must have at most {max} {items}"))
    }

    /// `path: Internal error: detail`.
    pub fn internal(path: &Path, detail: impl Into<String>) -> Self {
        Self::new(ErrorKind::Internal, path, None, detail)
    }

    /// The error without the path, which is what a `StatusCause` carries beside its `field`.
    pub fn body(&self) -> String {
        let mut body = self.kind.words().to_owned();
        match &self.value {
            None => {}
            // Upstream shows what is not there as a text.
            Some(Value::Null) => body.push_str(": \"null\""),
            Some(Value::String(text)) => {
                body.push_str(": ");
                body.push_str(&go_quote(text));
            }
            Some(other) => {
                let _infallible = write!(body, ": {other}");
            }
        }
        if !self.detail.is_empty() {
            body.push_str(": ");
            body.push_str(&self.detail);
        }
        body
    }
}

/// What an error shows of `value`; a value that cannot be serialized is shown as null.
fn shown(value: impl Serialize) -> Value {
    serde_json::to_value(value).unwrap_or(Value::Null)
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.body())
    }
}

/// All violations found in one object, in the order in which they were found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FieldErrors(pub Vec<FieldError>);

impl FieldErrors {
    /// No violations.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one.
    pub fn push(&mut self, error: FieldError) {
        self.0.push(error);
    }

    /// Whether nothing is wrong.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many violations there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The violations in order.
    pub fn iter(&self) -> std::slice::Iter<'_, FieldError> {
        self.0.iter()
    }
}

impl From<FieldError> for FieldErrors {
    fn from(error: FieldError) -> Self {
        Self(vec![error])
    }
}

impl From<Vec<FieldError>> for FieldErrors {
    fn from(errors: Vec<FieldError>) -> Self {
        Self(errors)
    }
}

impl Extend<FieldError> for FieldErrors {
    fn extend<I: IntoIterator<Item = FieldError>>(&mut self, errors: I) {
        self.0.extend(errors);
    }
}

impl FromIterator<FieldError> for FieldErrors {
    fn from_iter<I: IntoIterator<Item = FieldError>>(errors: I) -> Self {
        Self(errors.into_iter().collect())
    }
}

impl IntoIterator for FieldErrors {
    type Item = FieldError;
    type IntoIter = std::vec::IntoIter<FieldError>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<'a> IntoIterator for &'a FieldErrors {
    type Item = &'a FieldError;
    type IntoIter = std::slice::Iter<'a, FieldError>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

/// One error as it is; several as `[first, second]`, each text once.
impl fmt::Display for FieldErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut texts: Vec<String> = Vec::with_capacity(self.0.len());
        for error in &self.0 {
            let text = error.to_string();
            if !texts.contains(&text) {
                texts.push(text);
            }
        }
        match texts.as_slice() {
            [single] => f.write_str(single),
            several => write!(f, "[{}]", several.join(", ")),
        }
    }
}

/// Quotes a string as Go's `%q` does, which is how upstream shows strings in messages.
pub fn go_quote(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\u{7}' => quoted.push_str("\\a"),
            '\u{8}' => quoted.push_str("\\b"),
            '\u{c}' => quoted.push_str("\\f"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            '\u{b}' => quoted.push_str("\\v"),
            c if (c as u32) < 0x20 || c as u32 == 0x7f => {
                let _infallible = write!(quoted, "\\x{:02x}", c as u32);
            }
            c if c.is_control() || (c.is_whitespace() && c != ' ') || c == '\u{feff}' => {
                let _infallible = write!(quoted, "\\u{:04x}", c as u32);
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests;
