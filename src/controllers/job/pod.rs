//! The pods that a Job creates.

use std::sync::Arc;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Container, EnvVar, EnvVarSource, ObjectFieldSelector, Pod};

use super::view::{FINALIZER, INDEX, INDEX_FAILURES, INDEX_IGNORED, View, annotated};
use crate::controllers::workload::{ownership, template};

const INDEX_ENV: &str = "JOB_COMPLETION_INDEX";

/// What tells one pod of a Job from another.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Order {
    /// The completion index.
    pub index: Option<i32>,
    /// Earlier failures of the index that count, and that do not; only with a backoff limit per index.
    pub failures: Option<(i32, i32)>,
}

impl Order {
    /// The order for an index, after its last pod failed.
    pub fn after(view: &View<'_>, index: i32, last: Option<&Arc<Pod>>) -> Self {
        let failures = view.spec.backoff_limit_per_index.map(|_| {
            last.map_or((0, 0), |last| {
                let before = (annotated(last, INDEX_FAILURES), annotated(last, INDEX_IGNORED));
                if view.counts(last) { (before.0 + 1, before.1) } else { (before.0, before.1 + 1) }
            })
        });
        Self { index: Some(index), failures }
    }
}

/// The pod for an order.
pub fn build(job: &Job, order: &Order) -> Pod {
    let from = job.spec.as_ref().map(|spec| spec.template.clone()).unwrap_or_default();
    let owner = ownership::controller_reference("batch/v1", "Job", &job.metadata);
    let (namespace, name) = (job.metadata.namespace.as_deref(), job.metadata.name.as_deref());
    let (namespace, name) = (namespace.unwrap_or_default(), name.unwrap_or_default());
    let mut pod = template::pod_from_template(&from, namespace, name, owner);
    let finalizers = pod.metadata.finalizers.get_or_insert_default();
    if !finalizers.iter().any(|finalizer| finalizer == FINALIZER) {
        finalizers.push(FINALIZER.to_owned());
    }
    let Some(index) = order.index else { return pod };
    pod.metadata.generate_name = Some(template::name_prefix(&format!("{name}-{index}")));
    pod.metadata.labels.get_or_insert_default().insert(INDEX.to_owned(), index.to_string());
    let annotations = pod.metadata.annotations.get_or_insert_default();
    annotations.insert(INDEX.to_owned(), index.to_string());
    if let Some((counted, ignored)) = order.failures {
        annotations.insert(INDEX_FAILURES.to_owned(), counted.to_string());
        if ignored > 0 {
            annotations.insert(INDEX_IGNORED.to_owned(), ignored.to_string());
        }
    }
    let spec = pod.spec.get_or_insert_default();
    spec.hostname = Some(format!("{name}-{index}"));
    spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten()).for_each(tell_index);
    pod
}

fn tell_index(container: &mut Container) {
    let env = container.env.get_or_insert_default();
    if env.iter().any(|variable| variable.name == INDEX_ENV) {
        return;
    }
    let field = ObjectFieldSelector { field_path: format!("metadata.labels['{INDEX}']"), api_version: None };
    let source = EnvVarSource { field_ref: Some(field), ..EnvVarSource::default() };
    env.push(EnvVar { name: INDEX_ENV.to_owned(), value_from: Some(source), value: None });
}
