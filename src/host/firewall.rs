//! iptables and connection tracking.
//!
//! Rules are handed over as whole texts in the format of `iptables-restore`, which applies each table at once;
//! whoever makes rules keeps to chains of its own.

use std::net::IpAddr;

use async_trait::async_trait;

mod iptables;

pub use iptables::Iptables;

use super::processes::ProcessError;

/// Protocol family of rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// Which connections to forget.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connections {
    /// `tcp`, `udp` or `sctp`.
    pub protocol: String,
    /// Address they were made to.
    pub original_destination: Option<IpAddr>,
    /// Port they were made to.
    pub destination_port: Option<u16>,
    /// Address they were sent on to.
    pub translated_destination: Option<IpAddr>,
}

/// Rules or connection tracking that failed.
#[derive(Debug, thiserror::Error)]
pub enum FirewallError {
    /// Rules were not taken. Nothing of the table in question has changed.
    #[error("apply firewall rules{}", line.as_deref().map(|l| format!(" (refused: {l})")).unwrap_or_default())]
    Restore {
        /// The line that was refused, where the program tells.
        line: Option<String>,
        /// What the program said.
        #[source]
        source: ProcessError,
    },
    /// The rules could not be read.
    #[error("read firewall rules of table {table}")]
    Save {
        /// The table.
        table: String,
        /// What the program said.
        #[source]
        source: ProcessError,
    },
    /// Connections could not be forgotten.
    #[error("forget tracked connections")]
    Conntrack(#[source] ProcessError),
}

/// The packet filter of this network namespace.
#[async_trait]
pub trait Firewall: Send + Sync {
    /// Applies a text of tables, chains and rules; chains that are not named stay as they are.
    async fn restore(&self, family: Family, rules: &str) -> Result<(), FirewallError>;
    /// The rules of one table, as `iptables-save` prints them.
    async fn save(&self, family: Family, table: &str) -> Result<String, FirewallError>;
    /// Forgets tracked connections; none matching is no error.
    async fn forget(&self, connections: &Connections) -> Result<(), FirewallError>;
}
