//! The decisions of the StatefulSet controller: pods in, names of pods out.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};

use super::plan::{self, Action, Input};
use super::{claims, identity, status};
use crate::controllers::workload::pods::tests::at;

fn set(spec: Value) -> StatefulSet {
    let mut set = json!({
        "metadata": {"name": "web", "namespace": "default", "uid": "u", "generation": 2},
        "spec": {"replicas": 3, "serviceName": "nginx", "selector": {"matchLabels": {"app": "web"}},
                 "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c"}]}},
                 "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {}}]},
    });
    json_patch::merge(&mut set["spec"], &spec);
    serde_json::from_value(set).unwrap()
}

/// A pod from text: ordinal, state (`+` ready, `-` not ready, `x` failed, `d` deleting) and revision.
fn pod(text: &str) -> Arc<Pod> {
    let (ordinal, rest) = text.split_at(1);
    let (state, revision) = rest.split_at(1);
    let set = set(json!({}));
    let template = set.spec.as_ref().unwrap().template.clone();
    let mut pod = identity::build(&set, ordinal.parse().unwrap(), &template, revision);
    let (phase, ready) = match state {
        "+" | "d" => ("Running", Some(0)),
        "x" => ("Failed", None),
        _ => ("Pending", None),
    };
    pod.status = crate::controllers::workload::pods::tests::pod("p", phase, ready).status;
    if state == "d" {
        pod.metadata.deletion_timestamp = Some(Time(at(0)));
    }
    Arc::new(pod)
}

fn planned(spec: Value, pods: &[&str]) -> Vec<String> {
    let (set, pods) = (set(spec), pods.iter().map(|text| pod(text)).collect::<Vec<_>>());
    let input = Input { set: &set, current: "a", update: "b", pods: &pods, now: at(100) };
    let name = |pod: &Pod| pod.metadata.name.clone().unwrap();
    plan::plan(&input)
        .actions
        .iter()
        .map(|action| match action {
            Action::Create { ordinal, updated } => {
                format!("create {ordinal}{}", if *updated { "b" } else { "a" })
            }
            Action::Delete(pod) => format!("delete {}", name(pod)),
            Action::Recreate(pod) => format!("recreate {}", name(pod)),
            Action::Mend(pod) => format!("mend {}", name(pod)),
        })
        .collect()
}

#[test]
fn scaling_happens_in_predictable_order_and_halts_if_any_pod_is_unhealthy() {
    for (spec, pods, expected) in [
        (json!({}), vec![], vec!["create 0b"]),
        (json!({}), vec!["0-b"], vec![]),
        (json!({}), vec!["0+b"], vec!["create 1b"]),
        (json!({}), vec!["0+b", "1db"], vec![]),
        (json!({}), vec!["1+b", "2+b"], vec!["create 0b"]),
        (json!({"replicas": 1}), vec!["0+b", "1+b", "2+b"], vec!["delete web-2"]),
        (json!({"replicas": 1}), vec!["0+b", "1+b", "2db"], vec![]),
        (json!({"replicas": 1}), vec!["0-b", "1+b", "2+b"], vec![]),
        (json!({"replicas": 1}), vec!["0+b", "1-b", "2+b"], vec!["delete web-2"]),
        (json!({"replicas": 1}), vec!["0+b", "1-b", "2-b"], vec![]),
        (json!({"replicas": 0}), vec!["0-b"], vec!["delete web-0"]),
        (json!({"ordinals": {"start": 2}, "replicas": 2}), vec!["2+b"], vec!["create 3b"]),
        (json!({"ordinals": {"start": 1}, "replicas": 2}), vec!["0+b", "1+b", "2+b"], vec!["delete web-0"]),
    ] {
        assert_eq!(planned(spec.clone(), &pods), expected, "{spec} {pods:?}");
    }
}

#[test]
fn burst_scaling_runs_to_completion_even_with_unhealthy_pods() {
    let parallel = |replicas: i32| json!({"podManagementPolicy": "Parallel", "replicas": replicas});
    assert_eq!(planned(parallel(3), &["1-b"]), ["create 0b", "create 2b"]);
    assert_eq!(planned(parallel(1), &["0-b", "1-b", "2+b"]), ["delete web-2", "delete web-1"]);
}

#[test]
fn failed_pods_are_recreated() {
    assert_eq!(planned(json!({}), &["0+b", "1xb"]), ["recreate web-1"]);
}

#[test]
fn updates_go_from_the_highest_ordinal_down_to_the_partition() {
    let partition = |partition: i32| json!({"updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": partition}}});
    for (spec, pods, expected) in [
        (json!({}), vec!["0+a", "1+a", "2+a"], vec!["delete web-2"]),
        (json!({}), vec!["0+a", "1+a", "2-b"], vec![]),
        (json!({}), vec!["0+a", "1+a", "2+b"], vec!["delete web-1"]),
        (partition(2), vec!["0+a", "1+a", "2+b"], vec![]),
        (partition(2), vec!["0+a", "2+b"], vec!["create 1a"]),
        (partition(1), vec!["0+a", "2+b"], vec!["create 1b"]),
        (json!({"updateStrategy": {"type": "OnDelete"}}), vec!["0+a", "1+a", "2+a"], vec![]),
        (json!({"updateStrategy": {"type": "OnDelete"}}), vec!["0+a", "1+a"], vec!["create 2b"]),
        (
            json!({"updateStrategy": {"rollingUpdate": {"maxUnavailable": 2}}}),
            vec!["0+a", "1+a", "2+a"],
            vec!["delete web-2", "delete web-1"],
        ),
        (
            json!({"podManagementPolicy": "Parallel", "updateStrategy": {"rollingUpdate": {"maxUnavailable": 2}}}),
            vec!["0+a", "1+a", "2db"],
            vec!["delete web-1"],
        ),
    ] {
        assert_eq!(planned(spec.clone(), &pods), expected, "{spec} {pods:?}");
    }
}

#[test]
fn a_complete_update_makes_the_new_revision_the_current_one() {
    let set = set(json!({}));
    let told = |pods: &[&str]| {
        let pods: Vec<_> = pods.iter().map(|text| pod(text)).collect();
        let input = Input { set: &set, current: "a", update: "b", pods: &pods, now: at(100) };
        let status = status::status(&input);
        let counts =
            [status.current_replicas, status.updated_replicas, status.ready_replicas].map(Option::unwrap);
        (status.replicas, counts, status.current_revision.unwrap())
    };
    assert_eq!(told(&["0+a", "1+b", "2-b"]), (3, [1, 2, 2], "a".into()));
    assert_eq!(told(&["0+b", "1+b", "2+b"]), (3, [3, 3, 3], "b".into()));
}

#[test]
fn pods_have_names_hosts_and_claims_of_their_own() {
    let pod = pod("2+b");
    let spec = pod.spec.as_ref().unwrap();
    assert_eq!((spec.hostname.as_deref(), spec.subdomain.as_deref()), (Some("web-2"), Some("nginx")));
    let volume = &spec.volumes.as_ref().unwrap()[0];
    assert_eq!(volume.persistent_volume_claim.as_ref().unwrap().claim_name, "data-web-2");
    let labels = pod.metadata.labels.as_ref().unwrap();
    assert_eq!(
        (labels[identity::NAME_LABEL].as_str(), labels[identity::INDEX_LABEL].as_str()),
        ("web-2", "2")
    );
    let claim = &claims::claims_for(&set(json!({})), 2)[0];
    assert_eq!(claim.metadata.name.as_deref(), Some("data-web-2"));
    assert_eq!(claim.metadata.labels.as_ref().unwrap()["app"], "web");
}

#[test]
fn claims_go_with_what_the_retention_policy_says() {
    for (deleted, scaled, kept_pod, condemned_pod) in [
        ("Retain", "Retain", vec![], vec![]),
        ("Delete", "Retain", vec!["StatefulSet"], vec!["StatefulSet"]),
        ("Retain", "Delete", vec![], vec!["Pod"]),
        ("Delete", "Delete", vec!["StatefulSet"], vec!["Pod"]),
    ] {
        let policy = json!({"whenDeleted": deleted, "whenScaled": scaled});
        let set = set(json!({"replicas": 1, "persistentVolumeClaimRetentionPolicy": policy}));
        for (text, expected) in [("0+b", &kept_pod), ("1+b", &condemned_pod)] {
            let pod = pod(text);
            let claim = &claims::claims_for(&set, 1)[0];
            let owners = claims::owners(&set, &pod, claim);
            let kinds: Vec<_> = owners.iter().map(|owner| owner.kind.as_str()).collect();
            assert_eq!(kinds, *expected, "{deleted} {scaled} {text}");
        }
    }
}
