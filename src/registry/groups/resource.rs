//! `resource.k8s.io`: devices, their classes, and claims on them.

mod checks;
mod claims;
mod classes;
mod devices;
mod slices;

use crate::registry::resource::{Resource, STATUS, SelectableField};

const SLICE_FIELDS: &[SelectableField] = &[
    SelectableField { label: "spec.nodeName", path: &["spec", "nodeName"], absent: "" },
    SelectableField { label: "spec.driver", path: &["spec", "driver"], absent: "" },
];

/// The rows.
pub fn rows() -> Vec<Resource> {
    vec![
        Resource::of(classes::DeviceClassStrategy).columns(classes::COLUMNS).generation(),
        Resource::of(claims::ClaimStrategy).columns(claims::COLUMNS).with(STATUS).returns_deleted(),
        Resource::of(claims::TemplateStrategy).columns(claims::TEMPLATE_COLUMNS),
        Resource::of(slices::SliceStrategy).columns(slices::COLUMNS).generation().selectable(SLICE_FIELDS),
    ]
}
