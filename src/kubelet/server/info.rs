//! What the kubelet tells about its pods.

use axum::body::Body;
use http::{Response, StatusCode};
use k8s_openapi::List;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::{Sources, json as json_answer, refusal, text};
use crate::cri::v1;
use crate::kubelet::labels;

/// The pods of this node, as the API has them.
pub(super) fn pods(sources: &Sources) -> Response<Body> {
    let items = sources.pods.list().iter().map(|pod| (**pod).clone()).collect();
    json_answer(&List::<Pod> { items, ..Default::default() })
}

/// The pods that the runtime has containers of.
pub(super) async fn running_pods(sources: &Sources) -> Response<Body> {
    let filter = v1::PodSandboxFilter {
        state: Some(v1::PodSandboxStateValue { state: v1::PodSandboxState::SandboxReady.into() }),
        ..Default::default()
    };
    match sources.runtime.list_pod_sandboxes(Some(filter)).await {
        Err(error) => refusal(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
        Ok(sandboxes) => {
            let items: Vec<Value> =
                sandboxes.iter().filter_map(|one| one.metadata.as_ref()).map(running).collect();
            json_answer(&json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items}))
        }
    }
}

fn running(of: &v1::PodSandboxMetadata) -> Value {
    json!({"metadata": {"name": of.name, "namespace": of.namespace, "uid": of.uid}, "spec": {"containers": null}, "status": {}})
}

/// How much the containers use, in the shape of upstream's `stats/v1alpha1` Summary.
pub(super) async fn summary(sources: &Sources) -> Response<Body> {
    match sources.runtime.list_container_stats(None).await {
        Err(error) => refusal(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
        Ok(stats) => {
            let mut pods: Vec<Value> = Vec::new();
            for one in &stats {
                add_to_pod(&mut pods, one);
            }
            json_answer(&json!({"node": {"nodeName": sources.node_name}, "pods": pods}))
        }
    }
}

fn add_to_pod(pods: &mut Vec<Value>, stats: &v1::ContainerStats) {
    let Some(attributes) = &stats.attributes else { return };
    let label = |key: &str| attributes.labels.get(key).cloned().unwrap_or_default();
    let uid = label(labels::POD_UID);
    let cpu = stats
        .cpu
        .as_ref()
        .and_then(|cpu| cpu.usage_core_nano_seconds.as_ref())
        .map_or(0, |value| value.value);
    let memory = stats
        .memory
        .as_ref()
        .and_then(|memory| memory.working_set_bytes.as_ref())
        .map_or(0, |value| value.value);
    let container = json!({
        "name": label(labels::CONTAINER_NAME),
        "cpu": {"usageCoreNanoSeconds": cpu},
        "memory": {"workingSetBytes": memory},
    });
    let known = pods.iter_mut().find(|pod| pod["podRef"]["uid"] == uid.as_str());
    match known.and_then(|pod| pod["containers"].as_array_mut()) {
        Some(containers) => containers.push(container),
        None => pods.push(json!({
            "podRef": {"name": label(labels::POD_NAME), "namespace": label(labels::POD_NAMESPACE), "uid": uid},
            "containers": [container],
        })),
    }
}

/// Figures for Prometheus, with upstream's names.
pub(super) async fn metrics(sources: &Sources) -> Response<Body> {
    let count = |state: v1::ContainerState, all: &[v1::Container]| {
        all.iter().filter(|one| one.state() == state).count()
    };
    match sources.runtime.list_containers(None).await {
        Err(error) => refusal(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
        Ok(all) => {
            let running = count(v1::ContainerState::ContainerRunning, &all);
            let exited = count(v1::ContainerState::ContainerExited, &all);
            text(format!(
                "# TYPE kubelet_running_pods gauge\nkubelet_running_pods {}\n# TYPE kubelet_running_containers gauge\n\
                 kubelet_running_containers{{container_state=\"running\"}} {running}\n\
                 kubelet_running_containers{{container_state=\"exited\"}} {exited}\n",
                sources.pods.len()
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn containers_are_grouped_by_pod() {
        let stats = |uid: &str, name: &str, cpu: u64| {
            let labels = [
                (labels::POD_UID.to_owned(), uid.to_owned()),
                (labels::CONTAINER_NAME.to_owned(), name.to_owned()),
            ];
            v1::ContainerStats {
                attributes: Some(v1::ContainerAttributes {
                    labels: labels.into_iter().collect(),
                    ..Default::default()
                }),
                cpu: Some(v1::CpuUsage {
                    usage_core_nano_seconds: Some(v1::UInt64Value { value: cpu }),
                    ..Default::default()
                }),
                ..Default::default()
            }
        };
        let mut pods = Vec::new();
        for one in [stats("a", "x", 1), stats("a", "y", 2), stats("b", "x", 3)] {
            add_to_pod(&mut pods, &one);
        }
        assert_eq!(pods.len(), 2);
        assert_eq!(pods[0]["containers"].as_array().unwrap().len(), 2);
        assert_eq!(pods[1]["containers"][0]["cpu"]["usageCoreNanoSeconds"], 3);
    }
}
