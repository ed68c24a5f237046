//! NodeVolumeLimits: a node takes only so many volumes of a CSI driver.

use std::collections::{BTreeMap, BTreeSet};

use crate::client::{Key, volumes};
use crate::scheduler::cluster::NodeInfo;
use crate::scheduler::framework::{
    CLAIMS, Cycle, Events, Filter, NODE_ADDED, NodeFilter, Outcome, POD_GONE, Reason, STORAGE_DRIVERS,
};
use crate::scheduler::storage::Storage;

/// The plugin.
#[derive(Debug)]
pub struct NodeVolumeLimits;

impl Filter for NodeVolumeLimits {
    fn name(&self) -> &'static str {
        "NodeVolumeLimits"
    }

    fn events(&self) -> Events {
        NODE_ADDED | POD_GONE | CLAIMS | STORAGE_DRIVERS
    }

    fn prepare<'a>(&self, cycle: Cycle<'a>) -> Option<Box<dyn NodeFilter + 'a>> {
        let storage = &cycle.cluster.storage;
        if storage.csi_nodes.is_empty() {
            return None;
        }
        let wanted: BTreeSet<_> =
            cycle.pod.claims.iter().filter_map(|claim| attachment(storage, claim)).collect();
        (!wanted.is_empty()).then(|| Box::new(Prepared { storage, wanted }) as _)
    }
}

struct Prepared<'a> {
    storage: &'a Storage,
    wanted: BTreeSet<Attachment>,
}

impl NodeFilter for Prepared<'_> {
    fn check(&self, node: &NodeInfo, reasons: &mut Vec<Reason>) -> Outcome {
        let Some(csi) = self.storage.csi_nodes.get(node.name.as_ref()) else { return Outcome::Fits };
        let count = |driver: &str| {
            let known = csi.spec.drivers.iter().find(|known| known.name == driver)?;
            usize::try_from(known.allocatable.as_ref()?.count?).ok()
        };
        let drivers = self.wanted.iter().map(|volume| volume.driver.as_str());
        let limits: BTreeMap<_, _> = drivers.filter_map(|driver| Some((driver, count(driver)?))).collect();
        if limits.is_empty() {
            return Outcome::Fits;
        }
        let claims = node.pods.iter().flat_map(|pod| &pod.claims);
        let mut all: BTreeSet<_> = claims.filter_map(|claim| attachment(self.storage, claim)).collect();
        let before = all.len();
        all.extend(self.wanted.iter().cloned());
        let is_over = |(driver, limit): (&&str, &usize)| {
            all.iter().filter(|volume| volume.driver == **driver).count() > *limit
        };
        let too_many = all.len() > before && limits.iter().any(is_over);
        Outcome::reject_if(too_many, Outcome::Rejected, "node(s) exceed max volume count", reasons)
    }
}

/// A volume as its driver counts it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Attachment {
    driver: String,
    /// The driver's name of it; the claim's key while it has none.
    volume: String,
}

/// What a claim takes of its driver; `None` if no CSI driver is concerned.
fn attachment(storage: &Storage, key: &Key) -> Option<Attachment> {
    let claim = storage.claims.get(key)?;
    let volume = volumes::volume_name(claim).and_then(|name| storage.volumes.get(name));
    if let Some(volume) = volume {
        let csi = volume.spec.as_ref()?.csi.as_ref()?;
        return Some(Attachment { driver: csi.driver.clone(), volume: csi.volume_handle.clone() });
    }
    let class = storage.classes.get(volumes::class_of_claim(claim))?;
    Some(Attachment { driver: class.provisioner.clone(), volume: key.to_string() })
}
