//! The conditions of a deployment: available, progressing, failing.

use k8s_openapi::api::apps::v1::{DeploymentCondition, DeploymentStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

/// Enough pods are available.
pub const AVAILABLE: &str = "Available";
/// The rollout moves on, or is done.
pub const PROGRESSING: &str = "Progressing";
/// Pods could not be created or deleted.
pub const REPLICA_FAILURE: &str = "ReplicaFailure";

/// The rollout is complete.
pub const NEW_SET_AVAILABLE: &str = "NewReplicaSetAvailable";
/// The rollout made no progress within its deadline.
pub const TIMED_OUT: &str = "ProgressDeadlineExceeded";
/// The deployment is paused.
pub const PAUSED: &str = "DeploymentPaused";
/// The deployment was resumed.
pub const RESUMED: &str = "DeploymentResumed";
/// A ReplicaSet for the current template was created.
pub const NEW_SET_CREATED: &str = "NewReplicaSetCreated";
/// A ReplicaSet for the current template was there already.
pub const FOUND_NEW_SET: &str = "FoundNewReplicaSet";
/// Pods were added, removed, or became ready.
pub const SET_UPDATED: &str = "ReplicaSetUpdated";
/// The ReplicaSet for the current template could not be created.
pub const SET_CREATE_ERROR: &str = "ReplicaSetCreateError";
/// The minimum number of pods is available.
pub const MINIMUM_AVAILABLE: &str = "MinimumReplicasAvailable";
/// The minimum number of pods is not available.
pub const MINIMUM_UNAVAILABLE: &str = "MinimumReplicasUnavailable";

/// The condition of this type.
pub fn get<'a>(status: &'a DeploymentStatus, type_: &str) -> Option<&'a DeploymentCondition> {
    status.conditions.as_ref()?.iter().find(|c| c.type_ == type_)
}

/// Removes the condition of this type.
pub fn remove(status: &mut DeploymentStatus, type_: &str) {
    if let Some(conditions) = &mut status.conditions {
        conditions.retain(|c| c.type_ != type_);
    }
}

/// A condition that changes now.
pub fn new(
    type_: &str,
    status: &str,
    reason: &str,
    message: impl Into<String>,
    now: Timestamp,
) -> DeploymentCondition {
    DeploymentCondition {
        type_: type_.to_owned(),
        status: status.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.into()),
        last_update_time: Some(Time(now)),
        last_transition_time: Some(Time(now)),
    }
}

/// Sets the condition unless status and reason stay the same; the transition time moves with the status only.
pub fn set(status: &mut DeploymentStatus, condition: DeploymentCondition) {
    let same = |c: &DeploymentCondition| c.status == condition.status && c.reason == condition.reason;
    if get(status, &condition.type_).is_some_and(same) {
        return;
    }
    replace(status, condition);
}

/// Sets the condition in any case; the transition time moves with the status only.
pub fn replace(status: &mut DeploymentStatus, mut condition: DeploymentCondition) {
    if let Some(before) = get(status, &condition.type_)
        && before.status == condition.status
    {
        condition.last_transition_time = before.last_transition_time.clone();
    }
    remove(status, &condition.type_);
    status.conditions.get_or_insert_default().push(condition);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controllers::workload::pods::tests::at;

    #[test]
    fn times_move_only_with_what_changed() {
        let mut status = DeploymentStatus::default();
        set(&mut status, new(PROGRESSING, "True", NEW_SET_CREATED, "m", at(0)));
        set(&mut status, new(PROGRESSING, "True", NEW_SET_CREATED, "other", at(1)));
        let times = |s: &DeploymentStatus| {
            let c = get(s, PROGRESSING).unwrap();
            (c.last_update_time.clone().unwrap().0, c.last_transition_time.clone().unwrap().0)
        };
        assert_eq!(times(&status), (at(0), at(0)), "same status and reason");
        set(&mut status, new(PROGRESSING, "True", SET_UPDATED, "m", at(2)));
        assert_eq!(times(&status), (at(2), at(0)), "another reason");
        replace(&mut status, new(PROGRESSING, "True", SET_UPDATED, "m", at(3)));
        assert_eq!(times(&status), (at(3), at(0)), "refreshed");
        set(&mut status, new(PROGRESSING, "False", TIMED_OUT, "m", at(4)));
        assert_eq!(times(&status), (at(4), at(4)), "another status");
        assert_eq!(status.conditions.unwrap().len(), 1);
    }
}
