//! A packet filter in memory that takes the texts of `iptables-restore`.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use crate::host::firewall::{Connections, Family, Firewall, FirewallError};
use crate::host::processes::ProcessError;

/// Chains of one table: policy (`-` for our own chains) and rules.
type Table = BTreeMap<String, (String, Vec<String>)>;

#[derive(Debug, Clone, Default)]
struct State {
    tables: BTreeMap<(Family, String), Table>,
    restored: Vec<String>,
    forgotten: Vec<Connections>,
}

/// Tables, chains and rules in memory.
#[derive(Debug, Default)]
pub struct FakeFirewall(Mutex<State>);

impl FakeFirewall {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The texts that were applied, in order.
    pub fn restored(&self) -> Vec<String> {
        self.lock().restored.clone()
    }

    /// The rules of a chain of the IPv4 tables; `None` when there is no such chain.
    pub fn chain(&self, table: &str, chain: &str) -> Option<Vec<String>> {
        let state = self.lock();
        Some(state.tables.get(&(Family::V4, table.to_owned()))?.get(chain)?.1.clone())
    }

    /// What was asked to be forgotten, in order.
    pub fn forgotten(&self) -> Vec<Connections> {
        self.lock().forgotten.clone()
    }
}

/// The chains that the kernel has in a table.
fn built_in(table: &str) -> &'static [&'static str] {
    match table {
        "nat" => &["PREROUTING", "INPUT", "OUTPUT", "POSTROUTING"],
        "mangle" => &["PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"],
        "raw" => &["PREROUTING", "OUTPUT"],
        _ => &["INPUT", "FORWARD", "OUTPUT"],
    }
}

fn new_table(name: &str) -> Table {
    let chain = |chain: &&str| ((*chain).to_owned(), ("ACCEPT".to_owned(), Vec::new()));
    built_in(name).iter().map(chain).collect()
}

/// Applies one line of a table's part of the text; the reason when it cannot be.
fn apply(table: &mut Table, line: &str) -> Result<(), String> {
    if let Some(declared) = line.strip_prefix(':') {
        let mut words = declared.split_whitespace();
        let name = words.next().ok_or("chain without a name")?;
        let policy = words.next().unwrap_or("-").to_owned();
        // With --noflush a declared chain of one's own starts empty; a built-in one keeps its rules.
        let rules =
            table.get(name).filter(|_| policy != "-").map(|(_, rules)| rules.clone()).unwrap_or_default();
        table.insert(name.to_owned(), (policy, rules));
        return Ok(());
    }
    let mut words = line.splitn(3, ' ');
    let (operation, name, rule) = (
        words.next().unwrap_or_default(),
        words.next().unwrap_or_default(),
        words.next().unwrap_or_default(),
    );
    if let Some((_, target)) = rule.split_once("-j ") {
        let target = target.split(' ').next().unwrap_or_default();
        let extension = target.chars().all(|c| c.is_ascii_uppercase()) && !target.contains('-');
        if !extension && !table.contains_key(target) {
            return Err(format!("no chain {target}"));
        }
    }
    let rules = &mut table.get_mut(name).ok_or_else(|| format!("no chain {name}"))?.1;
    match operation {
        "-A" => rules.push(rule.to_owned()),
        "-I" => {
            let (position, rule) = match rule.split_once(' ') {
                Some((number, rest)) if number.parse::<usize>().is_ok() => {
                    (number.parse::<usize>().unwrap_or(1), rest)
                }
                _ => (1, rule),
            };
            let at = position.saturating_sub(1).min(rules.len());
            rules.insert(at, rule.to_owned());
        }
        "-D" => {
            let at = rules.iter().position(|r| r == rule).ok_or("no such rule")?;
            rules.remove(at);
        }
        "-F" => rules.clear(),
        "-X" => drop(table.remove(name)),
        _ => return Err(format!("unknown operation {operation}")),
    }
    Ok(())
}

#[async_trait]
impl Firewall for FakeFirewall {
    async fn restore(&self, family: Family, rules: &str) -> Result<(), FirewallError> {
        let mut state = self.lock();
        let mut current: Option<(String, Table)> = None;
        for line in rules.lines().map(str::trim) {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let refused = |message: String| {
                let source =
                    ProcessError::Failed { program: "iptables-restore".to_owned(), code: 2, message };
                FirewallError::Restore { line: Some(line.to_owned()), source }
            };
            if let Some(name) = line.strip_prefix('*') {
                let table = state.tables.get(&(family, name.to_owned())).cloned();
                current = Some((name.to_owned(), table.unwrap_or_else(|| new_table(name))));
            } else if line == "COMMIT" {
                let (name, table) =
                    current.take().ok_or_else(|| refused("COMMIT outside a table".to_owned()))?;
                state.tables.insert((family, name), table);
            } else {
                let (_, table) =
                    current.as_mut().ok_or_else(|| refused("rule outside a table".to_owned()))?;
                apply(table, line).map_err(refused)?;
            }
        }
        state.restored.push(rules.to_owned());
        Ok(())
    }

    async fn save(&self, family: Family, table: &str) -> Result<String, FirewallError> {
        let state = self.lock();
        let chains =
            state.tables.get(&(family, table.to_owned())).cloned().unwrap_or_else(|| new_table(table));
        let mut text = format!("*{table}\n");
        for (name, (policy, _)) in &chains {
            text.push_str(&format!(":{name} {policy} [0:0]\n"));
        }
        for (name, (_, rules)) in &chains {
            for rule in rules {
                text.push_str(&format!("-A {name} {rule}\n"));
            }
        }
        text.push_str("COMMIT\n");
        Ok(text)
    }

    async fn forget(&self, connections: &Connections) -> Result<(), FirewallError> {
        self.lock().forgotten.push(connections.clone());
        Ok(())
    }
}
