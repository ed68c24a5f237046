//! ControllerRevisions: the templates that a DaemonSet or StatefulSet has had, numbered.
//!
//! The data of a revision is upstream's: a patch that puts the template in the place of the owner's, so that
//! `kubectl rollout undo` can apply it.

use std::collections::BTreeSet;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet, StatefulSet};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::runtime::RawExtension;
use kube::Client;
use kube::api::{Api, DeleteParams, PostParams, Preconditions};
use serde::Serialize;
use serde_json::{Value, json};

use super::claims::{self, Object};
use super::{ownership, selects};
use crate::api::json;
use crate::client::error;
use crate::controllers::deployment::template;

/// Label on pods that says which revision they are of.
pub const POD_LABEL: &str = "controller-revision-hash";
/// Label on StatefulSets' revisions with the template's hash.
pub const HASH_LABEL: &str = "controller.kubernetes.io/hash";

/// How the revision of the present template comes to be.
#[derive(Debug, Clone, PartialEq)]
pub enum Current {
    /// It is there and the newest.
    There(Arc<ControllerRevision>),
    /// It is there, but was made before another one: it gets the next number.
    Renumber(Box<ControllerRevision>),
    /// It is new.
    Create(Box<ControllerRevision>),
}

impl Current {
    /// The revision.
    pub fn revision(&self) -> &ControllerRevision {
        match self {
            Self::There(revision) => revision,
            Self::Renumber(revision) | Self::Create(revision) => revision,
        }
    }
}

/// The patch that a revision holds.
pub fn data_of(template: &PodTemplateSpec) -> Value {
    let mut template = serde_json::to_value(template).unwrap_or_default();
    template["$patch"] = "replace".into();
    json!({"spec": {"template": template}})
}

/// The template that a revision holds; `None` if it holds something else.
pub fn template_of(revision: &ControllerRevision) -> Option<PodTemplateSpec> {
    let template = revision.data.as_ref()?.0.get("spec")?.get("template")?;
    json::typed_value(template).ok()
}

fn has_template(revision: &ControllerRevision, template: &PodTemplateSpec) -> bool {
    template_of(revision).is_some_and(|other| template::same(&other, template))
}

/// A kind that keeps its templates as revisions.
pub trait Revisioned: Object + Serialize {
    /// Where a new revision carries the template's hash.
    const HASH_LABEL: &'static str;

    /// The present template.
    fn template(&self) -> PodTemplateSpec;

    /// `status.collisionCount`.
    fn collisions(&self) -> i32;

    /// The same object with another `status.collisionCount`.
    fn with_collisions(&self, count: i32) -> Self;

    /// `spec.revisionHistoryLimit`.
    fn history_limit(&self) -> Option<i32>;
}

macro_rules! revisioned {
    ($kind:ty, $label:expr) => {
        impl Revisioned for $kind {
            const HASH_LABEL: &'static str = $label;

            fn template(&self) -> PodTemplateSpec {
                self.spec.as_ref().map(|spec| spec.template.clone()).unwrap_or_default()
            }

            fn collisions(&self) -> i32 {
                self.status.as_ref().and_then(|status| status.collision_count).unwrap_or(0)
            }

            fn with_collisions(&self, count: i32) -> Self {
                let mut object = self.clone();
                object.status.get_or_insert_default().collision_count = Some(count);
                object
            }

            fn history_limit(&self) -> Option<i32> {
                self.spec.as_ref().and_then(|spec| spec.revision_history_limit)
            }
        }
    };
}

revisioned!(DaemonSet, POD_LABEL);
revisioned!(StatefulSet, HASH_LABEL);

/// The revision of the owner's present template, which is recorded if it is not the newest already.
///
/// # Errors
/// The server refused, or the revision's name is taken; the next attempt has another name.
pub async fn record<O: Revisioned>(
    client: &Client,
    owner: &O,
    known: &[Arc<ControllerRevision>],
) -> Result<Arc<ControllerRevision>, Error> {
    let current = current(owner, &owner.template(), known, owner.collisions(), O::HASH_LABEL);
    let written = write(client, current).await;
    if matches!(written, Err(Error::Collision)) {
        let more = owner.with_collisions(owner.collisions().saturating_add(1));
        selects::write_status(client, &more).await.map_err(Error::Write)?;
    }
    written
}

/// Deletes old revisions beyond the owner's limit that nothing in `live` (names or hashes) refers to.
///
/// # Errors
/// The server refused.
pub async fn clean<O: Revisioned>(
    client: &Client,
    owner: &O,
    known: &[Arc<ControllerRevision>],
    live: &BTreeSet<String>,
) -> kube::Result<()> {
    delete(client, &surplus(known, live, owner.history_limit())).await
}

/// Finds or makes the revision of `template` among the `known` ones of `owner`.
///
/// `hash_label` is where the hash goes; `labels` are the other labels of a new revision.
pub fn current<O: Object>(
    owner: &O,
    template: &PodTemplateSpec,
    known: &[Arc<ControllerRevision>],
    collisions: i32,
    hash_label: &str,
) -> Current {
    let newest = known.iter().map(|revision| revision.revision).max().unwrap_or(0);
    let same = known.iter().filter(|revision| has_template(revision, template));
    if let Some(revision) = same.max_by_key(|revision| revision.revision) {
        if revision.revision == newest {
            return Current::There(revision.clone());
        }
        let mut renumbered = Box::new(revision.as_ref().clone());
        renumbered.revision = newest + 1;
        return Current::Renumber(renumbered);
    }
    let hash = template::hash(template, collisions);
    let meta = owner.meta();
    let mut labels = template.metadata.clone().and_then(|meta| meta.labels).unwrap_or_default();
    labels.insert(hash_label.to_owned(), hash.clone());
    let reference = ownership::controller_reference(&O::api_version(&()), &O::kind(&()), meta);
    Current::Create(Box::new(ControllerRevision {
        metadata: ObjectMeta {
            name: Some(format!("{}-{hash}", meta.name.as_deref().unwrap_or_default())),
            namespace: meta.namespace.clone(),
            labels: Some(labels),
            annotations: meta.annotations.clone().map(|mut annotations| {
                annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
                annotations
            }),
            owner_references: Some(vec![reference]),
            ..ObjectMeta::default()
        },
        data: Some(RawExtension(data_of(template))),
        revision: newest + 1,
    }))
}

/// Why the present revision could not be written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another template has the name that the template's hash gives; the next one gets another name.
    #[error("the name of the new ControllerRevision is taken")]
    Collision,
    /// The server refused.
    #[error("write ControllerRevision")]
    Write(#[source] kube::Error),
}

/// Writes what [`current`] decided and returns the revision as the server has it.
async fn write(client: &Client, current: Current) -> Result<Arc<ControllerRevision>, Error> {
    let wanted = match current {
        Current::There(revision) => return Ok(revision),
        Current::Renumber(revision) => {
            let api: Api<ControllerRevision> = claims::api_beside(client, &revision.metadata);
            let name = revision.metadata.name.clone().unwrap_or_default();
            let written = api.replace(&name, &PostParams::default(), &revision).await;
            return written.map(Arc::new).map_err(Error::Write);
        }
        Current::Create(revision) => revision,
    };
    let api: Api<ControllerRevision> = claims::api_beside(client, &wanted.metadata);
    match api.create(&PostParams::default(), &wanted).await {
        Ok(written) => Ok(Arc::new(written)),
        Err(failure) if error::is_already_exists(&failure) => {
            let name = wanted.metadata.name.as_deref().unwrap_or_default();
            let there = api.get_opt(name).await.map_err(Error::Write)?;
            let ours = |there: &ControllerRevision| {
                ownership::controller_uid(&there.metadata) == ownership::controller_uid(&wanted.metadata)
                    && template_of(there) == template_of(&wanted)
            };
            there.filter(ours).map(Arc::new).ok_or(Error::Collision)
        }
        Err(failure) => Err(Error::Write(failure)),
    }
}

/// The oldest revisions beyond `limit` that nothing in `live` (names or hashes) refers to.
fn surplus(
    known: &[Arc<ControllerRevision>],
    live: &BTreeSet<String>,
    limit: Option<i32>,
) -> Vec<Arc<ControllerRevision>> {
    let is_live = |revision: &ControllerRevision| {
        let labels = revision.metadata.labels.as_ref();
        let hashes = [POD_LABEL, HASH_LABEL].into_iter().filter_map(|key| labels?.get(key));
        revision.metadata.name.iter().chain(hashes).any(|name| live.contains(name))
    };
    let mut idle: Vec<_> = known.iter().filter(|revision| !is_live(revision)).cloned().collect();
    idle.sort_by_key(|revision| revision.revision);
    let keep = usize::try_from(limit.unwrap_or(10)).unwrap_or(0);
    idle.truncate(idle.len().saturating_sub(keep));
    idle
}

/// Deletes the revisions; one that is gone already is fine.
async fn delete(client: &Client, revisions: &[Arc<ControllerRevision>]) -> kube::Result<()> {
    for revision in revisions {
        let api: Api<ControllerRevision> = claims::api_beside(client, &revision.metadata);
        let preconditions = Preconditions { uid: revision.metadata.uid.clone(), resource_version: None };
        let parameters = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
        match api.delete(revision.metadata.name.as_deref().unwrap_or_default(), &parameters).await {
            Err(failure) if !error::is_not_found(&failure) => return Err(failure),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template(image: &str) -> PodTemplateSpec {
        let spec = json!({"metadata": {"labels": {"app": "a"}}, "spec": {"containers": [{"name": "c", "image": image}]}});
        serde_json::from_value(spec).unwrap()
    }

    fn owner() -> DaemonSet {
        serde_json::from_value(json!({"metadata": {"name": "ds", "namespace": "default", "uid": "u"}}))
            .unwrap()
    }

    fn made(image: &str, known: &[Arc<ControllerRevision>]) -> Arc<ControllerRevision> {
        match current(&owner(), &template(image), known, 0, POD_LABEL) {
            Current::Create(revision) => Arc::new(*revision),
            other => panic!("not new: {other:?}"),
        }
    }

    #[test]
    fn a_template_gets_the_next_number_and_going_back_renumbers() {
        let first = made("v1", &[]);
        let second = made("v2", std::slice::from_ref(&first));
        assert_eq!((first.revision, second.revision), (1, 2));
        assert_eq!(template_of(&first), Some(template("v1")));
        assert_eq!(first.data.as_ref().unwrap().0["spec"]["template"]["$patch"], "replace");
        let known = [first, second.clone()];
        assert_eq!(current(&owner(), &template("v2"), &known, 0, POD_LABEL), Current::There(second));
        let Current::Renumber(back) = current(&owner(), &template("v1"), &known, 0, POD_LABEL) else {
            panic!("not renumbered")
        };
        assert_eq!(back.revision, 3);
    }

    #[test]
    fn only_the_oldest_unused_revisions_are_surplus() {
        let mut known = Vec::new();
        for image in ["v1", "v2", "v3", "v4"] {
            known.push(made(image, &known));
        }
        let name = |i: usize| known[i].metadata.name.clone().unwrap();
        let live = BTreeSet::from([name(0), name(3)]);
        let names = |limit| -> Vec<String> {
            surplus(&known, &live, Some(limit)).iter().map(|r| r.metadata.name.clone().unwrap()).collect()
        };
        assert_eq!(names(1), [name(1)]);
        assert_eq!(names(0), [name(1), name(2)]);
        assert!(names(2).is_empty());
    }
}
