//! Load balancers in the style of k3s' ServiceLB: a Service of type LoadBalancer is reached at the addresses of nodes.
//!
//! The controller writes addresses of nodes into the Service's status, and the Service proxy of every node serves them
//! on the Service's own ports; no pod and no image is needed for that. As with host ports, one node's port belongs to one
//! Service: the older one. A Service with a `loadBalancerClass` is left to whoever implements that class.

mod plan;
mod run;

pub use run::{Error, run};
