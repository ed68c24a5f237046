//! VolumeBinding: bound claims must be in reach of the node, and unbound ones must get a volume there.

use crate::scheduler::cluster::NodeInfo;
use crate::scheduler::framework::{
    CLAIMS, Cycle, Events, Filter, NODE_ADDED, NODE_LABELS, NodeFilter, Outcome, Reason, STORAGE_CLASSES,
    STORAGE_DRIVERS, VOLUMES,
};
use crate::scheduler::storage::{Need, Storage};

/// The plugin.
#[derive(Debug)]
pub struct VolumeBinding;

impl Filter for VolumeBinding {
    fn name(&self) -> &'static str {
        "VolumeBinding"
    }

    fn events(&self) -> Events {
        NODE_ADDED | NODE_LABELS | CLAIMS | VOLUMES | STORAGE_CLASSES | STORAGE_DRIVERS
    }

    fn veto(&self, cycle: Cycle<'_>) -> Option<String> {
        cycle.cluster.storage.needs(cycle.pod).err()
    }

    fn prepare<'a>(&self, cycle: Cycle<'a>) -> Option<Box<dyn NodeFilter + 'a>> {
        let storage = &cycle.cluster.storage;
        let needs = storage.needs(cycle.pod).ok()?;
        (!needs.is_empty()).then(|| Box::new(Prepared { storage, needs }) as _)
    }
}

struct Prepared<'a> {
    storage: &'a Storage,
    needs: Vec<Need<'a>>,
}

impl NodeFilter for Prepared<'_> {
    fn check(&self, node: &NodeInfo, reasons: &mut Vec<Reason>) -> Outcome {
        match self.storage.plan(&self.needs, node) {
            Ok(_) => Outcome::Fits,
            Err(why) => {
                reasons.extend(why.into_iter().map(Reason::Text));
                Outcome::Unresolvable
            }
        }
    }
}
