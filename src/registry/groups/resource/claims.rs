//! ResourceClaims and their templates.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::resource::v1::{
    AllocatedDeviceStatus, AllocationResult, DeviceClaim, DeviceConstraint, DeviceRequest, DeviceToleration,
    ResourceClaim, ResourceClaimTemplate,
};
use k8s_openapi::jiff::Timestamp;
use serde_json::Value;

use super::checks;
use super::classes::selectors;
use crate::api::field::{FieldError, FieldErrors, Path};
use crate::api::names;
use crate::registry::groups::core::pods::validate::node_selector;
use crate::registry::strategy::Strategy;
use crate::registry::table::{AGE, Column, NAME, age_cell, column, name_cell};
use crate::registry::validation::{self, IMMUTABLE, each, one_of, required, text};

/// The columns of ResourceClaims.
pub const COLUMNS: &[Column] =
    &[NAME, column("State", "string", "Whether devices are allocated and reserved."), AGE];
/// The columns of ResourceClaimTemplates.
pub const TEMPLATE_COLUMNS: &[Column] = &[NAME, AGE];

const MAX_ALTERNATIVES: usize = 8;
const MAX_USERS: usize = 256;
const MAX_DEVICE_CONDITIONS: usize = 8;
const MAX_INTERFACE: usize = 256;
const MAX_HARDWARE_ADDRESS: usize = 128;
const MAX_IPS: usize = 16;
const MODES: [&str; 2] = ["All", "ExactCount"];

/// The strategy of ResourceClaims.
pub struct ClaimStrategy;
/// The strategy of ResourceClaimTemplates.
pub struct TemplateStrategy;

fn defaults(claim: Option<&mut DeviceClaim>) {
    for request in claim.into_iter().flat_map(|claim| claim.requests.iter_mut().flatten()) {
        if let Some(exact) = request.exactly.as_mut() {
            let mode = exact.allocation_mode.get_or_insert_with(|| "ExactCount".into());
            if mode == "ExactCount" && exact.count.unwrap_or(0) == 0 {
                exact.count = Some(1);
            }
        }
        for sub in request.first_available.iter_mut().flatten() {
            let mode = sub.allocation_mode.get_or_insert_with(|| "ExactCount".into());
            if mode == "ExactCount" && sub.count.unwrap_or(0) == 0 {
                sub.count = Some(1);
            }
        }
    }
}

/// The requests of a claim by name, each with the names of its alternatives.
type Names<'a> = BTreeMap<&'a str, BTreeSet<&'a str>>;

fn names_of(claim: Option<&DeviceClaim>) -> Names<'_> {
    let requests = claim.into_iter().flat_map(|claim| claim.requests.iter().flatten());
    let named = requests.map(|request| {
        let alternatives = request.first_available.iter().flatten().map(|sub| sub.name.as_str());
        (request.name.as_str(), alternatives.collect())
    });
    named.collect()
}

fn request(request: &DeviceRequest, at: &Path, errors: &mut FieldErrors) {
    checks::label(&request.name, &at.child("name"), errors);
    let has_alternatives = request.first_available.as_ref().is_some_and(|all| !all.is_empty());
    let one = "exactly one of `exactly` or `firstAvailable` is required";
    match (&request.exactly, has_alternatives) {
        (None, false) => errors.push(FieldError::required(at, one)),
        (Some(_), true) => {
            let message = format!("{one}, but multiple fields are set");
            errors.push(FieldError::invalid(at, Value::Null, message));
        }
        (Some(exact), false) => {
            let at = at.child("exactly");
            class(&exact.device_class_name, &at, errors);
            selectors(exact.selectors.as_ref(), &at.child("selectors"), errors);
            mode(exact.allocation_mode.as_deref(), exact.count, &at, errors);
            tolerations(exact.tolerations.as_ref(), &at, errors);
        }
        (None, true) => checks::set(
            request.first_available.as_ref(),
            MAX_ALTERNATIVES,
            &at.child("firstAvailable"),
            errors,
            |sub| sub.name.clone(),
            |sub, at, errors| {
                checks::label(&sub.name, &at.child("name"), errors);
                class(&sub.device_class_name, at, errors);
                selectors(sub.selectors.as_ref(), &at.child("selectors"), errors);
                mode(sub.allocation_mode.as_deref(), sub.count, at, errors);
                tolerations(sub.tolerations.as_ref(), at, errors);
            },
        ),
    }
}

fn tolerations(all: Option<&Vec<DeviceToleration>>, at: &Path, errors: &mut FieldErrors) {
    checks::list(all, usize::MAX, &at.child("tolerations"), errors, checks::toleration);
}

fn class(name: &str, at: &Path, errors: &mut FieldErrors) {
    let at = at.child("deviceClassName");
    if name.is_empty() {
        errors.push(FieldError::required(&at, ""));
    } else {
        each(names::is_dns1123_subdomain(name), name, &at, errors);
    }
}

fn mode(mode: Option<&str>, count: Option<i64>, at: &Path, errors: &mut FieldErrors) {
    let count = count.unwrap_or(0);
    match mode {
        Some("All") if count != 0 => {
            let message = "must not be specified when allocationMode is 'All'";
            errors.push(FieldError::invalid(&at.child("count"), count, message));
        }
        Some("ExactCount") if count <= 0 => {
            errors.push(FieldError::invalid(&at.child("count"), count, "must be greater than zero"));
        }
        Some("All" | "ExactCount") => {}
        other => errors.push(FieldError::not_supported(&at.child("allocationMode"), other, &MODES)),
    }
}

/// The name of a request of the claim, or of one of its alternatives behind a slash.
fn reference(name: &str, known: &Names<'_>, at: &Path, errors: &mut FieldErrors) {
    let parts: Vec<_> = name.split('/').collect();
    let is_known = match parts[..] {
        [request] => known.contains_key(request),
        [request, sub] => known.get(request).is_some_and(|subs| subs.contains(sub)),
        _ => false,
    };
    if parts.len() <= 2 {
        parts.iter().for_each(|part| checks::label(part, at, errors));
    }
    if !is_known {
        let message = "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'";
        errors.push(FieldError::invalid(at, name, message));
    }
}

fn references(all: Option<&Vec<String>>, known: &Names<'_>, at: &Path, errors: &mut FieldErrors) {
    let at = at.child("requests");
    checks::set(all, checks::MOST, &at, errors, String::clone, |name, at, errors| {
        reference(name, known, at, errors);
    });
}

fn constraint(constraint: &DeviceConstraint, known: &Names<'_>, at: &Path, errors: &mut FieldErrors) {
    references(constraint.requests.as_ref(), known, at, errors);
    match (&constraint.match_attribute, &constraint.distinct_attribute) {
        (Some(name), _) => checks::fully_qualified_name(name, &at.child("matchAttribute"), errors),
        (None, Some(name)) => checks::fully_qualified_name(name, &at.child("distinctAttribute"), errors),
        (None, None) => {
            let message = "exactly one of \"matchAttribute\" or \"distinctAttribute\" is required, but multiple \
                           fields are set";
            errors.push(FieldError::required(at, message));
        }
    }
}

fn claim(claim: Option<&DeviceClaim>, at: &Path, errors: &mut FieldErrors) {
    let Some(own) = claim else { return };
    let (at, known) = (at.child("devices"), names_of(claim));
    let name = |request: &DeviceRequest| request.name.clone();
    checks::set(own.requests.as_ref(), checks::MOST, &at.child("requests"), errors, name, request);
    let constraints = own.constraints.as_ref();
    checks::list(constraints, checks::MOST, &at.child("constraints"), errors, |one, at, errors| {
        constraint(one, &known, at, errors);
    });
    checks::list(own.config.as_ref(), checks::MOST, &at.child("config"), errors, |config, at, errors| {
        references(config.requests.as_ref(), &known, at, errors);
        checks::configuration(config.opaque.as_ref(), false, at, errors);
    });
}

fn allocation(result: &AllocationResult, known: &Names<'_>, at: &Path, errors: &mut FieldErrors) {
    let devices = result.devices.as_ref();
    let at_devices = at.child("devices");
    let results = devices.and_then(|devices| devices.results.as_ref());
    checks::list(results, checks::MOST, &at_devices.child("results"), errors, |result, at, errors| {
        reference(&result.request, known, &at.child("request"), errors);
        checks::driver(&result.driver, &at.child("driver"), errors);
        checks::pool(&result.pool, &at.child("pool"), errors);
        checks::label(&result.device, &at.child("device"), errors);
        let failures = result.binding_failure_conditions.as_ref();
        checks::binding(result.binding_conditions.as_ref(), failures, at, errors);
        tolerations(result.tolerations.as_ref(), at, errors);
        share(result.share_id.as_deref(), at, errors);
    });
    let config = devices.and_then(|devices| devices.config.as_ref());
    checks::list(config, 2 * checks::MOST, &at_devices.child("config"), errors, |config, at, errors| {
        one_of(Some(&config.source), &["FromClaim", "FromClass"], &at.child("source"), errors);
        references(config.requests.as_ref(), known, at, errors);
        checks::configuration(config.opaque.as_ref(), false, at, errors);
    });
    if let Some(selector) = &result.node_selector {
        node_selector(selector, &at.child("nodeSelector"), errors);
    }
}

/// The identity of a share of a device is a UUID.
fn share(id: Option<&str>, at: &Path, errors: &mut FieldErrors) {
    let Some(id) = id else { return };
    let at = at.child("shareID");
    match uuid::Uuid::parse_str(id) {
        Err(error) => errors.push(FieldError::invalid(&at, id, format!("error validating uid: {error}"))),
        Ok(uuid) if uuid.hyphenated().to_string() != id => {
            let message = "uid must be in RFC 4122 normalized form, `xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx` with lowercase \
                           hexadecimal characters";
            errors.push(FieldError::invalid(&at, id, message));
        }
        Ok(_) => {}
    }
}

/// What says which device it is: driver, pool, device, share.
type DeviceId<'a> = (&'a str, &'a str, &'a str, Option<&'a str>);

fn device_status(
    device: &AllocatedDeviceStatus,
    allocated: &BTreeSet<DeviceId<'_>>,
    at: &Path,
    errors: &mut FieldErrors,
) {
    checks::driver(&device.driver, &at.child("driver"), errors);
    checks::pool(&device.pool, &at.child("pool"), errors);
    checks::label(&device.device, &at.child("device"), errors);
    share(device.share_id.as_deref(), at, errors);
    if !allocated.contains(&(&device.driver, &device.pool, &device.device, device.share_id.as_deref())) {
        let shown = device_key(device);
        errors.push(FieldError::invalid(at, shown, "must be an allocated device in the claim"));
    }
    let conditions = device.conditions.as_deref().unwrap_or_default();
    let at_conditions = at.child("conditions");
    if conditions.len() > MAX_DEVICE_CONDITIONS {
        errors.push(FieldError::too_many(&at_conditions, conditions.len(), MAX_DEVICE_CONDITIONS));
    }
    validation::conditions(conditions, &at_conditions, errors);
    if let Some(data) = device.data.as_ref().filter(|data| !data.0.is_null()) {
        checks::raw(data, false, &at.child("data"), errors);
    }
    let Some(network) = &device.network_data else { return };
    let at = at.child("networkData");
    for (field, value, most) in [
        ("interfaceName", &network.interface_name, MAX_INTERFACE),
        ("hardwareAddress", &network.hardware_address, MAX_HARDWARE_ADDRESS),
    ] {
        if text(value).len() > most {
            errors.push(FieldError::too_long(&at.child(field), most));
        }
    }
    checks::set(network.ips.as_ref(), MAX_IPS, &at.child("ips"), errors, String::clone, |ip, at, errors| {
        each(names::is_interface_address(ip), ip, at, errors);
    });
}

fn device_key(device: &AllocatedDeviceStatus) -> String {
    let share = device.share_id.as_ref().map(|share| format!("/{share}")).unwrap_or_default();
    format!("{}/{}/{}{share}", device.driver, device.pool, device.device)
}

impl Strategy for ClaimStrategy {
    type Object = ResourceClaim;

    fn default(&self, claim: &mut ResourceClaim) {
        defaults(claim.spec.devices.as_mut());
    }

    fn validate_create(&self, object: &ResourceClaim, errors: &mut FieldErrors) {
        claim(object.spec.devices.as_ref(), &Path::new("spec"), errors);
    }

    fn validate_update(&self, new: &ResourceClaim, old: &ResourceClaim, errors: &mut FieldErrors) {
        if new.spec != old.spec {
            errors.push(FieldError::invalid(&Path::new("spec"), &new.spec, IMMUTABLE));
        }
    }

    fn validate_status_update(&self, new: &ResourceClaim, old: &ResourceClaim, errors: &mut FieldErrors) {
        let at = Path::new("status");
        let status = new.status.clone().unwrap_or_default();
        let was = old.status.clone().unwrap_or_default();
        let users = status.reserved_for.as_deref().unwrap_or_default();
        if !users.is_empty() && status.allocation.is_none() {
            let message = "may not be specified when `allocated` is not set";
            errors.push(FieldError::forbidden(&at.child("reservedFor"), message));
        }
        let at_users = at.child("reservedFor");
        checks::set(
            status.reserved_for.as_ref(),
            MAX_USERS,
            &at_users,
            errors,
            |user| user.uid.clone(),
            |user, at, errors| {
                for (field, value) in [("resource", &user.resource), ("name", &user.name), ("uid", &user.uid)]
                {
                    required(value, &at.child(field), errors);
                }
            },
        );
        let known = was.reserved_for.as_deref().unwrap_or_default();
        let added = users.iter().any(|user| !known.contains(user));
        if added && status.allocation.is_some() && new.metadata.deletion_timestamp.is_some() {
            let message =
                "new entries may not be added while `deallocationRequested` or `deletionTimestamp` are set";
            errors.push(FieldError::forbidden(&at_users, message));
        }
        let results = status.allocation.iter().flat_map(|allocation| &allocation.devices);
        let allocated: BTreeSet<DeviceId<'_>> = results
            .flat_map(|devices| devices.results.iter().flatten())
            .map(|r| (&*r.driver, &*r.pool, &*r.device, r.share_id.as_deref()))
            .collect();
        let devices = status.devices.as_ref();
        checks::set(devices, usize::MAX, &at.child("devices"), errors, device_key, |device, at, errors| {
            device_status(device, &allocated, at, errors);
        });
        if let (None, Some(result)) = (&was.allocation, &status.allocation) {
            let known = names_of(new.spec.devices.as_ref());
            allocation(result, &known, &at.child("allocation"), errors);
        }
        if was.allocation.is_some() && status.allocation.is_some() && was.allocation != status.allocation {
            errors.push(FieldError::invalid(&at.child("allocation"), &status.allocation, IMMUTABLE));
        }
    }

    fn cells(&self, claim: &ResourceClaim, now: Timestamp) -> Vec<Value> {
        vec![name_cell(&claim.metadata), state(claim).into(), age_cell(&claim.metadata, now)]
    }
}

fn state(claim: &ResourceClaim) -> String {
    let status = claim.status.clone().unwrap_or_default();
    let mut states = Vec::new();
    if claim.metadata.deletion_timestamp.is_some() {
        states.push("deleted");
    }
    if status.allocation.is_some() {
        states.push("allocated");
    } else if claim.metadata.deletion_timestamp.is_none() {
        states.push("pending");
    }
    if status.reserved_for.is_some_and(|users| !users.is_empty()) {
        states.push("reserved");
    }
    states.join(",")
}

impl Strategy for TemplateStrategy {
    type Object = ResourceClaimTemplate;

    fn default(&self, template: &mut ResourceClaimTemplate) {
        defaults(template.spec.spec.devices.as_mut());
    }

    fn validate_create(&self, template: &ResourceClaimTemplate, errors: &mut FieldErrors) {
        claim(template.spec.spec.devices.as_ref(), &Path::new("spec").child("spec"), errors);
    }

    fn validate_update(
        &self,
        new: &ResourceClaimTemplate,
        old: &ResourceClaimTemplate,
        errors: &mut FieldErrors,
    ) {
        if new.spec != old.spec {
            errors.push(FieldError::invalid(&Path::new("spec"), &new.spec, IMMUTABLE));
        }
    }

    fn cells(&self, template: &ResourceClaimTemplate, now: Timestamp) -> Vec<Value> {
        vec![name_cell(&template.metadata), age_cell(&template.metadata, now)]
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn requests_default_to_one_device_and_name_a_class() {
        let mut object: ResourceClaim =
            serde_json::from_value(json!({"metadata": {"name": "a"}, "spec": {"devices": {
            "requests": [{"name": "r", "exactly": {"deviceClassName": "gpu"}}, {"name": "r"}]}}}))
            .unwrap();
        ClaimStrategy.default(&mut object);
        let first = &object.spec.devices.as_ref().unwrap().requests.as_ref().unwrap()[0];
        assert_eq!(first.exactly.as_ref().unwrap().count, Some(1));
        let mut errors = FieldErrors::new();
        ClaimStrategy.validate_create(&object, &mut errors);
        let found: Vec<_> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(
            found,
            [
                "spec.devices.requests[1]: Required value: exactly one of `exactly` or `firstAvailable` is required",
                "spec.devices.requests[1]: Duplicate value: \"r\"",
            ]
        );
        assert_eq!(state(&object), "pending");
    }

    fn wrong(devices: &Value) -> Vec<String> {
        let mut object: ResourceClaim =
            serde_json::from_value(json!({"spec": {"devices": devices}})).unwrap();
        ClaimStrategy.default(&mut object);
        let mut errors = FieldErrors::new();
        ClaimStrategy.validate_create(&object, &mut errors);
        errors.iter().map(|error| error.to_string().replacen("spec.devices.", "", 1)).collect()
    }

    #[test]
    fn constraints_and_configurations_name_requests_of_the_claim() {
        let request = json!([{"name": "r", "firstAvailable": [{"name": "s", "deviceClassName": "c"}]}]);
        let unknown = "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'";
        let opaque = |parameters: Value| json!([{"requests": ["r"], "opaque": {"driver": "d", "parameters": parameters}}]);
        for (patch, expected) in [
            (json!({"constraints": [{"requests": ["r", "r/s"], "matchAttribute": "d.io/a"}]}), vec![]),
            (
                json!({"constraints": [{"requests": ["x", "r/t"], "matchAttribute": "a"}]}),
                vec![
                    format!("constraints[0].requests[0]: Invalid value: \"x\": {unknown}"),
                    format!("constraints[0].requests[1]: Invalid value: \"r/t\": {unknown}"),
                    "constraints[0].matchAttribute: Invalid value: \"a\": a fully qualified name must be a domain and a \
                     name separated by a slash"
                        .to_owned(),
                ],
            ),
            (json!({"config": opaque(json!({"a": 1}))}), vec![]),
            (
                json!({"config": opaque(json!("text"))}),
                vec![
                    "config[0].opaque.parameters: Invalid value: \"<value omitted>\": must be a valid JSON object"
                        .to_owned(),
                ],
            ),
            (json!({"config": [{}]}), vec!["config[0].opaque: Required value".to_owned()]),
        ] {
            let mut devices = json!({"requests": request});
            json_patch::merge(&mut devices, &patch);
            assert_eq!(wrong(&devices), expected, "{patch}");
        }
        let tolerates = |toleration: Value| json!({"requests": [{"name": "r", "exactly": {"deviceClassName": "c", "tolerations": [toleration]}}]});
        assert_eq!(wrong(&tolerates(json!({"key": "k", "operator": "Exists"}))), Vec::<String>::new());
        assert_eq!(
            wrong(&tolerates(json!({"key": "k", "operator": "Exists", "value": "v"}))),
            [
                "requests[0].exactly.tolerations[0].value: Invalid value: \"v\": must be empty for operator `Exists`"
            ]
        );
    }

    #[test]
    fn a_status_tells_of_devices_that_are_allocated_to_requests() {
        let spec = json!({"devices": {"requests": [{"name": "r", "exactly": {"deviceClassName": "c"}}]}});
        let with = |status: Value| -> ResourceClaim {
            serde_json::from_value(json!({"spec": spec, "status": status})).unwrap()
        };
        let result =
            |request: &str| json!({"request": request, "driver": "d.io", "pool": "p", "device": "x"});
        let status = |request: &str, device: &str| {
            json!({"allocation": {"devices": {"results": [result(request)]}},
                   "devices": [{"driver": "d.io", "pool": "p", "device": device,
                                "networkData": {"ips": ["10.0.0.1/24", "10.0.0.1"]}}]})
        };
        let wrong = |status: Value| -> Vec<String> {
            let mut errors = FieldErrors::new();
            ClaimStrategy.validate_status_update(&with(status), &with(json!({})), &mut errors);
            errors.iter().map(|error| error.field.clone()).collect()
        };
        assert_eq!(wrong(status("r", "x")), ["status.devices[0].networkData.ips[1]"]);
        assert_eq!(
            wrong(status("other", "y")),
            [
                "status.devices[0]",
                "status.devices[0].networkData.ips[1]",
                "status.allocation.devices.results[0].request"
            ]
        );
    }
}
