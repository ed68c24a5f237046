//! `ServerConfig` and `AgentConfig`: defaults, file, environment and flags merged once, with clear errors.
//!
//! The flags are the single description: a key of the configuration file is a flag's name without its dashes, and
//! an environment variable fills the same field. The order of strength is default, file, environment, flag (the
//! file rules of k3s: a list on the command line replaces the file's, drop-ins in `config.yaml.d` come later and
//! win, a key that ends in `+` appends).

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

pub mod agent;
pub mod audit;
pub mod cidr;
pub mod cron;
pub mod datastore;
mod file;
mod ignored;
pub mod kubelet;
mod merge;
pub mod node;
pub mod server;
pub mod snapshots;

pub use agent::AgentConfig;
pub use cidr::Cidr;
pub use cron::Schedule;
pub use datastore::{Datastore, DatastoreConfig};
pub use file::{DEFAULT_FILE, FileValues};
pub use ignored::{ignored_flags, warn_about_ignored};
pub use kubelet::{KubeletSettings, ROOT_DIR, SwapBehavior};
pub use merge::{Role, merged_arguments};
pub use node::NodeConfig;
pub use server::ServerConfig;
pub use snapshots::SnapshotConfig;

/// Why a configuration cannot be used. Each message is one line that names the flag or file.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A value that its flag does not take.
    #[error("--{flag} {value:?}: {rule}")]
    Value {
        /// The flag's name.
        flag: String,
        /// What was given.
        value: String,
        /// What the flag takes.
        rule: String,
    },
    /// A flag that must be given and was not.
    #[error("--{flag} is missing: add --{flag} {example}, or set it in the configuration file")]
    Missing {
        /// The flag's name.
        flag: &'static str,
        /// What it could be.
        example: &'static str,
    },
    /// A file that cannot be read.
    #[error("read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file that is not what it should be.
    #[error("{}: {why}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and where.
        why: String,
    },
}

impl ConfigError {
    fn value(flag: &str, value: &str, rule: String) -> Self {
        ConfigError::Value { flag: flag.to_owned(), value: value.to_owned(), rule }
    }
}

/// Checks a server's configuration as a whole.
///
/// # Errors
/// Names the flag that is wrong, and what it takes.
pub fn check_server(config: ServerConfig) -> Result<ServerConfig, ConfigError> {
    config.check()
}

/// Checks an agent's configuration as a whole.
///
/// # Errors
/// Names the flag that is wrong, and what it takes.
pub fn check_agent(config: AgentConfig) -> Result<AgentConfig, ConfigError> {
    config.check()
}

/// Where programs of the host are looked for: the directories of `PATH`.
pub fn program_directories() -> Vec<PathBuf> {
    std::env::var_os("PATH").map(|path| std::env::split_paths(&path).collect()).unwrap_or_default()
}

/// An inclusive range of ports, `LOW-HIGH`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortRange {
    /// The lowest port.
    pub low: u16,
    /// The highest port.
    pub high: u16,
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.low, self.high)
    }
}

impl FromStr for PortRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let shape = || "a range of ports is LOW-HIGH, such as 30000-32767".to_owned();
        let (low, high) = text.split_once('-').ok_or_else(shape)?;
        let (low, high) = (low.parse().map_err(|_| shape())?, high.parse().map_err(|_| shape())?);
        if low == 0 || low > high { Err(shape()) } else { Ok(PortRange { low, high }) }
    }
}

fn parse_mode(text: &str) -> Result<u32, String> {
    u32::from_str_radix(text, 8)
        .ok()
        .filter(|mode| *mode <= 0o777)
        .ok_or_else(|| "a mode is octal, such as 0600 or 644".to_owned())
}

fn check_dns_in_range(dns: IpAddr, services: &Cidr) -> Result<(), ConfigError> {
    if services.contains(dns) {
        return Ok(());
    }
    Err(ConfigError::value(
        "cluster-dns",
        &dns.to_string(),
        format!("it is outside --service-cidr {services}"),
    ))
}

/// The secret itself, or what its file holds; an empty file is an error.
fn secret(flag: &str, given: Option<String>, file: Option<&Path>) -> Result<Option<String>, ConfigError> {
    let Some(path) = file.filter(|_| given.is_none()) else { return Ok(given) };
    let text = std::fs::read_to_string(path)
        .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    match text.trim() {
        "" => Err(ConfigError::value(flag, &path.display().to_string(), "the file is empty".to_owned())),
        secret => Ok(Some(secret.to_owned())),
    }
}

#[cfg(test)]
mod tests;
