//! Numbers that objects draw from a common pool: Service addresses and node ports.

/// The pools of one registry.
#[derive(Default)]
pub struct Allocators {}

/// What one write has taken; given back when the write does not happen.
#[derive(Default)]
pub struct Reservation {}
