//! The packet filter by way of the `iptables` programs.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::OnceCell;

use super::{Connections, Family, Firewall, FirewallError};
use crate::host::processes::{Command, ProcessError, Processes, run};

const LIMIT: Duration = Duration::from_secs(60);
/// How long another program may hold the lock of the tables.
const LOCK_SECONDS: &str = "5";

/// The `iptables` programs of the machine. Where both the nft and the legacy variant are installed, the one that
/// already has rules is used, so that ours and those of others are in one place; otherwise the machine's default.
pub struct Iptables {
    processes: Arc<dyn Processes>,
    variant: OnceCell<&'static str>,
}

impl Iptables {
    /// Uses the programs that `processes` finds.
    pub fn new(processes: Arc<dyn Processes>) -> Self {
        Self { processes, variant: OnceCell::new() }
    }

    /// `-nft`, `-legacy`, or nothing for the machine's default.
    async fn variant(&self) -> &'static str {
        *self.variant.get_or_init(|| self.detect()).await
    }

    async fn detect(&self) -> &'static str {
        let both = ["-nft", "-legacy"]
            .iter()
            .all(|variant| self.processes.find(&format!("iptables{variant}-save")).is_some());
        if !both {
            return "";
        }
        let nft = self.count("-nft").await;
        let legacy = self.count("-legacy").await;
        preferred(nft, legacy)
    }

    async fn count(&self, variant: &str) -> usize {
        let command = Command::new(format!("iptables{variant}-save"), [""; 0]);
        let output = run(self.processes.as_ref(), command, LIMIT).await.unwrap_or_default();
        let text = String::from_utf8_lossy(&output.stdout);
        text.lines().filter(|line| line.starts_with("-A ")).count()
    }

    async fn program(&self, family: Family, ending: &str) -> String {
        let base = match family {
            Family::V4 => "iptables",
            Family::V6 => "ip6tables",
        };
        format!("{base}{}-{ending}", self.variant().await)
    }
}

/// Rules in one variant only decide for it; otherwise the machine's default stands.
fn preferred(nft: usize, legacy: usize) -> &'static str {
    match (nft, legacy) {
        (0, 1..) => "-legacy",
        (1.., 0) => "-nft",
        _ => "",
    }
}

#[async_trait]
impl Firewall for Iptables {
    async fn restore(&self, family: Family, rules: &str) -> Result<(), FirewallError> {
        let program = self.program(family, "restore").await;
        let command = Command::new(program, ["--noflush", "-w", LOCK_SECONDS]).stdin(rules);
        run(self.processes.as_ref(), command, LIMIT).await.map(drop).map_err(|source| {
            let line = refused_line(&source).and_then(|number| rules.lines().nth(number - 1));
            FirewallError::Restore { line: line.map(str::to_owned), source }
        })
    }

    async fn save(&self, family: Family, table: &str) -> Result<String, FirewallError> {
        let command = Command::new(self.program(family, "save").await, ["-t", table]);
        let output = run(self.processes.as_ref(), command, LIMIT)
            .await
            .map_err(|source| FirewallError::Save { table: table.to_owned(), source })?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    async fn forget(&self, connections: &Connections) -> Result<(), FirewallError> {
        let command = Command::new("conntrack", conntrack_arguments(connections));
        match run(self.processes.as_ref(), command, LIMIT).await {
            // It exits with 1 when nothing matched.
            Err(ProcessError::Failed { message, .. }) if message.contains("0 flow entries") => Ok(()),
            other => other.map(drop).map_err(FirewallError::Conntrack),
        }
    }
}

fn conntrack_arguments(connections: &Connections) -> Vec<String> {
    let v6 = [connections.original_destination, connections.translated_destination]
        .into_iter()
        .flatten()
        .any(|ip| matches!(ip, IpAddr::V6(_)));
    let mut words = vec!["-D".to_owned(), "-p".to_owned(), connections.protocol.clone()];
    let mut option = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            words.extend([name.to_owned(), value]);
        }
    };
    option("-f", v6.then(|| "ipv6".to_owned()));
    option("--orig-dst", connections.original_destination.map(|ip| ip.to_string()));
    option("--dport", connections.destination_port.map(|port| port.to_string()));
    option("--dst-nat", connections.translated_destination.map(|ip| ip.to_string()));
    words
}

/// Both variants name the line that they refuse: `line 7 failed`, `Error occurred at line: 7`.
fn refused_line(error: &ProcessError) -> Option<usize> {
    let ProcessError::Failed { message, .. } = error else { return None };
    let (_, after) = message.split_once("line")?;
    let digits: String =
        after.chars().skip_while(|c| !c.is_ascii_digit()).take_while(char::is_ascii_digit).collect();
    digits.parse().ok().filter(|number| *number > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variant_with_rules_is_preferred() {
        for (nft, legacy, variant) in [(0, 0, ""), (3, 0, "-nft"), (0, 3, "-legacy"), (3, 3, "")] {
            assert_eq!(preferred(nft, legacy), variant, "{nft} {legacy}");
        }
    }

    #[test]
    fn the_refused_line_is_found_in_both_wordings() {
        for message in ["iptables-restore: line 7 failed", "x: invalid; Error occurred at line: 7; Try `-h'"]
        {
            let error = ProcessError::Failed { program: "x".into(), code: 1, message: message.into() };
            assert_eq!(refused_line(&error), Some(7), "{message}");
        }
        let other = ProcessError::NotFound { program: "iptables".into() };
        assert_eq!(refused_line(&other), None);
    }

    #[test]
    fn conntrack_gets_only_what_is_asked() {
        let connections = Connections {
            protocol: "udp".into(),
            original_destination: Some("10.43.0.10".parse().unwrap()),
            destination_port: Some(53),
            translated_destination: None,
        };
        assert_eq!(conntrack_arguments(&connections).join(" "), "-D -p udp --orig-dst 10.43.0.10 --dport 53");
        let v6 = Connections { original_destination: Some("fd00::1".parse().unwrap()), ..connections };
        assert!(conntrack_arguments(&v6).join(" ").contains("-f ipv6 --orig-dst fd00::1"));
    }
}
