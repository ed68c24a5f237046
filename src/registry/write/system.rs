//! The metadata that only the server writes.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;
use rand::Rng;
use serde_json::Value;

const SUFFIX_ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
const SUFFIX_LEN: usize = 5;
const MAX_GENERATED: usize = 63 - SUFFIX_LEN;

/// The present moment as timestamps in metadata show it.
pub fn now() -> Time {
    let seconds = Timestamp::now().as_second();
    Time(Timestamp::from_second(seconds).unwrap_or(Timestamp::UNIX_EPOCH))
}

/// A name made from `generateName`.
pub fn generate_name(prefix: &str) -> String {
    let mut end = prefix.len().min(MAX_GENERATED);
    while !prefix.is_char_boundary(end) {
        end -= 1;
    }
    let mut name = prefix[..end].to_owned();
    let mut rng = rand::rng();
    for _ in 0..SUFFIX_LEN {
        name.push(SUFFIX_ALPHABET[rng.random_range(0..SUFFIX_ALPHABET.len())].into());
    }
    name
}

/// Sets what a new object's metadata starts with.
pub fn fill_new(meta: &mut ObjectMeta) {
    meta.creation_timestamp = Some(now());
    meta.uid = Some(uuid::Uuid::new_v4().to_string());
    meta.self_link = None;
    meta.resource_version = None;
    meta.deletion_timestamp = None;
    meta.deletion_grace_period_seconds = None;
    meta.generation = None;
}

/// Restores what an update of metadata may not touch.
pub fn restore(meta: &mut ObjectMeta, old: &ObjectMeta) {
    meta.resource_version = None;
    meta.self_link = None;
    meta.generation = old.generation;
    meta.creation_timestamp.clone_from(&old.creation_timestamp);
    if meta.uid.as_deref().is_none_or(str::is_empty) {
        meta.uid.clone_from(&old.uid);
    }
    if meta.namespace.as_deref().is_none_or(str::is_empty) {
        meta.namespace.clone_from(&old.namespace);
    }
    if old.deletion_timestamp.is_some() {
        meta.deletion_timestamp.clone_from(&old.deletion_timestamp);
    }
    if meta.deletion_grace_period_seconds.is_none() {
        meta.deletion_grace_period_seconds = old.deletion_grace_period_seconds;
    }
}

/// Whether anything but metadata and status differs: what `metadata.generation` counts.
pub fn spec_differs(new: &Value, old: &Value) -> bool {
    let (Value::Object(new), Value::Object(old)) = (new, old) else { return new != old };
    let counts = |key: &str| key != "metadata" && key != "status";
    new.iter().any(|(key, value)| counts(key) && old.get(key) != Some(value))
        || old.keys().any(|key| counts(key) && !new.contains_key(key))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn generated_names_fit_a_label_and_keep_the_prefix() {
        let name = generate_name(&"x".repeat(100));
        assert_eq!(name.len(), 63);
        let name = generate_name("web-");
        assert!(name.starts_with("web-") && name.len() == 9, "{name}");
        assert!(name[4..].bytes().all(|b| SUFFIX_ALPHABET.contains(&b)));
    }

    #[test]
    fn only_the_spec_counts_for_generation() {
        let old = json!({"metadata": {"a": 1}, "spec": {"x": 1}, "status": {"y": 1}});
        let cases = [
            (json!({"metadata": {"a": 2}, "spec": {"x": 1}, "status": {"y": 2}}), false),
            (json!({"metadata": {"a": 1}, "spec": {"x": 2}, "status": {"y": 1}}), true),
            (json!({"metadata": {"a": 1}, "status": {"y": 1}}), true),
            (json!({"metadata": {"a": 1}, "spec": {"x": 1}, "data": {}}), true),
        ];
        for (new, expected) in cases {
            assert_eq!(spec_differs(&new, &old), expected, "{new}");
        }
    }
}
