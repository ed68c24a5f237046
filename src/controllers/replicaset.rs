//! The controller of ReplicaSets and ReplicationControllers: keeps the wanted number of pods of one template alive.
//!
//! It adopts matching orphans and releases pods whose labels changed, creates in slow-start batches, deletes in upstream's
//! order of victims, and never counts before its cache shows its own earlier writes.

pub mod plan;
pub mod replicates;
pub mod victims;

mod run;

pub use run::{Error, run};
