//! The life of one pod on this node, as a state machine without I/O.
//!
//! Invariant: a pod only moves forward (`Active` → `Stopping` → `Stopped` → `Gone`); nothing leads back to `Active`.
//! The state is derivable from the API object and the runtime alone, so a restarted kubelet arrives at the same one.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

/// Where the pod is in its life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Life {
    /// The pod should run. Left when something asks it to stop or when its containers are done for good.
    Active,
    /// Containers are being stopped. Left when none runs.
    Stopping(Stop),
    /// No container runs; sandbox and volumes are being given back. Left when the API no longer holds the pod.
    Stopped(Stop),
    /// Nothing of the pod is left; the worker ends.
    Gone,
}

/// Why and how a pod stops.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stop {
    /// The first reason, which decides the final status.
    pub why: Why,
    /// Containers are killed when this time has passed since `since`.
    pub grace: Duration,
    /// When stopping began.
    pub since: Timestamp,
}

/// What made a pod stop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// The API object has a deletion timestamp.
    Deleted,
    /// The API object is gone, or never existed for what the runtime holds.
    Removed,
    /// All containers ended and none will be restarted, or the API already says so.
    Completed,
    /// The node ends the pod with phase `Failed`: not admitted, deadline passed, evicted.
    Failed {
        /// `status.reason`.
        reason: String,
        /// `status.message`.
        message: String,
    },
}

/// What the step looks at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The API (or the manifest directory) holds the pod.
    pub present: bool,
    /// Grace period of the deletion, when one was asked for.
    pub deletion: Option<Duration>,
    /// Grace period of the spec (or of the containers' annotations, for an orphan).
    pub spec_grace: Duration,
    /// `status.phase` in the API is Succeeded or Failed.
    pub terminal: bool,
    /// All containers ended for good.
    pub completed: bool,
    /// The node has to fail the pod, and why.
    pub failed: Option<(String, String)>,
    /// Grace period of that failure; the spec's when there is none.
    pub failed_grace: Option<Duration>,
    /// Some container runs, or an operation that may start one is under way.
    pub alive: bool,
    /// Sandboxes, containers, volumes and directories are all given back.
    pub cleaned: bool,
}

impl Stop {
    /// Time that is left before containers are killed.
    pub fn remaining(&self, now: Timestamp) -> Duration {
        let used = Duration::try_from(now.duration_since(self.since)).unwrap_or_default();
        self.grace.saturating_sub(used)
    }

    /// The status ends as `Failed` with this reason and message, when the node made it so.
    pub fn failure(&self) -> Option<(&str, &str)> {
        match &self.why {
            Why::Failed { reason, message } => Some((reason, message)),
            Why::Deleted | Why::Removed | Why::Completed => None,
        }
    }
}

impl Life {
    /// The clock was set forward or back by so much: what has begun goes on for as long as it would have.
    pub fn shift(&mut self, by: SignedDuration) {
        if let Self::Stopping(stop) | Self::Stopped(stop) = self {
            stop.since = stop.since.saturating_add(by).unwrap_or(stop.since);
        }
    }

    /// The stop that is under way or done.
    pub fn stop(&self) -> Option<&Stop> {
        match self {
            Self::Stopping(stop) | Self::Stopped(stop) => Some(stop),
            Self::Active | Self::Gone => None,
        }
    }

    /// The next state, given what is true now.
    #[must_use]
    pub fn step(self, facts: &Facts, now: Timestamp) -> Self {
        match self {
            Self::Active => match reason_to_stop(facts) {
                Some((why, grace)) => Self::Stopping(Stop { why, grace, since: now }).step(facts, now),
                None => Self::Active,
            },
            Self::Stopping(mut stop) => {
                shorten(&mut stop, facts, now);
                if facts.alive { Self::Stopping(stop) } else { Self::Stopped(stop).step(facts, now) }
            }
            // A container that appears after all (a start that was under way) is stopped again.
            Self::Stopped(stop) if facts.alive => Self::Stopping(stop),
            Self::Stopped(stop) => {
                if !facts.present && facts.cleaned {
                    Self::Gone
                } else {
                    Self::Stopped(stop)
                }
            }
            Self::Gone => Self::Gone,
        }
    }
}

fn reason_to_stop(facts: &Facts) -> Option<(Why, Duration)> {
    if !facts.present {
        return Some((Why::Removed, facts.spec_grace.max(Duration::from_secs(1))));
    }
    if let Some((reason, message)) = &facts.failed
        && !facts.terminal
    {
        let why = Why::Failed { reason: reason.clone(), message: message.clone() };
        let grace = facts.deletion.or(facts.failed_grace).unwrap_or(facts.spec_grace);
        return Some((why, grace));
    }
    if let Some(grace) = facts.deletion {
        return Some((Why::Deleted, grace));
    }
    (facts.terminal || facts.completed).then_some((Why::Completed, facts.spec_grace))
}

/// A later and stricter request shortens the stop that is under way; nothing lengthens it.
fn shorten(stop: &mut Stop, facts: &Facts, now: Timestamp) {
    let asked = match facts.deletion {
        Some(grace) => grace,
        None if !facts.present && stop.why != Why::Removed => facts.spec_grace.max(Duration::from_secs(1)),
        None => return,
    };
    let used = Duration::try_from(now.duration_since(stop.since)).unwrap_or_default();
    // A deletion that is already what this stop obeys must not restart its clock.
    let new_total = if stop.why == Why::Deleted { asked } else { used + asked };
    if new_total < stop.grace {
        stop.grace = new_total;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn facts() -> Facts {
        Facts {
            present: true,
            deletion: None,
            spec_grace: Duration::from_secs(30),
            terminal: false,
            completed: false,
            failed: None,
            failed_grace: None,
            alive: true,
            cleaned: false,
        }
    }

    #[test]
    fn a_wanted_pod_stays_active() {
        assert_eq!(Life::Active.step(&facts(), at(0)), Life::Active);
        let idle = Facts { alive: false, ..facts() };
        assert_eq!(Life::Active.step(&idle, at(0)), Life::Active);
    }

    #[test]
    fn deletion_stops_then_waits_for_the_api_to_forget() {
        let deleted = Facts { deletion: Some(Duration::from_secs(5)), ..facts() };
        let stopping = Life::Active.step(&deleted, at(0));
        let stop = Stop { why: Why::Deleted, grace: Duration::from_secs(5), since: at(0) };
        assert_eq!(stopping, Life::Stopping(stop.clone()));
        let dead = Facts { alive: false, ..deleted };
        let stopped = stopping.step(&dead, at(1));
        assert_eq!(stopped, Life::Stopped(stop.clone()));
        let cleaned = Facts { cleaned: true, ..dead.clone() };
        assert_eq!(stopped.clone().step(&cleaned, at(2)), Life::Stopped(stop), "the API still holds it");
        let gone = Facts { present: false, ..cleaned };
        assert_eq!(stopped.step(&gone, at(3)), Life::Gone);
    }

    #[test]
    fn a_shorter_grace_counts_and_a_longer_one_does_not() {
        let deleted = Facts { deletion: Some(Duration::from_secs(30)), ..facts() };
        let stopping = Life::Active.step(&deleted, at(0));
        let force = Facts { deletion: Some(Duration::from_secs(1)), ..facts() };
        let shorter = stopping.step(&force, at(10));
        assert_eq!(shorter.stop().unwrap().remaining(at(10)), Duration::ZERO);
        let longer = Facts { deletion: Some(Duration::from_secs(300)), ..facts() };
        assert_eq!(shorter.clone().step(&longer, at(11)), shorter);
    }

    #[test]
    fn a_clock_that_is_set_changes_no_grace_period() {
        let deleted = Facts { deletion: Some(Duration::from_secs(30)), ..facts() };
        for by in [3600, -3600] {
            let mut stopping = Life::Active.step(&deleted, at(10_000));
            stopping.shift(SignedDuration::from_secs(by));
            let left = stopping.stop().unwrap().remaining(at(10_000 + by + 10));
            assert_eq!(left, Duration::from_secs(20), "{by}");
        }
    }

    #[test]
    fn the_first_reason_decides_the_final_status() {
        let failed = Facts { failed: Some(("DeadlineExceeded".into(), "m".into())), ..facts() };
        let stopping = Life::Active.step(&failed, at(0));
        assert_eq!(stopping.stop().unwrap().failure(), Some(("DeadlineExceeded", "m")));
        let deleted = Facts { deletion: Some(Duration::from_secs(3)), ..failed };
        let later = stopping.step(&deleted, at(1));
        let stop = later.stop().unwrap();
        assert_eq!((stop.failure(), stop.grace), (Some(("DeadlineExceeded", "m")), Duration::from_secs(4)));
    }

    #[test]
    fn completed_pods_pass_straight_to_stopped() {
        for done in [
            Facts { completed: true, alive: false, ..facts() },
            Facts { terminal: true, alive: false, ..facts() },
        ] {
            assert!(matches!(
                Life::Active.step(&done, at(0)),
                Life::Stopped(Stop { why: Why::Completed, .. })
            ));
        }
    }

    #[test]
    fn an_orphan_is_stopped_and_forgotten() {
        let orphan = Facts { present: false, ..facts() };
        let stopping = Life::Active.step(&orphan, at(0));
        assert_eq!(stopping.stop().unwrap().why, Why::Removed);
        let clean = Facts { alive: false, cleaned: true, ..orphan };
        assert_eq!(stopping.step(&clean, at(0)), Life::Gone);
    }

    #[test]
    fn a_late_container_is_stopped_again() {
        let dead = Facts { completed: true, alive: false, ..facts() };
        let stopped = Life::Active.step(&dead, at(0));
        assert!(matches!(stopped.step(&facts(), at(1)), Life::Stopping(_)));
    }
}
