//! Annotations by which a deployment and its ReplicaSets remember revisions and sizes.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

/// The revision of a template, counted up with each rollout; on the deployment the current one.
pub const REVISION: &str = "deployment.kubernetes.io/revision";
/// Revisions that the same template had before, separated by commas.
pub const REVISION_HISTORY: &str = "deployment.kubernetes.io/revision-history";
/// The deployment's size when the ReplicaSet was last scaled.
pub const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
/// The deployment's size plus surge when the ReplicaSet was last scaled.
pub const MAX: &str = "deployment.kubernetes.io/max-replicas";

/// Most characters the revision history may take; the oldest are dropped.
const HISTORY_LIMIT: usize = 2000;

/// Annotations that do not travel from the deployment to its ReplicaSets.
const NOT_COPIED: [&str; 6] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    REVISION_HISTORY,
    DESIRED,
    MAX,
    "deprecated.deployment.rollback.to",
];

/// An annotation's value.
pub fn get<'a>(meta: &'a ObjectMeta, key: &str) -> Option<&'a str> {
    meta.annotations.as_ref()?.get(key).map(String::as_str)
}

/// An annotation's value as a number.
pub fn number<T: std::str::FromStr>(meta: &ObjectMeta, key: &str) -> Option<T> {
    get(meta, key)?.parse().ok()
}

/// The object's revision, 0 when it has none.
pub fn revision(meta: &ObjectMeta) -> i64 {
    number(meta, REVISION).unwrap_or(0)
}

fn set(meta: &mut ObjectMeta, key: &str, value: String) {
    meta.annotations.get_or_insert_with(BTreeMap::new).insert(key.to_owned(), value);
}

/// Records the sizes that the ReplicaSet was scaled for.
pub fn set_sizes(meta: &mut ObjectMeta, desired: i32, max: i32) {
    set(meta, DESIRED, desired.to_string());
    set(meta, MAX, max.to_string());
}

/// Copies the deployment's annotations (change cause and the user's own) to the ReplicaSet and moves it up to `revision`.
pub fn sync_new_set(set_meta: &mut ObjectMeta, deployment: &ObjectMeta, revision: i64) {
    for (key, value) in deployment.annotations.iter().flatten() {
        if !NOT_COPIED.contains(&key.as_str()) {
            set(set_meta, key, value.clone());
        }
    }
    let before = self::revision(set_meta);
    if before >= revision {
        return;
    }
    if before > 0 {
        let history = get(set_meta, REVISION_HISTORY).unwrap_or_default();
        let history = append_history(history, before);
        set(set_meta, REVISION_HISTORY, history);
    }
    set(set_meta, REVISION, revision.to_string());
}

fn append_history(history: &str, revision: i64) -> String {
    let mut all: Vec<_> = history.split(',').filter(|part| !part.is_empty()).map(str::to_owned).collect();
    all.push(revision.to_string());
    while all.len() > 1 && all.iter().map(|part| part.len() + 1).sum::<usize>() > HISTORY_LIMIT {
        all.remove(0);
    }
    all.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn meta(annotations: serde_json::Value) -> ObjectMeta {
        serde_json::from_value(json!({"annotations": annotations})).unwrap()
    }

    #[test]
    fn change_cause_travels_but_bookkeeping_does_not() {
        let deployment = meta(json!({
            "kubernetes.io/change-cause": "image b", REVISION: "7",
            "kubectl.kubernetes.io/last-applied-configuration": "{}",
        }));
        let mut set = meta(json!({"mine": "stays", REVISION: "2"}));
        sync_new_set(&mut set, &deployment, 3);
        let expected = meta(json!({
            "kubernetes.io/change-cause": "image b", "mine": "stays", REVISION: "3", REVISION_HISTORY: "2",
        }));
        assert_eq!(set, expected);
    }

    #[test]
    fn a_rolled_back_set_moves_up_and_remembers() {
        let mut set = meta(json!({REVISION: "4", REVISION_HISTORY: "1,2"}));
        sync_new_set(&mut set, &ObjectMeta::default(), 6);
        assert_eq!((revision(&set), get(&set, REVISION_HISTORY)), (6, Some("1,2,4")));
        sync_new_set(&mut set, &ObjectMeta::default(), 5);
        assert_eq!(revision(&set), 6, "a revision never goes back");
    }

    #[test]
    fn history_drops_the_oldest_when_it_is_too_long() {
        let long = vec!["1"; 1500].join(",");
        let appended = append_history(&long, 99);
        assert!(appended.len() < HISTORY_LIMIT + 1 && appended.ends_with(",1,99"));
    }
}
