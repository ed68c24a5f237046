//! Probes: one timer per probe of a running container, results sent to the pod's worker.

pub mod act;
pub mod counts;
pub mod grpc;
pub mod http;
pub mod run;
pub mod track;
