//! NodeName: a pod that names its node runs there or nowhere.

use crate::scheduler::cluster::NodeInfo;
use crate::scheduler::framework::{Cycle, Events, Filter, NODE_ADDED, NodeFilter, Outcome, Reason};

/// The plugin.
#[derive(Debug)]
pub struct NodeName;

impl Filter for NodeName {
    fn name(&self) -> &'static str {
        "NodeName"
    }

    fn events(&self) -> Events {
        NODE_ADDED
    }

    fn prepare<'a>(&self, cycle: Cycle<'a>) -> Option<Box<dyn NodeFilter + 'a>> {
        cycle.pod.node_name().map(|name| Box::new(Named(name)) as _)
    }
}

struct Named<'a>(&'a str);

impl NodeFilter for Named<'_> {
    fn check(&self, node: &NodeInfo, reasons: &mut Vec<Reason>) -> Outcome {
        let reason = "node(s) didn't match the requested node name";
        Outcome::reject_if(node.name.as_ref() != self.0, Outcome::Unresolvable, reason, reasons)
    }
}
