//! What the API shows of this node's CSI drivers: the CSINode, and on the Node an annotation and topology labels.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Node;
use k8s_openapi::api::storage::v1::{CSINode, CSINodeDriver, CSINodeSpec, VolumeNodeResources};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::client::error;
use crate::kubelet::context::Context;
use crate::plugins::csi::v1::NodeGetInfoResponse;

/// Annotation of the Node: the drivers' names for it, as JSON.
const NODE_ID: &str = "csi.volume.kubernetes.io/nodeid";
const TRIES: usize = 10;

/// Why the API does not show a driver.
#[derive(Debug, thiserror::Error)]
pub enum NodeInfoError {
    /// The driver does not say who this node is to it.
    #[error("the driver gives the node no id")]
    NoId,
    /// The node is not registered yet, or gone.
    #[error("the node is not registered")]
    NoNode,
    /// Somebody else changes the object all the time.
    #[error("CSINode changes too often")]
    Conflicts,
    /// The API refuses.
    #[error("update the node")]
    Api(#[from] kube::Error),
}

/// Makes sure that there is a CSINode, with or without drivers; waits for the Node, whose it is.
pub async fn ensure(ctx: &Context) {
    let mut node = ctx.node.clone();
    if node.wait_for(Option::is_some).await.is_err() {
        return;
    }
    if let Err(error) = change(ctx, |_| {}).await {
        tracing::warn!(error = &error as &dyn std::error::Error, "CSINode not made");
    }
}

/// Shows a driver.
pub async fn add(ctx: &Context, driver: &str, info: NodeGetInfoResponse) -> Result<(), NodeInfoError> {
    if info.node_id.is_empty() {
        return Err(NodeInfoError::NoId);
    }
    let segments = info.accessible_topology.unwrap_or_default().segments;
    annotate(ctx, driver, Some(&info.node_id), &segments).await?;
    let limit = i32::try_from(info.max_volumes_per_node).ok().filter(|most| *most > 0);
    let entry = CSINodeDriver {
        name: driver.to_owned(),
        node_id: info.node_id,
        topology_keys: (!segments.is_empty()).then(|| segments.into_keys().collect()),
        allocatable: limit.map(|count| VolumeNodeResources { count: Some(count) }),
    };
    change(ctx, |drivers| {
        drivers.retain(|known| known.name != entry.name);
        drivers.push(entry.clone());
    })
    .await
}

/// Shows a driver no longer.
pub async fn remove(ctx: &Context, driver: &str) {
    let removed = change(ctx, |drivers| drivers.retain(|known| known.name != driver)).await;
    let told = annotate(ctx, driver, None, &BTreeMap::new()).await;
    if let Err(error) = removed.and(told) {
        tracing::warn!(%driver, error = &error as &dyn std::error::Error, "driver still shown");
    }
}

async fn change(ctx: &Context, with: impl Fn(&mut Vec<CSINodeDriver>)) -> Result<(), NodeInfoError> {
    let api: Api<CSINode> = Api::all(ctx.client.clone());
    let name = &ctx.config.node_name;
    for _ in 0..TRIES {
        let outcome = match api.get_opt(name).await? {
            Some(mut present) => {
                let former = present.spec.drivers.clone();
                with(&mut present.spec.drivers);
                if present.spec.drivers == former {
                    return Ok(());
                }
                api.replace(name, &PostParams::default(), &present).await
            }
            None => {
                let mut wanted = CSINode { spec: CSINodeSpec::default(), ..CSINode::default() };
                wanted.metadata.name = Some(name.clone());
                wanted.metadata.owner_references = Some(vec![owner(ctx)?]);
                with(&mut wanted.spec.drivers);
                api.create(&PostParams::default(), &wanted).await
            }
        };
        match outcome {
            Ok(_) => return Ok(()),
            Err(e) if error::is_conflict(&e) || error::is_already_exists(&e) || error::is_not_found(&e) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Err(NodeInfoError::Conflicts)
}

fn owner(ctx: &Context) -> Result<OwnerReference, NodeInfoError> {
    let node = ctx.node.borrow().clone().ok_or(NodeInfoError::NoNode)?;
    Ok(OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Node".to_owned(),
        name: ctx.config.node_name.clone(),
        uid: node.metadata.uid.clone().ok_or(NodeInfoError::NoNode)?,
        ..OwnerReference::default()
    })
}

async fn annotate(
    ctx: &Context,
    driver: &str,
    id: Option<&str>,
    labels: &BTreeMap<String, String>,
) -> Result<(), NodeInfoError> {
    let api: Api<Node> = Api::all(ctx.client.clone());
    let name = &ctx.config.node_name;
    for _ in 0..TRIES {
        let node = api.get_opt(name).await?.ok_or(NodeInfoError::NoNode)?;
        let former = node.metadata.annotations.as_ref().and_then(|all| all.get(NODE_ID));
        let known = former.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
        let patch = json!({"metadata": {
            "resourceVersion": node.metadata.resource_version,
            "annotations": {NODE_ID: ids(known, driver, id)},
            "labels": labels,
        }});
        match api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await {
            Ok(_) => return Ok(()),
            Err(e) if error::is_conflict(&e) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Err(NodeInfoError::Conflicts)
}

/// The annotation's value, null when no driver is left.
fn ids(mut known: BTreeMap<String, String>, driver: &str, id: Option<&str>) -> Value {
    match id {
        Some(id) => drop(known.insert(driver.to_owned(), id.to_owned())),
        None => drop(known.remove(driver)),
    }
    if known.is_empty() { Value::Null } else { Value::from(json!(known).to_string()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_annotation_names_every_driver_and_goes_with_the_last() {
        let one = ids(BTreeMap::new(), "a", Some("1"));
        assert_eq!(one, r#"{"a":"1"}"#);
        let known: BTreeMap<String, String> = serde_json::from_str(one.as_str().unwrap()).unwrap();
        assert_eq!(ids(known.clone(), "b", Some("2")), r#"{"a":"1","b":"2"}"#);
        assert_eq!(ids(known, "a", None), Value::Null);
    }
}
