//! What a Node says about its machine.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    DaemonEndpoint, Node, NodeAddress, NodeDaemonEndpoints, NodeFeatures, NodeRuntimeHandler,
    NodeRuntimeHandlerFeatures, NodeSpec, NodeStatus, NodeSystemInfo,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::conditions::MEMORY_LEAST;
use crate::cri::v1;
use crate::host::machine::MachineInfo;
use crate::kubelet::config::KubeletConfig;
use crate::kubelet::containers::resources::{milli, page_suffix, units};
use crate::kubelet::devices::Counts;
use crate::telemetry::version;

/// What does not change while the kubelet runs.
#[derive(Clone, Debug)]
pub struct Machine {
    /// The machine.
    pub info: MachineInfo,
    /// Bytes of the file system that pods live on.
    pub disk: u64,
    /// The runtime.
    pub runtime: v1::VersionResponse,
}

/// Resources of the whole machine.
pub fn capacity(machine: &Machine, config: &KubeletConfig) -> BTreeMap<String, Quantity> {
    let processors = u32::try_from(machine.info.processors).unwrap_or(u32::MAX);
    let per_core = Some(config.pods_per_core.saturating_mul(processors)).filter(|most| *most > 0);
    let pods = per_core.map_or(config.max_pods, |most| most.min(config.max_pods));
    let fixed = [
        ("cpu", machine.info.processors.to_string()),
        ("memory", format!("{}Ki", machine.info.memory / 1024)),
        ("ephemeral-storage", format!("{}Ki", machine.disk / 1024)),
        ("pods", pods.to_string()),
    ];
    let huge = machine.info.huge_pages.iter().map(|(size, count)| {
        (format!("hugepages-{}", page_suffix(*size)), Quantity(in_units(size.saturating_mul(*count))))
    });
    fixed.into_iter().map(|(name, amount)| (name.to_owned(), Quantity(amount))).chain(huge).collect()
}

/// Bytes as a quantity, in the largest unit without a rest.
fn in_units(bytes: u64) -> String {
    match [(1u64 << 30, "Gi"), (1 << 20, "Mi"), (1 << 10, "Ki")]
        .iter()
        .find(|(unit, _)| bytes.is_multiple_of(*unit))
    {
        Some((unit, name)) if bytes > 0 => format!("{}{name}", bytes / unit),
        _ => bytes.to_string(),
    }
}

/// What pods may ask for: capacity without what is reserved and what must stay free.
pub fn allocatable(
    capacity: &BTreeMap<String, Quantity>,
    config: &KubeletConfig,
) -> BTreeMap<String, Quantity> {
    let reserved = |name: &str| config.reserved.get(name).map(|q| Quantity(q.clone()));
    capacity
        .iter()
        .map(|(name, amount)| {
            let left = match name.as_str() {
                "cpu" => {
                    let left = milli(amount) - reserved(name).as_ref().map_or(0, milli);
                    if left % 1000 == 0 { (left / 1000).to_string() } else { format!("{left}m") }
                }
                "memory" => {
                    let free = i64::try_from(MEMORY_LEAST).unwrap_or(0);
                    // Memory in huge pages is no other memory any more.
                    let huge = capacity.iter().filter(|(name, _)| name.starts_with("hugepages-"));
                    let huge: i64 = huge.map(|(_, amount)| units(amount)).sum();
                    let left = units(amount) - huge - free - reserved(name).as_ref().map_or(0, units);
                    format!("{}Ki", left.max(0) / 1024)
                }
                "ephemeral-storage" => {
                    let left = units(amount) / 10 * 9 - reserved(name).as_ref().map_or(0, units);
                    left.max(0).to_string()
                }
                huge if huge.starts_with("hugepages-") => {
                    let left = units(amount) - reserved(name).as_ref().map_or(0, units);
                    in_units(u64::try_from(left).unwrap_or(0))
                }
                _ => amount.0.clone(),
            };
            (name.clone(), Quantity(left))
        })
        .collect()
}

/// Addresses in the order in which clients try them.
pub fn addresses(config: &KubeletConfig) -> Vec<NodeAddress> {
    let address = |type_: &str, address: String| NodeAddress { type_: type_.to_owned(), address };
    let internal = config.node_ips.iter().map(|ip| address("InternalIP", ip.to_string()));
    let external = config.node_external_ips.iter().map(|ip| address("ExternalIP", ip.to_string()));
    internal.chain(external).chain([address("Hostname", config.hostname.clone())]).collect()
}

/// Labels that every node has, and the configured ones.
pub fn labels(config: &KubeletConfig) -> BTreeMap<String, String> {
    let arch = version::architecture();
    let mut out: BTreeMap<String, String> = [
        ("beta.kubernetes.io/arch", arch),
        ("beta.kubernetes.io/os", "linux"),
        ("kubernetes.io/arch", arch),
        ("kubernetes.io/hostname", &config.hostname),
        ("kubernetes.io/os", "linux"),
        ("node.kubernetes.io/instance-type", "kube-lite"),
    ]
    .into_iter()
    .map(|(k, v)| (k.to_owned(), v.to_owned()))
    .collect();
    out.extend(config.labels.clone());
    out
}

fn node_info(machine: &Machine) -> NodeSystemInfo {
    let info = &machine.info;
    let runtime = &machine.runtime;
    NodeSystemInfo {
        architecture: version::architecture().to_owned(),
        boot_id: info.boot_id.clone(),
        container_runtime_version: format!("{}://{}", runtime.runtime_name, runtime.runtime_version),
        kernel_version: info.kernel_version.clone(),
        kube_proxy_version: String::new(),
        kubelet_version: version::git_version(),
        machine_id: info.machine_id.clone(),
        operating_system: "linux".to_owned(),
        os_image: info.os_image.clone(),
        system_uuid: info.system_uuid.clone(),
        ..NodeSystemInfo::default()
    }
}

/// What the runtime's handlers can do, when it says so.
pub fn handlers(handlers: &[v1::RuntimeHandler]) -> Option<Vec<NodeRuntimeHandler>> {
    let shown = |handler: &v1::RuntimeHandler| NodeRuntimeHandler {
        name: Some(handler.name.clone()),
        features: handler.features.as_ref().map(|can| NodeRuntimeHandlerFeatures {
            recursive_read_only_mounts: Some(can.recursive_read_only_mounts),
            user_namespaces: Some(can.user_namespaces),
        }),
    };
    (!handlers.is_empty()).then(|| handlers.iter().map(shown).collect())
}

/// What the runtime can do, when it says so.
pub fn features(features: Option<&v1::RuntimeFeatures>) -> Option<NodeFeatures> {
    features.map(|can| NodeFeatures { supplemental_groups_policy: Some(can.supplemental_groups_policy) })
}

/// The status without conditions and images, which change.
pub fn status(machine: &Machine, config: &KubeletConfig, port: u16, devices: &Counts) -> NodeStatus {
    let mut capacity = capacity(machine, config);
    let mut allocatable = allocatable(&capacity, config);
    for (name, (all, working)) in devices {
        capacity.insert(name.clone(), Quantity(all.to_string()));
        allocatable.insert(name.clone(), Quantity(working.to_string()));
    }
    NodeStatus {
        addresses: Some(addresses(config)),
        allocatable: Some(allocatable),
        capacity: Some(capacity),
        daemon_endpoints: Some(NodeDaemonEndpoints {
            kubelet_endpoint: Some(DaemonEndpoint { port: i32::from(port) }),
        }),
        node_info: Some(node_info(machine)),
        ..NodeStatus::default()
    }
}

/// Keeps what others have added to the capacity of the node: pods may ask for all of it.
///
/// As upstream's kubelet, which sets the resources that it knows and leaves the others alone. Huge pages of a size that
/// the machine no longer has are nobody else's.
pub fn keep_added(had: Option<&NodeStatus>, status: &mut NodeStatus) {
    let added = had.and_then(|had| had.capacity.as_ref()).into_iter().flatten();
    let (Some(capacity), Some(allocatable)) = (&mut status.capacity, &mut status.allocatable) else { return };
    for (name, amount) in added {
        if !capacity.contains_key(name) && !name.starts_with("hugepages-") {
            capacity.insert(name.clone(), amount.clone());
            allocatable.insert(name.clone(), amount.clone());
        }
    }
}

/// The object that is created when the API has none.
pub fn node(config: &KubeletConfig, status: NodeStatus) -> Node {
    let mut node = Node::default();
    node.metadata.name = Some(config.node_name.clone());
    node.metadata.labels = Some(labels(config));
    node.metadata.annotations = Some(
        [("volumes.kubernetes.io/controller-managed-attach-detach".to_owned(), "true".to_owned())].into(),
    );
    node.spec = Some(NodeSpec {
        provider_id: config.provider_id.clone(),
        taints: (!config.taints.is_empty()).then(|| config.taints.clone()),
        ..NodeSpec::default()
    });
    node.status = Some(status);
    node
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubelet::pods::fixture;

    fn machine() -> Machine {
        let info = MachineInfo {
            hostname: "n1".into(),
            kernel_version: "6.1".into(),
            os_image: "Debian".into(),
            architecture: "x86_64".into(),
            machine_id: "m".into(),
            system_uuid: "s".into(),
            boot_id: "b".into(),
            processors: 2,
            memory: 4 << 30,
            swap: 0,
            huge_pages: vec![(2 << 20, 512), (1 << 30, 0)],
        };
        let runtime = v1::VersionResponse {
            runtime_name: "containerd".into(),
            runtime_version: "1.6.20".into(),
            ..v1::VersionResponse::default()
        };
        Machine { info, disk: 10 << 30, runtime }
    }

    #[test]
    fn allocatable_is_capacity_less_reserve() {
        let mut config = fixture::config();
        config.reserved =
            [("cpu".to_owned(), "250m".to_owned()), ("memory".to_owned(), "1Gi".to_owned())].into();
        let capacity = capacity(&machine(), &config);
        assert_eq!((capacity["cpu"].0.as_str(), capacity["memory"].0.as_str()), ("2", "4194304Ki"));
        let got = allocatable(&capacity, &config);
        assert_eq!((got["cpu"].0.as_str(), got["pods"].0.as_str()), ("1750m", "110"));
        let huge = (capacity["hugepages-2Mi"].0.as_str(), capacity["hugepages-1Gi"].0.as_str());
        assert_eq!(huge, ("1Gi", "0"));
        assert_eq!(
            got["memory"].0,
            format!("{}Ki", (2 * 1024 - 100) * 1024),
            "huge pages are no other memory"
        );
        config.pods_per_core = 20;
        assert_eq!(super::capacity(&machine(), &config)["pods"].0, "40");
        assert_eq!(allocatable(&capacity, &fixture::config())["cpu"].0, "2");
    }

    #[test]
    fn devices_that_work_may_be_asked_for() {
        let devices = [("test.dev/thing".to_owned(), (3, 2))].into();
        let status = status(&machine(), &fixture::config(), 10250, &devices);
        let amount = |list: Option<BTreeMap<String, Quantity>>| list.unwrap()["test.dev/thing"].0.clone();
        assert_eq!((amount(status.capacity), amount(status.allocatable)), ("3".to_owned(), "2".to_owned()));
    }

    #[test]
    fn what_others_added_to_the_capacity_may_be_asked_for() {
        let of = |capacity: &[(&str, &str)]| {
            let list = capacity.iter().map(|(k, v)| ((*k).to_owned(), Quantity((*v).to_owned())));
            NodeStatus { capacity: Some(list.collect()), ..NodeStatus::default() }
        };
        let had = of(&[
            ("example.com/fakecpu", "1k"),
            ("test.dev/thing", "9"),
            ("hugepages-64Ki", "1"),
            ("cpu", "99"),
        ]);
        let devices = [("test.dev/thing".to_owned(), (3, 2))].into();
        let mut status = status(&machine(), &fixture::config(), 10250, &devices);
        keep_added(Some(&had), &mut status);
        let (capacity, allocatable) = (status.capacity.unwrap(), status.allocatable.unwrap());
        assert_eq!(
            (&*capacity["example.com/fakecpu"].0, &*allocatable["example.com/fakecpu"].0),
            ("1k", "1k")
        );
        assert_eq!((&*capacity["test.dev/thing"].0, &*allocatable["test.dev/thing"].0), ("3", "2"));
        assert_eq!((&*capacity["cpu"].0, capacity.contains_key("hugepages-64Ki")), ("2", false));
    }

    #[test]
    fn a_node_carries_labels_taints_and_addresses() {
        let mut config = fixture::config();
        config.labels = [("zone".to_owned(), "a".to_owned())].into();
        let node = node(&config, status(&machine(), &config, 10250, &Counts::new()));
        let labels = node.metadata.labels.unwrap();
        assert_eq!((labels["kubernetes.io/hostname"].as_str(), labels["zone"].as_str()), ("n1", "a"));
        let status = node.status.unwrap();
        assert_eq!(status.node_info.unwrap().container_runtime_version, "containerd://1.6.20");
        let addresses: Vec<String> = status.addresses.unwrap().into_iter().map(|a| a.type_).collect();
        assert_eq!(addresses, ["InternalIP", "Hostname"]);
    }
}
