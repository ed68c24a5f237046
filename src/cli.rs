//! The command line: parsing, and one file per subcommand.

use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::Context;
use clap::{ArgMatches, Args, Command, CommandFactory, FromArgMatches, Parser, Subcommand};

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::config::{self, AgentConfig, DEFAULT_FILE, Role, ServerConfig};

mod agent;
mod check_config;
mod completion;
mod secrets_encrypt;
mod server;
mod snapshot;
mod version;

/// A Kubernetes distribution in one binary.
#[derive(Parser, Debug)]
#[command(name = "kube-lite", version, propagate_version = true, disable_help_subcommand = true)]
struct Cli {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Subcommands,
}

/// Flags of every subcommand.
#[derive(Args, Debug)]
struct Common {
    /// File with more settings: keys are flag names; `FILE.d/*.yaml` are read after it
    #[arg(long, short = 'c', global = true, env = "KUBE_LITE_CONFIG_FILE", default_value = DEFAULT_FILE, value_name = "FILE")]
    config: PathBuf,

    /// Log more
    #[arg(long, global = true, env = "KUBE_LITE_DEBUG")]
    debug: bool,

    /// Filter of the log, such as `info,kube_lite::kubelet=debug`
    #[arg(long, global = true, env = "KUBE_LITE_LOG", value_name = "FILTER", hide = true)]
    log: Option<String>,
}

impl Common {
    fn log_filter(&self) -> String {
        match (&self.log, self.debug) {
            (Some(filter), _) => filter.clone(),
            (None, true) => "debug,h2=info,hyper=info,hyper_util=info,tower=info,rustls=info".to_owned(),
            (None, false) => "info".to_owned(),
        }
    }
}

#[derive(Subcommand, Debug)]
enum Subcommands {
    /// Run a control plane, and a node on this host
    Server(Box<ServerConfig>),
    /// Run a node that joins a server
    Agent(Box<AgentConfig>),
    /// Make, list and restore snapshots of the datastore
    Snapshot(Box<snapshot::SnapshotArgs>),
    /// Show and change the keys that secrets are encrypted with
    SecretsEncrypt(Box<secrets_encrypt::SecretsEncryptArgs>),
    /// Copy the cluster's state into another datastore
    Migrate(Box<snapshot::MigrateArgs>),
    /// Say what this host lacks for a node
    CheckConfig(check_config::CheckConfigArgs),
    /// Print the version
    Version(version::VersionArgs),
    /// Print a shell's completion script
    Completion(completion::CompletionArgs),
}

/// Runs the program with its arguments (the program's name first).
///
/// # Errors
/// One chain of causes, whose first line says what is wrong and what to do. Help and version requests are no errors.
pub fn run(arguments: Vec<OsString>) -> anyhow::Result<()> {
    match parse(arguments)? {
        Parsed::Print(text) => {
            print!("{text}");
            Ok(())
        }
        Parsed::Run(cli, matches) => dispatch(*cli, &matches),
    }
}

fn dispatch(cli: Cli, matches: &ArgMatches) -> anyhow::Result<()> {
    let filter = cli.common.log_filter();
    match cli.command {
        Subcommands::Server(config) => {
            let config = config::check_server(*config)?;
            server::run(config, &filter, || warn(matches))
        }
        Subcommands::Agent(config) => {
            let config = config::check_agent(*config)?;
            agent::run(config, &filter, || warn(matches))
        }
        Subcommands::Snapshot(args) => snapshot::run(*args, &filter),
        Subcommands::SecretsEncrypt(args) => secrets_encrypt::run(&args, &filter),
        Subcommands::Migrate(args) => snapshot::migrate(&args, &filter),
        Subcommands::CheckConfig(args) => check_config::run(&args),
        Subcommands::Version(args) => version::run(&args),
        Subcommands::Completion(args) => completion::run(&args, &mut command()),
    }
}

fn warn(matches: &ArgMatches) {
    if let Some((_, matches)) = matches.subcommand() {
        config::warn_about_ignored(matches);
    }
}

enum Parsed {
    Print(String),
    Run(Box<Cli>, ArgMatches),
}

fn command() -> Command {
    let command = Cli::command();
    command
        .mut_subcommand("server", config::ignored_flags)
        .mut_subcommand("agent", config::ignored_flags)
        // Its flags may stand before or after what it should do.
        .mut_subcommand("snapshot", |snapshot| snapshot.mut_args(|flag| flag.global(true)))
        .mut_subcommand("secrets-encrypt", |encrypt| encrypt.mut_args(|flag| flag.global(true)))
}

fn parse(arguments: Vec<OsString>) -> anyhow::Result<Parsed> {
    let first = match command().try_get_matches_from(&arguments) {
        Ok(matches) => matches,
        Err(error) if !error.use_stderr() => return Ok(Parsed::Print(error.render().to_string())),
        Err(error) => anyhow::bail!(one_line(&error)),
    };
    let matches = match role(&first) {
        None => first,
        Some(role) => {
            let (_, own) = first.subcommand().ok_or_else(|| anyhow::anyhow!("no subcommand was given"))?;
            let merged = config::merged_arguments(&command(), own, role, arguments)?;
            command().try_get_matches_from(merged).map_err(|error| anyhow::anyhow!(one_line(&error)))?
        }
    };
    let cli = Cli::from_arg_matches(&matches).map_err(|error| anyhow::anyhow!(one_line(&error)))?;
    Ok(Parsed::Run(Box::new(cli), matches))
}

fn role(matches: &ArgMatches) -> Option<Role> {
    match matches.subcommand_name() {
        Some("server") => Some(Role::Server),
        Some("agent") => Some(Role::Agent),
        Some("snapshot") => Some(Role::Snapshot),
        Some("migrate") => Some(Role::Migrate),
        Some("secrets-encrypt") => Some(Role::SecretsEncrypt),
        _ => None,
    }
}

/// What clap says in several paragraphs, as one line: the message, and its tip where it has one.
fn one_line(error: &clap::Error) -> String {
    use clap::error::ErrorKind::{DisplayHelpOnMissingArgumentOrSubcommand, MissingSubcommand};
    if matches!(error.kind(), DisplayHelpOnMissingArgumentOrSubcommand | MissingSubcommand) {
        return "say what to run: kube-lite server, agent, snapshot, migrate, version or completion (--help tells more)"
            .to_owned();
    }
    let text = error.render().to_string();
    let text = text.strip_prefix("error: ").unwrap_or(&text);
    let message =
        text.lines().take_while(|line| !line.is_empty()).map(str::trim).collect::<Vec<_>>().join(" ");
    let tip = text.lines().find_map(|line| line.trim().strip_prefix("tip: "));
    format!("{message} ({})", tip.unwrap_or("--help lists what there is"))
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().context("start the async runtime")
}

/// Waits for SIGTERM or SIGINT, or until a part of the program has given up and cancelled `stop`; `stop` is
/// cancelled in every case.
async fn until_signal(stop: &CancellationToken) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
    tokio::select! {
        _ = terminate.recv() => tracing::info!(signal = "SIGTERM", "stopping"),
        _ = interrupt.recv() => tracing::info!(signal = "SIGINT", "stopping"),
        () = stop.cancelled() => tracing::info!("stopping"),
    }
    stop.cancel();
    Ok(())
}

#[cfg(test)]
mod tests;
