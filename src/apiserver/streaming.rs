//! Connections that a request takes over: tunnels of raw bytes between a client and a kubelet.

pub(super) mod tunnel;
pub(super) mod upgrade;
