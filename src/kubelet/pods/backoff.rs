//! How long a crashed container waits before it starts again: 10 s, doubled with each crash up to 5 min.
//!
//! The step that a container has reached is an annotation on the container itself, so that a restarted kubelet goes on
//! where it was. The first restart is immediate; a run of more than ten minutes starts over.

use std::time::Duration;

use jiff::Timestamp;

use crate::kubelet::observed::ObservedContainer;

/// First wait.
pub const INITIAL: Duration = Duration::from_secs(10);
/// Longest wait.
pub const MAX: Duration = Duration::from_secs(300);
/// A run longer than this forgets earlier crashes.
pub const RESET_AFTER: Duration = Duration::from_secs(600);

/// When and how the next run of a container may start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NextRun {
    /// Not before this time.
    pub not_before: Timestamp,
    /// The wait that the next run carries for the restart after it.
    pub backoff: Duration,
    /// The wait that is being served, zero when there is none.
    pub wait: Duration,
}

/// A container that ended later than this from now ended by another clock, or by this one before it was set back.
const SKEW: Duration = Duration::from_secs(5);

impl NextRun {
    /// Whether the wait is over.
    pub fn is_due(&self, now: Timestamp) -> bool {
        // The first restart waits for nothing, not even for the runtime's clock to agree with this one.
        if self.wait.is_zero() || self.not_before <= now {
            return true;
        }
        let ahead = Duration::try_from(self.not_before.duration_since(now)).unwrap_or_default();
        ahead > self.wait + SKEW
    }
}

/// Decides the next run after a container that ended; no wait is longer than `longest`.
pub fn next_run(ended: &ObservedContainer, longest: Duration) -> NextRun {
    let finished = ended.finished_at.unwrap_or(ended.created_at);
    let started = ended.started_at.unwrap_or(ended.created_at);
    let ran = Duration::try_from(finished.duration_since(started)).unwrap_or_default();
    if ended.backoff.is_zero() || ran > RESET_AFTER {
        return NextRun { not_before: finished, backoff: INITIAL.min(longest), wait: Duration::ZERO };
    }
    // What the container was told may be from before a change of the configuration.
    let wait = ended.backoff.min(longest);
    NextRun {
        not_before: finished.checked_add(wait).unwrap_or(finished),
        backoff: (wait * 2).min(longest),
        wait,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubelet::observed::RunState;
    use crate::kubelet::pods::fixture;

    fn ended(backoff: u64, started: i64, finished: i64) -> ObservedContainer {
        let mut c = fixture::container("a", 0, RunState::Exited);
        c.backoff = Duration::from_secs(backoff);
        c.started_at = Some(Timestamp::from_second(started).unwrap());
        c.finished_at = Some(Timestamp::from_second(finished).unwrap());
        c
    }

    #[test]
    fn waits_double_up_to_five_minutes() {
        let mut backoff = 0;
        let mut waits = Vec::new();
        for _ in 0..8 {
            let next = next_run(&ended(backoff, 0, 1), MAX);
            assert_eq!(next.not_before.as_second(), 1 + backoff as i64);
            waits.push(next.wait.as_secs());
            backoff = next.backoff.as_secs();
        }
        assert_eq!(waits, [0, 10, 20, 40, 80, 160, 300, 300]);
    }

    #[test]
    fn a_node_may_wait_less() {
        let longest = Duration::from_secs(5);
        assert_eq!(next_run(&ended(0, 0, 1), longest).backoff, longest);
        let after_a_change = next_run(&ended(160, 0, 1), longest);
        assert_eq!((after_a_change.wait, after_a_change.backoff), (longest, longest));
        assert_eq!(after_a_change.not_before.as_second(), 6);
    }

    #[test]
    fn a_clock_that_was_set_back_makes_nobody_wait_longer() {
        let run = next_run(&ended(10, 990, 1000), MAX);
        for (now, due) in
            [(1000, false), (1009, false), (1010, true), (996, false), (990, true), (-5000, true)]
        {
            assert_eq!(run.is_due(Timestamp::from_second(now).unwrap()), due, "{now}");
        }
        assert!(next_run(&ended(0, 990, 1000), MAX).is_due(Timestamp::from_second(0).unwrap()));
    }

    #[test]
    fn ten_minutes_of_running_start_over() {
        assert_eq!(next_run(&ended(300, 0, 600), MAX).wait, MAX);
        let reset = next_run(&ended(300, 0, 601), MAX);
        assert_eq!((reset.wait, reset.backoff), (Duration::ZERO, INITIAL));
    }
}
