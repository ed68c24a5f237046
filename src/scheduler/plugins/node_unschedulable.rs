//! NodeUnschedulable: cordoned nodes take only pods that tolerate it.

use super::taint_toleration::tolerates_key;
use crate::scheduler::cluster::NodeInfo;
use crate::scheduler::framework::{
    Cycle, Events, Filter, NODE_ADDED, NODE_TAINTS, NodeFilter, Outcome, Reason,
};

const TAINT: &str = "node.kubernetes.io/unschedulable";

/// The plugin.
#[derive(Debug)]
pub struct NodeUnschedulable;

impl Filter for NodeUnschedulable {
    fn name(&self) -> &'static str {
        "NodeUnschedulable"
    }

    fn events(&self) -> Events {
        NODE_ADDED | NODE_TAINTS
    }

    fn prepare<'a>(&self, cycle: Cycle<'a>) -> Option<Box<dyn NodeFilter + 'a>> {
        let tolerations = cycle.pod.spec().and_then(|spec| spec.tolerations.as_deref());
        let tolerated = tolerations.is_some_and(|all| tolerates_key(all, TAINT, "NoSchedule"));
        (!tolerated).then(|| Box::new(Cordoned) as _)
    }
}

struct Cordoned;

impl NodeFilter for Cordoned {
    fn check(&self, node: &NodeInfo, reasons: &mut Vec<Reason>) -> Outcome {
        let reason = "node(s) were unschedulable";
        Outcome::reject_if(node.is_unschedulable(), Outcome::Unresolvable, reason, reasons)
    }
}
