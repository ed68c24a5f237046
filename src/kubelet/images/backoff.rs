//! How long a failed pull waits: 10 s, doubled up to 5 min, forgotten after a while of peace.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;

const INITIAL: Duration = Duration::from_secs(10);
const MAX: Duration = Duration::from_secs(300);
/// A failure that lies further ahead than this was noted before the clock was set back.
const SKEW: Duration = Duration::from_secs(5);
/// Past this many entries those that are long over are dropped.
const SWEEP_AT: usize = 256;

#[derive(Clone, Copy, Debug)]
struct Entry {
    wait: Duration,
    since: Timestamp,
}

/// Back-off per key. Lost with the process, which costs one early pull.
#[derive(Debug, Default)]
pub struct PullBackoff {
    entries: Mutex<HashMap<String, Entry>>,
}

fn passed(entry: &Entry, now: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(entry.since)).unwrap_or_default()
}

impl PullBackoff {
    /// When the next try may be made, if that lies in the future.
    pub fn blocked_until(&self, key: &str, now: Timestamp) -> Option<Timestamp> {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = entries.get(key)?;
        let until = entry.since.checked_add(entry.wait).ok()?;
        // A clock that was set back does not make anybody wait longer.
        let latest = now.checked_add(entry.wait + SKEW).unwrap_or(until);
        (until > now && until <= latest).then_some(until)
    }

    /// Notes a failure; returns when the next try may be made.
    pub fn failed(&self, key: &str, now: Timestamp) -> Timestamp {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if entries.len() > SWEEP_AT {
            entries.retain(|_, e| passed(e, now) < MAX * 2);
        }
        let wait = match entries.get(key) {
            Some(e) if passed(e, now) < MAX * 2 => (e.wait * 2).min(MAX),
            _ => INITIAL,
        };
        entries.insert(key.to_owned(), Entry { wait, since: now });
        now.checked_add(wait).unwrap_or(now)
    }

    /// Notes a success.
    pub fn succeeded(&self, key: &str) {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(s: i64) -> Timestamp {
        Timestamp::from_second(s).unwrap()
    }

    #[test]
    fn waits_double_and_end() {
        let backoff = PullBackoff::default();
        assert_eq!(backoff.blocked_until("k", at(0)), None);
        let mut now = 0;
        let mut waits = Vec::new();
        for _ in 0..7 {
            let until = backoff.failed("k", at(now));
            waits.push(until.as_second() - now);
            assert_eq!(backoff.blocked_until("k", at(now)), Some(until));
            now = until.as_second();
            assert_eq!(backoff.blocked_until("k", at(now)), None);
        }
        assert_eq!(waits, [10, 20, 40, 80, 160, 300, 300]);
        backoff.succeeded("k");
        assert_eq!(backoff.failed("k", at(now)).as_second() - now, 10);
    }

    #[test]
    fn old_failures_are_forgotten() {
        let backoff = PullBackoff::default();
        backoff.failed("k", at(0));
        assert_eq!(backoff.failed("k", at(1000)), at(1010));
        assert_eq!(backoff.blocked_until("k", at(1005)), Some(at(1010)));
        assert_eq!(backoff.blocked_until("k", at(500)), None, "the clock was set back");
    }
}
