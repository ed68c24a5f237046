//! Reads: they copy what the cache holds and ask the store nothing but its revision.

pub(crate) mod continuation;
mod converted;
pub(super) mod get;
pub(super) mod select;
pub(super) mod watch;
