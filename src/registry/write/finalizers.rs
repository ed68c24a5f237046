//! What a delete does to an object: which finalizers it gets, whether it is marked, and whether it goes at once.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::jiff::{SignedDuration, Timestamp};

use super::system;
use crate::registry::object::Object;
use crate::registry::options::{DeleteOptions, Propagation};
use crate::registry::strategy::Behaviour;

const ORPHAN: &str = "orphan";
const FOREGROUND: &str = "foregroundDeletion";

/// What to do with an object that is to be deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plan {
    /// Its deletion is under way, and nothing changes.
    Wait,
    /// It stays for now, changed.
    Mark,
    /// It goes.
    Remove,
}

/// The options for an object of a kind that leaves its dependents as orphans unless somebody said what becomes of them,
/// with the delete or before by a finalizer.
pub fn orphaning(options: &DeleteOptions, meta: &ObjectMeta) -> DeleteOptions {
    let said = |name: &String| name == ORPHAN || name == FOREGROUND;
    let mut options = options.clone();
    if !meta.finalizers.iter().flatten().any(said) {
        options.propagation.get_or_insert(Propagation::Orphan);
    }
    options
}

/// Decides about `object` and changes it when it is to be marked.
pub fn plan(behaviour: &dyn Behaviour, object: &mut dyn Object, options: &DeleteOptions) -> Plan {
    let mut options = options.clone();
    let graceful = match begin_grace(behaviour, object, &mut options) {
        Grace::Pending => return Plan::Wait,
        Grace::None => None,
        Grace::Period(seconds) => Some(seconds),
    };
    set_finalizers(object.meta_mut(), options.propagation);
    let held = behaviour.hold(object);
    let pending = held || object.meta().finalizers.as_ref().is_some_and(|f| !f.is_empty());
    match graceful {
        None if pending => {
            mark(object.meta_mut());
            Plan::Mark
        }
        Some(seconds) if seconds > 0 || pending => Plan::Mark,
        _ => Plan::Remove,
    }
}

enum Grace {
    /// The kind is not deleted gracefully, or its grace is over.
    None,
    /// A grace period runs, and the request does not shorten it.
    Pending,
    /// A period begins or is shortened.
    Period(i64),
}

fn begin_grace(behaviour: &dyn Behaviour, object: &mut dyn Object, options: &mut DeleteOptions) -> Grace {
    let Some(deadline) = object.meta().deletion_timestamp.clone() else {
        if !behaviour.graceful_delete(object, options) {
            return Grace::None;
        }
        let period = options.grace_period_seconds.unwrap_or(0);
        let meta = object.meta_mut();
        set_deadline(meta, system::now().0, period);
        bump(meta);
        return Grace::Period(period);
    };
    let meta = object.meta_mut();
    let left = meta.deletion_grace_period_seconds.unwrap_or(0);
    if left == 0 {
        return Grace::None;
    }
    match options.grace_period_seconds {
        Some(wanted) if wanted < left => {
            set_deadline(meta, deadline.0, wanted - left);
            meta.deletion_grace_period_seconds = Some(wanted);
            Grace::Period(wanted)
        }
        _ => Grace::Pending,
    }
}

fn set_deadline(meta: &mut ObjectMeta, from: Timestamp, seconds: i64) {
    meta.deletion_timestamp =
        Some(Time(from.saturating_add(SignedDuration::from_secs(seconds)).unwrap_or(from)));
    meta.deletion_grace_period_seconds = Some(seconds);
}

fn bump(meta: &mut ObjectMeta) {
    if let Some(generation) = meta.generation.as_mut().filter(|g| **g > 0) {
        *generation += 1;
    }
}

/// Marks an object that finalizers hold.
fn mark(meta: &mut ObjectMeta) {
    let now = system::now();
    match &meta.deletion_timestamp {
        None => {
            bump(meta);
            meta.deletion_timestamp = Some(now);
        }
        Some(deadline) if deadline.0 > now.0 => meta.deletion_timestamp = Some(now),
        Some(_) => {}
    }
    meta.deletion_grace_period_seconds = Some(0);
}

fn set_finalizers(meta: &mut ObjectMeta, propagation: Option<Propagation>) {
    let had = |name: &str| meta.finalizers.iter().flatten().any(|f| f == name);
    let (orphan, foreground) = match propagation {
        Some(Propagation::Orphan) => (true, false),
        Some(Propagation::Foreground) => (false, true),
        Some(Propagation::Background) => (false, false),
        None => (had(ORPHAN), had(FOREGROUND)),
    };
    let mut finalizers = meta.finalizers.take().unwrap_or_default();
    finalizers.retain(|f| f != ORPHAN && f != FOREGROUND);
    if orphan {
        finalizers.push(ORPHAN.into());
    }
    if foreground {
        finalizers.push(FOREGROUND.into());
    }
    meta.finalizers = (!finalizers.is_empty()).then_some(finalizers);
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ConfigMap;
    use serde_json::json;

    use super::*;
    use crate::registry::groups::core::pods::PodStrategy;
    use crate::registry::strategy::Plain;

    fn pod(value: serde_json::Value) -> k8s_openapi::api::core::v1::Pod {
        serde_json::from_value(value).unwrap()
    }

    fn options(grace: Option<i64>, propagation: Option<Propagation>) -> DeleteOptions {
        DeleteOptions { grace_period_seconds: grace, propagation, ..Default::default() }
    }

    #[test]
    fn pods_are_given_their_grace_only_while_they_run() {
        let running = json!({"metadata": {"name": "a", "generation": 1},
            "spec": {"nodeName": "n", "containers": [], "terminationGracePeriodSeconds": 30}});
        let mut object = pod(running.clone());
        assert_eq!(plan(&PodStrategy, &mut object, &options(None, None)), Plan::Mark);
        assert_eq!(object.metadata.deletion_grace_period_seconds, Some(30));
        assert_eq!(object.metadata.generation, Some(2));
        assert_eq!(plan(&PodStrategy, &mut object, &options(None, None)), Plan::Wait);
        assert_eq!(plan(&PodStrategy, &mut object, &options(Some(40), None)), Plan::Wait);
        assert_eq!(plan(&PodStrategy, &mut object, &options(Some(5), None)), Plan::Mark);
        assert_eq!(object.metadata.deletion_grace_period_seconds, Some(5));
        assert_eq!(plan(&PodStrategy, &mut object, &options(Some(0), None)), Plan::Remove);
        let mut unscheduled = running.clone();
        unscheduled["spec"]["nodeName"] = json!("");
        assert_eq!(plan(&PodStrategy, &mut pod(unscheduled), &options(None, None)), Plan::Remove);
        let mut finished = running;
        finished["status"] = json!({"phase": "Succeeded"});
        assert_eq!(plan(&PodStrategy, &mut pod(finished), &options(None, None)), Plan::Remove);
    }

    #[test]
    fn finalizers_hold_an_object_and_propagation_sets_them() {
        let strategy = Plain::<ConfigMap>::new();
        let mut object = ConfigMap::default();
        assert_eq!(plan(&strategy, &mut object, &options(None, Some(Propagation::Background))), Plan::Remove);
        assert_eq!(plan(&strategy, &mut object, &options(None, Some(Propagation::Foreground))), Plan::Mark);
        assert_eq!(object.metadata.finalizers.as_deref(), Some(&[FOREGROUND.to_owned()][..]));
        assert_eq!(object.metadata.deletion_grace_period_seconds, Some(0));
        assert_eq!(plan(&strategy, &mut object, &options(None, Some(Propagation::Orphan))), Plan::Mark);
        assert_eq!(object.metadata.finalizers.as_deref(), Some(&[ORPHAN.to_owned()][..]));
        assert_eq!(plan(&strategy, &mut object, &options(None, None)), Plan::Mark);
        assert_eq!(plan(&strategy, &mut object, &options(None, Some(Propagation::Background))), Plan::Remove);
    }
}
