//! What a kind may do differently on the common path, and the adapter that lets the pipeline call it.

use std::marker::PhantomData;

use k8s_openapi::jiff::Timestamp;
use serde_json::Value;

use crate::api::error::ApiError;
use crate::api::field::FieldErrors;
use crate::api::json;
use crate::registry::allocators::{Allocators, Reservation};
use crate::registry::context::RequestContext;
use crate::registry::decode::{self, Decoded, TypeError};
use crate::registry::object::{Kind, Object};
use crate::registry::options::DeleteOptions;

/// The behaviour of one kind. Every method has a default that means "nothing special".
pub trait Strategy: Send + Sync + 'static {
    /// The Rust type of the kind.
    type Object: Kind;

    /// Fills in defaults; runs on every decoded body, so it must be idempotent.
    fn default(&self, _obj: &mut Self::Object) {}

    /// Sets what a new object starts with (initial status, derived fields). The status is already cleared.
    fn prepare_for_create(&self, _cx: &RequestContext, _obj: &mut Self::Object) {}

    /// Restores what an update may not touch. The status is already the old one.
    fn prepare_for_update(&self, _cx: &RequestContext, _obj: &mut Self::Object, _old: &Self::Object) {}

    /// Checks the object itself, on create and update; metadata is checked elsewhere.
    fn validate(&self, _obj: &Self::Object, _errors: &mut FieldErrors) {}

    /// Checks what holds for new objects only.
    fn validate_create(&self, _obj: &Self::Object, _errors: &mut FieldErrors) {}

    /// Checks what holds only between old and new.
    fn validate_update(&self, _obj: &Self::Object, _old: &Self::Object, _errors: &mut FieldErrors) {}

    /// Restores what a status update may not touch. Everything but status and metadata is already the old one.
    fn prepare_for_status_update(&self, _cx: &RequestContext, _obj: &mut Self::Object, _old: &Self::Object) {}

    /// Checks a status update.
    fn validate_status_update(&self, _obj: &Self::Object, _old: &Self::Object, _errors: &mut FieldErrors) {}

    /// Sets what follows from a write through a subresource other than the status, such as `approval`.
    fn prepare_for_part(&self, _part: &str, _obj: &mut Self::Object, _old: &Self::Object) {}

    /// Checks a write through a subresource other than the status, such as `resize`.
    fn validate_part(
        &self,
        _part: &str,
        _obj: &Self::Object,
        _old: &Self::Object,
        _errors: &mut FieldErrors,
    ) {
    }

    /// Warnings for the client about an accepted object.
    fn warnings(&self, _obj: &Self::Object, _old: Option<&Self::Object>) -> Vec<String> {
        Vec::new()
    }

    /// Takes numbers from the allocators; the reservation is undone unless the write succeeds.
    fn allocate(
        &self,
        _allocators: &Allocators,
        _obj: &mut Self::Object,
        _old: Option<&Self::Object>,
        _reservation: &mut Reservation,
    ) -> Result<(), ApiError> {
        Ok(())
    }

    /// Gives numbers back after the object is gone.
    fn release(&self, _allocators: &Allocators, _obj: &Self::Object) {}

    /// Whether the kind is deleted gracefully; sets the period to use in `options`.
    fn graceful_delete(&self, _obj: &Self::Object, _options: &mut DeleteOptions) -> bool {
        false
    }

    /// Whether a change of metadata counts as a spec change too.
    fn counts_as_spec_change(&self, _obj: &Self::Object, _old: &Self::Object) -> bool {
        false
    }

    /// Called when the object is to be deleted: shows it, and says whether something besides finalizers keeps it.
    fn hold(&self, _obj: &mut Self::Object) -> bool {
        false
    }

    /// Whether the object may vanish once it has no finalizers in its metadata (namespaces keep their own list too).
    fn may_vanish(&self, _obj: &Self::Object) -> bool {
        true
    }

    /// The cells of a printed row, in the order of the row's columns.
    fn cells(&self, obj: &Self::Object, now: Timestamp) -> Vec<Value> {
        crate::registry::table::plain_cells(Object::meta(obj), now)
    }
}

/// A kind without behaviour of its own.
pub struct Plain<K>(PhantomData<fn() -> K>);

impl<K> Plain<K> {
    /// The strategy.
    pub const fn new() -> Self {
        Self(PhantomData)
    }
}

impl<K> Default for Plain<K> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K: Kind> Strategy for Plain<K> {
    type Object = K;
}

/// [`Strategy`] without its type: what the pipeline holds. Objects passed in are of the kind's own type.
pub trait Behaviour: Send + Sync {
    /// Decodes a request body, reporting unknown fields.
    fn decode(&self, value: Value) -> Result<Decoded, TypeError>;
    /// Decodes stored bytes.
    fn decode_bytes(&self, bytes: &[u8]) -> Result<Box<dyn Object>, serde_json::Error>;
    /// See [`Strategy::default`].
    fn default(&self, obj: &mut dyn Object);
    /// See [`Strategy::prepare_for_create`].
    fn prepare_for_create(&self, cx: &RequestContext, obj: &mut dyn Object);
    /// See [`Strategy::prepare_for_update`].
    fn prepare_for_update(&self, cx: &RequestContext, obj: &mut dyn Object, old: &dyn Object);
    /// See [`Strategy::validate`].
    fn validate(&self, obj: &dyn Object, errors: &mut FieldErrors);
    /// See [`Strategy::validate_create`].
    fn validate_create(&self, _obj: &dyn Object, _errors: &mut FieldErrors) {}
    /// See [`Strategy::validate_update`].
    fn validate_update(&self, obj: &dyn Object, old: &dyn Object, errors: &mut FieldErrors);
    /// Checks an object that replaces another one.
    fn validate_replacement(&self, obj: &dyn Object, old: &dyn Object, errors: &mut FieldErrors) {
        self.validate(obj, errors);
        self.validate_update(obj, old, errors);
    }
    /// See [`Strategy::prepare_for_status_update`].
    fn prepare_for_status_update(&self, cx: &RequestContext, obj: &mut dyn Object, old: &dyn Object);
    /// See [`Strategy::validate_status_update`].
    fn validate_status_update(&self, obj: &dyn Object, old: &dyn Object, errors: &mut FieldErrors);
    /// See [`Strategy::prepare_for_part`].
    fn prepare_for_part(&self, part: &str, obj: &mut dyn Object, old: &dyn Object);
    /// See [`Strategy::validate_part`].
    fn validate_part(&self, part: &str, obj: &dyn Object, old: &dyn Object, errors: &mut FieldErrors);
    /// See [`Strategy::warnings`].
    fn warnings(&self, obj: &dyn Object, old: Option<&dyn Object>) -> Vec<String>;
    /// See [`Strategy::allocate`].
    fn allocate(
        &self,
        allocators: &Allocators,
        obj: &mut dyn Object,
        old: Option<&dyn Object>,
        reservation: &mut Reservation,
    ) -> Result<(), ApiError>;
    /// See [`Strategy::release`].
    fn release(&self, allocators: &Allocators, obj: &dyn Object);
    /// See [`Strategy::graceful_delete`].
    fn graceful_delete(&self, obj: &dyn Object, options: &mut DeleteOptions) -> bool;
    /// See [`Strategy::counts_as_spec_change`].
    fn counts_as_spec_change(&self, obj: &dyn Object, old: &dyn Object) -> bool;
    /// See [`Strategy::hold`].
    fn hold(&self, obj: &mut dyn Object) -> bool;
    /// See [`Strategy::may_vanish`].
    fn may_vanish(&self, obj: &dyn Object) -> bool;
    /// See [`Strategy::cells`].
    fn cells(&self, obj: &dyn Object, now: Timestamp) -> Vec<Value>;
}

fn typed<K: 'static>(obj: &dyn Object) -> &K {
    obj.downcast_ref().expect("the pipeline hands a row only objects that the row decoded")
}

fn typed_mut<K: 'static>(obj: &mut dyn Object) -> &mut K {
    obj.downcast_mut().expect("the pipeline hands a row only objects that the row decoded")
}

impl<S: Strategy> Behaviour for S {
    fn decode(&self, value: Value) -> Result<Decoded, TypeError> {
        decode::decode::<S::Object>(value)
    }

    fn decode_bytes(&self, bytes: &[u8]) -> Result<Box<dyn Object>, serde_json::Error> {
        Ok(Box::new(json::typed::<S::Object>(bytes)?))
    }

    fn default(&self, obj: &mut dyn Object) {
        Strategy::default(self, typed_mut(obj));
    }

    fn prepare_for_create(&self, cx: &RequestContext, obj: &mut dyn Object) {
        Strategy::prepare_for_create(self, cx, typed_mut(obj));
    }

    fn prepare_for_update(&self, cx: &RequestContext, obj: &mut dyn Object, old: &dyn Object) {
        Strategy::prepare_for_update(self, cx, typed_mut(obj), typed(old));
    }

    fn validate(&self, obj: &dyn Object, errors: &mut FieldErrors) {
        Strategy::validate(self, typed(obj), errors);
    }

    fn validate_create(&self, obj: &dyn Object, errors: &mut FieldErrors) {
        Strategy::validate_create(self, typed(obj), errors);
    }

    fn validate_update(&self, obj: &dyn Object, old: &dyn Object, errors: &mut FieldErrors) {
        Strategy::validate_update(self, typed(obj), typed(old), errors);
    }

    fn prepare_for_status_update(&self, cx: &RequestContext, obj: &mut dyn Object, old: &dyn Object) {
        Strategy::prepare_for_status_update(self, cx, typed_mut(obj), typed(old));
    }

    fn validate_status_update(&self, obj: &dyn Object, old: &dyn Object, errors: &mut FieldErrors) {
        Strategy::validate_status_update(self, typed(obj), typed(old), errors);
    }

    fn prepare_for_part(&self, part: &str, obj: &mut dyn Object, old: &dyn Object) {
        Strategy::prepare_for_part(self, part, typed_mut(obj), typed(old));
    }

    fn validate_part(&self, part: &str, obj: &dyn Object, old: &dyn Object, errors: &mut FieldErrors) {
        Strategy::validate_part(self, part, typed(obj), typed(old), errors);
    }

    fn warnings(&self, obj: &dyn Object, old: Option<&dyn Object>) -> Vec<String> {
        Strategy::warnings(self, typed(obj), old.map(typed))
    }

    fn allocate(
        &self,
        allocators: &Allocators,
        obj: &mut dyn Object,
        old: Option<&dyn Object>,
        reservation: &mut Reservation,
    ) -> Result<(), ApiError> {
        Strategy::allocate(self, allocators, typed_mut(obj), old.map(typed), reservation)
    }

    fn release(&self, allocators: &Allocators, obj: &dyn Object) {
        Strategy::release(self, allocators, typed(obj));
    }

    fn graceful_delete(&self, obj: &dyn Object, options: &mut DeleteOptions) -> bool {
        Strategy::graceful_delete(self, typed(obj), options)
    }

    fn counts_as_spec_change(&self, obj: &dyn Object, old: &dyn Object) -> bool {
        Strategy::counts_as_spec_change(self, typed(obj), typed(old))
    }

    fn hold(&self, obj: &mut dyn Object) -> bool {
        Strategy::hold(self, typed_mut(obj))
    }

    fn may_vanish(&self, obj: &dyn Object) -> bool {
        Strategy::may_vanish(self, typed(obj))
    }

    fn cells(&self, obj: &dyn Object, now: Timestamp) -> Vec<Value> {
        Strategy::cells(self, typed(obj), now)
    }
}
