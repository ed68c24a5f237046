//! A pod's resolver configuration, by its DNS policy.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Pod, PodDNSConfig};

use crate::cri::v1;
use crate::kubelet::spec;

const MAX_SERVERS: usize = 3;
const MAX_SEARCHES: usize = 32;
const MAX_SEARCH_CHARS: usize = 2048;

/// What the cluster and the host say about names.
#[derive(Clone, Debug, Default)]
pub struct Names<'a> {
    /// Addresses of the cluster DNS service.
    pub cluster_dns: &'a [IpAddr],
    /// The cluster's domain.
    pub cluster_domain: &'a str,
    /// Text of the host's resolver file.
    pub host_resolv_conf: &'a str,
}

/// The configuration for one pod, and upstream's sentences about what is too much for a resolver file.
pub fn dns_config(pod: &Pod, names: &Names<'_>) -> (v1::DnsConfig, Vec<String>) {
    let pod_spec = spec::pod_spec(pod);
    let host = parse(names.host_resolv_conf);
    let policy = pod_spec.dns_policy.as_deref().unwrap_or("ClusterFirst");
    let cluster = match policy {
        "ClusterFirst" => !spec::host_network(pod),
        "ClusterFirstWithHostNet" => true,
        _ => false,
    };
    let mut config = if policy == "None" {
        v1::DnsConfig::default()
    } else if cluster && !names.cluster_dns.is_empty() {
        in_cluster(spec::namespace(pod), names, host)
    } else {
        host
    };
    if let Some(own) = &pod_spec.dns_config {
        merge(&mut config, own);
    }
    let omitted = limit(&mut config);
    (config, omitted)
}

fn in_cluster(namespace: &str, names: &Names<'_>, host: v1::DnsConfig) -> v1::DnsConfig {
    let domain = names.cluster_domain;
    let mut searches = vec![format!("{namespace}.svc.{domain}"), format!("svc.{domain}"), domain.to_owned()];
    searches.extend(host.searches);
    let mut options = vec!["ndots:5".to_owned()];
    options.extend(host.options.into_iter().filter(|o| !o.starts_with("ndots:")));
    let servers = names.cluster_dns.iter().map(ToString::to_string).collect();
    v1::DnsConfig { servers, searches, options }
}

fn merge(config: &mut v1::DnsConfig, own: &PodDNSConfig) {
    extend_unique(&mut config.servers, own.nameservers.iter().flatten().cloned());
    extend_unique(&mut config.searches, own.searches.iter().flatten().cloned());
    for option in own.options.iter().flatten() {
        let Some(name) = &option.name else { continue };
        config.options.retain(|o| o != name && !o.starts_with(&format!("{name}:")));
        config.options.push(match option.value.as_deref() {
            Some(value) if !value.is_empty() => format!("{name}:{value}"),
            _ => name.clone(),
        });
    }
}

fn extend_unique(list: &mut Vec<String>, more: impl Iterator<Item = String>) {
    for item in more {
        if !list.contains(&item) {
            list.push(item);
        }
    }
}

fn limit(config: &mut v1::DnsConfig) -> Vec<String> {
    let (servers, searches) = (config.servers.len(), config.searches.len());
    config.servers.truncate(MAX_SERVERS);
    config.searches.truncate(MAX_SEARCHES);
    let mut used = 0;
    config.searches.retain(|s| {
        used += s.len() + 1;
        used <= MAX_SEARCH_CHARS
    });
    let mut out = Vec::new();
    if config.servers.len() < servers {
        out.push(format!(
            "Nameserver limits were exceeded, some nameservers have been omitted, the applied nameserver line is: {}",
            config.servers.join(" ")
        ));
    }
    if config.searches.len() < searches {
        out.push(format!(
            "Search Line limits were exceeded, some search paths have been omitted, the applied search line is: {}",
            config.searches.join(" ")
        ));
    }
    out
}

/// Reads a resolver file; the last `search` line counts, options add up.
pub fn parse(text: &str) -> v1::DnsConfig {
    let mut out = v1::DnsConfig::default();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        match words.next() {
            Some("nameserver") => out.servers.extend(words.next().map(str::to_owned)),
            Some("search") => {
                out.searches =
                    words.map(|w| w.trim_end_matches('.').to_owned()).filter(|w| !w.is_empty()).collect();
            }
            Some("options") => out.options.extend(words.map(str::to_owned)),
            _ => {}
        }
    }
    out
}

/// The text of a resolver file, as tests read it best.
#[cfg(test)]
fn render(config: &v1::DnsConfig) -> String {
    let mut out = String::new();
    if !config.searches.is_empty() {
        out.push_str(&format!("search {}\n", config.searches.join(" ")));
    }
    for server in &config.servers {
        out.push_str(&format!("nameserver {server}\n"));
    }
    if !config.options.is_empty() {
        out.push_str(&format!("options {}\n", config.options.join(" ")));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubelet::pods::fixture;
    use serde_json::{Value, json};

    fn rendered(spec: Value) -> String {
        let dns = ["10.43.0.10".parse().unwrap()];
        let host = "nameserver 1.1.1.1\nsearch corp.example.\noptions timeout:1 ndots:2\n";
        let names = Names { cluster_dns: &dns, cluster_domain: "cluster.local", host_resolv_conf: host };
        render(&dns_config(&fixture::pod(spec), &names).0)
    }

    #[test]
    fn what_is_too_much_is_left_out_and_told() {
        let host = "nameserver 1.1.1.1\nnameserver 1.1.1.2\nnameserver 1.1.1.3\nnameserver 1.1.1.4\n";
        let names = Names { host_resolv_conf: host, ..Names::default() };
        let searches: Vec<String> = (0..33).map(|i| format!("d{i}")).collect();
        let pod = fixture::pod(
            json!({"containers": [], "dnsPolicy": "Default", "dnsConfig": {"searches": searches}}),
        );
        let (config, omitted) = dns_config(&pod, &names);
        assert_eq!((config.servers.len(), config.searches.len()), (3, 32));
        assert!(
            omitted[0].ends_with("the applied nameserver line is: 1.1.1.1 1.1.1.2 1.1.1.3"),
            "{omitted:?}"
        );
        assert!(omitted[1].starts_with("Search Line limits were exceeded") && omitted[1].ends_with(" d31"));
    }

    const CLUSTER: &str = "search default.svc.cluster.local svc.cluster.local cluster.local corp.example\n\
                           nameserver 10.43.0.10\noptions ndots:5 timeout:1\n";
    const HOST: &str = "search corp.example\nnameserver 1.1.1.1\noptions timeout:1 ndots:2\n";

    #[test]
    fn each_policy_has_its_file() {
        for (spec, want) in [
            (json!({"containers": []}), CLUSTER),
            (json!({"containers": [], "dnsPolicy": "ClusterFirst", "hostNetwork": true}), HOST),
            (json!({"containers": [], "dnsPolicy": "ClusterFirstWithHostNet", "hostNetwork": true}), CLUSTER),
            (json!({"containers": [], "dnsPolicy": "Default"}), HOST),
            (
                json!({"containers": [], "dnsPolicy": "None", "dnsConfig": {"nameservers": ["9.9.9.9"],
                    "searches": ["x"], "options": [{"name": "ndots", "value": "1"}, {"name": "edns0"}]}}),
                "search x\nnameserver 9.9.9.9\noptions ndots:1 edns0\n",
            ),
        ] {
            assert_eq!(rendered(spec.clone()), want, "{spec}");
        }
    }

    #[test]
    fn own_options_replace_those_of_the_policy() {
        let got =
            rendered(json!({"containers": [], "dnsConfig": {"options": [{"name": "ndots", "value": "2"}]}}));
        assert!(got.ends_with("options timeout:1 ndots:2\n"), "{got}");
    }
}
