//! The StatefulSet controller: pods with names, hosts and volume claims of their own, in order.
//!
//! Pods are named by ordinal, so that creating one twice is impossible and nothing need be remembered. OrderedReady makes
//! one step at a time, Parallel all at once; updates go from the highest ordinal down to the partition.

pub mod claims;
pub mod identity;
pub mod plan;
pub mod status;

mod act;
mod run;

pub use run::{Error, run};

#[cfg(test)]
mod tests;
