//! IngressClasses.

use k8s_openapi::api::networking::v1::{IngressClass, IngressClassSpec};
use k8s_openapi::jiff::Timestamp;
use serde_json::Value;

use crate::api::field::{FieldError, FieldErrors, Path};
use crate::api::names;
use crate::registry::strategy::Strategy;
use crate::registry::table::{AGE, Column, NAME, age_cell, column, name_cell};
use crate::registry::validation::{IMMUTABLE, each};

/// The columns of IngressClasses.
pub const COLUMNS: &[Column] = &[
    NAME,
    column("Controller", "string", "The controller that serves the class."),
    column("Parameters", "string", "What the controller is told besides."),
    AGE,
];

const MAX_CONTROLLER: usize = 250;
const SCOPES: [&str; 2] = ["Cluster", "Namespace"];

/// The strategy of IngressClasses.
pub struct IngressClassStrategy;

fn controller(class: &IngressClass) -> &str {
    class.spec.as_ref().and_then(|spec| spec.controller.as_deref()).unwrap_or_default()
}

fn parameters(spec: &IngressClassSpec, at: &Path, errors: &mut FieldErrors) {
    let Some(parameters) = &spec.parameters else { return };
    let at = at.child("parameters");
    let namespace = parameters.namespace.as_deref().unwrap_or_default();
    for (field, value) in [("kind", &parameters.kind), ("name", &parameters.name)] {
        if value.is_empty() {
            errors.push(FieldError::required(&at.child(field), format!("{field} is required")));
        } else {
            each(names::is_path_segment_name(value), value, &at.child(field), errors);
        }
    }
    if let Some(group) = parameters.api_group.as_deref().filter(|group| !group.is_empty()) {
        each(names::is_dns1123_subdomain(group), group, &at.child("apiGroup"), errors);
    }
    match parameters.scope.as_deref() {
        None => errors.push(FieldError::required(&at.child("scope"), "")),
        Some("Namespace") if namespace.is_empty() => {
            let message = "`parameters.scope` is set to 'Namespace'";
            errors.push(FieldError::required(&at.child("namespace"), message));
        }
        Some("Cluster") if !namespace.is_empty() => {
            let message = "`parameters.scope` is set to 'Cluster'";
            errors.push(FieldError::forbidden(&at.child("namespace"), message));
        }
        Some("Namespace" | "Cluster") => {}
        Some(other) => errors.push(FieldError::not_supported(&at.child("scope"), other, &SCOPES)),
    }
}

impl Strategy for IngressClassStrategy {
    type Object = IngressClass;

    fn default(&self, class: &mut IngressClass) {
        if let Some(parameters) = class.spec.as_mut().and_then(|spec| spec.parameters.as_mut()) {
            parameters.scope.get_or_insert_with(|| "Cluster".into());
        }
    }

    fn validate(&self, class: &IngressClass, errors: &mut FieldErrors) {
        let at = Path::new("spec");
        let name = controller(class);
        if name.len() > MAX_CONTROLLER {
            errors.push(FieldError::too_long(&at.child("controller"), MAX_CONTROLLER));
        }
        let (domain, rest) = name.split_once('/').unwrap_or((name, ""));
        if name.is_empty() {
            errors.push(FieldError::required(&at.child("controller"), ""));
        } else if rest.is_empty() {
            let message = "must be a domain-prefixed path (such as \"acme.io/foo\")";
            errors.push(FieldError::invalid(&at.child("controller"), name, message));
        } else {
            each(names::is_dns1123_subdomain(domain), domain, &at.child("controller"), errors);
        }
        if let Some(spec) = &class.spec {
            parameters(spec, &at, errors);
        }
    }

    fn validate_update(&self, new: &IngressClass, old: &IngressClass, errors: &mut FieldErrors) {
        if controller(new) != controller(old) {
            let at = Path::new("spec").child("controller");
            errors.push(FieldError::invalid(&at, controller(new), IMMUTABLE));
        }
    }

    fn cells(&self, class: &IngressClass, now: Timestamp) -> Vec<Value> {
        let parameters = class.spec.as_ref().and_then(|spec| spec.parameters.as_ref());
        let text = parameters.map_or_else(
            || "<none>".to_owned(),
            |p| {
                let group = p.api_group.as_deref().filter(|group| !group.is_empty());
                let group = group.map(|group| format!(".{group}")).unwrap_or_default();
                format!("{}{group}/{}", p.kind, p.name)
            },
        );
        vec![
            name_cell(&class.metadata),
            controller(class).into(),
            text.into(),
            age_cell(&class.metadata, now),
        ]
    }
}
