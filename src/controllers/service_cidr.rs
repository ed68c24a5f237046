//! Keeps the address ranges of Services: a range is told to be ready, and one that is being deleted stays until no
//! address of a Service depends on it alone.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::networking::v1::{IPAddress, ServiceCIDR};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use kube::api::{Api, Patch, PatchParams};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::Context;
use super::node_ipam::parse_cidr;
use crate::client::{Clock, Controller, EventType, Informer, Key, Next, Recorder, error};

/// The finalizer of ranges.
const FINALIZER: &str = "networking.k8s.io/service-cidr-finalizer";
/// Who looks after the addresses of Services.
const MANAGED_BY: (&str, &str) = ("ipaddress.kubernetes.io/managed-by", "ipallocator.k8s.io");
/// How long after its deletion a range may still be given addresses from by servers that have not heard of it.
const GRACE: Duration = Duration::from_secs(10);

/// A range could not be written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The finalizer could not be set or removed.
    #[error("update finalizers")]
    Finalizer(#[source] kube::Error),
    /// The condition could not be written.
    #[error("update status")]
    Status(#[source] kube::Error),
}

/// What is to become of a range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// It is in use.
    Ready,
    /// It is to go, but addresses depend on it.
    Blocked,
    /// It may go after this time.
    Wait(Duration),
    /// It may go.
    Release,
}

/// Runs until `stop`.
pub async fn run(context: Context, stop: CancellationToken) {
    let Context { client, informers, recorder, clock, .. } = context;
    let (ranges, addresses) = (informers.get::<ServiceCIDR>(), informers.get::<IPAddress>());
    let (of_ranges, of_addresses) = (ranges.clone(), ranges.clone());
    let controller = Controller::new("service-cidr-controller")
        .watch(&ranges, move |_| of_ranges.keys())
        .watch(&addresses, move |_| leaving(&of_addresses));
    let this = Arc::new(Ranges { client, ranges, addresses, recorder, clock });
    let reconcile = move |key: Key| {
        let this = this.clone();
        async move { this.reconcile(&key).await }
    };
    controller.run(reconcile, stop).await;
}

/// The ranges that are being deleted.
fn leaving(ranges: &Informer<ServiceCIDR>) -> Vec<Key> {
    let ranges = ranges.list();
    let leaving = ranges.iter().filter(|range| range.metadata.deletion_timestamp.is_some());
    leaving.map(|range| Key::of(range.as_ref())).collect()
}

struct Ranges {
    client: Client,
    ranges: Informer<ServiceCIDR>,
    addresses: Informer<IPAddress>,
    recorder: Recorder,
    clock: Clock,
}

impl Ranges {
    async fn reconcile(&self, key: &Key) -> Result<Next, Error> {
        let Some(range) = self.ranges.get(key) else { return Ok(Next::Done) };
        let has = range.metadata.finalizers.iter().flatten().any(|known| known == FINALIZER);
        match fate(&range, &self.ranges.list(), &self.addresses.list(), self.clock.now()) {
            Fate::Ready => {
                if !has {
                    self.patch_finalizers(key, "finalizers").await?;
                }
                if self.tell(&range, "True", "", "Kubernetes Service CIDR is ready").await.is_err() {
                    let message = "The ServiceCIDR Status can not be set to Ready=True";
                    self.recorder.event(
                        range.as_ref(),
                        EventType::Warning,
                        "KubernetesServiceCIDRError",
                        message,
                    );
                }
            }
            Fate::Blocked => {
                let message = "There are still IPAddresses referencing the ServiceCIDR, please remove them or create a new \
                               ServiceCIDR";
                self.tell(&range, "False", "Terminating", message).await?;
            }
            Fate::Wait(time) => return Ok(Next::After(time)),
            Fate::Release if has => self.patch_finalizers(key, "$deleteFromPrimitiveList/finalizers").await?,
            Fate::Release => {}
        }
        Ok(Next::Done)
    }

    async fn patch_finalizers(&self, key: &Key, field: &str) -> Result<(), Error> {
        let patch = Patch::Strategic(json!({"metadata": {(field): [FINALIZER]}}));
        let api: Api<ServiceCIDR> = Api::all(self.client.clone());
        match api.patch(key.name(), &PatchParams::default(), &patch).await {
            Err(failure) if !error::is_not_found(&failure) => Err(Error::Finalizer(failure)),
            _ => Ok(()),
        }
    }

    /// Writes the condition `Ready`, if it says something else.
    async fn tell(
        &self,
        range: &ServiceCIDR,
        status: &str,
        reason: &str,
        message: &str,
    ) -> Result<(), Error> {
        let conditions = range.status.as_ref().and_then(|status| status.conditions.as_deref());
        let known = conditions.unwrap_or_default().iter().find(|condition| condition.type_ == "Ready");
        if known.is_some_and(|known| known.status == status) {
            return Ok(());
        }
        let condition: Value = json!({"type": "Ready", "status": status, "reason": reason, "message": message,
                                      "lastTransitionTime": Time(self.clock.now())});
        let patch = Patch::Strategic(json!({"status": {"conditions": [condition]}}));
        let name = range.metadata.name.as_deref().unwrap_or_default();
        let api: Api<ServiceCIDR> = Api::all(self.client.clone());
        match api.patch_status(name, &PatchParams::default(), &patch).await {
            Err(failure) if !error::is_not_found(&failure) => Err(Error::Status(failure)),
            _ => Ok(()),
        }
    }
}

/// Decides about a range.
fn fate(range: &ServiceCIDR, all: &[Arc<ServiceCIDR>], addresses: &[Arc<IPAddress>], now: Timestamp) -> Fate {
    let Some(deleted) = &range.metadata.deletion_timestamp else { return Fate::Ready };
    let staying = all.iter().filter(|other| other.metadata.deletion_timestamp.is_none());
    let others: Vec<Prefix> = staying.flat_map(|other| prefixes(other)).collect();
    let orphaned = |prefix: &Prefix| {
        let is_covered = others.iter().any(|other| other.holds(*prefix));
        !is_covered
            && addresses
                .iter()
                .filter_map(|address| managed(address))
                .any(|address| prefix.holds(address) && !others.iter().any(|other| other.holds(address)))
    };
    if prefixes(range).iter().any(orphaned) {
        return Fate::Blocked;
    }
    let left =
        Duration::try_from(now.duration_since(deleted.0)).map_or(GRACE, |past| GRACE.saturating_sub(past));
    if left.is_zero() { Fate::Release } else { Fate::Wait(left) }
}

/// The address, if it is a Service's.
fn managed(address: &IPAddress) -> Option<Prefix> {
    let by = address.metadata.labels.as_ref()?.get(MANAGED_BY.0)?;
    let address: IpAddr = address.metadata.name.as_deref()?.parse().ok()?;
    (by == MANAGED_BY.1).then(|| Prefix::of(address))
}

/// Addresses with a common beginning, as bits.
#[derive(Debug, Clone, Copy)]
struct Prefix {
    first: u128,
    length: u8,
    /// 32 or 128.
    bits: u8,
}

impl Prefix {
    fn parse(text: &str) -> Option<Self> {
        let (first, bits, length) = parse_cidr(text)?;
        Some(Self { first, length, bits })
    }

    fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => Self { first: address.to_bits().into(), length: 32, bits: 32 },
            IpAddr::V6(address) => Self { first: address.to_bits(), length: 128, bits: 128 },
        }
    }

    fn holds(&self, other: Self) -> bool {
        let start = |bits: u128| bits.checked_shr(u32::from(self.bits - self.length)).unwrap_or(0);
        self.bits == other.bits && self.length <= other.length && start(self.first) == start(other.first)
    }
}

fn prefixes(range: &ServiceCIDR) -> Vec<Prefix> {
    let texts = range.spec.as_ref().and_then(|spec| spec.cidrs.as_deref()).unwrap_or_default();
    texts.iter().filter_map(|text| Prefix::parse(text)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(name: &str, cidrs: &[&str], deleted: bool) -> Arc<ServiceCIDR> {
        let deleted = deleted.then_some("2026-01-01T00:00:00Z");
        let meta = json!({"name": name, "deletionTimestamp": deleted});
        Arc::new(serde_json::from_value(json!({"metadata": meta, "spec": {"cidrs": cidrs}})).unwrap())
    }

    fn address(name: &str, by: &str) -> Arc<IPAddress> {
        let meta = json!({"name": name, "labels": {(MANAGED_BY.0): by}});
        let parent = json!({"resource": "services", "namespace": "default", "name": "web"});
        Arc::new(serde_json::from_value(json!({"metadata": meta, "spec": {"parentRef": parent}})).unwrap())
    }

    #[test]
    fn a_range_stays_while_an_address_of_a_service_depends_on_it_alone() {
        let own = MANAGED_BY.1;
        let late: Timestamp = "2026-01-01T00:01:00Z".parse().unwrap();
        let gone = range("gone", &["10.0.0.0/24", "fd00::/112"], true);
        for (why, others, address, expected) in [
            ("no address", vec![], address("10.1.0.1", own), Fate::Release),
            ("an IPv4 address", vec![], address("10.0.0.7", own), Fate::Blocked),
            ("an IPv6 address", vec![], address("fd00::7", own), Fate::Blocked),
            ("somebody else's address", vec![], address("10.0.0.7", "me"), Fate::Release),
            ("a parent", vec![range("p", &["10.0.0.0/16"], false)], address("10.0.0.7", own), Fate::Release),
            ("a twin", vec![range("t", &["10.0.0.0/24"], false)], address("10.0.0.7", own), Fate::Release),
            (
                "a twin that goes",
                vec![range("t", &["10.0.0.0/24"], true)],
                address("10.0.0.7", own),
                Fate::Blocked,
            ),
            (
                "a part with it",
                vec![range("p", &["10.0.0.0/29"], false)],
                address("10.0.0.7", own),
                Fate::Release,
            ),
            (
                "a part without it",
                vec![range("p", &["10.0.0.0/30"], false)],
                address("10.0.0.7", own),
                Fate::Blocked,
            ),
        ] {
            let mut all = others;
            all.push(gone.clone());
            assert_eq!(fate(&gone, &all, &[address], late), expected, "{why}");
        }
    }

    #[test]
    fn a_deleted_range_waits_until_all_servers_know() {
        let now: Timestamp = "2026-01-01T00:00:04Z".parse().unwrap();
        let gone = range("gone", &["10.0.0.0/24"], true);
        assert_eq!(fate(&gone, std::slice::from_ref(&gone), &[], now), Fate::Wait(Duration::from_secs(6)));
        assert_eq!(fate(&range("r", &["10.0.0.0/24"], false), &[], &[], now), Fate::Ready);
    }
}
