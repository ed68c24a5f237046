//! When the change happened that an endpoint write tells of, so that its latency can be measured.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::jiff::Timestamp;

use super::select;
use crate::client::Key;

/// The times at which a service and its pods last changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Times {
    service: Option<Timestamp>,
    pods: HashMap<String, Timestamp>,
}

impl Times {
    fn of<'a>(service: &Service, pods: impl Iterator<Item = &'a Pod>) -> Self {
        let named = |pod: &Pod| Some((pod.metadata.name.clone()?, select::changed_at(pod)?));
        Self {
            service: service.metadata.creation_timestamp.as_ref().map(|time| time.0),
            pods: pods.filter_map(named).collect(),
        }
    }

    /// The earliest of the changes since `before`.
    fn since(&self, before: Option<&Self>) -> Option<Timestamp> {
        let Some(before) = before else {
            return self.service;
        };
        let newer = |(name, at): &(&String, &Timestamp)| before.pods.get(*name).is_none_or(|old| *at > old);
        let pods = self.pods.iter().filter(newer).map(|(_, at)| *at);
        let service = self.service.filter(|at| Some(*at) > before.service);
        pods.chain(service).min()
    }
}

/// Remembers for each service what was there at the last write.
#[derive(Debug, Default)]
pub struct Triggers {
    known: Mutex<HashMap<Key, Times>>,
}

impl Triggers {
    /// The time of the change that brings the service here now, if it is known.
    pub fn observe<'a>(
        &self,
        key: &Key,
        service: &Service,
        pods: impl Iterator<Item = &'a Pod>,
    ) -> Option<Timestamp> {
        let times = Times::of(service, pods);
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let trigger = times.since(known.get(key));
        known.insert(key.clone(), times);
        trigger
    }

    /// The service is gone.
    pub fn forget(&self, key: &Key) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controllers::workload::pods::tests::{at, pod};
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    #[test]
    fn the_earliest_new_change_triggers() {
        let (triggers, key) = (Triggers::default(), Key::new("default", "web"));
        let mut service = Service::default();
        service.metadata.creation_timestamp = Some(Time(at(1)));
        let observe = |pods: &[Pod]| triggers.observe(&key, &service, pods.iter());
        assert_eq!(observe(&[pod("a", "Running", Some(5))]), Some(at(1)), "a new service");
        assert_eq!(observe(&[pod("a", "Running", Some(5))]), None, "nothing changed");
        let two = [pod("a", "Running", Some(9)), pod("b", "Running", Some(7))];
        assert_eq!(observe(&two), Some(at(7)));
        triggers.forget(&key);
        assert_eq!(observe(&two), Some(at(1)));
    }
}
