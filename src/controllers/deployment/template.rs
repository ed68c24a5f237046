//! Pod templates of a deployment's ReplicaSets: equality, hash and name.

use k8s_openapi::api::core::v1::PodTemplateSpec;

/// Label that tells the pods of one template from those of another.
pub const HASH_LABEL: &str = "pod-template-hash";

/// Characters of generated names: no vowels and nothing that looks like one, so that no words come out.
const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

/// Whether both templates describe the same pods; the hash label does not count.
pub fn same(a: &PodTemplateSpec, b: &PodTemplateSpec) -> bool {
    a.spec == b.spec && normal(a) == normal(b)
}

fn normal(template: &PodTemplateSpec) -> k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta {
    let mut meta = template.metadata.clone().unwrap_or_default();
    meta.creation_timestamp = None;
    if let Some(labels) = &mut meta.labels {
        labels.remove(HASH_LABEL);
    }
    meta.labels = meta.labels.filter(|labels| !labels.is_empty());
    meta.annotations = meta.annotations.filter(|annotations| !annotations.is_empty());
    meta
}

/// A short name for the template, different for each collision count.
///
/// The hash only names; which ReplicaSet belongs to a template is decided by [`same`].
pub fn hash(template: &PodTemplateSpec, collision_count: i32) -> String {
    let bytes = serde_json::to_vec(template).unwrap_or_default();
    let mut hash = fnv1a(0x811c_9dc5, &bytes);
    if collision_count != 0 {
        hash = fnv1a(hash, &collision_count.to_le_bytes());
    }
    safe_encode(&hash.to_string())
}

fn fnv1a(seed: u32, bytes: &[u8]) -> u32 {
    bytes.iter().fold(seed, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

fn safe_encode(text: &str) -> String {
    text.bytes().map(|b| char::from(ALPHABET[usize::from(b) % ALPHABET.len()])).collect()
}

/// The name of the ReplicaSet for a template with this hash.
pub fn set_name(deployment: &str, hash: &str) -> String {
    format!("{deployment}-{hash}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn template(image: &str, labels: serde_json::Value) -> PodTemplateSpec {
        serde_json::from_value(json!({
            "metadata": {"labels": labels},
            "spec": {"containers": [{"name": "c", "image": image}]},
        }))
        .unwrap()
    }

    #[test]
    fn the_hash_label_does_not_make_templates_differ() {
        let plain = template("a", json!({"app": "web"}));
        assert!(same(&plain, &template("a", json!({"app": "web", "pod-template-hash": "x"}))));
        assert!(!same(&plain, &template("b", json!({"app": "web"}))));
        assert!(!same(&plain, &template("a", json!({"app": "db"}))));
        assert!(same(&template("a", json!({})), &template("a", json!({"pod-template-hash": "x"}))));
    }

    #[test]
    fn hashes_are_stable_and_safe_and_move_on_collision() {
        let (a, b) = (template("a", json!({})), template("b", json!({})));
        assert_eq!(hash(&a, 0), hash(&a, 0));
        let all = [hash(&a, 0), hash(&b, 0), hash(&a, 1), hash(&a, 2)];
        for (i, one) in all.iter().enumerate() {
            assert!(one.bytes().all(|c| ALPHABET.contains(&c)) && (1..=10).contains(&one.len()), "{one}");
            assert!(!all[..i].contains(one), "{one}");
        }
    }
}
