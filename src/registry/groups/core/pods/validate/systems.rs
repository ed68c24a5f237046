//! Checks of what a pod that names its operating system cannot have there.

use k8s_openapi::api::core::v1::{PodSecurityContext, PodSpec};

use super::parts;
use crate::api::field::{FieldError, FieldErrors, Path};
use crate::registry::validation::known;

const ON_WINDOWS: &str = "cannot be set for a windows pod";

pub(super) fn validate(spec: &PodSpec, at: &Path, errors: &mut FieldErrors) {
    match spec.os.as_ref().map(|os| os.name.as_str()) {
        None => {}
        Some("") => errors.push(FieldError::required(&at.child("os").child("name"), "")),
        Some("linux") => linux(spec, at, errors),
        Some("windows") => windows(spec, at, errors),
        name => known(name, &["linux", "windows"], &at.child("os"), errors),
    }
}

fn linux(spec: &PodSpec, at: &Path, errors: &mut FieldErrors) {
    let message = "windows options cannot be set for a linux pod";
    if spec.security_context.as_ref().is_some_and(|context| context.windows_options.is_some()) {
        let at = at.child("securityContext").child("windowsOptions");
        errors.push(FieldError::forbidden(&at, message));
    }
    for part in parts(spec, at) {
        if part.security.is_some_and(|context| context.windows_options.is_some()) {
            let at = part.at.child("securityContext").child("windowsOptions");
            errors.push(FieldError::forbidden(&at, message));
        }
    }
}

fn windows(spec: &PodSpec, at: &Path, errors: &mut FieldErrors) {
    let none = PodSecurityContext::default();
    let context = spec.security_context.as_ref().unwrap_or(&none);
    let within = true;
    let fields = [
        ("appArmorProfile", within, context.app_armor_profile.is_some()),
        ("seLinuxOptions", within, context.se_linux_options.is_some()),
        ("hostUsers", !within, spec.host_users.is_some()),
        ("hostPID", !within, spec.host_pid == Some(true)),
        ("hostIPC", !within, spec.host_ipc == Some(true)),
        ("seccompProfile", within, context.seccomp_profile.is_some()),
        ("fsGroup", within, context.fs_group.is_some()),
        ("fsGroupChangePolicy", within, context.fs_group_change_policy.is_some()),
        ("sysctls", within, context.sysctls.as_ref().is_some_and(|own| !own.is_empty())),
        ("shareProcessNamespace", !within, spec.share_process_namespace.is_some()),
        ("runAsUser", within, context.run_as_user.is_some()),
        ("runAsGroup", within, context.run_as_group.is_some()),
        ("supplementalGroups", within, context.supplemental_groups.is_some()),
        ("supplementalGroupsPolicy", within, context.supplemental_groups_policy.is_some()),
        ("seLinuxChangePolicy", within, context.se_linux_change_policy.is_some()),
    ];
    for (field, in_context, _) in fields.into_iter().filter(|(.., set)| *set) {
        let at = if in_context { at.child("securityContext") } else { at.clone() };
        errors.push(FieldError::forbidden(&at.child(field), ON_WINDOWS));
    }
    for part in parts(spec, at) {
        let Some(own) = part.security else { continue };
        let fields = [
            ("appArmorProfile", own.app_armor_profile.is_some()),
            ("seLinuxOptions", own.se_linux_options.is_some()),
            ("seccompProfile", own.seccomp_profile.is_some()),
            ("capabilities", own.capabilities.is_some()),
            ("readOnlyRootFilesystem", own.read_only_root_filesystem.is_some()),
            ("privileged", own.privileged.is_some()),
            ("allowPrivilegeEscalation", own.allow_privilege_escalation.is_some()),
            ("procMount", own.proc_mount.is_some()),
            ("runAsUser", own.run_as_user.is_some()),
            ("runAsGroup", own.run_as_group.is_some()),
        ];
        for (field, _) in fields.into_iter().filter(|(_, set)| *set) {
            errors.push(FieldError::forbidden(&part.at.child("securityContext").child(field), ON_WINDOWS));
        }
    }
}
