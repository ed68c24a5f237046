//! The rows, group by group.

mod apiregistration;
mod apps;
mod autoscaling;
mod batch;
pub mod core;
mod discovery;
mod networking;
mod plain;
mod policy;
mod rbac;
mod resource;
mod reviews;
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
        plain::certificates(),
        networking::rows(),
        policy::rows(),
        rbac::rows(),
        storage::rows(),
        plain::admission(),
        plain::scheduling(),
        discovery::lease_rows(),
        plain::node(),
        discovery::slice_rows(),
        resource::rows(),
        plain::flow_control(),
    ]
    .into_iter()
    .flatten()
    .collect()
}
