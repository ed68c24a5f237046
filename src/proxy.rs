//! Services and EndpointSlices rendered to iptables rules.
