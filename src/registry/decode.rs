//! Typed decoding of request bodies: prunes what the type does not know, and says what and where.
//!
//! A `serde` deserializer over an owned JSON tree that keeps the path to the value at hand. It differs from
//! `serde_json`'s own in what the API demands: unknown fields are collected, an empty list is an absent list, a
//! quantity is brought to its canonical form, and a value of the wrong type is reported in the words that clients of
//! the Go implementation know.

use std::cell::RefCell;
use std::fmt;

use serde::de::{self, DeserializeSeed, IntoDeserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use crate::api::protobuf::ZERO_TIME;
use crate::registry::object::{Kind, Object};

/// A decoded body.
pub struct Decoded {
    /// The typed object.
    pub object: Box<dyn Object>,
    /// Paths of the fields that the type does not have, in document order.
    pub unknown: Vec<String>,
}

/// A value that does not fit the type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct TypeError(String);

impl de::Error for TypeError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self(message.to_string())
    }
}

/// Decodes `value` as `K`.
pub fn decode<K: Kind>(value: Value) -> Result<Decoded, TypeError> {
    let (object, unknown) = decode_any::<K>(value)?;
    Ok(Decoded { object: Box::new(object), unknown })
}

/// Decodes `value` as any type, with the paths of unknown fields.
pub fn decode_any<T: de::DeserializeOwned>(value: Value) -> Result<(T, Vec<String>), TypeError> {
    let unknown = RefCell::new(Vec::new());
    let object = T::deserialize(Tracker { value, at: At::Root, unknown: &unknown })?;
    Ok((object, unknown.into_inner()))
}

/// Where a value is.
#[derive(Clone, Copy)]
enum At<'a> {
    Root,
    Field { parent: &'a At<'a>, owner: &'static str, name: &'a str },
    Index { parent: &'a At<'a>, index: usize },
}

impl At<'_> {
    fn write(&self, out: &mut String, with_index: bool) {
        match self {
            Self::Root => {}
            Self::Field { parent, name, .. } => {
                parent.write(out, with_index);
                if !out.is_empty() {
                    out.push('.');
                }
                out.push_str(name);
            }
            Self::Index { parent, index } => {
                parent.write(out, with_index);
                if with_index {
                    out.push_str(&format!("[{index}]"));
                }
            }
        }
    }

    fn path(&self, with_index: bool) -> String {
        let mut out = String::new();
        self.write(&mut out, with_index);
        out
    }

    fn owner(&self) -> Option<&'static str> {
        match self {
            Self::Root => None,
            Self::Field { owner, parent, .. } => {
                if owner.is_empty() {
                    parent.owner()
                } else {
                    Some(owner)
                }
            }
            Self::Index { parent, .. } => parent.owner(),
        }
    }
}

/// Fills in the times that the Rust types cannot be without; written they are `null` again.
fn zero_time(kind: &str, map: &mut Map<String, Value>) {
    let field = match kind {
        "Condition" => "lastTransitionTime",
        "EventSeries" => "lastObservedTime",
        _ => return,
    };
    let time = map.entry(field).or_insert(Value::Null);
    if time.is_null() {
        *time = ZERO_TIME.into();
    }
}

/// Whether a time is the one that stands for none.
pub fn is_zero_time(time: &k8s_openapi::apimachinery::pkg::apis::meta::v1::Time) -> bool {
    time.0.to_string() == ZERO_TIME
}

struct Tracker<'a> {
    value: Value,
    at: At<'a>,
    unknown: &'a RefCell<Vec<String>>,
}

fn go_kind(value: &Value) -> String {
    match value {
        Value::Null => "null".into(),
        Value::Bool(_) => "bool".into(),
        Value::Number(n) if n.is_f64() => format!("number {n}"),
        Value::Number(_) => "number".into(),
        Value::String(_) => "string".into(),
        Value::Array(_) => "array".into(),
        Value::Object(_) => "object".into(),
    }
}

impl Tracker<'_> {
    fn wrong(&self, go_type: &str) -> TypeError {
        let found = go_kind(&self.value);
        TypeError(match self.at.owner() {
            Some(owner) => format!(
                "json: cannot unmarshal {found} into Go struct field {owner}.{} of type {go_type}",
                self.at.path(false)
            ),
            None => format!("json: cannot unmarshal {found} into Go value of type {go_type}"),
        })
    }

    fn integer<T>(&self, go_type: &str) -> Result<T, TypeError>
    where
        T: TryFrom<i64>,
    {
        let Value::Number(number) = &self.value else { return Err(self.wrong(go_type)) };
        number.as_i64().and_then(|n| T::try_from(n).ok()).ok_or_else(|| {
            let text = format!("number {number}");
            TypeError(self.wrong(go_type).0.replacen("number", &text, usize::from(!number.is_f64())))
        })
    }
}

macro_rules! integers {
    ($($method:ident $visit:ident $rust:ty, $go:literal;)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TypeError> {
            visitor.$visit(self.integer::<$rust>($go)?)
        }
    )*};
}

impl<'de> de::Deserializer<'de> for Tracker<'_> {
    type Error = TypeError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TypeError> {
        de::Deserializer::deserialize_any(self.value, visitor).map_err(|e| TypeError(e.to_string()))
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TypeError> {
        match self.value {
            Value::Bool(value) => visitor.visit_bool(value),
            _ => Err(self.wrong("bool")),
        }
    }

    integers! {
        deserialize_i8 visit_i8 i8, "int8";
        deserialize_i16 visit_i16 i16, "int16";
        deserialize_i32 visit_i32 i32, "int32";
        deserialize_i64 visit_i64 i64, "int64";
        deserialize_u8 visit_u8 u8, "uint8";
        deserialize_u16 visit_u16 u16, "uint16";
        deserialize_u32 visit_u32 u32, "uint32";
    }

    fn deserialize_u64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TypeError> {
        match self.value.as_u64() {
            Some(value) => visitor.visit_u64(value),
            None => Err(self.wrong("uint64")),
        }
    }

    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TypeError> {
        self.deserialize_f64(visitor)
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TypeError> {
        match self.value.as_f64() {
            Some(value) => visitor.visit_f64(value),
            None => Err(self.wrong("float64")),
        }
    }

    fn deserialize_char<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TypeError> {
        self.deserialize_string(visitor)
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TypeError> {
        self.deserialize_string(visitor)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TypeError> {
        match self.value {
            Value::String(value) => visitor.visit_string(value),
            _ => Err(self.wrong("string")),
        }
    }

    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TypeError> {
        self.deserialize_string(visitor)
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TypeError> {
        self.deserialize_string(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TypeError> {
        match &self.value {
            Value::Null => visitor.visit_none(),
            Value::Array(items) if items.is_empty() => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TypeError> {
        visitor.visit_unit()
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, TypeError> {
        visitor.visit_unit()
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, TypeError> {
        if name != "Quantity" {
            return visitor.visit_newtype_struct(self);
        }
        let text = match &self.value {
            Value::String(text) => text.clone(),
            Value::Number(number) => number.to_string(),
            _ => return Err(self.wrong("resource.Quantity")),
        };
        visitor.visit_string(text)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TypeError> {
        match self.value {
            Value::Array(items) => visitor.visit_seq(Items {
                items: items.into_iter(),
                index: 0,
                at: &self.at,
                unknown: self.unknown,
            }),
            _ => Err(self.wrong("[]interface {}")),
        }
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, TypeError> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: usize,
        visitor: V,
    ) -> Result<V::Value, TypeError> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TypeError> {
        match self.value {
            Value::Object(map) => visitor.visit_map(Fields::new(map, &self.at, "", self.unknown)),
            _ => Err(self.wrong("map[string]string")),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, TypeError> {
        match self.value {
            Value::Object(mut map) => {
                zero_time(name, &mut map);
                visitor.visit_map(Fields::new(map, &self.at, name, self.unknown))
            }
            _ => Err(self.wrong(&format!("v1.{name}"))),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, TypeError> {
        self.value.deserialize_enum(name, variants, visitor).map_err(|e| TypeError(e.to_string()))
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TypeError> {
        self.deserialize_string(visitor)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TypeError> {
        self.unknown.borrow_mut().push(self.at.path(true));
        visitor.visit_unit()
    }
}

struct Items<'a> {
    items: std::vec::IntoIter<Value>,
    index: usize,
    at: &'a At<'a>,
    unknown: &'a RefCell<Vec<String>>,
}

impl<'de> SeqAccess<'de> for Items<'_> {
    type Error = TypeError;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, TypeError> {
        let Some(value) = self.items.next() else { return Ok(None) };
        let at = At::Index { parent: self.at, index: self.index };
        self.index += 1;
        seed.deserialize(Tracker { value, at, unknown: self.unknown }).map(Some)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.items.len())
    }
}

struct Fields<'a> {
    fields: serde_json::map::IntoIter,
    current: Option<(String, Value)>,
    at: &'a At<'a>,
    owner: &'static str,
    unknown: &'a RefCell<Vec<String>>,
}

impl<'a> Fields<'a> {
    fn new(
        map: Map<String, Value>,
        at: &'a At<'a>,
        owner: &'static str,
        unknown: &'a RefCell<Vec<String>>,
    ) -> Self {
        Self { fields: map.into_iter(), current: None, at, owner, unknown }
    }
}

impl<'de> MapAccess<'de> for Fields<'_> {
    type Error = TypeError;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, TypeError> {
        let Some((key, value)) = self.fields.next() else { return Ok(None) };
        let result = if self.owner.is_empty() {
            seed.deserialize(key.clone().into_deserializer())
        } else {
            seed.deserialize(key.as_str().into_deserializer())
        };
        self.current = Some((key, value));
        result.map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, TypeError> {
        let (name, value) = self.current.take().unwrap_or_default();
        let at = At::Field { parent: self.at, owner: self.owner, name: &name };
        seed.deserialize(Tracker { value, at, unknown: self.unknown })
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.fields.len())
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::apps::v1::Deployment;
    use k8s_openapi::api::core::v1::Pod;
    use serde_json::json;

    use super::*;

    #[test]
    fn unknown_fields_are_named_by_path() {
        let value = json!({"kind": "Pod", "foo": 1, "spec": {"bar": null,
            "containers": [{"name": "a"}, {"name": "b", "imag": "x"}]}});
        let (pod, unknown) = decode_any::<Pod>(value).unwrap();
        assert_eq!(unknown, ["foo", "spec.bar", "spec.containers[1].imag"]);
        assert_eq!(pod.spec.unwrap().containers.len(), 2);
    }

    #[test]
    fn wrong_types_are_reported_as_go_does() {
        let error = |value| decode_any::<Deployment>(value).unwrap_err().to_string();
        assert_eq!(
            error(json!({"spec": {"replicas": "3"}})),
            "json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32"
        );
        let env =
            json!({"spec": {"template": {"spec": {"containers": [{"env": [{"name": "a", "value": 1}]}]}}}});
        assert_eq!(
            error(env),
            "json: cannot unmarshal number into Go struct field EnvVar.spec.template.spec.containers.env.value \
             of type string"
        );
        assert_eq!(
            error(json!({"spec": {"replicas": 3_000_000_000_u64}})),
            "json: cannot unmarshal number 3000000000 into Go struct field DeploymentSpec.spec.replicas of type int32"
        );
        assert_eq!(
            error(json!({"spec": "x"})),
            "json: cannot unmarshal string into Go struct field Deployment.spec of type v1.DeploymentSpec"
        );
    }

    #[test]
    fn quantities_are_canonical_and_numbers_are_accepted() {
        let value = json!({"spec": {"containers": [{"name": "a",
            "resources": {"limits": {"cpu": 1, "memory": "1024Mi"}, "requests": {"cpu": "0.5"}}}]}});
        let (pod, _) = decode_any::<Pod>(value).unwrap();
        let resources = pod.spec.unwrap().containers[0].resources.clone().unwrap();
        assert_eq!(resources.limits.as_ref().unwrap()["cpu"].0, "1");
    }

    #[test]
    fn a_condition_without_its_time_has_the_time_that_stands_for_none() {
        use k8s_openapi::api::core::v1::Service;
        for condition in
            [json!({"type": "A", "status": "True"}), json!({"type": "A", "lastTransitionTime": null})]
        {
            let (service, _) = decode_any::<Service>(json!({"status": {"conditions": [condition]}})).unwrap();
            let conditions = service.status.unwrap().conditions.unwrap();
            assert!(is_zero_time(&conditions[0].last_transition_time));
            let written = serde_json::to_value(&conditions[0]).unwrap();
            assert_eq!(written["lastTransitionTime"], ZERO_TIME);
        }
    }

    #[test]
    fn empty_lists_and_nulls_are_absent() {
        let value =
            json!({"metadata": {"finalizers": [], "creationTimestamp": null}, "spec": {"containers": null}});
        let (pod, unknown) = decode_any::<Pod>(value).unwrap();
        assert_eq!(pod.metadata.finalizers, None);
        assert!(unknown.is_empty());
    }
}
