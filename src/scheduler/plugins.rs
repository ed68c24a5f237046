//! The plugins, a file each, and the set that is used.

pub mod image_locality;
pub mod inter_pod_affinity;
pub mod node_affinity;
pub mod node_name;
pub mod node_ports;
pub mod node_resources;
pub mod node_unschedulable;
pub mod node_volume_limits;
pub mod pod_topology_spread;
pub mod taint_toleration;
pub mod volume_binding;
pub mod volume_restrictions;
pub mod volume_zone;

use super::framework::{Filter, Score};

/// The plugins of a scheduler, in the order in which they are asked.
#[derive(Debug)]
pub struct Plugins {
    /// They exclude nodes; the first to reject a node decides.
    pub filters: Vec<Box<dyn Filter>>,
    /// They rank what is left.
    pub scores: Vec<Box<dyn Score>>,
}

impl Default for Plugins {
    fn default() -> Self {
        Self {
            filters: vec![
                Box::new(node_unschedulable::NodeUnschedulable),
                Box::new(node_name::NodeName),
                Box::new(taint_toleration::TaintToleration),
                Box::new(node_affinity::NodeAffinity),
                Box::new(node_ports::NodePorts),
                Box::new(node_resources::Fit),
                Box::new(volume_restrictions::VolumeRestrictions),
                Box::new(node_volume_limits::NodeVolumeLimits),
                Box::new(volume_binding::VolumeBinding),
                Box::new(volume_zone::VolumeZone),
                Box::new(pod_topology_spread::PodTopologySpread),
                Box::new(inter_pod_affinity::InterPodAffinity),
            ],
            scores: vec![
                Box::new(taint_toleration::TaintToleration),
                Box::new(node_affinity::NodeAffinity),
                Box::new(node_resources::Fit),
                Box::new(node_resources::BalancedAllocation),
                Box::new(pod_topology_spread::PodTopologySpread),
                Box::new(inter_pod_affinity::InterPodAffinity),
                Box::new(image_locality::ImageLocality),
            ],
        }
    }
}
