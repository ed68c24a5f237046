//! Sources that are disks of a cloud or of a storage network.

use k8s_openapi::api::core::v1::{AzureDiskVolumeSource, FCVolumeSource};

use super::all_required;
use crate::api::field::{FieldError, FieldErrors, Path};
use crate::api::names;

const CACHING: [&str; 3] = ["None", "ReadOnly", "ReadWrite"];
const DISK_KINDS: [&str; 3] = ["Dedicated", "Managed", "Shared"];
const MANAGED_URI: &str =
    "/subscriptions/{sub-id}/resourcegroups/{group-name}/providers/microsoft.compute/disks/{disk-id}";
const BLOB_URI: &str = "https://{account-name}.blob.core.windows.net/{container-name}/{disk-name}.vhd";

/// A disk with an optional partition.
pub fn partitioned(
    field: &'static str,
    id: &str,
    partition: Option<i32>,
    at: &Path,
    errors: &mut FieldErrors,
) {
    all_required(&[(field, id)], at, errors);
    if let Some(partition) = partition.filter(|number| !(0..=255).contains(number)) {
        let message = names::inclusive_range_error(1, 255);
        errors.push(FieldError::invalid(&at.child("partition"), partition, message));
    }
}

/// A logical unit number.
pub(super) fn unit(number: i32, at: &Path, errors: &mut FieldErrors) {
    if !(0..=255).contains(&number) {
        let message = names::inclusive_range_error(0, 255);
        errors.push(FieldError::invalid(&at.child("lun"), number, message));
    }
}

/// A Fibre Channel disk: target names with a unit, or world wide identifiers.
pub fn fibre_channel(source: &FCVolumeSource, at: &Path, errors: &mut FieldErrors) {
    let targets = source.target_wwns.as_deref().unwrap_or_default();
    let ids = source.wwids.as_deref().unwrap_or_default();
    if targets.is_empty() && ids.is_empty() {
        let message = "must specify either targetWWNs or wwids, but not both";
        errors.push(FieldError::required(&at.child("targetWWNs"), message));
    }
    if !targets.is_empty() && !ids.is_empty() {
        let message = "targetWWNs and wwids can not be specified simultaneously";
        errors.push(FieldError::invalid(&at.child("targetWWNs"), targets, message));
    }
    match source.lun {
        _ if targets.is_empty() => {}
        None => {
            let message = "lun is required if targetWWNs is specified";
            errors.push(FieldError::required(&at.child("lun"), message));
        }
        Some(number) => unit(number, at, errors),
    }
}

/// A share of Azure's.
pub fn azure_file(secret: &str, share: &str, namespace: Option<&str>, at: &Path, errors: &mut FieldErrors) {
    all_required(&[("secretName", secret), ("shareName", share)], at, errors);
    if let Some(namespace) = namespace {
        all_required(&[("secretNamespace", namespace)], at, errors);
    }
}

/// A disk of Azure's; its kind says what its address looks like.
pub fn azure_disk(source: &AzureDiskVolumeSource, at: &Path, errors: &mut FieldErrors) {
    all_required(&[("diskName", &source.disk_name), ("diskURI", &source.disk_uri)], at, errors);
    if let Some(caching) = source.caching_mode.as_deref().filter(|mode| !CACHING.contains(mode)) {
        errors.push(FieldError::not_supported(&at.child("cachingMode"), caching, &CACHING));
    }
    let Some(kind) = source.kind.as_deref() else { return };
    if !DISK_KINDS.contains(&kind) {
        errors.push(FieldError::not_supported(&at.child("kind"), kind, &DISK_KINDS));
    }
    let (start, shape) =
        if kind == "Managed" { ("/subscriptions/", MANAGED_URI) } else { ("https://", BLOB_URI) };
    if !source.disk_uri.starts_with(start) {
        errors.push(FieldError::not_supported(&at.child("diskURI"), &source.disk_uri, &[shape]));
    }
}

/// A volume of a ScaleIO system.
pub fn scale_io(gateway: &str, system: &str, volume: &str, at: &Path, errors: &mut FieldErrors) {
    all_required(&[("gateway", gateway), ("system", system), ("volumeName", volume)], at, errors);
}
