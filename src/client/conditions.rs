//! Status conditions: one way to set them for all the types that carry them.

use k8s_openapi::{
    api::core::v1::{NamespaceCondition, NodeCondition, PodCondition},
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::Timestamp,
};

/// What the condition types have in common.
pub trait Condition: Clone {
    /// `type`, by which a condition is found.
    fn kind(&self) -> &str;
    /// `True`, `False` or `Unknown`.
    fn status(&self) -> &str;
    /// `reason` and `message`.
    fn explanation(&self) -> (Option<&str>, Option<&str>);
    /// When `status` last changed.
    fn transition(&self) -> Option<&Time>;
    /// Sets the time of the last change.
    fn set_transition(&mut self, time: Option<Time>);
}

macro_rules! condition {
    ($($ty:ty),* $(,)?) => {$(
        impl Condition for $ty {
            fn kind(&self) -> &str { &self.type_ }
            fn status(&self) -> &str { &self.status }
            fn explanation(&self) -> (Option<&str>, Option<&str>) {
                (self.reason.as_deref(), self.message.as_deref())
            }
            fn transition(&self) -> Option<&Time> { self.last_transition_time.as_ref() }
            fn set_transition(&mut self, time: Option<Time>) { self.last_transition_time = time; }
        }
    )*};
}

condition!(
    NamespaceCondition,
    NodeCondition,
    PodCondition,
    k8s_openapi::api::apps::v1::DeploymentCondition,
    k8s_openapi::api::apps::v1::ReplicaSetCondition,
    k8s_openapi::api::apps::v1::StatefulSetCondition,
    k8s_openapi::api::apps::v1::DaemonSetCondition,
    k8s_openapi::api::batch::v1::JobCondition,
);

/// The condition of type `kind`.
pub fn find<'a, C: Condition>(conditions: &'a [C], kind: &str) -> Option<&'a C> {
    conditions.iter().find(|condition| condition.kind() == kind)
}

/// `status` of the condition of type `kind` is `True`.
pub fn is_true<C: Condition>(conditions: &[C], kind: &str) -> bool {
    find(conditions, kind).is_some_and(|condition| condition.status() == "True")
}

/// Puts `new` into `conditions`. Its transition time is that of the old condition when the status stays the same, else
/// `now`. Returns whether anything changed that is worth a write.
pub fn set<C: Condition>(conditions: &mut Vec<C>, mut new: C, now: Timestamp) -> bool {
    let Some(old) = conditions.iter_mut().find(|old| old.kind() == new.kind()) else {
        new.set_transition(Some(Time(now)));
        conditions.push(new);
        return true;
    };
    if old.status() == new.status() {
        new.set_transition(old.transition().cloned());
        if old.explanation() == new.explanation() {
            return false;
        }
    } else {
        new.set_transition(Some(Time(now)));
    }
    *old = new;
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ready(status: &str, reason: &str) -> NodeCondition {
        NodeCondition {
            type_: "Ready".into(),
            status: status.into(),
            reason: Some(reason.into()),
            ..NodeCondition::default()
        }
    }

    #[test]
    fn transition_time_moves_only_with_the_status() {
        let at = |second: i64| Timestamp::from_second(second).unwrap();
        let mut conditions = Vec::new();
        for (new, now, changed, transition) in [
            (ready("True", "a"), 1, true, 1),
            (ready("True", "a"), 2, false, 1),
            (ready("True", "b"), 3, true, 1),
            (ready("False", "b"), 4, true, 4),
        ] {
            assert_eq!(set(&mut conditions, new, at(now)), changed, "at {now}");
            assert_eq!(conditions[0].last_transition_time, Some(Time(at(transition))), "at {now}");
        }
        assert_eq!(conditions.len(), 1);
        assert!(!is_true(&conditions, "Ready") && find(&conditions, "Other").is_none());
    }
}
