//! `kube-lite completion`.

use clap::{Args, Command};
use clap_complete::Shell;

/// Which shell to complete for.
#[derive(Args, Debug)]
pub(super) struct CompletionArgs {
    /// The shell
    shell: Shell,
}

pub(super) fn run(args: &CompletionArgs, command: &mut Command) -> anyhow::Result<()> {
    clap_complete::generate(args.shell, command, "kube-lite", &mut std::io::stdout());
    Ok(())
}
