//! Subresources that write a part of the object: each takes from the proposal its own fields and nothing else.

use serde_json::{Map, Value};

/// `status`: the status and the metadata, save the owners.
pub fn status(value: &mut Value, old: &Value) {
    let status = value.get_mut("status").map(Value::take);
    let metadata = value.get_mut("metadata").map(Value::take);
    let mut result = old.clone();
    if let Value::Object(map) = &mut result {
        match status {
            Some(status) => map.insert("status".into(), status),
            None => map.remove("status"),
        };
        if let Some(mut metadata) = metadata {
            copy(&mut metadata, old.get("metadata"), "ownerReferences");
            map.insert("metadata".into(), metadata);
        }
    }
    *value = result;
}

/// The other parts, by name.
pub fn restrict(part: &str, value: &mut Value, old: &Value) {
    let proposal = std::mem::replace(value, old.clone());
    copy_version(value, &proposal);
    match part {
        "scale" => set(value, &["spec", "replicas"], pick(&proposal, &["spec", "replicas"])),
        // The server itself makes the proposal.
        "binding" => *value = proposal,
        "finalize" => {
            copy_marks(value, &proposal);
            set(value, &["spec", "finalizers"], pick(&proposal, &["spec", "finalizers"]));
        }
        "approval" => {
            copy_marks(value, &proposal);
            set(value, &["status", "conditions"], pick(&proposal, &["status", "conditions"]));
        }
        "ephemeralcontainers" => {
            set(value, &["spec", "ephemeralContainers"], pick(&proposal, &["spec", "ephemeralContainers"]));
        }
        "resize" => {
            resize(value, &proposal, "containers");
            resize(value, &proposal, "initContainers");
        }
        _ => {}
    }
}

/// What anybody who writes a part may mark the object with.
fn copy_marks(value: &mut Value, proposal: &Value) {
    let Some(metadata) = value.get_mut("metadata") else { return };
    for field in ["labels", "annotations", "finalizers"] {
        copy(metadata, proposal.get("metadata"), field);
    }
}

/// The optimistic lock and the field ownership come from the proposal.
fn copy_version(value: &mut Value, proposal: &Value) {
    for field in ["resourceVersion", "managedFields", "uid"] {
        if let Some(found) = pick(proposal, &["metadata", field]) {
            set(value, &["metadata", field], Some(found));
        }
    }
}

fn copy(into: &mut Value, from: Option<&Value>, field: &str) {
    let Value::Object(map) = into else { return };
    match from.and_then(|from| from.get(field)) {
        Some(value) => map.insert(field.into(), value.clone()),
        None => map.remove(field),
    };
}

fn pick(value: &Value, path: &[&str]) -> Option<Value> {
    path.iter().try_fold(value, |value, key| value.get(key)).cloned()
}

fn set(value: &mut Value, path: &[&str], new: Option<Value>) {
    let Some((last, parents)) = path.split_last() else { return };
    let mut at = value;
    for key in parents {
        let Value::Object(map) = at else { return };
        at = map.entry(*key).or_insert_with(|| Value::Object(Map::new()));
    }
    if let Value::Object(map) = at {
        match new {
            Some(new) => map.insert((*last).into(), new),
            None => map.remove(*last),
        };
    }
}

fn resize(value: &mut Value, proposal: &Value, list: &str) {
    let proposed =
        proposal.pointer(&format!("/spec/{list}")).and_then(Value::as_array).cloned().unwrap_or_default();
    let Some(Value::Array(containers)) = value.pointer_mut(&format!("/spec/{list}")) else { return };
    for container in containers {
        let Some(new) = proposed.iter().find(|new| new.get("name") == container.get("name")) else {
            continue;
        };
        for field in ["resources", "resizePolicy"] {
            copy(container, Some(new), field);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn status_takes_status_and_metadata_but_not_owners() {
        let old =
            json!({"metadata": {"name": "a", "ownerReferences": [1]}, "spec": {"x": 1}, "status": {"y": 1}});
        let mut new =
            json!({"metadata": {"name": "a", "labels": {"l": "v"}}, "spec": {"x": 2}, "status": {"y": 2}});
        status(&mut new, &old);
        assert_eq!(
            new,
            json!({"metadata": {"name": "a", "labels": {"l": "v"}, "ownerReferences": [1]}, "spec": {"x": 1},
                "status": {"y": 2}})
        );
    }

    #[test]
    fn parts_take_their_own_fields() {
        let old = json!({"metadata": {"name": "a"}, "spec": {"finalizers": ["kubernetes"],
            "containers": [{"name": "c", "image": "i"}]}, "status": {"certificate": "x"}});
        let proposal = json!({"metadata": {"name": "b", "resourceVersion": "3"}, "spec": {"finalizers": [],
            "containers": [{"name": "c", "image": "j", "resources": {"limits": {"cpu": "1"}}}],
            "ephemeralContainers": [{"name": "e"}]}, "status": {"conditions": [1]}});
        let run = |part| {
            let mut value = proposal.clone();
            restrict(part, &mut value, &old);
            assert_eq!(value["metadata"], json!({"name": "a", "resourceVersion": "3"}));
            value
        };
        assert_eq!(run("finalize")["spec"]["finalizers"], json!([]));
        assert_eq!(run("approval")["status"], json!({"certificate": "x", "conditions": [1]}));
        assert_eq!(run("ephemeralcontainers")["spec"]["ephemeralContainers"], json!([{"name": "e"}]));
        assert_eq!(
            run("resize")["spec"]["containers"],
            json!([{"name": "c", "image": "i", "resources": {"limits": {"cpu": "1"}}}])
        );
    }
}
