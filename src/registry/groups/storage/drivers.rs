//! CSIDrivers.

use k8s_openapi::api::storage::v1::CSIDriver;
use k8s_openapi::jiff::Timestamp;
use serde_json::Value;

use crate::api::field::{FieldError, FieldErrors, Path};
use crate::api::names;
use crate::registry::strategy::Strategy;
use crate::registry::table::{AGE, Column, NAME, age_cell, column, list_text, name_cell, or_unset};
use crate::registry::validation::{IMMUTABLE, each};

/// The columns of CSIDrivers.
pub const COLUMNS: &[Column] = &[
    NAME,
    column("AttachRequired", "boolean", "Whether volumes are attached to nodes first."),
    column("PodInfoOnMount", "boolean", "Whether the driver is told about the pod."),
    column("StorageCapacity", "boolean", "Whether the scheduler looks at free capacity."),
    column("TokenRequests", "string", "Audiences of the tokens that the driver gets."),
    column("RequiresRepublish", "boolean", "Whether the driver is called again and again."),
    column("Modes", "string", "Kinds of volumes that the driver knows."),
    AGE,
];

const MAX_NAME: usize = 63;
const GROUP_POLICIES: [&str; 3] = ["File", "None", "ReadWriteOnceWithFSType"];
const MODES: [&str; 2] = ["Ephemeral", "Persistent"];

/// The strategy of CSIDrivers.
pub struct CsiDriverStrategy;

/// Checks the name of a CSI driver.
pub fn csi_name(name: &str, at: &Path, errors: &mut FieldErrors) {
    if name.is_empty() {
        errors.push(FieldError::required(at, ""));
        return;
    }
    if name.len() > MAX_NAME {
        errors.push(FieldError::too_long(at, MAX_NAME));
    }
    each(names::is_dns1123_subdomain(&name.to_lowercase()), name, at, errors);
}

impl Strategy for CsiDriverStrategy {
    type Object = CSIDriver;

    fn default(&self, driver: &mut CSIDriver) {
        let spec = &mut driver.spec;
        spec.attach_required.get_or_insert(true);
        spec.pod_info_on_mount.get_or_insert(false);
        spec.storage_capacity.get_or_insert(false);
        spec.fs_group_policy.get_or_insert_with(|| "ReadWriteOnceWithFSType".into());
        if spec.volume_lifecycle_modes.as_ref().is_none_or(Vec::is_empty) {
            spec.volume_lifecycle_modes = Some(vec!["Persistent".into()]);
        }
        spec.requires_republish.get_or_insert(false);
        spec.se_linux_mount.get_or_insert(false);
    }

    fn validate(&self, driver: &CSIDriver, errors: &mut FieldErrors) {
        let name = driver.metadata.name.as_deref().unwrap_or_default();
        csi_name(name, &Path::new("metadata").child("name"), errors);
        let at = Path::new("spec");
        let spec = &driver.spec;
        let policy = spec.fs_group_policy.as_deref().unwrap_or_default();
        if !GROUP_POLICIES.contains(&policy) {
            errors.push(FieldError::not_supported(&at.child("fsGroupPolicy"), policy, &GROUP_POLICIES));
        }
        for (i, mode) in spec.volume_lifecycle_modes.iter().flatten().enumerate() {
            if !MODES.contains(&mode.as_str()) {
                let at = at.child("volumeLifecycleModes").index(i);
                errors.push(FieldError::not_supported(&at, mode, &MODES));
            }
        }
        let mut audiences = std::collections::BTreeSet::new();
        for (i, token) in spec.token_requests.iter().flatten().enumerate() {
            let at = at.child("tokenRequests").index(i);
            if !audiences.insert(&token.audience) {
                errors.push(FieldError::duplicate(&at.child("audience"), &token.audience));
            }
            let Some(seconds) = token.expiration_seconds else { continue };
            let at = at.child("expirationSeconds");
            if seconds < 600 {
                let message = "may not specify a duration less than 10 minutes";
                errors.push(FieldError::invalid(&at, seconds, message));
            }
            if seconds > 1 << 32 {
                let message = "may not specify a duration larger than 2^32 seconds";
                errors.push(FieldError::invalid(&at, seconds, message));
            }
        }
    }

    fn validate_update(&self, new: &CSIDriver, old: &CSIDriver, errors: &mut FieldErrors) {
        let at = Path::new("spec");
        if new.spec.attach_required != old.spec.attach_required {
            errors.push(FieldError::invalid(
                &at.child("attachedRequired"),
                new.spec.attach_required,
                IMMUTABLE,
            ));
        }
        if new.spec.volume_lifecycle_modes != old.spec.volume_lifecycle_modes {
            let at = at.child("volumeLifecycleModes");
            errors.push(FieldError::invalid(&at, &new.spec.volume_lifecycle_modes, IMMUTABLE));
        }
    }

    fn cells(&self, driver: &CSIDriver, now: Timestamp) -> Vec<Value> {
        let spec = &driver.spec;
        let modes = spec.volume_lifecycle_modes.as_deref().unwrap_or_default();
        let audiences: Option<Vec<&str>> = spec
            .token_requests
            .as_ref()
            .map(|tokens| tokens.iter().map(|token| token.audience.as_str()).collect());
        vec![
            name_cell(&driver.metadata),
            spec.attach_required.unwrap_or(true).into(),
            spec.pod_info_on_mount.unwrap_or(false).into(),
            spec.storage_capacity.unwrap_or(false).into(),
            or_unset(audiences.map(|audiences| audiences.join(",")).as_ref()),
            spec.requires_republish.unwrap_or(false).into(),
            list_text(modes).into(),
            age_cell(&driver.metadata, now),
        ]
    }
}
