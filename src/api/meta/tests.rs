//! Reading tolerates anything; writing makes what is missing.

use serde_json::json;

use super::*;

#[test]
fn reads_what_is_there() {
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": "web-1", "generateName": "web-", "namespace": "default", "uid": "u1", "resourceVersion": "7",
            "generation": 3, "creationTimestamp": "2026-01-02T03:04:05Z",
            "deletionTimestamp": "2026-01-02T03:04:06Z", "deletionGracePeriodSeconds": 30,
            "labels": {"app": "web"}, "annotations": {"note": "x"}, "finalizers": ["a/b"],
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": "u0", "controller": true}],
            "managedFields": [{"manager": "kubectl", "operation": "Apply"}],
        },
    });
    assert_eq!(
        (api_version(&pod), kind(&pod), name(&pod), namespace(&pod)),
        ("v1", "Pod", "web-1", "default")
    );
    assert_eq!(
        (generate_name(&pod), uid(&pod), resource_version(&pod), generation(&pod)),
        ("web-", "u1", "7", 3)
    );
    assert_eq!(creation_timestamp(&pod), "2026-01-02T03:04:05Z");
    assert_eq!(deletion_timestamp(&pod), Some("2026-01-02T03:04:06Z"));
    assert_eq!(deletion_grace_period_seconds(&pod), Some(30));
    assert_eq!(labels(&pod).collect::<Vec<_>>(), [("app", "web")]);
    assert_eq!(annotations(&pod).collect::<Vec<_>>(), [("note", "x")]);
    assert_eq!((label(&pod, "app"), annotation(&pod, "none")), (Some("web"), None));
    assert_eq!(finalizers(&pod).collect::<Vec<_>>(), ["a/b"]);
    assert_eq!(controller(&pod).unwrap().name, "web");
    assert_eq!(managed_fields(&pod)[0].manager.as_deref(), Some("kubectl"));
}

#[test]
fn reads_nothing_from_nonsense() {
    for object in
        [json!(null), json!([]), json!({"metadata": 1}), json!({"metadata": {"name": 1, "labels": []}})]
    {
        assert_eq!((name(&object), generation(&object), deletion_timestamp(&object)), ("", 0, None));
        assert_eq!(labels(&object).count() + finalizers(&object).count(), 0);
        assert!(owner_references(&object).is_empty() && controller(&object).is_none());
    }
}

#[test]
fn writes_and_removes() {
    let mut object = json!({"metadata": null});
    set_name(&mut object, "a");
    set_namespace(&mut object, "ns");
    set_uid(&mut object, "u");
    set_resource_version(&mut object, "5");
    set_generation(&mut object, 2);
    set_creation_timestamp(&mut object, "t");
    set_deletion_timestamp(&mut object, "d");
    set_label(&mut object, "l", "1");
    set_annotation(&mut object, "n", "2");
    assert_eq!(
        object,
        json!({"metadata": {"name": "a", "namespace": "ns", "uid": "u", "resourceVersion": "5", "generation": 2,
            "creationTimestamp": "t", "deletionTimestamp": "d", "labels": {"l": "1"}, "annotations": {"n": "2"}}})
    );
    for field in ["namespace", "uid", "creationTimestamp", "deletionTimestamp", "labels", "annotations"] {
        set(&mut object, field, None);
    }
    set_resource_version(&mut object, "");
    set_generation(&mut object, 0);
    assert_eq!(object, json!({"metadata": {"name": "a"}}));
    let mut list = json!([]);
    set_name(&mut list, "a");
    assert_eq!(list, json!([]));
}

#[test]
fn group_versions_split_and_join() {
    assert_eq!(group_version("apps/v1"), ("apps", "v1"));
    assert_eq!(group_version("v1"), ("", "v1"));
    assert_eq!(join_group_version("apps", "v1"), "apps/v1");
    assert_eq!(join_group_version("", "v1"), "v1");
}

#[test]
fn times_are_written_in_utc() {
    let time: Timestamp = "2026-01-02T03:04:05.123456789+01:00".parse().unwrap();
    assert_eq!(rfc3339(time), "2026-01-02T02:04:05Z");
    assert_eq!(rfc3339_micro(time), "2026-01-02T02:04:05.123456Z");
    assert_eq!(now_rfc3339().len(), 20);
}
