//! Composition root of `kube-lite agent`.
use crate::config::AgentConfig;
use tokio_util::sync::CancellationToken;
/// A running agent.
pub struct Agent {}
impl Agent {
    /// Starts it.
    pub async fn join(_config: AgentConfig, _stop: CancellationToken) -> anyhow::Result<Self> {
        Ok(Agent {})
    }
    /// Stops it.
    pub async fn drain(self) -> anyhow::Result<()> {
        Ok(())
    }
}
