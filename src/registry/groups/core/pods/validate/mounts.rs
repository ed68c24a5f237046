//! Checks of what containers mount and of the devices they open.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Container, VolumeDevice, VolumeMount};

use super::Scope;
use crate::api::field::{FieldError, FieldErrors, Path};
use crate::registry::groups::core::volume_sources::{descending_path, no_backsteps};
use crate::registry::validation::{known, required, text};

const PROPAGATIONS: [&str; 3] = ["Bidirectional", "HostToContainer", "None"];
const READ_ONLY: [&str; 3] = ["Disabled", "Enabled", "IfPossible"];
const UNIQUE: &str = "must be unique";

pub(super) fn validate(container: &Container, scope: &Scope<'_>, at: &Path, errors: &mut FieldErrors) {
    let mounts = container.volume_mounts.as_deref().unwrap_or_default();
    let devices = container.volume_devices.as_deref().unwrap_or_default();
    let mut paths = BTreeSet::new();
    let list = at.child("volumeMounts");
    for (i, mount) in mounts.iter().enumerate() {
        let at = list.index(i);
        required(&mount.name, &at.child("name"), errors);
        if scope.volume(&mount.name).is_none() {
            errors.push(FieldError::not_found(&at.child("name"), &mount.name));
        }
        required(&mount.mount_path, &at.child("mountPath"), errors);
        if !paths.insert(mount.mount_path.as_str()) {
            errors.push(FieldError::invalid(&at.child("mountPath"), &mount.mount_path, UNIQUE));
        }
        apart_from_devices(mount, devices, &at, errors);
        paths_within(mount, &at, &list, errors);
        propagation(mount, container, &list.child("mountPropagation"), errors);
        read_only(mount, &list.child("recursiveReadOnly"), errors);
    }
    self::devices(devices, mounts, scope, &at.child("volumeDevices"), errors);
}

fn apart_from_devices(mount: &VolumeMount, devices: &[VolumeDevice], at: &Path, errors: &mut FieldErrors) {
    if devices.iter().any(|device| device.name == mount.name) {
        let message = "must not already exist in volumeDevices";
        errors.push(FieldError::invalid(&at.child("name"), &mount.name, message));
    }
    if devices.iter().any(|device| device.device_path == mount.mount_path) {
        let message = "must not already exist as a path in volumeDevices";
        errors.push(FieldError::invalid(&at.child("mountPath"), &mount.mount_path, message));
    }
}

/// Paths within a volume; upstream names the whole list as the place of some.
fn paths_within(mount: &VolumeMount, at: &Path, list: &Path, errors: &mut FieldErrors) {
    let (plain, expanded) = (text(&mount.sub_path), text(&mount.sub_path_expr));
    if !plain.is_empty() {
        descending_path(plain, &list.child("subPath"), errors);
    }
    if !expanded.is_empty() {
        if !plain.is_empty() {
            let message = "subPathExpr and subPath are mutually exclusive";
            errors.push(FieldError::invalid(&at.child("subPathExpr"), expanded, message));
        }
        descending_path(expanded, &list.child("subPathExpr"), errors);
    }
}

fn propagation(mount: &VolumeMount, container: &Container, at: &Path, errors: &mut FieldErrors) {
    let Some(mode) = mount.mount_propagation.as_deref() else { return };
    known(Some(mode), &PROPAGATIONS, at, errors);
    let privileged = container.security_context.as_ref().and_then(|context| context.privileged);
    if mode == "Bidirectional" && privileged != Some(true) {
        let message = "Bidirectional mount propagation is available only to privileged containers";
        errors.push(FieldError::forbidden(at, message));
    }
}

fn read_only(mount: &VolumeMount, at: &Path, errors: &mut FieldErrors) {
    let Some(mode) = mount.recursive_read_only.as_deref() else { return };
    known(Some(mode), &READ_ONLY, at, errors);
    if !matches!(mode, "Enabled" | "IfPossible") {
        return;
    }
    if mount.read_only != Some(true) {
        errors.push(FieldError::forbidden(at, "may only be specified when readOnly is true"));
    }
    if mount.mount_propagation.as_deref().is_some_and(|mode| mode != "None") {
        let message = "may only be specified when mountPropagation is None or not specified";
        errors.push(FieldError::forbidden(at, message));
    }
}

fn devices(
    devices: &[VolumeDevice],
    mounts: &[VolumeMount],
    scope: &Scope<'_>,
    at: &Path,
    errors: &mut FieldErrors,
) {
    let (mut names, mut paths) = (BTreeSet::new(), BTreeSet::new());
    for (i, device) in devices.iter().enumerate() {
        let (at_name, at_path) = (at.index(i).child("name"), at.index(i).child("devicePath"));
        let (name, path) = (device.name.as_str(), device.device_path.as_str());
        required(name, &at_name, errors);
        if names.contains(name) {
            errors.push(FieldError::invalid(&at_name, name, UNIQUE));
        }
        match scope.volume(name) {
            None => errors.push(FieldError::not_found(&at_name, name)),
            Some(volume) if volume.persistent_volume_claim.is_none() && volume.ephemeral.is_none() => {
                let message =
                    "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode";
                errors.push(FieldError::invalid(&at_name, name, message));
            }
            Some(_) => {}
        }
        required(path, &at_path, errors);
        if paths.contains(path) {
            errors.push(FieldError::invalid(&at_path, path, UNIQUE));
        }
        let mut backsteps = FieldErrors::new();
        no_backsteps(path, &at_path, &mut backsteps);
        if backsteps.is_empty() {
            paths.insert(path);
        } else {
            errors.push(FieldError::invalid(&at_path, path, "can not contain backsteps ('..')"));
        }
        if mounts.iter().any(|mount| mount.name == name) {
            errors.push(FieldError::invalid(&at_name, name, "must not already exist in volumeMounts"));
        }
        if mounts.iter().any(|mount| mount.mount_path == path) {
            let message = "must not already exist as a path in volumeMounts";
            errors.push(FieldError::invalid(&at_path, path, message));
        }
        if !name.is_empty() {
            names.insert(name);
        }
    }
}
