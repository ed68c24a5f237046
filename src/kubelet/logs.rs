//! Container logs: the CRI format, reading, following, rotation.

pub mod follow;
pub mod links;
pub mod parse;
pub mod read;
pub mod rotate;
