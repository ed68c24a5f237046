//! Forwarding and masquerading rules of the node, as text for `iptables-restore`.
//!
//! - Packets from and to pods may be forwarded, also where the host's policy is to drop.
//! - Packets of pods that leave the cluster get the node's address, since nobody outside knows the way to a pod.

/// The bridge of the pods.
pub(super) const BRIDGE: &str = "cni0";
const FORWARD: &str = "KUBE-LITE-FORWARD";
const MASQUERADE: &str = "KUBE-LITE-MASQ";
/// The rule in the kernel's chain that leads to ours, by table.
const JUMP_FORWARD: &str = "FORWARD -m comment --comment \"kube-lite pods\" -j KUBE-LITE-FORWARD";
const JUMP_MASQUERADE: &str = "POSTROUTING -m comment --comment \"kube-lite pods\" -j KUBE-LITE-MASQ";

/// What rules are made from.
#[derive(Debug, Clone, Copy)]
pub struct Rules<'a> {
    /// Ranges of all pods of the cluster, of one protocol family.
    pub cluster_cidrs: &'a [String],
    /// The filter table as it is.
    pub filter: &'a str,
    /// The nat table as it is.
    pub nat: &'a str,
}

/// The text that sets our chains, whatever was in them, and leads to them if nothing does so far.
pub fn render(rules: &Rules<'_>) -> String {
    let mut filter = Text::table("filter", FORWARD);
    let mut nat = Text::table("nat", MASQUERADE);
    for cidr in rules.cluster_cidrs {
        filter.rule(&format!("-A {FORWARD} -s {cidr} -j ACCEPT"));
        filter.rule(&format!("-A {FORWARD} -d {cidr} -j ACCEPT"));
        nat.rule(&format!("-A {MASQUERADE} -s {cidr} -d {cidr} -j RETURN"));
    }
    let multicast =
        if rules.cluster_cidrs.iter().any(|cidr| cidr.contains(':')) { "ff00::/8" } else { "224.0.0.0/4" };
    for cidr in rules.cluster_cidrs {
        nat.rule(&format!("-A {MASQUERADE} -s {cidr} ! -d {multicast} -j MASQUERADE"));
    }
    if !leads_to(rules.filter, FORWARD) {
        filter.rule(&format!("-I {JUMP_FORWARD}"));
    }
    if !leads_to(rules.nat, MASQUERADE) {
        nat.rule(&format!("-A {JUMP_MASQUERADE}"));
    }
    filter.commit() + &nat.commit()
}

/// The text that removes our chains from tables as they are; empty when there is nothing to remove.
pub fn render_removal(filter: &str, nat: &str) -> String {
    let remove = |name: &str, table: &str, chain: &str, jump: &str| {
        if !table.lines().any(|line| line.starts_with(&format!(":{chain} "))) {
            return String::new();
        }
        let mut text = Text::table(name, chain);
        if leads_to(table, chain) {
            text.rule(&format!("-D {jump}"));
        }
        text.rule(&format!("-X {chain}"));
        text.commit()
    };
    remove("filter", filter, FORWARD, JUMP_FORWARD) + &remove("nat", nat, MASQUERADE, JUMP_MASQUERADE)
}

fn leads_to(table: &str, chain: &str) -> bool {
    let jump = format!("-j {chain}");
    table.lines().any(|line| line.starts_with("-A ") && line.ends_with(&jump))
}

/// One table's part of a text.
struct Text(String);

impl Text {
    /// Declaring a chain empties it.
    fn table(name: &str, chain: &str) -> Self {
        Self(format!("*{name}\n:{chain} - [0:0]\n"))
    }

    fn rule(&mut self, rule: &str) {
        self.0.push_str(rule);
        self.0.push('\n');
    }

    fn commit(mut self) -> String {
        self.rule("COMMIT");
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = ":FORWARD ACCEPT [0:0]\n";

    #[test]
    fn pods_are_forwarded_and_masqueraded_outside_the_cluster_only() {
        let cidrs = ["10.42.0.0/16".to_owned()];
        let text = render(&Rules { cluster_cidrs: &cidrs, filter: EMPTY, nat: EMPTY });
        assert_eq!(
            text,
            "*filter\n\
             :KUBE-LITE-FORWARD - [0:0]\n\
             -A KUBE-LITE-FORWARD -s 10.42.0.0/16 -j ACCEPT\n\
             -A KUBE-LITE-FORWARD -d 10.42.0.0/16 -j ACCEPT\n\
             -I FORWARD -m comment --comment \"kube-lite pods\" -j KUBE-LITE-FORWARD\n\
             COMMIT\n\
             *nat\n\
             :KUBE-LITE-MASQ - [0:0]\n\
             -A KUBE-LITE-MASQ -s 10.42.0.0/16 -d 10.42.0.0/16 -j RETURN\n\
             -A KUBE-LITE-MASQ -s 10.42.0.0/16 ! -d 224.0.0.0/4 -j MASQUERADE\n\
             -A POSTROUTING -m comment --comment \"kube-lite pods\" -j KUBE-LITE-MASQ\n\
             COMMIT\n"
        );
    }

    #[test]
    fn the_way_to_our_chains_is_made_once() {
        let filter =
            ":FORWARD DROP [0:0]\n-A FORWARD -m comment --comment \"kube-lite pods\" -j KUBE-LITE-FORWARD\n";
        let nat = "-A POSTROUTING -m comment --comment \"kube-lite pods\" -j KUBE-LITE-MASQ\n";
        let cidrs = ["10.42.0.0/16".to_owned()];
        let text = render(&Rules { cluster_cidrs: &cidrs, filter, nat });
        assert!(!text.contains("-I FORWARD") && !text.contains("-A POSTROUTING"), "{text}");
    }

    #[test]
    fn nothing_is_removed_where_nothing_is() {
        assert_eq!(render_removal(EMPTY, EMPTY), "");
        let nat = ":KUBE-LITE-MASQ - [0:0]\n";
        assert_eq!(render_removal(EMPTY, nat), "*nat\n:KUBE-LITE-MASQ - [0:0]\n-X KUBE-LITE-MASQ\nCOMMIT\n");
    }
}
