//! The container runtime interface (CRI v1): its messages, the calls the kubelet makes, a client and a fake.
//!
//! [`Runtime`] is what the kubelet holds; [`Client`] speaks gRPC to containerd or any other CRI v1 runtime, and
//! [`fake::FakeRuntime`] keeps everything in memory for tests. This room knows nothing of pods' specs.

mod client;
mod error;
pub mod fake;
mod runtime;

pub use client::Client;
pub use error::CriError;
pub use runtime::{EventStream, Runtime};

/// The messages of CRI v1, generated from `proto/cri.proto`.
#[allow(missing_docs, clippy::all, reason = "generated code")]
pub mod v1 {
    tonic::include_proto!("runtime.v1");

    impl std::fmt::Debug for AuthConfig {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.debug_struct("AuthConfig")
                .field("username", &self.username)
                .field("server_address", &self.server_address)
                .finish_non_exhaustive()
        }
    }
}

/// Result of a call to the container runtime.
pub type Result<T> = std::result::Result<T, CriError>;
