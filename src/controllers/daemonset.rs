//! The DaemonSet controller: one pod of a template on every node that suits it.
//!
//! Pods are bound to their nodes by node affinity and placed by the scheduler. Updates go node by node within
//! maxUnavailable, or with a second pod beside the old one within maxSurge; OnDelete leaves old pods alone.

pub mod place;
pub mod plan;
pub mod rolling;
pub mod status;

mod run;

pub use run::{Error, run};

#[cfg(test)]
mod tests;
