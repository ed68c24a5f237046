//! Tests on a real host: namespaces, a real containerd, the real kubectl. They need root and say so when they skip.

#![allow(clippy::unwrap_used, reason = "a failure is a panic here")]

mod behaviours;
mod conformance;
mod isolation;
mod load;
mod main_job;
mod node;
mod pods;
mod runtime;
mod settings;
mod two_hosts;
