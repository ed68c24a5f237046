//! Carrying out what was decided: bindings, conditions, victims and events, over the API.

use k8s_openapi::api::core::v1::{Binding, ObjectReference, Pod};
use kube::api::{Api, DeleteParams, ObjectMeta, Patch, PatchParams, PostParams, Preconditions};
use kube::{Client, Resource};
use serde_json::json;
use tracing::{debug, warn};

use super::core::Room;
use super::pod_info::PodInfo;
use super::storage::Plan;
use super::volumes::VolumeBinder;
use crate::client::{Clock, EventType, Recorder, error};

/// Carries out effects; cloning gives another handle.
#[derive(Clone)]
pub struct Effector {
    client: Client,
    recorder: Recorder,
    clock: Clock,
    scheduler_name: String,
    volumes: VolumeBinder,
}

impl std::fmt::Debug for Effector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Effector").field("scheduler_name", &self.scheduler_name).finish_non_exhaustive()
    }
}

impl Effector {
    /// Works through `client` and tells users through `recorder`.
    pub fn new(
        client: Client,
        recorder: Recorder,
        clock: Clock,
        scheduler_name: &str,
        volumes: VolumeBinder,
    ) -> Self {
        Self { client, recorder, clock, scheduler_name: scheduler_name.to_owned(), volumes }
    }

    fn pods(&self, pod: &PodInfo) -> Api<Pod> {
        Api::namespaced(self.client.clone(), pod.namespace())
    }

    /// Sees to the pod's volumes and binds it; tells whether that worked.
    pub async fn bind(&self, pod: &PodInfo, node: &str, volumes: &Plan) -> bool {
        if !volumes.is_empty()
            && let Err(failure) = self.volumes.bind(volumes, node).await
        {
            let cause = error::chain(&failure);
            debug!(pod = %pod.key, node, error = cause, "volumes could not be bound");
            let message = format!("running PreBind plugin \"VolumeBinding\": {cause}");
            self.recorder.event(pod.pod.as_ref(), EventType::Warning, "FailedScheduling", message);
            return false;
        }
        let name = pod.key.name();
        let binding = Binding {
            metadata: ObjectMeta {
                name: Some(name.to_owned()),
                namespace: Some(pod.namespace().to_owned()),
                uid: Some(pod.uid.to_string()),
                ..ObjectMeta::default()
            },
            target: ObjectReference {
                kind: Some("Node".to_owned()),
                name: Some(node.to_owned()),
                ..ObjectReference::default()
            },
        };
        let sent = self
            .pods(pod)
            .create_subresource::<_, serde_json::Value>("binding", name, &PostParams::default(), &binding)
            .await;
        match sent {
            Ok(_) => {
                let message = format!("Successfully assigned {} to {node}", pod.key);
                self.recorder.event(pod.pod.as_ref(), EventType::Normal, "Scheduled", message);
                true
            }
            Err(failure) if error::is_not_found(&failure) => {
                debug!(pod = %pod.key, "the pod is gone before it was bound");
                false
            }
            Err(failure) => {
                let cause = error::chain(&failure);
                debug!(pod = %pod.key, node, error = cause, "binding failed");
                let message = format!("binding rejected: {cause}");
                self.recorder.event(pod.pod.as_ref(), EventType::Warning, "FailedScheduling", message);
                false
            }
        }
    }

    /// Tells why the pod has no node and makes room for it.
    pub async fn report(&self, pod: &PodInfo, message: &str, room: &Room) {
        self.recorder.event(pod.pod.as_ref(), EventType::Warning, "FailedScheduling", message);
        let nominated = match room {
            Room::Unchanged => None,
            Room::None => Some(""),
            Room::Made { preemption, losers } => {
                // First, so that they look for another place while the victims end.
                for loser in losers {
                    self.clear_nomination(loser).await;
                }
                for victim in &preemption.victims {
                    self.evict(pod, victim).await;
                }
                Some(preemption.node.as_ref())
            }
        };
        let Some(status) = status_patch(pod, message, nominated, self.clock.time()) else { return };
        let patch = Patch::Strategic(json!({"metadata": {"uid": pod.uid.as_ref()}, "status": status}));
        match self.pods(pod).patch_status(pod.key.name(), &PatchParams::default(), &patch).await {
            Err(failure) if !error::is_not_found(&failure) => {
                warn!(pod = %pod.key, error = error::chain(&failure), "cannot write the pod's scheduling condition");
            }
            _ => {}
        }
    }

    async fn clear_nomination(&self, pod: &PodInfo) {
        let body = json!({"metadata": {"uid": pod.uid.as_ref()}, "status": {"nominatedNodeName": null}});
        let sent = self
            .pods(pod)
            .patch_status(pod.key.name(), &PatchParams::default(), &Patch::Strategic(body))
            .await;
        if let Err(failure) = sent
            && !error::is_not_found(&failure)
        {
            warn!(pod = %pod.key, error = error::chain(&failure), "cannot clear the pod's nominated node");
        }
    }

    async fn evict(&self, preemptor: &PodInfo, victim: &PodInfo) {
        if victim.is_deleting() {
            return;
        }
        let name = victim.key.name();
        let condition = json!({
            "type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler",
            "message": format!("{}: preempting to accommodate a higher priority pod", self.scheduler_name),
            "lastTransitionTime": self.clock.time(),
        });
        let patch = Patch::Strategic(
            json!({"metadata": {"uid": victim.uid.as_ref()}, "status": {"conditions": [condition]}}),
        );
        if let Err(failure) = self.pods(victim).patch_status(name, &PatchParams::default(), &patch).await {
            debug!(pod = %victim.key, error = error::chain(&failure), "cannot mark the victim");
        }
        let preconditions = Preconditions { uid: Some(victim.uid.to_string()), resource_version: None };
        let parameters = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
        match self.pods(victim).delete(name, &parameters).await {
            Ok(_) => {
                let node = victim.node_name().unwrap_or_default();
                let message = format!("Preempted by pod {} on node {node}", preemptor.uid);
                let mut regarding = victim.pod.object_ref(&());
                regarding.resource_version = None;
                self.recorder.event_for(regarding, EventType::Normal, "Preempted", message);
            }
            Err(failure) if error::is_not_found(&failure) || error::is_conflict(&failure) => {}
            Err(failure) => {
                warn!(pod = %victim.key, error = error::chain(&failure), "cannot delete a preempted pod");
            }
        }
    }
}

/// The change of the status, if there is one. `nominated` is the node where room is made, empty for none, and `None` to
/// leave that as it is.
fn status_patch(
    pod: &PodInfo,
    message: &str,
    nominated: Option<&str>,
    now: k8s_openapi::apimachinery::pkg::apis::meta::v1::Time,
) -> Option<serde_json::Value> {
    let status = pod.pod.status.as_ref();
    let old = status.and_then(|s| s.conditions.as_ref()?.iter().find(|c| c.type_ == "PodScheduled"));
    let same_condition = old.is_some_and(|c| {
        c.status == "False"
            && c.reason.as_deref() == Some("Unschedulable")
            && c.message.as_deref() == Some(message)
    });
    let promised = status.and_then(|s| s.nominated_node_name.as_deref()).unwrap_or_default();
    let same_node = nominated.is_none_or(|node| node == promised);
    if same_condition && same_node {
        return None;
    }
    let since = old.filter(|c| c.status == "False").and_then(|c| c.last_transition_time.clone());
    let mut patch = json!({"conditions": [{
        "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message,
        "lastProbeTime": null, "lastTransitionTime": since.unwrap_or(now),
    }]});
    if let Some(node) = nominated {
        patch["nominatedNodeName"] = if node.is_empty() { serde_json::Value::Null } else { json!(node) };
    }
    Some(patch)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduler::fixtures::pod_with;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    #[test]
    fn the_condition_is_written_only_when_it_changes() {
        let now = Time("2026-01-01T00:00:10Z".parse().unwrap());
        let fresh = pod_with("a", json!({}));
        let first = status_patch(&fresh, "m", None, now.clone()).unwrap();
        assert_eq!(first["conditions"][0]["lastTransitionTime"], "2026-01-01T00:00:10Z");
        let known = pod_with(
            "a",
            json!({"status": {"conditions": [{
            "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "m",
            "lastTransitionTime": "2026-01-01T00:00:00Z"}]}}),
        );
        assert_eq!(status_patch(&known, "m", None, now.clone()), None);
        let changed = status_patch(&known, "other", Some("n"), now).unwrap();
        assert_eq!(changed["conditions"][0]["lastTransitionTime"], "2026-01-01T00:00:00Z");
        assert_eq!(changed["nominatedNodeName"], "n");
    }

    #[test]
    fn a_promise_that_is_worth_nothing_is_taken_back() {
        let now = Time("2026-01-01T00:00:10Z".parse().unwrap());
        let told =
            json!([{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "m"}]);
        for (promised, nominated, expected) in [
            (Some("n"), Some(""), Some(serde_json::Value::Null)),
            (Some("n"), Some("o"), Some(json!("o"))),
            (Some("n"), Some("n"), None),
            (Some("n"), None, None),
            (None, Some(""), None),
        ] {
            let pod =
                pod_with("a", json!({"status": {"nominatedNodeName": promised, "conditions": told.clone()}}));
            let patch = status_patch(&pod, "m", nominated, now.clone());
            assert_eq!(patch.map(|p| p["nominatedNodeName"].clone()), expected, "{promised:?} {nominated:?}");
        }
    }
}
