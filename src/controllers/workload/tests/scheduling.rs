//! The scheduler against a real API server: the behaviours of the conformance tests, and storage.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::{Event, Node, PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::scheduling::v1::PriorityClass;
use k8s_openapi::api::storage::v1::StorageClass;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use kube::core::{NamespaceResourceScope, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::cluster::Cluster;
use crate::client::informer::Change;

const FOO: &str = "scheduling.k8s.io/foo";

fn pod(name: &str, spec: &Value) -> Value {
    let mut body = json!({"metadata": {"name": name, "labels": {"app": name}},
                          "spec": {"containers": [{"name": "c", "image": "runs"}]}});
    json_patch::merge(&mut body["spec"], spec);
    body
}

/// The spec of a pod that asks for some of a resource.
fn asks(resource: &str, amount: &str) -> Value {
    let amount = json!({(resource): amount});
    json!({"containers": [{"name": "c", "image": "runs", "resources": {"requests": amount, "limits": amount}}]})
}

fn on_node(name: &str) -> Value {
    let field = json!({"key": "metadata.name", "operator": "In", "values": [name]});
    let terms = json!([{"matchFields": [field]}]);
    json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}}})
}

fn both(mut one: Value, other: &Value) -> Value {
    json_patch::merge(&mut one, other);
    one
}

async fn create<K>(cluster: &Cluster, body: Value)
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + std::fmt::Debug
        + Serialize
        + DeserializeOwned,
{
    let object: K = serde_json::from_value(body).unwrap();
    cluster.api::<K>().create(&PostParams::default(), &object).await.unwrap();
}

async fn create_global<K>(cluster: &Cluster, body: Value)
where
    K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + Serialize + DeserializeOwned,
    K: Resource<Scope = kube::core::ClusterResourceScope>,
{
    let object: K = serde_json::from_value(body).unwrap();
    Api::<K>::all(cluster.admin()).create(&PostParams::default(), &object).await.unwrap();
}

fn node_of(pods: &[Arc<Pod>], name: &str) -> Option<String> {
    let pod = pods.iter().find(|pod| pod.metadata.name.as_deref() == Some(name))?;
    pod.spec.as_ref()?.node_name.clone()
}

fn is_running(pods: &[Arc<Pod>], name: &str) -> bool {
    let pod = pods.iter().find(|pod| pod.metadata.name.as_deref() == Some(name));
    pod.and_then(|pod| pod.status.as_ref()?.phase.as_deref()) == Some("Running")
}

async fn runs(cluster: &Cluster, name: &str) {
    cluster.eventually::<Pod>(&format!("{name} running"), |pods| is_running(pods, name)).await;
}

/// Waits until the pod is said to fit nowhere, by an event of its name and by its condition.
async fn fits_nowhere(cluster: &Cluster, name: &str) {
    cluster
        .eventually::<Event>("a warning", |events| {
            events.iter().any(|event| {
                event.metadata.name.as_deref().is_some_and(|own| own.starts_with(name))
                    && event.reason.as_deref() == Some("FailedScheduling")
                    && event.type_.as_deref() == Some("Warning")
            })
        })
        .await;
    cluster
        .eventually::<Pod>("the condition", |pods| {
            let pod = pods.iter().find(|pod| pod.metadata.name.as_deref() == Some(name)).unwrap();
            let conditions =
                pod.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
            assert_eq!(node_of(pods, name), None);
            conditions.iter().any(|condition| {
                condition.type_ == "PodScheduled"
                    && condition.status == "False"
                    && condition.reason.as_deref() == Some("Unschedulable")
            })
        })
        .await;
}

async fn priorities(cluster: &Cluster, classes: &[(&str, i32)]) {
    for (name, value) in classes {
        create_global::<PriorityClass>(cluster, json!({"metadata": {"name": name}, "value": value})).await;
    }
}

/// Lets nodes offer more of a resource of the test's own.
async fn advertise(cluster: &Cluster, nodes: &[&str], resource: &str, amount: &str) {
    let api: Api<Node> = Api::all(cluster.admin());
    let offered = json!({(resource): amount});
    let patch = Patch::Strategic(json!({"status": {"capacity": offered, "allocatable": offered}}));
    for name in nodes {
        api.patch_status(name, &PatchParams::default(), &patch).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn resource_limits_of_pods_that_are_allowed_to_run_are_kept() {
    let cluster = Cluster::start(2).await;
    cluster.furnished().await;
    for node in ["n0", "n1"] {
        create::<Pod>(&cluster, pod(&format!("filler-{node}"), &both(asks("cpu", "2800m"), &on_node(node))))
            .await;
        runs(&cluster, &format!("filler-{node}")).await;
        assert_eq!(node_of(&cluster.list::<Pod>(), &format!("filler-{node}")).as_deref(), Some(node));
    }
    create::<Pod>(&cluster, pod("additional", &asks("cpu", "2"))).await;
    fits_nowhere(&cluster, "additional").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_node_selector_is_respected_whether_it_matches_or_not() {
    let cluster = Cluster::start(2).await;
    cluster.furnished().await;
    let key = "kubernetes.io/e2e-42";
    create::<Pod>(&cluster, pod("with-labels", &json!({"nodeSelector": {(key): "42"}}))).await;
    fits_nowhere(&cluster, "with-labels").await;
    let api: Api<Node> = Api::all(cluster.admin());
    let label = Patch::Strategic(json!({"metadata": {"labels": {(key): "42"}}}));
    api.patch("n1", &PatchParams::default(), &label).await.unwrap();
    runs(&cluster, "with-labels").await;
    assert_eq!(node_of(&cluster.list::<Pod>(), "with-labels").as_deref(), Some("n1"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_host_port_and_protocol_conflict_though_one_uses_all_addresses() {
    let cluster = Cluster::start(1).await;
    cluster.furnished().await;
    let with_port = |host_ip: Option<&str>, protocol: &str| {
        let port = json!({"containerPort": 8080, "hostPort": 54322, "protocol": protocol, "hostIP": host_ip});
        json!({"containers": [{"name": "c", "image": "runs", "ports": [port]}]})
    };
    create::<Pod>(&cluster, pod("pod4", &with_port(None, "TCP"))).await;
    runs(&cluster, "pod4").await;
    create::<Pod>(&cluster, pod("pod5", &with_port(Some("127.0.0.1"), "TCP"))).await;
    fits_nowhere(&cluster, "pod5").await;
    create::<Pod>(&cluster, pod("pod6", &with_port(Some("127.0.0.1"), "UDP"))).await;
    runs(&cluster, "pod6").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn basic_preemption_takes_the_least_important_pod_and_tells_it_why() {
    let cluster = Cluster::start(2).await;
    cluster.furnished().await;
    priorities(&cluster, &[("low", 1), ("medium", 100), ("high", 1000)]).await;
    advertise(&cluster, &["n0", "n1"], FOO, "5").await;
    let of_class = |class: &str| json!({"priorityClassName": class});
    for (name, class, node) in [
        ("a-low", "low", "n0"),
        ("a-medium", "medium", "n0"),
        ("b-medium", "medium", "n1"),
        ("c-medium", "medium", "n1"),
    ] {
        let mut body = pod(name, &both(both(asks(FOO, "2"), &on_node(node)), &of_class(class)));
        if class == "low" {
            body["metadata"]["finalizers"] = json!(["example.com/test-finalizer"]);
        }
        create::<Pod>(&cluster, body).await;
        runs(&cluster, name).await;
    }
    create::<Pod>(&cluster, pod("preemptor", &both(asks(FOO, "3"), &of_class("high")))).await;
    let find = |pods: &[Arc<Pod>], name: &str| {
        pods.iter().find(|pod| pod.metadata.name.as_deref() == Some(name)).cloned()
    };
    cluster
        .eventually::<Pod>("a victim that knows why", |pods| {
            let Some(victim) = find(pods, "a-low") else { return false };
            let conditions =
                victim.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
            victim.metadata.deletion_timestamp.is_some()
                && conditions.iter().any(|condition| {
                    condition.type_ == "DisruptionTarget"
                        && condition.status == "True"
                        && condition.reason.as_deref() == Some("PreemptionByScheduler")
                })
        })
        .await;
    let none = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    cluster.api::<Pod>().patch("a-low", &PatchParams::default(), &none).await.unwrap();
    runs(&cluster, "preemptor").await;
    let pods = cluster.list::<Pod>();
    assert_eq!(node_of(&pods, "preemptor").as_deref(), Some("n0"));
    assert!(find(&pods, "a-low").is_none());
    for name in ["a-medium", "b-medium", "c-medium"] {
        assert!(
            find(&pods, name).is_some_and(|pod| pod.metadata.deletion_timestamp.is_none()),
            "{name} was spared"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_critical_pod_preempts_a_less_important_one() {
    let cluster = Cluster::start(1).await;
    cluster.furnished().await;
    priorities(&cluster, &[("low", 1)]).await;
    advertise(&cluster, &["n0"], FOO, "3").await;
    create::<Pod>(&cluster, pod("victim", &both(asks(FOO, "2"), &json!({"priorityClassName": "low"})))).await;
    runs(&cluster, "victim").await;
    let critical = both(asks(FOO, "2"), &json!({"priorityClassName": "system-cluster-critical"}));
    let critical: Pod = serde_json::from_value(pod("critical", &critical)).unwrap();
    let system: Api<Pod> = Api::namespaced(cluster.admin(), "kube-system");
    cluster
        .eventually_anywhere::<k8s_openapi::api::core::v1::ServiceAccount>("its account", |all| {
            all.iter().any(|account| {
                account.metadata.namespace.as_deref() == Some("kube-system")
                    && account.metadata.name.as_deref() == Some("default")
            })
        })
        .await;
    system.create(&PostParams::default(), &critical).await.unwrap();
    cluster.eventually_anywhere::<Pod>("the critical pod running", |pods| is_running(pods, "critical")).await;
    assert!(cluster.list::<Pod>().is_empty(), "the victim is gone");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn preemption_takes_just_enough_pods_of_replica_sets_and_only_once() {
    let cluster = Cluster::start(1).await;
    priorities(&cluster, &[("p1", 1), ("p2", 2), ("p3", 3), ("p4", 4)]).await;
    let fake = "example.com/fakecpu";
    advertise(&cluster, &["n0"], fake, "1000").await;
    let seen = Arc::new([const { AtomicUsize::new(0) }; 3]);
    let counts = seen.clone();
    let _guard = cluster.on_pods(move |change| {
        let name = change.object().metadata.name.as_deref().unwrap_or_default();
        if let (Change::Added(_), Some(index)) =
            (change, ["rs-pod1", "rs-pod2", "rs-pod3"].iter().position(|p| name.starts_with(p)))
        {
            counts[index].fetch_add(1, Ordering::SeqCst);
        }
    });
    let of = |class: &str, amount: &str| both(asks(fake, amount), &json!({"priorityClassName": class}));
    for (name, class, amount) in [("pod1", "p1", "200"), ("pod2", "p2", "300"), ("pod3", "p3", "450")] {
        let template = json!({"metadata": {"labels": {"name": name}}, "spec": of(class, amount)});
        let spec = json!({"replicas": 1, "selector": {"matchLabels": {"name": name}}, "template": template});
        create::<ReplicaSet>(&cluster, json!({"metadata": {"name": format!("rs-{name}")}, "spec": spec}))
            .await;
        cluster
            .eventually::<ReplicaSet>("an available pod", |sets| {
                let set = sets.iter().find(|set| set.metadata.name == Some(format!("rs-{name}")));
                set.and_then(|set| set.status.as_ref()?.available_replicas) == Some(1)
            })
            .await;
    }
    create::<Pod>(&cluster, pod("pod4", &of("p4", "500"))).await;
    runs(&cluster, "pod4").await;
    let now = || [0, 1, 2].map(|index: usize| seen[index].load(Ordering::SeqCst));
    cluster.eventually::<Pod>("the replaced pods", |_| now() == [2, 2, 1]).await;
    // What waits now must not take anything away: it is looked at again when another pod comes and goes.
    create::<Pod>(&cluster, pod("passer-by", &of("p1", "1"))).await;
    runs(&cluster, "passer-by").await;
    cluster.api::<Pod>().delete("passer-by", &DeleteParams::default()).await.unwrap();
    cluster.eventually::<Pod>("no passer-by", |pods| node_of(pods, "passer-by").is_none()).await;
    assert_eq!(now(), [2, 2, 1], "too many were preempted");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn preemption_spares_what_a_disruption_budget_protects() {
    let cluster = Cluster::start(2).await;
    cluster.furnished().await;
    priorities(&cluster, &[("low", 1), ("medium", 5), ("high", 10)]).await;
    let of = |class: &str| both(asks("cpu", "3"), &json!({"priorityClassName": class}));
    for (name, class, node) in [("guarded", "low", "n0"), ("free", "medium", "n1")] {
        create::<Pod>(&cluster, pod(name, &both(of(class), &on_node(node)))).await;
        runs(&cluster, name).await;
    }
    let spec = json!({"minAvailable": 1, "selector": {"matchLabels": {"app": "guarded"}}});
    create::<PodDisruptionBudget>(&cluster, json!({"metadata": {"name": "b"}, "spec": spec})).await;
    cluster
        .eventually::<PodDisruptionBudget>("a budget in force", |all| {
            all.first().and_then(|budget| budget.status.as_ref()?.current_healthy) == Some(1)
        })
        .await;
    create::<Pod>(&cluster, pod("preemptor", &of("high"))).await;
    runs(&cluster, "preemptor").await;
    assert_eq!(node_of(&cluster.list::<Pod>(), "preemptor").as_deref(), Some("n1"));
    assert!(is_running(&cluster.list::<Pod>(), "guarded"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn priority_classes_keep_their_value_and_take_descriptions() {
    let cluster = Cluster::start(0).await;
    priorities(&cluster, &[("p1", 1), ("p2", 2)]).await;
    let api: Api<PriorityClass> = Api::all(cluster.admin());
    let patch = |body: Value| Patch::Strategic(body);
    assert!(api.patch("p1", &PatchParams::default(), &patch(json!({"value": 10}))).await.is_err());
    let mut changed = api.get("p2").await.unwrap();
    changed.value = Some(20);
    assert!(api.replace("p2", &PostParams::default(), &changed).await.is_err());
    let description = json!({"description": "updated description"});
    api.patch("p1", &PatchParams::default(), &patch(description)).await.unwrap();
    changed.value = Some(2);
    changed.description = Some("updated description".into());
    api.replace("p2", &PostParams::default(), &changed).await.unwrap();
    for (name, value) in [("p1", 1), ("p2", 2)] {
        let live = api.get(name).await.unwrap();
        assert_eq!((live.value, live.description.as_deref()), (Some(value), Some("updated description")));
    }
}

fn claim(class: &str) -> Value {
    json!({"metadata": {"name": "c"}, "spec": {"storageClassName": class, "accessModes": ["ReadWriteOnce"],
           "resources": {"requests": {"storage": "1Mi"}}}})
}

fn uses_claim() -> Value {
    json!({"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]})
}

fn bound_volume(claims: &[Arc<PersistentVolumeClaim>]) -> Option<String> {
    let claim = claims.first()?;
    let is_bound = claim.status.as_ref()?.phase.as_deref() == Some("Bound");
    claim.spec.as_ref()?.volume_name.clone().filter(|_| is_bound)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_is_provisioned_for_the_node_of_its_first_pod_and_later_pods_follow_it() {
    let cluster = Cluster::start(3).await;
    cluster.furnished().await;
    create::<PersistentVolumeClaim>(&cluster, claim("local-path")).await;
    create::<Pod>(&cluster, pod("first", &both(uses_claim(), &on_node("n1")))).await;
    runs(&cluster, "first").await;
    cluster.eventually::<PersistentVolumeClaim>("a bound claim", |all| bound_volume(all).is_some()).await;
    let claims = cluster.list::<PersistentVolumeClaim>();
    let annotations = claims[0].metadata.annotations.clone().unwrap();
    assert_eq!(annotations["volume.kubernetes.io/selected-node"], "n1");
    cluster.api::<Pod>().delete("first", &DeleteParams::default()).await.unwrap();
    cluster.eventually::<Pod>("no pod", <[_]>::is_empty).await;
    for name in ["second", "third", "fourth"] {
        create::<Pod>(&cluster, pod(name, &uses_claim())).await;
        runs(&cluster, name).await;
        assert_eq!(node_of(&cluster.list::<Pod>(), name).as_deref(), Some("n1"), "{name} follows its volume");
    }
    create::<Pod>(&cluster, pod("elsewhere", &both(uses_claim(), &on_node("n2")))).await;
    fits_nowhere(&cluster, "elsewhere").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_goes_where_there_is_a_volume_for_its_claim() {
    let cluster = Cluster::start(3).await;
    cluster.furnished().await;
    let class = json!({"metadata": {"name": "by-hand"}, "provisioner": "kubernetes.io/no-provisioner",
                       "volumeBindingMode": "WaitForFirstConsumer"});
    create_global::<StorageClass>(&cluster, class).await;
    create::<PersistentVolumeClaim>(&cluster, claim("by-hand")).await;
    create::<Pod>(&cluster, pod("p", &uses_claim())).await;
    fits_nowhere(&cluster, "p").await;
    let here = json!({"key": "kubernetes.io/hostname", "operator": "In", "values": ["n2"]});
    let affinity = json!({"required": {"nodeSelectorTerms": [{"matchExpressions": [here]}]}});
    let spec = json!({"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "storageClassName": "by-hand",
                      "local": {"path": "/mnt/disk"}, "nodeAffinity": affinity});
    create_global::<PersistentVolume>(&cluster, json!({"metadata": {"name": "disk"}, "spec": spec})).await;
    runs(&cluster, "p").await;
    assert_eq!(node_of(&cluster.list::<Pod>(), "p").as_deref(), Some("n2"));
    assert_eq!(bound_volume(&cluster.list::<PersistentVolumeClaim>()).as_deref(), Some("disk"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provisioner_that_gives_up_has_the_pod_scheduled_again() {
    let cluster = Cluster::start(2).await;
    cluster.furnished().await;
    let class = json!({"metadata": {"name": "csi"}, "provisioner": "csi.example",
                       "volumeBindingMode": "WaitForFirstConsumer"});
    create_global::<StorageClass>(&cluster, class).await;
    create::<PersistentVolumeClaim>(&cluster, claim("csi")).await;
    create::<Pod>(&cluster, pod("p", &uses_claim())).await;
    let selected = |claims: &[Arc<PersistentVolumeClaim>]| {
        claims.first().and_then(|claim| crate::client::volumes::selected_node(claim).map(str::to_owned))
    };
    cluster.eventually::<PersistentVolumeClaim>("a selected node", |all| selected(all).is_some()).await;
    let api = cluster.api::<PersistentVolumeClaim>();
    let back =
        Patch::Merge(json!({"metadata": {"annotations": {"volume.kubernetes.io/selected-node": null}}}));
    api.patch("c", &PatchParams::default(), &back).await.unwrap();
    cluster.eventually::<PersistentVolumeClaim>("a selected node again", |all| selected(all).is_some()).await;
    assert_eq!(node_of(&cluster.list::<Pod>(), "p"), None, "it waits for its volume");
    let claim = api.get("c").await.unwrap();
    let reference = json!({"namespace": "default", "name": "c", "uid": claim.metadata.uid});
    let spec = json!({"capacity": {"storage": "1Mi"}, "accessModes": ["ReadWriteOnce"], "storageClassName": "csi",
                      "csi": {"driver": "csi.example", "volumeHandle": "h"}, "claimRef": reference});
    create_global::<PersistentVolume>(&cluster, json!({"metadata": {"name": "made"}, "spec": spec})).await;
    runs(&cluster, "p").await;
    assert_eq!(bound_volume(&cluster.list::<PersistentVolumeClaim>()).as_deref(), Some("made"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_with_gates_waits_for_the_last_of_them() {
    let cluster = Cluster::start(1).await;
    cluster.furnished().await;
    create::<Pod>(&cluster, pod("gated", &json!({"schedulingGates": [{"name": "a/x"}, {"name": "a/y"}]})))
        .await;
    let is_gated = |pods: &[Arc<Pod>]| {
        let conditions =
            pods.first().and_then(|pod| pod.status.as_ref()?.conditions.clone()).unwrap_or_default();
        conditions.iter().any(|c| c.type_ == "PodScheduled" && c.reason.as_deref() == Some("SchedulingGated"))
    };
    cluster.eventually::<Pod>("a gated pod", is_gated).await;
    let gates = |gates: Value| Patch::Merge(json!({"spec": {"schedulingGates": gates}}));
    let api = cluster.api::<Pod>();
    api.patch("gated", &PatchParams::default(), &gates(json!([{"name": "a/y"}]))).await.unwrap();
    assert_eq!(node_of(&[Arc::new(api.get("gated").await.unwrap())], "gated"), None);
    api.patch("gated", &PatchParams::default(), &gates(json!([]))).await.unwrap();
    runs(&cluster, "gated").await;
}
