//! Predicates over pods and their conditions, with upstream's meaning of active, ready and available.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, PodCondition};
use k8s_openapi::jiff::Timestamp;

/// The pod's phase, `Pending` while the kubelet has not said anything.
pub fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or("Pending")
}

/// All containers have ended for good.
pub fn is_finished(pod: &Pod) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

/// Somebody has asked for the pod to be deleted.
pub fn is_deleting(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

/// The pod counts towards a replica count: neither finished nor being deleted.
pub fn is_active(pod: &Pod) -> bool {
    !is_finished(pod) && !is_deleting(pod)
}

/// The pod is on its way out but its containers may still run.
pub fn is_terminating(pod: &Pod) -> bool {
    !is_finished(pod) && is_deleting(pod)
}

/// The condition of the given type.
pub fn condition<'a>(pod: &'a Pod, type_: &str) -> Option<&'a PodCondition> {
    pod.status.as_ref()?.conditions.as_ref()?.iter().find(|c| c.type_ == type_)
}

/// The pod's `Ready` condition is `True`.
pub fn is_ready(pod: &Pod) -> bool {
    condition(pod, "Ready").is_some_and(|c| c.status == "True")
}

/// Since when the pod has been ready; `None` while it is not.
pub fn ready_since(pod: &Pod) -> Option<Timestamp> {
    let ready = condition(pod, "Ready").filter(|c| c.status == "True")?;
    ready.last_transition_time.as_ref().map(|t| t.0)
}

/// The pod has been ready for at least `min_ready_seconds`.
pub fn is_available(pod: &Pod, min_ready_seconds: i32, now: Timestamp) -> bool {
    is_ready(pod) && available_in(pod, min_ready_seconds, now).is_none()
}

/// How long a ready pod still has to stay ready until it is available; `None` when it already is, or is not ready.
pub fn available_in(pod: &Pod, min_ready_seconds: i32, now: Timestamp) -> Option<Duration> {
    if min_ready_seconds <= 0 || !is_ready(pod) {
        return None;
    }
    let wanted = Duration::from_secs(min_ready_seconds.unsigned_abs().into());
    let Some(since) = ready_since(pod) else { return Some(wanted) };
    let been = Duration::try_from(now.duration_since(since)).unwrap_or_default();
    wanted.checked_sub(been).filter(|left| !left.is_zero())
}

/// The soonest moment at which one more of `pods` becomes available.
pub fn next_available<'a>(
    pods: impl IntoIterator<Item = &'a Pod>,
    min_ready_seconds: i32,
    now: Timestamp,
) -> Option<Duration> {
    pods.into_iter().filter_map(|pod| available_in(pod, min_ready_seconds, now)).min()
}

/// The node the pod is assigned to.
pub fn node_name(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref().filter(|name| !name.is_empty())
}

/// A patch with a uid failed because another pod has the name by now.
pub fn is_replaced(failure: &kube::Error) -> bool {
    matches!(crate::client::error::code(failure), Some(409 | 422))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use serde_json::json;

    /// A timestamp `seconds` after a fixed start.
    pub(crate) fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + seconds).unwrap()
    }

    /// A pod of namespace `default` in the given phase, ready since `ready` seconds if given.
    pub(crate) fn pod(name: &str, phase: &str, ready: Option<i64>) -> Pod {
        let conditions = match ready {
            Some(s) => json!([{"type": "Ready", "status": "True", "lastTransitionTime": Time(at(s))}]),
            None => json!([{"type": "Ready", "status": "False"}]),
        };
        serde_json::from_value(json!({
            "metadata": {"name": name, "namespace": "default", "uid": format!("uid-{name}"), "creationTimestamp": Time(at(0))},
            "spec": {"containers": [], "nodeName": "n1"},
            "status": {"phase": phase, "conditions": conditions},
        }))
        .unwrap()
    }

    #[test]
    fn only_living_pods_are_active() {
        let mut deleting = pod("d", "Running", Some(0));
        deleting.metadata.deletion_timestamp = Some(Time(at(0)));
        let mut finished_and_deleting = pod("f", "Failed", None);
        finished_and_deleting.metadata.deletion_timestamp = Some(Time(at(0)));
        for (pod, active, terminating) in [
            (pod("a", "Running", None), true, false),
            (pod("b", "Pending", None), true, false),
            (pod("c", "Succeeded", None), false, false),
            (pod("c", "Failed", None), false, false),
            (deleting, false, true),
            (finished_and_deleting, false, false),
        ] {
            assert_eq!(
                (is_active(&pod), is_terminating(&pod)),
                (active, terminating),
                "{:?}",
                pod.metadata.name
            );
        }
    }

    #[test]
    fn availability_waits_for_min_ready_seconds() {
        let ready = pod("a", "Running", Some(10));
        let not_ready = pod("b", "Running", None);
        for (pod, min, now, available, left) in [
            (&ready, 0, 10, true, None),
            (&ready, 5, 12, false, Some(3)),
            (&ready, 5, 15, true, None),
            (&ready, 5, 99, true, None),
            (&not_ready, 0, 99, false, None),
            (&not_ready, 5, 99, false, None),
        ] {
            assert_eq!(is_available(pod, min, at(now)), available, "min {min} now {now}");
            assert_eq!(available_in(pod, min, at(now)), left.map(Duration::from_secs), "min {min} now {now}");
        }
        assert_eq!(next_available([&ready, &not_ready], 5, at(12)), Some(Duration::from_secs(3)));
    }
}
