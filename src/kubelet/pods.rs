//! Pods on this node: one worker each, as a state machine that decides first and acts then.

pub mod admission;
pub mod backoff;
pub mod end;
#[cfg(test)]
pub mod fixture;
#[cfg(test)]
pub mod harness;
pub mod housekeeping;
pub mod kill;
pub mod manager;
pub mod plan;
#[cfg(test)]
mod plan_tests;
pub mod publish;
pub mod relist;
pub mod resize;
pub mod run;
pub mod sandbox;
pub mod start;
pub mod state;
pub mod static_pods;
pub mod table;
#[cfg(test)]
mod tests;
pub mod watch_probes;
