//! The worker's part in an in-place resize: grants what fits, then changes containers and the pod's group one after
//! the other, and says in conditions what is still to come.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod, PodCondition, ResourceRequirements};

use super::{Done, Worker};
use crate::cri::v1;
use crate::kubelet::containers::resources::{self, linux_resources};
use crate::kubelet::context::Context;
use crate::kubelet::observed::ObservedContainer;
use crate::kubelet::pods::resize::{Allocation, Change, Verdict};
use crate::kubelet::pods::sandbox::{chain, resize_cgroup};
use crate::kubelet::pods::state::Life;
use crate::kubelet::pods::table::Table;
use crate::kubelet::spec;

/// Wait before a resize that failed, or that found no room, is looked at again.
const RETRY: Duration = Duration::from_secs(10);

/// Type of the condition of a resize that the node has not granted.
pub(super) const PENDING: &str = "PodResizePending";
/// Type of the condition of a resize that is granted and not yet done.
pub(super) const IN_PROGRESS: &str = "PodResizeInProgress";

/// Where the pod's resize is.
#[derive(Default)]
pub(super) struct Resizing {
    allocation: Option<Allocation>,
    /// Reason and message.
    pending: Option<(&'static str, String)>,
    under_way: bool,
    running: bool,
    error: Option<String>,
    retry_at: Option<Timestamp>,
}

/// One container that is to get other resources.
struct Step {
    id: String,
    container: Container,
    former: ResourceRequirements,
}

/// How a round of changes ended.
pub(super) struct Outcome {
    actuated: BTreeMap<String, ResourceRequirements>,
    error: Option<String>,
}

impl Resizing {
    /// The pod as everything else should see it.
    pub(super) fn shown(&self, raw: &Arc<Pod>) -> Arc<Pod> {
        let applied = self.allocation.as_ref().and_then(|a| a.apply(raw));
        applied.map_or_else(|| raw.clone(), Arc::new)
    }

    /// What the container `id` has by now.
    pub(super) fn actuated(&self, observed: &[ObservedContainer]) -> BTreeMap<String, ResourceRequirements> {
        let Some(allocation) = &self.allocation else { return BTreeMap::new() };
        let has = |c: &ObservedContainer| {
            let resources = allocation.actuated(&c.id, c.resources.as_ref())?;
            Some((c.id.clone(), resources.clone()))
        };
        observed.iter().filter_map(has).collect()
    }

    /// The conditions that say what is still to come.
    pub(super) fn conditions(&self, now: Timestamp) -> Vec<PodCondition> {
        let condition = |type_: &str, reason: Option<&str>, message: Option<String>| PodCondition {
            type_: type_.to_owned(),
            status: "True".to_owned(),
            reason: reason.map(str::to_owned),
            message,
            last_transition_time: Some(crate::kubelet::status::derive::time(now)),
            ..PodCondition::default()
        };
        let mut out = Vec::new();
        if let Some((reason, message)) = &self.pending {
            out.push(condition(PENDING, Some(reason), Some(message.clone())));
        }
        if self.under_way {
            out.push(condition(IN_PROGRESS, self.error.as_ref().map(|_| "Error"), self.error.clone()));
        }
        out
    }
}

impl Worker {
    /// Grants and begins what can be done by now; returns when to look again.
    pub(super) fn resize(&mut self, table: &Table, now: Timestamp) -> Option<Timestamp> {
        let raw = self.raw.clone()?;
        if self.life != Life::Active {
            return None;
        }
        let directory = self.ctx.config.pod_dir(&self.uid);
        let observed = self.observed.clone();
        let allocation =
            self.resizing.allocation.get_or_insert_with(|| Allocation::recover(&directory, &raw, &observed));
        let others: Vec<Arc<Pod>> = if allocation.apply(&raw).is_some() {
            let all = table.snapshots().into_iter().filter(|s| s.active).filter_map(|s| s.pod);
            all.filter(|p| spec::uid(p) != self.uid).collect()
        } else {
            Vec::new()
        };
        let others: Vec<&Pod> = others.iter().map(AsRef::as_ref).collect();
        let verdict = allocation.judge(&raw, &others, self.ctx.node.borrow().as_deref());
        let pending = match verdict {
            Verdict::Same => None,
            Verdict::Fits => {
                let mut granted = allocation.clone();
                granted.grant(&raw);
                match granted.save(&directory) {
                    Ok(()) => {
                        *allocation = granted;
                        self.resizing.under_way = true;
                        self.ctx.events(&raw).normal(None, "ResizeStarted", "Pod resize started");
                        None
                    }
                    Err(error) => Some(("Deferred", format!("the allocation cannot be kept: {error}"))),
                }
            }
            Verdict::Infeasible(message) => Some(("Infeasible", message)),
            Verdict::Deferred(message) => Some(("Deferred", message)),
        };
        if pending != self.resizing.pending
            && let Some((reason, message)) = &pending
        {
            self.ctx.events(&raw).warning(None, &format!("Resize{reason}"), message);
        }
        self.resizing.pending = pending;
        self.pod = Some(self.resizing.shown(&raw));
        self.actuate(now);
        let waits = self.resizing.pending.as_ref().is_some_and(|(reason, _)| *reason == "Deferred");
        let later = waits.then(|| now.checked_add(RETRY).ok()).flatten();
        later.into_iter().chain(self.resizing.retry_at.filter(|at| *at > now)).min()
    }

    /// Begins to change what differs from the allocation.
    fn actuate(&mut self, now: Timestamp) {
        let (Some(pod), Some(allocation)) = (self.pod.clone(), &self.resizing.allocation) else { return };
        if self.resizing.running || self.resizing.retry_at.is_some_and(|at| at > now) {
            return;
        }
        let mut steps = Vec::new();
        let mut restarts = false;
        for container in spec::init_containers(&pod).iter().chain(spec::main_containers(&pod)) {
            let Some(observed) = self.observed.latest(&container.name).filter(|c| c.running()) else {
                continue;
            };
            let has = allocation.actuated(&observed.id, observed.resources.as_ref());
            match allocation.change(container, has) {
                Change::None => {}
                Change::Update => steps.push(Step {
                    id: observed.id.clone(),
                    container: container.clone(),
                    former: has.cloned().unwrap_or_default(),
                }),
                Change::Restart => {
                    restarts = true;
                    let message = format!("Container {} resize requires restart", container.name);
                    let kill = (message, spec::spec_grace(&pod));
                    self.memory.unhealthy.entry(observed.id.clone()).or_insert(kill);
                }
            }
        }
        if steps.is_empty() {
            // A restart is over when the new container, made with the allocation, is seen.
            if self.resizing.under_way && !restarts {
                self.resizing.under_way = false;
                self.resizing.error = None;
                self.ctx.events(&pod).normal(None, "ResizeCompleted", "Pod resize completed");
                let (ctx, pod) = (self.ctx.clone(), pod);
                self.tasks.spawn(async move {
                    resize_cgroup(&ctx, &pod, &pod).await;
                    Done::Resized(Outcome { actuated: BTreeMap::new(), error: None })
                });
                self.resizing.running = true;
            }
            return;
        }
        self.resizing.under_way = true;
        self.resizing.running = true;
        let ctx = self.ctx.clone();
        self.tasks.spawn(async move { Done::Resized(perform(&ctx, &pod, steps).await) });
    }

    /// Notes what became of a round of changes.
    pub(super) fn take_resized(&mut self, outcome: Outcome, now: Timestamp) {
        self.resizing.running = false;
        self.resizing.retry_at = outcome.error.as_ref().and_then(|_| now.checked_add(RETRY).ok());
        self.resizing.error = outcome.error;
        let Some(allocation) = &mut self.resizing.allocation else { return };
        if outcome.actuated.is_empty() {
            return;
        }
        allocation.actuated.retain(|id, _| self.observed.containers.iter().any(|c| c.id == *id));
        allocation.actuated.extend(outcome.actuated);
        if let Err(error) = allocation.save(&self.ctx.config.pod_dir(&self.uid)) {
            tracing::warn!(pod = %self.uid, %error, "what was resized is not written down");
        }
    }
}

/// Changes the containers one by one. While it goes on the pod's group has room for both sizes.
async fn perform(ctx: &Context, pod: &Pod, mut steps: Vec<Step>) -> Outcome {
    let mut before = pod.clone();
    for step in &steps {
        let spec = before.spec.get_or_insert_default();
        let all = spec.init_containers.iter_mut().flatten().chain(&mut spec.containers);
        all.filter(|c| c.name == step.container.name).for_each(|c| c.resources = Some(step.former.clone()));
    }
    resize_cgroup(ctx, &before, pod).await;
    // What is given back first is there for the others.
    let size = |c: &Container| resources::amount(c, true, "memory").unwrap_or(0);
    steps.sort_by_key(|s| {
        let former = s.former.limits.as_ref().and_then(|l| l.get("memory")).map_or(0, resources::milli);
        size(&s.container) - former
    });
    let mut out = Outcome { actuated: BTreeMap::new(), error: None };
    for step in steps {
        match update(ctx, pod, &step).await {
            Ok(()) => {
                out.actuated.insert(step.id, step.container.resources.unwrap_or_default());
            }
            Err(message) => out.error = out.error.or(Some(message)),
        }
    }
    out
}

async fn update(ctx: &Context, pod: &Pod, step: &Step) -> Result<(), String> {
    let mut linux = linux_resources(pod, &step.container, &ctx.limits);
    if linux.cpu_quota == 0 {
        linux.cpu_quota = -1;
    }
    let former = step.former.limits.as_ref().and_then(|l| l.get("memory")).map_or(i64::MAX, resources::units);
    if linux.memory_limit_in_bytes > 0 && linux.memory_limit_in_bytes < former {
        let stats = ctx.runtime.container_stats(&step.id).await.map_err(|e| e.upstream_message())?;
        let memory = stats.memory.unwrap_or_default();
        let used = memory.usage_bytes.or(memory.working_set_bytes).map_or(0, |v| v.value);
        if u64::try_from(linux.memory_limit_in_bytes).is_ok_and(|limit| limit < used) {
            return Err(format!(
                "attempting to set container {:?} memory limit ({}) below current usage ({used})",
                step.container.name, linux.memory_limit_in_bytes
            ));
        }
    }
    // The score belongs to the process and needs rights that a change of limits does not.
    linux.oom_score_adj = 0;
    let request = v1::UpdateContainerResourcesRequest {
        container_id: step.id.clone(),
        linux: Some(linux),
        ..v1::UpdateContainerResourcesRequest::default()
    };
    ctx.runtime.update_container_resources(request).await.map_err(|error| chain(&error))
}
