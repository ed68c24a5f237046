//! PersistentVolumeClaims.

mod validate;

use k8s_openapi::api::core::v1::{
    PersistentVolumeClaim, PersistentVolumeClaimSpec, PersistentVolumeClaimStatus, TypedLocalObjectReference,
    TypedObjectReference,
};
use k8s_openapi::jiff::Timestamp;
use serde_json::Value;

use crate::api::field::{FieldErrors, Path};
use crate::registry::context::RequestContext;
use crate::registry::strategy::Strategy;
use crate::registry::table::{AGE, Column, NAME, age_cell, column, name_cell, or_unset, wide};

pub use validate::{access_modes, spec as validate_spec, spec_warnings, volume_mode};

/// The columns of PersistentVolumeClaims.
pub const COLUMNS: &[Column] = &[
    NAME,
    column("Status", "string", "Whether a volume is bound."),
    column("Volume", "string", "The volume."),
    column("Capacity", "string", "How much it holds."),
    column("Access Modes", "string", "How it may be mounted."),
    column("StorageClass", "string", "The class of the volume."),
    column("VolumeAttributesClass", "string", "The class of its attributes."),
    AGE,
    wide("VolumeMode", "string", "Whether it is a file system or a block device."),
];

/// The strategy of PersistentVolumeClaims.
pub struct ClaimStrategy;

/// Access modes in short: `RWO,ROX`.
pub fn access_text(modes: Option<&Vec<String>>) -> String {
    let short = [
        ("ReadWriteOnce", "RWO"),
        ("ReadOnlyMany", "ROX"),
        ("ReadWriteMany", "RWX"),
        ("ReadWriteOncePod", "RWOP"),
    ];
    let has = |mode: &str| modes.is_some_and(|modes| modes.iter().any(|own| own == mode));
    let shown: Vec<&str> = short.iter().filter(|(mode, _)| has(mode)).map(|(_, text)| *text).collect();
    shown.join(",")
}

/// Defaults of a claim's spec, also of one within a template.
pub fn default_spec(spec: &mut PersistentVolumeClaimSpec) {
    spec.volume_mode.get_or_insert_with(|| "Filesystem".into());
    match (&spec.data_source, &spec.data_source_ref) {
        (Some(source), None) => {
            spec.data_source_ref = Some(TypedObjectReference {
                api_group: source.api_group.clone(),
                kind: source.kind.clone(),
                name: source.name.clone(),
                namespace: None,
            });
        }
        (None, Some(source)) if source.namespace.as_deref().is_none_or(str::is_empty) => {
            spec.data_source = Some(TypedLocalObjectReference {
                api_group: source.api_group.clone(),
                kind: source.kind.clone(),
                name: source.name.clone(),
            });
        }
        _ => {}
    }
}

impl Strategy for ClaimStrategy {
    type Object = PersistentVolumeClaim;

    fn default(&self, claim: &mut PersistentVolumeClaim) {
        default_spec(claim.spec.get_or_insert_default());
        claim.status.get_or_insert_default().phase.get_or_insert_with(|| "Pending".into());
    }

    fn prepare_for_create(&self, _: &RequestContext, claim: &mut PersistentVolumeClaim) {
        claim.status =
            Some(PersistentVolumeClaimStatus { phase: Some("Pending".into()), ..Default::default() });
    }

    fn validate(&self, claim: &PersistentVolumeClaim, errors: &mut FieldErrors) {
        let none = PersistentVolumeClaimSpec::default();
        validate_spec(claim.spec.as_ref().unwrap_or(&none), &Path::new("spec"), errors);
    }

    fn validate_update(
        &self,
        new: &PersistentVolumeClaim,
        old: &PersistentVolumeClaim,
        errors: &mut FieldErrors,
    ) {
        validate::update(new, old, errors);
    }

    fn validate_status_update(
        &self,
        new: &PersistentVolumeClaim,
        _: &PersistentVolumeClaim,
        errors: &mut FieldErrors,
    ) {
        validate::status(new, errors);
    }

    fn warnings(&self, claim: &PersistentVolumeClaim, _: Option<&PersistentVolumeClaim>) -> Vec<String> {
        let at = Path::new("spec");
        let mut warnings: Vec<String> = claim.spec.iter().flat_map(|spec| spec_warnings(spec, &at)).collect();
        let beta = |(key, _): (&String, &String)| key == validate::BETA_CLASS;
        if claim.metadata.annotations.iter().flatten().any(beta) {
            let key = validate::BETA_CLASS;
            warnings.push(format!(
                "metadata.annotations[{key}]: deprecated since v1.8; use \"storageClassName\" attribute instead"
            ));
        }
        warnings
    }

    fn cells(&self, claim: &PersistentVolumeClaim, now: Timestamp) -> Vec<Value> {
        let spec = claim.spec.clone().unwrap_or_default();
        let status = claim.status.clone().unwrap_or_default();
        let phase = match claim.metadata.deletion_timestamp {
            Some(_) => "Terminating".to_owned(),
            None => status.phase.clone().unwrap_or_default(),
        };
        let bound = spec.volume_name.as_ref().is_some_and(|name| !name.is_empty());
        let capacity =
            status.capacity.as_ref().and_then(|capacity| capacity.get("storage")).filter(|_| bound);
        vec![
            name_cell(&claim.metadata),
            phase.into(),
            spec.volume_name.clone().unwrap_or_default().into(),
            capacity.map_or("", |amount| amount.0.as_str()).into(),
            access_text(status.access_modes.as_ref().filter(|_| bound)).into(),
            spec.storage_class_name.clone().unwrap_or_default().into(),
            or_unset(spec.volume_attributes_class_name.as_ref()),
            age_cell(&claim.metadata, now),
            or_unset(spec.volume_mode.as_ref()),
        ]
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn claim(size: &str, phase: &str) -> PersistentVolumeClaim {
        serde_json::from_value(json!({"metadata": {"name": "c"}, "spec": {"accessModes": ["ReadWriteOnce"],
            "volumeName": "v", "resources": {"requests": {"storage": size}}},
            "status": {"phase": phase, "capacity": {"storage": "1Gi"}}}))
        .unwrap()
    }

    fn problems(new: &PersistentVolumeClaim, old: &PersistentVolumeClaim) -> Vec<String> {
        let mut errors = FieldErrors::new();
        ClaimStrategy.validate_update(new, old, &mut errors);
        errors.iter().map(|error| error.field.clone()).collect()
    }

    #[test]
    fn bound_claims_may_grow_and_nothing_else() {
        assert!(problems(&claim("2Gi", "Bound"), &claim("1Gi", "Bound")).is_empty());
        assert_eq!(problems(&claim("2Gi", "Pending"), &claim("1Gi", "Pending")), ["spec"]);
        let shrunk = problems(&claim("512Mi", "Bound"), &claim("1Gi", "Bound"));
        assert_eq!(shrunk, ["spec.resources.requests.storage"]);
        let mut other = claim("1Gi", "Bound");
        other.spec.as_mut().unwrap().volume_name = Some("w".into());
        assert_eq!(problems(&other, &claim("1Gi", "Bound")), ["spec"]);
    }

    #[test]
    fn claims_say_how_much_and_how() {
        let empty: PersistentVolumeClaim = serde_json::from_value(json!({"spec": {}})).unwrap();
        let mut errors = FieldErrors::new();
        ClaimStrategy.validate(&empty, &mut errors);
        let found: Vec<_> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(
            found,
            [
                "spec.accessModes: Required value: at least 1 access mode is required",
                "spec.resources[storage]: Required value"
            ]
        );
        let modes = vec!["ReadWriteOncePod".to_owned(), "ReadWriteMany".into()];
        assert_eq!(access_text(Some(&modes)), "RWX,RWOP");
    }
}
