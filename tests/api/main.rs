//! The API server as its clients see it: in process over a temporary store, over TLS on loopback, and with the real
//! `kubectl`.

#![allow(clippy::unwrap_used, reason = "a failure is a panic here")]

mod access;
mod aggregation;
mod audit;
mod command_line;
mod conformance;
mod custom;
mod etcd;
mod formats;
mod history;
mod join;
mod kubectl;
mod matrix;
mod members;
mod minimal;
mod nodes;
mod process;
mod protobuf;
mod python;
mod server;
mod servers;
mod storage;
mod tls;
mod verbs;
