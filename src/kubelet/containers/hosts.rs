//! A pod's `/etc/hosts`, and its host name.

use k8s_openapi::api::core::v1::{HostAlias, Pod};

use crate::kubelet::spec;

const MAX_HOSTNAME: usize = 63;

/// The host name of a pod's containers, and the domain when the pod has a subdomain.
pub fn hostname(pod: &Pod, node_hostname: &str, cluster_domain: &str) -> (String, String) {
    let pod_spec = spec::pod_spec(pod);
    if let Some(over) = pod_spec.hostname_override.as_deref().filter(|h| !h.is_empty()) {
        return (over.to_owned(), String::new());
    }
    if spec::host_network(pod) {
        return (node_hostname.to_owned(), String::new());
    }
    let own = pod_spec.hostname.as_deref().filter(|h| !h.is_empty());
    let name = own.map_or_else(|| truncated(spec::name(pod)), str::to_owned);
    let domain = match pod_spec.subdomain.as_deref().filter(|s| !s.is_empty()) {
        Some(sub) => format!("{sub}.{}.svc.{cluster_domain}", spec::namespace(pod)),
        None => String::new(),
    };
    (name, domain)
}

/// What `hostname` prints inside the pod.
pub fn sandbox_hostname(pod: &Pod, node_hostname: &str, cluster_domain: &str) -> String {
    let (name, domain) = hostname(pod, node_hostname, cluster_domain);
    let wants_fqdn = spec::pod_spec(pod).set_hostname_as_fqdn == Some(true);
    if wants_fqdn && !domain.is_empty() { format!("{name}.{domain}") } else { name }
}

fn truncated(name: &str) -> String {
    let cut = name.get(..MAX_HOSTNAME).unwrap_or(name);
    cut.trim_end_matches(['-', '.']).to_owned()
}

/// The file of a pod with its own network.
pub fn pod_hosts(ips: &[String], hostname: &str, domain: &str, aliases: &[HostAlias]) -> String {
    let mut out = String::from(
        "# Kubernetes-managed hosts file.\n\
         127.0.0.1\tlocalhost\n\
         ::1\tlocalhost ip6-localhost ip6-loopback\n\
         fe00::0\tip6-localnet\n\
         fe00::0\tip6-mcastprefix\n\
         fe00::1\tip6-allnodes\n\
         fe00::2\tip6-allrouters\n",
    );
    for ip in ips {
        if domain.is_empty() {
            out.push_str(&format!("{ip}\t{hostname}\n"));
        } else {
            out.push_str(&format!("{ip}\t{hostname}.{domain}\t{hostname}\n"));
        }
    }
    out + &alias_lines(aliases)
}

/// The file of a pod on the host's network: the host's own, plus aliases.
pub fn host_network_hosts(host_file: &str, aliases: &[HostAlias]) -> String {
    format!("# Kubernetes-managed hosts file (host network).\n{host_file}{}", alias_lines(aliases))
}

fn alias_lines(aliases: &[HostAlias]) -> String {
    if aliases.is_empty() {
        return String::new();
    }
    let mut out = String::from("\n# Entries added by HostAliases.\n");
    for alias in aliases {
        let names = alias.hostnames.as_deref().unwrap_or_default().join("\t");
        out.push_str(&format!("{}\t{names}\n", alias.ip));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubelet::pods::fixture;
    use serde_json::json;

    #[test]
    fn host_names_follow_the_spec() {
        let of = |spec| hostname(&fixture::pod(spec), "node-1", "cluster.local");
        assert_eq!(of(json!({"containers": []})), ("web".into(), String::new()));
        assert_eq!(of(json!({"containers": [], "hostNetwork": true})).0, "node-1");
        let full = json!({"containers": [], "hostname": "h", "subdomain": "s", "setHostnameAsFQDN": true});
        assert_eq!(of(full.clone()), ("h".into(), "s.default.svc.cluster.local".into()));
        let fqdn = sandbox_hostname(&fixture::pod(full), "node-1", "cluster.local");
        assert_eq!(fqdn, "h.s.default.svc.cluster.local");
    }

    #[test]
    fn long_names_are_cut_to_a_valid_one() {
        let mut pod = fixture::pod(json!({"containers": []}));
        pod.metadata.name = Some(format!("{}-tail", "a".repeat(62)));
        assert_eq!(hostname(&pod, "n", "d").0, "a".repeat(62));
    }

    #[test]
    fn the_file_names_the_pod_and_its_aliases() {
        let alias = HostAlias { ip: "1.2.3.4".into(), hostnames: Some(vec!["x".into(), "y".into()]) };
        let text = pod_hosts(&["10.42.0.5".into()], "h", "s.d", &[alias]);
        assert!(text.starts_with("# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n"));
        assert!(text.contains("10.42.0.5\th.s.d\th\n"));
        assert!(text.ends_with("\n# Entries added by HostAliases.\n1.2.3.4\tx\ty\n"));
        assert!(pod_hosts(&["10.42.0.5".into()], "h", "", &[]).ends_with("10.42.0.5\th\n"));
    }

    #[test]
    fn host_network_pods_see_the_hosts_file() {
        let text = host_network_hosts("127.0.0.1 localhost\n", &[]);
        assert_eq!(text, "# Kubernetes-managed hosts file (host network).\n127.0.0.1 localhost\n");
    }
}
