//! What the scheduler knows about storage, and what the claims of a pod need on a node. Pure.
//!
//! A claim of a class that waits for its first consumer is matched with a volume, or promised to be provisioned, together
//! with the choice of the node. Until the API shows the outcome, volumes and claims so promised are kept for their pod.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::{CSIDriver, CSINode, CSIStorageCapacity, StorageClass};

use super::cluster::NodeInfo;
use super::pod_info::PodInfo;
use crate::api::quantity::Quantity;
use crate::api::selector::LabelSelector;
use crate::client::{Key, volumes};

/// A bound claim's volume cannot be reached from the node.
pub const NODE_CONFLICT: &str = "node(s) didn't match PersistentVolume's node affinity";
/// There is no volume for an unbound claim, and none can be made there.
pub const BIND_CONFLICT: &str = "node(s) didn't find available persistent volumes to bind";
/// The driver has too little space there.
pub const NO_SPACE: &str = "node(s) did not have enough free storage";
/// A bound claim's volume is gone.
pub const NO_VOLUME: &str = "node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)";

/// The objects of storage, each by its key or name.
#[derive(Debug, Default)]
pub struct Storage {
    /// Claims.
    pub claims: HashMap<Key, Arc<PersistentVolumeClaim>>,
    /// Volumes by name.
    pub volumes: BTreeMap<String, Arc<PersistentVolume>>,
    /// Classes by name.
    pub classes: HashMap<String, Arc<StorageClass>>,
    /// What nodes say of their drivers, by the node's name.
    pub csi_nodes: HashMap<String, Arc<CSINode>>,
    /// Drivers by name.
    pub drivers: HashMap<String, Arc<CSIDriver>>,
    /// Free space by driver, class and part of the cluster.
    pub capacities: HashMap<Key, Arc<CSIStorageCapacity>>,
    /// By the uid of the pod.
    promises: HashMap<Arc<str>, Promise>,
}

/// What was decided for the claims of one pod and is being carried out.
#[derive(Debug)]
struct Promise {
    node: Arc<str>,
    plan: Plan,
}

/// What has to be done for the claims of a pod before it is bound to its node.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plan {
    /// Claims that get a volume that is there.
    pub bindings: Vec<(Arc<PersistentVolumeClaim>, Arc<PersistentVolume>)>,
    /// Claims for which a volume is to be made.
    pub provisions: Vec<Arc<PersistentVolumeClaim>>,
}

impl Plan {
    /// There is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.bindings.is_empty() && self.provisions.is_empty()
    }

    /// All its claims.
    pub fn claims(&self) -> impl Iterator<Item = &Arc<PersistentVolumeClaim>> {
        self.bindings.iter().map(|(claim, _)| claim).chain(&self.provisions)
    }
}

/// What one claim of a pod needs.
#[derive(Debug)]
pub enum Need<'a> {
    /// Its volume has to be in reach; `None` if the volume is gone.
    Bound(Option<&'a Arc<PersistentVolume>>),
    /// It gets a volume together with the node.
    Late {
        /// The claim.
        claim: &'a Arc<PersistentVolumeClaim>,
        /// Its class.
        class: &'a StorageClass,
        /// The node that was chosen for it before.
        selected: Option<&'a str>,
        /// The volume that was chosen for it just now.
        promised: Option<&'a Arc<PersistentVolume>>,
    },
}

impl Storage {
    /// What the pod's claims need, or why no node at all will do.
    ///
    /// # Errors
    /// A sentence in upstream's words.
    pub fn needs<'a>(&'a self, pod: &PodInfo) -> Result<Vec<Need<'a>>, String> {
        let mut needs = Vec::with_capacity(pod.claims.len());
        for key in &pod.claims {
            let claim = self.claim_of(pod, key)?;
            if volumes::is_bound(claim) {
                let name = volumes::volume_name(claim).unwrap_or_default();
                needs.push(Need::Bound(self.volumes.get(name)));
                continue;
            }
            let class =
                self.classes.get(volumes::class_of_claim(claim)).filter(|class| volumes::is_late(class));
            match class {
                Some(class) if volumes::volume_name(claim).is_none() => {
                    let (promised, node) = self.promised_to(key);
                    let selected = volumes::selected_node(claim).or(node);
                    needs.push(Need::Late { claim, class, selected, promised });
                }
                _ => return Err("pod has unbound immediate PersistentVolumeClaims".to_owned()),
            }
        }
        Ok(needs)
    }

    fn claim_of(&self, pod: &PodInfo, key: &Key) -> Result<&Arc<PersistentVolumeClaim>, String> {
        let name = key.name();
        let own = pod.ephemeral_claims.contains(key);
        let Some(claim) = self.claims.get(key) else {
            return Err(if own {
                format!(
                    "waiting for ephemeral volume controller to create the persistentvolumeclaim {name:?}"
                )
            } else {
                format!("persistentvolumeclaim {name:?} not found")
            });
        };
        if claim.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Lost") {
            let volume = volumes::volume_name(claim).unwrap_or_default();
            return Err(format!(
                "persistentvolumeclaim {name:?} bound to non-existent persistentvolume {volume:?}"
            ));
        }
        if claim.metadata.deletion_timestamp.is_some() {
            return Err(format!("persistentvolumeclaim {name:?} is being deleted"));
        }
        let owner = crate::client::owner::controller_of(claim.as_ref());
        if own && owner.is_none_or(|owner| owner.uid != *pod.uid) {
            return Err(format!("PVC {key} was not created for pod {} (pod is not owner)", pod.key));
        }
        Ok(claim)
    }

    /// The volume and the node that another pod's promise gives to the claim.
    fn promised_to(&self, claim: &Key) -> (Option<&Arc<PersistentVolume>>, Option<&str>) {
        for promise in self.promises.values() {
            let binding = promise.plan.bindings.iter().find(|(known, _)| Key::of(known.as_ref()) == *claim);
            if let Some((_, volume)) = binding {
                return (Some(volume), None);
            }
            if promise.plan.provisions.iter().any(|known| Key::of(known.as_ref()) == *claim) {
                return (None, Some(&promise.node));
            }
        }
        (None, None)
    }

    /// What has to be done so that the claims can be used on the node.
    ///
    /// # Errors
    /// The reasons why they cannot be.
    pub fn plan(&self, needs: &[Need<'_>], node: &NodeInfo) -> Result<Plan, Vec<&'static str>> {
        let mut reasons = Vec::new();
        let bound = |wanted: bool| {
            needs.iter().any(|need| match need {
                Need::Bound(Some(volume)) => wanted && !is_in_reach(volume, node),
                Need::Bound(None) => !wanted,
                Need::Late { .. } => false,
            })
        };
        if bound(true) {
            reasons.push(NODE_CONFLICT);
        }
        let plan = match self.plan_late(needs, node) {
            Ok(plan) => plan,
            Err(reason) => {
                reasons.push(reason);
                Plan::default()
            }
        };
        if bound(false) {
            reasons.push(NO_VOLUME);
        }
        if reasons.is_empty() { Ok(plan) } else { Err(reasons) }
    }

    fn plan_late(&self, needs: &[Need<'_>], node: &NodeInfo) -> Result<Plan, &'static str> {
        let mut late: Vec<_> = needs.iter().filter(|need| matches!(need, Need::Late { .. })).collect();
        // Small claims first, so that a large volume is left for a large claim.
        late.sort_by_key(|need| match need {
            Need::Late { claim, .. } => volumes::requested(claim),
            Need::Bound(_) => Quantity::ZERO,
        });
        let (mut plan, mut taken) = (Plan::default(), self.promised_volumes());
        for need in late {
            let Need::Late { claim, class, selected, promised } = need else { continue };
            if let Some(volume) = promised {
                if !is_in_reach(volume, node) {
                    return Err(BIND_CONFLICT);
                }
                plan.bindings.push(((*claim).clone(), (*volume).clone()));
                continue;
            }
            if selected.is_some_and(|selected| selected != node.name.as_ref()) {
                return Err(BIND_CONFLICT);
            }
            let found = selected.is_none().then(|| {
                let free = |volume: &PersistentVolume| {
                    let name = volume.metadata.name.as_deref().unwrap_or_default();
                    !taken.contains(name) && is_in_reach(volume, node)
                };
                volumes::best(self.volumes.values(), claim, false, free)
            });
            match found.flatten() {
                Some(volume) => {
                    taken.insert(volume.metadata.name.clone().unwrap_or_default());
                    plan.bindings.push(((*claim).clone(), volume));
                }
                None => {
                    self.can_provision(claim, class, node)?;
                    plan.provisions.push((*claim).clone());
                }
            }
        }
        Ok(plan)
    }

    fn promised_volumes(&self) -> HashSet<String> {
        let bindings = self.promises.values().flat_map(|promise| &promise.plan.bindings);
        bindings.filter_map(|(_, volume)| volume.metadata.name.clone()).collect()
    }

    fn can_provision(
        &self,
        claim: &PersistentVolumeClaim,
        class: &StorageClass,
        node: &NodeInfo,
    ) -> Result<(), &'static str> {
        let provisioner = class.provisioner.as_str();
        if provisioner.is_empty() || provisioner == volumes::NO_PROVISIONER {
            return Err(BIND_CONFLICT);
        }
        let topologies = class.allowed_topologies.as_deref().unwrap_or_default();
        let is_allowed = topologies.is_empty()
            || topologies.iter().any(|term| {
                let mut expressions = term.match_label_expressions.iter().flatten();
                expressions.all(|wanted| {
                    node.label(&wanted.key).is_some_and(|value| wanted.values.iter().any(|one| one == value))
                })
            });
        if !is_allowed {
            return Err(BIND_CONFLICT);
        }
        if self.has_space(claim, class, node) { Ok(()) } else { Err(NO_SPACE) }
    }

    /// The driver, if it tells of its space at all, has enough in reach of the node.
    fn has_space(&self, claim: &PersistentVolumeClaim, class: &StorageClass, node: &NodeInfo) -> bool {
        let tells = self.drivers.get(&class.provisioner).and_then(|driver| driver.spec.storage_capacity);
        if tells != Some(true) {
            return true;
        }
        let wanted = volumes::requested(claim);
        let labels = node.node.as_ref().and_then(|node| node.metadata.labels.as_ref());
        self.capacities.values().any(|offer| {
            let most = offer.maximum_volume_size.as_ref().or(offer.capacity.as_ref());
            let most = most.and_then(|raw| Quantity::parse(&raw.0).ok());
            Some(&offer.storage_class_name) == class.metadata.name.as_ref()
                && most.is_some_and(|most| most >= wanted)
                && offer.node_topology.as_ref().is_some_and(|topology| {
                    LabelSelector::from_meta(Some(topology))
                        .is_ok_and(|selector| selector.matches_labels(labels))
                })
        })
    }

    /// Keeps what the plan uses for the pod until [`release`](Self::release).
    pub fn promise(&mut self, pod: &PodInfo, node: &Arc<str>, plan: &Plan) {
        if !plan.is_empty() {
            self.promises.insert(pod.uid.clone(), Promise { node: node.clone(), plan: plan.clone() });
        }
    }

    /// The pod's plan was carried out or given up.
    pub fn release(&mut self, pod: &PodInfo) {
        self.promises.remove(&pod.uid);
    }
}

/// The volume can be used on the node.
pub fn is_in_reach(volume: &PersistentVolume, node: &NodeInfo) -> bool {
    let affinity = volume.spec.as_ref().and_then(|spec| spec.node_affinity.as_ref());
    let required = affinity.and_then(|affinity| affinity.required.as_ref());
    required.is_none_or(|selector| node.face().is_selected_by(selector))
}

#[cfg(test)]
mod tests;
