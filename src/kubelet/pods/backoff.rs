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

/// Decides the next run after a container that ended.
pub fn next_run(ended: &ObservedContainer) -> NextRun {
    let finished = ended.finished_at.unwrap_or(ended.created_at);
    let started = ended.started_at.unwrap_or(ended.created_at);
    let ran = Duration::try_from(finished.duration_since(started)).unwrap_or_default();
    if ended.backoff.is_zero() || ran > RESET_AFTER {
        return NextRun { not_before: finished, backoff: INITIAL, wait: Duration::ZERO };
    }
    NextRun {
        not_before: finished.checked_add(ended.backoff).unwrap_or(finished),
        backoff: (ended.backoff * 2).min(MAX),
        wait: ended.backoff,
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
            let next = next_run(&ended(backoff, 0, 1));
            assert_eq!(next.not_before.as_second(), 1 + backoff as i64);
            waits.push(next.wait.as_secs());
            backoff = next.backoff.as_secs();
        }
        assert_eq!(waits, [0, 10, 20, 40, 80, 160, 300, 300]);
    }

    #[test]
    fn ten_minutes_of_running_start_over() {
        assert_eq!(next_run(&ended(300, 0, 600)).wait, MAX);
        let reset = next_run(&ended(300, 0, 601));
        assert_eq!((reset.wait, reset.backoff), (Duration::ZERO, INITIAL));
    }
}
