//! The quota controller: counts again what ResourceQuotas charge for, and says so in their status.
//!
//! Admission charges before an object is stored; this controller finds out what was deleted, ended, or charged and never
//! stored. Deletions and ended pods are counted at once, new objects a little later, so that a charge is not taken back
//! before its object shows in the caches.

mod counts;
mod run;

pub use run::{Error, run};
