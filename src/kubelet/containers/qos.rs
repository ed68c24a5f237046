//! Quality of service classes.

use k8s_openapi::api::core::v1::Pod;

use super::resources;
use crate::kubelet::spec;

/// How a pod is treated when the node runs out of something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QosClass {
    /// Limits equal requests, for CPU and memory of every container.
    Guaranteed,
    /// Some request or limit is set.
    Burstable,
    /// Nothing is set.
    BestEffort,
}

/// The class of a pod: what the API says, else what the spec makes it.
pub fn qos_class(pod: &Pod) -> QosClass {
    match pod.status.as_ref().and_then(|s| s.qos_class.as_deref()) {
        Some("Guaranteed") => QosClass::Guaranteed,
        Some("Burstable") => QosClass::Burstable,
        Some("BestEffort") => QosClass::BestEffort,
        _ => from_spec(pod),
    }
}

fn from_spec(pod: &Pod) -> QosClass {
    let containers = spec::init_containers(pod).iter().chain(spec::main_containers(pod));
    let (mut any, mut guaranteed) = (false, true);
    for container in containers {
        for name in ["cpu", "memory"] {
            let limit = resources::amount(container, true, name).filter(|a| *a > 0);
            let request = resources::amount(container, false, name).filter(|a| *a > 0);
            any |= limit.is_some() || request.is_some();
            guaranteed &= limit.is_some() && (request.is_none() || request == limit);
        }
    }
    match (any, guaranteed) {
        (false, _) => QosClass::BestEffort,
        (true, true) => QosClass::Guaranteed,
        (true, false) => QosClass::Burstable,
    }
}

impl QosClass {
    /// Name of the class's control group below `kubepods`; guaranteed pods live directly below it.
    pub fn cgroup(self) -> Option<&'static str> {
        match self {
            Self::Guaranteed => None,
            Self::Burstable => Some("burstable"),
            Self::BestEffort => Some("besteffort"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubelet::pods::fixture;
    use serde_json::json;

    #[test]
    fn classes_follow_requests_and_limits() {
        for (resources, want) in [
            (json!({}), QosClass::BestEffort),
            (json!({"requests": {"cpu": "1m"}}), QosClass::Burstable),
            (json!({"limits": {"cpu": "1", "memory": "1Gi"}}), QosClass::Guaranteed),
            (
                json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}}),
                QosClass::Burstable,
            ),
            (json!({"requests": {"cpu": "0"}}), QosClass::BestEffort),
        ] {
            let pod = fixture::pod(json!({"containers": [{"name": "a", "resources": resources}]}));
            assert_eq!(qos_class(&pod), want);
        }
    }

    #[test]
    fn the_apis_word_wins() {
        let mut pod = fixture::pod(json!({"containers": [{"name": "a"}]}));
        pod.status = serde_json::from_value(json!({"qosClass": "Guaranteed"})).unwrap();
        assert_eq!(qos_class(&pod), QosClass::Guaranteed);
    }
}
