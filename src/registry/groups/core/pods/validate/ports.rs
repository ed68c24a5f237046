//! Checks of the ports of containers.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Container, ContainerPort, PodSpec};

use crate::api::field::{FieldError, FieldErrors, Path};
use crate::api::names;
use crate::registry::validation::{each, one_of, text};

const PROTOCOLS: [&str; 3] = ["SCTP", "TCP", "UDP"];

pub(super) fn validate(ports: &[ContainerPort], at: &Path, errors: &mut FieldErrors) {
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
        if port.container_port == 0 {
            errors.push(FieldError::required(&at.child("containerPort"), ""));
        } else {
            number(port.container_port, &at.child("containerPort"), errors);
        }
        if let Some(host) = port.host_port.filter(|port| *port != 0) {
            number(host, &at.child("hostPort"), errors);
        }
        one_of(port.protocol.as_deref(), &PROTOCOLS, &at.child("protocol"), errors);
    }
}

fn number(port: i32, at: &Path, errors: &mut FieldErrors) {
    for message in names::is_port_number(i64::from(port)) {
        errors.push(FieldError::invalid(at, port, message));
    }
}

/// Ports of the host are taken once by the containers of one list.
pub(super) fn conflicts(containers: &[Container], at: &Path, errors: &mut FieldErrors) {
    let mut seen = BTreeSet::new();
    for (i, container) in containers.iter().enumerate() {
        for (j, port) in container.ports.iter().flatten().enumerate() {
            let Some(number) = port.host_port.filter(|port| *port != 0) else { continue };
            let taken = format!("{}/{}/{number}", text(&port.protocol), text(&port.host_ip));
            if !seen.insert(taken.clone()) {
                let at = at.index(i).child("ports").index(j).child("hostPort");
                errors.push(FieldError::duplicate(&at, taken));
            }
        }
    }
}

/// In the host's network a port is the host's; a template may leave that unsaid.
pub(super) fn host_network(spec: &PodSpec, is_pod: bool, at: &Path, errors: &mut FieldErrors) {
    if spec.host_network != Some(true) {
        return;
    }
    for (i, container) in spec.containers.iter().enumerate() {
        for (j, port) in container.ports.iter().flatten().enumerate() {
            let host = port.host_port.unwrap_or(0);
            if (is_pod || host != 0) && host != port.container_port {
                let at = at.child("containers").index(i).child("ports").index(j).child("hostPort");
                let message = "must match `containerPort` when `hostNetwork` is true";
                errors.push(FieldError::invalid(&at, host, message));
            }
        }
    }
}
