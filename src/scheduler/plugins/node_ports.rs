//! NodePorts: host ports must be free.

use crate::scheduler::cluster::NodeInfo;
use crate::scheduler::framework::{Cycle, Events, Filter, NODE_ADDED, NodeFilter, Outcome, POD_GONE, Reason};
use crate::scheduler::pod_info::HostPort;

/// The plugin.
#[derive(Debug)]
pub struct NodePorts;

impl Filter for NodePorts {
    fn name(&self) -> &'static str {
        "NodePorts"
    }

    fn events(&self) -> Events {
        NODE_ADDED | POD_GONE
    }

    fn prepare<'a>(&self, cycle: Cycle<'a>) -> Option<Box<dyn NodeFilter + 'a>> {
        (!cycle.pod.ports.is_empty()).then(|| Box::new(Wanted(&cycle.pod.ports)) as _)
    }
}

struct Wanted<'a>(&'a [HostPort]);

impl NodeFilter for Wanted<'_> {
    fn check(&self, node: &NodeInfo, reasons: &mut Vec<Reason>) -> Outcome {
        let taken = self.0.iter().any(|port| node.ports.iter().any(|used| used.conflicts(port)));
        let reason = "node(s) didn't have free ports for the requested pod ports";
        Outcome::reject_if(taken, Outcome::Rejected, reason, reasons)
    }
}
