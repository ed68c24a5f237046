//! Ends pods when the node runs out of something, in upstream's order, and says in conditions that it does.
//!
//! Every ten seconds the signals are read. What is met makes a node condition true, which holds for five minutes after
//! it was last seen; a hard threshold, or a soft one that was met for its grace period, costs one pod a round, after
//! what nobody needs (unused images) has been given up. Local storage above a pod's own limits ends the pod at once.

mod rank;
mod run;
mod storage;
pub mod thresholds;

pub use run::run;

/// What the node is short of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pressure {
    /// `MemoryPressure`.
    pub memory: bool,
    /// `DiskPressure`.
    pub disk: bool,
    /// `PIDPressure`.
    pub pid: bool,
}

impl Pressure {
    /// Names of the conditions that are true.
    pub fn conditions(self) -> Vec<&'static str> {
        let all = [(self.memory, "MemoryPressure"), (self.disk, "DiskPressure"), (self.pid, "PIDPressure")];
        all.into_iter().filter(|(yes, _)| *yes).map(|(_, name)| name).collect()
    }
}
