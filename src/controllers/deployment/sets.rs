//! The ReplicaSets of one deployment while a plan is made: copies that the plan changes, compared with the originals at
//! the end.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};

use super::{annotations, template};

/// A ReplicaSet as it is and as the plan wants it.
#[derive(Debug, Clone)]
pub struct Draft {
    /// As the cache has it.
    pub original: Arc<ReplicaSet>,
    /// As the plan wants it.
    pub wanted: ReplicaSet,
}

impl Draft {
    /// Starts from what is there.
    pub fn new(original: Arc<ReplicaSet>) -> Self {
        let wanted = original.as_ref().clone();
        Self { original, wanted }
    }

    /// The size the spec asks for, with the plan's changes.
    pub fn replicas(&self) -> i32 {
        replicas(&self.wanted)
    }

    /// The pods that are available.
    pub fn available(&self) -> i32 {
        self.original.status.as_ref().and_then(|s| s.available_replicas).unwrap_or(0)
    }

    /// Asks for another size and records the deployment's size along with it. Returns whether the size changes.
    pub fn scale(&mut self, size: i32, desired: i32, max: i32) -> bool {
        let resized = self.replicas() != size;
        self.wanted.spec.get_or_insert_default().replicas = Some(size);
        annotations::set_sizes(&mut self.wanted.metadata, desired, max);
        resized
    }

    /// Whether the plan wants anything changed.
    pub fn changed(&self) -> bool {
        *self.original != self.wanted
    }
}

/// The size a ReplicaSet's spec asks for.
pub fn replicas(set: &ReplicaSet) -> i32 {
    set.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1)
}

/// The set of the deployment's current template and all others, the others oldest first.
#[derive(Debug, Clone)]
pub struct Sets {
    /// The ReplicaSet of the current template.
    pub new: Option<Draft>,
    /// The ReplicaSets of earlier templates.
    pub old: Vec<Draft>,
}

impl Sets {
    /// Sorts out the deployment's sets. Of several sets with the current template the oldest counts.
    pub fn of(deployment: &Deployment, mut all: Vec<Arc<ReplicaSet>>) -> Self {
        all.sort_by(|a, b| age_key(a).cmp(&age_key(b)));
        let current = deployment.spec.as_ref().map(|s| &s.template);
        let is_current = |set: &ReplicaSet| {
            let of_set = set.spec.as_ref().and_then(|s| s.template.as_ref());
            matches!((of_set, current), (Some(a), Some(b)) if template::same(a, b))
        };
        let new = all.iter().position(|set| is_current(set)).map(|index| Draft::new(all.remove(index)));
        Self { new, old: all.into_iter().map(Draft::new).collect() }
    }

    /// All sets, the new one last.
    pub fn all(&self) -> impl Iterator<Item = &Draft> {
        self.old.iter().chain(&self.new)
    }

    /// All sets, the new one last.
    pub fn all_mut(&mut self) -> impl Iterator<Item = &mut Draft> {
        self.old.iter_mut().chain(&mut self.new)
    }

    /// The sum of the sizes asked for.
    pub fn total_replicas(&self) -> i32 {
        self.all().map(Draft::replicas).sum()
    }
}

/// Orders by creation, then by name.
pub fn age_key(set: &ReplicaSet) -> (Option<k8s_openapi::jiff::Timestamp>, Option<&str>) {
    (set.metadata.creation_timestamp.as_ref().map(|t| t.0), set.metadata.name.as_deref())
}
