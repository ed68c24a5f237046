//! The PersistentVolume binder: brings claims and volumes together, follows them when one goes, and provisions from the
//! node's own disk for the class `local-path`.
//!
//! A binding is written in four steps, of which the first, the volume's `claimRef`, decides: a crash after any of them is
//! mended by the next look. Two claims that want one volume race for that write, and the loser finds another.

pub mod local_path;
pub mod plan;

mod run;

pub use run::{Error, run};

#[cfg(test)]
mod tests;
