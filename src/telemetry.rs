//! Logs and metrics.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

pub mod metrics;
pub mod version;

/// Starts logging to standard error: text for a terminal, the same without colours elsewhere.
///
/// `filter` is a `tracing` filter directive list such as `info` or `kube_lite::kubelet=debug`; a bad one falls back
/// to `info`. Calling it twice keeps the first.
pub fn start_logging(filter: &str) {
    let filter = EnvFilter::try_new(filter).unwrap_or_else(|_| EnvFilter::new("info"));
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .finish();
    // A second call loses against the first subscriber, which is the documented outcome.
    drop(tracing::subscriber::set_global_default(subscriber));
}
