//! The CronJob controller: makes a Job whenever the schedule says so.
//!
//! Jobs are named after their scheduled minute, so that no run is started twice, whoever crashes when.

pub mod plan;

mod run;

pub use run::{Error, run};

#[cfg(test)]
mod tests;
