//! `kube-lite version`.

use clap::{Args, ValueEnum};

use crate::telemetry::version;

/// How to print the version.
#[derive(Args, Debug)]
pub(super) struct VersionArgs {
    /// Print it as a document
    #[arg(long, short = 'o', value_enum, value_name = "FORMAT")]
    output: Option<Output>,
}

#[derive(ValueEnum, Clone, Copy, Debug)]
enum Output {
    Json,
    Yaml,
}

pub(super) fn run(args: &VersionArgs) -> anyhow::Result<()> {
    let info = version::info();
    match args.output {
        None => println!("kube-lite {} (Kubernetes {})", env!("CARGO_PKG_VERSION"), info.git_version),
        Some(Output::Json) => println!("{}", serde_json::to_string_pretty(&info)?),
        Some(Output::Yaml) => print!("{}", serde_saphyr::to_string(&info)?),
    }
    Ok(())
}
