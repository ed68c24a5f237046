//! The role of this server's own node: a label that kubelets may not give themselves.

use k8s_openapi::api::core::v1::Node;
use kube::api::{Api, Patch, PatchParams};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::client::{Informers, Selection};

/// As in k3s; `kubectl get nodes` shows it as the role.
const LABEL: &str = "node-role.kubernetes.io/control-plane";

/// Labels the node when it registers, and again whenever it registers anew, until `stop`.
pub(super) async fn keep(client: kube::Client, name: String, stop: CancellationToken) {
    let informers = Informers::new(client.clone(), stop.clone());
    let nodes = informers.select::<Node>(Selection::fields(format!("metadata.name={name}")));
    let mut changes = nodes.subscribe();
    while stop.run_until_cancelled(changes.next()).await.is_some() {
        let Some(node) = nodes.find("", &name) else { continue };
        if node.metadata.labels.as_ref().is_some_and(|labels| labels.contains_key(LABEL)) {
            continue;
        }
        let patch = Patch::Merge(json!({"metadata": {"labels": {LABEL: "true"}}}));
        let api: Api<Node> = Api::all(client.clone());
        if let Err(error) = api.patch(&name, &PatchParams::default(), &patch).await {
            // The node's next sign of life is another try.
            tracing::warn!(error = &error as &dyn std::error::Error, "node not labelled with its role");
        }
    }
    informers.closed().await;
}
