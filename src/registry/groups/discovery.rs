//! `events.k8s.io`, `coordination.k8s.io` and `discovery.k8s.io`.

mod endpoint_slices;
mod leases;

use crate::registry::groups::core::events::{self, EventForms, NewEventStrategy};
use crate::registry::groups::core::{EVENT_TTL, fields};
use crate::registry::resource::Resource;

/// `events.k8s.io`.
pub fn event_rows() -> Vec<Resource> {
    vec![
        Resource::of(NewEventStrategy)
            .short(&["ev"])
            .ttl(EVENT_TTL)
            .columns(events::COLUMNS)
            .selectable(fields::NEW_EVENT)
            .stored_as(&EventForms, "/registry/events/")
            .create_on_update(),
    ]
}

/// `coordination.k8s.io`.
pub fn lease_rows() -> Vec<Resource> {
    vec![Resource::of(leases::LeaseStrategy).columns(leases::COLUMNS).create_on_update().conditional_only()]
}

/// `discovery.k8s.io`.
pub fn slice_rows() -> Vec<Resource> {
    vec![Resource::of(endpoint_slices::EndpointSliceStrategy).columns(endpoint_slices::COLUMNS).generation()]
}
