//! The network-plugin configuration that the runtime reads.
