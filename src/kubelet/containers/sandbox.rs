//! The CRI configuration of a pod's sandbox.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Pod;

use super::qos::qos_class;
use super::{hosts, security};
use crate::cri::v1;
use crate::host::cgroups::{CgroupPath, Driver};
use crate::kubelet::config::{CgroupDriver, KubeletConfig};
use crate::kubelet::{labels, spec};

/// The configuration of the pod's sandbox number `attempt`.
pub fn sandbox_config(
    pod: &Pod,
    attempt: u32,
    config: &KubeletConfig,
    dns: v1::DnsConfig,
    first_user: Option<u32>,
) -> v1::PodSandboxConfig {
    let (namespace, name, uid) = (spec::namespace(pod), spec::name(pod), spec::uid(pod));
    let log_directory = config.pod_log_dir(namespace, name, uid).display().to_string();
    v1::PodSandboxConfig {
        metadata: Some(v1::PodSandboxMetadata {
            name: name.to_owned(),
            uid: uid.to_owned(),
            namespace: namespace.to_owned(),
            attempt,
        }),
        // A pod on the host's network has the host's name; runtimes refuse to set another one there.
        hostname: match spec::host_network(pod) {
            true => String::new(),
            false => hosts::sandbox_hostname(pod, &config.hostname, &config.cluster_domain),
        },
        log_directory,
        dns_config: Some(dns),
        port_mappings: port_mappings(pod),
        labels: sandbox_labels(pod).into_iter().collect(),
        annotations: pod.metadata.annotations.clone().unwrap_or_default().into_iter().collect(),
        linux: Some(v1::LinuxPodSandboxConfig {
            cgroup_parent: cgroup_parent(pod, config).unwrap_or_default(),
            security_context: Some(security::sandbox_context(
                pod,
                security::namespaces(pod, first_user),
                &config.root_dir.join("seccomp"),
            )),
            sysctls: sysctls(pod).into_iter().collect(),
            ..v1::LinuxPodSandboxConfig::default()
        }),
    }
}

fn sandbox_labels(pod: &Pod) -> BTreeMap<String, String> {
    let mut out = pod.metadata.labels.clone().unwrap_or_default();
    out.insert(labels::POD_NAME.to_owned(), spec::name(pod).to_owned());
    out.insert(labels::POD_NAMESPACE.to_owned(), spec::namespace(pod).to_owned());
    out.insert(labels::POD_UID.to_owned(), spec::uid(pod).to_owned());
    out
}

/// The control group that holds the pod, in the words of the driver.
pub fn cgroup_parent(pod: &Pod, config: &KubeletConfig) -> Option<String> {
    let path = cgroup_path(pod, config)?;
    Some(match config.cgroup_driver {
        CgroupDriver::Cgroupfs => path.directory(Driver::Cgroupfs),
        CgroupDriver::Systemd => path.slice(),
    })
}

/// The pod's group, when the kubelet manages groups.
pub fn cgroup_path(pod: &Pod, config: &KubeletConfig) -> Option<CgroupPath> {
    let all = CgroupPath::parse(config.cgroup_root.as_deref()?).child("kubepods");
    let parent = qos_class(pod).cgroup().map_or_else(|| all.clone(), |class| all.child(class));
    Some(parent.child(&format!("pod{}", spec::uid(pod))))
}

fn sysctls(pod: &Pod) -> BTreeMap<String, String> {
    let context = spec::pod_spec(pod).security_context.as_ref();
    let list = context.into_iter().flat_map(|c| c.sysctls.iter().flatten());
    list.map(|s| (s.name.replace('/', "."), s.value.clone())).collect()
}

fn port_mappings(pod: &Pod) -> Vec<v1::PortMapping> {
    if spec::host_network(pod) {
        return Vec::new();
    }
    let containers = spec::init_containers(pod).iter().chain(spec::main_containers(pod));
    containers
        .flat_map(|c| c.ports.iter().flatten())
        .filter_map(|port| {
            let host_port = port.host_port.filter(|p| *p > 0)?;
            let protocol = match port.protocol.as_deref() {
                Some("UDP") => v1::Protocol::Udp,
                Some("SCTP") => v1::Protocol::Sctp,
                _ => v1::Protocol::Tcp,
            };
            Some(v1::PortMapping {
                protocol: protocol.into(),
                container_port: port.container_port,
                host_port,
                host_ip: port.host_ip.clone().unwrap_or_default(),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubelet::pods::fixture;
    use serde_json::json;

    #[test]
    fn a_sandbox_carries_identity_ports_and_sysctls() {
        let mut pod = fixture::pod(json!({
            "securityContext": {"sysctls": [{"name": "net/ipv4/ip_forward", "value": "1"}]},
            "containers": [{"name": "a", "ports": [
                {"containerPort": 80, "hostPort": 8080}, {"containerPort": 53, "protocol": "UDP"}]}]}));
        pod.metadata.labels = Some([("app".into(), "x".into())].into());
        let config = fixture::config();
        let got = sandbox_config(&pod, 2, &config, v1::DnsConfig::default(), None);
        let metadata = got.metadata.unwrap();
        assert_eq!((metadata.name.as_str(), metadata.attempt), ("web", 2));
        assert_eq!(got.labels["app"], "x");
        assert_eq!(got.labels[labels::POD_UID], "u1");
        assert_eq!(got.log_directory, "/logs/default_web_u1");
        assert_eq!(got.port_mappings.len(), 1);
        assert_eq!((got.port_mappings[0].host_port, got.port_mappings[0].container_port), (8080, 80));
        assert_eq!(got.linux.unwrap().sysctls["net.ipv4.ip_forward"], "1");
    }

    #[test]
    fn a_host_name_is_set_where_the_pod_has_one_of_its_own() {
        let of =
            |spec| sandbox_config(&fixture::pod(spec), 0, &fixture::config(), v1::DnsConfig::default(), None);
        assert_eq!(of(json!({"containers": []})).hostname, "web");
        assert_eq!(of(json!({"containers": [], "hostNetwork": true})).hostname, "");
    }

    #[test]
    fn control_groups_follow_driver_and_class() {
        let mut config = fixture::config();
        let mut pod = fixture::pod(json!({"containers": [{"name": "a"}]}));
        pod.metadata.uid = Some("a-b".into());
        assert_eq!(cgroup_parent(&pod, &config), None);
        config.cgroup_root = Some("/".into());
        assert_eq!(cgroup_parent(&pod, &config).as_deref(), Some("/kubepods/besteffort/poda-b"));
        config.cgroup_driver = CgroupDriver::Systemd;
        assert_eq!(cgroup_parent(&pod, &config).as_deref(), Some("kubepods-besteffort-poda_b.slice"));
    }
}
