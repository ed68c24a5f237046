//! Rollouts played through the plan: a simulated cluster carries out each plan, and the pods' readiness is up to the test.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, ReplicaSetStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};

use super::plan::{Action, Input, Plan, plan};
use super::{annotations, conditions as c};
use crate::controllers::workload::ownership;
use crate::controllers::workload::pods::tests::{at, pod};

/// A deployment and its ReplicaSets, as the API server would have them.
struct World {
    deployment: Deployment,
    sets: Vec<Arc<ReplicaSet>>,
    pods: Vec<Arc<Pod>>,
    seconds: i64,
}

impl World {
    fn new(spec: Value) -> Self {
        let mut body = json!({
            "metadata": {"name": "web", "namespace": "default", "uid": "d", "generation": 1},
            "spec": {
                "replicas": 4, "progressDeadlineSeconds": 600, "revisionHistoryLimit": 10,
                "selector": {"matchLabels": {"app": "web"}},
                "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "v1"}]}},
            },
        });
        json_patch::merge(&mut body, &json!({"spec": spec}));
        let deployment = serde_json::from_value(body).unwrap();
        Self { deployment, sets: Vec::new(), pods: Vec::new(), seconds: 0 }
    }

    fn edit(&mut self, patch: Value) {
        let mut body = serde_json::to_value(&self.deployment).unwrap();
        json_patch::merge(&mut body, &json!({"spec": patch}));
        self.deployment = serde_json::from_value(body).unwrap();
        *self.deployment.metadata.generation.as_mut().unwrap() += 1;
    }

    fn set_image(&mut self, image: &str) {
        self.edit(json!({"template": {"spec": {"containers": [{"name": "c", "image": image}]}}}));
    }

    fn plan(&self) -> Plan {
        let now = at(self.seconds);
        plan(Input { deployment: &self.deployment, sets: self.sets.clone(), pods: &self.pods, now })
    }

    /// Plans and carries the plan out; returns what was done, in words.
    fn step(&mut self) -> Vec<String> {
        self.seconds += 1;
        let plan = self.plan();
        let done = plan.actions.into_iter().map(|action| self.act(action)).collect();
        if let Some(revision) = plan.revision {
            self.deployment
                .metadata
                .annotations
                .get_or_insert_default()
                .insert(annotations::REVISION.into(), revision);
        }
        self.deployment.status = Some(plan.status);
        done
    }

    fn act(&mut self, action: Action) -> String {
        match action {
            Action::Create(mut set) => {
                set.metadata.uid = set.metadata.name.clone();
                set.metadata.generation = Some(1);
                set.metadata.creation_timestamp = Some(Time(at(self.seconds)));
                let text = format!("create {} at {}", image(&set), super::sets::replicas(&set));
                self.sets.push(Arc::new(*set));
                text
            }
            Action::Update { set, from, to } => {
                let text = if from == to {
                    format!("annotate {}", image(&set))
                } else {
                    format!("scale {} {from}->{to}", image(&set))
                };
                let place = self.sets.iter_mut().find(|s| s.metadata.name == set.metadata.name).unwrap();
                *place = Arc::new(*set);
                text
            }
            Action::Delete(set) => {
                self.sets.retain(|s| s.metadata.name != set.metadata.name);
                format!("delete {}", image(&set))
            }
        }
    }

    /// The ReplicaSets follow their spec; of each image at most `ready(image)` pods become available.
    fn follow(&mut self, ready: impl Fn(&str) -> i32) {
        for set in &mut self.sets {
            let size = super::sets::replicas(set);
            let available = ready(&image(set)).min(size);
            let status = ReplicaSetStatus {
                replicas: size,
                ready_replicas: Some(available),
                available_replicas: Some(available),
                observed_generation: set.metadata.generation,
                ..ReplicaSetStatus::default()
            };
            Arc::make_mut(set).status = Some(status);
        }
    }

    /// Steps until nothing happens any more, with all pods becoming ready; returns everything that was done.
    fn settle(&mut self) -> Vec<String> {
        let mut all = Vec::new();
        for _ in 0..50 {
            let (before, done) = (self.deployment.status.clone(), self.step());
            if done.is_empty() && before == self.deployment.status {
                return all;
            }
            all.extend(done);
            self.follow(|_| i32::MAX);
        }
        panic!("does not settle: {all:?}");
    }

    fn condition(&self, type_: &str) -> (String, String) {
        let condition = c::get(self.deployment.status.as_ref().unwrap(), type_).unwrap();
        (condition.status.clone(), condition.reason.clone().unwrap())
    }

    fn revision(&self) -> i64 {
        annotations::revision(&self.deployment.metadata)
    }
}

fn image(set: &ReplicaSet) -> String {
    let template = set.spec.as_ref().unwrap().template.as_ref().unwrap();
    template.spec.as_ref().unwrap().containers[0].image.clone().unwrap()
}

fn condition(status: &str, reason: &str) -> (String, String) {
    (status.into(), reason.into())
}

#[test]
fn the_first_rollout_creates_one_set_and_completes() {
    let mut world = World::new(json!({}));
    assert_eq!(world.step(), ["create v1 at 4"]);
    assert_eq!(world.condition(c::PROGRESSING), condition("True", c::NEW_SET_CREATED));
    assert_eq!(world.condition(c::AVAILABLE), condition("False", c::MINIMUM_UNAVAILABLE));
    let set = &world.sets[0];
    let labels = set.metadata.labels.as_ref().unwrap();
    assert_eq!(set.metadata.name, Some(format!("web-{}", labels[super::template::HASH_LABEL])));
    assert_eq!(set.spec.as_ref().unwrap().selector.match_labels.as_ref(), Some(labels));
    world.follow(|_| 2);
    assert!(world.step().is_empty());
    assert_eq!(world.condition(c::PROGRESSING), condition("True", c::SET_UPDATED));
    world.follow(|_| 4);
    assert!(world.settle().is_empty());
    assert_eq!(world.condition(c::PROGRESSING), condition("True", c::NEW_SET_AVAILABLE));
    assert_eq!(world.condition(c::AVAILABLE), condition("True", c::MINIMUM_AVAILABLE));
    let status = world.deployment.status.as_ref().unwrap();
    assert_eq!(
        (status.updated_replicas, status.unavailable_replicas, status.observed_generation),
        (Some(4), Some(0), Some(1))
    );
    assert_eq!((world.revision(), world.plan().requeue), (1, None));
}

#[test]
fn a_rolling_update_never_leaves_its_limits() {
    let mut world = World::new(
        json!({"replicas": 10, "strategy": {"rollingUpdate": {"maxSurge": 3, "maxUnavailable": 2}}}),
    );
    world.settle();
    world.set_image("v2");
    for ready in 1..=40 {
        world.step();
        let total: i32 = world.sets.iter().map(|set| super::sets::replicas(set)).sum();
        assert!(total <= 13, "{total} pods");
        world.follow(|image| if image == "v2" { ready } else { i32::MAX });
        let available: i32 =
            world.sets.iter().map(|s| s.status.as_ref().unwrap().available_replicas.unwrap()).sum();
        assert!(available >= 8, "{available} available");
    }
    world.settle();
    assert_eq!(world.condition(c::PROGRESSING), condition("True", c::NEW_SET_AVAILABLE));
    assert_eq!(world.revision(), 2);
    let sizes: Vec<_> = world.sets.iter().map(|set| (image(set), super::sets::replicas(set))).collect();
    assert_eq!(sizes, [("v1".into(), 0), ("v2".into(), 10)]);
}

#[test]
fn a_rolling_update_with_defaults_goes_step_by_step() {
    let mut world = World::new(json!({}));
    world.settle();
    world.set_image("v2");
    let steps = ["create v2 at 1", "scale v1 4->2", "scale v2 1->3", "scale v1 2->0", "scale v2 3->4"];
    assert_eq!(world.settle(), steps);
}

#[test]
fn a_broken_image_stops_the_rollout_and_exceeds_its_deadline() {
    let mut world = World::new(json!({}));
    world.settle();
    world.set_image("broken");
    let only_old = |image: &str| if image == "broken" { 0 } else { 99 };
    for _ in 0..5 {
        world.step();
        world.follow(only_old);
    }
    assert_eq!(world.condition(c::AVAILABLE), condition("True", c::MINIMUM_AVAILABLE));
    assert!(world.plan().requeue.is_some_and(|wait| wait.as_secs() > 500));
    world.seconds += 700;
    assert!(world.step().is_empty());
    assert_eq!(world.condition(c::PROGRESSING), condition("False", c::TIMED_OUT));
    assert_eq!(world.plan().requeue, None);
    world.set_image("v1");
    world.settle();
    assert_eq!(world.condition(c::PROGRESSING), condition("True", c::NEW_SET_AVAILABLE));
}

#[test]
fn going_back_reuses_the_old_set_under_a_new_revision() {
    let mut world = World::new(json!({}));
    world.settle();
    world.set_image("v2");
    world.settle();
    world.set_image("v1");
    world.settle();
    assert_eq!((world.sets.len(), world.revision()), (2, 3));
    let old = world.sets.iter().find(|set| image(set) == "v1").unwrap();
    assert_eq!(annotations::revision(&old.metadata), 3);
    assert_eq!(annotations::get(&old.metadata, annotations::REVISION_HISTORY), Some("1"));
}

#[test]
fn recreate_waits_for_the_end_of_old_pods() {
    let mut world = World::new(json!({"strategy": {"type": "Recreate"}}));
    world.settle();
    world.set_image("v2");
    let mut old = pod("old", "Running", None);
    old.metadata.owner_references =
        Some(vec![ownership::controller_reference("apps/v1", "ReplicaSet", &world.sets[0].metadata)]);
    world.pods = vec![Arc::new(old)];
    assert_eq!(world.step(), ["scale v1 4->0"]);
    world.follow(|_| 99);
    assert!(world.step().is_empty(), "an old pod still runs");
    world.pods.clear();
    assert_eq!(world.step(), ["create v2 at 4"]);
    world.settle();
    assert_eq!(world.condition(c::PROGRESSING), condition("True", c::NEW_SET_AVAILABLE));
}

#[test]
fn a_paused_deployment_scales_but_does_not_roll_out() {
    let mut world = World::new(json!({}));
    world.settle();
    world.edit(json!({"paused": true}));
    world.set_image("v2");
    world.edit(json!({"replicas": 6}));
    assert_eq!(world.settle(), ["scale v1 4->6"]);
    assert_eq!(world.condition(c::PROGRESSING), condition("Unknown", c::PAUSED));
    world.edit(json!({"paused": null}));
    let done = world.settle();
    assert_eq!(done[0], "create v2 at 2");
    assert_eq!(world.condition(c::PROGRESSING), condition("True", c::NEW_SET_AVAILABLE));
}

#[test]
fn scaling_in_the_middle_of_a_rollout_is_proportional() {
    let mut world = World::new(
        json!({"replicas": 10, "strategy": {"rollingUpdate": {"maxSurge": 3, "maxUnavailable": 2}}}),
    );
    world.settle();
    world.set_image("broken");
    for _ in 0..5 {
        world.step();
        world.follow(|image| if image == "broken" { 0 } else { 99 });
    }
    let sizes = |world: &World| -> Vec<i32> { world.sets.iter().map(|s| super::sets::replicas(s)).collect() };
    assert_eq!(sizes(&world), [8, 5]);
    world.edit(json!({"replicas": 15}));
    world.step();
    assert_eq!(sizes(&world), [11, 7], "18 pods in the proportion of 8 to 5");
    world.follow(|image| if image == "broken" { 0 } else { 99 });
    world.edit(json!({"replicas": 0}));
    world.step();
    assert_eq!(sizes(&world), [0, 0]);
}

#[test]
fn old_revisions_beyond_the_limit_are_deleted() {
    let mut world = World::new(json!({"revisionHistoryLimit": 1}));
    for image in ["v1", "v2", "v3"] {
        world.set_image(image);
        world.settle();
    }
    let mut images: Vec<_> = world.sets.iter().map(|set| image(set)).collect();
    images.sort();
    assert_eq!(images, ["v2", "v3"]);
}

#[test]
fn a_deployment_being_deleted_changes_nothing() {
    let mut world = World::new(json!({}));
    world.settle();
    world.set_image("v2");
    world.deployment.metadata.deletion_timestamp = Some(Time(at(0)));
    assert!(world.step().is_empty());
}

#[test]
fn replica_failures_show_up_and_go_away() {
    let mut world = World::new(json!({}));
    world.step();
    let failing =
        json!([{"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": "quota"}]);
    let status = ReplicaSetStatus {
        conditions: serde_json::from_value(failing).unwrap(),
        ..ReplicaSetStatus::default()
    };
    Arc::make_mut(&mut world.sets[0]).status = Some(status);
    world.step();
    assert_eq!(world.condition(c::REPLICA_FAILURE), condition("True", "FailedCreate"));
    world.follow(|_| 99);
    world.settle();
    assert!(c::get(world.deployment.status.as_ref().unwrap(), c::REPLICA_FAILURE).is_none());
}
