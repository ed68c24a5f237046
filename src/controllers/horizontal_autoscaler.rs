//! HorizontalPodAutoscalers: every 15 seconds the size that the metrics ask for, within the limits and as fast as allowed.
//!
//! [`mod@metrics`] asks the metrics APIs, [`calculate`] turns samples into a number of pods, [`behavior`] bounds and steadies
//! that number. The history that steadying needs is in memory alone, as upstream's: after a restart the present size is
//! the first recommendation.

pub mod behavior;
pub mod calculate;

mod evaluate;
mod metrics;
mod run;
mod status;

pub use run::{Error, run};

#[cfg(test)]
mod tests;
