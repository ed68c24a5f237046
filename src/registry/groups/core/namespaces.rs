//! Namespaces.

use k8s_openapi::api::core::v1::{Namespace, NamespaceStatus};
use k8s_openapi::jiff::Timestamp;
use serde_json::Value;

use crate::api::field::{FieldError, FieldErrors, Path};
use crate::api::names;
use crate::registry::context::RequestContext;
use crate::registry::strategy::Strategy;
use crate::registry::table::{AGE, Column, NAME, age_cell, column, name_cell};
use crate::registry::validation::each;

const FINALIZER: &str = "kubernetes";
/// Finalizers that need no domain before their name.
const FINALIZERS: [&str; 3] = [FINALIZER, "orphan", "foregroundDeletion"];
const NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// The columns of namespaces.
pub const COLUMNS: &[Column] =
    &[NAME, column("Status", "string", "Whether the namespace is in use or ends."), AGE];

/// The strategy of namespaces.
pub struct NamespaceStrategy;

impl Strategy for NamespaceStrategy {
    type Object = Namespace;

    fn default(&self, namespace: &mut Namespace) {
        if let Some(name) = namespace.metadata.name.clone().filter(|name| !name.is_empty()) {
            namespace.metadata.labels.get_or_insert_default().insert(NAME_LABEL.into(), name);
        }
    }

    fn prepare_for_create(&self, _: &RequestContext, namespace: &mut Namespace) {
        self.default(namespace);
        namespace.status = Some(NamespaceStatus { phase: Some("Active".into()), conditions: None });
        let finalizers = namespace.spec.get_or_insert_default().finalizers.get_or_insert_default();
        if !finalizers.iter().any(|f| f == FINALIZER) {
            finalizers.push(FINALIZER.into());
        }
    }

    fn prepare_for_update(&self, _: &RequestContext, namespace: &mut Namespace, old: &Namespace) {
        namespace.spec.get_or_insert_default().finalizers =
            old.spec.as_ref().and_then(|spec| spec.finalizers.clone());
    }

    fn validate(&self, namespace: &Namespace, errors: &mut FieldErrors) {
        let at = Path::new("spec").child("finalizers");
        for finalizer in namespace.spec.iter().flat_map(|spec| spec.finalizers.iter().flatten()) {
            each(names::is_qualified_name(finalizer), finalizer, &at, errors);
            if !finalizer.contains('/') && !FINALIZERS.contains(&finalizer.as_str()) {
                let message = "name is neither a standard finalizer name nor is it fully qualified";
                errors.push(FieldError::invalid(&at, finalizer, message));
            }
        }
    }

    fn validate_status_update(&self, namespace: &Namespace, _: &Namespace, errors: &mut FieldErrors) {
        let phase = namespace.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default();
        let (wanted, when) = match namespace.metadata.deletion_timestamp {
            None => ("Active", "empty"),
            Some(_) => ("Terminating", "not empty"),
        };
        if phase != wanted {
            let message = format!("may only be '{wanted}' if `deletionTimestamp` is {when}");
            errors.push(FieldError::invalid(&Path::new("status").child("Phase"), phase, message));
        }
    }

    fn hold(&self, namespace: &mut Namespace) -> bool {
        namespace.status.get_or_insert_default().phase = Some("Terminating".into());
        !self.may_vanish(namespace)
    }

    fn may_vanish(&self, namespace: &Namespace) -> bool {
        let finalizers = namespace.spec.as_ref().and_then(|spec| spec.finalizers.as_ref());
        finalizers.is_none_or(Vec::is_empty)
    }

    fn cells(&self, namespace: &Namespace, now: Timestamp) -> Vec<Value> {
        vec![
            name_cell(&namespace.metadata),
            namespace.status.as_ref().and_then(|s| s.phase.clone()).unwrap_or_default().into(),
            age_cell(&namespace.metadata, now),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::options::DeleteOptions;
    use crate::registry::write::finalizers::{Plan, plan};

    #[test]
    fn a_namespace_ends_when_its_own_finalizers_are_gone() {
        let mut namespace = Namespace::default();
        namespace.metadata.name = Some("a".into());
        NamespaceStrategy.prepare_for_create(&RequestContext::default(), &mut namespace);
        assert_eq!(namespace.metadata.labels.as_ref().unwrap()[NAME_LABEL], "a");
        assert_eq!(plan(&NamespaceStrategy, &mut namespace, &DeleteOptions::default()), Plan::Mark);
        assert_eq!(namespace.status.as_ref().unwrap().phase.as_deref(), Some("Terminating"));
        assert!(namespace.metadata.deletion_timestamp.is_some());
        namespace.spec.as_mut().unwrap().finalizers = None;
        assert_eq!(plan(&NamespaceStrategy, &mut namespace, &DeleteOptions::default()), Plan::Remove);
    }

    #[test]
    fn the_phase_follows_from_the_deletion() {
        let mut namespace = Namespace::default();
        NamespaceStrategy.prepare_for_create(&RequestContext::default(), &mut namespace);
        let check = |namespace: &Namespace| {
            let mut errors = FieldErrors::new();
            NamespaceStrategy.validate_status_update(namespace, namespace, &mut errors);
            errors.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(check(&namespace), Vec::<String>::new());
        namespace.status.as_mut().unwrap().phase = Some("Terminating".into());
        assert_eq!(
            check(&namespace),
            [
                "status.Phase: Invalid value: \"Terminating\": may only be 'Active' if `deletionTimestamp` is empty"
            ]
        );
    }
}
