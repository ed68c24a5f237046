//! Container logs: the CRI format, reading, following, rotation.

pub mod follow;
pub mod parse;
pub mod read;
pub mod rotate;
