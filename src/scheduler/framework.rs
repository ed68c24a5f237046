//! The plugin interface: filters say where a pod may run, scorers where it should.
//!
//! A plugin is prepared once per pod and then asked about node after node. What it needs for that it computes while it is
//! prepared, so that asking about a node allocates nothing.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use super::cluster::{Cluster, NodeInfo};
use super::pod_info::PodInfo;

/// The best score that a scorer may give after normalization.
pub const MAX_SCORE: i64 = 100;

/// One attempt to schedule one pod.
#[derive(Debug, Clone, Copy)]
pub struct Cycle<'a> {
    /// The pod.
    pub pod: &'a PodInfo,
    /// The cluster as it is.
    pub cluster: &'a Cluster,
    /// Pods (by uid) that are imagined away, to find out whether preempting them helps.
    pub without: Option<&'a HashSet<Arc<str>>>,
}

impl<'a> Cycle<'a> {
    /// The pods on a node, without those imagined away.
    pub fn pods_on(&self, node: &'a NodeInfo) -> impl Iterator<Item = &'a Arc<PodInfo>> {
        let without = self.without;
        node.pods.iter().filter(move |pod| without.is_none_or(|gone| !gone.contains(&pod.uid)))
    }

    /// The nodes that exist.
    pub fn nodes(&self) -> impl Iterator<Item = &'a NodeInfo> + use<'a> {
        self.cluster.nodes().iter().filter(|node| node.node.is_some())
    }
}

/// Why a node is out of the question.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// A fixed text.
    Text(&'static str),
    /// Too little of this resource is free.
    Insufficient(Arc<str>),
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Insufficient(resource) => write!(f, "Insufficient {resource}"),
        }
    }
}

/// What a filter says about a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The pod may run there.
    Fits,
    /// It may not, but might if other pods went away.
    Rejected,
    /// It may not, whatever other pods do.
    Unresolvable,
}

impl Outcome {
    /// Passes a rejection with its reason on, or `Fits`.
    pub fn reject_if(condition: bool, self_: Self, reason: &'static str, reasons: &mut Vec<Reason>) -> Self {
        if !condition {
            return Self::Fits;
        }
        reasons.push(Reason::Text(reason));
        self_
    }
}

/// Changes of the cluster that may make room for a pod, as bits.
pub type Events = u32;
/// A node appeared.
pub const NODE_ADDED: Events = 1;
/// A node offers more.
pub const NODE_ALLOCATABLE: Events = 1 << 1;
/// A node's labels changed.
pub const NODE_LABELS: Events = 1 << 2;
/// A node's taints changed, or it was cordoned or uncordoned.
pub const NODE_TAINTS: Events = 1 << 3;
/// A pod was placed.
pub const POD_PLACED: Events = 1 << 4;
/// A placed pod changed.
pub const POD_UPDATED: Events = 1 << 5;
/// A placed pod is gone.
pub const POD_GONE: Events = 1 << 6;

/// A claim appeared or changed.
pub const CLAIMS: Events = 1 << 7;
/// A volume appeared or changed.
pub const VOLUMES: Events = 1 << 8;
/// A class of storage appeared or changed.
pub const STORAGE_CLASSES: Events = 1 << 9;
/// A driver of storage, what it does on a node, or its free space changed.
pub const STORAGE_DRIVERS: Events = 1 << 10;

/// A plugin that excludes nodes.
pub trait Filter: fmt::Debug + Send + Sync {
    /// Its name, as upstream calls it.
    fn name(&self) -> &'static str;
    /// The changes after which a pod that it rejected may fit.
    fn events(&self) -> Events;
    /// Why no node at all will do for the pod, in upstream's words, before any of them is looked at.
    fn veto(&self, cycle: Cycle<'_>) -> Option<String> {
        let _ = cycle;
        None
    }
    /// Looks at the pod; `None` if it has nothing to say about it.
    fn prepare<'a>(&self, cycle: Cycle<'a>) -> Option<Box<dyn NodeFilter + 'a>>;
}

/// A filter prepared for one pod.
pub trait NodeFilter {
    /// Judges one node; adds the reasons of a rejection to `reasons`.
    fn check(&self, node: &NodeInfo, reasons: &mut Vec<Reason>) -> Outcome;
}

/// A plugin that ranks nodes.
pub trait Score: fmt::Debug + Send + Sync {
    /// Its name, as upstream calls it.
    fn name(&self) -> &'static str;
    /// What its scores are multiplied with.
    fn weight(&self) -> i64;
    /// Looks at the pod and the nodes that it may run on; `None` if they are all the same to it.
    fn prepare<'a>(&self, cycle: Cycle<'a>, feasible: &[&'a NodeInfo]) -> Option<Box<dyn NodeScorer + 'a>>;
}

/// A scorer prepared for one pod.
pub trait NodeScorer {
    /// The raw score of one feasible node.
    fn score(&self, node: &NodeInfo) -> i64;
    /// Brings the raw scores of all feasible nodes between 0 and [`MAX_SCORE`]. `nodes` and `scores` have equal length.
    fn normalize(&self, nodes: &[&NodeInfo], scores: &mut [i64]) {
        let (_, _) = (nodes, scores);
    }
}

/// Scales scores so that the highest becomes [`MAX_SCORE`]; with `reverse`, the lowest raw score becomes the best.
pub fn scale_to_max(scores: &mut [i64], reverse: bool) {
    let max = scores.iter().copied().max().unwrap_or(0);
    for score in scores {
        let scaled = if max == 0 { 0 } else { *score * MAX_SCORE / max };
        *score = if reverse { MAX_SCORE - scaled } else { scaled };
    }
}
