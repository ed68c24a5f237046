//! Services and EndpointSlices rendered to iptables rules, as upstream's kube-proxy in its iptables mode does.
//!
//! What should be there is computed whole and pure ([`model`], [`rules`]); what changed against what is there goes to
//! the kernel in one call per family and table ([`sync`]). Chains have upstream's names, so that what administrators
//! and tools know still holds. Nothing else in the host's tables is touched.

mod connections;
mod diff;
mod model;
#[cfg(test)]
mod netns_tests;
mod rules;
mod sync;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::client::Informers;
use crate::host::firewall::{Family, Firewall, FirewallError};
use connections::Served;
use sync::Tables;

/// What the proxy must be told.
#[derive(Clone, Debug)]
pub struct ProxyConfig {
    /// Name of this node, which tells local endpoints from others.
    pub node_name: String,
    /// Addresses of pods, as `address/bits`: traffic to Services from elsewhere is masqueraded.
    pub cluster_cidrs: Vec<String>,
    /// The families that Services have addresses of.
    pub families: Vec<Family>,
}

/// How often rules that somebody else has removed are noticed.
const REPAIR_INTERVAL: std::time::Duration = std::time::Duration::from_secs(30);
/// How often, at most, rules are written; changes in between go together.
const SYNC_PAUSE: std::time::Duration = std::time::Duration::from_millis(100);
/// Pause after rules were refused.
const RETRY_PAUSE: std::time::Duration = std::time::Duration::from_secs(1);

/// Keeps the rules in step with the cluster until `stop`. The rules stay: Services go on working without us.
pub async fn run(
    config: ProxyConfig,
    informers: &Informers,
    firewall: Arc<dyn Firewall>,
    stop: CancellationToken,
) {
    let services = informers.get::<Service>();
    let slices = informers.get::<EndpointSlice>();
    let (mut service_changes, mut slice_changes) = (services.subscribe(), slices.subscribe());
    let mut tables: BTreeMap<Family, Tables> = BTreeMap::new();
    let mut served = Served::default();
    let everything_known = async { tokio::join!(services.synced(), slices.synced()) };
    if stop.run_until_cancelled(everything_known).await.is_none() {
        return;
    }
    info!(families = ?config.families, "Service proxy writes rules");
    let mut repair = tokio::time::interval(REPAIR_INTERVAL);
    repair.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while !stop.is_cancelled() {
        let ports = model::service_ports(&services.list(), &slices.list(), &config.node_name);
        let mut pause = SYNC_PAUSE;
        for family in &config.families {
            let table = tables.entry(*family).or_default();
            let wanted = rules::render(&ports, *family, &config.cluster_cidrs);
            if let Err(error) = table.sync(*family, wanted, &*firewall).await {
                warn!(?family, error = &error as &dyn std::error::Error, "writing Service rules failed");
                table.forget();
                pause = RETRY_PAUSE;
            }
        }
        connections::clean(&mut served, &ports, &*firewall).await;
        let changed = async {
            if pause == RETRY_PAUSE {
                return;
            }
            loop {
                tokio::select! {
                    _ = service_changes.next() => return,
                    _ = slice_changes.next() => return,
                    _ = repair.tick() => {
                        let missing = sync::anything_missing(&tables, &*firewall).await;
                        if missing {
                            warn!("Service rules were removed by somebody else: they are written again");
                            tables.values_mut().for_each(Tables::forget);
                            return;
                        }
                    }
                }
            }
        };
        if stop.run_until_cancelled(changed).await.is_none()
            || stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_none()
        {
            return;
        }
    }
}

/// Takes all rules of the proxy out of the host's tables; what others have put there stays.
///
/// # Errors
/// The tables could not be read or changed. It may be tried again: what is gone already is no error.
pub async fn remove(families: &[Family], firewall: &dyn Firewall) -> Result<(), FirewallError> {
    for family in families {
        sync::remove(*family, firewall).await?;
    }
    Ok(())
}

/// The family of an address.
fn family_of(address: IpAddr) -> Family {
    if address.is_ipv4() { Family::V4 } else { Family::V6 }
}
