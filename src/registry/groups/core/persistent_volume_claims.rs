//! PersistentVolumeClaims.

use k8s_openapi::api::core::v1::{
    PersistentVolumeClaim, PersistentVolumeClaimSpec, PersistentVolumeClaimStatus, TypedLocalObjectReference,
    TypedObjectReference,
};
use k8s_openapi::jiff::Timestamp;
use serde_json::Value;

use crate::api::field::{FieldError, FieldErrors, Path};
use crate::api::names;
use crate::api::quantity::Quantity;
use crate::registry::context::RequestContext;
use crate::registry::strategy::Strategy;
use crate::registry::table::{AGE, Column, NAME, age_cell, column, name_cell, or_unset, wide};
use crate::registry::validation::{each, selector};

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

const MODES: [&str; 4] = ["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];
const VOLUME_MODES: [&str; 2] = ["Block", "Filesystem"];
const IMMUTABLE_SPEC: &str = "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims";

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

/// Checks access modes.
pub fn access_modes(modes: Option<&Vec<String>>, at: &Path, errors: &mut FieldErrors) {
    let modes = modes.map(Vec::as_slice).unwrap_or_default();
    let at = at.child("accessModes");
    if modes.is_empty() {
        errors.push(FieldError::required(&at, "at least 1 access mode is required"));
    }
    for mode in modes.iter().filter(|mode| !MODES.contains(&mode.as_str())) {
        errors.push(FieldError::not_supported(&at, mode, &MODES));
    }
    if modes.len() > 1 && modes.iter().any(|mode| mode == "ReadWriteOncePod") {
        let message = "may not use ReadWriteOncePod with other access modes";
        errors.push(FieldError::forbidden(&at, message));
    }
}

/// Checks a volume mode.
pub fn volume_mode(mode: Option<&str>, at: &Path, errors: &mut FieldErrors) {
    if let Some(mode) = mode.filter(|mode| !VOLUME_MODES.contains(mode)) {
        errors.push(FieldError::not_supported(&at.child("volumeMode"), mode, &VOLUME_MODES));
    }
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

fn storage(spec: &PersistentVolumeClaimSpec) -> Option<Quantity> {
    let requests = spec.resources.as_ref().and_then(|resources| resources.requests.as_ref());
    requests.and_then(|requests| requests.get("storage")).and_then(|raw| Quantity::parse(&raw.0).ok())
}

/// Checks a claim's spec, also of one within a template.
pub fn validate_spec(spec: &PersistentVolumeClaimSpec, at: &Path, errors: &mut FieldErrors) {
    access_modes(spec.access_modes.as_ref(), at, errors);
    selector(spec.selector.as_ref(), &at.child("selector"), errors);
    let at_storage = at.child("resources").key("storage");
    match storage(spec) {
        None => errors.push(FieldError::required(&at_storage, "")),
        Some(amount) if amount.sign().is_le() => {
            errors.push(FieldError::invalid(&at_storage, amount, "must be greater than zero"));
        }
        Some(_) => {}
    }
    if let Some(class) = spec.storage_class_name.as_deref().filter(|class| !class.is_empty()) {
        each(names::is_dns1123_subdomain(class), class, &at.child("storageClassName"), errors);
    }
    volume_mode(spec.volume_mode.as_deref(), at, errors);
    if let Some(source) = &spec.data_source {
        let at = at.child("dataSource");
        crate::registry::validation::required(&source.name, &at.child("name"), errors);
        crate::registry::validation::required(&source.kind, &at.child("kind"), errors);
        let core = source.api_group.as_deref().is_none_or(str::is_empty);
        if core && source.kind != "PersistentVolumeClaim" {
            errors.push(FieldError::invalid(&at, &source.kind, ""));
        }
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
        if let Some(spec) = &claim.spec {
            validate_spec(spec, &Path::new("spec"), errors);
        }
    }

    fn validate_update(
        &self,
        new: &PersistentVolumeClaim,
        old: &PersistentVolumeClaim,
        errors: &mut FieldErrors,
    ) {
        let (Some(spec), Some(was)) = (&new.spec, &old.spec) else { return };
        let phase = new.status.as_ref().and_then(|status| status.phase.as_deref());
        let mut munged = spec.clone();
        if was.volume_name.as_deref().is_none_or(str::is_empty) {
            munged.volume_name.clone_from(&was.volume_name);
        }
        if was.storage_class_name.is_none() && phase != Some("Bound") {
            munged.storage_class_name = None;
        }
        munged.volume_attributes_class_name.clone_from(&was.volume_attributes_class_name);
        if phase == Some("Bound")
            && let (Some(new), Some(old)) = (munged.resources.as_mut(), was.resources.as_ref())
        {
            new.requests.clone_from(&old.requests);
        }
        let at = Path::new("spec");
        if munged != *was {
            errors.push(FieldError::forbidden(&at, IMMUTABLE_SPEC));
            return;
        }
        let capacity = old.status.as_ref().and_then(|status| status.capacity.as_ref());
        let capacity = capacity.and_then(|capacity| capacity.get("storage"));
        let capacity = capacity.and_then(|raw| Quantity::parse(&raw.0).ok());
        let (wanted, before) = (storage(spec), storage(was));
        if let (Some(wanted), Some(before)) = (wanted, before)
            && wanted < before
            && capacity.is_none_or(|capacity| wanted <= capacity)
        {
            let at = at.child("resources").child("requests").child("storage");
            errors.push(FieldError::forbidden(&at, "field can not be less than status.capacity"));
        }
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
