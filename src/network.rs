//! The pod network of the node: addresses, routes and forwarding.
