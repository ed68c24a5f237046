//! Updates: read, change, check, compare and set, again when somebody else was faster.

use serde_json::Value;

use super::body::{self, Incoming};
use super::load::{self, Current};
use super::{Target, encode, system};
use crate::api::error::ApiError;
use crate::api::field::{FieldError, FieldErrors, Path};
use crate::api::meta;
use crate::cache::Consistency;
use crate::registry::admission::{Operation, Request};
use crate::registry::allocators::Reservation;
use crate::registry::context::{Body, RequestContext};
use crate::registry::errors;
use crate::registry::object::Object;
use crate::registry::render;
use crate::registry::resource::SubresourceRole;
use crate::registry::service::{Registry, Reply};
use crate::registry::subresources::parts;
use crate::registry::validation::metadata;
use crate::store::{Entry, StoreError};

/// How often a write is tried again after somebody else was faster.
const ATTEMPTS: usize = 64;

/// What became of one attempt.
enum Outcome {
    Done(Reply),
    /// Somebody else was faster; the entry as it is now, if the store said.
    Lost(Option<Entry>),
    /// The store failed, and the write may have happened: tried again, it would find its own doing in its way.
    Failed(ApiError),
}

/// Makes the proposed object from the present one.
pub(in crate::registry) type Propose<'p> = &'p (dyn Fn(&Current) -> Result<Proposal, ApiError> + Send + Sync);

/// A proposed object.
pub(in crate::registry) struct Proposal {
    pub incoming: Incoming,
    /// The patch, when the proposal comes from one: unknown fields are then reported about it.
    pub patch: Option<String>,
}

impl Registry {
    pub(in crate::registry) async fn update_object(
        &self,
        cx: &RequestContext,
        target: &Target<'_>,
        body: &Body,
    ) -> Result<Reply, ApiError> {
        let mut incoming = body::parse(body, (&target.resource.api_version(), &target.resource.kind))?;
        body::check_type(target.resource, &mut incoming.value)?;
        body::check_name(target, &incoming.value)?;
        body::check_namespace(target, &mut incoming.value)?;
        self.require_version(target, &incoming.value)?;
        let propose = |_: &Current| Ok(Proposal { incoming: incoming.clone(), patch: None });
        match self.modify(cx, target, &propose).await? {
            Some(reply) => Ok(reply),
            None if target.resource.create_on_update && target.subresource.is_none() => {
                meta::set(&mut incoming.value, "resourceVersion", None);
                self.create_incoming(cx, target, incoming).await
            }
            None => Err(ApiError::not_found(&target.resource.group_resource(), target.name)),
        }
    }

    fn require_version(&self, target: &Target<'_>, value: &Value) -> Result<(), ApiError> {
        if target.resource.unconditional_update || !matches!(meta::resource_version(value), "" | "0") {
            return Ok(());
        }
        let at = Path::new("metadata").child("resourceVersion");
        let error = FieldError::invalid(&at, 0, "must be specified for an update");
        Err(ApiError::invalid(&target.resource.group_kind(), target.name, FieldErrors(vec![error])))
    }

    /// Changes the target until it sticks. `None`: there is no such object.
    pub(in crate::registry) async fn modify(
        &self,
        cx: &RequestContext,
        target: &Target<'_>,
        propose: Propose<'_>,
    ) -> Result<Option<Reply>, ApiError> {
        let mut current = self.load(target).await?;
        for _ in 0..ATTEMPTS {
            let Some(mut now) = current else { return Ok(None) };
            current = match self.attempt(cx, target, &mut now, propose).await {
                Ok(Outcome::Done(reply)) => return Ok(Some(reply)),
                Ok(Outcome::Lost(Some(entry))) => Some(load::from_entry(target.resource, &entry).await?),
                Ok(Outcome::Lost(None)) => self.load_live(target).await?,
                Ok(Outcome::Failed(error)) => return Err(error),
                Err(error) if now.live => return Err(error),
                Err(error) => {
                    let live = self.load_live(target).await?;
                    if live.as_ref().is_some_and(|live| live.revision == now.revision) {
                        return Err(error);
                    }
                    live
                }
            };
        }
        Err(ApiError::object_modified(&target.resource.group_resource(), target.name))
    }

    async fn attempt(
        &self,
        cx: &RequestContext,
        target: &Target<'_>,
        now: &mut Current,
        propose: Propose<'_>,
    ) -> Result<Outcome, ApiError> {
        let resource = target.resource;
        let mut proposal = propose(now)?;
        check_preconditions(target, &proposal.incoming.value, now)?;
        scope_to_part(target, &mut proposal.incoming.value, &now.value);
        let mut object = decode(cx, target, proposal)?;
        let old = now.object.as_ref();
        resource.behaviour.default(object.as_mut());
        system::restore(object.meta_mut(), old.meta());
        self.track(cx, target, Some(&now.value), object.as_mut())?;
        self.admit(cx, target, object.as_mut(), Some(old), Operation::Update).await?;
        let reservation = self.prepare(cx, target, object.as_mut(), old).await?;
        let outcome = self.accept_change(cx, target, object.as_ref(), now).await;
        match reservation {
            Some(reservation) if matches!(outcome, Ok(Outcome::Done(_))) && !cx.dry_run => {
                self.confirm(object.as_ref(), reservation).await;
            }
            // It may have happened: then the claims are needed, and otherwise found to be stale later.
            Some(_) if matches!(outcome, Ok(Outcome::Failed(_))) => {}
            Some(reservation) => self.undo(reservation).await,
            None => {}
        }
        outcome
    }

    /// Sets what follows from the change and draws numbers for it.
    async fn prepare(
        &self,
        cx: &RequestContext,
        target: &Target<'_>,
        object: &mut dyn Object,
        old: &dyn Object,
    ) -> Result<Option<Reservation>, ApiError> {
        let behaviour = &target.resource.behaviour;
        match target.subresource.map(|s| s.role) {
            Some(SubresourceRole::Status) => behaviour.prepare_for_status_update(cx, object, old),
            Some(_) => behaviour.prepare_for_part(target.part(), object, old),
            None => {
                behaviour.prepare_for_update(cx, object, old);
                return self.reserve(target, object, Some(old), !cx.dry_run).await.map(Some);
            }
        }
        Ok(None)
    }

    /// Checks the complete object and stores it.
    async fn accept_change(
        &self,
        cx: &RequestContext,
        target: &Target<'_>,
        object: &dyn Object,
        now: &mut Current,
    ) -> Result<Outcome, ApiError> {
        let old = now.object.as_ref();
        validate(target, object, old)?;
        let request = Request::new(self, cx, target, Operation::Update);
        self.admission().validate(&request, Some(object), Some(old)).await?;
        if target.subresource.is_none() {
            let warnings = target.resource.behaviour.warnings(object, Some(old));
            warnings.into_iter().for_each(|warning| cx.warn(warning));
        }
        self.replace(cx, target, object, now).await
    }

    /// Writes the changed object, or nothing when nothing changed, or removes it when this was its last finalizer.
    async fn replace(
        &self,
        cx: &RequestContext,
        target: &Target<'_>,
        object: &dyn Object,
        now: &mut Current,
    ) -> Result<Outcome, ApiError> {
        let resource = target.resource;
        let mut value = object.to_value().map_err(ApiError::internal)?;
        let counts = system::spec_differs(&value, &now.value)
            || resource.behaviour.counts_as_spec_change(object, now.object.as_ref());
        // The node that a pod is bound to is no new generation: the scheduler's choice is not the user's wish.
        if resource.generation && !matches!(target.part(), "status" | "binding") && counts {
            meta::set_generation(&mut value, meta::generation(&now.value) + 1);
        }
        let own = encode::canonical(&value).map_err(ApiError::internal)?;
        if vanishes(target, object, now.object.as_ref()) {
            return self.vanish(cx, target, &own, now).await;
        }
        if value == now.value || cx.dry_run {
            // Nothing will be written that could fail: whether the cached object is the present one is asked here.
            if !self.is_latest(target, now).await? {
                return Ok(Outcome::Lost(None));
            }
            return render::written(cx, resource, 200, &own, now.revision).map(Outcome::Done);
        }
        let stored = self.stored_form(resource, &own, || Ok(value)).await?;
        match self.store().update(&target.key(), stored, now.revision, resource.ttl).await {
            Ok(revision) => render::written(cx, resource, 200, &own, revision).map(Outcome::Done),
            Err(StoreError::Conflict { current, .. }) => Ok(Outcome::Lost(current)),
            Err(StoreError::NotFound { .. }) => Ok(Outcome::Lost(None)),
            Err(error) => Ok(Outcome::Failed(errors::store(target, error))),
        }
    }

    /// Whether this is still what the store has: an answer that nothing changes must not rest on an old state.
    async fn is_latest(&self, target: &Target<'_>, now: &Current) -> Result<bool, ApiError> {
        if now.live {
            return Ok(true);
        }
        let cache = self.cache_of(target.resource)?;
        let latest = cache.get_at(target.namespace, target.name, Consistency::Latest).await;
        let latest = latest.map_err(|error| errors::cache(target.resource, error))?;
        Ok(latest.is_some_and(|object| object.revision() == now.revision))
    }

    async fn vanish(
        &self,
        cx: &RequestContext,
        target: &Target<'_>,
        own: &bytes::Bytes,
        now: &Current,
    ) -> Result<Outcome, ApiError> {
        if cx.dry_run {
            return render::written(cx, target.resource, 200, own, now.revision).map(Outcome::Done);
        }
        match self.store().delete(&target.key(), now.revision).await {
            Ok(revision) => {
                self.released(target, now.object.as_ref()).await;
                render::written(cx, target.resource, 200, own, revision).map(Outcome::Done)
            }
            Err(StoreError::Conflict { current, .. }) => Ok(Outcome::Lost(current)),
            Err(StoreError::NotFound { .. }) => Ok(Outcome::Lost(None)),
            Err(error) => Ok(Outcome::Failed(errors::store(target, error))),
        }
    }
}

fn check_preconditions(target: &Target<'_>, value: &Value, now: &Current) -> Result<(), ApiError> {
    let resource = target.resource.group_resource();
    let given = meta::resource_version(value);
    if !matches!(given, "" | "0") {
        match given.parse::<u64>() {
            Ok(version) if version == now.revision.0 => {}
            Ok(_) => return Err(ApiError::object_modified(&resource, target.name)),
            Err(_) => {
                let at = Path::new("metadata").child("resourceVersion");
                let message = format!("strconv.ParseUint: parsing {given:?}: invalid syntax");
                let errors = FieldErrors(vec![FieldError::invalid(&at, given, message)]);
                return Err(ApiError::invalid(&target.resource.group_kind(), target.name, errors));
            }
        }
    }
    let (uid, own) = (meta::uid(value), meta::uid(&now.value));
    if !uid.is_empty() && uid != own {
        let message = format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {own}");
        return Err(ApiError::conflict(&resource, target.name, message));
    }
    Ok(())
}

/// Takes from the proposal only what the target may write: everything but the status, or only a part.
fn scope_to_part(target: &Target<'_>, value: &mut Value, old: &Value) {
    match target.subresource {
        None if target.resource.has_status() => keep(value, old, "status"),
        None => {}
        Some(part) if part.role == SubresourceRole::Status => parts::status(value, old),
        Some(part) => parts::restrict(part.name, value, old),
    }
}

fn keep(value: &mut Value, old: &Value, field: &str) {
    let Value::Object(map) = value else { return };
    match old.get(field) {
        Some(old) => map.insert(field.into(), old.clone()),
        None => map.remove(field),
    };
}

fn decode(cx: &RequestContext, target: &Target<'_>, proposal: Proposal) -> Result<Box<dyn Object>, ApiError> {
    let Some(patch) = proposal.patch else { return body::typed(cx, target.resource, proposal.incoming) };
    let (object, complaints) = body::typed_with_complaints(target.resource, proposal.incoming)?;
    match cx.field_validation {
        crate::registry::FieldValidation::Strict if !complaints.is_empty() => {
            let error = FieldError::invalid(&Path::new("patch"), patch, body::strict(&complaints));
            let nobody = crate::api::error::GroupKind::new("", "");
            Err(ApiError::invalid(&nobody, "", FieldErrors(vec![error])))
        }
        crate::registry::FieldValidation::Warn => {
            complaints.into_iter().for_each(|complaint| cx.warn(complaint));
            Ok(object)
        }
        _ => Ok(object),
    }
}

fn validate(target: &Target<'_>, object: &dyn Object, old: &dyn Object) -> Result<(), ApiError> {
    let behaviour = &target.resource.behaviour;
    let mut errors = FieldErrors::new();
    metadata::validate_update(target.resource, object.meta(), old.meta(), &mut errors);
    match target.subresource.map(|s| s.role) {
        Some(SubresourceRole::Status) => behaviour.validate_status_update(object, old, &mut errors),
        Some(_) => {
            behaviour.validate(object, &mut errors);
            behaviour.validate_part(target.part(), object, old, &mut errors);
        }
        None => behaviour.validate_replacement(object, old, &mut errors),
    }
    if errors.is_empty() {
        return Ok(());
    }
    Err(ApiError::invalid(&target.resource.group_kind(), target.name, errors))
}

/// Whether a deleted object has now lost the last thing that kept it.
fn vanishes(target: &Target<'_>, object: &dyn Object, old: &dyn Object) -> bool {
    let (new, was) = (object.meta(), old.meta());
    was.deletion_timestamp.is_some()
        && new.finalizers.as_ref().is_none_or(Vec::is_empty)
        && new.deletion_grace_period_seconds.unwrap_or(0) == 0
        && target.resource.behaviour.may_vanish(object)
}
