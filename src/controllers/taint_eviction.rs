//! Evicts pods from nodes with `NoExecute` taints, at once or when their toleration runs out.

use super::{Context, pod_garbage::disruption};
use crate::client::{
    Change, Clock, Controller, EventType, Informer, Key, Next, Recorder, clock::age, error, informer::index,
};
use k8s_openapi::{
    api::core::v1::{Node, Pod, Taint, Toleration},
    jiff::Timestamp,
};
use kube::{
    Api, Client,
    api::{DeleteParams, Patch, PatchParams, Preconditions},
};
use serde_json::json;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio_util::sync::CancellationToken;
use tracing::info;

const WORKERS: usize = 4;

/// What went wrong with one pod.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The reason could not be written into the pod's status.
    #[error("mark pod as disrupted")]
    Mark(#[source] kube::Error),
    /// The pod could not be deleted.
    #[error("delete pod")]
    Delete(#[source] kube::Error),
}

/// What the taints of its node mean for a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Stays,
    LeavesAfter(Duration),
    Leaves,
}

/// Decides about a pod on a node with these taints at `now`. Time runs from when the taint was added; where it does not
/// say (only the node controller's taints do), from when the pod was first `noticed` on a tainted node.
fn decide(pod: &Pod, taints: &[Taint], noticed: Timestamp, now: Timestamp) -> Fate {
    let evicting: Vec<_> = taints.iter().filter(|taint| taint.effect == "NoExecute").collect();
    let tolerations = pod.spec.as_ref().and_then(|spec| spec.tolerations.as_deref()).unwrap_or_default();
    let mut left: Option<Duration> = None;
    for taint in evicting {
        let matching: Vec<_> = tolerations.iter().filter(|toleration| tolerates(toleration, taint)).collect();
        if matching.is_empty() {
            return Fate::Leaves;
        }
        let limit = matching.iter().filter_map(|toleration| toleration.toleration_seconds).min();
        if let Some(limit) = limit {
            let limit = Duration::from_secs(u64::try_from(limit).unwrap_or_default());
            let since = taint.time_added.as_ref().map_or(noticed, |added| added.0);
            let rest = limit.saturating_sub(age(now, since));
            left = Some(left.map_or(rest, |left| left.min(rest)));
        }
    }
    match left {
        None => Fate::Stays,
        Some(Duration::ZERO) => Fate::Leaves,
        Some(rest) => Fate::LeavesAfter(rest),
    }
}

fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let effect = text(&toleration.effect);
    let key = text(&toleration.key);
    if !effect.is_empty() && effect != taint.effect || !key.is_empty() && key != taint.key {
        return false;
    }
    match text(&toleration.operator).as_str() {
        "Exists" => true,
        "" | "Equal" => !key.is_empty() && text(&toleration.value) == text(&taint.value),
        _ => false,
    }
}

fn taints(node: &Node) -> &[Taint] {
    node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default()
}

fn has_evicting(node: &Node) -> bool {
    taints(node).iter().any(|taint| taint.effect == "NoExecute")
}

struct TaintEviction {
    client: Client,
    clock: Clock,
    recorder: Recorder,
    pods: Informer<Pod>,
    nodes: Informer<Node>,
    /// Since when pods have had to leave some time, with their uids.
    noticed: Mutex<HashMap<Key, (Option<String>, Timestamp)>>,
}

/// Runs until `stop`.
pub async fn run(context: Context, stop: CancellationToken) {
    let (pods, nodes) = (context.informers.get::<Pod>(), context.informers.get::<Node>());
    pods.add_index(index::NODE, index::pod_node);
    let (known, on_node) = (nodes.clone(), pods.clone());
    let controller = Controller::new("taint-eviction")
        .workers(WORKERS)
        .watch(&nodes, move |change: &Change<Node>| {
            // Without its taints a node has pods that stay, which is to be noted too.
            let tainted =
                [change.before(), change.after()].into_iter().flatten().any(|node| has_evicting(node));
            let same =
                change.before().zip(change.after()).is_some_and(|(old, new)| taints(old) == taints(new));
            let name = change.object().metadata.name.as_deref().filter(|_| tainted && !same);
            let pods = name.map(|name| on_node.by_index(index::NODE, name)).unwrap_or_default();
            pods.iter().map(|pod| Key::of(pod.as_ref())).collect()
        })
        .watch(&pods, move |change: &Change<Pod>| {
            let pod = Some(change.object()).filter(|pod| on_tainted_node(pod, &known));
            pod.map(|pod| Key::of(pod.as_ref())).into_iter().collect()
        });
    let (client, clock, recorder) = (context.client, context.clock, context.recorder);
    let noticed = Mutex::default();
    let this = Arc::new(TaintEviction { client, clock, recorder, pods, nodes, noticed });
    let reconcile = move |key: Key| {
        let this = this.clone();
        async move { this.reconcile(&key).await }
    };
    controller.run(reconcile, stop).await;
}

fn on_tainted_node(pod: &Pod, nodes: &Informer<Node>) -> bool {
    let name = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
    name.and_then(|name| nodes.find("", name)).is_some_and(|node| has_evicting(&node))
}

impl TaintEviction {
    async fn reconcile(&self, key: &Key) -> Result<Next, Error> {
        let pod = self.pods.get(key).filter(|pod| pod.metadata.deletion_timestamp.is_none());
        let node = pod.as_ref().and_then(|pod| pod.spec.as_ref()?.node_name.as_deref());
        let node = node.and_then(|name| self.nodes.find("", name));
        let Some((pod, node)) = pod.zip(node) else {
            self.noticed().remove(key);
            return Ok(Next::Done);
        };
        let now = self.clock.now();
        let known =
            self.noticed().get(key).filter(|(uid, _)| *uid == pod.metadata.uid).map(|(_, since)| *since);
        let since = known.unwrap_or(now);
        match decide(&pod, taints(&node), since, now) {
            Fate::Stays => {
                if self.noticed().remove(key).is_some() {
                    let message = format!("Cancelling deletion of Pod {key}");
                    self.recorder.event(pod.as_ref(), EventType::Normal, "TaintManagerEviction", message);
                }
                Ok(Next::Done)
            }
            Fate::LeavesAfter(rest) => {
                self.noticed().insert(key.clone(), (pod.metadata.uid.clone(), since));
                Ok(Next::After(rest))
            }
            Fate::Leaves => self.evict(key, &pod).await.map(|()| Next::Done),
        }
    }

    fn noticed(&self) -> MutexGuard<'_, HashMap<Key, (Option<String>, Timestamp)>> {
        self.noticed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn evict(&self, key: &Key, pod: &Pod) -> Result<(), Error> {
        let api = Api::<Pod>::namespaced(self.client.clone(), key.namespace());
        let message = "Taint manager: deleting due to NoExecute taint";
        let condition = disruption(pod, "DeletionByTaintManager", message, self.clock.now());
        let patch = json!({"metadata": {"uid": pod.metadata.uid}, "status": {"conditions": [condition]}});
        match api.patch_status(key.name(), &PatchParams::default(), &Patch::Strategic(patch)).await {
            Err(failure) if error::is_not_found(&failure) || error::is_conflict(&failure) => return Ok(()),
            result => drop(result.map_err(Error::Mark)?),
        }
        let message = format!("Marking for deletion Pod {key}");
        self.recorder.event(pod, EventType::Normal, "TaintManagerEviction", message);
        let params = DeleteParams {
            preconditions: Some(Preconditions { uid: pod.metadata.uid.clone(), resource_version: None }),
            ..DeleteParams::default()
        };
        match api.delete(key.name(), &params).await {
            Ok(_) => info!(pod = %key, "evicted from tainted node"),
            Err(failure) if error::is_not_found(&failure) || error::is_conflict(&failure) => {}
            Err(failure) => return Err(Error::Delete(failure)),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        client::fake::{FakeApi, eventually},
        controllers::testing::{self, node, pod},
    };
    use k8s_openapi::{
        api::core::v1::{Event, NodeSpec},
        apimachinery::pkg::apis::meta::v1::Time,
    };

    fn taint(key: &str, value: &str, added: i64) -> Taint {
        Taint {
            key: key.into(),
            value: Some(value.into()),
            effect: "NoExecute".into(),
            time_added: Some(Time(Timestamp::from_second(added).unwrap())),
        }
    }

    fn toleration(key: &str, operator: &str, value: &str, effect: &str, seconds: Option<i64>) -> Toleration {
        let text = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        Toleration {
            key: text(key),
            operator: text(operator),
            value: text(value),
            effect: text(effect),
            toleration_seconds: seconds,
        }
    }

    #[test]
    fn tolerations_match_as_documented() {
        let taint = taint("k", "v", 0);
        for (toleration, want) in [
            (toleration("k", "Equal", "v", "NoExecute", None), true),
            (toleration("k", "", "v", "", None), true),
            (toleration("k", "Equal", "w", "NoExecute", None), false),
            (toleration("k", "Exists", "", "", None), true),
            (toleration("", "Exists", "", "", None), true),
            (toleration("", "Equal", "v", "", None), false),
            (toleration("k", "Exists", "", "NoSchedule", None), false),
            (toleration("other", "Exists", "", "", None), false),
        ] {
            assert_eq!(tolerates(&toleration, &taint), want, "{toleration:?}");
        }
    }

    #[test]
    fn the_shortest_toleration_counts_from_when_the_taint_was_added() {
        let now = Timestamp::from_second(100).unwrap();
        let exists = |key: &str, seconds| toleration(key, "Exists", "", "", seconds);
        let seconds = Duration::from_secs;
        let no_schedule = Taint { effect: "NoSchedule".into(), ..taint("s", "", 0) };
        for (taints, tolerations, want) in [
            (vec![], vec![], Fate::Stays),
            (vec![no_schedule], vec![], Fate::Stays),
            (vec![taint("a", "", 90)], vec![], Fate::Leaves),
            (vec![taint("a", "", 90)], vec![exists("a", None)], Fate::Stays),
            (vec![taint("a", "", 90)], vec![exists("a", Some(300))], Fate::LeavesAfter(seconds(290))),
            (vec![taint("a", "", 90)], vec![exists("a", Some(10))], Fate::Leaves),
            (vec![taint("a", "", 90)], vec![exists("a", Some(-5))], Fate::Leaves),
            (vec![taint("a", "", 90), taint("b", "", 99)], vec![exists("a", Some(300))], Fate::Leaves),
            (
                vec![taint("a", "", 90), taint("b", "", 99)],
                vec![exists("a", Some(300)), exists("b", Some(60))],
                Fate::LeavesAfter(seconds(59)),
            ),
            (
                vec![taint("a", "", 90)],
                vec![exists("a", Some(300)), exists("a", Some(30)), exists("a", None)],
                Fate::LeavesAfter(seconds(20)),
            ),
        ] {
            let mut pod = pod("p", "n");
            pod.spec.as_mut().unwrap().tolerations = Some(tolerations.clone());
            assert_eq!(decide(&pod, &taints, now, now), want, "{taints:?} {tolerations:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn pods_leave_a_tainted_node_when_their_time_is_up() {
        let api = FakeApi::new();
        api.create(&node("n1"));
        api.create(&node("n2"));
        let mut patient = pod("patient", "n1");
        patient.spec.as_mut().unwrap().tolerations = Some(vec![toleration("t", "Exists", "", "", Some(60))]);
        let mut tolerant = pod("tolerant", "n1");
        tolerant.spec.as_mut().unwrap().tolerations = Some(vec![toleration("t", "Exists", "", "", None)]);
        for pod in [pod("plain", "n1"), patient, tolerant, pod("elsewhere", "n2")] {
            api.create(&pod);
        }
        let _running = testing::start(&api, |mut context, stop| {
            context.clock = Clock::anchored(Timestamp::UNIX_EPOCH);
            run(context, stop)
        });
        tokio::time::sleep(Duration::from_secs(1)).await;
        api.update::<Node>("", "n1", |node| {
            node.spec = Some(NodeSpec { taints: Some(vec![taint("t", "", 1)]), ..NodeSpec::default() });
        });
        eventually("the plain pod goes", || api.get::<Pod>("default", "plain").is_none()).await;
        tokio::time::sleep(Duration::from_secs(50)).await;
        assert!(api.get::<Pod>("default", "patient").is_some());
        eventually("the patient pod goes", || api.get::<Pod>("default", "patient").is_none()).await;
        tokio::time::sleep(Duration::from_secs(3600)).await;
        assert_eq!(api.list::<Pod>().len(), 2);
        let late = pod("late", "n1");
        api.create(&late);
        eventually("a pod that comes later goes", || api.get::<Pod>("default", "late").is_none()).await;
    }

    /// As `kubectl taint` and upstream's suite add it. One that went and came back counts anew.
    #[tokio::test(start_paused = true)]
    async fn a_taint_that_does_not_say_since_when_counts_from_its_sight() {
        let api = FakeApi::new();
        api.create(&node("n1"));
        for (name, seconds) in [("short", 5), ("long", 60)] {
            let mut pod = pod(name, "n1");
            pod.spec.as_mut().unwrap().tolerations =
                Some(vec![toleration("t", "Exists", "", "", Some(seconds))]);
            api.create(&pod);
        }
        let _running = testing::start(&api, |mut context, stop| {
            context.clock = Clock::anchored(Timestamp::UNIX_EPOCH);
            run(context, stop)
        });
        let set = |taints: Vec<Taint>| {
            api.update::<Node>("", "n1", |node| {
                node.spec = Some(NodeSpec { taints: Some(taints.clone()), ..NodeSpec::default() });
            });
        };
        let ageless = Taint { time_added: None, ..taint("t", "", 0) };
        tokio::time::sleep(Duration::from_secs(1)).await;
        set(vec![ageless.clone()]);
        eventually("the first one goes", || api.get::<Pod>("default", "short").is_none()).await;
        tokio::time::sleep(Duration::from_secs(40)).await;
        set(Vec::new());
        tokio::time::sleep(Duration::from_secs(5)).await;
        set(vec![ageless]);
        tokio::time::sleep(Duration::from_secs(50)).await;
        assert!(api.get::<Pod>("default", "long").is_some());
        tokio::time::sleep(Duration::from_secs(15)).await;
        assert!(api.get::<Pod>("default", "long").is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_taint_that_goes_in_time_evicts_nobody() {
        let api = FakeApi::new();
        let mut tainted = node("n1");
        tainted.spec = Some(NodeSpec { taints: Some(vec![taint("t", "", 0)]), ..NodeSpec::default() });
        api.create(&tainted);
        let mut patient = pod("patient", "n1");
        patient.spec.as_mut().unwrap().tolerations = Some(vec![toleration("t", "Exists", "", "", Some(60))]);
        api.create(&patient);
        let _running = testing::start(&api, |mut context, stop| {
            context.clock = Clock::anchored(Timestamp::UNIX_EPOCH);
            run(context, stop)
        });
        tokio::time::sleep(Duration::from_secs(30)).await;
        api.update::<Node>("", "n1", |node| node.spec = None);
        tokio::time::sleep(Duration::from_secs(3600)).await;
        assert!(api.get::<Pod>("default", "patient").is_some());
        let told =
            |event: &Event| event.message.as_deref() == Some("Cancelling deletion of Pod default/patient");
        assert!(api.list::<Event>().iter().any(told), "{:?}", api.list::<Event>());
    }
}
