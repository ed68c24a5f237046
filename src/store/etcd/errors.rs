//! etcd's errors in the terms of the contract, and what may be tried again.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use tonic::{Code, Status};

use crate::store::StoreError;
use crate::store::error::Cause;

/// A member could not be connected to: whatever was asked of it has not been sent.
#[derive(Debug, Clone, thiserror::Error)]
#[error("connect to etcd member {member}")]
pub(super) struct NotConnected {
    pub(super) member: String,
    #[source]
    pub(super) source: Cause,
}

/// A call that ended without an answer that counts.
#[derive(Debug, thiserror::Error)]
pub(super) enum CallFailure {
    #[error("etcd member {member} refused {operation}: {message}")]
    Refused { member: String, operation: &'static str, message: String },
    #[error("etcd member {member} did not answer {operation} within {after:?}")]
    Timeout { member: String, operation: &'static str, after: Duration },
    #[error("no etcd member answered {operation} within {after:?}")]
    Exhausted {
        operation: &'static str,
        after: Duration,
        #[source]
        last: Option<StoreError>,
    },
}

impl CallFailure {
    pub(super) fn into_store(self) -> StoreError {
        StoreError::Unavailable { source: Arc::new(self) }
    }
}

/// Why a call failed, for the caller to turn into its own error.
#[derive(Debug)]
pub(super) enum CallError {
    /// The revision that was asked for is compacted.
    Compacted,
    /// The revision that was asked for has not been written.
    Future,
    /// The lease that was named has ended; nothing was written.
    NoLease,
    /// The request exceeds what etcd accepts; nothing was written.
    TooLarge,
    /// Anything else.
    Store(StoreError),
}

/// What a failed attempt means.
pub(super) enum Attempt {
    /// It failed for good.
    Final(CallError),
    /// It did not happen: it may be tried with another member, whatever it was.
    NotDone(StoreError),
    /// It may have happened: only what can be repeated without harm may be tried again.
    Unknown(StoreError),
}

/// Tells what the status of an attempt means.
pub(super) fn classify(status: Status, member: &str, operation: &'static str) -> Attempt {
    let message = status.message().to_owned();
    let says = |text: &str| message.contains(text);
    let refused = || CallFailure::Refused { member: member.to_owned(), operation, message: message.clone() };
    match status.code() {
        Code::OutOfRange if says("has been compacted") => Attempt::Final(CallError::Compacted),
        Code::OutOfRange if says("future revision") => Attempt::Final(CallError::Future),
        Code::NotFound if says("lease not found") => Attempt::Final(CallError::NoLease),
        Code::InvalidArgument if says("request is too large") => Attempt::Final(CallError::TooLarge),
        Code::ResourceExhausted if says("larger than max") => Attempt::Final(CallError::TooLarge),
        Code::ResourceExhausted if says("space exceeded") => {
            Attempt::Final(CallError::Store(StoreError::Full { source: Arc::new(refused()) }))
        }
        // Said before anything is proposed.
        Code::ResourceExhausted | Code::Unavailable if says("too many requests") => {
            Attempt::NotDone(refused().into_store())
        }
        Code::Unavailable if says("etcdserver: no leader") => Attempt::NotDone(refused().into_store()),
        Code::DataLoss => Attempt::Final(CallError::Store(StoreError::Corrupt {
            detail: format!("etcd member {member} says: {message}"),
        })),
        Code::PermissionDenied
        | Code::Unauthenticated
        | Code::InvalidArgument
        | Code::Unimplemented
        | Code::FailedPrecondition => Attempt::Final(CallError::Store(refused().into_store())),
        _ => match never_sent(&status) {
            Some(cause) => Attempt::NotDone(StoreError::Unavailable { source: Arc::new(cause) }),
            None => Attempt::Unknown(refused().into_store()),
        },
    }
}

/// The failed connection among the causes of a status, if there is one.
fn never_sent(status: &Status) -> Option<NotConnected> {
    let mut cause = status.source();
    while let Some(error) = cause {
        if let Some(found) = error.downcast_ref::<NotConnected>() {
            return Some(found.clone());
        }
        cause = error.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_of_etcd_become_what_callers_act_on() {
        let of = |code, message: &str| classify(Status::new(code, message), "m", "txn");
        assert!(matches!(
            of(Code::OutOfRange, "etcdserver: mvcc: required revision has been compacted"),
            Attempt::Final(CallError::Compacted)
        ));
        assert!(matches!(
            of(Code::OutOfRange, "etcdserver: mvcc: required revision is a future revision"),
            Attempt::Final(CallError::Future)
        ));
        assert!(matches!(
            of(Code::NotFound, "etcdserver: requested lease not found"),
            Attempt::Final(CallError::NoLease)
        ));
        assert!(matches!(
            of(Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded"),
            Attempt::Final(CallError::Store(StoreError::Full { .. }))
        ));
        assert!(matches!(of(Code::Unavailable, "etcdserver: no leader"), Attempt::NotDone(_)));
        assert!(matches!(of(Code::ResourceExhausted, "etcdserver: too many requests"), Attempt::NotDone(_)));
    }

    #[test]
    fn a_write_without_a_clear_answer_may_have_happened() {
        for message in ["etcdserver: request timed out", "etcdserver: leader changed", "transport is closing"]
        {
            let attempt = classify(Status::new(Code::Unavailable, message), "m", "txn");
            assert!(matches!(attempt, Attempt::Unknown(StoreError::Unavailable { .. })), "{message}");
        }
    }
}
