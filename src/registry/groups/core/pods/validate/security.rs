//! Checks of what pods and containers may do, and as whom.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{
    AppArmorProfile, PodSecurityContext, PodSpec, SeccompProfile, SecurityContext,
};

use super::windows;
use crate::api::field::{FieldError, FieldErrors, Path};
use crate::api::names;
use crate::registry::groups::core::volume_sources::descending_path;
use crate::registry::validation::known;

const PROFILES: [&str; 3] = ["Localhost", "RuntimeDefault", "Unconfined"];
const GROUP_CHANGES: [&str; 2] = ["Always", "OnRootMismatch"];
const GROUP_POLICIES: [&str; 2] = ["Merge", "Strict"];
const LABEL_CHANGES: [&str; 2] = ["MountOption", "Recursive"];
const PROC_MOUNTS: [&str; 2] = ["Default", "Unmasked"];
const MAX_SYSCTL: usize = 253;
const MAX_PROFILE: usize = 4095;

/// Sysctls that belong to a pod's own network, and to its own interprocess communication.
const IPC_SYSCTLS: [&str; 4] = ["kernel.sem", "kernel.msg", "kernel.shm", "fs.mqueue."];

pub(super) fn id(id: Option<i64>, at: &Path, errors: &mut FieldErrors) {
    for message in id.map(names::is_id).unwrap_or_default() {
        errors.push(FieldError::invalid(at, id, message));
    }
}

fn seccomp(profile: Option<&SeccompProfile>, at: &Path, errors: &mut FieldErrors) {
    let Some(profile) = profile else { return };
    let (at, local) = (at.child("seccompProfile"), profile.localhost_profile.as_deref());
    match profile.type_.as_str() {
        "" => errors
            .push(FieldError::required(&at.child("type"), "type is required when seccompProfile is set")),
        kind => known(Some(kind), &PROFILES, &at.child("type"), errors),
    }
    let at = at.child("localhostProfile");
    match (profile.type_.as_str(), local) {
        ("Localhost", None) => {
            errors.push(FieldError::required(&at, "must be set when seccomp type is Localhost"));
        }
        ("Localhost", Some(path)) => descending_path(path, &at, errors),
        (_, Some(_)) => {
            errors.push(FieldError::invalid(&at, profile, "can only be set when seccomp type is Localhost"));
        }
        (_, None) => {}
    }
}

fn app_armor(profile: Option<&AppArmorProfile>, at: &Path, errors: &mut FieldErrors) {
    let Some(profile) = profile else { return };
    let at = at.child("appArmorProfile");
    let (at_type, at_local) = (at.child("type"), at.child("localhostProfile"));
    let local = profile.localhost_profile.as_deref();
    match (profile.type_.as_str(), local) {
        ("Localhost", None) => {
            errors.push(FieldError::required(&at_local, "must be set when AppArmor type is Localhost"));
        }
        ("Localhost", Some(name)) => {
            if name.trim() != name {
                errors.push(FieldError::invalid(&at_local, name, "must not be padded with whitespace"));
            } else if name.is_empty() {
                errors.push(FieldError::required(&at_local, "must be set when AppArmor type is Localhost"));
            }
            if name.len() > MAX_PROFILE {
                errors.push(FieldError::too_long(&at_local, MAX_PROFILE));
            }
        }
        ("RuntimeDefault" | "Unconfined", Some(name)) => {
            let message = "can only be set when AppArmor type is Localhost";
            errors.push(FieldError::invalid(&at_local, name, message));
        }
        ("RuntimeDefault" | "Unconfined", None) => {}
        ("", _) => {
            errors.push(FieldError::required(&at_type, "type is required when appArmorProfile is set"));
        }
        (kind, _) => errors.push(FieldError::not_supported(&at_type, kind, &PROFILES)),
    }
}

/// Checks the security context of a pod.
pub(super) fn pod(spec: &PodSpec, at: &Path, errors: &mut FieldErrors) {
    let none = PodSecurityContext::default();
    let context = spec.security_context.as_ref().unwrap_or(&none);
    id(context.fs_group, &at.child("fsGroup"), errors);
    id(context.run_as_user, &at.child("runAsUser"), errors);
    id(context.run_as_group, &at.child("runAsGroup"), errors);
    for (i, group) in context.supplemental_groups.iter().flatten().enumerate() {
        id(Some(*group), &at.child("supplementalGroups").index(i), errors);
    }
    if spec.share_process_namespace == Some(true) && spec.host_pid == Some(true) {
        let message = "ShareProcessNamespace and HostPID cannot both be enabled";
        errors.push(FieldError::invalid(&at.child("shareProcessNamespace"), true, message));
    }
    sysctls(context, spec, &at.child("sysctls"), errors);
    let change = context.fs_group_change_policy.as_deref();
    known(change, &GROUP_CHANGES, &at.child("fsGroupChangePolicy"), errors);
    seccomp(context.seccomp_profile.as_ref(), at, errors);
    windows::options(context.windows_options.as_ref(), &at.child("windowsOptions"), errors);
    app_armor(context.app_armor_profile.as_ref(), at, errors);
    let groups = context.supplemental_groups_policy.as_deref();
    known(groups, &GROUP_POLICIES, &at.child("supplementalGroupsPolicy"), errors);
    let labels = context.se_linux_change_policy.as_deref();
    known(labels, &LABEL_CHANGES, &at.child("seLinuxChangePolicy"), errors);
}

fn sysctls(context: &PodSecurityContext, spec: &PodSpec, at: &Path, errors: &mut FieldErrors) {
    let mut seen = BTreeSet::new();
    for (i, sysctl) in context.sysctls.iter().flatten().enumerate() {
        let at = at.index(i).child("name");
        let name = sysctl.name.as_str();
        if name.is_empty() {
            errors.push(FieldError::required(&at, ""));
        } else if !is_sysctl(name) {
            let message = format!(
                "must have at most {MAX_SYSCTL} characters and match regex \
                 ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$"
            );
            errors.push(FieldError::invalid(&at, name, message));
        } else if seen.contains(name) {
            errors.push(FieldError::duplicate(&at, name));
        }
        seen.insert(name);
        let dotted = dotted(name);
        if spec.host_network == Some(true) && dotted.starts_with("net.") {
            errors.push(FieldError::invalid(&at, name, "may not be specified when 'hostNetwork' is true"));
        } else if spec.host_ipc == Some(true) && IPC_SYSCTLS.iter().any(|start| dotted.starts_with(start)) {
            errors.push(FieldError::invalid(&at, name, "may not be specified when 'hostIPC' is true"));
        }
    }
}

/// The name with dots, where a slash came before any dot.
fn dotted(name: &str) -> String {
    match name.find(['.', '/']) {
        Some(first) if name.as_bytes()[first] == b'/' => name
            .chars()
            .map(|c| {
                if c == '/' {
                    '.'
                } else if c == '.' {
                    '/'
                } else {
                    c
                }
            })
            .collect(),
        _ => name.to_owned(),
    }
}

fn is_sysctl(name: &str) -> bool {
    let part = |part: &str| {
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let bytes = part.as_bytes();
        bytes.first().is_some_and(|b| plain(*b))
            && bytes.last().is_some_and(|b| plain(*b))
            && bytes.iter().all(|b| plain(*b) || matches!(b, b'-' | b'_'))
    };
    name.len() <= MAX_SYSCTL && name.split(['.', '/']).all(part)
}

/// Checks the security context of a container.
pub(super) fn container(context: &SecurityContext, own_users: bool, at: &Path, errors: &mut FieldErrors) {
    id(context.run_as_user, &at.child("runAsUser"), errors);
    id(context.run_as_group, &at.child("runAsGroup"), errors);
    if let Some(mount) = context.proc_mount.as_deref() {
        known(Some(mount), &PROC_MOUNTS, &at.child("procMount"), errors);
        if mount == "Unmasked" && !own_users {
            let message = "`hostUsers` must be false to use `Unmasked`";
            errors.push(FieldError::invalid(&at.child("procMount"), mount, message));
        }
    }
    seccomp(context.seccomp_profile.as_ref(), at, errors);
    if context.allow_privilege_escalation == Some(false) {
        if context.privileged == Some(true) {
            let message = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true";
            errors.push(FieldError::invalid(at, context, message));
        }
        let added = context.capabilities.as_ref().and_then(|capabilities| capabilities.add.as_deref());
        for _ in added.unwrap_or_default().iter().filter(|name| *name == "CAP_SYS_ADMIN") {
            let message =
                "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN";
            errors.push(FieldError::invalid(at, context, message));
        }
    }
    windows::options(context.windows_options.as_ref(), &at.child("windowsOptions"), errors);
    app_armor(context.app_armor_profile.as_ref(), at, errors);
}
