//! Checks of what pods and containers may do, and as whom.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{PodSecurityContext, PodSpec, SeccompProfile, SecurityContext};

use crate::api::field::{FieldError, FieldErrors, Path};
use crate::api::names;
use crate::registry::validation::each;

const SECCOMP: [&str; 3] = ["Localhost", "RuntimeDefault", "Unconfined"];
const GROUP_CHANGES: [&str; 2] = ["Always", "OnRootMismatch"];
const PROC_MOUNTS: [&str; 2] = ["Default", "Unmasked"];
const PREEMPTION: [&str; 2] = ["Never", "PreemptLowerPriority"];
const SYSTEMS: [&str; 2] = ["linux", "windows"];
const MAX_SYSCTL: usize = 253;

pub(super) fn validate(spec: &PodSpec, at: &Path, errors: &mut FieldErrors) {
    if let Some(context) = &spec.security_context {
        pod(context, spec, &at.child("securityContext"), errors);
    }
    let contexts = spec
        .containers
        .iter()
        .enumerate()
        .map(|(i, c)| ("containers", i, c.security_context.as_ref()))
        .chain(
            spec.init_containers
                .iter()
                .flatten()
                .enumerate()
                .map(|(i, c)| ("initContainers", i, c.security_context.as_ref())),
        )
        .chain(
            spec.ephemeral_containers
                .iter()
                .flatten()
                .enumerate()
                .map(|(i, c)| ("ephemeralContainers", i, c.security_context.as_ref())),
        );
    for (list, i, context) in contexts {
        if let Some(context) = context {
            let at = at.child(list).index(i).child("securityContext");
            container(context, spec.host_users == Some(false), &at, errors);
        }
    }
    if spec.host_users == Some(false) {
        let shared =
            [("hostNetwork", spec.host_network), ("hostPID", spec.host_pid), ("hostIPC", spec.host_ipc)];
        for (field, _) in shared.into_iter().filter(|(_, on)| *on == Some(true)) {
            errors.push(FieldError::forbidden(&at.child(field), "when `hostUsers` is false"));
        }
    }
    gates(spec, at, errors);
    if let Some(os) = &spec.os {
        let at = at.child("os").child("name");
        match os.name.as_str() {
            "" => errors.push(FieldError::required(&at, "cannot be empty")),
            name if SYSTEMS.contains(&name) => {}
            name => errors.push(FieldError::not_supported(&at, name, &SYSTEMS)),
        }
    }
    if let Some(policy) = spec.preemption_policy.as_deref().filter(|policy| !PREEMPTION.contains(policy)) {
        errors.push(FieldError::not_supported(&at.child("preemptionPolicy"), policy, &PREEMPTION));
    }
}

fn gates(spec: &PodSpec, at: &Path, errors: &mut FieldErrors) {
    let mut seen = BTreeSet::new();
    for (i, gate) in spec.scheduling_gates.iter().flatten().enumerate() {
        let at = at.child("schedulingGates").index(i);
        each(names::is_qualified_name(&gate.name), &gate.name, &at, errors);
        if !seen.insert(&gate.name) {
            errors.push(FieldError::duplicate(&at, &gate.name));
        }
    }
    if !seen.is_empty() && spec.node_name.as_deref().is_some_and(|node| !node.is_empty()) {
        let message = "cannot be set until all schedulingGates have been cleared";
        errors.push(FieldError::forbidden(&at.child("nodeName"), message));
    }
    for (i, gate) in spec.readiness_gates.iter().flatten().enumerate() {
        let at = at.child("readinessGates").index(i).child("conditionType");
        each(names::is_qualified_name(&gate.condition_type), &gate.condition_type, &at, errors);
    }
}

fn id(id: Option<i64>, at: &Path, errors: &mut FieldErrors) {
    if let Some(id) = id.filter(|id| !(0..=i64::from(i32::MAX)).contains(id)) {
        errors.push(FieldError::invalid(at, id, names::inclusive_range_error(0, i64::from(i32::MAX))));
    }
}

fn seccomp(profile: Option<&SeccompProfile>, at: &Path, errors: &mut FieldErrors) {
    let Some(profile) = profile else { return };
    let at = at.child("seccompProfile");
    let local = profile.localhost_profile.as_deref();
    match profile.type_.as_str() {
        "Localhost" if local.is_none_or(str::is_empty) => {
            let message = "must be set when seccomp type is Localhost";
            errors.push(FieldError::required(&at.child("localhostProfile"), message));
        }
        "Localhost" => {
            super::volumes::local_path(local.unwrap_or_default(), &at.child("localhostProfile"), errors)
        }
        "" => errors
            .push(FieldError::required(&at.child("type"), "type is required when seccompProfile is set")),
        other => {
            if !SECCOMP.contains(&other) {
                errors.push(FieldError::not_supported(&at.child("type"), other, &SECCOMP));
            }
            if let Some(local) = local {
                let message = "can only be set when seccomp type is Localhost";
                errors.push(FieldError::invalid(&at.child("localhostProfile"), local, message));
            }
        }
    }
}

fn pod(context: &PodSecurityContext, spec: &PodSpec, at: &Path, errors: &mut FieldErrors) {
    id(context.fs_group, &at.child("fsGroup"), errors);
    id(context.run_as_user, &at.child("runAsUser"), errors);
    id(context.run_as_group, &at.child("runAsGroup"), errors);
    for (i, group) in context.supplemental_groups.iter().flatten().enumerate() {
        id(Some(*group), &at.child("supplementalGroups").index(i), errors);
    }
    let policy = context.fs_group_change_policy.as_deref();
    if let Some(policy) = policy.filter(|policy| !GROUP_CHANGES.contains(policy)) {
        errors.push(FieldError::not_supported(&at.child("fsGroupChangePolicy"), policy, &GROUP_CHANGES));
    }
    seccomp(context.seccomp_profile.as_ref(), at, errors);
    sysctls(context, spec, &at.child("sysctls"), errors);
}

fn sysctls(context: &PodSecurityContext, spec: &PodSpec, at: &Path, errors: &mut FieldErrors) {
    let mut seen = BTreeSet::new();
    for (i, sysctl) in context.sysctls.iter().flatten().enumerate() {
        let at = at.index(i).child("name");
        let name = sysctl.name.replace('/', ".");
        if name.is_empty() {
            errors.push(FieldError::required(&at, ""));
        } else if !is_sysctl(&name) {
            let message = format!(
                "must have at most {MAX_SYSCTL} characters and match regex \
                 ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$"
            );
            errors.push(FieldError::invalid(&at, &sysctl.name, message));
        } else if !seen.insert(name.clone()) {
            errors.push(FieldError::duplicate(&at, &sysctl.name));
        }
        if spec.host_network == Some(true) && name.starts_with("net.") {
            let message = "may not be specified when 'hostNetwork' is true";
            errors.push(FieldError::invalid(&at, &sysctl.name, message));
        }
    }
}

fn is_sysctl(name: &str) -> bool {
    let part = |part: &str| {
        let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let bytes = part.as_bytes();
        !bytes.is_empty()
            && bytes.first().is_some_and(|b| inner(*b))
            && bytes.last().is_some_and(|b| inner(*b))
            && bytes.iter().all(|b| inner(*b) || matches!(b, b'-' | b'_'))
    };
    name.len() <= MAX_SYSCTL && name.split('.').all(part)
}

fn container(context: &SecurityContext, own_users: bool, at: &Path, errors: &mut FieldErrors) {
    id(context.run_as_user, &at.child("runAsUser"), errors);
    id(context.run_as_group, &at.child("runAsGroup"), errors);
    if let Some(mount) = context.proc_mount.as_deref() {
        if !PROC_MOUNTS.contains(&mount) {
            errors.push(FieldError::not_supported(&at.child("procMount"), mount, &PROC_MOUNTS));
        } else if mount == "Unmasked" && !own_users {
            let message = "`hostUsers` must be false to use `Unmasked`";
            errors.push(FieldError::invalid(&at.child("procMount"), mount, message));
        }
    }
    seccomp(context.seccomp_profile.as_ref(), at, errors);
    if context.allow_privilege_escalation != Some(false) {
        return;
    }
    if context.privileged == Some(true) {
        let message = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true";
        errors.push(FieldError::invalid(at, "", message));
    }
    let added = context.capabilities.as_ref().and_then(|capabilities| capabilities.add.as_deref());
    if added.unwrap_or_default().iter().any(|name| name == "CAP_SYS_ADMIN") {
        let message = "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN";
        errors.push(FieldError::invalid(at, "", message));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn problems(spec: Value) -> Vec<String> {
        let spec: PodSpec = serde_json::from_value(spec).unwrap();
        let mut errors = FieldErrors::new();
        validate(&spec, &Path::new("spec"), &mut errors);
        errors.iter().map(|error| error.field.clone()).collect()
    }

    #[test]
    fn contexts_are_checked() {
        let container = |context: Value| json!({"containers": [{"name": "c", "securityContext": context}]});
        let pod = |context: Value| json!({"containers": [], "securityContext": context});
        let at = "spec.containers[0].securityContext";
        for (spec, expected) in [
            (container(json!({"runAsUser": 1, "seccompProfile": {"type": "RuntimeDefault"}})), vec![]),
            (container(json!({"runAsUser": -1})), vec![format!("{at}.runAsUser")]),
            (container(json!({"procMount": "Unmasked"})), vec![format!("{at}.procMount")]),
            (container(json!({"privileged": true, "allowPrivilegeEscalation": false})), vec![at.into()]),
            (
                pod(json!({"seccompProfile": {"type": "Localhost"}})),
                vec!["spec.securityContext.seccompProfile.localhostProfile".into()],
            ),
            (
                pod(json!({"sysctls": [{"name": "a..b", "value": ""}, {"name": "net.a", "value": ""},
                    {"name": "net/a", "value": ""}]})),
                vec![
                    "spec.securityContext.sysctls[0].name".into(),
                    "spec.securityContext.sysctls[2].name".into(),
                ],
            ),
            (
                json!({"containers": [], "schedulingGates": [{"name": "a/b"}], "nodeName": "n"}),
                vec!["spec.nodeName".into()],
            ),
        ] {
            assert_eq!(problems(spec.clone()), expected, "{spec}");
        }
    }
}
