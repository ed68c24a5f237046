//! `events.k8s.io`, `coordination.k8s.io` and `discovery.k8s.io`.

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::discovery::v1::EndpointSlice;

use crate::registry::resource::Resource;

/// `events.k8s.io`.
pub fn event_rows() -> Vec<Resource> {
    Vec::new()
}

/// `coordination.k8s.io`.
pub fn lease_rows() -> Vec<Resource> {
    vec![Resource::plain::<Lease>().create_on_update().conditional_only()]
}

/// `discovery.k8s.io`.
pub fn slice_rows() -> Vec<Resource> {
    vec![Resource::plain::<EndpointSlice>().generation()]
}
