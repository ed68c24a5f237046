//! Figures of use: `/stats/summary` in upstream's shape, and `/metrics/resource` and `/metrics/cadvisor` for Prometheus.

use std::fmt::Write as _;
use std::time::Duration;

use axum::body::Body;
use http::{Response, StatusCode};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::{Sources, json as json_answer, refusal, text};
use crate::host::cgroups::{CgroupPath, Usage};
use crate::host::filesystems::FilesystemUsage;
use crate::kubelet::stats::{self, ContainerUse};
use crate::kubelet::volumes::figures::VolumeUse;

/// Wait for a second count when there is none to compare with.
const SECOND_LOOK: Duration = Duration::from_millis(1100);
/// Key of the node itself among the rates.
const NODE: &str = "";

/// One look at everything.
struct Figures {
    at: i64,
    node: Usage,
    containers: Vec<ContainerUse>,
}

async fn look(sources: &Sources) -> Result<Figures, Response<Body>> {
    let containers = stats::containers(&sources.runtime).await;
    let containers =
        containers.map_err(|error| refusal(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()))?;
    let node = sources.host.cgroups.usage(&CgroupPath::root()).unwrap_or_default();
    let at = i64::try_from(sources.host.clock.now().as_nanosecond()).unwrap_or(0);
    Ok(Figures { at, node, containers })
}

fn time(nanos: i64) -> String {
    Timestamp::from_nanosecond(i128::from(nanos))
        .map(|t| t.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
        .unwrap_or_default()
}

fn cpu(at: i64, total: u64, rate: Option<u64>) -> Value {
    json!({"time": time(at), "usageNanoCores": rate.unwrap_or(0), "usageCoreNanoSeconds": total})
}

fn disk(at: i64, usage: &FilesystemUsage) -> Value {
    json!({"time": time(at), "availableBytes": usage.available, "capacityBytes": usage.capacity,
        "usedBytes": usage.used, "inodesFree": usage.inodes_free, "inodes": usage.inodes,
        "inodesUsed": usage.inodes.saturating_sub(usage.inodes_free)})
}

/// How much node, pods and containers use.
pub(super) async fn summary(sources: &Sources) -> Response<Body> {
    let mut figures = match look(sources).await {
        Ok(figures) => figures,
        Err(answer) => return answer,
    };
    let mut node_rate = sources.rates.take(NODE, figures.at, figures.node.cpu);
    if node_rate.is_none() {
        // Everything is counted twice, so that the first question is answered with rates too.
        for c in &figures.containers {
            sources.rates.take(&c.id, c.at, c.cpu);
        }
        tokio::time::sleep(SECOND_LOOK).await;
        figures = match look(sources).await {
            Ok(figures) => figures,
            Err(answer) => return answer,
        };
        node_rate = sources.rates.take(NODE, figures.at, figures.node.cpu);
    }
    json_answer(&document(sources, &figures, node_rate).await)
}

async fn document(sources: &Sources, figures: &Figures, node_rate: Option<u64>) -> Value {
    let Figures { at, node, containers } = figures;
    let machine = &sources.host.machine;
    let root = sources.host.filesystems.usage(&sources.root_dir).unwrap_or_default();
    let ids = machine.process_ids();
    let mut pods: Vec<Value> = Vec::new();
    for pod in sources.pods.list() {
        let uid = super::containers::runtime_uid(&pod);
        let own: Vec<&ContainerUse> = containers.iter().filter(|c| c.uid == uid).collect();
        if !own.is_empty() {
            let volumes = sources.volumes.of(&pod, &uid).await;
            pods.push(of_pod(sources, *at, &pod, &own, &volumes));
        }
    }
    json!({
        "node": {
            "nodeName": sources.node_name,
            "startTime": time(sources.started),
            "cpu": cpu(*at, node.cpu, node_rate),
            "memory": {"time": time(*at), "availableBytes": machine.memory_available(), "usageBytes": node.memory,
                "workingSetBytes": node.working_set, "rssBytes": node.rss, "pageFaults": node.page_faults,
                "majorPageFaults": node.major_page_faults},
            "fs": disk(*at, &root),
            "runtime": {"imageFs": disk(*at, &root), "containerFs": disk(*at, &root)},
            "rlimit": {"time": time(*at), "maxpid": ids.most, "curproc": ids.used},
        },
        "pods": pods,
    })
}

fn of_pod(
    sources: &Sources,
    at: i64,
    pod: &Pod,
    containers: &[&ContainerUse],
    volumes: &[VolumeUse],
) -> Value {
    let mut rate = 0;
    let list: Vec<Value> = containers
        .iter()
        .map(|c| {
            let own = sources.rates.take(&c.id, c.at, c.cpu);
            rate += own.unwrap_or(0);
            json!({"name": c.name, "startTime": started(pod, &c.name), "cpu": cpu(c.at, c.cpu, own),
                "memory": memory(c.at, c),
                "rootfs": {"time": time(c.at), "usedBytes": c.writable_bytes, "inodesUsed": c.writable_inodes}})
        })
        .collect();
    let sum = |of: fn(&ContainerUse) -> u64| containers.iter().map(|c| of(c)).sum::<u64>();
    let all = ContainerUse {
        working_set: sum(|c| c.working_set),
        usage: sum(|c| c.usage),
        rss: sum(|c| c.rss),
        page_faults: sum(|c| c.page_faults),
        major_page_faults: sum(|c| c.major_page_faults),
        ..ContainerUse::default()
    };
    let start = pod.status.as_ref().and_then(|s| s.start_time.clone());
    // What lies on the node's own disk counts as the pod's local storage.
    let local: Vec<&VolumeUse> = volumes.iter().filter(|v| v.claim.is_none()).collect();
    let on_disk = sum(|c| c.writable_bytes) + local.iter().map(|v| v.usage.used).sum::<u64>();
    let inodes = sum(|c| c.writable_inodes) + local.iter().map(|v| v.inodes_used).sum::<u64>();
    json!({
        "podRef": {"name": pod.metadata.name, "namespace": pod.metadata.namespace, "uid": pod.metadata.uid},
        "startTime": start,
        "containers": list,
        "cpu": cpu(at, sum(|c| c.cpu), Some(rate)),
        "memory": memory(at, &all),
        "volume": volumes.iter().map(|v| of_volume(at, pod, v)).collect::<Vec<_>>(),
        "ephemeral-storage": {"time": time(at), "usedBytes": on_disk, "inodesUsed": inodes},
    })
}

fn of_volume(at: i64, pod: &Pod, volume: &VolumeUse) -> Value {
    let mut out = disk(at, &volume.usage);
    out["inodesUsed"] = json!(volume.inodes_used);
    out["name"] = json!(volume.name);
    if let Some(claim) = &volume.claim {
        out["pvcRef"] = json!({"name": claim, "namespace": pod.metadata.namespace});
    }
    out
}

fn memory(at: i64, c: &ContainerUse) -> Value {
    // Runtimes of old count the working set only.
    json!({"time": time(at), "usageBytes": c.usage.max(c.working_set), "workingSetBytes": c.working_set,
        "rssBytes": c.rss, "pageFaults": c.page_faults, "majorPageFaults": c.major_page_faults})
}

fn started(pod: &Pod, container: &str) -> Option<k8s_openapi::apimachinery::pkg::apis::meta::v1::Time> {
    let status = pod.status.as_ref()?;
    let lists = [&status.container_statuses, &status.init_container_statuses];
    let own = lists.into_iter().flatten().flatten().find(|s| s.name == container)?;
    own.state.as_ref()?.running.as_ref()?.started_at.clone()
}

/// The figures that autoscalers and `kubectl top` need, for Prometheus.
pub(super) async fn resource(sources: &Sources) -> Response<Body> {
    match look(sources).await {
        Ok(figures) => text(resource_text(&figures, &sources.pods.list())),
        Err(answer) => answer,
    }
}

fn seconds(nanos: u64) -> f64 {
    nanos as f64 / 1e9
}

fn resource_text(figures: &Figures, pods: &[std::sync::Arc<Pod>]) -> String {
    let mut out = String::new();
    let mut family = |name: &str, help: &str, kind: &str, lines: Vec<(String, f64, i64)>| {
        writeln!(out, "# HELP {name} [STABLE] {help}\n# TYPE {name} {kind}")
            .expect("a String takes every write");
        for (labels, value, at) in lines {
            writeln!(out, "{name}{labels} {value} {}", at / 1_000_000).expect("a String takes every write");
        }
    };
    let container = |c: &ContainerUse| {
        format!("{{container=\"{}\",namespace=\"{}\",pod=\"{}\"}}", c.name, c.namespace, c.pod)
    };
    let each = |of: &dyn Fn(&ContainerUse) -> f64| {
        figures.containers.iter().map(|c| (container(c), of(c), c.at)).collect::<Vec<_>>()
    };
    let mut by_pod: std::collections::BTreeMap<(String, String), (u64, u64, i64)> = Default::default();
    for c in &figures.containers {
        let sum = by_pod.entry((c.namespace.clone(), c.pod.clone())).or_default();
        *sum = (sum.0 + c.cpu, sum.1 + c.working_set, sum.2.max(c.at));
    }
    let per_pod = |of: &dyn Fn(&(u64, u64, i64)) -> f64| {
        let line = |((ns, pod), sum): (&(String, String), &(u64, u64, i64))| {
            (format!("{{namespace=\"{ns}\",pod=\"{pod}\"}}"), of(sum), sum.2)
        };
        by_pod.iter().map(line).collect::<Vec<_>>()
    };
    let starts = figures.containers.iter().filter_map(|c| {
        let pod = pods.iter().find(|p| super::containers::runtime_uid(p) == c.uid)?;
        Some((container(c), started(pod, &c.name)?.0.as_second() as f64, c.at))
    });
    let cumulative = "Cumulative cpu time consumed by the";
    family(
        "container_cpu_usage_seconds_total",
        &format!("{cumulative} container in core-seconds"),
        "counter",
        each(&|c| seconds(c.cpu)),
    );
    family(
        "container_memory_working_set_bytes",
        "Current working set of the container in bytes",
        "gauge",
        each(&|c| c.working_set as f64),
    );
    family(
        "container_start_time_seconds",
        "Start time of the container since unix epoch in seconds",
        "gauge",
        starts.collect(),
    );
    family(
        "node_cpu_usage_seconds_total",
        &format!("{cumulative} node in core-seconds"),
        "counter",
        vec![(String::new(), seconds(figures.node.cpu), figures.at)],
    );
    family(
        "node_memory_working_set_bytes",
        "Current working set of the node in bytes",
        "gauge",
        vec![(String::new(), figures.node.working_set as f64, figures.at)],
    );
    family(
        "pod_cpu_usage_seconds_total",
        &format!("{cumulative} pod in core-seconds"),
        "counter",
        per_pod(&|s| seconds(s.0)),
    );
    family(
        "pod_memory_working_set_bytes",
        "Current working set of the pod in bytes",
        "gauge",
        per_pod(&|s| s.1 as f64),
    );
    out.push_str("# HELP resource_scrape_error [STABLE] 1 if there was an error while getting container metrics, 0 otherwise\n# TYPE resource_scrape_error gauge\nresource_scrape_error 0\n");
    out
}

/// The figures of containers under the names that dashboards know from cAdvisor.
pub(super) async fn cadvisor(sources: &Sources) -> Response<Body> {
    let figures = match look(sources).await {
        Ok(figures) => figures,
        Err(answer) => return answer,
    };
    let info = sources.host.machine.info();
    let mut out = format!(
        "# TYPE machine_cpu_cores gauge\nmachine_cpu_cores {}\n# TYPE machine_memory_bytes gauge\nmachine_memory_bytes {}\n",
        info.processors, info.memory
    );
    type Family = (&'static str, &'static str, fn(&ContainerUse) -> f64);
    let families: [Family; 6] = [
        ("container_cpu_usage_seconds_total", "counter", |c| seconds(c.cpu)),
        ("container_memory_usage_bytes", "gauge", |c| c.usage.max(c.working_set) as f64),
        ("container_memory_working_set_bytes", "gauge", |c| c.working_set as f64),
        ("container_memory_rss", "gauge", |c| c.rss as f64),
        ("container_fs_usage_bytes", "gauge", |c| c.writable_bytes as f64),
        ("container_fs_inodes_total", "gauge", |c| c.writable_inodes as f64),
    ];
    for (name, kind, of) in families {
        writeln!(out, "# TYPE {name} {kind}").expect("a String takes every write");
        for c in &figures.containers {
            let labels = format!(
                "container=\"{}\",id=\"{}\",name=\"{}\",namespace=\"{}\",pod=\"{}\"",
                c.name, c.id, c.id, c.namespace, c.pod
            );
            writeln!(out, "{name}{{{labels}}} {} {}", of(c), c.at / 1_000_000)
                .expect("a String takes every write");
        }
    }
    text(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resource_metrics_have_upstreams_names_and_labels() {
        let c = |name: &str, cpu: u64| ContainerUse {
            uid: "u1".into(),
            namespace: "default".into(),
            pod: "web".into(),
            name: name.into(),
            at: 5_000_000_000,
            cpu,
            working_set: 1024,
            ..ContainerUse::default()
        };
        let figures = Figures {
            at: 6_000_000_000,
            node: Usage { cpu: 3_000_000_000, ..Usage::default() },
            containers: vec![c("a", 1_500_000_000), c("b", 500_000_000)],
        };
        let text = resource_text(&figures, &[]);
        for line in [
            "container_cpu_usage_seconds_total{container=\"a\",namespace=\"default\",pod=\"web\"} 1.5 5000",
            "pod_cpu_usage_seconds_total{namespace=\"default\",pod=\"web\"} 2 5000",
            "pod_memory_working_set_bytes{namespace=\"default\",pod=\"web\"} 2048 5000",
            "node_cpu_usage_seconds_total 3 6000",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn volumes_are_told_with_their_claims() {
        let usage = FilesystemUsage { capacity: 100, available: 60, used: 40, inodes: 10, inodes_free: 7 };
        let volume = |claim: Option<&str>| VolumeUse {
            name: "v".into(),
            claim: claim.map(str::to_owned),
            usage,
            inodes_used: 3,
        };
        let pod = crate::kubelet::pods::fixture::pod(json!({"containers": []}));
        let got = of_volume(0, &pod, &volume(Some("c")));
        assert_eq!(
            (&got["usedBytes"], &got["inodesUsed"], &got["name"]),
            (&json!(40), &json!(3), &json!("v"))
        );
        assert_eq!(got["pvcRef"], json!({"name": "c", "namespace": "default"}));
        assert_eq!(of_volume(0, &pod, &volume(None)).get("pvcRef"), None);
    }

    #[test]
    fn times_are_the_apis() {
        assert_eq!(time(1_767_225_600_123_456_789), "2026-01-01T00:00:00Z");
    }
}
