//! The next step of a deployment: which ReplicaSets to create, scale, annotate and delete, and what the status says.
//!
//! One reconcile makes one step, as upstream's does: a rollout that scales its new set up leaves the old ones for the
//! next reconcile, which comes with the event that the scaling causes.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::{Deployment, DeploymentStatus, ReplicaSet, ReplicaSetSpec};
use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::jiff::Timestamp;

use super::conditions as c;
use super::sets::Sets;
use super::strategy::Limits;
use super::{annotations, cleanup, rolling, scale, status, template};
use crate::controllers::workload::{ownership, pods};

/// A write to one ReplicaSet.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Create the set of the current template.
    Create(Box<ReplicaSet>),
    /// Write the set back; `from` and `to` differ when it is scaled.
    Update {
        /// The whole wanted object, with the resource version it was planned from.
        set: Box<ReplicaSet>,
        /// Its size before.
        from: i32,
        /// Its size now.
        to: i32,
    },
    /// Delete a set that history does not need any more.
    Delete(Arc<ReplicaSet>),
}

/// Everything one reconcile does.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// Writes to ReplicaSets, in order.
    pub actions: Vec<Action>,
    /// The revision to record on the deployment, if it has another one.
    pub revision: Option<String>,
    /// The status, which may be the one the deployment has.
    pub status: DeploymentStatus,
    /// When to look again without any event.
    pub requeue: Option<Duration>,
}

/// What the plan is made from.
#[derive(Debug, Clone)]
pub struct Input<'a> {
    /// The deployment.
    pub deployment: &'a Deployment,
    /// The ReplicaSets it controls.
    pub sets: Vec<Arc<ReplicaSet>>,
    /// The pods of those ReplicaSets; only asked for by the Recreate strategy.
    pub pods: &'a [Arc<Pod>],
    /// The current time.
    pub now: Timestamp,
}

/// Makes the plan.
pub fn plan(input: Input<'_>) -> Plan {
    let deployment = input.deployment;
    let before = deployment.status.clone().unwrap_or_default();
    let mut step = Step {
        deployment,
        limits: Limits::of(deployment),
        sets: Sets::of(deployment, input.sets),
        pods: input.pods,
        before,
        now: input.now,
        create: None,
        delete: Vec::new(),
        revision: None,
    };
    let status = step.run();
    step.finish(status)
}

/// A plan in the making.
struct Step<'a> {
    deployment: &'a Deployment,
    limits: Limits,
    sets: Sets,
    pods: &'a [Arc<Pod>],
    /// The status as it is, with conditions that the step adds on the way.
    before: DeploymentStatus,
    now: Timestamp,
    create: Option<Box<ReplicaSet>>,
    delete: Vec<Arc<ReplicaSet>>,
    revision: Option<String>,
}

impl Step<'_> {
    fn run(&mut self) -> DeploymentStatus {
        if self.deployment.metadata.deletion_timestamp.is_some() {
            return status::counters(self.deployment, &self.before, &self.sets, self.now);
        }
        status::paused(self.deployment, &mut self.before, self.now);
        let paused = self.deployment.spec.as_ref().and_then(|s| s.paused).unwrap_or(false);
        if paused || scale::is_scaling_event(&self.sets, &self.limits) {
            return self.only_scale(paused);
        }
        if self.limits.recreate {
            self.recreate()
        } else {
            self.rolling_update()
        }
        status::rollout(self.deployment, &self.before, &self.sets, self.now)
    }

    fn only_scale(&mut self, paused: bool) -> DeploymentStatus {
        self.sync_new_set();
        scale::scale(&mut self.sets, &self.limits, self.before.replicas.unwrap_or(0));
        if paused {
            self.delete = cleanup::surplus(self.deployment, &self.sets.old);
        }
        status::counters(self.deployment, &self.before, &self.sets, self.now)
    }

    fn rolling_update(&mut self) {
        self.sync_or_create_new_set();
        if self.create.is_some() || rolling::scale_new(&mut self.sets, &self.limits) {
            return;
        }
        if !rolling::scale_down_old(&mut self.sets, &self.limits) {
            self.clean_up_when_complete();
        }
    }

    fn recreate(&mut self) {
        self.sync_new_set();
        let mut scaled = false;
        for old in self.sets.old.iter_mut().filter(|old| old.replicas() > 0) {
            scaled |= old.scale(0, self.limits.replicas, self.limits.max_total());
        }
        if scaled || self.old_pods_running() {
            return;
        }
        self.sync_or_create_new_set();
        if let Some(new) = &mut self.sets.new
            && new.replicas() != self.limits.replicas
        {
            new.scale(self.limits.replicas, self.limits.replicas, self.limits.max_total());
        }
        self.clean_up_when_complete();
    }

    fn old_pods_running(&self) -> bool {
        let new_uid = self.sets.new.as_ref().and_then(|new| new.original.metadata.uid.as_deref());
        self.pods
            .iter()
            .filter(|pod| !pods::is_finished(pod))
            .any(|pod| ownership::controller_uid(&pod.metadata) != new_uid)
    }

    fn clean_up_when_complete(&mut self) {
        if self.create.is_none() && status::is_complete(self.deployment, &self.before) {
            self.delete = cleanup::surplus(self.deployment, &self.sets.old);
        }
    }

    /// The revision that the current template has or gets.
    fn next_revision(&self) -> i64 {
        let old = self.sets.old.iter().map(|set| annotations::revision(&set.original.metadata));
        old.max().unwrap_or(0) + 1
    }

    /// Brings the existing new set's annotations and settings up to date.
    fn sync_new_set(&mut self) {
        let revision = self.next_revision();
        let min_ready = self.deployment.spec.as_ref().and_then(|s| s.min_ready_seconds);
        let Some(new) = &mut self.sets.new else { return };
        annotations::sync_new_set(&mut new.wanted.metadata, &self.deployment.metadata, revision);
        let spec = new.wanted.spec.get_or_insert_default();
        if spec.min_ready_seconds.unwrap_or(0) != min_ready.unwrap_or(0) {
            spec.min_ready_seconds = min_ready;
        }
        let name = new.original.metadata.name.as_deref().unwrap_or_default();
        if status::progress_deadline(self.deployment).is_some()
            && c::get(&self.before, c::PROGRESSING).is_none()
        {
            let message = format!("Found new replica set \"{name}\"");
            let found = c::new(c::PROGRESSING, "True", c::FOUND_NEW_SET, message, self.now);
            c::set(&mut self.before, found);
        }
        let revision = annotations::revision(&new.wanted.metadata);
        self.record_revision(revision);
    }

    fn sync_or_create_new_set(&mut self) {
        if self.sets.new.is_some() {
            return self.sync_new_set();
        }
        let revision = self.next_revision();
        let size = rolling::new_set_size(&self.limits, 0, self.sets.total_replicas());
        let set = new_set(self.deployment, &self.limits, size, revision, &self.before);
        self.record_revision(revision);
        if status::progress_deadline(self.deployment).is_some() {
            let name = set.metadata.name.as_deref().unwrap_or_default();
            let message = format!("Created new replica set \"{name}\"");
            let created = c::new(c::PROGRESSING, "True", c::NEW_SET_CREATED, message, self.now);
            c::set(&mut self.before, created);
        }
        self.create = Some(Box::new(set));
    }

    fn record_revision(&mut self, revision: i64) {
        let known = annotations::get(&self.deployment.metadata, annotations::REVISION);
        let revision = revision.to_string();
        self.revision = (known != Some(revision.as_str())).then_some(revision);
    }

    fn finish(self, status: DeploymentStatus) -> Plan {
        let updates = self.sets.all().filter(|set| set.changed()).map(|set| Action::Update {
            set: Box::new(set.wanted.clone()),
            from: super::sets::replicas(&set.original),
            to: set.replicas(),
        });
        let deletes = self.delete.into_iter().map(Action::Delete);
        let actions = self.create.into_iter().map(Action::Create).chain(updates).chain(deletes).collect();
        let requeue = status::recheck(self.deployment, &status, self.now);
        Plan { actions, revision: self.revision, status, requeue }
    }
}

/// The ReplicaSet of the deployment's current template.
fn new_set(
    deployment: &Deployment,
    limits: &Limits,
    size: i32,
    revision: i64,
    status: &DeploymentStatus,
) -> ReplicaSet {
    let spec = deployment.spec.clone().unwrap_or_default();
    let name = deployment.metadata.name.as_deref().unwrap_or_default();
    let hash = template::hash(&spec.template, status.collision_count.unwrap_or(0));
    let label = (template::HASH_LABEL.to_owned(), hash.clone());
    let mut pod_meta = spec.template.metadata.unwrap_or_default();
    pod_meta.labels.get_or_insert_default().extend([label.clone()]);
    let mut selector = spec.selector;
    selector.match_labels.get_or_insert_default().extend([label]);
    let mut metadata = ObjectMeta {
        name: Some(template::set_name(name, &hash)),
        namespace: deployment.metadata.namespace.clone(),
        labels: pod_meta.labels.clone(),
        owner_references: Some(vec![ownership::controller_reference(
            "apps/v1",
            "Deployment",
            &deployment.metadata,
        )]),
        ..ObjectMeta::default()
    };
    annotations::sync_new_set(&mut metadata, &deployment.metadata, revision);
    annotations::set_sizes(&mut metadata, limits.replicas, limits.max_total());
    ReplicaSet {
        metadata,
        spec: Some(ReplicaSetSpec {
            replicas: Some(size),
            min_ready_seconds: spec.min_ready_seconds,
            selector,
            template: Some(PodTemplateSpec { metadata: Some(pod_meta), spec: spec.template.spec }),
        }),
        status: None,
    }
}

/// The status after the current template's ReplicaSet could not be created.
pub fn create_failed(
    deployment: &Deployment,
    set_name: &str,
    error: &str,
    now: Timestamp,
) -> DeploymentStatus {
    let mut status = deployment.status.clone().unwrap_or_default();
    if status::progress_deadline(deployment).is_some() {
        let message = format!("Failed to create new replica set \"{set_name}\": {error}");
        c::set(&mut status, c::new(c::PROGRESSING, "False", c::SET_CREATE_ERROR, message, now));
    }
    status
}

/// Whether the set that already has the name is the very one that was to be created.
pub fn is_same_set(existing: &ReplicaSet, wanted: &ReplicaSet) -> bool {
    let template = |set: &ReplicaSet| set.spec.as_ref().and_then(|s| s.template.clone()).unwrap_or_default();
    ownership::controller_uid(&existing.metadata) == ownership::controller_uid(&wanted.metadata)
        && template::same(&template(existing), &template(wanted))
}

/// The label selector of the deployment, if it selects anything in particular.
pub fn selector(deployment: &Deployment) -> Option<&LabelSelector> {
    let selector = &deployment.spec.as_ref()?.selector;
    let empty = selector.match_labels.as_ref().is_none_or(std::collections::BTreeMap::is_empty)
        && selector.match_expressions.as_ref().is_none_or(Vec::is_empty);
    (!empty).then_some(selector)
}
