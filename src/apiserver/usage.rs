//! `metrics.k8s.io/v1beta1`: what nodes and pods use, asked of the kubelets when somebody asks.
//!
//! Nothing is kept: a question costs one request per kubelet concerned, and a cluster that nobody asks about pays
//! nothing. The group is not in the catalog, since it has no objects that could be stored or watched.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures::StreamExt as _;
use http::{Method, Response};
use http_body_util::{BodyExt, Limited};
use k8s_openapi::ClusterResourceScope;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::ApiServer;
use super::kubelet::KubeletAddress;
use super::negotiate::{self, Offer};
use super::pipeline::Call;
use super::request_info::Target;
use super::respond::Rendering;
use super::subresources::backend_request;
use crate::api::error::{ApiError, GroupResource};
use crate::api::json;
use crate::api::selector::LabelSelector;
use crate::cache::Consistency;
use crate::registry::{Resource, Scope, Verb};

/// The group.
pub(super) const GROUP: &str = "metrics.k8s.io";
const VERSION: &str = "v1beta1";
/// A kubelet that takes longer is left out.
const PATIENCE: Duration = Duration::from_secs(10);
/// Kubelets that are asked at the same time.
const AT_ONCE: usize = 16;
/// Most that a kubelet may answer.
const MAX_ANSWER: usize = 32 << 20;
/// What the figures are an average over, roughly.
const WINDOW: &str = "10s";

/// The form of both kinds, as far as discovery needs it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Usage<const NODES: bool> {
    metadata: ObjectMeta,
}

impl k8s_openapi::Metadata for Usage<true> {
    type Ty = ObjectMeta;
    fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }
    fn metadata_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

impl k8s_openapi::Metadata for Usage<false> {
    type Ty = ObjectMeta;
    fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }
    fn metadata_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

impl k8s_openapi::Resource for Usage<true> {
    const API_VERSION: &'static str = "metrics.k8s.io/v1beta1";
    const GROUP: &'static str = GROUP;
    const KIND: &'static str = "NodeMetrics";
    const VERSION: &'static str = VERSION;
    const URL_PATH_SEGMENT: &'static str = "nodes";
    type Scope = ClusterResourceScope;
}

impl k8s_openapi::Resource for Usage<false> {
    const API_VERSION: &'static str = "metrics.k8s.io/v1beta1";
    const GROUP: &'static str = GROUP;
    const KIND: &'static str = "PodMetrics";
    const VERSION: &'static str = VERSION;
    const URL_PATH_SEGMENT: &'static str = "pods";
    type Scope = NamespaceResourceScope;
}

/// The rows that discovery shows.
pub(super) fn rows() -> &'static [Arc<Resource>] {
    static ROWS: LazyLock<Vec<Arc<Resource>>> = LazyLock::new(|| {
        let mut nodes = Resource::review::<Usage<true>>("nodes", Scope::Cluster);
        let mut pods = Resource::review::<Usage<false>>("pods", Scope::Namespaced);
        for row in [&mut nodes, &mut pods] {
            row.verbs = &[Verb::Get, Verb::List];
            row.singular = "".into();
        }
        vec![Arc::new(nodes), Arc::new(pods)]
    });
    &ROWS
}

impl ApiServer {
    /// Answers a request for the group.
    pub(super) async fn usage(
        self: &Arc<Self>,
        call: Call,
        target: &Target,
    ) -> Result<Response<Body>, ApiError> {
        let resource = GroupResource::new(GROUP, target.resource.as_str());
        let missing = || ApiError::generic_not_found(&call.info.path);
        if target.version != VERSION || !target.subresource.is_empty() {
            return Err(missing());
        }
        let verb = call.info.verb.as_str();
        if !matches!(verb, "get" | "list") {
            return Err(ApiError::method_not_supported(&resource, verb));
        }
        let selector = LabelSelector::parse(call.info.param("labelSelector"))
            .map_err(|error| ApiError::bad_request(error.to_string()))?;
        let items = match target.resource.as_str() {
            "nodes" if target.namespace.is_empty() => self.node_usage(&target.name).await?,
            "pods" => self.pod_usage(&target.namespace, &target.name).await?,
            _ => return Err(missing()),
        };
        let matches = |item: &Value| {
            let labels: BTreeMap<String, String> =
                serde_json::from_value(item["metadata"]["labels"].clone()).unwrap_or_default();
            selector.matches_map(&labels)
        };
        let items: Vec<Value> = items.into_iter().filter(matches).collect();
        let kind = if target.resource == "nodes" { "NodeMetrics" } else { "PodMetrics" };
        let body = if verb == "get" {
            items.into_iter().next().ok_or_else(|| ApiError::not_found(&resource, &target.name))?
        } else {
            json!({"kind": format!("{kind}List"), "apiVersion": format!("{GROUP}/{VERSION}"), "metadata": {}, "items": items})
        };
        let headers = &call.head.headers;
        let (format, _) = negotiate::accept(headers, Offer::Plain)?;
        let bytes = Bytes::from(serde_json::to_vec(&body).map_err(ApiError::internal)?);
        Ok(Rendering::new(format, &call.info, headers).respond(200, bytes))
    }

    /// Every object of a kind, or the one of this name.
    async fn all<K>(&self, plural: &str, namespace: &str, name: &str) -> Result<Vec<K>, ApiError>
    where
        K: k8s_openapi::Resource + serde::de::DeserializeOwned,
    {
        let Some(row) = self.registry.catalog().of::<K>() else { return Ok(Vec::new()) };
        let Some(cache) = self.registry.cached(row) else { return Ok(Vec::new()) };
        if !name.is_empty() {
            let found =
                cache.get_at(namespace, name, Consistency::Latest).await.map_err(ApiError::internal)?;
            let found = found.ok_or_else(|| ApiError::not_found(&GroupResource::new(GROUP, plural), name))?;
            return Ok(json::typed(found.json()).into_iter().collect());
        }
        let snapshot = cache.snapshot(Consistency::Latest).await.map_err(ApiError::internal)?;
        let namespace = Some(namespace).filter(|n| !n.is_empty());
        Ok(snapshot.iter(namespace, None).filter_map(|o| json::typed(o.json()).ok()).collect())
    }

    async fn node_usage(&self, name: &str) -> Result<Vec<Value>, ApiError> {
        let nodes: Vec<Node> = self.all("nodes", "", name).await?;
        let asked = nodes.into_iter().map(|node| async move {
            let summary = self.summary(&node).await?;
            Some(of_node(&node, &summary["node"]))
        });
        Ok(futures::stream::iter(asked).buffered(AT_ONCE).filter_map(std::future::ready).collect().await)
    }

    async fn pod_usage(&self, namespace: &str, name: &str) -> Result<Vec<Value>, ApiError> {
        let pods: Vec<Pod> = self.all("pods", namespace, name).await?;
        let on: std::collections::BTreeSet<&str> =
            pods.iter().filter_map(|p| p.spec.as_ref()?.node_name.as_deref()).collect();
        let nodes: Vec<Node> = self.all("nodes", "", "").await?;
        let nodes = nodes.into_iter().filter(|n| n.metadata.name.as_deref().is_some_and(|n| on.contains(n)));
        let asked = nodes.map(|node| async move { self.summary(&node).await });
        let summaries: Vec<Option<Value>> = futures::stream::iter(asked).buffered(AT_ONCE).collect().await;
        let known: Vec<&Value> =
            summaries.iter().flatten().filter_map(|s| s["pods"].as_array()).flatten().collect();
        let used = |pod: &Pod| {
            let own = known.iter().find(|k| k["podRef"]["uid"].as_str() == pod.metadata.uid.as_deref())?;
            Some(of_pod(pod, own))
        };
        Ok(pods.iter().filter_map(used).collect())
    }

    /// What the kubelet of a node counts; `None` when it does not answer.
    async fn summary(&self, node: &Node) -> Option<Value> {
        let address = KubeletAddress::of(node)?;
        let ask = async {
            let request = backend_request(Method::GET, "/stats/summary", &address, Body::empty())?;
            let response = self.kubelets.send(&address, request, &self.tunnels).await?;
            let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
            let bytes = body.map_err(|error| ApiError::internal(error.to_string()))?.to_bytes();
            serde_json::from_slice(&bytes).map_err(ApiError::internal)
        };
        match tokio::time::timeout(PATIENCE, ask).await {
            Ok(Ok(summary)) => Some(summary),
            Ok(Err(error)) => {
                tracing::debug!(node = ?node.metadata.name, %error, "kubelet does not say what it uses");
                None
            }
            Err(_) => None,
        }
    }
}

/// Processor and memory as the API writes them.
fn amounts(of: &Value) -> Value {
    let nanos = of["cpu"]["usageNanoCores"].as_u64().unwrap_or(0);
    let bytes = of["memory"]["workingSetBytes"].as_u64().unwrap_or(0);
    json!({"cpu": format!("{nanos}n"), "memory": format!("{}Ki", bytes / 1024)})
}

fn head(kind: &str, metadata: &ObjectMeta, time: &Value) -> Value {
    let mut own = json!({"name": metadata.name, "creationTimestamp": time});
    if let Some(namespace) = &metadata.namespace {
        own["namespace"] = json!(namespace);
    }
    if let Some(labels) = &metadata.labels {
        own["labels"] = json!(labels);
    }
    json!({"kind": kind, "apiVersion": format!("{GROUP}/{VERSION}"), "metadata": own, "timestamp": time, "window": WINDOW})
}

fn of_node(node: &Node, used: &Value) -> Value {
    let mut out = head("NodeMetrics", &node.metadata, &used["cpu"]["time"]);
    out["usage"] = amounts(used);
    out
}

fn of_pod(pod: &Pod, used: &Value) -> Value {
    let mut out = head("PodMetrics", &pod.metadata, &used["cpu"]["time"]);
    let containers = used["containers"].as_array().map(Vec::as_slice).unwrap_or_default();
    out["containers"] =
        containers.iter().map(|c| json!({"name": c["name"], "usage": amounts(c)})).collect::<Vec<_>>().into();
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summaries_become_metrics() {
        let used = json!({"cpu": {"time": "2026-01-01T00:00:00Z", "usageNanoCores": 1500}, "memory": {"workingSetBytes": 4096}});
        let node: Node =
            serde_json::from_value(json!({"metadata": {"name": "n1", "labels": {"a": "b"}}})).unwrap();
        let got = of_node(&node, &used);
        assert_eq!(got["usage"], json!({"cpu": "1500n", "memory": "4Ki"}));
        assert_eq!(
            (got["kind"].as_str(), got["metadata"]["labels"]["a"].as_str()),
            (Some("NodeMetrics"), Some("b"))
        );
        let pod: Pod = serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "d"}})).unwrap();
        let mut container = used.clone();
        container["name"] = json!("c");
        let got = of_pod(&pod, &json!({"cpu": used["cpu"], "containers": [container]}));
        assert_eq!(got["containers"], json!([{"name": "c", "usage": {"cpu": "1500n", "memory": "4Ki"}}]));
    }

    #[test]
    fn discovery_shows_two_kinds_that_can_be_read() {
        let shown: Vec<_> =
            rows().iter().map(|r| (r.plural.as_ref(), r.kind.as_ref(), r.namespaced())).collect();
        assert_eq!(shown, [("nodes", "NodeMetrics", false), ("pods", "PodMetrics", true)]);
    }
}
