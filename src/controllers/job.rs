//! The Job controller: runs pods to completion and counts each of them exactly once.
//!
//! A pod keeps the finalizer `batch.kubernetes.io/job-tracking` until the Job's status has written it down: first its
//! uid under `uncountedTerminatedPods` (or its index), then the finalizer goes, then the uid becomes a number. Each
//! reconcile makes one of these steps, so that a crash between any two writes counts nothing twice and nothing never.

pub mod backoff;
pub mod finish;
pub mod indexes;
pub mod plan;
pub mod pod;
pub mod policy;
pub mod remove;
pub mod view;

mod orphans;
mod run;

pub use run::{Error, run};

#[cfg(test)]
mod tests;
