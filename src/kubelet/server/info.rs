//! What the kubelet tells about its pods.

use std::collections::BTreeMap;

use axum::body::Body;
use http::{Response, StatusCode};
use k8s_openapi::List;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::containers::runtime_uid;
use super::{Sources, json as json_answer, refusal, text};
use crate::cri::v1;
use crate::kubelet::config::{CgroupDriver, SwapRule};
use crate::kubelet::pods::plan::go_duration;
use crate::kubelet::volumes::figures::VolumeUse;

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
        "nodeStatusReportFrequency": go_duration(config.node_status_report),
        "nodeStatusUpdateFrequency": go_duration(config.node_status_update),
        "nodeLeaseDurationSeconds": config.node_lease.as_secs(),
        "evictionPressureTransitionPeriod": go_duration(config.eviction_transition),
        "cpuManagerPolicy": if config.cpu_manager.is_some() { "static" } else { "none" },
        "cpuCFSQuota": config.limits.cpu_quota,
        "cpuCFSQuotaPeriod": format!("{}ms", config.limits.cpu_period / 1000),
        "podPidsLimit": config.pod_pids_limit.unwrap_or(-1),
        "podsPerCore": config.pods_per_core,
        "seccompDefault": config.seccomp_default,
        "imageMinimumGCAge": go_duration(config.image_ages.0),
        "imageMaximumGCAge": go_duration(config.image_ages.1),
        "crashLoopBackOff": {"maxContainerRestartPeriod": go_duration(config.max_restart_wait)},
        "memorySwap": {"swapBehavior": match config.limits.swap {
            SwapRule::Share { .. } => "LimitedSwap",
            SwapRule::Nothing | SwapRule::Unsaid => "NoSwap",
        }},
        "shutdownGracePeriodByPodPriority": config.shutdown.iter().map(|period| {
            json!({"priority": period.priority, "shutdownGracePeriodSeconds": period.grace.as_secs()})
        }).collect::<Vec<_>>(),
        "enableDebuggingHandlers": config.debugging_handlers,
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
            let volumes = volume_metrics(sources).await;
            text(format!(
                "# TYPE kubelet_running_pods gauge\nkubelet_running_pods {}\n# TYPE kubelet_running_containers gauge\n\
                 kubelet_running_containers{{container_state=\"running\"}} {running}\n\
                 kubelet_running_containers{{container_state=\"exited\"}} {exited}\n{volumes}",
                sources.pods.len()
            ))
        }
    }
}

/// How full the volumes of claims are; a claim that several pods use is told once.
async fn volume_metrics(sources: &Sources) -> String {
    let mut claims: BTreeMap<(String, String), VolumeUse> = BTreeMap::new();
    for pod in sources.pods.list() {
        for volume in sources.volumes.of_claims(&pod, &runtime_uid(&pod)).await {
            if let Some(claim) = volume.claim.clone() {
                claims.insert((pod.metadata.namespace.clone().unwrap_or_default(), claim), volume);
            }
        }
    }
    type Family = (&'static str, &'static str, fn(&VolumeUse) -> u64);
    let families: [Family; 6] = [
        ("available_bytes", "Number of available bytes in the volume", |v| v.usage.available),
        ("capacity_bytes", "Capacity in bytes of the volume", |v| v.usage.capacity),
        ("inodes", "Maximum number of inodes in the volume", |v| v.usage.inodes),
        ("inodes_free", "Number of free inodes in the volume", |v| v.usage.inodes_free),
        ("inodes_used", "Number of used inodes in the volume", |v| v.inodes_used),
        ("used_bytes", "Number of used bytes in the volume", |v| v.usage.used),
    ];
    let mut out = String::new();
    for (name, help, of) in families.iter().filter(|_| !claims.is_empty()) {
        let name = format!("kubelet_volume_stats_{name}");
        out.push_str(&format!("# HELP {name} [ALPHA] {help}\n# TYPE {name} gauge\n"));
        for ((namespace, claim), volume) in &claims {
            let labels = format!("{{namespace=\"{namespace}\",persistentvolumeclaim=\"{claim}\"}}");
            out.push_str(&format!("{name}{labels} {}\n", of(volume)));
        }
    }
    out
}
