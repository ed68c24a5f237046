//! `kube-lite agent`: starts logging and the runtime, and runs the composition root until a signal.

use tokio_util::sync::CancellationToken;

use crate::config::AgentConfig;
use crate::{agent, telemetry};

pub(super) fn run(config: AgentConfig, log_filter: &str, warn: impl FnOnce()) -> anyhow::Result<()> {
    telemetry::start_logging(log_filter);
    warn();
    super::runtime()?.block_on(async {
        let stop = CancellationToken::new();
        let agent = agent::Agent::join(config, stop.clone()).await?;
        super::until_signal(&stop).await?;
        agent.drain().await
    })
}
