//! The rows, group by group.

mod apps;
mod autoscaling;
mod batch;
pub mod core;
mod discovery;
mod plain;
mod policy;
mod rbac;
mod reviews;

use crate::registry::resource::Resource;

/// Every built-in row, in the order of discovery.
pub fn all() -> Vec<Resource> {
    [
        core::rows(),
        apps::rows(),
        discovery::event_rows(),
        reviews::rows(),
        autoscaling::rows(),
        batch::rows(),
        plain::certificates(),
        plain::networking(),
        policy::rows(),
        rbac::rows(),
        plain::storage(),
        plain::admission(),
        plain::scheduling(),
        discovery::lease_rows(),
        plain::node(),
        discovery::slice_rows(),
        plain::flow_control(),
    ]
    .into_iter()
    .flatten()
    .collect()
}
