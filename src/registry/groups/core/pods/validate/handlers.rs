//! Checks of probes and lifecycle hooks.

use k8s_openapi::api::core::v1::{
    Container, ExecAction, GRPCAction, HTTPGetAction, Lifecycle, PodSpec, Probe, TCPSocketAction,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::api::field::{FieldError, FieldErrors, Path};
use crate::api::names;
use crate::registry::validation::{each, known, non_negative, required, text};

const SCHEMES: [&str; 2] = ["HTTP", "HTTPS"];

/// Checks a container's hooks and probes.
pub(super) fn validate(container: &Container, spec: &PodSpec, at: &Path, errors: &mut FieldErrors) {
    let grace = spec.termination_grace_period_seconds;
    if let Some(hooks) = &container.lifecycle {
        lifecycle(hooks, grace, &at.child("lifecycle"), errors);
    }
    let probes = [
        ("livenessProbe", &container.liveness_probe, true),
        ("readinessProbe", &container.readiness_probe, false),
        ("startupProbe", &container.startup_probe, true),
    ];
    for (field, probe, once) in probes {
        let Some(probe) = probe else { continue };
        let at = at.child(field);
        one(probe, &at, errors);
        let threshold = probe.success_threshold.unwrap_or(0);
        if once && threshold != 1 {
            errors.push(FieldError::invalid(&at.child("successThreshold"), threshold, "must be 1"));
        }
        if !once && probe.termination_grace_period_seconds.is_some() {
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
    handler.validate(None, at, errors);
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
    if let Some(seconds) = probe.termination_grace_period_seconds.filter(|seconds| *seconds <= 0) {
        let at = at.child("terminationGracePeriodSeconds");
        errors.push(FieldError::invalid(&at, seconds, "must be greater than 0"));
    }
}

fn lifecycle(hooks: &Lifecycle, grace: Option<i64>, at: &Path, errors: &mut FieldErrors) {
    for (field, hook) in [("postStart", &hooks.post_start), ("preStop", &hooks.pre_stop)] {
        let Some(hook) = hook else { continue };
        let handler = Handler {
            exec: hook.exec.as_ref(),
            http_get: hook.http_get.as_ref(),
            tcp_socket: hook.tcp_socket.as_ref(),
            grpc: None,
            sleep: hook.sleep.as_ref().map(|sleep| sleep.seconds),
        };
        handler.validate(grace, &at.child(field), errors);
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
    /// Checks the first handler that is there and refuses the others; `grace` is how long a sleep may be.
    fn validate(&self, grace: Option<i64>, at: &Path, errors: &mut FieldErrors) {
        let kinds = [
            ("exec", self.exec.is_some()),
            ("httpGet", self.http_get.is_some()),
            ("tcpSocket", self.tcp_socket.is_some()),
            ("grpc", self.grpc.is_some()),
            ("sleep", self.sleep.is_some()),
        ];
        let mut named = kinds.into_iter().filter(|(_, set)| *set).map(|(name, _)| name);
        match named.next() {
            None => errors.push(FieldError::required(at, "must specify a handler type")),
            Some(first) => self.details(first, grace, &at.child(first), errors),
        }
        for extra in named {
            errors.push(FieldError::forbidden(&at.child(extra), "may not specify more than 1 handler type"));
        }
    }

    fn details(&self, kind: &str, grace: Option<i64>, at: &Path, errors: &mut FieldErrors) {
        match (kind, self.exec, self.http_get, self.tcp_socket, self.grpc, self.sleep) {
            ("exec", Some(exec), ..) if exec.command.as_ref().is_none_or(Vec::is_empty) => {
                errors.push(FieldError::required(&at.child("command"), ""));
            }
            ("httpGet", _, Some(http), ..) => http_get(http, at, errors),
            ("tcpSocket", _, _, Some(tcp), ..) => port(&tcp.port, &at.child("port"), errors),
            ("grpc", _, _, _, Some(grpc), _) => {
                port(&IntOrString::Int(grpc.port), &at.child("port"), errors);
            }
            ("sleep", .., Some(seconds)) => {
                if let Some(grace) = grace.filter(|grace| !(0..=*grace).contains(&seconds)) {
                    let message =
                        format!("must be non-negative and less than terminationGracePeriodSeconds ({grace})");
                    errors.push(FieldError::invalid(at, seconds, message));
                }
            }
            _ => {}
        }
    }
}

fn http_get(http: &HTTPGetAction, at: &Path, errors: &mut FieldErrors) {
    required(text(&http.path), &at.child("path"), errors);
    port(&http.port, &at.child("port"), errors);
    known(Some(text(&http.scheme)), &SCHEMES, &at.child("scheme"), errors);
    for header in http.http_headers.iter().flatten() {
        each(names::is_http_header_name(&header.name), &header.name, &at.child("httpHeaders"), errors);
    }
}

/// A number or the name of a port.
fn port(port: &IntOrString, at: &Path, errors: &mut FieldErrors) {
    match port {
        IntOrString::Int(number) => {
            for message in names::is_port_number(i64::from(*number)) {
                errors.push(FieldError::invalid(at, number, message));
            }
        }
        IntOrString::String(name) => each(names::is_port_name(name), name, at, errors),
    }
}
