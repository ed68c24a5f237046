//! Checks of containers, their ports and their mounts.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{Container, ContainerPort, EphemeralContainer, PodSpec, VolumeMount};

use super::{env, one_of, probes, resources};
use crate::api::field::{FieldError, FieldErrors, Path};
use crate::api::names;
use crate::registry::validation::each;

const PULL_POLICIES: [&str; 3] = ["Always", "IfNotPresent", "Never"];
const MESSAGE_POLICIES: [&str; 2] = ["FallbackToLogsOnError", "File"];
const PROTOCOLS: [&str; 3] = ["SCTP", "TCP", "UDP"];

pub(super) fn validate(spec: &PodSpec, volumes: &BTreeSet<&str>, at: &Path, errors: &mut FieldErrors) {
    let mut names = BTreeSet::new();
    let list = at.child("containers");
    if spec.containers.is_empty() {
        errors.push(FieldError::required(&list, ""));
    }
    for (i, container) in spec.containers.iter().enumerate() {
        let at = list.index(i);
        unique(&container.name, &mut names, &at, errors);
        one(container, volumes, &at, errors);
        probes::validate(container, &at, errors);
        if container.restart_policy.as_deref() == Some("Always") {
            let message = "may not be set for non-init containers";
            errors.push(FieldError::forbidden(&at.child("restartPolicy"), message));
        }
    }
    let list = at.child("initContainers");
    for (i, container) in spec.init_containers.iter().flatten().enumerate() {
        let at = list.index(i);
        unique(&container.name, &mut names, &at, errors);
        one(container, volumes, &at, errors);
        init(container, &at, errors);
    }
    let list = at.child("ephemeralContainers");
    for (i, container) in spec.ephemeral_containers.iter().flatten().enumerate() {
        let at = list.index(i);
        unique(&container.name, &mut names, &at, errors);
        ephemeral(container, volumes, &at, errors);
    }
    host_ports(spec, at, errors);
}

fn unique<'a>(name: &'a str, seen: &mut BTreeSet<&'a str>, at: &Path, errors: &mut FieldErrors) {
    let at = at.child("name");
    if name.is_empty() {
        errors.push(FieldError::required(&at, ""));
        return;
    }
    each(names::is_dns1123_label(name), name, &at, errors);
    if !seen.insert(name) {
        errors.push(FieldError::duplicate(&at, name));
    }
}

fn image(image: Option<&String>, at: &Path, errors: &mut FieldErrors) {
    let image = image.map(String::as_str).unwrap_or_default();
    if image.is_empty() {
        errors.push(FieldError::required(at, ""));
    } else if image.trim() != image {
        errors.push(FieldError::invalid(at, image, "must not have leading or trailing whitespace"));
    }
}

fn one(container: &Container, volumes: &BTreeSet<&str>, at: &Path, errors: &mut FieldErrors) {
    image(container.image.as_ref(), &at.child("image"), errors);
    one_of(
        container.termination_message_policy.as_ref(),
        &MESSAGE_POLICIES,
        &at.child("terminationMessagePolicy"),
        errors,
    );
    ports(container.ports.as_deref().unwrap_or_default(), &at.child("ports"), errors);
    env::validate(container.env.as_deref(), container.env_from.as_deref(), at, errors);
    mounts(
        container.volume_mounts.as_deref().unwrap_or_default(),
        volumes,
        &at.child("volumeMounts"),
        errors,
    );
    one_of(container.image_pull_policy.as_ref(), &PULL_POLICIES, &at.child("imagePullPolicy"), errors);
    if let Some(resources) = &container.resources {
        resources::validate(resources, &at.child("resources"), errors);
    }
    probes::lifecycle(container.lifecycle.as_ref(), &at.child("lifecycle"), errors);
}

/// Init containers that end have neither probes nor hooks; sidecars have.
fn init(container: &Container, at: &Path, errors: &mut FieldErrors) {
    match container.restart_policy.as_deref() {
        Some("Always") => return probes::validate(container, at, errors),
        None | Some("Never" | "OnFailure") => {}
        Some(other) => errors.push(FieldError::not_supported(&at.child("restartPolicy"), other, &["Always"])),
    }
    let message = "may not be set for init containers without restartPolicy=Always";
    let refused = [
        ("lifecycle", container.lifecycle.is_some()),
        ("livenessProbe", container.liveness_probe.is_some()),
        ("readinessProbe", container.readiness_probe.is_some()),
        ("startupProbe", container.startup_probe.is_some()),
    ];
    for (field, _) in refused.into_iter().filter(|(_, set)| *set) {
        errors.push(FieldError::forbidden(&at.child(field), message));
    }
}

fn ephemeral(container: &EphemeralContainer, volumes: &BTreeSet<&str>, at: &Path, errors: &mut FieldErrors) {
    image(container.image.as_ref(), &at.child("image"), errors);
    env::validate(container.env.as_deref(), container.env_from.as_deref(), at, errors);
    mounts(
        container.volume_mounts.as_deref().unwrap_or_default(),
        volumes,
        &at.child("volumeMounts"),
        errors,
    );
    let refused = [
        ("ports", container.ports.is_some()),
        ("livenessProbe", container.liveness_probe.is_some()),
        ("readinessProbe", container.readiness_probe.is_some()),
        ("startupProbe", container.startup_probe.is_some()),
        ("lifecycle", container.lifecycle.is_some()),
    ];
    for (field, _) in refused.into_iter().filter(|(_, set)| *set) {
        let message = format!("{field} cannot be set for an Ephemeral Container");
        errors.push(FieldError::forbidden(&at.child(field), message));
    }
}

fn ports(ports: &[ContainerPort], at: &Path, errors: &mut FieldErrors) {
    let mut names = BTreeSet::new();
    for (i, port) in ports.iter().enumerate() {
        let at = at.index(i);
        if let Some(name) = port.name.as_deref().filter(|name| !name.is_empty()) {
            let messages = names::is_port_name(name);
            if messages.is_empty() && !names.insert(name) {
                errors.push(FieldError::duplicate(&at.child("name"), name));
            }
            each(messages, name, &at.child("name"), errors);
        }
        number(port.container_port, true, &at.child("containerPort"), errors);
        number(port.host_port.unwrap_or(0), false, &at.child("hostPort"), errors);
        one_of(port.protocol.as_ref(), &PROTOCOLS, &at.child("protocol"), errors);
    }
}

fn number(port: i32, required: bool, at: &Path, errors: &mut FieldErrors) {
    if port == 0 {
        if required {
            errors.push(FieldError::required(at, ""));
        }
        return;
    }
    for message in names::is_port_number(i64::from(port)) {
        errors.push(FieldError::invalid(at, port, message));
    }
}

fn host_ports(spec: &PodSpec, at: &Path, errors: &mut FieldErrors) {
    let mut seen = BTreeSet::new();
    for (i, container) in spec.containers.iter().enumerate() {
        for (j, port) in container.ports.iter().flatten().enumerate() {
            let number = port.host_port.unwrap_or(0);
            if number == 0 {
                continue;
            }
            let protocol = port.protocol.as_deref().unwrap_or_default();
            let ip = port.host_ip.as_deref().unwrap_or_default();
            let text = format!("{protocol}/{ip}/{number}");
            let at = at.child("containers").index(i).child("ports").index(j).child("hostPort");
            if spec.host_network == Some(true) && number != port.container_port {
                let message = "must match `containerPort` when `hostNetwork` is true";
                errors.push(FieldError::invalid(&at, number, message));
            }
            if !seen.insert(text.clone()) {
                errors.push(FieldError::duplicate(&at, text));
            }
        }
    }
}

fn mounts(mounts: &[VolumeMount], volumes: &BTreeSet<&str>, at: &Path, errors: &mut FieldErrors) {
    let mut paths: BTreeMap<&str, usize> = BTreeMap::new();
    for (i, mount) in mounts.iter().enumerate() {
        let at = at.index(i);
        if mount.name.is_empty() {
            errors.push(FieldError::required(&at.child("name"), ""));
        }
        if !volumes.contains(mount.name.as_str()) {
            errors.push(FieldError::not_found(&at.child("name"), &mount.name));
        }
        if mount.mount_path.is_empty() {
            errors.push(FieldError::required(&at.child("mountPath"), ""));
        } else if paths.insert(&mount.mount_path, i).is_some() {
            errors.push(FieldError::invalid(&at.child("mountPath"), &mount.mount_path, "must be unique"));
        }
        if let Some(sub_path) = mount.sub_path.as_deref().filter(|path| !path.is_empty()) {
            super::volumes::local_path(sub_path, &at.child("subPath"), errors);
        }
    }
}
