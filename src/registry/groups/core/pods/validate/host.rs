//! Checks of what a pod with users of its own may share with its host.

use k8s_openapi::api::core::v1::PodSpec;

use super::parts;
use crate::api::field::{FieldError, FieldErrors, Path};

const REFUSAL: &str = "when `hostUsers` is false";

pub(super) fn users(spec: &PodSpec, at: &Path, errors: &mut FieldErrors) {
    if spec.host_users != Some(false) {
        return;
    }
    // The names are upstream's, which has them from its internal types.
    let shared = [("hostNetwork", spec.host_network), ("HostPID", spec.host_pid), ("HostIPC", spec.host_ipc)];
    for (field, _) in shared.into_iter().filter(|(_, on)| *on == Some(true)) {
        errors.push(FieldError::forbidden(&at.child(field), REFUSAL));
    }
    for part in parts(spec, at).into_iter().filter(|part| part.devices) {
        errors.push(FieldError::forbidden(&part.at.child("volumeDevices"), REFUSAL));
    }
}
