//! Makes sure that the API has this node, and that its labels are right.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, NodeStatus};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::json;

use super::describe;
use crate::client::error;
use crate::kubelet::config::KubeletConfig;

/// Creates the Node, or takes over the one that is there; says whether it was.
pub async fn register(
    client: &Client,
    config: &KubeletConfig,
    status: &NodeStatus,
) -> Result<(Arc<Node>, bool), kube::Error> {
    let api: Api<Node> = Api::all(client.clone());
    let name = &config.node_name;
    if let Some(node) = api.get_opt(name).await? {
        return Ok((Arc::new(adopt(&api, config, node).await?), true));
    }
    let wanted = describe::node(config, status.clone());
    match api.create(&PostParams::default(), &wanted).await {
        Ok(node) => {
            tracing::info!(node = %name, "node registered");
            Ok((Arc::new(node), false))
        }
        Err(e) if error::is_already_exists(&e) => {
            Ok((Arc::new(adopt(&api, config, api.get(name).await?).await?), true))
        }
        Err(e) => Err(e),
    }
}

/// Labels are brought up to date; taints are only set when a node is new, so that an administrator may remove them.
async fn adopt(api: &Api<Node>, config: &KubeletConfig, node: Node) -> Result<Node, kube::Error> {
    let wanted = describe::labels(config);
    let have = node.metadata.labels.clone().unwrap_or_default();
    if wanted.iter().all(|(k, v)| have.get(k) == Some(v)) {
        return Ok(node);
    }
    let patch = json!({"metadata": {"labels": wanted}});
    api.patch(&config.node_name, &PatchParams::default(), &Patch::Merge(patch)).await
}
