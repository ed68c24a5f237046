//! The Deployment controller: rolls templates out through ReplicaSets.
//!
//! Rolling updates within surge and unavailability, Recreate, pause, proportional scaling, revisions for rollback, the
//! progress deadline and the clean-up of old revisions, each step decided by [`plan`] from what the cache shows.

pub mod annotations;
pub mod cleanup;
pub mod conditions;
pub mod plan;
pub mod rolling;
pub mod scale;
pub mod sets;
pub mod status;
pub mod strategy;
pub mod template;

mod run;

pub use run::{Error, run};

#[cfg(test)]
mod tests;
