//! Memory of one's own writes until the cache shows them.
//!
//! A reconcile that reads a cache which has not seen the previous reconcile's creates would create again. So each key
//! remembers which objects it created and deleted, and does not act on counts again before the cache shows all of that.
//! Nothing here is needed after a restart: a fresh process starts with a fresh list.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// After this time an expectation that was never seen is given up: the event was lost together with its cause.
pub const EXPIRY: Duration = Duration::from_secs(300);

/// What one key is waiting to see.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Pending {
    /// uid of each created object, with the revision of its creation.
    created: HashMap<String, u64>,
    /// uid of each deleted object.
    deleted: HashSet<String>,
    since: Option<Instant>,
}

/// What the cache currently says about an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// Not in the cache.
    Absent,
    /// In the cache and alive.
    Alive,
    /// In the cache with a deletion timestamp.
    Deleting,
}

/// The expectations of all keys of one controller.
#[derive(Debug, Default)]
pub struct Expectations {
    keys: Mutex<HashMap<String, Pending>>,
}

impl Expectations {
    fn keys(&self) -> MutexGuard<'_, HashMap<String, Pending>> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `key` has created the object `uid`; the API server answered with `revision`.
    pub fn created(&self, key: &str, uid: &str, revision: u64, now: Instant) {
        let mut keys = self.keys();
        let pending = keys.entry(key.to_owned()).or_default();
        pending.created.insert(uid.to_owned(), revision);
        pending.since.get_or_insert(now);
    }

    /// `key` has deleted the object `uid`.
    pub fn deleted(&self, key: &str, uid: &str, now: Instant) {
        let mut keys = self.keys();
        let pending = keys.entry(key.to_owned()).or_default();
        pending.deleted.insert(uid.to_owned());
        pending.since.get_or_insert(now);
    }

    /// Forgets a key whose object is gone.
    pub fn forget(&self, key: &str) {
        self.keys().remove(key);
    }

    /// Drops what the cache shows by now and says whether nothing is left to wait for.
    ///
    /// `cache_revision` is the newest revision the cache has seen: a created object which a cache as new as its creation
    /// does not have is already gone again.
    pub fn satisfied(
        &self,
        key: &str,
        cache_revision: u64,
        now: Instant,
        seen: impl Fn(&str) -> Seen,
    ) -> bool {
        let mut keys = self.keys();
        let Some(pending) = keys.get_mut(key) else { return true };
        pending.created.retain(|uid, revision| seen(uid) == Seen::Absent && *revision > cache_revision);
        pending.deleted.retain(|uid| seen(uid) == Seen::Alive);
        let expired = pending.since.is_some_and(|since| now.duration_since(since) > EXPIRY);
        let done = expired || (pending.created.is_empty() && pending.deleted.is_empty());
        if done {
            keys.remove(key);
        }
        done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_creation_is_awaited_until_the_cache_shows_it() {
        let (all, now) = (Expectations::default(), Instant::now());
        assert!(all.satisfied("k", 0, now, |_| Seen::Absent), "nothing expected");
        all.created("k", "a", 10, now);
        all.created("k", "b", 11, now);
        assert!(!all.satisfied("k", 5, now, |_| Seen::Absent));
        assert!(!all.satisfied("k", 10, now, |uid| if uid == "a" { Seen::Alive } else { Seen::Absent }));
        assert!(all.satisfied("other", 0, now, |_| Seen::Absent), "keys are independent");
        assert!(all.satisfied("k", 11, now, |_| Seen::Alive));
        assert!(all.satisfied("k", 0, now, |_| Seen::Absent), "fulfilled expectations are forgotten");
    }

    #[test]
    fn a_creation_that_was_deleted_again_is_recognised_by_revision() {
        let (all, now) = (Expectations::default(), Instant::now());
        all.created("k", "a", 10, now);
        assert!(all.satisfied("k", 10, now, |_| Seen::Absent));
    }

    #[test]
    fn a_deletion_is_awaited_until_the_object_is_gone_or_deleting() {
        let (all, now) = (Expectations::default(), Instant::now());
        for seen_at_last in [Seen::Absent, Seen::Deleting] {
            all.deleted("k", "a", now);
            assert!(!all.satisfied("k", 99, now, |_| Seen::Alive));
            assert!(all.satisfied("k", 99, now, |_| seen_at_last));
        }
    }

    #[test]
    fn expectations_expire() {
        let (all, now) = (Expectations::default(), Instant::now());
        all.created("k", "a", 10, now);
        assert!(!all.satisfied("k", 0, now + EXPIRY, |_| Seen::Absent));
        assert!(all.satisfied("k", 0, now + EXPIRY + Duration::from_secs(1), |_| Seen::Absent));
    }
}
