//! Which taints a node must have.

use crate::client::conditions;
use k8s_openapi::{
    api::core::v1::{Node, Taint},
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::Timestamp,
};
use std::time::Duration;

const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";

/// Conditions that taint while they are true.
const PRESSURES: [(&str, &str); 4] = [
    ("MemoryPressure", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "node.kubernetes.io/disk-pressure"),
    ("PIDPressure", "node.kubernetes.io/pid-pressure"),
    ("NetworkUnavailable", "node.kubernetes.io/network-unavailable"),
];

/// The `Ready` condition of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ready {
    Yes,
    No,
    Unknown,
}

pub(super) fn ready(node: &Node) -> Ready {
    let all = node.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    match conditions::find(all, "Ready").map(|ready| ready.status.as_str()) {
        Some("True") => Ready::Yes,
        Some("False") => Ready::No,
        _ => Ready::Unknown,
    }
}

/// The taint for a node that is not ready.
fn unready_key(ready: Ready) -> Option<&'static str> {
    match ready {
        Ready::Yes => None,
        Ready::No => Some(NOT_READY),
        Ready::Unknown => Some(UNREACHABLE),
    }
}

/// `current` with the `NoSchedule` taints that follow from conditions set right; all others stay as they are.
pub(super) fn no_schedule(node: &Node, current: &[Taint], now: Timestamp) -> Vec<Taint> {
    let all = node.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let mut wanted: Vec<&str> =
        PRESSURES.iter().filter(|(kind, _)| conditions::is_true(all, kind)).map(|(_, key)| *key).collect();
    // A node that never reported is not said to be unreachable; its kubelet registers it with a taint.
    if conditions::find(all, "Ready").is_some() {
        wanted.extend(unready_key(ready(node)));
    } else {
        wanted
            .extend(current.iter().filter(|t| is(t, "NoSchedule") && t.key == NOT_READY).map(|_| NOT_READY));
    }
    if node.spec.as_ref().and_then(|spec| spec.unschedulable) == Some(true) {
        wanted.push(UNSCHEDULABLE);
    }
    let ours = PRESSURES.map(|(_, key)| key);
    let ours = |taint: &Taint| {
        is(taint, "NoSchedule")
            && (ours.contains(&taint.key.as_str())
                || [NOT_READY, UNREACHABLE, UNSCHEDULABLE].contains(&taint.key.as_str()))
    };
    set(current, ours, &wanted, "NoSchedule", now)
}

/// `current` with the `NoExecute` taints of a node that is not ready set right, or removed unless `evict`.
pub(super) fn no_execute(ready: Ready, evict: bool, current: Vec<Taint>, now: Timestamp) -> Vec<Taint> {
    let wanted: Vec<&str> = unready_key(ready).filter(|_| evict).into_iter().collect();
    set(&current, is_unready, &wanted, "NoExecute", now)
}

/// Pods are being evicted because the node is not ready.
pub(super) fn evicts(taints: &[Taint]) -> bool {
    taints.iter().any(is_unready)
}

fn is_unready(taint: &Taint) -> bool {
    is(taint, "NoExecute") && [NOT_READY, UNREACHABLE].contains(&taint.key.as_str())
}

fn is(taint: &Taint, effect: &str) -> bool {
    taint.effect == effect
}

fn set(
    current: &[Taint],
    ours: impl Fn(&Taint) -> bool,
    wanted: &[&str],
    effect: &str,
    now: Timestamp,
) -> Vec<Taint> {
    let kept = |taint: &&Taint| !ours(taint) || wanted.contains(&taint.key.as_str());
    let mut taints: Vec<Taint> = current.iter().filter(kept).cloned().collect();
    for key in wanted {
        if !taints.iter().any(|taint| taint.key == *key && taint.effect == effect) {
            taints.push(Taint {
                key: (*key).to_owned(),
                effect: effect.to_owned(),
                time_added: Some(Time(now)),
                value: None,
            });
        }
    }
    taints
}

/// How fast nodes may be emptied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pace {
    /// One node in this time.
    Every(Duration),
    /// None.
    Stop,
}

/// Clusters of up to this many nodes stop evicting when most nodes are down.
const SMALL_CLUSTER: usize = 50;

/// The pace for a cluster with `down` of `total` nodes not ready.
pub(super) fn pace(total: usize, down: usize) -> Pace {
    let most_are_down = down > 2 && down * 100 >= total * 55;
    if down >= total && down > 0 {
        Pace::Stop
    } else if !most_are_down {
        Pace::Every(Duration::from_secs(10))
    } else if total > SMALL_CLUSTER {
        Pace::Every(Duration::from_secs(100))
    } else {
        Pace::Stop
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::{NodeCondition, NodeSpec, NodeStatus};

    fn node(conditions: &[(&str, &str)], unschedulable: bool) -> Node {
        let condition = |(kind, status): &(&str, &str)| NodeCondition {
            type_: (*kind).into(),
            status: (*status).into(),
            ..NodeCondition::default()
        };
        let conditions = Some(conditions.iter().map(condition).collect());
        Node {
            spec: Some(NodeSpec { unschedulable: Some(unschedulable), ..NodeSpec::default() }),
            status: Some(NodeStatus { conditions, ..NodeStatus::default() }),
            ..Node::default()
        }
    }

    fn taints(list: &[&str]) -> Vec<Taint> {
        let taint = |text: &&str| {
            let (key, effect) = text.rsplit_once(':').unwrap();
            let key = if key.contains('/') { key.to_owned() } else { format!("node.kubernetes.io/{key}") };
            Taint { key, effect: effect.into(), ..Taint::default() }
        };
        list.iter().map(taint).collect()
    }

    fn text(taints: &[Taint]) -> Vec<String> {
        let short = |key: &str| key.trim_start_matches("node.kubernetes.io/").to_owned();
        taints.iter().map(|taint| format!("{}:{}", short(&taint.key), taint.effect)).collect()
    }

    #[test]
    fn conditions_lead_to_no_schedule_taints() {
        type Case<'a> = (&'a [(&'a str, &'a str)], bool, &'a [&'a str], &'a [&'a str]);
        let cases: &[Case<'_>] = &[
            (&[("Ready", "True")], false, &[], &[]),
            (&[("Ready", "False")], false, &[], &["not-ready:NoSchedule"]),
            (&[("Ready", "Unknown")], false, &["not-ready:NoSchedule"], &["unreachable:NoSchedule"]),
            (&[("Ready", "True")], false, &["not-ready:NoSchedule", "unreachable:NoSchedule"], &[]),
            (
                &[("Ready", "True"), ("DiskPressure", "True"), ("MemoryPressure", "False")],
                true,
                &["memory-pressure:NoSchedule"],
                &["disk-pressure:NoSchedule", "unschedulable:NoSchedule"],
            ),
            (
                &[("Ready", "True")],
                false,
                &["demo.io/own:NoSchedule", "not-ready:NoExecute", "disk-pressure:NoExecute"],
                &["demo.io/own:NoSchedule", "not-ready:NoExecute", "disk-pressure:NoExecute"],
            ),
            (&[], false, &["not-ready:NoSchedule"], &["not-ready:NoSchedule"]),
            (&[], false, &[], &[]),
        ];
        for (conditions, unschedulable, current, want) in cases {
            let got = no_schedule(&node(conditions, *unschedulable), &taints(current), Timestamp::UNIX_EPOCH);
            assert_eq!(text(&got), *want, "{conditions:?} {current:?}");
        }
    }

    #[test]
    fn unready_nodes_get_one_no_execute_taint_unless_evictions_are_suspended() {
        for (ready, evict, current, want) in [
            (
                Ready::Yes,
                true,
                &["not-ready:NoExecute", "demo.io/x:NoExecute"][..],
                &["demo.io/x:NoExecute"][..],
            ),
            (Ready::No, true, &[], &["not-ready:NoExecute"]),
            (Ready::Unknown, true, &["not-ready:NoExecute"], &["unreachable:NoExecute"]),
            (Ready::Unknown, false, &["unreachable:NoExecute"], &[]),
            (Ready::No, false, &["unreachable:NoSchedule"], &["unreachable:NoSchedule"]),
        ] {
            let got = no_execute(ready, evict, taints(current), Timestamp::UNIX_EPOCH);
            assert_eq!(text(&got), want, "{ready:?} {evict} {current:?}");
        }
    }

    #[test]
    fn the_time_of_a_taint_that_stays_is_kept() {
        let first = no_execute(Ready::No, true, vec![], Timestamp::from_second(1).unwrap());
        let again = no_execute(Ready::No, true, first.clone(), Timestamp::from_second(9).unwrap());
        assert_eq!(first, again);
    }

    #[test]
    fn the_pace_falls_with_the_share_of_nodes_down() {
        let every = |seconds| Pace::Every(Duration::from_secs(seconds));
        for (total, down, want) in [
            (1, 1, Pace::Stop),
            (2, 1, every(10)),
            (3, 2, every(10)),
            (5, 3, Pace::Stop),
            (10, 5, every(10)),
            (100, 54, every(10)),
            (100, 55, every(100)),
            (100, 100, Pace::Stop),
        ] {
            assert_eq!(pace(total, down), want, "{down} of {total}");
        }
    }
}
