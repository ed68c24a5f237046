//! VolumeZone: a volume that is labelled with a zone or a region is used there.

use crate::client::volumes;
use crate::scheduler::cluster::NodeInfo;
use crate::scheduler::framework::{
    CLAIMS, Cycle, Events, Filter, NODE_ADDED, NODE_LABELS, NodeFilter, Outcome, Reason, STORAGE_CLASSES,
    VOLUMES,
};

/// The plugin.
#[derive(Debug)]
pub struct VolumeZone;

/// The labels that tell where a volume or a node is: the old names, and what they became.
const LABELS: [(&str, &str); 4] = [
    ("failure-domain.beta.kubernetes.io/zone", "topology.kubernetes.io/zone"),
    ("failure-domain.beta.kubernetes.io/region", "topology.kubernetes.io/region"),
    ("topology.kubernetes.io/zone", "topology.kubernetes.io/zone"),
    ("topology.kubernetes.io/region", "topology.kubernetes.io/region"),
];

impl Filter for VolumeZone {
    fn name(&self) -> &'static str {
        "VolumeZone"
    }

    fn events(&self) -> Events {
        NODE_ADDED | NODE_LABELS | CLAIMS | VOLUMES | STORAGE_CLASSES
    }

    fn veto(&self, cycle: Cycle<'_>) -> Option<String> {
        let storage = &cycle.cluster.storage;
        let named = cycle.pod.claims.iter().filter(|key| !cycle.pod.ephemeral_claims.contains(key));
        let mut names = named.filter_map(|key| volumes::volume_name(storage.claims.get(key)?));
        let gone = names.find(|name| !storage.volumes.contains_key(*name))?;
        Some(format!("persistentvolume {gone:?} not found"))
    }

    fn prepare<'a>(&self, cycle: Cycle<'a>) -> Option<Box<dyn NodeFilter + 'a>> {
        let storage = &cycle.cluster.storage;
        let named = cycle.pod.claims.iter().filter(|key| !cycle.pod.ephemeral_claims.contains(key));
        let names = named.filter_map(|key| volumes::volume_name(storage.claims.get(key)?));
        let labels = names.filter_map(|name| storage.volumes.get(name)?.metadata.labels.as_ref());
        let places = labels.flat_map(|labels| {
            let found = LABELS.iter().filter_map(|(key, now)| Some((*key, *now, labels.get(*key)?)));
            found.map(|(key, now, values)| Place {
                key,
                now,
                values: values.split("__").map(str::trim).collect(),
            })
        });
        let places: Vec<_> = places.collect();
        (!places.is_empty()).then(|| Box::new(Prepared(places)) as _)
    }
}

/// Where a volume is: a label of nodes and the values that will do.
struct Place<'a> {
    key: &'static str,
    now: &'static str,
    values: Vec<&'a str>,
}

struct Prepared<'a>(Vec<Place<'a>>);

impl NodeFilter for Prepared<'_> {
    fn check(&self, node: &NodeInfo, reasons: &mut Vec<Reason>) -> Outcome {
        if LABELS.iter().all(|(key, _)| node.label(key).is_none()) {
            return Outcome::Fits;
        }
        let is_elsewhere = self.0.iter().any(|place| {
            let value = node.label(place.key).or_else(|| node.label(place.now));
            value.is_none_or(|value| !place.values.contains(&value))
        });
        let reason = "node(s) had no available volume zone";
        Outcome::reject_if(is_elsewhere, Outcome::Unresolvable, reason, reasons)
    }
}
