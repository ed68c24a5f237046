//! ServiceCIDRs, and the IPAddresses that are taken from them.

use k8s_openapi::api::networking::v1::{IPAddress, ServiceCIDR, ServiceCIDRStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use k8s_openapi::jiff::Timestamp;
use serde_json::Value;

use crate::api::field::{FieldError, FieldErrors, Path};
use crate::api::names;
use crate::registry::context::RequestContext;
use crate::registry::strategy::Strategy;
use crate::registry::table::{AGE, Column, NAME, age_cell, column, name_cell};
use crate::registry::validation::{IMMUTABLE, each};
use crate::registry::write::system;

/// The columns of IPAddresses.
pub const ADDRESS_COLUMNS: &[Column] =
    &[NAME, column("ParentRef", "string", "What the address belongs to."), AGE];
/// The columns of ServiceCIDRs.
pub const CIDR_COLUMNS: &[Column] =
    &[NAME, column("CIDRs", "string", "Ranges that Services get addresses from."), AGE];

/// The range that the server was started with.
pub const DEFAULT_RANGE: &str = "kubernetes";

/// The strategy of IPAddresses.
pub struct IpAddressStrategy;
/// The strategy of ServiceCIDRs.
pub struct ServiceCidrStrategy;

impl Strategy for IpAddressStrategy {
    type Object = IPAddress;

    fn validate(&self, address: &IPAddress, errors: &mut FieldErrors) {
        let name = address.metadata.name.as_deref().unwrap_or_default();
        let canonical = name.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.to_string() == name);
        if !canonical {
            let message = "must be a valid IP address in canonical form";
            errors.push(FieldError::invalid(&Path::new("metadata").child("name"), name, message));
        }
        let at = Path::new("spec").child("parentRef");
        let parent = &address.spec.parent_ref;
        if parent.resource.is_empty() {
            errors.push(FieldError::required(&at.child("resource"), ""));
        } else {
            let messages = names::is_path_segment_name(&parent.resource);
            each(messages, &parent.resource, &at.child("resource"), errors);
        }
        if parent.name.is_empty() {
            errors.push(FieldError::required(&at.child("name"), ""));
        } else {
            each(names::is_path_segment_name(&parent.name), &parent.name, &at.child("name"), errors);
        }
        if let Some(group) = parent.group.as_deref().filter(|group| !group.is_empty()) {
            each(names::is_dns1123_subdomain(group), group, &at.child("group"), errors);
        }
        if let Some(namespace) = parent.namespace.as_deref().filter(|namespace| !namespace.is_empty()) {
            each(names::is_path_segment_name(namespace), namespace, &at.child("namespace"), errors);
        }
    }

    fn validate_update(&self, new: &IPAddress, old: &IPAddress, errors: &mut FieldErrors) {
        if new.spec.parent_ref != old.spec.parent_ref {
            let at = Path::new("spec").child("parentRef");
            errors.push(FieldError::invalid(&at, &new.spec.parent_ref, IMMUTABLE));
        }
    }

    fn cells(&self, address: &IPAddress, now: Timestamp) -> Vec<Value> {
        let parent = &address.spec.parent_ref;
        let mut parts = vec![parent.resource.as_str()];
        parts.extend(parent.namespace.as_deref().filter(|namespace| !namespace.is_empty()));
        parts.push(&parent.name);
        let group = parent.group.as_deref().filter(|group| !group.is_empty());
        let resource = match group {
            Some(group) => format!("{}.{group}", parent.resource),
            None => parent.resource.clone(),
        };
        let text = format!("{resource}/{}", parts[1..].join("/"));
        vec![name_cell(&address.metadata), text.into(), age_cell(&address.metadata, now)]
    }
}

impl Strategy for ServiceCidrStrategy {
    type Object = ServiceCIDR;

    /// The range that the server was started with is in use from the start; of others their controller says so.
    fn prepare_for_create(&self, _: &RequestContext, cidr: &mut ServiceCIDR) {
        let mut status = ServiceCIDRStatus::default();
        if cidr.metadata.name.as_deref() == Some(DEFAULT_RANGE) {
            status.conditions = Some(vec![Condition {
                type_: "Ready".into(),
                status: "True".into(),
                message: "Kubernetes Service CIDR is ready".into(),
                reason: "NetworkReady".into(),
                last_transition_time: system::now(),
                observed_generation: None,
            }]);
        }
        cidr.status = Some(status);
    }

    fn validate(&self, cidr: &ServiceCIDR, errors: &mut FieldErrors) {
        let at = Path::new("spec").child("cidrs");
        let cidrs = cidr.spec.as_ref().and_then(|spec| spec.cidrs.as_deref()).unwrap_or_default();
        match cidrs.len() {
            0 => errors.push(FieldError::required(&at, "at least one CIDR required")),
            1 => {}
            2 => {
                if cidrs[0].contains(':') == cidrs[1].contains(':') {
                    let message = "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64";
                    errors.push(FieldError::invalid(&at, cidrs, message));
                }
            }
            _ => {
                let message = "may only hold up to 2 values, one for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64";
                errors.push(FieldError::invalid(&at, cidrs, message));
            }
        }
        for (i, cidr) in cidrs.iter().enumerate() {
            each(names::is_cidr(cidr), cidr, &at.index(i), errors);
        }
    }

    fn validate_update(&self, new: &ServiceCIDR, old: &ServiceCIDR, errors: &mut FieldErrors) {
        let cidrs = |object: &ServiceCIDR| {
            object.spec.as_ref().and_then(|spec| spec.cidrs.clone()).unwrap_or_default()
        };
        let (new, old) = (cidrs(new), cidrs(old));
        let at = Path::new("spec").child("cidrs");
        for (i, was) in old.iter().enumerate() {
            if new.get(i) != Some(was) {
                errors.push(FieldError::invalid(&at.index(i), new.get(i), IMMUTABLE));
            }
        }
    }

    fn cells(&self, cidr: &ServiceCIDR, now: Timestamp) -> Vec<Value> {
        let cidrs = cidr.spec.as_ref().and_then(|spec| spec.cidrs.clone()).unwrap_or_default();
        vec![name_cell(&cidr.metadata), cidrs.join(",").into(), age_cell(&cidr.metadata, now)]
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_address_is_named_by_itself_and_has_a_parent() {
        let address = |name: &str, parent: Value| -> IPAddress {
            serde_json::from_value(json!({"metadata": {"name": name}, "spec": {"parentRef": parent}}))
                .unwrap()
        };
        let good = address("10.0.0.1", json!({"resource": "services", "namespace": "a", "name": "b"}));
        let mut errors = FieldErrors::new();
        IpAddressStrategy.validate(&good, &mut errors);
        assert!(errors.is_empty(), "{errors}");
        assert_eq!(IpAddressStrategy.cells(&good, Timestamp::UNIX_EPOCH)[1], "services/a/b");
        IpAddressStrategy.validate(&address("10.0.0.01", json!({"resource": "", "name": ""})), &mut errors);
        let found: Vec<_> = errors.iter().map(|error| error.field.as_str()).collect();
        assert_eq!(found, ["metadata.name", "spec.parentRef.resource", "spec.parentRef.name"]);
    }
}
