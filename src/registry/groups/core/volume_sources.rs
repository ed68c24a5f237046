//! Checks of what a volume is made of: the sources that pods and PersistentVolumes share, and the paths within volumes.
//! Fields and wording are those of upstream's `pkg/apis/core/validation`.

mod disks;
mod network;

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{FlockerVolumeSource, HostPathVolumeSource};

use crate::api::field::{FieldError, FieldErrors, Path};
use crate::api::names;
use crate::registry::validation::{each, required, text};

pub use disks::{azure_disk, azure_file, fibre_channel, partitioned, scale_io};
pub use network::{Iscsi, PORTAL_TOO_LONG, iscsi, nfs, quobyte, storage_os};

const HOST_PATH_TYPES: [&str; 8] =
    ["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"];
const RESERVED: &str = "kubernetes.io and k8s.io namespaces are reserved";

/// Reports each empty one of some required fields.
pub fn all_required(fields: &[(&'static str, &str)], at: &Path, errors: &mut FieldErrors) {
    for (field, value) in fields {
        required(value, &at.child(*field), errors);
    }
}

/// A path without `..`.
pub fn no_backsteps(path: &str, at: &Path, errors: &mut FieldErrors) {
    if path.split('/').any(|part| part == "..") {
        errors.push(FieldError::invalid(at, path, "must not contain '..'"));
    }
}

/// A path that stays where it is.
pub fn descending_path(path: &str, at: &Path, errors: &mut FieldErrors) {
    if path.starts_with('/') {
        errors.push(FieldError::invalid(at, path, "must be a relative path"));
    }
    no_backsteps(path, at, errors);
}

/// A path that stays where it is and does not look like one of the kubelet's own.
pub fn own_path(path: &str, at: &Path, errors: &mut FieldErrors) {
    descending_path(path, at, errors);
    if path.starts_with("..") && path != ".." && !path.starts_with("../") {
        errors.push(FieldError::invalid(at, path, "must not start with '..'"));
    }
}

/// Permission bits.
pub fn mode(mode: Option<i32>, at: &Path, errors: &mut FieldErrors) {
    if let Some(mode) = mode.filter(|mode| !(0..=0o777).contains(mode)) {
        let message = "must be a number between 0 and 0777 (octal), both inclusive";
        errors.push(FieldError::invalid(at, mode, message));
    }
}

/// A place on the host.
pub fn host_path(source: &HostPathVolumeSource, at: &Path, errors: &mut FieldErrors) {
    if source.path.is_empty() {
        errors.push(FieldError::required(&at.child("path"), ""));
        return;
    }
    no_backsteps(&source.path, &at.child("path"), errors);
    let kind = text(&source.type_);
    if !HOST_PATH_TYPES.contains(&kind) {
        errors.push(FieldError::not_supported(&at.child("type"), kind, &HOST_PATH_TYPES));
    }
}

/// The name of a CSI driver.
pub fn csi_driver(driver: &str, at: &Path, errors: &mut FieldErrors) {
    required(driver, at, errors);
    if driver.len() > names::LABEL_MAX {
        errors.push(FieldError::too_long(at, names::LABEL_MAX));
    }
    each(names::is_dns1123_subdomain(&driver.to_lowercase()), driver, at, errors);
}

/// A data set by its name or its identity.
pub fn flocker(source: &FlockerVolumeSource, at: &Path, errors: &mut FieldErrors) {
    let (name, uuid) = (text(&source.dataset_name), text(&source.dataset_uuid));
    if name.is_empty() && uuid.is_empty() {
        errors.push(FieldError::required(at, "one of datasetName and datasetUUID is required"));
    }
    if !name.is_empty() && !uuid.is_empty() {
        let message = "datasetName and datasetUUID can not be specified simultaneously";
        errors.push(FieldError::invalid(at, "resource", message));
    }
    if name.contains('/') {
        errors.push(FieldError::invalid(&at.child("datasetName"), name, "must not contain '/'"));
    }
}

/// A driver and its options, whose keys are not Kubernetes' own.
pub fn flex(driver: &str, options: Option<&BTreeMap<String, String>>, at: &Path, errors: &mut FieldErrors) {
    required(driver, &at.child("driver"), errors);
    for key in options.into_iter().flatten().map(|(key, _)| key) {
        let namespace = key.split_once('/').map_or(key.as_str(), |(namespace, _)| namespace);
        let namespace = format!(".{}", namespace.to_lowercase());
        if namespace.ends_with(".kubernetes.io") || namespace.ends_with(".k8s.io") {
            errors.push(FieldError::invalid(&at.child("options").key(key.clone()), key, RESERVED));
        }
    }
}

/// A Ceph cluster's monitors and, for block devices, the image.
pub fn ceph(monitors: &[String], image: Option<&str>, at: &Path, errors: &mut FieldErrors) {
    if monitors.is_empty() {
        errors.push(FieldError::required(&at.child("monitors"), ""));
    }
    if let Some(image) = image {
        required(image, &at.child("image"), errors);
    }
}

#[cfg(test)]
mod tests;
