//! The node's lease: a sign of life, four times as often as it must come, that costs little.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, OwnerReference};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::json;

use crate::client::error;
use crate::host::clock::Clock;

const NAMESPACE: &str = "kube-node-lease";

/// Renews the lease once, making it when it is not there. It lasts for `duration`.
pub async fn renew(
    client: &Client,
    node: &Node,
    duration: Duration,
    clock: &dyn Clock,
) -> Result<(), kube::Error> {
    let api: Api<Lease> = Api::namespaced(client.clone(), NAMESPACE);
    let name = node.metadata.name.clone().unwrap_or_default();
    let spec = LeaseSpec {
        holder_identity: Some(name.clone()),
        lease_duration_seconds: i32::try_from(duration.as_secs()).ok(),
        renew_time: Some(MicroTime(clock.now())),
        ..LeaseSpec::default()
    };
    let patch = json!({"spec": spec});
    match api.patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await {
        Ok(_) => Ok(()),
        Err(e) if error::is_not_found(&e) => {
            api.create(&PostParams::default(), &lease(node, spec)).await.map(drop)
        }
        Err(e) => Err(e),
    }
}

fn lease(node: &Node, spec: LeaseSpec) -> Lease {
    let mut lease = Lease { spec: Some(spec), ..Lease::default() };
    let name = node.metadata.name.clone().unwrap_or_default();
    lease.metadata.name = Some(name.clone());
    lease.metadata.namespace = Some(NAMESPACE.to_owned());
    lease.metadata.owner_references = node.metadata.uid.clone().map(|uid| {
        vec![OwnerReference {
            api_version: "v1".to_owned(),
            kind: "Node".to_owned(),
            name,
            uid,
            ..OwnerReference::default()
        }]
    });
    lease
}
