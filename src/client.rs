//! `kube::Client` construction, leader election, event recorder, shared informers, the keyed work queue and the controller runner.
//!
//! Everything outside the API server talks to the cluster through this room: in the server's own process over
//! [`from_service`], on another host over [`remote()`]. Informers keep one watch and one decoded copy per kind and
//! process; control loops built on [`Controller`] never watch, retry or back off on their own.

pub mod backoff;
pub mod clock;
pub mod conditions;
pub mod error;
pub mod events;
#[cfg(test)]
pub(crate) mod fake;
pub mod informer;
pub mod key;
pub mod leader;
pub mod metrics;
pub mod owner;
pub mod queue;
pub mod remote;
pub mod volumes;

pub mod runner;

use http::{Request, Response};
use tower::{BoxError, Service};

pub use clock::Clock;
pub use events::{EventType, Recorder};
pub use informer::{Change, Event, Informer, Informers, Selection};
pub use key::Key;
pub use leader::{LeaderElection, LeaderTimings};
pub use queue::WorkQueue;

pub use remote::{Identity, RemoteConfig, RemoteError, remote};
pub use runner::{Controller, Next};

/// Makes a client whose transport is `service`, for example the API server of this process called in memory.
///
/// Must be called inside a tokio runtime.
pub fn from_service<S, B>(service: S, default_namespace: &str) -> kube::Client
where
    S: Service<Request<kube::client::Body>, Response = Response<B>> + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
    B: http_body::Body<Data = bytes::Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    kube::Client::new(service, default_namespace)
}
