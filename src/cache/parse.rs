//! From the stored bytes to an [`Object`]: one pass over the JSON that builds no tree.
//!
//! The stored bytes lack `metadata.resourceVersion`; it is spliced in as the first member of `metadata`.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::fields::{FieldSet, Node};
use super::object::Object;
use super::texts::Texts;
use crate::store::Revision;

const MEMBER: &str = "\"resourceVersion\":\"";

/// Why stored bytes are no object.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ParseError {
    /// Not JSON, or not of the shape of an object.
    #[error("decode the stored object")]
    Decode(#[from] serde_json::Error),
    /// Not text: clients could not read it either.
    #[error("decode the stored object")]
    Utf8(#[from] std::str::Utf8Error),
    /// `metadata` is missing.
    #[error("the stored object has no metadata")]
    NoMetadata,
}

/// Makes the object that is stored as `value` under `key` (relative to the prefix of its resource).
pub(crate) fn parse(
    key: Arc<str>,
    value: &Bytes,
    revision: Revision,
    names: &Arc<FieldSet>,
) -> Result<Object, ParseError> {
    let mut found = Found::new(names);
    let text = std::str::from_utf8(value)?;
    let metadata = read_root(text, names.root(), &mut found)?.ok_or(ParseError::NoMetadata)?;
    let at = metadata.get().as_ptr() as usize - value.as_ptr() as usize;
    read_metadata(metadata.get(), names.root().child("metadata"), &mut found)?;
    if found.has_revision {
        return parse(key, &without_revision(value)?, revision, names);
    }
    let (json, revision_at) = splice(value, at, revision);
    Ok(Object {
        namespace_len: key.find('/').unwrap_or(0) as u32,
        key,
        revision_at: revision_at as u32,
        revision,
        names: Arc::clone(names),
        texts: found.texts(names),
        json,
    })
}

/// `value` with the revision as first member of the `metadata` that begins at `at`; and where its digits begin.
fn splice(value: &[u8], at: usize, revision: Revision) -> (Bytes, usize) {
    let (head, tail) = value.split_at(at + 1);
    let empty = tail.iter().find(|b| !b.is_ascii_whitespace()) == Some(&b'}');
    let digits = revision.to_string();
    let mut json = Vec::with_capacity(value.len() + MEMBER.len() + digits.len() + 2);
    json.extend_from_slice(head);
    json.extend_from_slice(MEMBER.as_bytes());
    let revision_at = json.len();
    json.extend_from_slice(digits.as_bytes());
    json.extend_from_slice(if empty { b"\"" } else { b"\"," });
    json.extend_from_slice(tail);
    (Bytes::from(json.into_boxed_slice()), revision_at)
}

/// `json` with other digits at `at`.
pub(super) fn replace_revision(json: &[u8], at: usize, old: Revision, new: Revision) -> Bytes {
    let (digits, end) = (new.to_string(), at + old.to_string().len());
    let mut out = Vec::with_capacity(json.len() + digits.len());
    out.extend_from_slice(&json[..at]);
    out.extend_from_slice(digits.as_bytes());
    out.extend_from_slice(&json[end..]);
    Bytes::from(out.into_boxed_slice())
}

/// For values that hold a resourceVersion although they should not (written by another program).
fn without_revision(value: &[u8]) -> Result<Bytes, serde_json::Error> {
    let mut tree: serde_json::Value = serde_json::from_slice(value)?;
    if let Some(metadata) = tree.get_mut("metadata").and_then(|m| m.as_object_mut()) {
        metadata.remove("resourceVersion");
    }
    Ok(serde_json::to_vec(&tree)?.into())
}

/// What has been found so far.
struct Found {
    uid: Box<str>,
    labels: Vec<(Box<str>, Box<str>)>,
    /// For each selectable field the rank of the path it was found at, and its value.
    fields: Vec<Option<(usize, Box<str>)>>,
    has_revision: bool,
}

impl Found {
    fn new(names: &FieldSet) -> Self {
        let fields = names.iter().map(|_| None).collect();
        Self { uid: "".into(), labels: Vec::new(), fields, has_revision: false }
    }

    /// All of it as an [`Object`] keeps it.
    fn texts(mut self, names: &FieldSet) -> Texts {
        self.labels.sort();
        let fields = self.fields.iter().zip(names.iter());
        let fields = fields.map(|(found, field)| found.as_ref().map_or(&*field.default, |(_, value)| value));
        let labels = self.labels.iter().flat_map(|(key, value)| [&**key, &**value]);
        Texts::new(std::iter::once(&*self.uid).chain(fields).chain(labels))
    }

    fn offer(&mut self, node: &Node, value: &str) {
        for &(field, rank) in node.fields() {
            let better = self.fields[field].as_ref().is_none_or(|(r, _)| rank < *r);
            if better && !value.is_empty() {
                self.fields[field] = Some((rank, value.into()));
            }
        }
    }
}

#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

fn read_root<'de>(
    value: &'de str,
    node: &Node,
    found: &mut Found,
) -> Result<Option<&'de RawValue>, serde_json::Error> {
    struct Root<'f>(&'f Node, &'f mut Found);
    impl<'de> Visitor<'de> for Root<'_> {
        type Value = Option<&'de RawValue>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut metadata = None;
            while let Some(Text(key)) = map.next_key()? {
                if key == "metadata" {
                    metadata = Some(map.next_value()?);
                } else {
                    map.next_value_seed(Walk { node: self.0.child(&key), found: self.1 })?;
                }
            }
            Ok(metadata)
        }
    }
    let mut json = serde_json::Deserializer::from_str(value);
    let metadata = json.deserialize_map(Root(node, found))?;
    json.end()?;
    Ok(metadata)
}

fn read_metadata(text: &str, node: Option<&Node>, found: &mut Found) -> Result<(), serde_json::Error> {
    struct Metadata<'f>(Option<&'f Node>, &'f mut Found);
    impl<'de> Visitor<'de> for Metadata<'_> {
        type Value = ();

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("metadata")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
            let Self(node, found) = self;
            while let Some(Text(key)) = map.next_key()? {
                match &*key {
                    "uid" => found.uid = map.next_value::<Text<'_>>()?.0.into(),
                    "labels" => {
                        found.labels = map.next_value::<Option<Labels>>()?.map_or_else(Vec::new, |l| l.0)
                    }
                    "resourceVersion" => {
                        found.has_revision = true;
                        map.next_value::<IgnoredAny>()?;
                    }
                    other => {
                        let node = node.and_then(|n| n.child(other));
                        map.next_value_seed(Walk { node, found })?;
                    }
                }
            }
            Ok(())
        }
    }
    serde_json::Deserializer::from_str(text).deserialize_map(Metadata(node, found))
}

struct Labels(Vec<(Box<str>, Box<str>)>);

impl<'de> Deserialize<'de> for Labels {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs;
        impl<'de> Visitor<'de> for Pairs {
            type Value = Labels;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("labels")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Labels, A::Error> {
                let mut pairs = Vec::new();
                while let Some((Text(key), Text(value))) = map.next_entry()? {
                    pairs.push((key.into(), value.into()));
                }
                Ok(Labels(pairs))
            }
        }
        deserializer.deserialize_map(Pairs)
    }
}

/// Follows the paths below `node` and skips everything else.
struct Walk<'f> {
    node: Option<&'f Node>,
    found: &'f mut Found,
}

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        match self.node {
            None => IgnoredAny::deserialize(deserializer).map(drop),
            Some(_) => deserializer.deserialize_any(self),
        }
    }
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(Text(key)) = map.next_key()? {
            let node = self.node.and_then(|n| n.child(&key));
            map.next_value_seed(Walk { node, found: self.found })?;
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(())
    }

    fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<(), E> {
        if let Some(node) = self.node {
            self.found.offer(node, value);
        }
        Ok(())
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<(), E> {
        self.visit_str(if value { "true" } else { "false" })
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<(), E> {
        self.visit_str(&value.to_string())
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<(), E> {
        self.visit_str(&value.to_string())
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<(), E> {
        self.visit_str(&value.to_string())
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<(), E> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::SelectableField;

    fn names() -> Arc<FieldSet> {
        Arc::new(FieldSet::new(vec![
            SelectableField::at("spec.nodeName"),
            SelectableField::at("spec.hostNetwork").or("false"),
            SelectableField::at("source").also_at("reporter.name"),
            SelectableField::at("status.count"),
        ]))
    }

    fn object(key: &str, value: &str) -> Result<Object, ParseError> {
        parse(key.into(), &Bytes::copy_from_slice(value.as_bytes()), Revision(77), &names())
    }

    #[test]
    fn the_revision_is_spliced_into_whatever_metadata_looks_like() {
        for (stored, served) in [
            (
                r#"{"metadata":{"name":"x"},"a":1}"#,
                r#"{"metadata":{"resourceVersion":"77","name":"x"},"a":1}"#,
            ),
            (r#"{"metadata":{}}"#, r#"{"metadata":{"resourceVersion":"77"}}"#),
            (
                r#"{"a":{"metadata":{}},"metadata": { }}"#,
                r#"{"a":{"metadata":{}},"metadata": {"resourceVersion":"77" }}"#,
            ),
            (r#"{"metadata":{"name":"{\"}"}}"#, r#"{"metadata":{"resourceVersion":"77","name":"{\"}"}}"#),
            (
                r#"{"metadata":{"resourceVersion":"3","uid":"u"}}"#,
                r#"{"metadata":{"resourceVersion":"77","uid":"u"}}"#,
            ),
        ] {
            let object = object("ns/x", stored).unwrap();
            assert_eq!(object.json(), served.as_bytes());
            let moved = object.with_revision(Revision(123456));
            assert_eq!(moved.json(), served.replace("\"77\"", "\"123456\"").as_bytes());
            assert_eq!(moved.revision(), Revision(123456));
            assert_eq!(moved.with_revision(Revision(77)).json(), object.json());
        }
    }

    #[test]
    fn bytes_that_are_no_text_are_no_object_even_where_nobody_looks() {
        let value = Bytes::from_static(b"{\"metadata\":{\"name\":\"x\"},\"data\":{\"a\":\"\xff\"}}");
        assert!(matches!(parse("ns/x".into(), &value, Revision(1), &names()), Err(ParseError::Utf8(_))));
    }

    #[test]
    fn metadata_and_selectable_fields_are_found() {
        let object = object(
            "ns/web-1",
            r#"{"spec":{"deep":[{"nodeName":"no"}],"nodeName":"n\u0031","hostNetwork":true},
                "reporter":{"name":"kubelet"},"source":null,"status":{"count":3,"other":{}},
                "metadata":{"uid":"u-1","labels":{"b":"2","a":"\"1\""},"annotations":{"uid":"no"}}}"#,
        )
        .unwrap();
        assert_eq!((object.namespace(), object.name(), object.uid()), ("ns", "web-1", "u-1"));
        assert_eq!(object.labels().collect::<Vec<_>>(), [("a", "\"1\""), ("b", "2")]);
        assert_eq!((object.label("b"), object.label("c")), (Some("2"), None));
        for (field, value) in [
            ("metadata.name", Some("web-1")),
            ("metadata.namespace", Some("ns")),
            ("spec.nodeName", Some("n1")),
            ("spec.hostNetwork", Some("true")),
            ("source", Some("kubelet")),
            ("status.count", Some("3")),
            ("spec.unknown", None),
        ] {
            assert_eq!(object.field(field), value, "{field}");
        }
    }

    #[test]
    fn what_an_object_does_not_say_has_the_default() {
        let object =
            object("x", r#"{"metadata":{"labels":null},"spec":{"nodeName":{"a":"b"}},"status":[1]}"#)
                .unwrap();
        assert_eq!((object.namespace(), object.name(), object.uid()), ("", "x", ""));
        assert_eq!(object.labels().count(), 0);
        assert_eq!(object.field("spec.hostNetwork"), Some("false"));
        assert_eq!(object.field("spec.nodeName"), Some(""));
    }

    #[test]
    fn the_first_path_wins_wherever_it_stands() {
        for text in [
            r#"{"metadata":{},"source":"a","reporter":{"name":"b"}}"#,
            r#"{"reporter":{"name":"b"},"source":"a","metadata":{}}"#,
        ] {
            assert_eq!(object("x", text).unwrap().field("source"), Some("a"));
        }
    }

    #[test]
    fn damaged_values_are_errors() {
        for text in ["", "{", "[]", "3", "{}", r#"{"metadata":3}"#, r#"{"metadata":{}} x"#, "\u{0}"] {
            assert!(object("x", text).is_err(), "{text:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            parse("a/b".into(), &bytes.into(), Revision(1), &names()).ok();
        }
    }
}
