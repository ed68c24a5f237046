//! Deletes.

use super::finalizers::{self, Plan};
use super::load::{self, Current};
use super::{Target, encode};
use crate::api::error::ApiError;
use crate::registry::admission::{Operation, Request};
use crate::registry::context::RequestContext;
use crate::registry::errors;
use crate::registry::options::DeleteOptions;
use crate::registry::render;
use crate::registry::service::{Registry, Reply};
use crate::store::{Entry, StoreError};

const ATTEMPTS: usize = 64;
/// What upstream warns of when a Job is deleted without a word on its pods.
const JOBS_ORPHAN: &str = "child pods are preserved by default when jobs are deleted; set propagationPolicy=Background to \
    remove them or set propagationPolicy=Orphan to suppress this warning";

enum Outcome {
    Done(Reply),
    Lost(Option<Entry>),
    /// The store failed, and the write may have happened: tried again, it would find its own doing in its way.
    Failed(ApiError),
}

impl Registry {
    pub(in crate::registry) async fn delete_object(
        &self,
        cx: &RequestContext,
        target: &Target<'_>,
        options: &DeleteOptions,
    ) -> Result<Reply, ApiError> {
        if target.resource.group == "batch" && target.resource.orphans && options.propagation.is_none() {
            cx.warn(JOBS_ORPHAN);
        }
        let mut current = self.load(target).await?;
        for _ in 0..ATTEMPTS {
            // Every state is judged by itself: what may be deleted may have become what may not, and the other way round.
            let request = Request::new(self, cx, target, Operation::Delete);
            let old = current.as_ref().map(|current| current.object.as_ref());
            let admitted = self.admission().validate(&request, None, old).await;
            let Some(mut now) = current else {
                admitted?;
                return Err(ApiError::not_found(&target.resource.group_resource(), target.name));
            };
            if let Err(error) = admitted {
                current = if now.live { None } else { self.load_live(target).await? };
                if now.live || current.as_ref().is_some_and(|live| live.revision == now.revision) {
                    return Err(error);
                }
                continue;
            }
            current = match self.delete_attempt(cx, target, options, &mut now).await {
                Ok(Outcome::Done(reply)) => return Ok(reply),
                Ok(Outcome::Lost(Some(entry))) => Some(load::from_entry(target.resource, &entry).await?),
                Ok(Outcome::Lost(None)) => self.load_live(target).await?,
                Ok(Outcome::Failed(error)) => return Err(error),
                Err(error) if now.live => return Err(error),
                Err(_) => self.load_live(target).await?,
            };
        }
        Err(ApiError::object_modified(&target.resource.group_resource(), target.name))
    }

    async fn delete_attempt(
        &self,
        cx: &RequestContext,
        target: &Target<'_>,
        options: &DeleteOptions,
        now: &mut Current,
    ) -> Result<Outcome, ApiError> {
        check_preconditions(target, options, now)?;
        let dry_run = cx.dry_run || options.dry_run;
        let orphaning = target.resource.orphans.then(|| finalizers::orphaning(options, now.object.meta()));
        let options = orphaning.as_ref().unwrap_or(options);
        match finalizers::plan(target.resource.behaviour.as_ref(), now.object.as_mut(), options) {
            Plan::Wait => self.deleted(cx, target, now, now.revision).map(Outcome::Done),
            Plan::Mark => self.mark(cx, target, now, dry_run).await,
            Plan::Remove if dry_run => self.deleted(cx, target, now, now.revision).map(Outcome::Done),
            Plan::Remove => match self.store().delete(&target.key(), now.revision).await {
                Ok(revision) => {
                    self.released(target, now.object.as_ref()).await;
                    self.after_delete(cx, target).await;
                    self.deleted(cx, target, now, revision).map(Outcome::Done)
                }
                Err(StoreError::Conflict { current, .. }) => Ok(Outcome::Lost(current)),
                Err(StoreError::NotFound { .. }) => Ok(Outcome::Lost(None)),
                Err(error) => Ok(Outcome::Failed(errors::store(target, error))),
            },
        }
    }

    async fn mark(
        &self,
        cx: &RequestContext,
        target: &Target<'_>,
        now: &Current,
        dry_run: bool,
    ) -> Result<Outcome, ApiError> {
        let value = now.object.to_value().map_err(ApiError::internal)?;
        let own = encode::canonical(&value).map_err(ApiError::internal)?;
        if dry_run || value == now.value {
            return render::written(cx, target.resource, 200, &own, now.revision).map(Outcome::Done);
        }
        let stored = self.stored_form(target.resource, &own, || Ok(value)).await?;
        match self.store().update(&target.key(), stored, now.revision, target.resource.ttl).await {
            Ok(revision) => render::written(cx, target.resource, 200, &own, revision).map(Outcome::Done),
            Err(StoreError::Conflict { current, .. }) => Ok(Outcome::Lost(current)),
            Err(StoreError::NotFound { .. }) => Ok(Outcome::Lost(None)),
            Err(error) => Ok(Outcome::Failed(errors::store(target, error))),
        }
    }

    /// The answer to a finished delete: the object, or a `Status` that names it.
    fn deleted(
        &self,
        cx: &RequestContext,
        target: &Target<'_>,
        now: &Current,
        revision: crate::store::Revision,
    ) -> Result<Reply, ApiError> {
        let resource = target.resource;
        if resource.returns_deleted {
            let own = encode::canonical(&now.value).map_err(ApiError::internal)?;
            return render::written(cx, resource, 200, &own, revision);
        }
        let mut details = serde_json::json!({
            "name": target.name, "kind": resource.plural, "uid": now.object.meta().uid,
        });
        if !resource.group.is_empty() {
            details["group"] = resource.group.as_ref().into();
        }
        let status = serde_json::json!({
            "apiVersion": "v1", "kind": "Status", "metadata": {}, "status": "Success", "details": details,
        });
        Ok(Reply::ok(serde_json::to_vec(&status).map_err(ApiError::internal)?))
    }

    /// The Endpoints of a Service go with it.
    async fn after_delete(&self, cx: &RequestContext, target: &Target<'_>) {
        if !(target.resource.group.is_empty() && target.resource.plural == "services") {
            return;
        }
        let Some(endpoints) = self.catalog().by_plural("", "v1", "endpoints").cloned() else { return };
        let target = Target { resource: &endpoints, ..*target };
        let options = DeleteOptions::default();
        if let Err(error) = Box::pin(self.delete_object(cx, &target, &options)).await
            && error.code() != 404
        {
            tracing::warn!(namespace = target.namespace, name = target.name, %error, "endpoints stay behind");
        }
    }
}

fn check_preconditions(target: &Target<'_>, options: &DeleteOptions, now: &Current) -> Result<(), ApiError> {
    let conflict = |what: &str, wanted: &str, found: &str| {
        let message =
            format!("Precondition failed: {what} in precondition: {wanted}, {what} in object meta: {found}");
        Err(ApiError::conflict(&target.resource.group_resource(), target.name, message))
    };
    let uid = now.object.meta().uid.as_deref().unwrap_or_default();
    if let Some(wanted) = options.preconditions.uid.as_deref().filter(|wanted| *wanted != uid) {
        return conflict("UID", wanted, uid);
    }
    let version = now.revision.to_string();
    if let Some(wanted) =
        options.preconditions.resource_version.as_deref().filter(|wanted| *wanted != version)
    {
        return conflict("ResourceVersion", wanted, &version);
    }
    Ok(())
}
