//! `kube-lite secrets-encrypt status|rotate-keys|reencrypt`: encryption at rest.

use clap::{Args, Subcommand};

use super::snapshot::Place;
use crate::server::encryption;
use crate::telemetry;

/// Encryption of secrets at rest.
#[derive(Args, Debug)]
pub(super) struct SecretsEncryptArgs {
    #[command(flatten)]
    place: Place,

    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand, Debug)]
enum Action {
    /// Show the keys and what they sealed; the server may be running
    Status,
    /// Add a key; running servers use it at once and encrypt everything anew
    RotateKeys,
    /// Forget all keys but the newest, once everything is encrypted with it; the server may be running
    Reencrypt,
}

pub(super) fn run(args: &SecretsEncryptArgs, log_filter: &str) -> anyhow::Result<()> {
    telemetry::start_logging(log_filter);
    let (datastore, server_dir) = (args.place.datastore(), args.place.server_dir());
    match args.action {
        Action::Status => {
            let status = super::runtime()?.block_on(encryption::status(datastore, &server_dir))?;
            println!("Encryption: {}", if status.keys.is_empty() { "off" } else { "on" });
            for (i, name) in status.keys.iter().enumerate() {
                let count = status.sealed.get(name).copied().unwrap_or(0);
                println!("{} {name}  seals {count} secrets", if i == 0 { "*" } else { " " });
            }
            for (name, count) in status.sealed.iter().filter(|(name, _)| !status.keys.contains(name)) {
                match name.as_str() {
                    "" => println!("  {count} secrets are not encrypted"),
                    name => println!("  {count} secrets are encrypted with {name}, which is not there"),
                }
            }
        }
        Action::RotateKeys => {
            let name = encryption::rotate(&server_dir)?;
            println!(
                "{name} added; running servers encrypt all secrets anew with it, others do at their start"
            );
        }
        Action::Reencrypt => {
            let count = super::runtime()?.block_on(encryption::reencrypt(datastore, &server_dir))?;
            println!("{count} secrets encrypted anew, older keys removed");
        }
    }
    Ok(())
}
