//! Stories of structured-merge-diff's `merge` tests and apiserver's `fieldmanager` tests, in the kinds of this API.

use super::*;

fn containers(list: Value) -> Value {
    json!({"spec": {"template": {"spec": {"containers": list}}}})
}

fn list(story: &Story) -> &Value {
    &story.spec()["template"]["spec"]["containers"]
}

#[test]
fn an_item_that_somebody_removes_comes_back_with_the_next_apply() {
    let mut story = Story::deployment();
    let both = json!([{"name": "x", "image": "1"}, {"name": "y", "image": "1"}]);
    story.apply("a", containers(both.clone()));
    story.update("b", containers(json!([{"name": "x", "image": "1"}])));
    assert_owners(
        &story,
        &[
            "Apply a@1: .spec.template.spec.containers[name=\"x\"] .spec.template.spec.containers[name=\"x\"].image \
           .spec.template.spec.containers[name=\"x\"].name",
        ],
    );
    story.apply("a", containers(both.clone()));
    assert_eq!(*list(&story), both);
}

#[test]
fn an_item_of_two_appliers_stays_until_neither_wants_it() {
    let mut story = Story::deployment();
    story.apply("a", containers(json!([{"name": "x", "image": "1", "tty": true}])));
    story.apply("b", containers(json!([{"name": "x", "image": "1", "stdin": true}])));
    story.apply("a", json!({"spec": {}}));
    assert_eq!(
        *list(&story),
        json!([{"name": "x", "image": "1", "stdin": true}]),
        "what a alone owned is gone"
    );
    story.apply("b", json!({"spec": {}}));
    assert!(story.spec().pointer("/template/spec/containers").is_none(), "{}", story.spec());
}

#[test]
fn an_update_between_two_applies_conflicts_only_where_it_changed_something() {
    let mut story = Story::deployment();
    story.apply("a", json!({"spec": {"replicas": 1, "paused": true}}));
    story.update("controller", json!({"spec": {"replicas": 3, "paused": true}}));
    assert_owners(&story, &["Apply a@1: .spec.paused", "Update controller@2: .spec.replicas"]);
    let error = story.try_apply("a", json!({"spec": {"replicas": 1, "paused": true}}), false).unwrap_err();
    assert!(
        error.message().contains("conflict with \"controller\" using apps/v1: .spec.replicas"),
        "{error}"
    );
    story.apply("a", json!({"spec": {"replicas": 3, "paused": false}}));
    assert_owners(&story, &["Apply a@4: .spec.paused .spec.replicas", "Update controller@2: .spec.replicas"]);
}

#[test]
fn labels_that_an_apply_does_not_name_are_not_stripped() {
    let mut story = Story::new("v1", "Pod");
    story.update("other", json!({"metadata": {"labels": {"a": "b"}}}));
    story.apply("a", json!({"metadata": {"labels": {"c": "d"}}}));
    assert_eq!(story.live()["metadata"]["labels"], json!({"a": "b", "c": "d"}));
    story.apply("a", json!({}));
    assert_eq!(story.live()["metadata"]["labels"], json!({"a": "b"}));
}

#[test]
fn an_empty_map_is_owned_until_it_has_fields() {
    let mut story = Story::new("v1", "ConfigMap");
    story.apply("a", json!({"data": {}}));
    assert_owners(&story, &["Apply a@1: .data"]);
    story.apply("b", json!({"data": {"k": "v"}}));
    story.apply("a", json!({}));
    assert_eq!(story.live()["data"], json!({"k": "v"}), "b still wants its field");
    story.apply("b", json!({}));
    assert!(story.live().get("data").is_none_or(|data| data == &json!({})), "{}", story.live());
}

#[test]
fn an_object_made_without_apply_is_owned_by_nobody_who_applies_to_it() {
    let mut story = Story::deployment();
    story.live = Some(story.object(json!({"spec": {"replicas": 1}})));
    story.apply("a", json!({"spec": {"paused": true}}));
    let owners = story.owners();
    assert_eq!(owners.len(), 2, "{owners:?}");
    assert!(
        owners[1].starts_with("Update before-first-apply@1: ") && owners[1].contains(".spec.replicas"),
        "{owners:?}"
    );
    let error = story.try_apply("a", json!({"spec": {"paused": true, "replicas": 2}}), false).unwrap_err();
    assert!(error.message().contains("conflict with \"before-first-apply\""), "{error}");
}

#[test]
fn forcing_a_shared_field_takes_it_from_all_who_said_otherwise() {
    let mut story = Story::deployment();
    for manager in ["a", "b"] {
        story.apply(manager, json!({"spec": {"replicas": 1}}));
    }
    story.force("c", json!({"spec": {"replicas": 2}}));
    assert_owners(&story, &["Apply c@3: .spec.replicas"]);
    assert_eq!(story.spec()["replicas"], 2);
}

#[test]
fn the_value_of_an_atomic_field_is_taken_whole() {
    let mut story = Story::deployment();
    story.apply("a", json!({"spec": {"selector": {"matchLabels": {"x": "1", "y": "2"}}}}));
    story.apply("a", json!({"spec": {"selector": {"matchLabels": {"x": "1"}}}}));
    assert_eq!(
        story.spec()["selector"],
        json!({"matchLabels": {"x": "1"}}),
        "nothing of the old one is left"
    );
    let error =
        story.try_apply("b", json!({"spec": {"selector": {"matchLabels": {"z": "3"}}}}), false).unwrap_err();
    assert!(error.message().ends_with("conflict with \"a\": .spec.selector"), "{error}");
}
