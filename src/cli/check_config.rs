//! `kube-lite check-config`: what this host lacks for a node, and what that means.

use std::path::PathBuf;

use clap::Args;

/// Where the node would be.
#[derive(Args, Debug)]
pub(super) struct CheckConfigArgs {
    /// Directory for everything that is kept
    #[arg(
        long,
        short = 'd',
        env = "KUBE_LITE_DATA_DIR",
        default_value = "/var/lib/kube-lite",
        value_name = "DIR"
    )]
    data_dir: PathBuf,
}

pub(super) fn run(args: &CheckConfigArgs) -> anyhow::Result<()> {
    let report = crate::agent::check_host(&args.data_dir);
    print!("{}", report.text);
    anyhow::ensure!(report.fit, "this host cannot be a node yet");
    Ok(())
}
