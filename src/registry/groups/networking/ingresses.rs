//! Ingresses.

use k8s_openapi::api::networking::v1::{HTTPIngressPath, Ingress, IngressBackend, IngressRule, IngressSpec};
use k8s_openapi::jiff::Timestamp;
use serde_json::Value;

use crate::api::field::{FieldError, FieldErrors, Path};
use crate::api::names;
use crate::registry::context::RequestContext;
use crate::registry::strategy::Strategy;
use crate::registry::table::{AGE, Column, NAME, age_cell, column, name_cell};
use crate::registry::validation::each;

/// The columns of Ingresses.
pub const COLUMNS: &[Column] = &[
    NAME,
    column("Class", "string", "Who serves it."),
    column("Hosts", "string", "Hosts that the rules name."),
    column("Address", "string", "Where it is reached."),
    column("Ports", "string", "Ports at which it is reached."),
    AGE,
];

const CLASS_ANNOTATION: &str = "kubernetes.io/ingress.class";
const PATH_TYPES: [&str; 3] = ["Exact", "ImplementationSpecific", "Prefix"];
const HOSTS_SHOWN: usize = 3;
const ADDRESS_WIDTH: usize = 16;
const BAD_PARTS: [&str; 5] = ["//", "/./", "/../", "%2f", "%2F"];
const BAD_ENDS: [&str; 2] = ["/..", "/."];

/// The strategy of Ingresses.
pub struct IngressStrategy;

impl Strategy for IngressStrategy {
    type Object = Ingress;

    fn prepare_for_create(&self, _: &RequestContext, ingress: &mut Ingress) {
        ingress.status =
            Some(k8s_openapi::api::networking::v1::IngressStatus { load_balancer: Some(Default::default()) });
    }

    fn validate(&self, ingress: &Ingress, errors: &mut FieldErrors) {
        let empty = IngressSpec::default();
        let spec = ingress.spec.as_ref().unwrap_or(&empty);
        let at = Path::new("spec");
        let rules = spec.rules.as_deref().unwrap_or_default();
        if rules.is_empty() && spec.default_backend.is_none() {
            let message = "either `defaultBackend` or `rules` must be specified";
            errors.push(FieldError::invalid(&at, shown(rules), message));
        }
        if let Some(default) = &spec.default_backend {
            backend(default, &at.child("defaultBackend"), errors);
        }
        for (i, one) in rules.iter().enumerate() {
            rule(one, &at.child("rules").index(i), errors);
        }
        for (i, tls) in spec.tls.iter().flatten().enumerate() {
            let at = at.child("tls").index(i);
            for (j, name) in tls.hosts.iter().flatten().enumerate() {
                host(name, &at.child("hosts").index(j), errors);
            }
            if let Some(secret) = tls.secret_name.as_deref().filter(|name| !name.is_empty()) {
                each(names::is_dns1123_subdomain(secret), secret, &at.child("secretName"), errors);
            }
        }
        if let Some(class) = spec.ingress_class_name.as_deref() {
            each(names::is_dns1123_subdomain(class), class, &at.child("ingressClassName"), errors);
            let annotation = ingress.metadata.annotations.as_ref().and_then(|a| a.get(CLASS_ANNOTATION));
            if annotation.is_some_and(|annotation| annotation != class) {
                let at = Path::new("metadata").child("annotations").child(CLASS_ANNOTATION);
                let message = "must match `ingressClassName` when both are specified";
                errors.push(FieldError::invalid(&at, annotation, message));
            }
        }
    }

    fn cells(&self, ingress: &Ingress, now: Timestamp) -> Vec<Value> {
        let spec = ingress.spec.clone().unwrap_or_default();
        let annotation = ingress.metadata.annotations.as_ref().and_then(|a| a.get(CLASS_ANNOTATION)).cloned();
        let class = spec.ingress_class_name.clone().or(annotation).unwrap_or_else(|| "<none>".into());
        let ports = if spec.tls.as_ref().is_some_and(|tls| !tls.is_empty()) { "80, 443" } else { "80" };
        vec![
            name_cell(&ingress.metadata),
            class.into(),
            hosts(spec.rules.as_deref().unwrap_or_default()).into(),
            addresses(ingress).into(),
            ports.into(),
            age_cell(&ingress.metadata, now),
        ]
    }
}

fn shown(rules: &[IngressRule]) -> Vec<String> {
    rules.iter().map(|rule| rule.host.clone().unwrap_or_default()).collect()
}

fn rule(rule: &IngressRule, at: &Path, errors: &mut FieldErrors) {
    if let Some(name) = rule.host.as_deref().filter(|name| !name.is_empty()) {
        host(name, &at.child("host"), errors);
    }
    let Some(http) = &rule.http else { return };
    let at = at.child("http").child("paths");
    if http.paths.is_empty() {
        errors.push(FieldError::required(&at, ""));
    }
    http.paths.iter().enumerate().for_each(|(i, one)| path(one, &at.index(i), errors));
}

fn host(name: &str, at: &Path, errors: &mut FieldErrors) {
    if name.parse::<std::net::IpAddr>().is_ok() {
        errors.push(FieldError::invalid(at, name, "must be a DNS name, not an IP address"));
    } else if name.contains('*') {
        each(names::is_wildcard_dns1123_subdomain(name), name, at, errors);
    } else {
        each(names::is_dns1123_subdomain(name), name, at, errors);
    }
}

fn path(one: &HTTPIngressPath, at: &Path, errors: &mut FieldErrors) {
    let text = one.path.as_deref().unwrap_or_default();
    match one.path_type.as_str() {
        "" => errors.push(FieldError::required(&at.child("pathType"), "pathType must be specified")),
        "Exact" | "Prefix" => {
            if !text.starts_with('/') {
                errors.push(FieldError::invalid(&at.child("path"), text, "must be an absolute path"));
            }
            for bad in BAD_PARTS.into_iter().filter(|bad| text.contains(bad)) {
                errors.push(FieldError::invalid(
                    &at.child("path"),
                    text,
                    format!("must not contain '{bad}'"),
                ));
            }
            for bad in BAD_ENDS.into_iter().filter(|bad| text.ends_with(bad)) {
                errors.push(FieldError::invalid(&at.child("path"), text, format!("cannot end with '{bad}'")));
            }
        }
        "ImplementationSpecific" => {
            if !text.is_empty() && !text.starts_with('/') {
                errors.push(FieldError::invalid(&at.child("path"), text, "must be an absolute path"));
            }
        }
        other => errors.push(FieldError::not_supported(&at.child("pathType"), other, &PATH_TYPES)),
    }
    backend(&one.backend, &at.child("backend"), errors);
}

fn backend(backend: &IngressBackend, at: &Path, errors: &mut FieldErrors) {
    match (&backend.service, &backend.resource) {
        (Some(_), Some(_)) => {
            errors.push(FieldError::invalid(at, "", "cannot set both resource and service backends"));
        }
        (None, None) => {
            errors.push(FieldError::required(at, "resource or service backend is required"));
        }
        (None, Some(resource)) => {
            for (field, value) in [("kind", &resource.kind), ("name", &resource.name)] {
                if value.is_empty() {
                    errors.push(FieldError::required(&at.child("resource").child(field), ""));
                }
            }
        }
        (Some(service), None) => {
            let at = at.child("service");
            if service.name.is_empty() {
                errors.push(FieldError::required(&at.child("name"), ""));
            } else {
                each(names::is_dns1035_label(&service.name), &service.name, &at.child("name"), errors);
            }
            let port = service.port.clone().unwrap_or_default();
            let name = port.name.as_deref().unwrap_or_default();
            let number = i64::from(port.number.unwrap_or(0));
            let at = at.child("port");
            match (name.is_empty(), number) {
                (true, 0) => errors.push(FieldError::required(&at, "port name or number is required")),
                (false, 0) => each(names::is_port_name(name), name, &at.child("name"), errors),
                (true, number) => {
                    for message in names::is_port_number(number) {
                        errors.push(FieldError::invalid(&at.child("number"), number, message));
                    }
                }
                (false, _) => {
                    errors.push(FieldError::invalid(&at, "", "cannot set both port name & port number"));
                }
            }
        }
    }
}

fn hosts(rules: &[IngressRule]) -> String {
    let names: Vec<&str> =
        rules.iter().filter_map(|rule| rule.host.as_deref()).filter(|host| !host.is_empty()).collect();
    match names.len() {
        0 => "*".into(),
        n if n > HOSTS_SHOWN => format!("{} + {} more...", names[..HOSTS_SHOWN].join(","), n - HOSTS_SHOWN),
        _ => names.join(","),
    }
}

fn addresses(ingress: &Ingress) -> String {
    let balancer = ingress.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    let points = balancer.and_then(|balancer| balancer.ingress.as_deref()).unwrap_or_default();
    let names: Vec<&str> = points
        .iter()
        .filter_map(|point| point.ip.as_deref().filter(|ip| !ip.is_empty()).or(point.hostname.as_deref()))
        .collect();
    let text = names.join(",");
    if text.len() > ADDRESS_WIDTH && names.len() > 1 {
        return format!("{}...", text.chars().take(ADDRESS_WIDTH - 3).collect::<String>());
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn problems(spec: Value) -> Vec<String> {
        let ingress: Ingress =
            serde_json::from_value(json!({"metadata": {"name": "i"}, "spec": spec})).unwrap();
        let mut errors = FieldErrors::new();
        IngressStrategy.validate(&ingress, &mut errors);
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn an_ingress_leads_somewhere() {
        let backend = json!({"service": {"name": "s", "port": {"number": 80}}});
        let with_path = |kind: &str, path: &str| json!({"rules": [{"http": {"paths": [{"path": path, "pathType": kind, "backend": backend}]}}]});
        let at = "spec.rules[0].http.paths[0]";
        let cases = [
            (json!({"defaultBackend": backend}), None),
            (with_path("Prefix", "/a"), None),
            (
                json!({}),
                Some("spec: Invalid value: []: either `defaultBackend` or `rules` must be specified".into()),
            ),
            (
                with_path("Prefix", "a"),
                Some(format!("{at}.path: Invalid value: \"a\": must be an absolute path")),
            ),
            (
                with_path("Exact", "/a//b"),
                Some(format!("{at}.path: Invalid value: \"/a//b\": must not contain '//'")),
            ),
            (with_path("", "/a"), Some(format!("{at}.pathType: Required value: pathType must be specified"))),
            (
                json!({"defaultBackend": {"service": {"name": "s"}}}),
                Some(
                    "spec.defaultBackend.service.port: Required value: port name or number is required"
                        .into(),
                ),
            ),
        ];
        for (spec, expected) in cases {
            assert_eq!(problems(spec.clone()).first().cloned(), expected, "{spec}");
        }
    }
}
