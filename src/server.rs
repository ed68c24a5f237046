//! Composition root of `kube-lite server`.
use crate::config::ServerConfig;
use tokio_util::sync::CancellationToken;
/// A running server.
pub struct Server {}
impl Server {
    /// Starts it.
    pub async fn start(_config: ServerConfig, _stop: CancellationToken) -> anyhow::Result<Self> {
        Ok(Server {})
    }
    /// Stops it.
    pub async fn drain(self) -> anyhow::Result<()> {
        Ok(())
    }
}
