//! Checks of probes and lifecycle hooks.

use k8s_openapi::api::core::v1::{
    Container, ExecAction, GRPCAction, HTTPGetAction, Lifecycle, Probe, TCPSocketAction,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::api::field::{FieldError, FieldErrors, Path};
use crate::api::names;
use crate::registry::validation::{each, non_negative};

pub(super) fn validate(container: &Container, at: &Path, errors: &mut FieldErrors) {
    let probes = [
        ("livenessProbe", &container.liveness_probe, true),
        ("readinessProbe", &container.readiness_probe, false),
        ("startupProbe", &container.startup_probe, true),
    ];
    for (field, probe, single) in probes {
        let Some(probe) = probe else { continue };
        let at = at.child(field);
        one(probe, &at, errors);
        let threshold = probe.success_threshold.unwrap_or(1);
        if single && threshold != 1 {
            errors.push(FieldError::invalid(&at.child("successThreshold"), threshold, "must be 1"));
        }
        if !single && probe.termination_grace_period_seconds.is_some() {
            let seconds = probe.termination_grace_period_seconds;
            let message = "must not be set for readinessProbes";
            errors.push(FieldError::invalid(&at.child("terminationGracePeriodSeconds"), seconds, message));
        }
    }
}

fn one(probe: &Probe, at: &Path, errors: &mut FieldErrors) {
    let handler = Handler {
        exec: probe.exec.as_ref(),
        http_get: probe.http_get.as_ref(),
        tcp_socket: probe.tcp_socket.as_ref(),
        grpc: probe.grpc.as_ref(),
        sleep: None,
    };
    handler.validate(at, errors);
    let numbers = [
        ("initialDelaySeconds", probe.initial_delay_seconds),
        ("timeoutSeconds", probe.timeout_seconds),
        ("periodSeconds", probe.period_seconds),
        ("successThreshold", probe.success_threshold),
        ("failureThreshold", probe.failure_threshold),
    ];
    for (field, number) in numbers {
        non_negative(number.map(i64::from), &at.child(field), errors);
    }
    if let Some(seconds) = probe.termination_grace_period_seconds.filter(|s| *s <= 0) {
        errors.push(FieldError::invalid(
            &at.child("terminationGracePeriodSeconds"),
            seconds,
            "must be greater than 0",
        ));
    }
}

pub(super) fn lifecycle(lifecycle: Option<&Lifecycle>, at: &Path, errors: &mut FieldErrors) {
    let Some(lifecycle) = lifecycle else { return };
    for (field, hook) in [("postStart", &lifecycle.post_start), ("preStop", &lifecycle.pre_stop)] {
        let Some(hook) = hook else { continue };
        let handler = Handler {
            exec: hook.exec.as_ref(),
            http_get: hook.http_get.as_ref(),
            tcp_socket: hook.tcp_socket.as_ref(),
            grpc: None,
            sleep: hook.sleep.as_ref().map(|sleep| sleep.seconds),
        };
        handler.validate(&at.child(field), errors);
    }
}

struct Handler<'a> {
    exec: Option<&'a ExecAction>,
    http_get: Option<&'a HTTPGetAction>,
    tcp_socket: Option<&'a TCPSocketAction>,
    grpc: Option<&'a GRPCAction>,
    sleep: Option<i64>,
}

impl Handler<'_> {
    fn validate(&self, at: &Path, errors: &mut FieldErrors) {
        let kinds = [
            ("exec", self.exec.is_some()),
            ("httpGet", self.http_get.is_some()),
            ("tcpSocket", self.tcp_socket.is_some()),
            ("grpc", self.grpc.is_some()),
            ("sleep", self.sleep.is_some()),
        ];
        let mut named = kinds.into_iter().filter(|(_, set)| *set).map(|(name, _)| name);
        if named.next().is_none() {
            errors.push(FieldError::required(at, "must specify a handler type"));
        }
        for extra in named {
            errors.push(FieldError::forbidden(&at.child(extra), "may not specify more than 1 handler type"));
        }
        if self.exec.is_some_and(|exec| exec.command.as_ref().is_none_or(Vec::is_empty)) {
            errors.push(FieldError::required(&at.child("exec").child("command"), ""));
        }
        if let Some(http) = self.http_get {
            http_get(http, &at.child("httpGet"), errors);
        }
        if let Some(tcp) = self.tcp_socket {
            port(&tcp.port, &at.child("tcpSocket").child("port"), errors);
        }
        if let Some(grpc) = self.grpc {
            port(&IntOrString::Int(grpc.port), &at.child("grpc").child("port"), errors);
        }
    }
}

fn http_get(http: &HTTPGetAction, at: &Path, errors: &mut FieldErrors) {
    if http.path.as_deref().is_none_or(str::is_empty) {
        errors.push(FieldError::required(&at.child("path"), ""));
    }
    port(&http.port, &at.child("port"), errors);
    let scheme = http.scheme.as_deref().unwrap_or_default();
    if !matches!(scheme, "HTTP" | "HTTPS") {
        errors.push(FieldError::not_supported(&at.child("scheme"), scheme, &["HTTP", "HTTPS"]));
    }
    for header in http.http_headers.iter().flatten() {
        each(names::is_http_header_name(&header.name), &header.name, &at.child("httpHeaders"), errors);
    }
}

/// A number or the name of a port.
pub(super) fn port(port: &IntOrString, at: &Path, errors: &mut FieldErrors) {
    match port {
        IntOrString::Int(number) => {
            for message in names::is_port_number(i64::from(*number)) {
                errors.push(FieldError::invalid(at, number, message));
            }
        }
        IntOrString::String(name) => each(names::is_port_name(name), name, at, errors),
    }
}
