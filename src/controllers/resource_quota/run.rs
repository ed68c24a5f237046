//! Counting for one quota, and the status.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, ResourceQuota, ResourceQuotaStatus, Service};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as RawQuantity;
use k8s_openapi::jiff::Timestamp;
use kube::{Client, Resource};
use tokio_util::sync::CancellationToken;

use super::counts::Counts;
use crate::api::quantity::{Format, Quantity};
use crate::api::quota::{self, Amounts};
use crate::client::{Change, Clock, Controller, Informer, Key, Next, WorkQueue};
use crate::controllers::Context;
use crate::controllers::workload::{pods, selects};

const WORKERS: usize = 5;
/// New objects are counted after this time.
const SETTLE: Duration = Duration::from_secs(2);
/// Everything is counted again after this time.
const RESYNC: Duration = Duration::from_secs(300);

/// Why a quota could not be reconciled.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Objects could not be counted.
    #[error("count objects")]
    Count(#[source] kube::Error),
    /// The status could not be written.
    #[error("update status")]
    Status(#[source] kube::Error),
}

/// Runs the quota controller until `stop`.
pub async fn run(context: Context, stop: CancellationToken) {
    let Context { client, informers, clock, .. } = context;
    let quotas = informers.get::<ResourceQuota>();
    let sources = Sources { pods: informers.get(), services: informers.get(), claims: informers.get() };
    let mut controller = Controller::new("resource-quota").workers(WORKERS);
    let settled = controller.queue();
    controller = controller.watch(&quotas, move |change: &Change<ResourceQuota>| {
        let key = Key::of(change.object().as_ref());
        match change {
            // Admission has charged what is not in the cache yet: a count now would give it back.
            Change::Updated { old, new } if old.spec == new.spec => {
                settled.add_after(key, SETTLE);
                Vec::new()
            }
            _ => vec![key],
        }
    });
    controller = follow(controller, &quotas, &sources.pods, |before, after| {
        pods::is_finished(before) != pods::is_finished(after)
            || pods::is_deleting(before) != pods::is_deleting(after)
            || resources(before) != resources(after)
    });
    controller = follow(controller, &quotas, &sources.services, |before, after| before.spec != after.spec);
    controller = follow(controller, &quotas, &sources.claims, |before, after| before.spec != after.spec);
    let (queue, all) = (controller.queue(), quotas.clone());
    let changed = move |namespace: &str| later(&queue, &all, namespace);
    let counts = Counts::new(client.clone(), informers, stop.clone(), changed);
    let this = Arc::new(Quotas { client, quotas, sources, counts, clock });
    let reconcile = move |key: Key| {
        let this = this.clone();
        async move { this.reconcile(&key).await }
    };
    controller.run(reconcile, stop).await;
}

fn resources(pod: &Pod) -> Vec<Option<&k8s_openapi::api::core::v1::ResourceRequirements>> {
    pod.spec.iter().flat_map(|spec| &spec.containers).map(|container| container.resources.as_ref()).collect()
}

/// Counts the namespace's quotas again after a while.
fn later(queue: &Arc<WorkQueue<Key>>, quotas: &Informer<ResourceQuota>, namespace: &str) {
    for quota in quotas.in_namespace(namespace) {
        queue.add_after(Key::of(quota.as_ref()), SETTLE);
    }
}

/// What goes frees its share at once; what comes or changes is counted a little later.
fn follow<K: Resource + Send + Sync + 'static>(
    controller: Controller,
    quotas: &Informer<ResourceQuota>,
    informer: &Informer<K>,
    matters: impl Fn(&K, &K) -> bool + Send + Sync + 'static,
) -> Controller {
    let (queue, quotas) = (controller.queue(), quotas.clone());
    controller.watch(informer, move |change| {
        let namespace = change.object().meta().namespace.as_deref().unwrap_or_default();
        match change {
            Change::Deleted(_) => {
                quotas.in_namespace(namespace).iter().map(|quota| Key::of(quota.as_ref())).collect()
            }
            Change::Updated { old, new } if !matters(old, new) => Vec::new(),
            Change::Updated { .. } | Change::Added(_) => {
                later(&queue, &quotas, namespace);
                Vec::new()
            }
        }
    })
}

/// Kinds of which more than the number is counted.
struct Sources {
    pods: Informer<Pod>,
    services: Informer<Service>,
    claims: Informer<PersistentVolumeClaim>,
}

impl Sources {
    /// What the namespace's pods, services and claims use of a quota.
    fn usage(&self, quota: &ResourceQuota, namespace: &str, now: Timestamp) -> Amounts {
        let (scopes, mut used) = (quota::scopes(quota), Amounts::new());
        for pod in self.pods.in_namespace(namespace) {
            if quota::pods::scopes_select(&scopes, &pod) {
                quota::add(&mut used, &quota::pods::usage(&pod, now));
            }
        }
        for claim in self.claims.in_namespace(namespace) {
            if quota::scopes_select_claim(&scopes, &claim) {
                quota::add(&mut used, &quota::claim_usage(&claim));
            }
        }
        if scopes.is_empty() {
            for service in self.services.in_namespace(namespace) {
                quota::add(&mut used, &quota::service_usage(&service));
            }
        }
        used
    }
}

struct Quotas {
    client: Client,
    quotas: Informer<ResourceQuota>,
    sources: Sources,
    counts: Counts,
    clock: Clock,
}

impl Quotas {
    async fn reconcile(&self, key: &Key) -> Result<Next, Error> {
        let Some(quota) = self.quotas.get(key) else { return Ok(Next::Done) };
        let hard = quota.spec.as_ref().and_then(|spec| spec.hard.clone()).unwrap_or_default();
        let mut used = self.sources.usage(&quota, key.namespace(), self.clock.now());
        let unscoped = quota::scopes(&quota).is_empty();
        for name in hard.keys().filter(|_| unscoped) {
            if is_counted_by_kind(name)
                && let Some(count) = self.counts.of(name, key.namespace()).await.map_err(Error::Count)?
            {
                let count = i64::try_from(count).unwrap_or(i64::MAX);
                used.insert(name.clone(), Quantity::new(count, Format::DecimalSi));
            }
        }
        let status = status(hard, &used);
        if !quota.status.as_ref().is_some_and(|before| same(before, &status)) {
            let wanted = ResourceQuota { status: Some(status), ..quota.as_ref().clone() };
            selects::write_status(&self.client, &wanted).await.map_err(Error::Status)?;
        }
        Ok(Next::After(RESYNC))
    }
}

/// The name stands for a number of objects of a kind that is not read otherwise.
fn is_counted_by_kind(name: &str) -> bool {
    let read = ["pods", "services", "persistentvolumeclaims"];
    match name.strip_prefix("count/") {
        Some(kind) => !read.contains(&kind),
        None => matches!(name, "configmaps" | "resourcequotas" | "replicationcontrollers" | "secrets"),
    }
}

/// The status: of what is used, only that which is limited is said.
fn status(hard: BTreeMap<String, RawQuantity>, used: &Amounts) -> ResourceQuotaStatus {
    let amount = |name: &String| used.get(name).copied().unwrap_or(Quantity::ZERO);
    let used = hard.keys().map(|name| (name.clone(), RawQuantity(amount(name).to_string()))).collect();
    ResourceQuotaStatus { hard: Some(hard), used: Some(used) }
}

/// Whether both say the same amounts, however they are written.
fn same(a: &ResourceQuotaStatus, b: &ResourceQuotaStatus) -> bool {
    quota::parse(a.hard.as_ref()) == quota::parse(b.hard.as_ref())
        && quota::parse(a.used.as_ref()) == quota::parse(b.used.as_ref())
        && a.used.is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_status_says_what_is_used_of_what_is_limited() {
        let hard = serde_json::from_value(json!({"pods": "5", "requests.cpu": "2", "secrets": "3"})).unwrap();
        let used = Amounts::from([
            ("pods".to_owned(), Quantity::new(2, Format::DecimalSi)),
            ("requests.cpu".to_owned(), Quantity::from_milli(1500, Format::DecimalSi)),
            ("limits.cpu".to_owned(), Quantity::new(9, Format::DecimalSi)),
        ]);
        let status = status(hard, &used);
        let used = serde_json::to_value(status.used.as_ref().unwrap()).unwrap();
        assert_eq!(used, json!({"pods": "2", "requests.cpu": "1500m", "secrets": "0"}));
        let mut written_otherwise = status.clone();
        written_otherwise.used.as_mut().unwrap().insert("requests.cpu".into(), RawQuantity("1.5".into()));
        assert!(same(&status, &written_otherwise));
        assert!(!same(&ResourceQuotaStatus::default(), &status));
    }

    #[test]
    fn kinds_without_amounts_are_counted_by_number() {
        for (name, expected) in [
            ("count/deployments.apps", true),
            ("count/pods", false),
            ("secrets", true),
            ("pods", false),
            ("limits.cpu", false),
        ] {
            assert_eq!(is_counted_by_kind(name), expected, "{name}");
        }
    }
}
