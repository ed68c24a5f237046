//! PersistentVolumes.

mod validate;
mod warnings;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeSpec, PersistentVolumeStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use serde_json::Value;

use super::persistent_volume_claims::access_text;
use crate::api::field::{FieldErrors, Path};
use crate::registry::context::RequestContext;
use crate::registry::strategy::Strategy;
use crate::registry::table::{AGE, Column, NAME, age_cell, column, name_cell, or_unset, wide};
use crate::registry::write::system;

/// The columns of PersistentVolumes.
pub const COLUMNS: &[Column] = &[
    NAME,
    column("Capacity", "string", "How much the volume holds."),
    column("Access Modes", "string", "How it may be mounted."),
    column("Reclaim Policy", "string", "What becomes of it when nobody claims it any more."),
    column("Status", "string", "Whether it is claimed."),
    column("Claim", "string", "Who claims it."),
    column("StorageClass", "string", "Its class."),
    column("VolumeAttributesClass", "string", "The class of its attributes."),
    column("Reason", "string", "Why it is as it is."),
    AGE,
    wide("VolumeMode", "string", "Whether it is a file system or a block device."),
];

/// The strategy of PersistentVolumes.
pub struct VolumeStrategy;

impl Strategy for VolumeStrategy {
    type Object = PersistentVolume;

    fn default(&self, volume: &mut PersistentVolume) {
        let spec = volume.spec.get_or_insert_default();
        spec.persistent_volume_reclaim_policy.get_or_insert_with(|| "Retain".into());
        spec.volume_mode.get_or_insert_with(|| "Filesystem".into());
        if let Some(path) = spec.host_path.as_mut() {
            path.type_.get_or_insert_with(String::new);
        }
        volume.status.get_or_insert_default().phase.get_or_insert_with(|| "Pending".into());
    }

    fn prepare_for_create(&self, _: &RequestContext, volume: &mut PersistentVolume) {
        volume.status = Some(PersistentVolumeStatus {
            phase: Some("Pending".into()),
            last_phase_transition_time: Some(Time(system::now().0)),
            ..Default::default()
        });
    }

    fn prepare_for_status_update(
        &self,
        _: &RequestContext,
        volume: &mut PersistentVolume,
        old: &PersistentVolume,
    ) {
        let was = old.status.clone().unwrap_or_default();
        let Some(status) = volume.status.as_mut() else { return };
        if status.phase != was.phase {
            let given = status.last_phase_transition_time.clone();
            if given.is_none() || given == was.last_phase_transition_time {
                status.last_phase_transition_time = Some(Time(system::now().0));
            }
        }
    }

    fn validate(&self, volume: &PersistentVolume, errors: &mut FieldErrors) {
        let name = volume.metadata.name.as_deref().unwrap_or_default();
        let none = PersistentVolumeSpec::default();
        validate::spec(volume.spec.as_ref().unwrap_or(&none), name, &Path::new("spec"), errors);
    }

    fn validate_update(&self, new: &PersistentVolume, old: &PersistentVolume, errors: &mut FieldErrors) {
        if let (Some(spec), Some(was)) = (&new.spec, &old.spec) {
            validate::update(spec, was, errors);
        }
    }

    fn warnings(&self, volume: &PersistentVolume, _: Option<&PersistentVolume>) -> Vec<String> {
        warnings::of(volume)
    }

    fn cells(&self, volume: &PersistentVolume, now: Timestamp) -> Vec<Value> {
        let spec = volume.spec.clone().unwrap_or_default();
        let status = volume.status.clone().unwrap_or_default();
        let phase = match volume.metadata.deletion_timestamp {
            Some(_) => "Terminating".to_owned(),
            None => status.phase.clone().unwrap_or_default(),
        };
        let claim = spec.claim_ref.as_ref().map(|claim| {
            let part = |text: &Option<String>| text.clone().unwrap_or_default();
            format!("{}/{}", part(&claim.namespace), part(&claim.name))
        });
        let size = spec.capacity.as_ref().and_then(|capacity| capacity.get("storage"));
        vec![
            name_cell(&volume.metadata),
            size.map_or("", |amount| amount.0.as_str()).into(),
            access_text(spec.access_modes.as_ref()).into(),
            spec.persistent_volume_reclaim_policy.clone().unwrap_or_default().into(),
            phase.into(),
            claim.unwrap_or_default().into(),
            spec.storage_class_name.clone().unwrap_or_default().into(),
            or_unset(spec.volume_attributes_class_name.as_ref()),
            status.reason.clone().unwrap_or_default().into(),
            age_cell(&volume.metadata, now),
            or_unset(spec.volume_mode.as_ref()),
        ]
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn volume(spec: Value) -> PersistentVolume {
        let mut object = serde_json::from_value(json!({"metadata": {"name": "v"}, "spec": spec})).unwrap();
        VolumeStrategy.default(&mut object);
        object
    }

    #[test]
    fn a_volume_has_one_source_and_keeps_it() {
        let spec = |path: &str| json!({"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"}, "hostPath": {"path": path}});
        let mut errors = FieldErrors::new();
        VolumeStrategy.validate(&volume(spec("/a")), &mut errors);
        assert!(errors.is_empty(), "{errors}");
        VolumeStrategy.validate_update(&volume(spec("/b")), &volume(spec("/a")), &mut errors);
        assert!(errors.to_string().starts_with("spec.persistentvolumesource: Forbidden"), "{errors}");
        let mut errors = FieldErrors::new();
        VolumeStrategy.validate(&volume(json!({})), &mut errors);
        let found: Vec<_> = errors.iter().map(|error| error.field.as_str()).collect();
        assert_eq!(found, ["spec.accessModes", "spec.capacity", "spec.capacity", "spec"]);
    }

    #[test]
    fn a_change_of_phase_is_dated() {
        let mut old = volume(json!({}));
        VolumeStrategy.prepare_for_create(&RequestContext::default(), &mut old);
        old.status.as_mut().unwrap().last_phase_transition_time = None;
        let mut new = old.clone();
        new.status.as_mut().unwrap().phase = Some("Bound".into());
        VolumeStrategy.prepare_for_status_update(&RequestContext::default(), &mut new, &old);
        assert!(new.status.unwrap().last_phase_transition_time.is_some());
    }
}
