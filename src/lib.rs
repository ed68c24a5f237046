//! kube-lite: a Kubernetes distribution in one binary.
//!
//! The rooms are the modules below; `docs/architecture.md` says what lives in each and which may use which.

pub mod agent;
pub mod api;
pub mod apiserver;
pub mod cache;
pub mod cli;
pub mod client;
pub mod cni;
pub mod config;
pub mod controllers;
pub mod cri;
pub mod dns;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
pub mod host;
pub mod kubelet;
pub mod network;
pub mod pki;
pub mod plugins;
pub mod proxy;
pub mod registry;
pub mod scheduler;
pub mod server;
pub mod store;
pub mod telemetry;
