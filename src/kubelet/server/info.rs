//! What the kubelet tells about its pods.

use axum::body::Body;
use http::{Response, StatusCode};
use k8s_openapi::List;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::{Sources, json as json_answer, refusal, text};
use crate::cri::v1;
use crate::kubelet::config::CgroupDriver;

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

/// What this kubelet was told, in the words of upstream's configuration.
pub(super) fn configz(sources: &Sources) -> Response<Body> {
    let config = &sources.config;
    let driver = match config.cgroup_driver {
        CgroupDriver::Cgroupfs => "cgroupfs",
        CgroupDriver::Systemd => "systemd",
    };
    json_answer(&json!({"kubeletconfig": {
        "address": config.server.address.ip(),
        "port": config.server.address.port(),
        "staticPodPath": config.manifest_dir,
        "clusterDomain": config.cluster_domain,
        "clusterDNS": config.cluster_dns,
        "maxPods": config.max_pods,
        "cgroupDriver": driver,
        "cgroupRoot": config.cgroup_root,
        "resolvConf": config.resolv_conf,
        "containerLogMaxSize": config.container_log_max_bytes.to_string(),
        "containerLogMaxFiles": config.container_log_max_files,
        "imageGCHighThresholdPercent": config.image_gc_percent.0,
        "imageGCLowThresholdPercent": config.image_gc_percent.1,
        "nodeStatusReportFrequency": format!("{}s", config.node_status_report.as_secs()),
        "kubeReserved": config.reserved,
        "failSwapOn": false,
        "enableServer": true,
    }}))
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
