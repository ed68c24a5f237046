//! VolumeAttachments.

use k8s_openapi::api::storage::v1::{VolumeAttachment, VolumeAttachmentStatus};
use k8s_openapi::jiff::Timestamp;
use serde_json::Value;

use super::classes::driver_name;
use crate::api::field::{FieldError, FieldErrors, Path};
use crate::registry::context::RequestContext;
use crate::registry::strategy::Strategy;
use crate::registry::table::{AGE, Column, NAME, age_cell, column, name_cell};
use crate::registry::validation::{IMMUTABLE, required};

/// The columns of VolumeAttachments.
pub const COLUMNS: &[Column] = &[
    NAME,
    column("Attacher", "string", "The driver."),
    column("PV", "string", "The volume."),
    column("Node", "string", "The node."),
    column("Attached", "boolean", "Whether the volume is attached."),
    AGE,
];

/// The strategy of VolumeAttachments.
pub struct AttachmentStrategy;

impl Strategy for AttachmentStrategy {
    type Object = VolumeAttachment;

    fn prepare_for_create(&self, _: &RequestContext, attachment: &mut VolumeAttachment) {
        attachment.status = Some(VolumeAttachmentStatus::default());
    }

    fn validate(&self, attachment: &VolumeAttachment, errors: &mut FieldErrors) {
        let at = Path::new("spec");
        let spec = &attachment.spec;
        driver_name(&spec.attacher, &at.child("attacher"), errors);
        let volume = spec.source.persistent_volume_name.as_deref();
        match (&spec.source.inline_volume_spec, volume) {
            (None, None) => {
                let message = "must specify exactly one of inlineVolumeSpec and persistentVolumeName";
                errors.push(FieldError::required(&at.child("source"), message));
            }
            (Some(_), Some(_)) => {
                let message = "must specify exactly one of inlineVolumeSpec and persistentVolumeName";
                errors.push(FieldError::invalid(&at.child("source"), "", message));
            }
            (None, Some(name)) => {
                required(name, &at.child("source").child("persistentVolumeName"), errors);
            }
            (Some(_), None) => {}
        }
        required(&spec.node_name, &at.child("nodeName"), errors);
    }

    fn validate_update(&self, new: &VolumeAttachment, old: &VolumeAttachment, errors: &mut FieldErrors) {
        if new.spec != old.spec {
            errors.push(FieldError::invalid(&Path::new("spec"), &new.spec, IMMUTABLE));
        }
    }

    fn cells(&self, attachment: &VolumeAttachment, now: Timestamp) -> Vec<Value> {
        let spec = &attachment.spec;
        vec![
            name_cell(&attachment.metadata),
            spec.attacher.clone().into(),
            spec.source.persistent_volume_name.clone().unwrap_or_default().into(),
            spec.node_name.clone().into(),
            attachment.status.as_ref().is_some_and(|status| status.attached).into(),
            age_cell(&attachment.metadata, now),
        ]
    }
}
