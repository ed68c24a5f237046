//! `kube-lite server`: starts logging and the runtime, and runs the composition root until a signal.

use tokio_util::sync::CancellationToken;

use crate::config::ServerConfig;
use crate::{server, telemetry};

pub(super) fn run(config: ServerConfig, log_filter: &str, warn: impl FnOnce()) -> anyhow::Result<()> {
    telemetry::start_logging(log_filter);
    warn();
    super::runtime()?.block_on(async {
        let stop = CancellationToken::new();
        let server = server::Server::start(config, stop.clone()).await?;
        super::until_signal(&stop).await?;
        server.drain().await
    })
}
