//! The pod network of one node: the configuration that the runtime hands to the standard CNI plugins.
//!
//! The runtime calls the plugins; this room only decides what they are told. Masquerading is not left to them, because
//! only the `network` room knows which addresses belong to the cluster.

use std::io;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

/// Version of the CNI specification that plugins of every supported distribution understand.
const CNI_VERSION: &str = "0.4.0";
/// Name of the network, and so of the directory that remembers its addresses.
const NETWORK: &str = "kube-lite";
/// The bridge that all pods of a node are attached to.
pub const BRIDGE: &str = "cni0";
/// Name of our file; it sorts before what others may put there.
const FILE: &str = "10-kube-lite.conflist";

/// What the pod network of a node depends on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodNetwork {
    /// The node's ranges of pod addresses, such as `10.42.0.0/24`; at most one per protocol family.
    pub pod_cidrs: Vec<String>,
    /// Largest packet that the way to other nodes carries.
    pub mtu: u32,
    /// Directory that remembers which addresses are in use; gone after a reboot, as the pods are.
    pub state_dir: PathBuf,
}

/// The network configuration could not be written.
#[derive(Debug, thiserror::Error)]
#[error("write network configuration {}", path.display())]
pub struct CniError {
    /// The file.
    pub path: PathBuf,
    /// The operating system's reason.
    #[source]
    pub source: io::Error,
}

/// The configuration as the plugins take it.
pub fn render(network: &PodNetwork) -> Value {
    let ranges: Vec<_> = network.pod_cidrs.iter().map(|cidr| json!([{ "subnet": cidr }])).collect();
    let default = |cidr: &String| json!({ "dst": if cidr.contains(':') { "::/0" } else { "0.0.0.0/0" } });
    let routes: Vec<_> = network.pod_cidrs.iter().map(default).collect();
    json!({
        "cniVersion": CNI_VERSION,
        "name": NETWORK,
        "plugins": [
            {
                "type": "bridge",
                "bridge": BRIDGE,
                "isGateway": true,
                "hairpinMode": true,
                "forceAddress": true,
                "ipMasq": false,
                "mtu": network.mtu,
                "ipam": {
                    "type": "host-local",
                    "dataDir": network.state_dir,
                    "ranges": ranges,
                    "routes": routes,
                },
            },
            { "type": "portmap", "capabilities": { "portMappings": true }, "snat": true },
        ],
    })
}

/// Writes the configuration, at once and only when it is another than before. Whether it was.
pub fn write(directory: &Path, network: &PodNetwork) -> Result<bool, CniError> {
    let path = directory.join(FILE);
    let text = format!("{:#}\n", render(network));
    if std::fs::read_to_string(&path).is_ok_and(|current| current == text) {
        return Ok(false);
    }
    // The runtime reads every file whose name ends in .conflist, so a half-written one must be called otherwise.
    let temporary = directory.join(format!(".{FILE}.new"));
    std::fs::create_dir_all(directory)
        .and_then(|()| std::fs::write(&temporary, text))
        .and_then(|()| std::fs::rename(&temporary, &path))
        .map_err(|source| CniError { path, source })?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(cidrs: &[&str]) -> PodNetwork {
        PodNetwork {
            pod_cidrs: cidrs.iter().map(|cidr| (*cidr).to_owned()).collect(),
            mtu: 1450,
            state_dir: "/run/kube-lite/cni".into(),
        }
    }

    #[test]
    fn pods_are_bridged_get_addresses_of_the_node_and_can_reach_themselves() {
        let text = render(&network(&["10.42.3.0/24"]));
        let bridge = &text["plugins"][0];
        assert_eq!((&bridge["type"], &bridge["bridge"]), (&json!("bridge"), &json!("cni0")));
        assert_eq!(
            (&bridge["hairpinMode"], &bridge["ipMasq"], &bridge["mtu"]),
            (&json!(true), &json!(false), &json!(1450))
        );
        assert_eq!(bridge["ipam"]["ranges"], json!([[{ "subnet": "10.42.3.0/24" }]]));
        assert_eq!(text["plugins"][1]["type"], "portmap");
    }

    #[test]
    fn each_family_has_its_range_and_default_route() {
        let text = render(&network(&["10.42.3.0/24", "fd00:42::/64"]));
        let ipam = &text["plugins"][0]["ipam"];
        assert_eq!(ipam["ranges"].as_array().unwrap().len(), 2);
        assert_eq!(ipam["routes"], json!([{ "dst": "0.0.0.0/0" }, { "dst": "::/0" }]));
    }

    #[test]
    fn the_file_is_written_only_when_it_changes_and_leaves_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let conf = dir.path().join("net.d");
        assert!(write(&conf, &network(&["10.42.3.0/24"])).unwrap());
        assert!(!write(&conf, &network(&["10.42.3.0/24"])).unwrap());
        assert!(write(&conf, &network(&["10.42.4.0/24"])).unwrap());
        let files: Vec<_> =
            std::fs::read_dir(&conf).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(files, [FILE]);
        let blocked = write(&conf.join(FILE).join("x"), &network(&["10.42.3.0/24"])).unwrap_err();
        assert!(blocked.to_string().starts_with("write network configuration "));
    }
}
