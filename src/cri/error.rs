//! What can go wrong in a call to the container runtime.

use std::sync::Arc;
use std::time::Duration;

use tonic::{Code, Status};

/// A failed call to the container runtime. Every variant names the operation (the RPC's name).
#[derive(Debug, Clone, thiserror::Error)]
pub enum CriError {
    /// The runtime answered with an error of its own.
    #[error("{operation}: rpc error: code = {code:?} desc = {message}")]
    Rpc {
        /// Name of the RPC, for example `RunPodSandbox`.
        operation: &'static str,
        /// gRPC status code of the answer.
        code: Code,
        /// The runtime's own words.
        message: String,
    },
    /// Nobody answers at the endpoint, or the connection broke during the call.
    #[error("{operation}: container runtime at {endpoint} is not reachable")]
    Unreachable {
        /// Name of the RPC.
        operation: &'static str,
        /// Where the runtime was expected.
        endpoint: Arc<str>,
        /// What the transport said.
        #[source]
        source: Box<Status>,
    },
    /// The runtime did not answer in time; what it was doing has been cancelled.
    #[error("{operation}: container runtime gave no answer within {} s", after.as_secs())]
    Timeout {
        /// Name of the RPC.
        operation: &'static str,
        /// How long was waited.
        after: Duration,
    },
    /// The answer lacks a field that every runtime must set.
    #[error("{operation}: the container runtime's answer has no {field}")]
    Incomplete {
        /// Name of the RPC.
        operation: &'static str,
        /// The missing field.
        field: &'static str,
    },
    /// The endpoint is not one that a client can connect to.
    #[error("container runtime endpoint {endpoint:?}: want unix:///path or an absolute path")]
    Endpoint {
        /// The endpoint as configured.
        endpoint: String,
    },
}

impl CriError {
    /// An error as the runtime itself would answer it; what fakes return.
    pub fn rpc(operation: &'static str, code: Code, message: impl Into<String>) -> Self {
        CriError::Rpc { operation, code, message: message.into() }
    }

    pub(super) fn from_status(operation: &'static str, endpoint: &Arc<str>, status: Status) -> Self {
        let transport = std::error::Error::source(&status).is_some_and(|s| s.is::<tonic::transport::Error>());
        if status.code() == Code::Unavailable || transport {
            let endpoint = Arc::clone(endpoint);
            return CriError::Unreachable { operation, endpoint, source: Box::new(status) };
        }
        CriError::Rpc { operation, code: status.code(), message: status.message().to_owned() }
    }

    /// The gRPC code that best describes the failure.
    pub fn code(&self) -> Code {
        match self {
            CriError::Rpc { code, .. } => *code,
            CriError::Unreachable { .. } => Code::Unavailable,
            CriError::Timeout { .. } => Code::DeadlineExceeded,
            CriError::Incomplete { .. } => Code::Internal,
            CriError::Endpoint { .. } => Code::InvalidArgument,
        }
    }

    /// The container, sandbox or image asked for does not exist.
    pub fn is_not_found(&self) -> bool {
        self.code() == Code::NotFound
    }

    /// The runtime does not know this call, for example container events before containerd 1.7.
    pub fn is_unimplemented(&self) -> bool {
        self.code() == Code::Unimplemented
    }

    /// The message as upstream's kubelet puts it into events and container statuses.
    pub fn upstream_message(&self) -> String {
        match self {
            CriError::Rpc { code, message, .. } => format!("rpc error: code = {code:?} desc = {message}"),
            CriError::Timeout { .. } => {
                "rpc error: code = DeadlineExceeded desc = context deadline exceeded".to_owned()
            }
            CriError::Unreachable { source, .. } => {
                format!("rpc error: code = Unavailable desc = {}", source.message())
            }
            other => other.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint() -> Arc<str> {
        "/run/x.sock".into()
    }

    #[test]
    fn a_status_of_the_runtime_keeps_its_code_and_words() {
        let e = CriError::from_status("PullImage", &endpoint(), Status::not_found("no such image"));
        assert!(e.is_not_found());
        assert_eq!(e.to_string(), "PullImage: rpc error: code = NotFound desc = no such image");
        assert_eq!(e.upstream_message(), "rpc error: code = NotFound desc = no such image");
    }

    #[test]
    fn unavailable_means_not_reachable_and_names_the_endpoint() {
        let e = CriError::from_status("Version", &endpoint(), Status::unavailable("connect error"));
        assert!(matches!(e, CriError::Unreachable { .. }));
        assert_eq!(e.to_string(), "Version: container runtime at /run/x.sock is not reachable");
        assert_eq!(e.code(), Code::Unavailable);
    }

    #[test]
    fn passwords_do_not_show_in_debug_output() {
        let auth = super::super::v1::AuthConfig {
            username: "joe".into(),
            password: "secret".into(),
            registry_token: "secret".into(),
            ..Default::default()
        };
        assert!(!format!("{auth:?}").contains("secret"));
    }
}
