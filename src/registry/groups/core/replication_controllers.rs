//! ReplicationControllers, and the pod templates that stand alone.

use k8s_openapi::api::core::v1::{PodTemplate, ReplicationController, ReplicationControllerStatus};
use k8s_openapi::jiff::Timestamp;
use serde_json::Value;

use super::pods;
use crate::api::field::{FieldError, FieldErrors, Path};
use crate::registry::context::RequestContext;
use crate::registry::groups::apps::rolling;
use crate::registry::groups::apps::rolling::containers_and_images;
use crate::registry::strategy::Strategy;
use crate::registry::table::{AGE, Column, NAME, age_cell, column, name_cell, selector_text, wide};
use crate::registry::validation::non_negative;

/// The columns of ReplicationControllers.
pub const COLUMNS: &[Column] = &[
    NAME,
    column("Desired", "integer", "Pods that are wanted."),
    column("Current", "integer", "Pods that there are."),
    column("Ready", "integer", "Pods that are ready."),
    AGE,
    wide("Containers", "string", "Names of the containers in the template."),
    wide("Images", "string", "Images of the containers in the template."),
    wide("Selector", "string", "Labels of the pods."),
];
/// The columns of PodTemplates.
pub const TEMPLATE_COLUMNS: &[Column] = &[
    NAME,
    column("Containers", "string", "Names of the containers in the template."),
    column("Images", "string", "Images of the containers in the template."),
    column("Pod Labels", "string", "Labels of the pods."),
];

/// The strategy of ReplicationControllers.
pub struct ReplicationControllerStrategy;
/// The strategy of PodTemplates.
pub struct PodTemplateStrategy;

impl Strategy for ReplicationControllerStrategy {
    type Object = ReplicationController;

    fn default(&self, controller: &mut ReplicationController) {
        let spec = controller.spec.get_or_insert_default();
        spec.replicas.get_or_insert(1);
        if let Some(template) = spec.template.as_mut() {
            pods::defaults::template(template);
            let labels = template.metadata.as_ref().and_then(|meta| meta.labels.clone());
            if let Some(labels) = labels.filter(|labels| !labels.is_empty()) {
                if spec.selector.as_ref().is_none_or(|selector| selector.is_empty()) {
                    spec.selector = Some(labels.clone());
                }
                if controller.metadata.labels.as_ref().is_none_or(|own| own.is_empty()) {
                    controller.metadata.labels = Some(labels);
                }
            }
        }
    }

    fn prepare_for_create(&self, _: &RequestContext, controller: &mut ReplicationController) {
        controller.status = Some(ReplicationControllerStatus::default());
        if let Some(template) = &mut controller.spec.get_or_insert_default().template {
            rolling::drop_disabled(template, None);
        }
    }

    fn prepare_for_update(
        &self,
        _: &RequestContext,
        controller: &mut ReplicationController,
        old: &ReplicationController,
    ) {
        if let Some(template) = &mut controller.spec.get_or_insert_default().template {
            rolling::drop_disabled(template, old.spec.as_ref().and_then(|spec| spec.template.as_ref()));
        }
    }

    fn warnings(
        &self,
        controller: &ReplicationController,
        old: Option<&ReplicationController>,
    ) -> Vec<String> {
        let Some(spec) = &controller.spec else { return Vec::new() };
        let template = spec.template.clone().unwrap_or_default();
        rolling::warnings(
            Some(&controller.metadata),
            (spec, old.and_then(|old| old.spec.as_ref())),
            &template,
        )
    }

    fn validate(&self, controller: &ReplicationController, errors: &mut FieldErrors) {
        let Some(spec) = &controller.spec else { return };
        let at = Path::new("spec");
        non_negative(spec.min_ready_seconds.map(i64::from), &at.child("minReadySeconds"), errors);
        let selector = spec.selector.clone().unwrap_or_default();
        if selector.is_empty() {
            errors.push(FieldError::required(&at.child("selector"), ""));
        }
        non_negative(spec.replicas.map(i64::from), &at.child("replicas"), errors);
        let at = at.child("template");
        let Some(template) = &spec.template else {
            errors.push(FieldError::required(&at, ""));
            return;
        };
        let labels = template.metadata.as_ref().and_then(|meta| meta.labels.clone()).unwrap_or_default();
        if selector.iter().any(|(key, value)| labels.get(key) != Some(value)) {
            let at = at.child("metadata").child("labels");
            errors.push(FieldError::invalid(&at, &labels, "`selector` does not match template `labels`"));
        }
        pods::validate::template(template, &at, errors);
        rolling::lasting(template, "ReplicationController", &at, errors);
    }

    fn validate_status_update(
        &self,
        new: &ReplicationController,
        _: &ReplicationController,
        errors: &mut FieldErrors,
    ) {
        let status = new.status.clone().unwrap_or_default();
        let at = Path::new("status");
        let counts = [
            ("replicas", Some(status.replicas)),
            ("fullyLabeledReplicas", status.fully_labeled_replicas),
            ("readyReplicas", status.ready_replicas),
            ("availableReplicas", status.available_replicas),
        ];
        rolling::counts(&counts, &at, errors);
        non_negative(status.observed_generation, &at.child("observedGeneration"), errors);
        for count in &counts[1..] {
            rolling::at_most(*count, ("status.replicas", Some(status.replicas)), &at, errors);
        }
        rolling::at_most(counts[3], ("readyReplicas", status.ready_replicas), &at, errors);
    }

    fn cells(&self, controller: &ReplicationController, now: Timestamp) -> Vec<Value> {
        let spec = controller.spec.as_ref();
        let status = controller.status.clone().unwrap_or_default();
        let template = spec.and_then(|spec| spec.template.as_ref()).and_then(|t| t.spec.as_ref());
        let (names, images) = containers_and_images(template);
        vec![
            name_cell(&controller.metadata),
            spec.and_then(|spec| spec.replicas).unwrap_or(0).into(),
            status.replicas.into(),
            status.ready_replicas.unwrap_or(0).into(),
            age_cell(&controller.metadata, now),
            names.into(),
            images.into(),
            selector_text(spec.and_then(|spec| spec.selector.as_ref())).into(),
        ]
    }
}

impl Strategy for PodTemplateStrategy {
    type Object = PodTemplate;

    fn default(&self, object: &mut PodTemplate) {
        pods::defaults::template(object.template.get_or_insert_default());
    }

    fn validate(&self, object: &PodTemplate, errors: &mut FieldErrors) {
        if let Some(template) = &object.template {
            pods::validate::template(template, &Path::new("template"), errors);
        }
    }

    fn prepare_for_create(&self, _: &RequestContext, object: &mut PodTemplate) {
        rolling::drop_disabled(object.template.get_or_insert_default(), None);
    }

    fn prepare_for_update(&self, _: &RequestContext, object: &mut PodTemplate, old: &PodTemplate) {
        rolling::drop_disabled(object.template.get_or_insert_default(), old.template.as_ref());
    }

    fn warnings(&self, object: &PodTemplate, old: Option<&PodTemplate>) -> Vec<String> {
        let Some(template) = &object.template else { return Vec::new() };
        if old.is_some_and(|old| old.template.as_ref() == Some(template)) {
            return Vec::new();
        }
        pods::warnings::template(template, &Path::new("template"))
    }

    fn cells(&self, object: &PodTemplate, _: Timestamp) -> Vec<Value> {
        let template = object.template.as_ref();
        let (names, images) = containers_and_images(template.and_then(|t| t.spec.as_ref()));
        let labels = template.and_then(|t| t.metadata.as_ref()).and_then(|meta| meta.labels.as_ref());
        vec![name_cell(&object.metadata), names.into(), images.into(), selector_text(labels).into()]
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn selector_and_labels_come_from_the_template() {
        let mut object: ReplicationController = serde_json::from_value(json!({"metadata": {"name": "a"}, "spec": {
            "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}}))
        .unwrap();
        ReplicationControllerStrategy.default(&mut object);
        let spec = object.spec.as_ref().unwrap();
        assert_eq!(spec.replicas, Some(1));
        assert_eq!(spec.selector, object.metadata.labels);
        let mut errors = FieldErrors::new();
        ReplicationControllerStrategy.validate(&object, &mut errors);
        assert!(errors.is_empty(), "{errors}");
        let spec = object.spec.as_mut().unwrap();
        spec.selector.as_mut().unwrap().insert("x".into(), "y".into());
        ReplicationControllerStrategy.validate(&object, &mut errors);
        assert!(errors.to_string().contains("`selector` does not match template `labels`"), "{errors}");
    }
}
