//! When a node was last heard of, by this process' own clock, and what its silence means for its conditions.

use crate::client::conditions;
use k8s_openapi::{
    api::{
        coordination::v1::Lease,
        core::v1::{Node, NodeCondition},
    },
    apimachinery::pkg::apis::meta::v1::{MicroTime, Time},
    jiff::Timestamp,
};
use std::time::Duration;
use tokio::time::Instant;

/// What changes whenever a kubelet shows that it lives. Only changes matter, not the kubelet's idea of the time.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Signal {
    renewed: Option<MicroTime>,
    heartbeat: Option<Time>,
    /// The node says whether it is ready; we only ever write that it is unknown.
    speaks: bool,
}

impl Signal {
    pub(super) fn of(node: &Node, lease: Option<&Lease>) -> Self {
        let all = node.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
        let ready = conditions::find(all, "Ready");
        Self {
            renewed: lease.and_then(|lease| lease.spec.as_ref()?.renew_time.clone()),
            heartbeat: ready.and_then(|ready| ready.last_heartbeat_time.clone()),
            speaks: ready.is_some_and(|ready| ready.status != "Unknown"),
        }
    }
}

/// The last sign of life of a node.
#[derive(Debug)]
pub(super) struct Health {
    signal: Signal,
    at: Instant,
}

impl Health {
    /// A node seen for the first time counts as alive now.
    pub(super) fn new(signal: Signal, now: Instant) -> Self {
        Self { signal, at: now }
    }

    pub(super) fn hear(&mut self, signal: Signal, now: Instant) {
        let (old, new) = (&self.signal, &signal);
        if new.renewed != old.renewed || new.heartbeat != old.heartbeat || new.speaks && !old.speaks {
            self.at = now;
        }
        self.signal = signal;
    }

    pub(super) fn silence(&self, now: Instant) -> Duration {
        now.duration_since(self.at)
    }
}

/// The conditions that a kubelet reports.
const REPORTED: [&str; 4] = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];

/// The conditions of a silent node that must change, as they must be then.
pub(super) fn unknown(node: &Node, now: Timestamp) -> Vec<NodeCondition> {
    let all = node.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let changed = |kind: &&str| {
        let old = conditions::find(all, kind);
        if old.is_some_and(|old| old.status == "Unknown") {
            return None;
        }
        let (reason, message) = match old {
            Some(_) => ("NodeStatusUnknown", "Kubelet stopped posting node status."),
            None => ("NodeStatusNeverUpdated", "Kubelet never posted node status."),
        };
        Some(NodeCondition {
            type_: (*kind).to_owned(),
            status: "Unknown".to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message.to_owned()),
            last_heartbeat_time: match old {
                Some(old) => old.last_heartbeat_time.clone(),
                None => node.metadata.creation_timestamp.clone(),
            },
            last_transition_time: Some(Time(now)),
        })
    };
    REPORTED.iter().filter_map(changed).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::{coordination::v1::LeaseSpec, core::v1::NodeStatus};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn node(conditions: Vec<(&str, &str, i64)>) -> Node {
        let condition = |(kind, status, heartbeat): (&str, &str, i64)| NodeCondition {
            type_: kind.into(),
            status: status.into(),
            last_heartbeat_time: Some(Time(at(heartbeat))),
            ..NodeCondition::default()
        };
        let conditions = Some(conditions.into_iter().map(condition).collect());
        Node { status: Some(NodeStatus { conditions, ..NodeStatus::default() }), ..Node::default() }
    }

    fn lease(second: i64) -> Lease {
        let spec = LeaseSpec { renew_time: Some(MicroTime(at(second))), ..LeaseSpec::default() };
        Lease { spec: Some(spec), ..Lease::default() }
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_lease_or_a_new_heartbeat_ends_the_silence() {
        let start = Instant::now();
        let later = |seconds| start + Duration::from_secs(seconds);
        let mut health = Health::new(Signal::of(&node(vec![("Ready", "True", 1)]), Some(&lease(1))), start);
        for (heartbeat, renewed, seconds, silence) in
            [(1, 1, 30, 30), (1, 2, 35, 0), (1, 2, 60, 25), (2, 2, 70, 0), (2, 2, 100, 30)]
        {
            health.hear(
                Signal::of(&node(vec![("Ready", "True", heartbeat)]), Some(&lease(renewed))),
                later(seconds),
            );
            assert_eq!(health.silence(later(seconds)).as_secs(), silence, "at {seconds}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn our_own_verdict_is_no_sign_of_life_but_its_revocation_is() {
        let start = Instant::now();
        let later = |seconds| start + Duration::from_secs(seconds);
        let mut health = Health::new(Signal::of(&node(vec![("Ready", "True", 1)]), None), start);
        for (status, seconds, silence) in [("Unknown", 50, 50), ("Unknown", 60, 60), ("False", 70, 0)] {
            health.hear(Signal::of(&node(vec![("Ready", status, 1)]), None), later(seconds));
            assert_eq!(health.silence(later(seconds)).as_secs(), silence, "at {seconds}");
        }
    }

    #[test]
    fn silence_makes_every_reported_condition_unknown_once() {
        let mut silent =
            node(vec![("Ready", "True", 5), ("DiskPressure", "Unknown", 5), ("Custom", "True", 5)]);
        let changed = unknown(&silent, at(100));
        let text: Vec<_> =
            changed.iter().map(|c| format!("{} {}", c.type_, c.reason.as_deref().unwrap())).collect();
        assert_eq!(
            text,
            [
                "Ready NodeStatusUnknown",
                "MemoryPressure NodeStatusNeverUpdated",
                "PIDPressure NodeStatusNeverUpdated"
            ]
        );
        assert_eq!(changed[0].last_heartbeat_time, Some(Time(at(5))));
        assert_eq!(changed[0].last_transition_time, Some(Time(at(100))));
        let all = silent.status.as_mut().unwrap().conditions.as_mut().unwrap();
        for condition in changed {
            all.retain(|old| old.type_ != condition.type_);
            all.push(condition);
        }
        assert!(unknown(&silent, at(200)).is_empty());
    }
}
