//! Ownership by writes that are no apply.

use super::*;

#[test]
fn a_create_owns_what_the_client_sets() {
    let mut story = Story::deployment();
    story.update(
        "kubectl-create",
        json!({
            "metadata": {"labels": {"app": "a"}, "uid": "u", "creationTimestamp": "t"},
            "spec": {"replicas": 1, "selector": {"matchLabels": {"app": "a"}}, "template": {"spec": {"containers": [
                {"name": "c", "image": "i", "ports": [{"containerPort": 80}]}]}}},
        }),
    );
    assert_owners(
        &story,
        &["Update kubectl-create@1: .metadata.labels .metadata.labels.app .spec.replicas .spec.selector \
           .spec.template.spec.containers[name=\"c\"] \
           .spec.template.spec.containers[name=\"c\"].image .spec.template.spec.containers[name=\"c\"].name \
           .spec.template.spec.containers[name=\"c\"].ports \
           .spec.template.spec.containers[name=\"c\"].ports[containerPort=80,protocol=\"TCP\"] \
           .spec.template.spec.containers[name=\"c\"].ports[containerPort=80,protocol=\"TCP\"].containerPort"],
    );
}

#[test]
fn structs_that_come_whole_are_owned_and_those_that_are_always_there_are_not() {
    let mut story = Story::deployment();
    let mut created = json!({
        "spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}, "template": {"spec": {
            "containers": [{"name": "c", "resources": {"limits": {"cpu": "1"}}}], "securityContext": {}}}},
    });
    crate::api::protobuf::complete(&mut created, "apps/v1", "Deployment");
    story.update("kubectl-create", created);
    let fields = &meta::get(story.live(), "managedFields").unwrap()[0]["fieldsV1"]["f:spec"];
    assert_eq!(fields["f:strategy"], json!({"f:type": {}, "f:rollingUpdate": {".": {}, "f:maxSurge": {}}}));
    let container =
        json!({".": {}, "f:name": {}, "f:resources": {".": {}, "f:limits": {".": {}, "f:cpu": {}}}});
    let containers = json!({"k:{\"name\":\"c\"}": container});
    assert_eq!(
        fields["f:template"],
        json!({"f:spec": {"f:containers": containers, "f:securityContext": {}}})
    );

    let mut custom = Story { initial: json!({}), ..Story::deployment() };
    custom.update("kubectl-create", json!({"spec": {"replicas": 1}}));
    let fields = &meta::get(custom.live(), "managedFields").unwrap()[0]["fieldsV1"];
    assert_eq!(fields, &json!({"f:spec": {".": {}, "f:replicas": {}}}));
}

#[test]
fn a_changed_field_moves_to_who_changed_it() {
    let mut story = Story::deployment();
    story.update("a", json!({"spec": {"replicas": 1, "paused": true}}));
    story.update("b", json!({"spec": {"replicas": 2, "paused": true}}));
    assert_owners(&story, &["Update a@1: .spec.paused", "Update b@2: .spec.replicas"]);
    story.update("b", json!({"spec": {"replicas": 2}}));
    assert_owners(&story, &["Update b@2: .spec.replicas"]);
}

#[test]
fn a_write_that_changes_nothing_changes_no_time() {
    let mut story = Story::deployment();
    story.update("a", json!({"spec": {"replicas": 1}}));
    story.update("a", json!({"spec": {"replicas": 1}}));
    story.update("b", json!({"spec": {"replicas": 1}}));
    assert_owners(&story, &["Update a@1: .spec.replicas"]);
    story.update("a", json!({"spec": {"replicas": 1, "paused": true}}));
    assert_owners(&story, &["Update a@4: .spec.paused .spec.replicas"]);
}

#[test]
fn bookkeeping_has_no_owner() {
    let mut story = Story::deployment();
    story.update("a", json!({"spec": {"replicas": 1}}));
    story
        .update("b", json!({"metadata": {"generation": 2, "resourceVersion": "9"}, "spec": {"replicas": 1}}));
    assert_owners(&story, &["Update a@1: .spec.replicas"]);
}

#[test]
fn subresources_are_owners_of_their_own() {
    let mut story = Story::deployment();
    story.update("a", json!({"spec": {"replicas": 1}, "status": {}}));
    let mut new = story.object(json!({"spec": {"replicas": 1}, "status": {"replicas": 1}}));
    let options = Options { subresource: "status", ..story.options("a", "2026-01-01T00:00:09Z") };
    track_update(story.live.as_ref(), &mut new, &options);
    let list = meta::get(&new, "managedFields").unwrap();
    assert_eq!(list.as_array().unwrap().len(), 2);
    assert_eq!(list[1]["subresource"], "status");
    assert_eq!(list[1]["fieldsV1"], json!({"f:status": {"f:replicas": {}}}));
    assert_eq!(list[1]["fieldsType"], "FieldsV1");
}

#[test]
fn ignored_paths_are_owned_by_nobody() {
    let story = Story::deployment();
    let mut new = story.object(json!({"spec": {"replicas": 1}, "status": {"replicas": 1}}));
    let options = Options { ignored: &[&["status"]], ..story.options("a", "2026-01-01T00:00:09Z") };
    track_update(None, &mut new, &options);
    assert_eq!(
        meta::get(&new, "managedFields").unwrap()[0]["fieldsV1"],
        json!({"f:spec": {"f:replicas": {}}})
    );
}

#[test]
fn one_empty_entry_ends_tracking_until_an_apply() {
    let mut story = Story::deployment();
    story.update("a", json!({"spec": {"replicas": 1}}));
    story.update("a", json!({"metadata": {"managedFields": [{}]}, "spec": {"replicas": 2}}));
    assert_owners(&story, &[]);
    story.update("a", json!({"spec": {"replicas": 3}}));
    assert_owners(&story, &[]);
    story.apply("b", json!({"spec": {"paused": true}}));
    assert_owners(&story, &["Apply b@4: .spec.paused", "Update before-first-apply@4: .spec.replicas"]);
}

#[test]
fn entries_that_a_client_sends_are_taken() {
    let mut story = Story::deployment();
    story.update("kubectl-client-side-apply", json!({"spec": {"replicas": 1}}));
    let moved = json!([{"manager": "kubectl", "operation": "Apply", "apiVersion": "apps/v1", "fieldsType": "FieldsV1",
        "time": "2026-01-01T00:00:07Z", "fieldsV1": {"f:spec": {"f:replicas": {}}}}]);
    story.update("kubectl", json!({"metadata": {"managedFields": moved}, "spec": {"replicas": 1}}));
    assert_owners(&story, &["Apply kubectl@7: .spec.replicas"]);
    // Malformed entries and an empty list change nothing.
    for sent in [json!([{"manager": "x", "operation": "Steal"}]), json!([]), json!(null)] {
        story.update("kubectl", json!({"metadata": {"managedFields": sent}, "spec": {"replicas": 1}}));
        assert_owners(&story, &["Apply kubectl@7: .spec.replicas"]);
    }
}

#[test]
fn the_oldest_updaters_are_merged() {
    let mut story = Story::new("v1", "ConfigMap");
    let mut data = serde_json::Map::new();
    for i in 0..12 {
        data.insert(format!("k{i:02}"), "v".into());
        story.update(&format!("m{i:02}"), json!({ "data": data }));
    }
    let owners = story.owners();
    assert_eq!(owners.len(), 10);
    assert_eq!(owners[0], "Update ancient-changes@3: .data .data.k00 .data.k01 .data.k02");
    assert_eq!(owners[1], "Update m03@4: .data.k03");
}

#[test]
fn lists_whose_items_cannot_be_told_apart_are_owned_as_a_whole() {
    let mut story = Story::new("v1", "Pod");
    story.update("a", json!({"spec": {"containers": [{"image": "x"}]}}));
    story.update("b", json!({"spec": {"containers": [{"image": "y"}]}}));
    assert_owners(&story, &["Update b@2: .spec.containers"]);
}
