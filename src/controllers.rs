//! The controllers: one level-triggered loop each, ordinary API clients, started by the manager under a lease.

pub mod deployment;
pub mod replicaset;
pub mod workload;
