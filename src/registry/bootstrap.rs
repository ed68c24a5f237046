//! What every cluster has before anybody comes: namespaces, roles, priority classes, the default storage class, and the
//! API's own Service.
//!
//! It goes through the same pipeline as every request, as a user of its own, and may be repeated: each start brings
//! back what is missing and leaves what people have added.

mod apply;
mod flow_control;
mod rbac;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::Resource as _;
use k8s_openapi::api::core::v1::{Endpoints, Namespace, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::ServiceCIDR;
use k8s_openapi::api::scheduling::v1::PriorityClass;
use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService;
use serde_json::{Value, json};

use super::groups;
use super::service::Registry;
use crate::api::error::ApiError;
use apply::Applier;

/// Why the first objects could not be made.
#[derive(Debug, thiserror::Error)]
pub enum BootstrapError {
    /// One of them was refused.
    #[error("make {kind} {name}")]
    Object {
        /// Its kind.
        kind: &'static str,
        /// Its name.
        name: String,
        /// Why.
        #[source]
        source: ApiError,
    },
    /// The built-in list of roles does not parse: the build is broken.
    #[error("built-in roles: {0}")]
    Roles(String),
}

/// Namespaces that always are there.
const NAMESPACES: [&str; 4] = ["default", "kube-system", "kube-public", "kube-node-lease"];
/// Name, value and description of the two classes that upstream reserves.
const PRIORITY_CLASSES: [(&str, i32, &str); 2] = [
    (
        "system-cluster-critical",
        2_000_000_000,
        "For pods that the cluster needs and that may move to another node.",
    ),
    ("system-node-critical", 2_000_001_000, "For pods that a node needs and that cannot move."),
];

/// Makes or mends the first objects.
///
/// # Errors
/// An object was refused, or the store does not answer; what was made before stays.
pub async fn run(registry: &Arc<Registry>) -> Result<(), BootstrapError> {
    let apply = Applier::new(registry);
    for name in NAMESPACES {
        apply.create_missing::<Namespace>(json!({"metadata": {"name": name}})).await?;
    }
    rbac::reconcile(&apply).await?;
    flow_control::reconcile(&apply).await?;
    for (name, value, description) in PRIORITY_CLASSES {
        let class = json!({"metadata": {"name": name}, "value": value, "description": description});
        apply.create_missing::<PriorityClass>(class).await?;
    }
    let class = json!({
        "metadata": {
            "name": "local-path",
            "annotations": {"storageclass.kubernetes.io/is-default-class": "true"},
        },
        "provisioner": "rancher.io/local-path",
        "reclaimPolicy": "Delete",
        "volumeBindingMode": "WaitForFirstConsumer",
    });
    if registry.config().local_storage {
        apply.create_missing::<StorageClass>(class).await?;
    }
    api_services(&apply, registry).await?;
    let range = json!({
        "metadata": {"name": groups::networking::addresses::DEFAULT_RANGE},
        "spec": {"cidrs": [registry.config().service_cidr]},
    });
    apply.create_missing::<ServiceCIDR>(range).await?;
    kubernetes_service(&apply, registry).await
}

/// Every group and version that this server answers itself is registered.
async fn api_services(apply: &Applier<'_>, registry: &Registry) -> Result<(), BootstrapError> {
    let rows = registry.catalog().iter();
    let served: BTreeSet<_> = rows.map(|row| (row.group.to_string(), row.version.to_string())).collect();
    // The group of APIServices itself is always there, and not registered.
    for (group, version) in served.into_iter().filter(|(group, _)| group != APIService::GROUP) {
        let (group_priority, version_priority) = groups::priorities(&group, &version);
        let service = json!({
            "metadata": {
                "name": format!("{version}.{group}"),
                "labels": {"kube-aggregator.kubernetes.io/automanaged": "onstart"},
            },
            "spec": {
                "group": group, "version": version,
                "groupPriorityMinimum": group_priority, "versionPriority": version_priority,
            },
        });
        apply.create_missing::<APIService>(service).await?;
    }
    Ok(())
}

/// `default/kubernetes`: how pods find the API server.
async fn kubernetes_service(apply: &Applier<'_>, registry: &Registry) -> Result<(), BootstrapError> {
    let config = registry.config();
    let service = json!({
        "metadata": {
            "name": "kubernetes", "namespace": "default",
            "labels": {"component": "apiserver", "provider": "kubernetes"},
        },
        "spec": {
            "type": "ClusterIP", "clusterIP": first_address(&config.service_cidr), "sessionAffinity": "None",
            "ports": [{"name": "https", "protocol": "TCP", "port": 443, "targetPort": config.secure_port}],
        },
    });
    apply.create_missing::<Service>(service).await?;
    if config.advertise.is_loopback() || config.advertise.is_unspecified() {
        // Such an address means something else to every pod, and endpoints may not have it.
        return Ok(());
    }
    let address = config.advertise.to_string();
    let endpoints = json!({
        "metadata": {
            "name": "kubernetes", "namespace": "default",
            "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"},
        },
        "subsets": [{
            "addresses": [{"ip": address}],
            "ports": [{"name": "https", "port": config.secure_port, "protocol": "TCP"}],
        }],
    });
    apply.make_equal::<Endpoints>(endpoints, "/subsets").await?;
    let family = if config.advertise.is_ipv6() { "IPv6" } else { "IPv4" };
    let slice = json!({
        "metadata": {
            "name": "kubernetes", "namespace": "default",
            "labels": {"kubernetes.io/service-name": "kubernetes"},
        },
        "addressType": family,
        "endpoints": [{"addresses": [address], "conditions": {"ready": true}}],
        "ports": [{"name": "https", "port": config.secure_port, "protocol": "TCP"}],
    });
    apply.make_equal::<EndpointSlice>(slice, "/endpoints").await
}

/// The first address after the network's own, which upstream gives to the API's Service.
fn first_address(cidr: &str) -> Value {
    let network = cidr.split('/').next().and_then(|address| address.parse::<IpAddr>().ok());
    match network {
        Some(IpAddr::V4(v4)) => json!(std::net::Ipv4Addr::from(u32::from(v4).saturating_add(1))),
        Some(IpAddr::V6(v6)) => json!(std::net::Ipv6Addr::from(u128::from(v6).saturating_add(1))),
        None => Value::Null,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn api_service_has_the_first_address() {
        assert_eq!(first_address("10.43.0.0/16"), json!("10.43.0.1"));
        assert_eq!(first_address("fd00:43::/112"), json!("fd00:43::1"));
    }
}
