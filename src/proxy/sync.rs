//! Brings the kernel's tables to what is wanted, and notices when somebody else has removed it.

use std::collections::BTreeMap;

use super::diff::{Known, restore_text};
use super::rules::{JUMPS, Rules, is_ours};
use crate::host::firewall::{Family, Firewall, FirewallError};

/// What this process knows of one family's tables.
#[derive(Debug, Default)]
pub(super) struct Tables {
    /// By table; empty until the kernel was asked.
    known: BTreeMap<&'static str, Known>,
}

impl Tables {
    /// Makes the tables what `wanted` says, with at most one call for all of them.
    ///
    /// # Errors
    /// Rules were not taken; what is in the kernel is then unknown and [`Tables::forget`] should be called.
    pub(super) async fn sync(
        &mut self,
        family: Family,
        wanted: Rules,
        firewall: &dyn Firewall,
    ) -> Result<(), FirewallError> {
        let mut text = String::new();
        let wanted = wanted.tables();
        for (table, chains) in &wanted {
            let mut jumps = Vec::new();
            if !self.known.contains_key(table) {
                let saved = firewall.save(family, table).await?;
                jumps = missing_jumps(table, &saved);
                self.known.insert(table, chains_in(&saved));
            }
            let known = self.known.entry(table).or_default();
            text.extend(restore_text(table, known, chains, &jumps));
        }
        if text.is_empty() {
            return Ok(());
        }
        firewall.restore(family, &text).await?;
        for (table, chains) in wanted {
            let known = chains.iter().map(|(chain, rules)| (chain.clone(), Some(rules.clone())));
            self.known.insert(table, known.collect());
        }
        Ok(())
    }

    /// Asks the kernel again before the next change.
    pub(super) fn forget(&mut self) {
        self.known.clear();
    }
}

/// Whether any chain or jump that should be there is gone. A table that cannot be read counts as whole.
pub(super) async fn anything_missing(tables: &BTreeMap<Family, Tables>, firewall: &dyn Firewall) -> bool {
    for (family, tables) in tables {
        for (table, known) in &tables.known {
            let Ok(saved) = firewall.save(*family, table).await else { continue };
            let there = chains_in(&saved);
            if known.keys().any(|chain| !there.contains_key(chain))
                || !missing_jumps(table, &saved).is_empty()
            {
                return true;
            }
        }
    }
    false
}

/// Takes our chains, and what jumps to them, out of the tables of a family; everything else stays.
pub(super) async fn remove(family: Family, firewall: &dyn Firewall) -> Result<(), FirewallError> {
    let mut text = String::new();
    for table in ["filter", "nat"] {
        let saved = firewall.save(family, table).await?;
        text.extend(removal_text(table, &saved));
    }
    if text.is_empty() { Ok(()) } else { firewall.restore(family, &text).await }
}

/// What takes our chains out of a table as `iptables-save` prints it; `None` when there is none.
fn removal_text(table: &str, saved: &str) -> Option<String> {
    let ours = chains_in(saved);
    if ours.is_empty() {
        return None;
    }
    let target =
        |rule: &str| rule.rsplit_once("-j ").and_then(|(_, t)| t.split_whitespace().next().map(is_ours));
    let jumps = saved.lines().filter_map(|line| line.strip_prefix("-A ")).filter(|rule| {
        let inside = rule.split_whitespace().next().is_some_and(is_ours);
        !inside && target(rule) == Some(true)
    });
    let named = ours.keys().map(|chain| format!(":{chain} - [0:0]"));
    let jumps = jumps.map(|rule| format!("-D {rule}"));
    let removed = ours.keys().map(|chain| format!("-X {chain}"));
    let lines: Vec<_> =
        std::iter::once(format!("*{table}")).chain(named).chain(jumps).chain(removed).collect();
    Some(format!("{}\nCOMMIT\n", lines.join("\n")))
}

/// Our chains in a table as `iptables-save` prints it; their content is not compared.
fn chains_in(saved: &str) -> Known {
    let name = |line: &str| line.strip_prefix(':')?.split_whitespace().next().map(str::to_owned);
    saved.lines().filter_map(name).filter(|chain| is_ours(chain)).map(|chain| (chain, None)).collect()
}

/// The jumps that a table lacks, in an order that inserting each at the top keeps.
fn missing_jumps(table: &str, saved: &str) -> Vec<String> {
    let wanted = JUMPS.iter().rev().filter(|(of, _)| *of == table).map(|(_, rule)| *rule);
    wanted.filter(|rule| !saved.lines().any(|line| jumps_alike(line, rule))).map(str::to_owned).collect()
}

/// Compares by chain, comment and target, since the order of the matches in between is the printing program's.
fn jumps_alike(line: &str, rule: &str) -> bool {
    let Some(line) = line.strip_prefix("-A ") else { return false };
    let parts = |text: &str| {
        let chain = text.split_whitespace().next().map(str::to_owned);
        let target = text.rsplit_once("-j ").map(|(_, target)| target.trim().to_owned());
        let comment = text.split('"').nth(1).map(str::to_owned);
        (chain, comment, target)
    };
    parts(line) == parts(rule)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::fake::FakeFirewall;
    use crate::proxy::rules::render;

    #[tokio::test]
    async fn second_sync_of_the_same_writes_nothing() {
        let firewall = FakeFirewall::default();
        let mut tables = Tables::default();
        tables.sync(Family::V4, render(&[], Family::V4, &[]), &firewall).await.unwrap();
        let first = firewall.restored().len();
        assert_eq!(first, 1, "one call for all tables");
        tables.sync(Family::V4, render(&[], Family::V4, &[]), &firewall).await.unwrap();
        assert_eq!(firewall.restored().len(), first);
    }

    #[tokio::test]
    async fn new_process_adopts_what_is_there_and_adds_no_second_jump() {
        let firewall = FakeFirewall::default();
        Tables::default().sync(Family::V4, render(&[], Family::V4, &[]), &firewall).await.unwrap();
        let stale = "*nat\n:KUBE-SVC-STALE - [0:0]\n:OTHERS - [0:0]\nCOMMIT\n";
        firewall.restore(Family::V4, stale).await.unwrap();
        Tables::default().sync(Family::V4, render(&[], Family::V4, &[]), &firewall).await.unwrap();
        let saved = firewall.save(Family::V4, "nat").await.unwrap();
        assert!(!saved.contains("KUBE-SVC-STALE"), "{saved}");
        assert!(saved.contains("OTHERS"), "{saved}");
        assert_eq!(saved.matches("-A PREROUTING").count(), 1, "{saved}");
    }

    #[tokio::test]
    async fn removal_leaves_what_others_made() {
        let firewall = FakeFirewall::default();
        let others = "*nat\n:OTHERS - [0:0]\n-A OTHERS -j ACCEPT\n-A PREROUTING -j OTHERS\nCOMMIT\n";
        firewall.restore(Family::V4, others).await.unwrap();
        let tables = |firewall: FakeFirewall| async move {
            let nat = firewall.save(Family::V4, "nat").await.unwrap();
            let filter = firewall.save(Family::V4, "filter").await.unwrap();
            (nat + &filter, firewall)
        };
        let (before, firewall) = tables(firewall).await;
        Tables::default().sync(Family::V4, render(&[], Family::V4, &[]), &firewall).await.unwrap();
        let (between, firewall) = tables(firewall).await;
        assert_ne!(before, between);
        remove(Family::V4, &firewall).await.unwrap();
        let (after, firewall) = tables(firewall).await;
        assert_eq!(before, after);
        let calls = firewall.restored().len();
        remove(Family::V4, &firewall).await.unwrap();
        assert_eq!(firewall.restored().len(), calls, "nothing is left to remove");
    }

    #[tokio::test]
    async fn removed_rules_are_noticed() {
        let firewall = FakeFirewall::default();
        let mut tables = BTreeMap::from([(Family::V4, Tables::default())]);
        let table = tables.get_mut(&Family::V4).unwrap();
        table.sync(Family::V4, render(&[], Family::V4, &[]), &firewall).await.unwrap();
        assert!(!anything_missing(&tables, &firewall).await);
        let gone = "*nat\n:KUBE-NODEPORTS - [0:0]\n:KUBE-SERVICES - [0:0]\n-X KUBE-NODEPORTS\nCOMMIT\n";
        firewall.restore(Family::V4, gone).await.unwrap();
        assert!(anything_missing(&tables, &firewall).await);
    }

    #[test]
    fn jumps_are_recognized_in_another_order_of_matches() {
        let (_, rule) = JUMPS
            .iter()
            .find(|(_, rule)| rule.contains("portals\" -j KUBE-SERVICES") && rule.starts_with("FORWARD"))
            .unwrap();
        let printed = "-A FORWARD -m comment --comment \"kubernetes service portals\" -m conntrack --ctstate NEW -j KUBE-SERVICES";
        assert!(jumps_alike(printed, rule));
        assert!(!jumps_alike(&printed.replace("FORWARD", "OUTPUT"), rule));
    }
}
