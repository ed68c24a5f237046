//! The decisions of the binder.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;
use serde_json::{Value, json};

use super::local_path;
use super::plan::{self, ClaimStep, Consumers, VolumeStep};
use crate::client::EventType;
use crate::client::volumes;

fn claim(spec: Value, annotations: Value) -> PersistentVolumeClaim {
    let mut claim = json!({
        "metadata": {"name": "data", "namespace": "default", "uid": "c1", "annotations": annotations},
        "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "", "resources": {"requests": {"storage": "1Gi"}}},
    });
    json_patch::merge(&mut claim["spec"], &spec);
    serde_json::from_value(claim).unwrap()
}

fn volume(name: &str, size: &str, spec: Value) -> Arc<PersistentVolume> {
    let mut volume = json!({
        "metadata": {"name": name, "labels": {"disk": name}},
        "spec": {"accessModes": ["ReadWriteOnce", "ReadOnlyMany"], "capacity": {"storage": size}},
        "status": {"phase": "Available"},
    });
    json_patch::merge(&mut volume["spec"], &spec);
    Arc::new(serde_json::from_value(volume).unwrap())
}

fn class(provisioner: &str, mode: &str) -> StorageClass {
    serde_json::from_value(
        json!({"metadata": {"name": "c"}, "provisioner": provisioner, "volumeBindingMode": mode}),
    )
    .unwrap()
}

#[test]
fn the_smallest_volume_that_suits_is_taken() {
    let volumes = [
        volume("big", "9Gi", json!({})),
        volume("small", "1Gi", json!({})),
        volume("tiny", "1Mi", json!({})),
        volume("gold", "1Gi", json!({"storageClassName": "gold"})),
        volume("block", "1Gi", json!({"volumeMode": "Block"})),
        volume("taken", "1Gi", json!({"claimRef": {"name": "other", "namespace": "default", "uid": "x"}})),
    ];
    for (spec, expected) in [
        (json!({}), Some("small")),
        (json!({"resources": {"requests": {"storage": "2Gi"}}}), Some("big")),
        (json!({"resources": {"requests": {"storage": "99Gi"}}}), None),
        (json!({"accessModes": ["ReadWriteMany"]}), None),
        (json!({"storageClassName": "gold"}), Some("gold")),
        (json!({"volumeMode": "Block"}), Some("block")),
        (json!({"selector": {"matchLabels": {"disk": "big"}}}), Some("big")),
    ] {
        let found = volumes::best(volumes.iter(), &claim(spec.clone(), json!({})), false, |_| true);
        assert_eq!(found.and_then(|volume| volume.metadata.name.clone()).as_deref(), expected, "{spec}");
    }
}

#[test]
fn a_reserved_volume_is_preferred_even_while_waiting() {
    let reserved = volume("reserved", "9Gi", json!({"claimRef": {"name": "data", "namespace": "default"}}));
    let volumes = [volume("small", "1Gi", json!({})), reserved.clone()];
    assert_eq!(volumes::best(volumes.iter(), &claim(json!({}), json!({})), true, |_| true), Some(reserved));
}

#[test]
fn claims_wait_ask_or_bind() {
    let gold = json!({"storageClassName": "c"});
    let late = class("rancher.io/local-path", "WaitForFirstConsumer");
    let selected = json!({(volumes::SELECTED_NODE): "n1"});
    let step = |annotations: &Value, class: Option<&StorageClass>, consumer: bool| {
        let consumers = Consumers { node: consumer.then(|| "n1".to_owned()), waiting: Vec::new() };
        match plan::claim(&claim(gold.clone(), annotations.clone()), &[], class, &consumers) {
            ClaimStep::Bind(_) => "bind",
            ClaimStep::Provision(_) => "provision",
            ClaimStep::Wait(_, reason, _) | ClaimStep::Lose(reason, _) => reason,
        }
    };
    assert_eq!(step(&json!({}), Some(&late), false), "WaitForFirstConsumer");
    for (pods, expected) in [
        (vec!["p"], "waiting for pod p to be scheduled"),
        (vec!["p", "q"], "waiting for pods p,q to be scheduled"),
    ] {
        let waiting = pods.into_iter().map(str::to_owned).collect();
        let consumers = Consumers { node: None, waiting };
        let step = plan::claim(&claim(gold.clone(), json!({})), &[], Some(&late), &consumers);
        assert_eq!(step, ClaimStep::Wait(EventType::Normal, "WaitForPodScheduled", expected.to_owned()));
    }
    let free = [volume("v", "1Gi", json!({"storageClassName": "c"}))];
    let step_with =
        plan::claim(&claim(gold.clone(), selected.clone()), &free, Some(&late), &Consumers::default());
    assert!(matches!(step_with, ClaimStep::Provision(_)), "whoever chose the node has chosen no volume");
    assert_eq!(step(&json!({}), Some(&late), true), "provision");
    assert_eq!(step(&selected, Some(&late), false), "provision");
    assert_eq!(step(&json!({}), Some(&class("x", "Immediate")), false), "provision");
    assert_eq!(
        step(&json!({}), Some(&class("kubernetes.io/no-provisioner", "Immediate")), false),
        "FailedBinding"
    );
    assert_eq!(step(&json!({}), None, false), "ProvisioningFailed");
}

#[test]
fn a_bound_claim_loses_a_volume_that_goes_or_is_somebody_elses() {
    let bound = claim(json!({"volumeName": "v"}), json!({(volumes::BIND_COMPLETED): "yes"}));
    let with = |claim_ref: Value| volume("v", "1Gi", json!({"claimRef": claim_ref}));
    let mine = with(json!({"name": "data", "namespace": "default", "uid": "c1"}));
    let other = with(json!({"name": "data", "namespace": "default", "uid": "c0"}));
    assert!(matches!(plan::claim(&bound, &[], None, &Consumers::default()), ClaimStep::Lose("ClaimLost", _)));
    assert!(matches!(
        plan::claim(&bound, &[other], None, &Consumers::default()),
        ClaimStep::Lose("ClaimMisbound", _)
    ));
    assert!(matches!(plan::claim(&bound, &[mine], None, &Consumers::default()), ClaimStep::Bind(_)));
}

#[test]
fn volumes_follow_their_claims() {
    let bound = claim(json!({"volumeName": "v"}), json!({}));
    let elsewhere = claim(json!({"volumeName": "w"}), json!({}));
    let unbound = claim(json!({}), json!({}));
    let reference = |uid: Option<&str>| json!({"name": "data", "namespace": "default", "uid": uid});
    let of = |claim_ref: Value, policy: &str| {
        volume("v", "1Gi", json!({"claimRef": claim_ref, "persistentVolumeReclaimPolicy": policy}))
    };
    let mut ours = of(reference(Some("c1")), "Delete");
    Arc::make_mut(&mut ours).metadata.annotations =
        Some([(plan::PROVISIONED_BY.to_owned(), local_path::PROVISIONER.to_owned())].into());
    let mut chosen = of(reference(Some("c1")), "Retain");
    Arc::make_mut(&mut chosen).metadata.annotations =
        Some([(volumes::BOUND_BY_CONTROLLER.to_owned(), "yes".to_owned())].into());
    for (volume, claim, expected) in [
        (of(Value::Null, "Retain"), None, VolumeStep::Phase("Available")),
        (of(reference(None), "Retain"), None, VolumeStep::Phase("Available")),
        (of(reference(None), "Retain"), Some(&unbound), VolumeStep::Ask),
        (of(reference(Some("c1")), "Retain"), Some(&bound), VolumeStep::Phase("Bound")),
        (of(reference(Some("c1")), "Retain"), Some(&unbound), VolumeStep::Ask),
        (of(reference(Some("c1")), "Retain"), None, VolumeStep::Phase("Released")),
        (of(reference(Some("c0")), "Retain"), Some(&bound), VolumeStep::Phase("Released")),
        (of(reference(Some("c1")), "Delete"), None, VolumeStep::Phase("Released")),
        (ours, None, VolumeStep::Delete),
        (chosen, Some(&elsewhere), VolumeStep::Free),
    ] {
        assert_eq!(plan::volume(&volume, claim), expected, "{:?}", volume.spec);
    }
}

#[test]
fn a_local_volume_lies_on_its_node_and_is_meant_for_its_claim() {
    let claim = claim(json!({"storageClassName": "c"}), json!({}));
    let volume = local_path::volume(&class(local_path::PROVISIONER, "WaitForFirstConsumer"), &claim, "n1");
    assert!(volumes::is_reserved_for(&volume, &claim) && volumes::mismatch(&volume, &claim).is_none());
    let spec = volume.spec.unwrap();
    assert_eq!(spec.host_path.unwrap().path, "/var/lib/kube-lite/storage/pvc-c1_default_data");
    assert_eq!(spec.persistent_volume_reclaim_policy.as_deref(), Some("Delete"));
}

#[test]
fn a_local_volume_tells_where_it_lies() {
    let class = class(local_path::PROVISIONER, "WaitForFirstConsumer");
    let made = local_path::volume(&class, &claim(json!({}), json!({})), "host-1");
    assert_eq!(local_path::place(&made), Some(("host-1", "pvc-c1_default_data")));
    let mut elsewhere = made;
    elsewhere.spec.as_mut().unwrap().host_path.as_mut().unwrap().path = "/srv/pvc-c1_default_data".to_owned();
    assert_eq!(local_path::place(&elsewhere), None);
}
