//! Checks of ephemeral containers: what they may say, and that they stay as they are.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Container, EphemeralContainer, Pod};

use super::{Scope, annotations, containers};
use crate::api::field::{FieldError, FieldErrors, Path};

const REFUSAL: &str = "cannot be set for an Ephemeral Container";

/// The container that an ephemeral one is besides.
fn as_container(own: &EphemeralContainer) -> Container {
    let own = own.clone();
    Container {
        args: own.args,
        command: own.command,
        env: own.env,
        env_from: own.env_from,
        image: own.image,
        image_pull_policy: own.image_pull_policy,
        lifecycle: own.lifecycle,
        liveness_probe: own.liveness_probe,
        name: own.name,
        ports: own.ports,
        readiness_probe: own.readiness_probe,
        resize_policy: own.resize_policy,
        resources: own.resources,
        restart_policy: own.restart_policy,
        restart_policy_rules: own.restart_policy_rules,
        security_context: own.security_context,
        startup_probe: own.startup_probe,
        stdin: own.stdin,
        stdin_once: own.stdin_once,
        termination_message_path: own.termination_message_path,
        termination_message_policy: own.termination_message_policy,
        tty: own.tty,
        volume_devices: own.volume_devices,
        volume_mounts: own.volume_mounts,
        working_dir: own.working_dir,
    }
}

pub(super) fn validate(scope: &Scope<'_>, at: &Path, errors: &mut FieldErrors) {
    let spec = scope.spec;
    let lasting: BTreeSet<&str> = spec
        .containers
        .iter()
        .chain(spec.init_containers.iter().flatten())
        .map(|container| container.name.as_str())
        .collect();
    let mut names = lasting.clone();
    for (i, own) in spec.ephemeral_containers.iter().flatten().enumerate() {
        let at = at.index(i);
        let container = as_container(own);
        containers::common(&container, scope, &at, errors);
        containers::trimmed(own.image.as_deref(), &at, errors);
        if !names.insert(&own.name) {
            errors.push(FieldError::duplicate(&at.child("name"), &own.name));
        }
        let target = own.target_container_name.as_deref().unwrap_or_default();
        if !target.is_empty() && !lasting.contains(target) {
            errors.push(FieldError::not_found(&at.child("targetContainerName"), target));
        }
        refused(&container, &at, errors);
    }
}

/// What nobody may rely on an ephemeral container for.
fn refused(container: &Container, at: &Path, errors: &mut FieldErrors) {
    let resources = container.resources.as_ref();
    let fields = [
        ("ports", container.ports.is_some()),
        ("resources", resources.is_some_and(|own| *own != Default::default())),
        ("resizePolicy", container.resize_policy.is_some()),
        ("restartPolicy", container.restart_policy.is_some()),
        ("restartPolicyRules", container.restart_policy_rules.is_some()),
        ("livenessProbe", container.liveness_probe.is_some()),
        ("readinessProbe", container.readiness_probe.is_some()),
        ("startupProbe", container.startup_probe.is_some()),
        ("lifecycle", container.lifecycle.is_some()),
    ];
    for (field, _) in fields.into_iter().filter(|(_, set)| *set) {
        errors.push(FieldError::forbidden(&at.child(field), REFUSAL));
    }
    for (i, mount) in container.volume_mounts.iter().flatten().enumerate() {
        let at = at.child("volumeMounts").index(i);
        for (field, path) in [("subPath", &mount.sub_path), ("subPathExpr", &mount.sub_path_expr)] {
            if path.as_deref().is_some_and(|path| !path.is_empty()) {
                errors.push(FieldError::forbidden(&at.child(field), REFUSAL));
            }
        }
    }
}

/// Ephemeral containers are added, and then stay as they are.
pub fn update(new: &Pod, old: &Pod, errors: &mut FieldErrors) {
    annotations::update(&new.metadata, &old.metadata, errors);
    if old.metadata.annotations.iter().flatten().any(|(key, _)| key == annotations::MIRROR) {
        let message = "static pods do not support ephemeral containers";
        *errors = FieldError::forbidden(&Path::new(""), message).into();
        return;
    }
    let list =
        |pod: &Pod| pod.spec.as_ref().and_then(|spec| spec.ephemeral_containers.clone()).unwrap_or_default();
    let at = Path::new("spec").child("ephemeralContainers");
    let now = list(new);
    for was in list(old) {
        match now.iter().find(|container| container.name == was.name) {
            None => {
                let message = format!("existing ephemeral containers {:?} may not be removed\n", was.name);
                errors.push(FieldError::forbidden(&at, message));
            }
            Some(container) if *container != was => {
                let message = format!("existing ephemeral containers {:?} may not be changed\n", was.name);
                errors.push(FieldError::forbidden(&at, message));
            }
            Some(_) => {}
        }
    }
}
