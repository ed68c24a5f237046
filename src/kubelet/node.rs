//! This machine as a Node: registration, status, lease, upkeep.

pub mod conditions;
pub mod describe;
pub mod heartbeat;
pub mod images;
pub mod lease;
pub mod register;
pub mod upkeep;
