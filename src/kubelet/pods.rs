//! Pods on this node: one worker each, as a state machine that decides first and acts then.

pub mod backoff;
#[cfg(test)]
pub mod fixture;
pub mod plan;
#[cfg(test)]
mod plan_tests;
pub mod state;
