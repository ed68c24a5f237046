//! The disruption controller: keeps the status of PodDisruptionBudgets, from which evictions are granted.
//!
//! The API server takes a disruption from the budget and writes the pod under `disruptedPods` before it deletes the pod.
//! Until the deletion shows, or two minutes have passed, such a pod counts as gone, so that a granted eviction is never
//! granted twice; a status written from an older budget fails as a conflict and is computed again.

pub mod plan;
pub mod scale;

mod run;

pub use run::{Error, run};

#[cfg(test)]
mod tests;
