//! The controllers: one level-triggered loop each, ordinary API clients, started by the manager under a lease.
//!
//! Each controller has a `run` that ends when its token is cancelled, reads only shared informers, decides with pure
//! functions and writes through a client of its own identity. [`manager`] has one line per controller.

pub mod attach_detach;
pub mod certificates;
pub mod clusterrole_aggregation;
pub mod context;
pub mod cronjob;
pub mod daemonset;
pub mod deployment;
pub mod discovery;
pub mod disruption;
pub mod endpoints;
pub mod endpointslice;
pub mod endpointslice_mirroring;
pub mod ephemeral_volume;
pub mod garbage;
pub mod horizontal_autoscaler;
pub mod job;
pub mod legacy_tokens;
pub mod manager;
pub mod namespace;
pub mod node_ipam;
pub mod node_lifecycle;
pub mod node_ttl;
pub mod pod_garbage;
pub mod replicaset;
pub mod resource_quota;
pub mod root_ca;
pub mod service_account;
pub mod service_account_tokens;
pub mod service_cidr;
pub mod service_lb;
pub mod statefulset;
pub mod storage_protection;
pub mod taint_eviction;
#[cfg(test)]
mod testing;
pub mod ttl_after_finished;
pub mod volume_binder;
pub mod workload;

pub use context::{Clients, Context, ControllersConfig, identity};

#[cfg(test)]
mod tests;
