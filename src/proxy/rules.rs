//! The chains that Services need, in upstream's structure and with upstream's names.
//!
//! `KUBE-SERVICES` sends traffic for a Service's address to `KUBE-SVC-…` (any endpoint) or `KUBE-SVL-…` (an endpoint of
//! this node), which picks a `KUBE-SEP-…` (one endpoint). Traffic from outside enters through `KUBE-EXT-…`, which
//! decides about masquerading. What has no endpoint is refused in the filter table.

use std::collections::BTreeMap;
use std::net::IpAddr;

use aws_lc_rs::digest;

use super::diff::Chains;
use super::family_of;
use super::model::{ServicePort, Target};
use crate::host::firewall::Family;

/// The bit of a packet's mark that asks for masquerading, as upstream's default.
const MARK: &str = "0x4000/0x4000";

/// Where built-in chains jump to ours: table and rule, without the `-A`.
pub(super) const JUMPS: &[(&str, &str)] = &[
    ("nat", "PREROUTING -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES"),
    ("nat", "OUTPUT -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES"),
    ("nat", "POSTROUTING -m comment --comment \"kubernetes postrouting rules\" -j KUBE-POSTROUTING"),
    (
        "filter",
        "INPUT -m conntrack --ctstate NEW -m comment --comment \"kubernetes load balancer firewall\" -j KUBE-PROXY-FIREWALL",
    ),
    (
        "filter",
        "OUTPUT -m conntrack --ctstate NEW -m comment --comment \"kubernetes load balancer firewall\" -j KUBE-PROXY-FIREWALL",
    ),
    (
        "filter",
        "FORWARD -m conntrack --ctstate NEW -m comment --comment \"kubernetes load balancer firewall\" -j KUBE-PROXY-FIREWALL",
    ),
    (
        "filter",
        "INPUT -m conntrack --ctstate NEW -m comment --comment \"kubernetes externally-visible service portals\" -j KUBE-EXTERNAL-SERVICES",
    ),
    (
        "filter",
        "FORWARD -m conntrack --ctstate NEW -m comment --comment \"kubernetes externally-visible service portals\" -j KUBE-EXTERNAL-SERVICES",
    ),
    ("filter", "FORWARD -m comment --comment \"kubernetes forwarding rules\" -j KUBE-FORWARD"),
    (
        "filter",
        "FORWARD -m conntrack --ctstate NEW -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES",
    ),
    (
        "filter",
        "OUTPUT -m conntrack --ctstate NEW -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES",
    ),
    ("filter", "INPUT -j KUBE-FIREWALL"),
    ("filter", "OUTPUT -j KUBE-FIREWALL"),
];

/// The chains of the two tables.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Rules {
    pub(super) nat: Chains,
    pub(super) filter: Chains,
}

/// The rules for the ports of one family.
pub(super) fn render(ports: &[ServicePort], family: Family, cluster_cidrs: &[String]) -> Rules {
    let is_ours = |cidr: &&String| cidr.contains(':') == (family == Family::V6);
    let pods = cluster_cidrs.iter().find(is_ours).map(String::as_str);
    let mut render = Render { rules: fixed(family), family, pods };
    for port in ports {
        render.port(port);
    }
    let local = match family {
        Family::V4 => "",
        Family::V6 => " ! -d ::1/128",
    };
    render.nat(
        "KUBE-SERVICES",
        format!(
            "-m comment --comment \"kubernetes service nodeports; NOTE: this must be the last rule in this chain\" -m addrtype --dst-type LOCAL{local} -j KUBE-NODEPORTS"
        ),
    );
    render.rules
}

/// The chains that are there without any Service.
fn fixed(family: Family) -> Rules {
    let chains = |list: &[(&str, &[&str])]| -> Chains {
        let rules = |rules: &[&str]| rules.iter().map(|rule| (*rule).to_owned()).collect();
        list.iter().map(|(chain, content)| ((*chain).to_owned(), rules(content))).collect()
    };
    let mut filter = chains(&[
        ("KUBE-SERVICES", &[]),
        ("KUBE-EXTERNAL-SERVICES", &[]),
        ("KUBE-PROXY-FIREWALL", &[]),
        (
            "KUBE-FORWARD",
            &[
                "-m conntrack --ctstate INVALID -j DROP",
                "-m comment --comment \"kubernetes forwarding rules\" -m mark --mark 0x4000/0x4000 -j ACCEPT",
                "-m comment --comment \"kubernetes forwarding conntrack rule\" -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
            ],
        ),
        ("KUBE-FIREWALL", &[]),
    ]);
    if family == Family::V4 {
        // Node ports answer on 127.0.0.1 too, which needs route_localnet: nobody else may reach the loopback by it.
        let block = "-m comment --comment \"block incoming localnet connections\" -d 127.0.0.0/8 ! -s 127.0.0.0/8 -m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP";
        filter.insert("KUBE-FIREWALL".to_owned(), vec![block.to_owned()]);
    }
    let masquerade =
        "-m comment --comment \"kubernetes service traffic requiring SNAT\" -j MASQUERADE --random-fully";
    let nat = chains(&[
        ("KUBE-SERVICES", &[]),
        ("KUBE-NODEPORTS", &[]),
        ("KUBE-MARK-MASQ", &["-j MARK --or-mark 0x4000"]),
        (
            "KUBE-POSTROUTING",
            &[&format!("-m mark ! --mark {MARK} -j RETURN"), "-j MARK --xor-mark 0x4000", masquerade],
        ),
    ]);
    Rules { nat, filter }
}

struct Render<'a> {
    rules: Rules,
    family: Family,
    pods: Option<&'a str>,
}

/// The chains of a port, as upstream derives them.
struct Names {
    all: String,
    local: String,
    external: String,
    firewall: String,
}

impl Render<'_> {
    fn nat(&mut self, chain: &str, rule: String) {
        self.rules.nat.entry(chain.to_owned()).or_default().push(rule);
    }

    fn filter(&mut self, chain: &str, rule: String) {
        self.rules.filter.entry(chain.to_owned()).or_default().push(rule);
    }

    fn ours(&self, addresses: &[IpAddr]) -> Vec<IpAddr> {
        addresses.iter().copied().filter(|address| family_of(*address) == self.family).collect()
    }

    fn port(&mut self, port: &ServicePort) {
        let cluster_ips = self.ours(&port.cluster_ips);
        if cluster_ips.is_empty() {
            return;
        }
        let of_family = |target: &&Target| family_of(target.address.ip()) == self.family;
        let all: Vec<_> = port.endpoints.iter().filter(of_family).cloned().collect();
        let local: Vec<_> = all.iter().filter(|target| target.local).cloned().collect();
        if all.is_empty() {
            self.refuse(port, &cluster_ips, "REJECT", "has no endpoints", true);
            self.refuse_outside(port, "REJECT", "has no endpoints");
            return;
        }
        let names = Names::of(port);
        self.inside(port, &names, &cluster_ips, !local.is_empty());
        self.outside(port, &names, !local.is_empty());
        self.balance(port, &names.all, &all, Some(&cluster_ips));
        if (port.internal_local || port.external_local) && !local.is_empty() {
            let marked = port.internal_local.then_some(cluster_ips.as_slice());
            self.balance(port, &names.local, &local, marked);
        }
    }

    /// Traffic to the cluster's own address.
    fn inside(&mut self, port: &ServicePort, names: &Names, cluster_ips: &[IpAddr], any_local: bool) {
        let chain = match (port.internal_local, any_local) {
            (false, _) => &names.all,
            (true, true) => &names.local,
            (true, false) => {
                return self.refuse(port, cluster_ips, "DROP", "has no local endpoints", false);
            }
        };
        for ip in cluster_ips {
            let rule = format!("{} {} -j {chain}", comment(port, "cluster IP"), to(port, *ip));
            self.nat("KUBE-SERVICES", rule);
        }
    }

    /// Traffic to node ports, external addresses and load balancers.
    fn outside(&mut self, port: &ServicePort, names: &Names, any_local: bool) {
        let external_ips = self.ours(&port.external_ips);
        let balancer_ips = self.ours(&port.load_balancer_ips);
        if port.node_port.is_none() && external_ips.is_empty() && balancer_ips.is_empty() {
            return;
        }
        if port.external_local && !any_local {
            self.refuse_outside(port, "DROP", "has no local endpoints");
        }
        for ip in external_ips {
            let rule = format!("{} {} -j {}", comment(port, "external IP"), to(port, ip), names.external);
            self.nat("KUBE-SERVICES", rule);
        }
        self.balancer(port, names, &balancer_ips);
        if let Some(node_port) = port.node_port {
            let matching = format!("-p {0} -m {0} --dport {node_port}", port.protocol);
            self.nat("KUBE-NODEPORTS", format!("{} {matching} -j {}", comment(port, ""), names.external));
        }
        self.external_chain(port, names, any_local);
    }

    fn balancer(&mut self, port: &ServicePort, names: &Names, addresses: &[IpAddr]) {
        let is_ours = |range: &&String| range.contains(':') == (self.family == Family::V6);
        let ranges: Vec<_> = port.source_ranges.iter().filter(is_ours).cloned().collect();
        let guarded = !port.source_ranges.is_empty();
        let chain = if guarded { &names.firewall } else { &names.external };
        for ip in addresses {
            self.nat(
                "KUBE-SERVICES",
                format!("{} {} -j {chain}", comment(port, "loadbalancer IP"), to(port, *ip)),
            );
            if guarded {
                let rule = format!("{} {} -j DROP", comment(port, "traffic not accepted by"), to(port, *ip));
                self.filter("KUBE-PROXY-FIREWALL", rule);
            }
        }
        if guarded && !addresses.is_empty() {
            for range in ranges {
                let rule = format!("{} -s {range} -j {}", comment(port, "loadbalancer IP"), names.external);
                self.nat(&names.firewall, rule);
            }
        }
    }

    fn external_chain(&mut self, port: &ServicePort, names: &Names, any_local: bool) {
        let chain = &names.external;
        if !port.external_local {
            self.nat(
                chain,
                format!(
                    "{} -j KUBE-MARK-MASQ",
                    comment(port, "masquerade traffic for external destinations")
                ),
            );
            self.nat(chain, format!("-j {}", names.all));
            return;
        }
        // Pods and the node itself are inside: for them every endpoint will do.
        if let Some(pods) = self.pods {
            let rule = format!(
                "{} -s {pods} -j {}",
                comment(port, "pod traffic for external destinations"),
                names.all
            );
            self.nat(chain, rule);
        }
        let source = "-m addrtype --src-type LOCAL";
        self.nat(
            chain,
            format!(
                "{} {source} -j KUBE-MARK-MASQ",
                comment(port, "masquerade LOCAL traffic for external destinations")
            ),
        );
        self.nat(
            chain,
            format!(
                "{} {source} -j {}",
                comment(port, "route LOCAL traffic for external destinations"),
                names.all
            ),
        );
        if any_local {
            self.nat(chain, format!("-j {}", names.local));
        }
    }

    /// The chain that picks one of the endpoints, each as often as the others.
    fn balance(
        &mut self,
        port: &ServicePort,
        chain: &str,
        targets: &[Target],
        cluster_ips: Option<&[IpAddr]>,
    ) {
        if let (Some(pods), Some(cluster_ips)) = (self.pods, cluster_ips) {
            for ip in cluster_ips {
                let rule = format!(
                    "{} {} ! -s {pods} -j KUBE-MARK-MASQ",
                    comment(port, "cluster IP"),
                    to(port, *ip)
                );
                self.nat(chain, rule);
            }
        }
        self.rules.nat.entry(chain.to_owned()).or_default();
        let endpoints: Vec<_> = targets.iter().map(|target| (endpoint_chain(port, target), target)).collect();
        if let Some(seconds) = port.affinity {
            for (endpoint, target) in &endpoints {
                let what = comment(port, &format!("-> {}", target.address));
                self.nat(
                    chain,
                    format!(
                        "{what} -m recent --name {endpoint} --rcheck --seconds {seconds} --reap -j {endpoint}"
                    ),
                );
            }
        }
        for (index, (endpoint, target)) in endpoints.iter().enumerate() {
            let left = endpoints.len() - index;
            let what = comment(port, &format!("-> {}", target.address));
            let chance = match left {
                1 => String::new(),
                _ => format!(" -m statistic --mode random --probability {:.10}", 1.0 / left as f64),
            };
            self.nat(chain, format!("{what}{chance} -j {endpoint}"));
            self.endpoint(port, endpoint, target);
        }
    }

    fn endpoint(&mut self, port: &ServicePort, chain: &str, target: &Target) {
        let what = comment(port, "");
        let recent = port.affinity.map_or(String::new(), |_| format!(" -m recent --name {chain} --set"));
        let rules = vec![
            // A pod that reaches itself through its Service must see the answer come back through the node.
            format!("{what} -s {} -j KUBE-MARK-MASQ", target.address.ip()),
            format!(
                "{what}{recent} -p {0} -m {0} -j DNAT --to-destination {1}",
                port.protocol, target.address
            ),
        ];
        self.rules.nat.insert(chain.to_owned(), rules);
    }

    /// `forwarded` tells the whole Service's lack of endpoints from a lack on this node only.
    fn refuse(&mut self, port: &ServicePort, cluster_ips: &[IpAddr], how: &str, why: &str, forwarded: bool) {
        let chain = "KUBE-SERVICES";
        debug_assert!(forwarded || how == "DROP", "only a whole Service is refused with an answer");
        for ip in cluster_ips {
            self.filter(chain, format!("{} {} -j {how}", comment(port, why), to(port, *ip)));
        }
    }

    fn refuse_outside(&mut self, port: &ServicePort, how: &str, why: &str) {
        let chain = "KUBE-EXTERNAL-SERVICES";
        for ip in self.ours(&port.external_ips).into_iter().chain(self.ours(&port.load_balancer_ips)) {
            self.filter(chain, format!("{} {} -j {how}", comment(port, why), to(port, ip)));
        }
        if let Some(node_port) = port.node_port {
            let matching =
                format!("-m addrtype --dst-type LOCAL -p {0} -m {0} --dport {node_port}", port.protocol);
            self.filter(chain, format!("{} {matching} -j {how}", comment(port, why)));
        }
    }
}

impl Names {
    fn of(port: &ServicePort) -> Self {
        let hash = short_hash(&[&port.name, &port.protocol]);
        Names {
            all: format!("KUBE-SVC-{hash}"),
            local: format!("KUBE-SVL-{hash}"),
            external: format!("KUBE-EXT-{hash}"),
            firewall: format!("KUBE-FW-{hash}"),
        }
    }
}

fn endpoint_chain(port: &ServicePort, target: &Target) -> String {
    let hash = short_hash(&[&port.name, &port.protocol, &target.address.to_string()]);
    format!("KUBE-SEP-{hash}")
}

/// The first 16 characters of the parts' SHA-256 in base 32, as in upstream's chain names.
fn short_hash(parts: &[&str]) -> String {
    const ALPHABET: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    let digest = digest::digest(&digest::SHA256, parts.concat().as_bytes());
    let bits = digest.as_ref().iter().take(10).fold(0_u128, |bits, byte| bits << 8 | u128::from(*byte));
    (0..16).map(|place| char::from(ALPHABET[(bits >> (75 - 5 * place) & 31) as usize])).collect()
}

fn comment(port: &ServicePort, what: &str) -> String {
    let space = if what.is_empty() { "" } else { " " };
    format!("-m comment --comment \"{}{space}{what}\"", port.name)
}

fn to(port: &ServicePort, ip: IpAddr) -> String {
    format!("-p {0} -m {0} -d {ip} --dport {1}", port.protocol, port.port)
}

/// Whether a chain is one of those that come and go with Services.
pub(super) fn is_ours(chain: &str) -> bool {
    const FIXED: [&str; 8] = [
        "KUBE-SERVICES",
        "KUBE-NODEPORTS",
        "KUBE-MARK-MASQ",
        "KUBE-POSTROUTING",
        "KUBE-EXTERNAL-SERVICES",
        "KUBE-PROXY-FIREWALL",
        "KUBE-FORWARD",
        "KUBE-FIREWALL",
    ];
    let prefixes = ["KUBE-SVC-", "KUBE-SVL-", "KUBE-SEP-", "KUBE-EXT-", "KUBE-FW-"];
    FIXED.contains(&chain) || prefixes.iter().any(|prefix| chain.starts_with(prefix))
}

/// The tables that hold rules of ours, and their chains.
impl Rules {
    pub(super) fn tables(&self) -> BTreeMap<&'static str, &Chains> {
        BTreeMap::from([("filter", &self.filter), ("nat", &self.nat)])
    }
}

#[cfg(test)]
mod tests;
