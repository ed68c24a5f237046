//! Asks for CSI volumes to be attached to the nodes whose pods need them, and detached when the last one is gone.
//!
//! A VolumeAttachment is the order; the driver's own attacher carries it out. A volume that a node says it uses is not
//! detached, unless the node is dead. Volumes of drivers that attach nothing are left alone, and so are attachments
//! that somebody else has made: the names of ours follow from volume, driver and node.

mod plan;
mod run;
#[cfg(test)]
mod tests;

pub use run::run;
