//! Objects at rest: canonical JSON with `apiVersion`, `kind` and `metadata` first and no resourceVersion.

use bytes::Bytes;
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::{Map, Value};

use crate::store::Revision;

const FIRST: [&str; 3] = ["apiVersion", "kind", "metadata"];
const METADATA: &[u8] = br#""metadata":{"#;

struct Canonical<'a>(&'a Map<String, Value>);

impl Serialize for Canonical<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for key in FIRST {
            if let Some(value) = self.0.get(key) {
                map.serialize_entry(key, value)?;
            }
        }
        for (key, value) in self.0.iter().filter(|(key, _)| !FIRST.contains(&key.as_str())) {
            map.serialize_entry(key, value)?;
        }
        map.end()
    }
}

/// The canonical bytes of an object.
pub fn canonical(object: &Value) -> Result<Bytes, serde_json::Error> {
    let mut out = Vec::with_capacity(1024);
    match object {
        Value::Object(map) => serde_json::to_writer(&mut out, &Canonical(map))?,
        other => serde_json::to_writer(&mut out, other)?,
    }
    Ok(out.into())
}

/// The bytes that a client sees: canonical bytes with the resourceVersion put into the metadata.
pub fn with_revision(canonical: &[u8], revision: Revision) -> Bytes {
    let Some(at) = find(canonical, METADATA) else { return Bytes::copy_from_slice(canonical) };
    let at = at + METADATA.len();
    let empty = canonical.get(at) == Some(&b'}');
    let field = format!("\"resourceVersion\":\"{revision}\"{}", if empty { "" } else { "," });
    let mut out = Vec::with_capacity(canonical.len() + field.len());
    out.extend_from_slice(&canonical[..at]);
    out.extend_from_slice(field.as_bytes());
    out.extend_from_slice(&canonical[at..]);
    out.into()
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn identity_comes_first_and_the_revision_is_spliced_in() {
        let object = json!({"data": {"metadata": {"a": "b"}}, "metadata": {"name": "x"}, "kind": "K", "apiVersion": "v1"});
        let bytes = canonical(&object).unwrap();
        assert_eq!(
            std::str::from_utf8(&bytes).unwrap(),
            r#"{"apiVersion":"v1","kind":"K","metadata":{"name":"x"},"data":{"metadata":{"a":"b"}}}"#
        );
        assert_eq!(
            std::str::from_utf8(&with_revision(&bytes, Revision(7))).unwrap(),
            r#"{"apiVersion":"v1","kind":"K","metadata":{"resourceVersion":"7","name":"x"},"data":{"metadata":{"a":"b"}}}"#
        );
    }

    #[test]
    fn empty_metadata_stays_valid_json() {
        let bytes = with_revision(br#"{"kind":"K","metadata":{}}"#, Revision(7));
        assert_eq!(&bytes[..], br#"{"kind":"K","metadata":{"resourceVersion":"7"}}"#);
    }
}
