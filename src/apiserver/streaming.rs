//! Connections that a request takes over: tunnels of raw bytes between a client and a kubelet, and the translation for
//! clients that speak what the container runtime does not.

pub(super) mod bridge;
pub(super) mod output;
pub(crate) mod spdy;
pub(super) mod translate;
pub(super) mod tunnel;
pub(super) mod upgrade;
pub(crate) mod websocket;
