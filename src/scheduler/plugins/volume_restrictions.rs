//! VolumeRestrictions: what only one pod, or only one node, may use at a time.

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, Volume};

use crate::scheduler::cluster::NodeInfo;
use crate::scheduler::framework::{
    CLAIMS, Cycle, Events, Filter, NODE_ADDED, NodeFilter, Outcome, POD_GONE, Reason,
};

/// The plugin.
#[derive(Debug)]
pub struct VolumeRestrictions;

impl Filter for VolumeRestrictions {
    fn name(&self) -> &'static str {
        "VolumeRestrictions"
    }

    fn events(&self) -> Events {
        NODE_ADDED | POD_GONE | CLAIMS
    }

    fn prepare<'a>(&self, cycle: Cycle<'a>) -> Option<Box<dyn NodeFilter + 'a>> {
        let storage = &cycle.cluster.storage;
        let lonely: Vec<_> = cycle
            .pod
            .claims
            .iter()
            .filter(|key| storage.claims.get(*key).is_some_and(|claim| is_for_one_pod(claim)))
            .collect();
        let claim_in_use = !lonely.is_empty()
            && cycle.cluster.nodes().iter().any(|node| {
                cycle.pods_on(node).any(|pod| lonely.iter().any(|claim| pod.claims.contains(claim)))
            });
        let disks: Vec<_> = disks_of(&cycle.pod.pod).collect();
        let has_limits = claim_in_use || !disks.is_empty();
        has_limits.then(|| Box::new(Prepared { claim_in_use, disks }) as _)
    }
}

struct Prepared<'a> {
    claim_in_use: bool,
    disks: Vec<Disk<'a>>,
}

impl NodeFilter for Prepared<'_> {
    fn check(&self, node: &NodeInfo, reasons: &mut Vec<Reason>) -> Outcome {
        let mut used = node.pods.iter().flat_map(|pod| disks_of(&pod.pod));
        let disk_in_use =
            !self.disks.is_empty() && used.any(|other| self.disks.iter().any(|disk| disk.conflicts(&other)));
        let reason = "node(s) had no available disk";
        if Outcome::reject_if(disk_in_use, Outcome::Rejected, reason, reasons) == Outcome::Rejected {
            return Outcome::Rejected;
        }
        let reason =
            "node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod access mode";
        Outcome::reject_if(self.claim_in_use, Outcome::Rejected, reason, reasons)
    }
}

fn is_for_one_pod(claim: &PersistentVolumeClaim) -> bool {
    let modes = claim.spec.as_ref().and_then(|spec| spec.access_modes.as_deref());
    modes.unwrap_or_default().iter().any(|mode| mode == "ReadWriteOncePod")
}

/// A disk that a pod names itself, and whether it only reads.
#[derive(Debug, PartialEq)]
enum Disk<'a> {
    Gce { name: &'a str, reads: bool },
    Aws { id: &'a str },
    Iscsi { target: &'a str, reads: bool },
    Rbd { monitors: &'a [String], pool: &'a str, image: &'a str, reads: bool },
}

impl Disk<'_> {
    /// The two pods cannot be on one node.
    fn conflicts(&self, other: &Self) -> bool {
        match (self, other) {
            (Disk::Gce { name: a, reads: x }, Disk::Gce { name: b, reads: y })
            | (Disk::Iscsi { target: a, reads: x }, Disk::Iscsi { target: b, reads: y }) => {
                a == b && !(*x && *y)
            }
            (Disk::Aws { id: a }, Disk::Aws { id: b }) => a == b,
            (
                Disk::Rbd { monitors, pool, image, reads },
                Disk::Rbd { monitors: others, pool: other_pool, image: other_image, reads: other_reads },
            ) => {
                monitors.iter().any(|monitor| others.contains(monitor))
                    && (pool, image) == (other_pool, other_image)
                    && !(*reads && *other_reads)
            }
            _ => false,
        }
    }
}

fn disks_of(pod: &Pod) -> impl Iterator<Item = Disk<'_>> {
    pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten()).filter_map(disk_of)
}

fn disk_of(volume: &Volume) -> Option<Disk<'_>> {
    let reads = |flag: Option<bool>| flag.unwrap_or(false);
    if let Some(disk) = &volume.gce_persistent_disk {
        return Some(Disk::Gce { name: &disk.pd_name, reads: reads(disk.read_only) });
    }
    if let Some(disk) = &volume.aws_elastic_block_store {
        return Some(Disk::Aws { id: &disk.volume_id });
    }
    if let Some(disk) = &volume.iscsi {
        return Some(Disk::Iscsi { target: &disk.iqn, reads: reads(disk.read_only) });
    }
    let disk = volume.rbd.as_ref()?;
    let pool = disk.pool.as_deref().unwrap_or("rbd");
    Some(Disk::Rbd { monitors: &disk.monitors, pool, image: &disk.image, reads: reads(disk.read_only) })
}
