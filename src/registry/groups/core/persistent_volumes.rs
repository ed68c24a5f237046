//! PersistentVolumes.

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeSpec, PersistentVolumeStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Map, Value};

use super::persistent_volume_claims::{access_modes, access_text, volume_mode};
use crate::api::field::{FieldError, FieldErrors, Path};
use crate::api::names;
use crate::api::quantity::Quantity;
use crate::registry::context::RequestContext;
use crate::registry::strategy::Strategy;
use crate::registry::table::{AGE, Column, NAME, age_cell, column, name_cell, or_unset, wide};
use crate::registry::validation::{IMMUTABLE, each};
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

const POLICIES: [&str; 3] = ["Delete", "Recycle", "Retain"];
/// Fields of the spec that are no volume source.
const COMMON: [&str; 9] = [
    "accessModes",
    "capacity",
    "claimRef",
    "mountOptions",
    "nodeAffinity",
    "persistentVolumeReclaimPolicy",
    "storageClassName",
    "volumeAttributesClassName",
    "volumeMode",
];

/// The strategy of PersistentVolumes.
pub struct VolumeStrategy;

/// The volume sources that a spec names.
fn sources(spec: &PersistentVolumeSpec) -> Map<String, Value> {
    let Ok(Value::Object(mut fields)) = serde_json::to_value(spec) else { return Map::new() };
    fields.retain(|name, _| !COMMON.contains(&name.as_str()));
    fields
}

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
        let Some(spec) = &volume.spec else { return };
        let at = Path::new("spec");
        access_modes(spec.access_modes.as_ref(), &at, errors);
        capacity(spec, &at.child("capacity"), errors);
        match sources(spec).len() {
            0 => errors.push(FieldError::required(&at, "must specify a volume type")),
            1 => {}
            _ => errors.push(FieldError::forbidden(&at, "may not specify more than 1 volume type")),
        }
        let policy = spec.persistent_volume_reclaim_policy.as_deref().unwrap_or_default();
        if !POLICIES.contains(&policy) {
            let at = at.child("persistentVolumeReclaimPolicy");
            errors.push(FieldError::not_supported(&at, policy, &POLICIES));
        }
        source_details(spec, policy, &at, errors);
        if let Some(class) = spec.storage_class_name.as_deref().filter(|class| !class.is_empty()) {
            each(names::is_dns1123_subdomain(class), class, &at.child("storageClassName"), errors);
        }
        volume_mode(spec.volume_mode.as_deref(), &at, errors);
    }

    fn validate_update(&self, new: &PersistentVolume, old: &PersistentVolume, errors: &mut FieldErrors) {
        let (Some(spec), Some(was)) = (&new.spec, &old.spec) else { return };
        let at = Path::new("spec");
        if sources(spec) != sources(was) {
            let message = "spec.persistentvolumesource is immutable after creation";
            errors.push(FieldError::forbidden(&at.child("persistentvolumesource"), message));
        }
        if spec.volume_mode != was.volume_mode {
            errors.push(FieldError::invalid(&at.child("volumeMode"), &spec.volume_mode, IMMUTABLE));
        }
        if was.node_affinity.is_some() && spec.node_affinity.is_none() {
            let at = at.child("nodeAffinity");
            errors.push(FieldError::invalid(&at, &spec.node_affinity, IMMUTABLE));
        }
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

fn capacity(spec: &PersistentVolumeSpec, at: &Path, errors: &mut FieldErrors) {
    let capacity = spec.capacity.clone().unwrap_or_default();
    if capacity.is_empty() {
        errors.push(FieldError::required(at, ""));
    } else if !capacity.contains_key("storage") || capacity.len() > 1 {
        errors.push(FieldError::not_supported(at, &capacity, &["storage"]));
    }
    for (name, raw) in &capacity {
        if Quantity::parse(&raw.0).is_ok_and(|amount| amount.sign().is_le()) {
            errors.push(FieldError::invalid(&at.key(name.clone()), &raw.0, "must be greater than zero"));
        }
    }
}

fn source_details(spec: &PersistentVolumeSpec, policy: &str, at: &Path, errors: &mut FieldErrors) {
    if let Some(host) = &spec.host_path {
        let at_path = at.child("hostPath").child("path");
        if host.path.is_empty() {
            errors.push(FieldError::required(&at_path, ""));
        } else if host.path.split('/').any(|part| part == "..") {
            errors.push(FieldError::invalid(&at_path, &host.path, "must not contain '..'"));
        }
        if policy == "Recycle" && host.path.trim_end_matches('/').is_empty() {
            let message = "may not be 'recycle' for a hostPath mount of '/'";
            errors.push(FieldError::forbidden(&at.child("persistentVolumeReclaimPolicy"), message));
        }
    }
    if let Some(local) = &spec.local {
        if local.path.is_empty() {
            errors.push(FieldError::required(&at.child("local").child("path"), ""));
        }
        if spec.node_affinity.is_none() {
            errors
                .push(FieldError::required(&at.child("nodeAffinity"), "Local volume requires node affinity"));
        }
    }
    if let Some(csi) = &spec.csi {
        crate::registry::validation::required(&csi.driver, &at.child("csi").child("driver"), errors);
        let at = at.child("csi").child("volumeHandle");
        crate::registry::validation::required(&csi.volume_handle, &at, errors);
    }
    if let Some(nfs) = &spec.nfs {
        crate::registry::validation::required(&nfs.server, &at.child("nfs").child("server"), errors);
        if !nfs.path.starts_with('/') {
            let at = at.child("nfs").child("path");
            errors.push(FieldError::invalid(&at, &nfs.path, "must be an absolute path"));
        }
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
        assert_eq!(found, ["spec.accessModes", "spec.capacity", "spec"]);
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
