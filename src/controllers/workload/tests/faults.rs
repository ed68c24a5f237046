//! Every workload controller on a bad way to the API server, and a churn of workloads that must leave nothing behind.
//!
//! The seed is printed; a failed run is repeated by putting its seed in the place of the random one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{
    Namespace, PersistentVolumeClaim, Pod, ReplicationController, ResourceQuota, Service,
};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams, PropagationPolicy};
use kube::{Client, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::cluster::Cluster;
use crate::controllers::job::indexes::Indexes;

/// A variable of the environment that says how many seconds the churn lasts, and what it lasts without.
const CHURN: (&str, u64) = ("KUBE_LITE_SOAK_SECONDS", 20);
/// So many namespaces may be on their way out at once.
const BACKLOG: usize = 10;
/// Churns that last this long must not need more memory at the end than in the middle, up to a quarter.
const LONG: Duration = Duration::from_secs(120);

/// How long the churn lasts.
#[allow(clippy::disallowed_methods, reason = "a test has no configuration but its environment")]
fn churn_time() -> Duration {
    let seconds = std::env::var(CHURN.0).ok().and_then(|text| text.parse().ok());
    Duration::from_secs(seconds.unwrap_or(CHURN.1))
}

/// The memory that this process holds, in pages.
fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    text.split_whitespace().nth(1).unwrap().parse().unwrap()
}

async fn create<K>(client: &Client, namespace: &str, name: &str, spec: Value)
where
    K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
        + Clone
        + std::fmt::Debug
        + Serialize
        + DeserializeOwned,
{
    let object = serde_json::from_value(json!({"metadata": {"name": name}, "spec": spec})).unwrap();
    Api::<K>::namespaced(client.clone(), namespace).create(&PostParams::default(), &object).await.unwrap();
}

fn template(app: &str, image: &str) -> Value {
    json!({"metadata": {"labels": {"app": app}}, "spec": {"containers": [{"name": "c", "image": image}]}})
}

fn selected(app: &str, image: &str, replicas: i32) -> Value {
    json!({"replicas": replicas, "selector": {"matchLabels": {"app": app}}, "template": template(app, image)})
}

fn job(completions: i32, image: &str) -> Value {
    let mut template = template("job", image);
    template["metadata"] = json!({});
    template["spec"]["restartPolicy"] = "Never".into();
    json!({"completions": completions, "parallelism": 3, "completionMode": "Indexed", "backoffLimitPerIndex": 0,
           "template": template})
}

/// The living pods of an app, by image.
fn images(pods: &[Arc<Pod>], app: &str) -> Vec<String> {
    let of_app = pods.iter().filter(|pod| {
        let labels = pod.metadata.labels.as_ref();
        labels.and_then(|labels| labels.get("app")).is_some_and(|label| label == app)
            && pod.metadata.deletion_timestamp.is_none()
    });
    of_app.filter_map(|pod| pod.spec.as_ref()?.containers[0].image.clone()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_workload_gets_where_it_wants_though_calls_fail_get_lost_or_arrive_twice() {
    let seed = rand::random();
    println!("seed {seed}");
    let cluster = Cluster::start_faulty(2, seed).await;
    let admin = cluster.admin();
    create::<Deployment>(&admin, "default", "d", selected("d", "v1", 4)).await;
    create::<StatefulSet>(&admin, "default", "s", selected("s", "v1", 2)).await;
    let mut daemon = selected("ds", "v1", 0);
    daemon.as_object_mut().unwrap().remove("replicas");
    create::<DaemonSet>(&admin, "default", "ds", daemon).await;
    let controller = json!({"replicas": 2, "selector": {"app": "rc"}, "template": template("rc", "v1")});
    create::<ReplicationController>(&admin, "default", "rc", controller).await;
    create::<Job>(&admin, "default", "j", job(6, "fails:1@1,4")).await;
    let counts = |image: &'static str| {
        move |pods: &[Arc<Pod>]| {
            [("d", 4), ("s", 2), ("ds", 2)]
                .iter()
                .all(|(app, count)| images(pods, app) == vec![image; *count])
                && images(pods, "rc") == ["v1", "v1"]
        }
    };
    cluster.eventually("pods of every workload", counts("v1")).await;
    cluster
        .eventually::<Job>("a Job that counted each index once", |jobs| {
            let status = jobs.first().and_then(|job| job.status.clone()).unwrap_or_default();
            let conditions = status.conditions.iter().flatten();
            let parse = |text: &Option<String>| Indexes::parse(text.as_deref().unwrap_or_default(), 6);
            // A pod that is made twice may cost its index, as with upstream; but each index ends in one way.
            let (done, given_up) = (parse(&status.completed_indexes), parse(&status.failed_indexes));
            conditions.into_iter().any(|condition| condition.type_ == "Failed")
                && done.0.is_disjoint(&given_up.0)
                && done.total() + given_up.total() == 6
                && given_up.has(1)
                && given_up.has(4)
                && status.succeeded.unwrap_or(0) == done.total()
        })
        .await;
    let update = |app: &str| Patch::Merge(json!({"spec": {"template": template(app, "v2")}}));
    let parameters = PatchParams::default();
    cluster.api::<Deployment>().patch("d", &parameters, &update("d")).await.unwrap();
    cluster.api::<StatefulSet>().patch("s", &parameters, &update("s")).await.unwrap();
    cluster.api::<DaemonSet>().patch("ds", &parameters, &update("ds")).await.unwrap();
    cluster.eventually("updated pods of every workload", counts("v2")).await;
    let background =
        DeleteParams { propagation_policy: Some(PropagationPolicy::Background), ..DeleteParams::default() };
    cluster.api::<Deployment>().delete("d", &background).await.unwrap();
    cluster.api::<StatefulSet>().delete("s", &background).await.unwrap();
    cluster.api::<DaemonSet>().delete("ds", &DeleteParams::foreground()).await.unwrap();
    cluster.api::<ReplicationController>().delete("rc", &background).await.unwrap();
    cluster.api::<Job>().delete("j", &background).await.unwrap();
    cluster.eventually::<Pod>("no pods", <[_]>::is_empty).await;
    cluster.eventually::<ReplicaSet>("no sets", <[_]>::is_empty).await;
    cluster.eventually::<ControllerRevision>("no revisions", <[_]>::is_empty).await;
    cluster.eventually::<DaemonSet>("no daemons", <[_]>::is_empty).await;
}

fn claim() -> Value {
    json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}})
}

fn user_of(claim: &str) -> Value {
    json!({"containers": [{"name": "c", "image": "v1"}],
           "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": claim}}]})
}

async fn create_pod(client: &Client, name: &str, spec: Value) {
    let pod = json!({"metadata": {"name": name, "labels": {"app": "p"}}, "spec": spec});
    let api: Api<Pod> = Api::namespaced(client.clone(), "default");
    api.create(&PostParams::default(), &serde_json::from_value(pod).unwrap()).await.unwrap();
}

/// The volumes of the bound claims, by claim.
fn volumes(claims: &[Arc<PersistentVolumeClaim>]) -> BTreeMap<String, String> {
    let bound = claims.iter().filter(|claim| crate::client::volumes::is_bound(claim));
    bound
        .map(|claim| {
            let volume = crate::client::volumes::volume_name(claim).unwrap();
            (claim.metadata.name.clone().unwrap(), volume.to_owned())
        })
        .collect()
}

/// The names of the pods that are ready endpoints of the Service `p`, as often as they are listed.
fn endpoints(slices: &[Arc<EndpointSlice>]) -> Vec<String> {
    let of_service = slices.iter().filter(|slice| {
        let labels = slice.metadata.labels.as_ref();
        labels.and_then(|labels| labels.get("kubernetes.io/service-name")).is_some_and(|name| name == "p")
    });
    let ready = of_service.flat_map(|slice| slice.endpoints.iter().flatten()).filter(|endpoint| {
        endpoint.conditions.as_ref().and_then(|conditions| conditions.ready) == Some(true)
    });
    let mut names: Vec<_> = ready.filter_map(|endpoint| endpoint.target_ref.clone()?.name).collect();
    names.sort();
    names
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn claims_services_budgets_and_quotas_get_where_they_want_though_calls_fail_get_lost_or_arrive_twice() {
    let seed = rand::random();
    println!("seed {seed}");
    let cluster = Cluster::start_faulty(2, seed).await;
    let admin = cluster.admin();
    cluster.furnished().await;
    create::<ResourceQuota>(
        &admin,
        "default",
        "q",
        json!({"hard": {"pods": "9", "persistentvolumeclaims": "9"}}),
    )
    .await;
    create::<Service>(&admin, "default", "p", json!({"selector": {"app": "p"}, "ports": [{"port": 80}]}))
        .await;
    let selector = json!({"matchLabels": {"app": "p"}});
    create::<PodDisruptionBudget>(&admin, "default", "p", json!({"minAvailable": 1, "selector": selector}))
        .await;
    let used = |pods: &'static str| {
        move |all: &[Arc<ResourceQuota>]| {
            let used = all.first().and_then(|quota| quota.status.as_ref()?.used.clone()).unwrap_or_default();
            used.get("pods").is_some_and(|count| count.0 == pods)
        }
    };
    cluster.eventually("a quota in force", used("0")).await;
    for (pod, claim_name) in [("p0", "c0"), ("p1", "c1"), ("p2", "c2")] {
        create::<PersistentVolumeClaim>(&admin, "default", claim_name, claim()).await;
        create_pod(&admin, pod, user_of(claim_name)).await;
    }
    let all_bound = |claims: &[Arc<PersistentVolumeClaim>]| {
        let volumes = volumes(claims);
        let distinct: BTreeSet<_> = volumes.values().collect();
        volumes.len() == 3 && distinct.len() == 3
    };
    cluster.eventually("each claim with a volume of its own", all_bound).await;
    cluster.eventually("each pod once in the slices", |slices| endpoints(slices) == ["p0", "p1", "p2"]).await;
    cluster.eventually("the pods counted", used("3")).await;
    let allowed = |count: i32| {
        move |all: &[Arc<PodDisruptionBudget>]| {
            let status = all.first().and_then(|budget| budget.status.clone()).unwrap_or_default();
            status.disruptions_allowed == Some(count)
        }
    };
    cluster.eventually("a budget of three pods", allowed(2)).await;
    // Another pod and another claim under the same names.
    let before = volumes(&cluster.list::<PersistentVolumeClaim>());
    let (pods, claims) = (cluster.api::<Pod>(), cluster.api::<PersistentVolumeClaim>());
    pods.delete("p0", &DeleteParams::default()).await.unwrap();
    claims.delete("c0", &DeleteParams::default()).await.unwrap();
    cluster.eventually::<PersistentVolumeClaim>("no old claim", |all| all.len() == 2).await;
    create::<PersistentVolumeClaim>(&admin, "default", "c0", claim()).await;
    create_pod(&admin, "p0", user_of("c0")).await;
    cluster.eventually("each claim with a volume of its own", all_bound).await;
    assert_ne!(volumes(&cluster.list::<PersistentVolumeClaim>())["c0"], before["c0"]);
    cluster.eventually("each pod once in the slices", |slices| endpoints(slices) == ["p0", "p1", "p2"]).await;
    cluster.api::<Service>().delete("p", &DeleteParams::default()).await.unwrap();
    pods.delete_collection(&DeleteParams::default(), &Default::default()).await.unwrap();
    claims.delete_collection(&DeleteParams::default(), &Default::default()).await.unwrap();
    cluster.eventually::<Pod>("no pods", <[_]>::is_empty).await;
    cluster.eventually::<PersistentVolumeClaim>("no claims", <[_]>::is_empty).await;
    cluster.eventually("no endpoints", |slices| endpoints(slices).is_empty()).await;
    cluster.eventually("nothing counted", used("0")).await;
    cluster.eventually("a budget of no pods", allowed(0)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_churn_of_namespaces_deployments_and_jobs_leaves_nothing_behind() {
    let cluster = Cluster::start(2).await;
    let admin = cluster.admin();
    let namespaces: Api<Namespace> = Api::all(admin.clone());
    let before = namespaces.list(&Default::default()).await.unwrap().items.len();
    let churn = churn_time();
    let (began, mut round, mut halfway) = (Instant::now(), 0, None);
    while began.elapsed() < churn {
        if began.elapsed() * 2 > churn {
            halfway.get_or_insert_with(resident);
        }
        let name = format!("churn-{round}");
        let namespace = serde_json::from_value(json!({"metadata": {"name": name}})).unwrap();
        namespaces.create(&PostParams::default(), &namespace).await.unwrap();
        create::<Deployment>(&admin, &name, "d", selected("d", "v1", 3)).await;
        create::<Job>(&admin, &name, "j", job(3, "succeeds")).await;
        let in_round = |pod: &Arc<Pod>| pod.metadata.namespace.as_deref() == Some(name.as_str());
        cluster
            .eventually_anywhere::<Pod>("pods", |pods| pods.iter().filter(|pod| in_round(pod)).count() >= 5)
            .await;
        let patch = Patch::Merge(json!({"spec": {"template": template("d", "v2")}}));
        let api = Api::<Deployment>::namespaced(admin.clone(), &name);
        api.patch("d", &PatchParams::default(), &patch).await.unwrap();
        namespaces.delete(&name, &DeleteParams::default()).await.unwrap();
        let few = |all: &[Arc<Namespace>]| all.len() <= before + BACKLOG;
        cluster.eventually_anywhere("deletions that keep up", few).await;
        round += 1;
    }
    assert!(round > 1, "the churn has to get somewhere");
    println!("{round} rounds, {halfway:?} and {} pages", resident());
    if let Some(halfway) = halfway.filter(|_| churn >= LONG) {
        assert!(resident() * 4 <= halfway * 5, "memory grew from {halfway} to {} pages", resident());
    }
    cluster
        .eventually_anywhere::<Namespace>("only the namespaces from before", |all| all.len() == before)
        .await;
    cluster.eventually_anywhere::<Pod>("no pods", <[_]>::is_empty).await;
    cluster.eventually_anywhere::<ReplicaSet>("no sets", <[_]>::is_empty).await;
    cluster.eventually_anywhere::<Job>("no jobs", <[_]>::is_empty).await;
    cluster
        .eventually_anywhere::<EndpointSlice>("only the slice of the API server", |all| all.len() <= 1)
        .await;
}
