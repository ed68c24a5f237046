//! Connections to the unix sockets of plugins.

use std::path::{Path, PathBuf};

use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};

/// A connection to `unix:///path` or a bare path. It is made by the first call, and again after it broke; must be called
/// inside a tokio runtime.
pub fn channel(endpoint: &Path) -> Channel {
    let text = endpoint.to_string_lossy();
    let path = PathBuf::from(text.strip_prefix("unix://").unwrap_or(&text));
    // The authority is never resolved: the connector goes to the socket whatever the URI says.
    Endpoint::from_static("http://localhost").connect_with_connector_lazy(tower::service_fn(
        move |_: http::Uri| {
            let path = path.clone();
            async move { UnixStream::connect(path).await.map(TokioIo::new) }
        },
    ))
}
