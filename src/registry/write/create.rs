//! Creates.

use serde_json::Value;

use super::body::{self, Incoming};
use super::{Target, system};
use crate::api::error::ApiError;
use crate::api::field::FieldErrors;
use crate::registry::admission::{Operation, Request};
use crate::registry::context::{Body, RequestContext};
use crate::registry::errors;
use crate::registry::object::Object;
use crate::registry::render;
use crate::registry::resource::Resource;
use crate::registry::service::{Registry, Reply};
use crate::registry::validation::metadata;
use crate::store::{Revision, StoreError};

/// How often another random name is tried.
const NAME_ATTEMPTS: usize = 8;

impl Registry {
    pub(in crate::registry) async fn create_object(
        &self,
        cx: &RequestContext,
        target: &Target<'_>,
        body: &Body,
    ) -> Result<Reply, ApiError> {
        let mut incoming = body::parse(body, (&target.resource.api_version(), &target.resource.kind))?;
        body::check_type(target.resource, &mut incoming.value)?;
        self.create_incoming(cx, target, incoming).await
    }

    /// Creates the object of a parsed body.
    pub(in crate::registry) async fn create_incoming(
        &self,
        cx: &RequestContext,
        target: &Target<'_>,
        mut incoming: Incoming,
    ) -> Result<Reply, ApiError> {
        let resource = target.resource;
        body::check_namespace(target, &mut incoming.value)?;
        if !crate::api::meta::resource_version(&incoming.value).is_empty() {
            return Err(ApiError::bad_request("resourceVersion should not be set on objects to be created"));
        }
        if resource.has_status() && !resource.keeps_status {
            remove_status(&mut incoming.value);
        }
        let mut object = body::typed(cx, resource, incoming)?;
        resource.behaviour.default(object.as_mut());
        let generated = choose_name(object.as_mut());
        self.track(cx, target, None, object.as_mut())?;
        self.admit(cx, target, object.as_mut(), None, Operation::Create).await?;
        system::fill_new(object.meta_mut());
        resource.behaviour.prepare_for_create(cx, object.as_mut());
        let reservation = self.reserve(target, object.as_mut(), None, !cx.dry_run).await?;
        match self.accept(cx, target, object, generated).await {
            Ok(reply) if !cx.dry_run => {
                // Nothing is given back by a creation.
                reservation.keep();
                Ok(reply)
            }
            // It may be there after all: then its claims are needed, and otherwise found to be stale later.
            Err(error) if error.code() >= 500 => Err(error),
            other => {
                self.undo(reservation).await;
                other
            }
        }
    }

    /// Checks the complete object and stores it.
    async fn accept(
        &self,
        cx: &RequestContext,
        target: &Target<'_>,
        object: Box<dyn Object>,
        generated: bool,
    ) -> Result<Reply, ApiError> {
        let resource = target.resource;
        validate(resource, object.as_ref())?;
        let request = Request::new(self, cx, target, Operation::Create).about(object.as_ref());
        self.admission().validate(&request, Some(object.as_ref()), None).await?;
        resource.behaviour.warnings(object.as_ref(), None).into_iter().for_each(|warning| cx.warn(warning));
        self.insert(cx, target, object, generated).await
    }

    async fn insert(
        &self,
        cx: &RequestContext,
        target: &Target<'_>,
        mut object: Box<dyn Object>,
        generated: bool,
    ) -> Result<Reply, ApiError> {
        let resource = target.resource;
        if resource.generation {
            object.meta_mut().generation = Some(1);
        }
        for _ in 0..NAME_ATTEMPTS {
            let name = object.meta().name.clone().unwrap_or_default();
            let target = Target { name: &name, ..*target };
            let own = object.to_json().map_err(ApiError::internal)?;
            let stored = self.stored_form(resource, &own, || object.to_value()).await?;
            match self.put_new(cx, &target, stored).await {
                Ok(revision) => return render::written(cx, resource, 201, &own, revision),
                Err(StoreError::Exists { .. }) if generated => {
                    let meta = object.meta_mut();
                    meta.name = meta.generate_name.as_deref().map(system::generate_name);
                }
                Err(error) => return Err(errors::store(&target, error)),
            }
        }
        let name = object.meta().name.clone().unwrap_or_default();
        Err(ApiError::generate_name_conflict(&resource.group_resource(), &name, 1))
    }

    async fn put_new(
        &self,
        cx: &RequestContext,
        target: &Target<'_>,
        bytes: bytes::Bytes,
    ) -> Result<Revision, StoreError> {
        if !cx.dry_run {
            return self.store().create(&target.key(), bytes, target.resource.ttl).await;
        }
        match self.store().get(&target.key(), None).await? {
            Some(entry) => Err(StoreError::Exists { key: entry.key }),
            None => Ok(Revision(0)),
        }
    }
}

fn remove_status(value: &mut Value) {
    if let Value::Object(map) = value {
        map.remove("status");
    }
}

/// Makes a name from `generateName` where there is none; the result says whether it did.
fn choose_name(object: &mut dyn Object) -> bool {
    let meta = object.meta_mut();
    let unnamed = meta.name.as_deref().is_none_or(str::is_empty);
    match meta.generate_name.as_deref().filter(|prefix| unnamed && !prefix.is_empty()) {
        Some(prefix) => {
            meta.name = Some(system::generate_name(prefix));
            true
        }
        None => false,
    }
}

fn validate(resource: &Resource, object: &dyn Object) -> Result<(), ApiError> {
    let mut errors = FieldErrors::new();
    metadata::validate(resource, object.meta(), &mut errors);
    resource.behaviour.validate(object, &mut errors);
    resource.behaviour.validate_create(object, &mut errors);
    if errors.is_empty() {
        return Ok(());
    }
    let name = object.meta().name.as_deref().unwrap_or_default();
    Err(ApiError::invalid(&resource.group_kind(), name, errors))
}
