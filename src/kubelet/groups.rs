//! The node's own control groups: `kubepods` with a group per quality of service class below it.
//!
//! Pods of a class share its group, so that best-effort pods together weigh next to nothing against the others, and
//! all pods together stay below what the node may give them.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;

use crate::host::Host;
use crate::host::cgroups::{CgroupError, CgroupPath, Limits};
use crate::kubelet::config::KubeletConfig;
use crate::kubelet::containers::qos::{QosClass, qos_class};
use crate::kubelet::containers::resources::{milli, pod_requests, shares, units};
use crate::kubelet::context::Context;

/// The group that holds all pods, when the kubelet manages groups.
pub fn all_pods(config: &KubeletConfig) -> Option<CgroupPath> {
    Some(CgroupPath::parse(config.cgroup_root.as_deref()?).child("kubepods"))
}

/// Makes the groups, with what is reserved for others kept out of reach.
///
/// # Errors
/// The host does not allow it; pods then live where the runtime puts them.
pub async fn make(host: &Host, config: &KubeletConfig) -> Result<(), CgroupError> {
    let Some(all) = all_pods(config) else { return Ok(()) };
    let info = host.machine.info();
    let reserved = |name: &str, of: fn(&k8s_openapi::apimachinery::pkg::api::resource::Quantity) -> i64| {
        let quantity = config
            .reserved
            .get(name)
            .map(|q| k8s_openapi::apimachinery::pkg::api::resource::Quantity(q.clone()));
        quantity.as_ref().map_or(0, of)
    };
    let cpu = i64::try_from(info.processors).unwrap_or(1) * 1000 - reserved("cpu", milli);
    let memory = i64::try_from(info.memory).unwrap_or(i64::MAX) - reserved("memory", units);
    let limits =
        Limits { cpu_shares: u64::try_from(shares(cpu)).ok(), memory: Some(memory), ..Limits::default() };
    host.cgroups.ensure(&all, &limits).await?;
    let least = Limits { cpu_shares: u64::try_from(shares(0)).ok(), ..Limits::default() };
    for class in [QosClass::Burstable, QosClass::BestEffort].iter().filter_map(|c| c.cgroup()) {
        host.cgroups.ensure(&all.child(class), &least).await?;
    }
    Ok(())
}

/// Gives the group of burstable pods the weight that they asked for together; `known` is what it has.
pub async fn weigh(ctx: &Context, pods: &[Arc<Pod>], known: &mut Option<u64>) {
    let Some(all) = all_pods(&ctx.config) else { return };
    let wanted = u64::try_from(shares(burstable_cpu(pods))).unwrap_or(0);
    if *known == Some(wanted) {
        return;
    }
    let limits = Limits { cpu_shares: Some(wanted), ..Limits::default() };
    match ctx.host.cgroups.ensure(&all.child("burstable"), &limits).await {
        Ok(()) => *known = Some(wanted),
        Err(error) => {
            tracing::debug!(error = &error as &dyn std::error::Error, "weight of burstable pods not set")
        }
    }
}

fn burstable_cpu(pods: &[Arc<Pod>]) -> i64 {
    let burstable = pods.iter().filter(|p| qos_class(p) == QosClass::Burstable);
    burstable.map(|p| pod_requests(p).get("cpu").copied().unwrap_or(0)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::fake::FakeHost;
    use crate::kubelet::pods::fixture;
    use serde_json::json;

    #[tokio::test]
    async fn all_pods_stay_below_what_is_not_reserved() {
        let host = FakeHost::default();
        let mut config = fixture::config();
        make(&host.host(), &config).await.unwrap();
        config.cgroup_root = Some("/".into());
        config.reserved =
            [("memory".to_owned(), "1Gi".to_owned()), ("cpu".to_owned(), "1".to_owned())].into();
        make(&host.host(), &config).await.unwrap();
        let limits = host.cgroups.limits(&CgroupPath::parse("/kubepods")).unwrap();
        assert_eq!((limits.memory, limits.cpu_shares), (Some(7 << 30), Some(3072)));
        let besteffort = host.cgroups.limits(&CgroupPath::parse("/kubepods/besteffort")).unwrap();
        assert_eq!(besteffort.cpu_shares, Some(2));
    }

    #[test]
    fn burstable_pods_weigh_what_they_ask_for() {
        let pod = |cpu: &str| {
            Arc::new(fixture::pod(
                json!({"containers": [{"name": "a", "resources": {"requests": {"cpu": cpu}}}]}),
            ))
        };
        let idle = Arc::new(fixture::pod(json!({"containers": [{"name": "a"}]})));
        assert_eq!(burstable_cpu(&[pod("1"), pod("250m"), idle]), 1250);
    }
}
