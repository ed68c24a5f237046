//! Objects that the API server itself keeps in line with others: whether a FlowSchema's level is there, and the
//! IPAddress objects of Services.

use std::collections::{BTreeMap, BTreeSet};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::flowcontrol::v1::{FlowSchema, PriorityLevelConfiguration};
use k8s_openapi::api::networking::v1::IPAddress;
use serde_json::{Value, json};

use super::ApiServer;
use super::changes::Round;
use super::secret_tokens;
use crate::api::error::ApiError;
use crate::api::meta;
use crate::registry::{Body, DeleteOptions, RequestContext};

/// Group, version and plural of what a loop watches.
type Kinds = &'static [(&'static str, &'static str, &'static str)];

/// Every loop and what it watches.
pub(super) const LOOPS: [(Kinds, Round); 3] = [
    (
        &[
            ("flowcontrol.apiserver.k8s.io", "v1", "flowschemas"),
            ("flowcontrol.apiserver.k8s.io", "v1", "prioritylevelconfigurations"),
        ],
        dangling,
    ),
    (&[("", "v1", "services"), ("networking.k8s.io", "v1", "ipaddresses")], addresses),
    (&[("", "v1", "configmaps"), ("", "v1", "namespaces")], secret_tokens::track),
];

const MANAGED_BY: &str = "ipaddress.kubernetes.io/managed-by";
const ALLOCATOR: &str = "ipallocator.k8s.io";

fn dangling(server: &ApiServer) -> BoxFuture<'_, Result<(), ApiError>> {
    server.tell_dangling().boxed()
}

fn addresses(server: &ApiServer) -> BoxFuture<'_, Result<(), ApiError>> {
    server.keep_addresses().boxed()
}

/// The server itself, under the name of one of upstream's parts.
pub(super) fn context(manager: &str) -> RequestContext {
    let mut cx = super::aggregation::own_context();
    cx.user_agent = manager.to_owned();
    cx
}

/// The condition `Dangling` of a schema; upstream's words.
fn condition(level: &str, found: bool) -> (&'static str, &'static str, String) {
    let about = format!("This FlowSchema references the PriorityLevelConfiguration object named {level:?}");
    if found {
        ("False", "Found", format!("{about} and it exists"))
    } else {
        ("True", "NotFound", format!("{about} but there is no such object"))
    }
}

impl ApiServer {
    /// Says in every FlowSchema whether the level that it names is there.
    async fn tell_dangling(&self) -> Result<(), ApiError> {
        let row = self.registry.catalog().of::<FlowSchema>();
        let row = row.ok_or_else(|| ApiError::internal("flow schemas are not served"))?;
        let levels = self.registry.read_all::<PriorityLevelConfiguration>("")?;
        let levels: BTreeSet<String> = levels.into_iter().filter_map(|level| level.metadata.name).collect();
        for schema in self.registry.read_all::<FlowSchema>("")? {
            let level = schema.spec.as_ref().map(|spec| spec.priority_level_configuration.name.clone());
            let level = level.unwrap_or_default();
            let (status, reason, message) = condition(&level, levels.contains(&level));
            let conditions = schema.status.as_ref().and_then(|status| status.conditions.as_deref());
            let known =
                conditions.unwrap_or_default().iter().find(|c| c.type_.as_deref() == Some("Dangling"));
            let same = known.is_some_and(|known| {
                (known.status.as_deref(), known.reason.as_deref(), known.message.as_deref())
                    == (Some(status), Some(reason), Some(message.as_str()))
            });
            if same {
                continue;
            }
            let since = known.filter(|known| known.status.as_deref() == Some(status));
            let since = since.and_then(|known| known.last_transition_time.as_ref());
            let since = since.map_or_else(|| json!(meta::now_rfc3339()), |time| json!(time));
            let name = schema.metadata.name.clone().unwrap_or_default();
            let mut value = serde_json::to_value(&schema).map_err(ApiError::internal)?;
            let own = json!({"type": "Dangling", "status": status, "reason": reason, "message": message,
                "lastTransitionTime": since});
            let mut all =
                value.pointer("/status/conditions").and_then(Value::as_array).cloned().unwrap_or_default();
            all.retain(|one| one["type"] != "Dangling");
            all.push(own);
            value["status"]["conditions"] = all.into();
            let cx = context("api-priority-and-fairness-config-consumer-v1");
            let body = Body::json(value.to_string());
            match self.registry.update(&cx, row, Some("status"), "", &name, body).await {
                Err(error) if error.code() != 404 => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// Gives every address of a Service its IPAddress, and takes away those that no Service has any more.
    async fn keep_addresses(&self) -> Result<(), ApiError> {
        let row = self.registry.catalog().of::<IPAddress>();
        let row = row.ok_or_else(|| ApiError::internal("IP addresses are not served"))?;
        let mut wanted: BTreeMap<String, (String, String)> = BTreeMap::new();
        for service in self.registry.read_all_latest::<Service>("").await? {
            let of =
                (service.metadata.namespace.unwrap_or_default(), service.metadata.name.unwrap_or_default());
            let ips = service.spec.and_then(|spec| spec.cluster_ips).unwrap_or_default();
            wanted.extend(ips.into_iter().filter(|ip| ip != "None").map(|ip| (ip, of.clone())));
        }
        let cx = context("kube-apiserver");
        for address in self.registry.read_all_latest::<IPAddress>("").await? {
            let name = address.metadata.name.unwrap_or_default();
            let labels = address.metadata.labels.unwrap_or_default();
            let parent =
                (address.spec.parent_ref.namespace.unwrap_or_default(), address.spec.parent_ref.name);
            if wanted.get(&name) == Some(&parent) {
                wanted.remove(&name);
            } else if labels.get(MANAGED_BY).map(String::as_str) == Some(ALLOCATOR) {
                match self.registry.delete(&cx, row, "", &name, DeleteOptions::default()).await {
                    Err(error) if error.code() != 404 => return Err(error),
                    _ => {}
                }
            }
        }
        for (ip, (namespace, name)) in wanted {
            let family = if ip.contains(':') { "IPv6" } else { "IPv4" };
            let object = json!({
                "metadata": {"name": ip, "labels": {
                    "ipaddress.kubernetes.io/ip-family": family, MANAGED_BY: ALLOCATOR}},
                "spec": {"parentRef": {"group": "", "resource": "services", "namespace": namespace, "name": name}},
            });
            match self.registry.create(&cx, row, None, "", "", Body::json(object.to_string())).await {
                Err(error) if error.code() != 409 => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schema_whose_level_is_missing_dangles() {
        assert_eq!(condition("a", true).0, "False");
        let (status, reason, message) = condition("a", false);
        assert_eq!((status, reason), ("True", "NotFound"));
        assert!(message.ends_with("object named \"a\" but there is no such object"), "{message}");
    }
}
