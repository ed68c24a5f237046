//! `PodTopologyLabels`: a pod takes over the zone and the region of its node, where it can read them of itself.

use std::collections::BTreeMap;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{Node, Pod};

use super::{Operation, Plugin, Request};
use crate::api::error::ApiError;
use crate::registry::object::Object;
use crate::registry::service::Registry;

/// The labels of nodes that their pods get.
const TAKEN_OVER: [&str; 2] = ["topology.kubernetes.io/zone", "topology.kubernetes.io/region"];

/// Pods that are created on a node; bindings add the labels themselves.
pub(super) struct PodTopologyLabels;

#[async_trait]
impl Plugin for PodTopologyLabels {
    async fn admit(
        &self,
        request: &Request<'_>,
        object: &mut dyn Object,
        _: Option<&dyn Object>,
    ) -> Result<bool, ApiError> {
        if request.operation != Operation::Create || !request.is("", "pods") {
            return Ok(false);
        }
        let Some(pod) = object.downcast_mut::<Pod>() else { return Ok(false) };
        match pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()) {
            Some(node) if !node.is_empty() => add(request.registry, node, &mut pod.metadata.labels),
            _ => Ok(false),
        }
    }
}

/// Adds the labels of the node that are not there yet; the result says whether there were any. A node that is not known
/// has none.
pub(in crate::registry) fn add(
    registry: &Registry,
    node: &str,
    labels: &mut Option<BTreeMap<String, String>>,
) -> Result<bool, ApiError> {
    let Some(row) = registry.catalog().of::<Node>() else { return Ok(false) };
    let Some(node) = registry.cache_of(row)?.get("", node) else { return Ok(false) };
    let mut changed = false;
    for key in TAKEN_OVER {
        let Some(value) = node.label(key) else { continue };
        let labels = labels.get_or_insert_default();
        if !labels.contains_key(key) {
            labels.insert(key.to_owned(), value.to_owned());
            changed = true;
        }
    }
    Ok(changed)
}
