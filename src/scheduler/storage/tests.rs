//! Claims, volumes and nodes: what fits, what is promised, and what is said when nothing fits.

use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::Plan;
use crate::client::Key;
use crate::scheduler::cluster::Cluster;
use crate::scheduler::decide::{Decider, Misfit};
use crate::scheduler::fixtures::{cluster, node, pod_with};
use crate::scheduler::framework::{CLAIMS, VOLUMES};
use crate::scheduler::plugins::Plugins;
use crate::scheduler::pod_info::PodInfo;

fn object<K: DeserializeOwned>(body: Value) -> Arc<K> {
    Arc::new(serde_json::from_value(body).unwrap())
}

/// A cluster of two nodes, `a` and `b`, and a class that waits for consumers.
fn two_nodes(provisioner: &str) -> Cluster {
    let zone = |zone: &str| json!({"metadata": {"labels": {"topology.kubernetes.io/zone": zone}}});
    let mut cluster = cluster([node("a", zone("x")), node("b", zone("y"))], &[]);
    let class = json!({"metadata": {"name": "late"}, "provisioner": provisioner, "volumeBindingMode": "WaitForFirstConsumer"});
    cluster.storage.classes.insert("late".into(), object(class));
    cluster
}

fn claim(cluster: &mut Cluster, name: &str, patch: Value) {
    let mut body = json!({
        "metadata": {"name": name, "namespace": "default", "uid": format!("uid-{name}")},
        "spec": {"storageClassName": "late", "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    });
    json_patch::merge(&mut body, &patch);
    cluster.storage.claims.insert(Key::new("default", name), object(body));
}

fn bound_to(volume: &str) -> Value {
    json!({"metadata": {"annotations": {"pv.kubernetes.io/bind-completed": "yes"}}, "spec": {"volumeName": volume}})
}

fn on(node: &str) -> Value {
    let here = json!({"key": "kubernetes.io/hostname", "operator": "In", "values": [node]});
    json!({"spec": {"nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [here]}]}}}})
}

fn volume(cluster: &mut Cluster, name: &str, size: &str, patch: Value) {
    let mut body = json!({
        "metadata": {"name": name},
        "spec": {"storageClassName": "late", "accessModes": ["ReadWriteOnce"], "capacity": {"storage": size}},
        "status": {"phase": "Available"},
    });
    json_patch::merge(&mut body, &patch);
    cluster.storage.volumes.insert(name.into(), object(body));
}

fn user(name: &str, claims: &[&str]) -> Arc<PodInfo> {
    let volumes: Vec<_> = claims
        .iter()
        .map(|claim| json!({"name": claim, "persistentVolumeClaim": {"claimName": claim}}))
        .collect();
    pod_with(name, json!({"spec": {"volumes": volumes}}))
}

fn decide(cluster: &Cluster, pod: &PodInfo) -> Result<String, Misfit> {
    Decider::new(Plugins::default(), 1).decide(pod, cluster).map(|node| node.to_string())
}

fn plan(cluster: &Cluster, pod: &PodInfo, node: &str) -> Plan {
    let needs = cluster.storage.needs(pod).unwrap();
    cluster.storage.plan(&needs, cluster.node(node).unwrap()).unwrap()
}

/// Which volume each claim of the plan gets; none if it is to be made.
fn pairs(plan: &Plan) -> Vec<(String, Option<String>)> {
    let name = |meta: &kube::api::ObjectMeta| meta.name.clone().unwrap();
    let bindings = plan.bindings.iter().map(|(c, v)| (name(&c.metadata), Some(name(&v.metadata))));
    bindings.chain(plan.provisions.iter().map(|claim| (name(&claim.metadata), None))).collect()
}

#[test]
fn without_its_claim_no_node_will_do_and_the_reason_is_told_once() {
    let mut cluster = two_nodes("csi.example");
    for (name, patch) in [
        ("immediate", json!({"spec": {"storageClassName": "fast"}})),
        ("lost", json!({"spec": {"volumeName": "v"}, "status": {"phase": "Lost"}})),
        ("leaving", json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}})),
        ("named", json!({"spec": {"volumeName": "v"}})),
        ("orphan", bound_to("v")),
    ] {
        claim(&mut cluster, name, patch);
    }
    let unbound = "pod has unbound immediate PersistentVolumeClaims";
    for (name, why) in [
        ("missing", "persistentvolumeclaim \"missing\" not found"),
        ("immediate", unbound),
        ("lost", "persistentvolumeclaim \"lost\" bound to non-existent persistentvolume \"v\""),
        ("leaving", "persistentvolumeclaim \"leaving\" is being deleted"),
        ("named", unbound),
        ("orphan", "persistentvolume \"v\" not found"),
    ] {
        let misfit = decide(&cluster, &user("p", &[name])).unwrap_err();
        assert_eq!(misfit.to_string(), format!("0/2 nodes are available: {why}."));
        assert!(misfit.resolvable.is_empty() && misfit.events & CLAIMS != 0 && misfit.events & VOLUMES != 0);
    }
}

#[test]
fn an_ephemeral_claim_must_be_the_pods_own() {
    let mut cluster = two_nodes("csi.example");
    let template = json!({"spec": {"accessModes": ["ReadWriteOnce"]}});
    let pod = pod_with(
        "p",
        json!({"spec": {"volumes": [{"name": "tmp", "ephemeral": {"volumeClaimTemplate": template}}]}}),
    );
    let why = |cluster: &Cluster| cluster.storage.needs(&pod).unwrap_err();
    assert_eq!(
        why(&cluster),
        "waiting for ephemeral volume controller to create the persistentvolumeclaim \"p-tmp\""
    );
    claim(&mut cluster, "p-tmp", json!({}));
    assert_eq!(why(&cluster), "PVC default/p-tmp was not created for pod default/p (pod is not owner)");
    let owner = json!({"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "uid-p", "controller": true});
    claim(&mut cluster, "p-tmp", json!({"metadata": {"ownerReferences": [owner]}}));
    assert!(decide(&cluster, &pod).is_ok());
}

#[test]
fn a_pod_follows_its_bound_volume() {
    let mut cluster = two_nodes("csi.example");
    claim(&mut cluster, "c", bound_to("v"));
    volume(&mut cluster, "v", "1Gi", on("b"));
    assert_eq!(decide(&cluster, &user("p", &["c"])).unwrap(), "b");
    cluster.remove_node("b");
    let misfit = decide(&cluster, &user("p", &["c"])).unwrap_err();
    assert_eq!(
        misfit.to_string(),
        "0/1 nodes are available: 1 node(s) didn't match PersistentVolume's node affinity."
    );
}

#[test]
fn a_volume_stays_in_its_zone() {
    let mut cluster = two_nodes("csi.example");
    claim(&mut cluster, "c", bound_to("v"));
    for (label, zones, expected) in [
        ("topology.kubernetes.io/zone", "y", Some("b")),
        ("failure-domain.beta.kubernetes.io/zone", "w__y", Some("b")),
        ("topology.kubernetes.io/zone", "z", None),
    ] {
        volume(&mut cluster, "v", "1Gi", json!({"metadata": {"labels": {label: zones}}}));
        let decided = decide(&cluster, &user("p", &["c"]));
        assert_eq!(decided.as_ref().ok().map(String::as_str), expected, "{label} {zones}");
        if let Err(misfit) = decided {
            assert!(misfit.to_string().contains("2 node(s) had no available volume zone"), "{misfit}");
        }
    }
}

#[test]
fn unbound_claims_get_the_smallest_volumes_in_reach_each_its_own() {
    let mut cluster = two_nodes("kubernetes.io/no-provisioner");
    claim(&mut cluster, "small", json!({}));
    claim(&mut cluster, "large", json!({"spec": {"resources": {"requests": {"storage": "3Gi"}}}}));
    volume(&mut cluster, "one", "1Gi", on("b"));
    volume(&mut cluster, "five", "5Gi", on("b"));
    volume(&mut cluster, "elsewhere", "1Gi", on("a"));
    volume(
        &mut cluster,
        "taken",
        "1Gi",
        json!({"spec": {"claimRef": {"name": "x", "namespace": "y", "uid": "z"}}}),
    );
    let pod = user("p", &["large", "small"]);
    assert_eq!(decide(&cluster, &pod).unwrap(), "b");
    let expected = [("small", "one"), ("large", "five")].map(|(c, v)| (c.to_owned(), Some(v.to_owned())));
    assert_eq!(pairs(&plan(&cluster, &pod, "b")), expected);
    claim(&mut cluster, "third", json!({}));
    let misfit = decide(&cluster, &user("p", &["large", "small", "third"])).unwrap_err();
    let expected = "0/2 nodes are available: 2 node(s) didn't find available persistent volumes to bind.";
    assert_eq!(misfit.to_string(), expected);
}

#[test]
fn what_is_promised_to_one_pod_is_not_given_to_another() {
    let mut cluster = two_nodes("kubernetes.io/no-provisioner");
    volume(&mut cluster, "v", "1Gi", on("b"));
    claim(&mut cluster, "first", json!({}));
    claim(&mut cluster, "second", json!({}));
    let (first, twin, second) = (user("p", &["first"]), user("q", &["first"]), user("r", &["second"]));
    let made = plan(&cluster, &first, "b");
    cluster.storage.promise(&first, &"b".into(), &made);
    assert!(decide(&cluster, &second).is_err(), "the only volume is promised");
    assert_eq!(decide(&cluster, &twin).unwrap(), "b", "the same claim gets the same volume");
    assert_eq!(plan(&cluster, &twin, "b"), made);
    cluster.storage.release(&first);
    assert_eq!(decide(&cluster, &second).unwrap(), "b");
}

#[test]
fn a_claim_without_a_volume_is_provisioned_where_its_first_pod_goes() {
    let mut cluster = two_nodes("csi.example");
    claim(&mut cluster, "c", json!({}));
    let (first, second) = (user("p", &["c"]), user("q", &["c"]));
    let made = plan(&cluster, &first, "b");
    assert_eq!(pairs(&made), [("c".to_owned(), None)]);
    cluster.storage.promise(&first, &"b".into(), &made);
    assert_eq!(decide(&cluster, &second).unwrap(), "b");
    cluster.storage.release(&first);
    let annotation = json!({"metadata": {"annotations": {"volume.kubernetes.io/selected-node": "a"}}});
    claim(&mut cluster, "c", annotation);
    assert_eq!(decide(&cluster, &second).unwrap(), "a", "once selected, always selected");
}

#[test]
fn classes_and_drivers_say_where_volumes_can_be_made() {
    let mut cluster = two_nodes("csi.example");
    claim(&mut cluster, "c", json!({}));
    let pod = user("p", &["c"]);
    let terms = json!([{"matchLabelExpressions": [{"key": "topology.kubernetes.io/zone", "values": ["y"]}]}]);
    let class = |topologies: Value| {
        object(json!({"metadata": {"name": "late"}, "provisioner": "csi.example",
            "volumeBindingMode": "WaitForFirstConsumer", "allowedTopologies": topologies}))
    };
    cluster.storage.classes.insert("late".into(), class(terms));
    assert_eq!(decide(&cluster, &pod).unwrap(), "b");
    cluster.storage.classes.insert("late".into(), class(Value::Null));
    let driver = object(json!({"metadata": {"name": "csi.example"}, "spec": {"storageCapacity": true}}));
    cluster.storage.drivers.insert("csi.example".into(), driver);
    let offer = |size: &str| {
        object(
            json!({"metadata": {"name": "o", "namespace": "csi"}, "storageClassName": "late", "capacity": size,
            "nodeTopology": {"matchLabels": {"kubernetes.io/hostname": "a"}}}),
        )
    };
    cluster.storage.capacities.insert(Key::new("csi", "o"), offer("1Mi"));
    let none = "0/2 nodes are available: 2 node(s) did not have enough free storage.";
    assert_eq!(decide(&cluster, &pod).unwrap_err().to_string(), none);
    cluster.storage.capacities.insert(Key::new("csi", "o"), offer("1Gi"));
    assert_eq!(decide(&cluster, &pod).unwrap(), "a");
}

#[test]
fn a_claim_for_one_pod_is_used_by_one_pod_anywhere() {
    let mut cluster = two_nodes("csi.example");
    let mut lonely = bound_to("v");
    lonely["spec"]["accessModes"] = json!(["ReadWriteOncePod"]);
    claim(&mut cluster, "c", lonely);
    volume(&mut cluster, "v", "1Gi", json!({}));
    let volumes = json!([{"name": "c", "persistentVolumeClaim": {"claimName": "c"}}]);
    cluster.place(pod_with("first", json!({"spec": {"nodeName": "a", "volumes": volumes}})));
    let misfit = decide(&cluster, &user("second", &["c"])).unwrap_err();
    assert_eq!(
        misfit.to_string(),
        "0/2 nodes are available: 2 node has pod using PersistentVolumeClaim with the same name and \
         ReadWriteOncePod access mode."
    );
    assert_eq!(misfit.resolvable.len(), 2, "taking the other pod away may help");
}

#[test]
fn disks_that_pods_name_themselves_are_not_shared_on_a_node_unless_read() {
    let disk = |reads: bool| json!([{"name": "d", "iscsi": {"targetPortal": "p", "iqn": "i", "lun": 0, "readOnly": reads}}]);
    for (first, second, shared) in [(true, true, true), (true, false, false), (false, false, false)] {
        let mut cluster = cluster([node("a", json!({}))], &[]);
        cluster.place(pod_with("first", json!({"spec": {"nodeName": "a", "volumes": disk(first)}})));
        let decided = decide(&cluster, &pod_with("second", json!({"spec": {"volumes": disk(second)}})));
        assert_eq!(decided.is_ok(), shared, "{first} {second}");
    }
}

#[test]
fn a_driver_takes_only_so_many_volumes_on_a_node() {
    let mut cluster = two_nodes("csi.example");
    for name in ["c1", "c2"] {
        claim(&mut cluster, name, bound_to(name));
        let csi = json!({"spec": {"csi": {"driver": "csi.example", "volumeHandle": name}}});
        volume(&mut cluster, name, "1Gi", csi);
    }
    let limit = |count: i32| {
        let driver = json!({"name": "csi.example", "nodeID": "a", "allocatable": {"count": count}});
        object(json!({"metadata": {"name": "a"}, "spec": {"drivers": [driver]}}))
    };
    cluster.storage.csi_nodes.insert("a".into(), limit(1));
    cluster.remove_node("b");
    let volumes = json!([{"name": "c", "persistentVolumeClaim": {"claimName": "c1"}}]);
    cluster.place(pod_with("first", json!({"spec": {"nodeName": "a", "volumes": volumes}})));
    assert!(decide(&cluster, &user("p", &["c1"])).is_ok(), "the same volume is attached once");
    let misfit = decide(&cluster, &user("p", &["c2"])).unwrap_err();
    assert_eq!(misfit.to_string(), "0/1 nodes are available: 1 node(s) exceed max volume count.");
    cluster.storage.csi_nodes.insert("a".into(), limit(2));
    assert!(decide(&cluster, &user("p", &["c2"])).is_ok());
}
