//! Decoding JSON into a `Value`, finding duplicate fields on the way.
//!
//! Whole numbers that fit an `i64` stay whole, all others become floating-point numbers, the last of duplicate
//! fields wins, and nesting is limited. [`Collect`] does the same for any serde format, which YAML uses.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeOwned, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::error::ApiError;

/// The deepest nesting of maps and lists.
pub const MAX_DEPTH: usize = 127;

/// A decoded document and the paths of the fields that it gives more than once, such as `spec.replicas`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Decoded {
    /// The document.
    pub value: Value,
    /// The paths of duplicate fields, each once, in the order in which they were found.
    pub duplicates: Vec<String>,
}

/// Why a document cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The text is not JSON.
    #[error("json parse error: {0}")]
    Json(String),
    /// The text is not YAML, or more than one document.
    #[error("yaml parse error: {0}")]
    Yaml(String),
    /// Maps and lists are nested too deeply.
    #[error("exceeded max depth")]
    Depth,
    /// There is nothing.
    #[error("unexpected end of input: the document is empty")]
    Empty,
}

impl From<DecodeError> for ApiError {
    fn from(error: DecodeError) -> Self {
        ApiError::bad_request(format!("couldn't get version/kind; {error}"))
    }
}

/// Decodes one JSON document.
pub fn decode(bytes: &[u8]) -> Result<Decoded, DecodeError> {
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Err(DecodeError::Empty);
    }
    let mut decoder = serde_json::Deserializer::from_slice(bytes);
    let mut duplicates = Vec::new();
    let value = Collect { duplicates: &mut duplicates, depth: MAX_DEPTH }
        .deserialize(&mut decoder)
        .and_then(|value| decoder.end().map(|()| value))
        .map_err(|error| explain(&error))?;
    Ok(Decoded { value, duplicates })
}

/// Decodes JSON as a type of the API.
///
/// All such decoding goes through here, from text as `kube` does it: the code that reads a type is made anew for every kind
/// of source, and all types together are megabytes of it.
pub fn typed<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, serde_json::Error> {
    serde_json::from_str(std::str::from_utf8(bytes).map_err(serde::de::Error::custom)?)
}

/// Decodes a tree as a type of the API; for what is not done for every request.
pub fn typed_value<T: DeserializeOwned>(value: &Value) -> Result<T, serde_json::Error> {
    serde_json::from_str(&serde_json::to_string(value)?)
}

fn explain(error: &serde_json::Error) -> DecodeError {
    let text = error.to_string();
    if text.contains("recursion limit exceeded") || text.contains(TOO_DEEP) {
        DecodeError::Depth
    } else {
        DecodeError::Json(text)
    }
}

pub(super) const TOO_DEEP: &str = "nested too deeply";

/// Builds a `Value` and collects the paths of duplicate fields.
pub(super) struct Collect<'a> {
    pub(super) duplicates: &'a mut Vec<String>,
    pub(super) depth: usize,
}

impl Collect<'_> {
    fn below<E: serde::de::Error>(&mut self) -> Result<Collect<'_>, E> {
        let depth = self.depth.checked_sub(1).ok_or_else(|| E::custom(TOO_DEEP))?;
        Ok(Collect { duplicates: self.duplicates, depth })
    }

    /// Puts `step` before the paths found since there were `known`.
    fn prefix(&mut self, known: usize, step: &str) {
        for path in &mut self.duplicates[known..] {
            let dot = if path.starts_with('[') { "" } else { "." };
            *path = format!("{step}{dot}{path}");
        }
    }
}

impl<'de> DeserializeSeed<'de> for Collect<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Collect<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Value, E> {
        match i64::try_from(value) {
            Ok(value) => self.visit_i64(value),
            Err(_) => self.visit_f64(value as f64),
        }
    }

    fn visit_i128<E: serde::de::Error>(self, value: i128) -> Result<Value, E> {
        self.visit_f64(value as f64)
    }

    fn visit_u128<E: serde::de::Error>(self, value: u128) -> Result<Value, E> {
        self.visit_f64(value as f64)
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("number out of range"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        self.deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut access: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        loop {
            let known = self.duplicates.len();
            let Some(item) = access.next_element_seed(self.below()?)? else { return Ok(Value::Array(list)) };
            if self.duplicates.len() > known {
                self.prefix(known, &format!("[{}]", list.len()));
            }
            list.push(item);
        }
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut access: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = access.next_key_seed(Key)? {
            let known = self.duplicates.len();
            let value = access.next_value_seed(self.below()?)?;
            if self.duplicates.len() > known {
                self.prefix(known, &key);
            }
            // A key that is there already is rare; only then is a second copy of it needed.
            if map.contains_key(&*key) && !self.duplicates.iter().any(|path| *path == *key) {
                self.duplicates.push(key.clone().into_owned());
            }
            map.insert(key.into_owned(), value);
        }
        Ok(Value::Object(map))
    }
}

/// A map's key: YAML allows any scalar, and its text is the field's name.
struct Key;

impl<'de> DeserializeSeed<'de> for Key {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Key {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a field's name")
    }

    fn visit_borrowed_str<E>(self, value: &'de str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Self::Value, E> {
        Ok(Cow::Owned(value))
    }
}

#[cfg(test)]
mod tests;
