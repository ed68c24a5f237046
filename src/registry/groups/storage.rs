//! `storage.k8s.io`.

mod attachments;
mod attributes;
mod capacities;
pub mod classes;
mod drivers;
mod nodes;

use crate::registry::resource::{Resource, STATUS};

/// The rows.
pub fn rows() -> Vec<Resource> {
    vec![
        Resource::of(drivers::CsiDriverStrategy)
            .columns(drivers::COLUMNS)
            .generation()
            .returns_deleted()
            .conditional_only(),
        Resource::of(nodes::CsiNodeStrategy).columns(nodes::COLUMNS).returns_deleted().conditional_only(),
        Resource::of(capacities::CapacityStrategy)
            .columns(capacities::COLUMNS)
            .returns_deleted()
            .conditional_only(),
        Resource::of(classes::StorageClassStrategy)
            .columns(classes::COLUMNS)
            .short(&["sc"])
            .returns_deleted(),
        Resource::of(attachments::AttachmentStrategy)
            .columns(attachments::COLUMNS)
            .with(STATUS)
            .returns_deleted()
            .conditional_only(),
        Resource::of(attributes::AttributesClassStrategy)
            .columns(attributes::COLUMNS)
            .short(&["vac"])
            .returns_deleted(),
    ]
}
