//! Sets: their written form and their algebra.

use super::*;

fn set(fields: Value) -> Set {
    Set::parse(&fields).unwrap()
}

#[test]
fn written_sets_read_back() {
    let written = json!({
        "f:metadata": {"f:labels": {".": {}, "f:app": {}}, "f:finalizers": {"v:\"a\"": {}}},
        "f:spec": {"f:containers": {"k:{\"name\":\"x\"}": {".": {}, "f:image": {}}}, "f:args": {"i:3": {}}},
    });
    assert_eq!(set(written.clone()).to_json(), written);
    assert_eq!(
        set(written).paths(),
        [
            ".metadata.finalizers[=\"a\"]",
            ".metadata.labels",
            ".metadata.labels.app",
            ".spec.args[3]",
            ".spec.containers[name=\"x\"]",
            ".spec.containers[name=\"x\"].image",
        ]
    );
}

#[test]
fn keys_are_compared_without_regard_to_how_they_are_written() {
    let spaced = set(json!({"f:ports": {"k:{ \"protocol\": \"TCP\", \"port\":80 }": {}}}));
    assert_eq!(spaced.paths(), [".ports[port=80,protocol=\"TCP\"]"]);
    assert_eq!(spaced, set(json!({"f:ports": {"k:{\"port\":80,\"protocol\":\"TCP\"}": {}}})));
}

#[test]
fn malformed_sets_are_refused() {
    for fields in [
        json!(null),
        json!([]),
        json!({"x": {}}),
        json!({"f:a": 1}),
        json!({"k:x": {}}),
        json!({"k:{}": {}}),
        json!({"i:x": {}}),
        json!({"v:x": {}}),
        json!({"f:a": {"z:b": {}}}),
    ] {
        assert_eq!(Set::parse(&fields), None, "{fields}");
    }
    assert!(set(json!({})).is_empty());
}

#[test]
fn members_unite_intersect_and_subtract() {
    let a = || set(json!({"f:a": {".": {}, "f:x": {}}, "f:b": {}}));
    let b = set(json!({"f:a": {"f:x": {}, "f:y": {}}, "f:c": {}}));
    let mut union = a();
    union.union(b.clone());
    assert_eq!(union.paths(), [".a", ".a.x", ".a.y", ".b", ".c"]);
    let mut difference = a();
    difference.subtract(&b);
    assert_eq!(difference.paths(), [".a", ".b"]);
    assert_eq!(a().intersection(&b).paths(), [".a.x"]);
    assert!(a().intersection(&set(json!({"f:z": {}}))).is_empty());
}

#[test]
fn paths_can_be_removed_with_or_without_what_is_below() {
    let mut one = set(json!({"f:a": {".": {}, "f:x": {}}}));
    one.remove_member(&["a"]);
    assert_eq!(one.paths(), [".a.x"]);
    one.remove_below(&["a"]);
    assert!(one.is_empty());
    one.remove_below(&["none", "x"]);
    assert!(one.is_empty());
}

proptest! {
    #[test]
    fn subtracting_what_was_added_is_subtraction(a in any_value(), b in any_value()) {
        let story = Story::new("v1", "Pod");
        let fields = |v: &Value| extract::fields(v, Some(story.options("m", "").schema)).unwrap_or_default();
        let (a, b) = (fields(&a), fields(&b));
        let mut union = a.clone();
        union.union(b.clone());
        union.subtract(&b);
        let mut difference = a.clone();
        difference.subtract(&b);
        prop_assert_eq!(union, difference);
        prop_assert_eq!(Set::parse(&a.to_json()), Some(a));
    }
}
