//! What must be told to `iptables-restore` so that chains become what they should be.

use std::collections::BTreeMap;
use std::fmt::Write;

/// A table's chains and their rules, without the `-A CHAIN` in front.
pub(super) type Chains = BTreeMap<String, Vec<String>>;

/// Chains as they are; `None` where only the name is known.
pub(super) type Known = BTreeMap<String, Option<Vec<String>>>;

/// The text that turns `known` into `wanted` in one step, with `jumps` put into built-in chains first; `None` when
/// nothing is to be done.
pub(super) fn restore_text(table: &str, known: &Known, wanted: &Chains, jumps: &[String]) -> Option<String> {
    let changed = wanted.iter().filter(|(chain, rules)| known.get(*chain) != Some(&Some((*rules).clone())));
    let changed: Vec<_> = changed.collect();
    let gone: Vec<_> = known.keys().filter(|chain| !wanted.contains_key(*chain)).collect();
    if changed.is_empty() && gone.is_empty() && jumps.is_empty() {
        return None;
    }
    let mut text = format!("*{table}\n");
    let mut line = |line: std::fmt::Arguments<'_>| {
        text.write_fmt(line).expect("writing to a String cannot fail");
        text.push('\n');
    };
    // Naming a chain makes it, or empties it; a chain must be there before a rule jumps to it.
    for chain in changed.iter().map(|(chain, _)| *chain).chain(gone.iter().copied()) {
        line(format_args!(":{chain} - [0:0]"));
    }
    for jump in jumps {
        line(format_args!("-I {jump}"));
    }
    for (chain, rules) in changed {
        for rule in rules {
            line(format_args!("-A {chain} {rule}"));
        }
    }
    for chain in gone {
        line(format_args!("-X {chain}"));
    }
    line(format_args!("COMMIT"));
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chains(content: &[(&str, &[&str])]) -> Chains {
        let rules = |rules: &[&str]| rules.iter().map(|rule| (*rule).to_owned()).collect();
        content.iter().map(|(chain, list)| ((*chain).to_owned(), rules(list))).collect()
    }

    fn known(chains: Chains) -> Known {
        chains.into_iter().map(|(chain, rules)| (chain, Some(rules))).collect()
    }

    #[test]
    fn nothing_changed_is_nothing_to_say() {
        let same = chains(&[("A", &["-j B"]), ("B", &[])]);
        assert_eq!(restore_text("nat", &known(same.clone()), &same, &[]), None);
    }

    #[test]
    fn only_changed_chains_are_written_and_unknown_ones_removed() {
        let mut before = known(chains(&[("A", &["-j B"]), ("B", &["-j OLD"])]));
        before.insert("OLD".to_owned(), None);
        let after = chains(&[("A", &["-j B"]), ("B", &["-j NEW"]), ("NEW", &["-j DROP"])]);
        let text = restore_text("nat", &before, &after, &["PREROUTING -j A".to_owned()]).unwrap();
        let expected = "*nat\n:B - [0:0]\n:NEW - [0:0]\n:OLD - [0:0]\n-I PREROUTING -j A\n-A B -j NEW\n-A NEW -j DROP\n-X OLD\nCOMMIT\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn chain_of_unknown_content_is_written() {
        let before = Known::from([("A".to_owned(), None)]);
        let text = restore_text("filter", &before, &chains(&[("A", &["-j DROP"])]), &[]).unwrap();
        assert_eq!(text, "*filter\n:A - [0:0]\n-A A -j DROP\nCOMMIT\n");
    }
}
