//! The probes of one pod's containers: which ones run, and what they said.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Pod, Probe};
use tokio::task::{AbortHandle, JoinSet};

use super::plan::Memory;
use super::state::Life;
use crate::kubelet::context::Context;
use crate::kubelet::observed::{ObservedContainer, ObservedPod};
use crate::kubelet::probes::act::Target;
use crate::kubelet::probes::counts::Whose;
use crate::kubelet::probes::run::{Verdict, Verdicts, run};
use crate::kubelet::probes::track::ProbeKind;
use crate::kubelet::spec;

/// Probes of one pod.
#[derive(Default)]
pub struct Probes {
    tasks: JoinSet<()>,
    running: HashMap<(String, ProbeKind), AbortHandle>,
    verdicts: Arc<Verdicts>,
    results: HashMap<(String, ProbeKind), bool>,
}

impl Probes {
    /// The next verdict.
    pub async fn next(&self) -> Verdict {
        self.verdicts.next().await
    }

    /// Takes a verdict into account.
    pub fn note(&mut self, verdict: Verdict) {
        self.results.insert((verdict.container_id, verdict.kind), verdict.healthy);
    }

    /// Containers that the API calls started or ready keep that until their probes say otherwise: a restarted kubelet
    /// must not take healthy pods out of their Services.
    pub fn adopt(&mut self, pod: &Pod) {
        let status = pod.status.iter();
        let lists = status.flat_map(|s| [&s.container_statuses, &s.init_container_statuses]);
        for status in lists.flatten().flatten() {
            let Some(id) = status.container_id.as_deref().and_then(|id| id.split("://").nth(1)) else {
                continue;
            };
            if status.started == Some(true) {
                self.results.insert((id.to_owned(), ProbeKind::Startup), true);
            }
            if status.ready {
                self.results.insert((id.to_owned(), ProbeKind::Readiness), true);
            }
        }
    }

    fn started(&self, id: &str, c: &Container) -> bool {
        c.startup_probe.is_none() || self.results.get(&(id.to_owned(), ProbeKind::Startup)) == Some(&true)
    }

    /// Writes what the probes say into the worker's memory; returns the containers that are not ready.
    pub fn judge(&mut self, pod: &Pod, observed: &ObservedPod, memory: &mut Memory) -> HashSet<String> {
        self.results.retain(|(id, _), _| observed.containers.iter().any(|c| c.id == *id && c.running()));
        memory.unhealthy.retain(|id, _| observed.containers.iter().any(|c| c.id == *id && c.running()));
        memory.started.clear();
        let mut unready = HashSet::new();
        for (c, o) in probed(pod, observed) {
            if self.started(&o.id, c) {
                memory.started.insert(o.id.clone());
            }
            let said = |kind| self.results.get(&(o.id.clone(), kind)).copied();
            if c.readiness_probe.is_some() && said(ProbeKind::Readiness) != Some(true) {
                unready.insert(o.id.clone());
            }
            for (kind, probe) in
                [(ProbeKind::Startup, &c.startup_probe), (ProbeKind::Liveness, &c.liveness_probe)]
            {
                if let Some(probe) = probe
                    && said(kind) == Some(false)
                {
                    memory.unhealthy.insert(o.id.clone(), sentence(pod, c, kind, probe));
                }
            }
        }
        unready
    }

    /// Starts the probes that should run and stops the others.
    pub fn sync(&mut self, ctx: &Arc<Context>, pod: Option<&Pod>, observed: &ObservedPod, life: &Life) {
        let probed = pod.into_iter().flat_map(|pod| probed(pod, observed));
        let wanted: Vec<_> = probed
            .flat_map(|(c, o)| self.due(life, c, o).into_iter().map(move |(kind, probe)| (c, o, kind, probe)))
            .collect();
        self.running.retain(|(id, kind), task| {
            let keep = wanted.iter().any(|(_, o, wanted, _)| o.id == *id && wanted == kind);
            if !keep {
                task.abort();
            }
            keep
        });
        while self.tasks.try_join_next().is_some() {}
        let missing = |(_, o, kind, _): &(_, &ObservedContainer, _, _)| {
            !self.running.keys().any(|(id, running)| *id == o.id && running == kind)
        };
        let missing: Vec<_> = wanted.into_iter().filter(missing).collect();
        let Some(pod) = pod.filter(|_| !missing.is_empty()) else { return };
        let ips = observed.ready_sandbox().map(|s| s.ips.clone()).unwrap_or_default();
        let facts = ctx.facts(ips);
        let ips = if spec::host_network(pod) { facts.host_ips } else { facts.pod_ips };
        for (container, o, kind, probe) in missing {
            let target =
                Target::new(&ctx.runtime, &o.id, container, ips.first().cloned().unwrap_or_default());
            let since = o.started_at.map(|s| ctx.now().duration_since(s));
            let age = since.and_then(|d| Duration::try_from(d).ok()).unwrap_or_default();
            let counted = (ctx.probes.clone(), Whose::new(pod, &target.name));
            let told = (ctx.events(pod), self.verdicts.clone());
            let task = self.tasks.spawn(run(kind, probe.clone(), target, age, counted, told));
            self.running.insert((o.id.clone(), kind), task);
        }
    }

    fn due<'a>(&self, life: &Life, c: &'a Container, o: &ObservedContainer) -> Vec<(ProbeKind, &'a Probe)> {
        let said = |kind| self.results.get(&(o.id.clone(), kind)).copied();
        let active = *life == Life::Active;
        let stopping = matches!(life, Life::Stopping(_));
        let mut out = Vec::new();
        if !self.started(&o.id, c) {
            // A failed startup probe is over; the container is about to be killed.
            if active && said(ProbeKind::Startup).is_none() {
                out.extend(c.startup_probe.as_ref().map(|p| (ProbeKind::Startup, p)));
            }
            return out;
        }
        if active && said(ProbeKind::Liveness) != Some(false) {
            out.extend(c.liveness_probe.as_ref().map(|p| (ProbeKind::Liveness, p)));
        }
        if active || stopping {
            out.extend(c.readiness_probe.as_ref().map(|p| (ProbeKind::Readiness, p)));
        }
        out
    }
}

/// Running containers that may have probes.
fn probed<'a>(
    pod: &'a Pod,
    observed: &'a ObservedPod,
) -> impl Iterator<Item = (&'a Container, &'a ObservedContainer)> {
    let sidecars = spec::init_containers(pod).iter().filter(|c| spec::is_sidecar(c));
    let all = sidecars.chain(spec::main_containers(pod));
    all.filter_map(|c| Some((c, observed.latest(&c.name).filter(|o| o.running())?)))
}

fn sentence(pod: &Pod, c: &Container, kind: ProbeKind, probe: &Probe) -> (String, Duration) {
    let word = kind.word().to_lowercase();
    let message = format!("Container {} failed {word} probe, will be restarted", c.name);
    let own = probe.termination_grace_period_seconds.and_then(|s| u64::try_from(s).ok());
    (message, own.map_or_else(|| spec::spec_grace(pod), Duration::from_secs))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubelet::pods::fixture::{observed, pod, running};
    use serde_json::json;

    fn with_probes() -> Pod {
        pod(json!({"containers": [{"name": "a", "image": "img",
            "startupProbe": {"tcpSocket": {"port": 1}},
            "livenessProbe": {"tcpSocket": {"port": 1}, "terminationGracePeriodSeconds": 4},
            "readinessProbe": {"tcpSocket": {"port": 1}}}]}))
    }

    fn kinds(probes: &Probes, life: &Life) -> Vec<ProbeKind> {
        let pod = with_probes();
        let running = running("a");
        let due = probes.due(life, &spec::main_containers(&pod)[0], &running);
        due.into_iter().map(|(kind, _)| kind).collect()
    }

    fn say(probes: &mut Probes, kind: ProbeKind, healthy: bool) {
        probes.note(Verdict { container_id: "a-0".into(), kind, healthy });
    }

    #[test]
    fn the_startup_probe_holds_the_others_back() {
        let mut probes = Probes::default();
        assert_eq!(kinds(&probes, &Life::Active), [ProbeKind::Startup]);
        say(&mut probes, ProbeKind::Startup, true);
        assert_eq!(kinds(&probes, &Life::Active), [ProbeKind::Liveness, ProbeKind::Readiness]);
        say(&mut probes, ProbeKind::Liveness, false);
        assert_eq!(kinds(&probes, &Life::Active), [ProbeKind::Readiness]);
        assert!(kinds(&probes, &Life::Gone).is_empty());
    }

    #[test]
    fn verdicts_become_started_ready_and_unhealthy() {
        let (pod, have) = (with_probes(), observed(vec![running("a")]));
        let (mut probes, mut memory) = (Probes::default(), Memory::default());
        assert!(probes.judge(&pod, &have, &mut memory).contains("a-0"));
        assert!(memory.started.is_empty());
        say(&mut probes, ProbeKind::Startup, true);
        say(&mut probes, ProbeKind::Readiness, true);
        say(&mut probes, ProbeKind::Liveness, false);
        assert!(probes.judge(&pod, &have, &mut memory).is_empty());
        assert!(memory.started.contains("a-0"));
        let (message, grace) = &memory.unhealthy["a-0"];
        assert_eq!(message, "Container a failed liveness probe, will be restarted");
        assert_eq!(*grace, Duration::from_secs(4));
    }

    #[test]
    fn a_restarted_kubelet_believes_the_api() {
        let mut pod = with_probes();
        pod.status =
            serde_json::from_value(json!({"containerStatuses": [{"name": "a", "image": "", "imageID": "",
            "ready": true, "started": true, "restartCount": 0, "containerID": "containerd://a-0"}]}))
            .unwrap();
        let (mut probes, mut memory) = (Probes::default(), Memory::default());
        probes.adopt(&pod);
        let unready = probes.judge(&pod, &observed(vec![running("a")]), &mut memory);
        assert!(unready.is_empty() && memory.started.contains("a-0"));
    }
}
