//! The gRPC interfaces of plugins on this node: how they register, CSI drivers, device plugins.
//!
//! Clients for what the kubelet calls, and the means to serve what plugins (and tests that play one) serve.

pub mod csi;
pub mod fake;
pub mod serve;
mod socket;

pub use socket::channel;

use tonic::{Code, Status};

/// The messages and services by which plugins register, generated from `proto/pluginregistration.proto`.
#[allow(missing_docs, clippy::all, reason = "generated code")]
pub mod registration {
    tonic::include_proto!("pluginregistration");
}

/// The device plugin API, generated from `proto/deviceplugin.proto`.
#[allow(missing_docs, clippy::all, reason = "generated code")]
pub mod device {
    tonic::include_proto!("v1beta1");
}

/// The pod resources API, generated from `proto/podresources.proto`.
#[allow(missing_docs, clippy::all, reason = "generated code")]
pub mod pod_resources {
    tonic::include_proto!("v1");
}

/// A call to a plugin that failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum PluginError {
    /// The plugin answered with an error, or the connection broke.
    #[error("rpc error: code = {code:?} desc = {message}")]
    Rpc {
        /// Name of the RPC.
        operation: &'static str,
        /// The answer's code.
        code: Code,
        /// The plugin's own words.
        message: String,
    },
    /// There was no answer in time.
    #[error("{operation}: rpc error: code = DeadlineExceeded desc = context deadline exceeded")]
    Timeout {
        /// Name of the RPC.
        operation: &'static str,
    },
}

impl PluginError {
    fn of(operation: &'static str, status: &Status) -> Self {
        Self::Rpc { operation, code: status.code(), message: status.message().to_owned() }
    }
}

/// Waits for the answer of a call, not longer than a plugin may take.
pub async fn answer<T>(
    operation: &'static str,
    limit: std::time::Duration,
    call: impl Future<Output = Result<tonic::Response<T>, Status>> + Send,
) -> Result<T, PluginError> {
    match tokio::time::timeout(limit, call).await {
        Err(_) => Err(PluginError::Timeout { operation }),
        Ok(Ok(answer)) => Ok(answer.into_inner()),
        Ok(Err(status)) => Err(PluginError::of(operation, &status)),
    }
}
