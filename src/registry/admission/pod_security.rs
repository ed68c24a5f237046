//! `PodSecurity`: pods keep the Pod Security Standard that the labels of their namespace name.

mod checks;
mod policy;

use async_trait::async_trait;
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::{
    Namespace, Pod, PodSpec, PodTemplate, PodTemplateSpec, ReplicationController,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::{Operation, Plugin, Request};
use crate::api::error::{ApiError, GroupKind};
use crate::registry::object::Object;
use checks::violations;
use policy::{Level, LevelVersion, Policy};

pub(super) struct PodSecurity;

/// Subresources of pods that do not change what runs.
const HARMLESS: [&str; 8] =
    ["exec", "attach", "binding", "eviction", "log", "portforward", "proxy", "status"];

#[async_trait]
impl Plugin for PodSecurity {
    async fn validate(
        &self,
        request: &Request<'_>,
        object: Option<&dyn Object>,
        old: Option<&dyn Object>,
    ) -> Result<(), ApiError> {
        let Some(object) = object.filter(|_| request.operation != Operation::Delete) else { return Ok(()) };
        if let Some(namespace) = object.downcast_ref::<Namespace>() {
            let old = old.and_then(|old| old.downcast_ref::<Namespace>());
            return if request.subresource.is_empty() {
                labels(request, namespace, old).await
            } else {
                Ok(())
            };
        }
        if let Some(pod) = object.downcast_ref::<Pod>() {
            let same =
                old.and_then(|old| old.downcast_ref::<Pod>()).is_some_and(|old| !significant(pod, old));
            if same || HARMLESS.contains(&request.subresource) {
                return Ok(());
            }
            return evaluate(request, Some(&pod.metadata), pod.spec.as_ref(), true).await;
        }
        match template(object).filter(|_| request.subresource.is_empty()) {
            Some(template) => {
                evaluate(request, template.metadata.as_ref(), template.spec.as_ref(), false).await
            }
            None => Ok(()),
        }
    }
}

/// The template of a kind that makes pods.
fn template(object: &dyn Object) -> Option<&PodTemplateSpec> {
    if let Some(one) = object.downcast_ref::<Deployment>() {
        return one.spec.as_ref().map(|spec| &spec.template);
    }
    if let Some(one) = object.downcast_ref::<ReplicaSet>() {
        return one.spec.as_ref().and_then(|spec| spec.template.as_ref());
    }
    if let Some(one) = object.downcast_ref::<StatefulSet>() {
        return one.spec.as_ref().map(|spec| &spec.template);
    }
    if let Some(one) = object.downcast_ref::<DaemonSet>() {
        return one.spec.as_ref().map(|spec| &spec.template);
    }
    if let Some(one) = object.downcast_ref::<Job>() {
        return one.spec.as_ref().map(|spec| &spec.template);
    }
    if let Some(one) = object.downcast_ref::<CronJob>() {
        return one.spec.job_template.spec.as_ref().map(|spec| &spec.template);
    }
    if let Some(one) = object.downcast_ref::<ReplicationController>() {
        return one.spec.as_ref().and_then(|spec| spec.template.as_ref());
    }
    object.downcast_ref::<PodTemplate>().and_then(|one| one.template.as_ref())
}

/// Whether an update changes something that the standards are about.
fn significant(new: &Pod, old: &Pod) -> bool {
    let parts = |pod: &Pod| {
        let spec = pod.spec.clone().unwrap_or_default();
        let main: Vec<_> = spec.containers.iter().map(|c| (c.name.clone(), c.image.clone())).collect();
        let init: Vec<_> =
            spec.init_containers.iter().flatten().map(|c| (c.name.clone(), c.image.clone())).collect();
        let debug: Vec<_> =
            spec.ephemeral_containers.iter().flatten().map(|c| (c.name.clone(), c.image.clone())).collect();
        (main, init, debug)
    };
    parts(new) != parts(old)
}

async fn evaluate(
    request: &Request<'_>,
    meta: Option<&ObjectMeta>,
    spec: Option<&PodSpec>,
    enforce: bool,
) -> Result<(), ApiError> {
    let namespace = request.registry.object_latest::<Namespace>("", request.namespace).await?;
    let wanted = namespace.labels().filter(|(key, _)| key.starts_with(policy::PREFIX));
    let wanted = wanted.map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
    let (policy, _) = Policy::from_labels(Some(&wanted));
    if policy.enforce.level == Level::Privileged && policy.warn.level == Level::Privileged {
        return Ok(());
    }
    let (no_meta, no_spec) = (ObjectMeta::default(), PodSpec::default());
    let (meta, spec) = (meta.unwrap_or(&no_meta), spec.unwrap_or(&no_spec));
    if enforce && policy.enforce.level != Level::Privileged {
        let found = violations(policy.enforce, meta, spec);
        if !found.is_empty() {
            return Err(request.forbid(format!(
                "violates PodSecurity \"{}\": {}",
                policy.enforce,
                checks::details(&found)
            )));
        }
    }
    let found = violations(policy.warn, meta, spec);
    if !found.is_empty() {
        request.cx.warn(format!(
            "would violate PodSecurity \"{}\": {}",
            policy.warn,
            checks::details(&found)
        ));
    }
    Ok(())
}

/// Checks the labels of a namespace, and warns about pods in it that a stricter level would not let in.
async fn labels(request: &Request<'_>, new: &Namespace, old: Option<&Namespace>) -> Result<(), ApiError> {
    let (policy, errors) = Policy::from_labels(new.metadata.labels.as_ref());
    let before = old.map(|old| Policy::from_labels(old.metadata.labels.as_ref()));
    let known = before.as_ref().is_some_and(|(_, known)| *known == errors);
    if !errors.is_empty() && !known {
        let name = new.metadata.name.as_deref().unwrap_or_default();
        return Err(ApiError::invalid(&GroupKind::new("", "Namespace"), name, errors));
    }
    let Some((before, _)) = before else { return Ok(()) };
    let enforce = policy.enforce;
    let relaxed = enforce.version == before.enforce.version && enforce.level <= before.enforce.level;
    if enforce == before.enforce || enforce.level == Level::Privileged || relaxed {
        return Ok(());
    }
    let name = new.metadata.name.clone().unwrap_or_default();
    warn_of_pods(request, &name, enforce).await
}

async fn warn_of_pods(request: &Request<'_>, namespace: &str, enforce: LevelVersion) -> Result<(), ApiError> {
    let mut by_reason: std::collections::BTreeMap<String, Vec<String>> = Default::default();
    for pod in request.registry.read_all_latest::<Pod>(namespace).await? {
        let spec = pod.spec.clone().unwrap_or_default();
        let found = violations(enforce, &pod.metadata, &spec);
        if !found.is_empty() {
            let name = pod.metadata.name.unwrap_or_default();
            by_reason.entry(checks::reasons(&found)).or_default().push(name);
        }
    }
    if by_reason.is_empty() {
        return Ok(());
    }
    request.cx.warn(format!(
        "existing pods in namespace {namespace:?} violate the new PodSecurity enforce level \"{enforce}\""
    ));
    let mut lines: Vec<String> = by_reason
        .into_iter()
        .map(|(reason, mut names)| {
            names.sort();
            match names.len() {
                1 => format!("{}: {reason}", names[0]),
                2 => format!("{} (and 1 other pod): {reason}", names[0]),
                n => format!("{} (and {} other pods): {reason}", names[0], n - 1),
            }
        })
        .collect();
    lines.sort();
    lines.into_iter().for_each(|line| request.cx.warn(line));
    Ok(())
}
