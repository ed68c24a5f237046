//! The rows, group by group.

mod admissionregistration;
mod apiextensions;
mod apiregistration;
mod apps;
mod autoscaling;
mod batch;
mod certificates;
pub mod core;
mod discovery;
mod flow_control;
pub mod networking;
mod node;
mod policy;
mod rbac;
mod resource;
mod reviews;
mod scheduling;
pub mod storage;

use crate::registry::resource::Resource;

pub use apiregistration::priorities;

/// Every built-in row, in the order of discovery.
pub fn all() -> Vec<Resource> {
    [
        core::rows(),
        apiregistration::rows(),
        apps::rows(),
        discovery::event_rows(),
        reviews::rows(),
        autoscaling::rows(),
        batch::rows(),
        certificates::rows(),
        networking::rows(),
        policy::rows(),
        rbac::rows(),
        storage::rows(),
        admissionregistration::rows(),
        apiextensions::rows(),
        scheduling::rows(),
        discovery::lease_rows(),
        node::rows(),
        discovery::slice_rows(),
        resource::rows(),
        flow_control::rows(),
    ]
    .into_iter()
    .flatten()
    .collect()
}
