//! `PodStatus` as a function of the spec, the runtime's report, probe results and start failures.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    ContainerStatus, HostIP, Pod, PodCondition, PodIP, PodStatus, ResourceRequirements,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{conditions, container, phase};
use crate::kubelet::observed::ObservedPod;
use crate::kubelet::pods::plan::StartFailure;
use crate::kubelet::pods::state::Life;
use crate::kubelet::spec::{self, Kind};

/// Everything the status is derived from.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// The pod as the API (or the manifest) has it, with its former status.
    pub pod: &'a Pod,
    /// Where the worker is.
    pub life: &'a Life,
    /// What the runtime holds.
    pub observed: &'a ObservedPod,
    /// Containers that wait out a back-off, with their message.
    pub crash_loop: &'a BTreeMap<String, String>,
    /// Containers that could not be started.
    pub failures: &'a HashMap<String, StartFailure>,
    /// Containers (ids) that have started, startup probe and postStart hook included.
    pub started: &'a HashSet<String>,
    /// Containers (ids) whose readiness probe says no, or has not said anything yet.
    pub unready: &'a HashSet<String>,
    /// What containers (ids) have of CPU and memory.
    pub actuated: &'a BTreeMap<String, ResourceRequirements>,
    /// Conditions of a resize.
    pub resize: &'a [PodCondition],
    /// The node's addresses.
    pub node_ips: &'a [IpAddr],
    /// Scheme of container ids, `containerd`.
    pub runtime_name: &'a str,
    /// The time.
    pub now: Timestamp,
}

impl View<'_> {
    /// The pod has stopped for good.
    pub fn stopped(&self) -> bool {
        matches!(self.life, Life::Stopped(_) | Life::Gone)
    }

    fn former(&self) -> PodStatus {
        self.pod.status.clone().unwrap_or_default()
    }
}

/// The status that the API should show.
pub fn derive(view: &View<'_>) -> PodStatus {
    let former = view.former();
    let of = |kind: fn(Kind) -> bool| -> Vec<ContainerStatus> {
        let wanted = spec::all_containers(view.pod).filter(|(k, _)| kind(*k));
        wanted.map(|(k, c)| container::status(view, k, &c)).collect()
    };
    let mut status = PodStatus {
        init_container_statuses: some_if_any(of(|k| matches!(k, Kind::Init | Kind::Sidecar))),
        container_statuses: some_if_any(of(|k| k == Kind::Main)),
        ephemeral_container_statuses: some_if_any(of(|k| k == Kind::Ephemeral)),
        start_time: former.start_time.clone().or(Some(time(view.now))),
        observed_generation: view.pod.metadata.generation.or(former.observed_generation),
        ..former.clone()
    };
    status.phase = Some(phase::phase(view, &status).to_owned());
    set_failure(view, &mut status);
    set_addresses(view, &mut status);
    status.conditions = Some(conditions::conditions(view, &status));
    status
}

/// A time as the API keeps it, in whole seconds: anything finer would differ from what is read back.
pub fn time(at: Timestamp) -> Time {
    Time(Timestamp::from_second(at.as_second()).unwrap_or(at))
}

fn some_if_any<T>(list: Vec<T>) -> Option<Vec<T>> {
    (!list.is_empty()).then_some(list)
}

fn set_failure(view: &View<'_>, status: &mut PodStatus) {
    let Some((reason, message)) = view.life.stop().and_then(|s| s.failure()) else { return };
    status.reason = Some(reason.to_owned());
    status.message = Some(message.to_owned());
    if view.stopped() {
        status.phase = Some("Failed".to_owned());
    }
}

fn set_addresses(view: &View<'_>, status: &mut PodStatus) {
    let hosts: Vec<HostIP> = view.node_ips.iter().map(|ip| HostIP { ip: ip.to_string() }).collect();
    if !hosts.is_empty() {
        status.host_ip = Some(hosts[0].ip.clone());
        status.host_ips = Some(hosts.clone());
    }
    let ips: Vec<String> = if spec::host_network(view.pod) {
        hosts.into_iter().map(|h| h.ip).collect()
    } else {
        view.observed.ready_sandbox().map(|s| s.ips.clone()).unwrap_or_default()
    };
    if !ips.is_empty() {
        status.pod_ip = Some(ips[0].clone());
        status.pod_ips = Some(ips.into_iter().map(|ip| PodIP { ip }).collect());
    } else if *view.life == Life::Active {
        // A pod that lost its sandbox has no address; a stopped one keeps showing its last.
        status.pod_ip = None;
        status.pod_ips = None;
    }
}
