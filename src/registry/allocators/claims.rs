//! Claims on numbers in a store that several servers write to: one key for each number, created by whoever draws it.
//!
//! The pools in memory only guess what is free; the claim decides. A claim goes with its Service. What a crash leaves
//! behind is recognized by its age and by the Service that does not hold it, and removed at the start of a server or
//! when numbers run short.

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use k8s_openapi::jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::store::{Entry, ListOptions, Revision, Store, StoreError};

const ROOT: &str = "/registry/ranges/";
const IPS: &str = "/registry/ranges/serviceips/";
const PORTS: &str = "/registry/ranges/servicenodeports/";
/// Seconds after which a claim must have its Service: many times what a write may take.
const GRACE: i64 = 300;

/// An address or a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Number {
    /// A Service address.
    Ip(IpAddr),
    /// A node port.
    Port(u16),
}

impl Number {
    fn key(self) -> String {
        match self {
            Self::Ip(ip) => format!("{IPS}{ip}"),
            Self::Port(port) => format!("{PORTS}{port}"),
        }
    }

    fn of(key: &str) -> Option<Self> {
        match key.strip_prefix(IPS) {
            Some(ip) => ip.parse().ok().map(Self::Ip),
            None => key.strip_prefix(PORTS)?.parse().ok().map(Self::Port),
        }
    }
}

/// What a claim says.
#[derive(Debug, Serialize, Deserialize)]
struct Claim {
    /// The uid of the Service.
    owner: String,
    /// Seconds since 1970.
    since: i64,
}

/// The claims of one store.
#[derive(Clone)]
pub struct Claims {
    store: Arc<dyn Store>,
}

/// How claiming ended.
#[derive(Debug)]
pub enum Claimed {
    /// All are ours; those that were made, with their revisions.
    All(Vec<(Number, Revision)>),
    /// This one is somebody else's. Nothing was claimed.
    Clash(Number),
}

impl Claims {
    /// Claims in this store.
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self { store }
    }

    /// Claims numbers for a Service: all of them or none. One that the Service has claimed already is its own.
    pub async fn take(&self, numbers: &[Number], owner: &str) -> Result<Claimed, StoreError> {
        let mut made = Vec::new();
        for &number in numbers {
            match self.take_one(number, owner).await {
                Ok(Some(Taken::Made(revision))) => made.push((number, revision)),
                Ok(Some(Taken::Renewed)) => {}
                Ok(None) => {
                    self.undo(&made).await;
                    return Ok(Claimed::Clash(number));
                }
                Err(error) => {
                    self.undo(&made).await;
                    return Err(error);
                }
            }
        }
        Ok(Claimed::All(made))
    }

    async fn take_one(&self, number: Number, owner: &str) -> Result<Option<Taken>, StoreError> {
        let key = number.key();
        let claim = Claim { owner: owner.to_owned(), since: now() };
        let value = Bytes::from(serde_json::to_vec(&claim).unwrap_or_default());
        loop {
            match self.store.create(&key, value.clone(), None).await {
                Ok(revision) => return Ok(Some(Taken::Made(revision))),
                Err(StoreError::Exists { .. }) => {}
                Err(error) => return Err(error),
            }
            let Some(entry) = self.store.get(&key, None).await? else { continue };
            if claim_of(&entry).is_none_or(|claim| claim.owner != owner) {
                return Ok(None);
            }
            // Changed, so that another attempt for the same Service that fails does not take it away.
            match self.store.update(&key, value.clone(), entry.mod_revision, None).await {
                Ok(_) => return Ok(Some(Taken::Renewed)),
                Err(StoreError::Conflict { .. } | StoreError::NotFound { .. }) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Takes back what a write that failed has claimed, unless it has been renewed since. What cannot be taken back
    /// now is found later.
    pub async fn undo(&self, made: &[(Number, Revision)]) {
        for (number, revision) in made {
            self.remove(*number, *revision).await;
        }
    }

    /// Gives up what a Service no longer holds.
    pub async fn give_up(&self, numbers: &[Number], owner: &str) {
        for &number in numbers {
            match self.store.get(&number.key(), None).await {
                Ok(Some(entry)) if claim_of(&entry).is_some_and(|claim| claim.owner == owner) => {
                    self.remove(number, entry.mod_revision).await;
                }
                Ok(_) => {}
                Err(error) => tracing::warn!(?number, %error, "the claim of a Service stays behind"),
            }
        }
    }

    async fn remove(&self, number: Number, revision: Revision) {
        match self.store.delete(&number.key(), revision).await {
            Ok(_) | Err(StoreError::Conflict { .. } | StoreError::NotFound { .. }) => {}
            Err(error) => tracing::warn!(?number, %error, "the claim of a Service stays behind"),
        }
    }

    /// All numbers that are claimed. Old claims of Services that, as `held` says, do not hold them are removed.
    pub async fn all(&self, held: &(dyn Fn(Number, &str) -> bool + Sync)) -> Result<Vec<Number>, StoreError> {
        let mut stale = Vec::new();
        let mut numbers = Vec::new();
        for entry in self.store.list(ROOT, &ListOptions::default()).await?.entries {
            let Some(number) = Number::of(&entry.key) else { continue };
            let is_stale = claim_of(&entry)
                .is_none_or(|claim| claim.since < now() - GRACE && !held(number, &claim.owner));
            if is_stale {
                stale.push((number, entry.mod_revision));
            } else {
                numbers.push(number);
            }
        }
        self.undo(&stale).await;
        Ok(numbers)
    }
}

/// How a single claim came about.
enum Taken {
    Made(Revision),
    Renewed,
}

fn claim_of(entry: &Entry) -> Option<Claim> {
    serde_json::from_slice(&entry.value).ok()
}

fn now() -> i64 {
    Timestamp::now().as_second()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::sqlite::{SqliteOptions, SqliteStore};

    fn claims() -> (Claims, tempfile::TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(&folder.path().join("state.db"), SqliteOptions::default()).unwrap();
        (Claims::new(store), folder)
    }

    fn ip(text: &str) -> Number {
        Number::Ip(text.parse().unwrap())
    }

    async fn taken(claims: &Claims) -> Vec<Number> {
        claims.all(&|_, _| true).await.unwrap()
    }

    proptest::proptest! {
        #[test]
        fn keys_tell_their_number(four in proptest::num::u32::ANY, six in proptest::num::u128::ANY, port in 1..u16::MAX) {
            let numbers = [
                Number::Ip(IpAddr::V4(four.into())),
                Number::Ip(IpAddr::V6(six.into())),
                Number::Port(port),
            ];
            for number in numbers {
                proptest::prop_assert_eq!(Number::of(&number.key()), Some(number));
            }
        }

        #[test]
        fn no_key_makes_it_panic(text in ".{0,60}") {
            for root in [ROOT, IPS, PORTS, ""] {
                Number::of(&format!("{root}{text}"));
            }
        }
    }

    #[tokio::test]
    async fn a_number_has_one_owner_and_a_clash_leaves_nothing_behind() {
        let (claims, _folder) = claims();
        let (one, two, port) = (ip("10.0.0.1"), ip("fd00::2"), Number::Port(30080));
        assert!(
            matches!(claims.take(&[one, port], "a").await.unwrap(), Claimed::All(made) if made.len() == 2)
        );
        let clash = claims.take(&[two, port], "b").await.unwrap();
        assert!(matches!(clash, Claimed::Clash(number) if number == port), "{clash:?}");
        assert_eq!(taken(&claims).await, [one, port]);
        claims.give_up(&[port], "b").await;
        assert_eq!(taken(&claims).await, [one, port], "only the owner gives up");
        claims.give_up(&[port], "a").await;
        assert!(matches!(claims.take(&[two, port], "b").await.unwrap(), Claimed::All(_)));
    }

    #[tokio::test]
    async fn a_failed_attempt_does_not_take_away_what_another_one_renewed() {
        let (claims, _folder) = claims();
        let port = Number::Port(30080);
        let Claimed::All(first) = claims.take(&[port], "a").await.unwrap() else { panic!("a clash") };
        let Claimed::All(second) = claims.take(&[port], "a").await.unwrap() else { panic!("a clash") };
        assert!(second.is_empty(), "it was there");
        claims.undo(&first).await;
        assert_eq!(taken(&claims).await, [port]);
    }

    #[tokio::test]
    async fn old_claims_that_nothing_holds_are_removed() {
        let (claims, _folder) = claims();
        let old = |owner: &str| serde_json::to_vec(&Claim { owner: owner.into(), since: 1 }).unwrap();
        for (number, owner) in [(30001, "held"), (30002, "gone")] {
            claims.store.create(&Number::Port(number).key(), old(owner).into(), None).await.unwrap();
        }
        claims.take(&[Number::Port(30003)], "new").await.unwrap();
        let left = claims.all(&|_, owner| owner == "held").await.unwrap();
        assert_eq!(left, [Number::Port(30001), Number::Port(30003)]);
        assert_eq!(taken(&claims).await, left);
    }
}
