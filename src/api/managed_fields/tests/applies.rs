//! Server-side apply.

use super::*;

fn containers(list: Value) -> Value {
    json!({"spec": {"template": {"spec": {"containers": list}}}})
}

#[test]
fn an_apply_owns_what_it_names() {
    let mut story = Story::deployment();
    story.apply("a", json!({"metadata": {"labels": {"x": "1"}}, "spec": {"replicas": 1, "selector": {"matchLabels": {"x": "1"}}}}));
    assert_owners(&story, &["Apply a@1: .metadata.labels.x .spec.replicas .spec.selector"]);
    assert_eq!(story.spec(), &json!({"replicas": 1, "selector": {"matchLabels": {"x": "1"}}}));
}

#[test]
fn the_same_configuration_again_changes_nothing() {
    let mut story = Story::deployment();
    story.apply("a", json!({"spec": {"replicas": 1}}));
    let before = story.live().clone();
    story.apply("a", json!({"spec": {"replicas": 1}}));
    assert_eq!(story.live(), &before);
}

#[test]
fn what_is_applied_no_more_is_removed() {
    let mut story = Story::deployment();
    story.apply(
        "a",
        json!({"metadata": {"labels": {"x": "1", "y": "2"}}, "spec": {"replicas": 1, "paused": true}}),
    );
    story.apply("a", json!({"metadata": {"labels": {"y": "2"}}, "spec": {"replicas": 1}}));
    assert_eq!(story.spec(), &json!({"replicas": 1}));
    assert_eq!(story.live()["metadata"]["labels"], json!({"y": "2"}));
    story.apply("a", json!({"spec": {"replicas": 1}}));
    assert!(story.live()["metadata"].get("labels").is_none());
    assert_owners(&story, &["Apply a@3: .spec.replicas"]);
}

#[test]
fn what_others_own_stays() {
    let mut story = Story::deployment();
    story.apply("a", json!({"spec": {"replicas": 1, "paused": true}}));
    story.apply("b", json!({"spec": {"paused": true, "minReadySeconds": 5}}));
    assert_owners(
        &story,
        &["Apply a@1: .spec.paused .spec.replicas", "Apply b@2: .spec.minReadySeconds .spec.paused"],
    );
    story.apply("a", json!({"spec": {"replicas": 1}}));
    assert_eq!(story.spec(), &json!({"replicas": 1, "paused": true, "minReadySeconds": 5}));
    story.apply("b", json!({"spec": {}}));
    assert_eq!(story.spec(), &json!({"replicas": 1}));
}

#[test]
fn what_nobody_owns_stays() {
    let mut story = Story::deployment();
    story.apply("a", json!({"spec": {"replicas": 1}}));
    // The server's defaults come without an owner.
    story.live.as_mut().unwrap()["spec"]["progressDeadlineSeconds"] = 600.into();
    story.apply("a", json!({"spec": {"paused": true}}));
    assert_eq!(story.spec(), &json!({"paused": true, "progressDeadlineSeconds": 600}));
}

#[test]
fn changing_what_another_owns_is_a_conflict() {
    let mut story = Story::deployment();
    story.update("kubectl-client-side-apply", json!({"spec": {"replicas": 1, "paused": true}}));
    let error = story.try_apply("a", json!({"spec": {"replicas": 2}}), false).unwrap_err();
    assert_eq!(
        error.message(),
        "Apply failed with 1 conflict: conflict with \"kubectl-client-side-apply\" using apps/v1: .spec.replicas"
    );
    assert_eq!((error.code(), error.reason().as_str()), (409, "Conflict"));
    let causes = error.status().details.clone().unwrap().causes.unwrap();
    assert_eq!(causes[0].reason.as_deref(), Some("FieldManagerConflict"));
    assert_eq!(causes[0].field.as_deref(), Some(".spec.replicas"));
    assert_eq!(
        causes[0].message.as_deref(),
        Some("conflict with \"kubectl-client-side-apply\" using apps/v1")
    );
    // The same value is no conflict: both own it then.
    story.apply("a", json!({"spec": {"replicas": 1}}));
    assert_owners(
        &story,
        &["Apply a@3: .spec.replicas", "Update kubectl-client-side-apply@1: .spec.paused .spec.replicas"],
    );
}

#[test]
fn several_conflicts_are_listed_by_owner() {
    let mut story = Story::deployment();
    story.apply("a", json!({"spec": {"replicas": 1, "paused": true}}));
    story.update("b", json!({"spec": {"replicas": 1, "paused": true, "minReadySeconds": 5}}));
    let wanted = json!({"spec": {"replicas": 2, "paused": false, "minReadySeconds": 6}});
    let error = story.try_apply("c", wanted, false).unwrap_err();
    assert_eq!(
        error.message(),
        "Apply failed with 3 conflicts: conflicts with \"a\":\n- .spec.paused\n- .spec.replicas\nconflicts with \"b\" \
         using apps/v1:\n- .spec.minReadySeconds"
    );
}

#[test]
fn force_takes_ownership() {
    let mut story = Story::deployment();
    story.apply("a", json!({"spec": {"replicas": 1, "paused": true}}));
    story.force("b", json!({"spec": {"replicas": 2}}));
    assert_owners(&story, &["Apply a@1: .spec.paused", "Apply b@2: .spec.replicas"]);
    // The former owner gives up by no longer applying the field.
    story.apply("a", json!({"spec": {"paused": true}}));
    assert_eq!(story.spec(), &json!({"replicas": 2, "paused": true}));
    // Or wants it back.
    let error = story.try_apply("a", json!({"spec": {"paused": true, "replicas": 1}}), false).unwrap_err();
    assert_eq!(error.message(), "Apply failed with 1 conflict: conflict with \"b\": .spec.replicas");
}

#[test]
fn items_of_keyed_lists_are_owned_apart() {
    let mut story = Story::deployment();
    story.apply("a", containers(json!([{"name": "x", "image": "1"}])));
    story.apply("b", containers(json!([{"name": "y", "image": "2"}, {"name": "x", "command": ["run"]}])));
    let list = |story: &Story| story.spec()["template"]["spec"]["containers"].clone();
    assert_eq!(
        list(&story),
        json!([{"name": "y", "image": "2"}, {"name": "x", "image": "1", "command": ["run"]}])
    );
    story.apply("b", containers(json!([{"name": "y", "image": "3"}])));
    // The live order stays where the configuration says nothing.
    assert_eq!(list(&story), json!([{"name": "y", "image": "3"}, {"name": "x", "image": "1"}]));
    story.apply("b", json!({"spec": {}}));
    assert_eq!(list(&story), json!([{"name": "x", "image": "1"}]));
}

#[test]
fn an_item_goes_as_a_whole_when_its_owner_drops_it() {
    let mut story = Story::deployment();
    story.apply("a", containers(json!([{"name": "x", "image": "1"}, {"name": "y", "image": "1"}])));
    // A default inside the item has no owner, and goes with it.
    story.live.as_mut().unwrap()["spec"]["template"]["spec"]["containers"][1]["imagePullPolicy"] =
        "Always".into();
    story.apply("a", containers(json!([{"name": "x", "image": "1"}])));
    assert_eq!(story.spec()["template"]["spec"]["containers"], json!([{"name": "x", "image": "1"}]));
}

#[test]
fn left_out_keys_have_their_default() {
    let mut story = Story::deployment();
    let port = |port: Value| containers(json!([{"name": "x", "ports": [port]}]));
    story.apply("a", port(json!({"containerPort": 80})));
    story.live.as_mut().unwrap()["spec"]["template"]["spec"]["containers"][0]["ports"][0]["protocol"] =
        "TCP".into();
    story.apply("a", port(json!({"containerPort": 80, "name": "http"})));
    let ports = &story.spec()["template"]["spec"]["containers"][0]["ports"];
    assert_eq!(ports, &json!([{"containerPort": 80, "name": "http", "protocol": "TCP"}]));
}

#[test]
fn sets_merge_by_value() {
    let mut story = Story::deployment();
    let finalizers = |list: Value| json!({"metadata": {"finalizers": list}});
    story.apply("a", finalizers(json!(["one/x"])));
    story.apply("b", finalizers(json!(["two/x"])));
    assert_eq!(story.live()["metadata"]["finalizers"], json!(["one/x", "two/x"]));
    story.apply("a", json!({}));
    assert_eq!(story.live()["metadata"]["finalizers"], json!(["two/x"]));
    assert_owners(&story, &["Apply b@2: .metadata.finalizers[=\"two/x\"]"]);
}

#[test]
fn atomic_lists_and_objects_have_one_owner() {
    let mut story = Story::deployment();
    let command = |list: Value| containers(json!([{"name": "x", "command": list}]));
    story.apply("a", command(json!(["a", "b"])));
    let error = story.try_apply("b", command(json!(["b"])), false).unwrap_err();
    assert!(
        error.message().ends_with(r#"conflict with "a": .spec.template.spec.containers[name="x"].command"#)
    );
    story.force("b", command(json!(["b"])));
    assert_eq!(story.spec()["template"]["spec"]["containers"][0]["command"], json!(["b"]));
    let mut story = Story::new("v1", "Service");
    story.apply("a", json!({"spec": {"selector": {"x": "1"}}}));
    assert!(story.try_apply("b", json!({"spec": {"selector": {"y": "1"}}}), false).is_err());
}

#[test]
fn duplicates_and_missing_keys_are_refused() {
    let mut story = Story::deployment();
    let error = story.try_apply("a", containers(json!([{"name": "x"}, {"name": "x"}])), false).unwrap_err();
    assert_eq!(error.code(), 400);
    assert!(error.message().contains("duplicate entries for key"), "{error}");
    let error = story.try_apply("a", containers(json!([{"image": "x"}])), false).unwrap_err();
    assert!(error.message().contains("omits key field \"name\""), "{error}");
    let sent = json!({"metadata": {"managedFields": []}});
    assert_eq!(
        story.try_apply("a", sent, false).unwrap_err().message(),
        "metadata.managedFields must be nil"
    );
}

#[test]
fn kubectl_takes_over_from_its_own_client_side_apply() {
    let mut story = Story::deployment();
    let annotation = r#"{"metadata":{"name":"x"},"spec":{"replicas":1}}"#;
    story.update(
        "kubectl-client-side-apply",
        json!({"metadata": {"annotations": {"kubectl.kubernetes.io/last-applied-configuration": annotation}}, "spec": {"replicas": 1}}),
    );
    // Another manager gets the conflict, kubectl does not.
    assert!(story.try_apply("other", json!({"spec": {"replicas": 2}}), false).is_err());
    story.apply("kubectl", json!({"spec": {"replicas": 2}}));
    assert_eq!(story.spec()["replicas"], 2);
    let kept = meta::annotation(story.live(), "kubectl.kubernetes.io/last-applied-configuration").unwrap();
    assert!(kept.contains("\"replicas\":2"), "{kept}");
    // Beyond what client-side apply had set there is a conflict for kubectl too.
    story.update("hpa", json!({"spec": {"replicas": 2, "paused": true}}));
    assert!(story.try_apply("kubectl", json!({"spec": {"replicas": 2, "paused": false}}), false).is_err());
}

#[test]
fn empty_objects_are_owned() {
    let mut story = Story::new("v1", "Pod");
    story.apply("a", json!({"spec": {"volumes": [{"name": "v", "emptyDir": {}}]}}));
    assert_owners(
        &story,
        &[
            "Apply a@1: .spec.volumes[name=\"v\"] .spec.volumes[name=\"v\"].emptyDir .spec.volumes[name=\"v\"].name",
        ],
    );
    assert_eq!(story.spec()["volumes"][0]["emptyDir"], json!({}));
}

#[test]
fn the_configurations_order_wins_among_its_items() {
    let mut story = Story::new("v1", "Pod");
    let names = |story: &Story| {
        let list = story.spec()["containers"].as_array().unwrap().clone();
        list.iter().map(|c| c["name"].as_str().unwrap().to_owned()).collect::<String>()
    };
    let body = |names: &str| json!({"spec": {"containers": names.chars().map(|n| json!({"name": n})).collect::<Vec<_>>()}});
    story.update("other", body("abcd"));
    for (applied, expected) in [("ca", "bcda"), ("e", "bcdae"), ("de", "bcdae"), ("ec", "bdaec")] {
        story.force("m", body(applied));
        assert_eq!(names(&story), expected, "{applied}");
    }
}

#[test]
fn nulls_are_owned_by_nobody() {
    let mut story = Story::deployment();
    story.apply("a", json!({"spec": {"replicas": null, "paused": true}}));
    assert_owners(&story, &["Apply a@1: .spec.paused"]);
    assert!(story.spec().get("replicas").is_none());
}
