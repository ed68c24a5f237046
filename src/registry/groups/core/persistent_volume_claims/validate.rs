//! What a claim may say, and what of it may change.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, PersistentVolumeClaimSpec};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as RawQuantity;

use crate::api::field::{FieldError, FieldErrors, Path};
use crate::api::names;
use crate::api::quantity::Quantity;
use crate::registry::validation::{IMMUTABLE, each, known, required, selector};

const MODES: [&str; 4] = ["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];
const VOLUME_MODES: [&str; 2] = ["Block", "Filesystem"];
const RESIZE_STATUSES: [&str; 5] = [
    "ControllerResizeInProgress",
    "ControllerResizeInfeasible",
    "NodeResizeInProgress",
    "NodeResizeInfeasible",
    "NodeResizePending",
];
const IMMUTABLE_SPEC: &str = "spec is immutable after creation except resources.requests and \
                              volumeAttributesClassName for bound claims\n";
const NOT_POSITIVE: &str = "must be greater than zero";

/// The annotation that named a class before there was a field.
pub(super) const BETA_CLASS: &str = "volume.beta.kubernetes.io/storage-class";

/// Checks access modes; `missing` explains why there must be one.
pub fn access_modes(modes: Option<&Vec<String>>, missing: &str, at: &Path, errors: &mut FieldErrors) {
    let modes = modes.map(Vec::as_slice).unwrap_or_default();
    let at = at.child("accessModes");
    if modes.is_empty() {
        errors.push(FieldError::required(&at, missing));
    }
    modes.iter().for_each(|mode| known(Some(mode), &MODES, &at, errors));
    let single = |mode: &&String| mode.as_str() == "ReadWriteOncePod";
    let shared = |mode: &String| mode != "ReadWriteOncePod" && MODES.contains(&mode.as_str());
    if modes.iter().any(|mode| single(&mode)) && modes.iter().any(shared) {
        let message = "may not use ReadWriteOncePod with other access modes";
        errors.push(FieldError::forbidden(&at, message));
    }
}

/// Checks a volume mode.
pub fn volume_mode(mode: Option<&str>, at: &Path, errors: &mut FieldErrors) {
    known(mode, &VOLUME_MODES, &at.child("volumeMode"), errors);
}

fn storage(amounts: Option<&BTreeMap<String, RawQuantity>>) -> Option<Quantity> {
    amounts?.get("storage").and_then(|raw| Quantity::parse(&raw.0).ok())
}

fn requested(spec: &PersistentVolumeClaimSpec) -> Option<Quantity> {
    storage(spec.resources.as_ref()?.requests.as_ref())
}

/// Checks a claim's spec, also of one within a template.
pub fn spec(spec: &PersistentVolumeClaimSpec, at: &Path, errors: &mut FieldErrors) {
    access_modes(spec.access_modes.as_ref(), "at least 1 access mode is required", at, errors);
    selector(spec.selector.as_ref(), &at.child("selector"), errors);
    let at_storage = at.child("resources").key("storage");
    match requested(spec) {
        None => errors.push(FieldError::required(&at_storage, "")),
        Some(amount) if amount.sign().is_le() => {
            errors.push(FieldError::invalid(&at_storage, amount, NOT_POSITIVE));
        }
        Some(_) => {}
    }
    let classes = [
        ("storageClassName", &spec.storage_class_name),
        ("volumeAttributesClassName", &spec.volume_attributes_class_name),
    ];
    if let Some(class) = classes[0].1.as_deref().filter(|class| !class.is_empty()) {
        each(names::is_dns1123_subdomain(class), class, &at.child(classes[0].0), errors);
    }
    volume_mode(spec.volume_mode.as_deref(), at, errors);
    sources(spec, at, errors);
    if let Some(class) = classes[1].1.as_deref().filter(|class| !class.is_empty()) {
        each(names::is_dns1123_subdomain(class), class, &at.child(classes[1].0), errors);
    }
}

fn sources(spec: &PersistentVolumeClaimSpec, at: &Path, errors: &mut FieldErrors) {
    if let Some(source) = &spec.data_source {
        let group = source.api_group.as_deref();
        source_named(group, &source.kind, &source.name, &at.child("dataSource"), errors);
    }
    let Some(reference) = &spec.data_source_ref else { return };
    let at_ref = at.child("dataSourceRef");
    source_named(reference.api_group.as_deref(), &reference.kind, &reference.name, &at_ref, errors);
    let namespace = reference.namespace.as_deref().filter(|namespace| !namespace.is_empty());
    if let Some(namespace) = namespace {
        each(names::is_dns1123_label(namespace), namespace, &at_ref.child("namespace"), errors);
    }
    let Some(source) = &spec.data_source else { return };
    let same = (&source.api_group, &source.kind, &source.name)
        == (&reference.api_group, &reference.kind, &reference.name);
    let message = match namespace {
        Some(_) => "may not be specified when dataSourceRef.namespace is specified",
        None if !same => "must match dataSourceRef",
        None => return,
    };
    errors.push(FieldError::invalid(at, at.child("dataSource").to_string(), message));
}

fn source_named(group: Option<&str>, kind: &str, name: &str, at: &Path, errors: &mut FieldErrors) {
    required(name, &at.child("name"), errors);
    required(kind, &at.child("kind"), errors);
    let group = group.unwrap_or_default();
    if group.is_empty() && kind != "PersistentVolumeClaim" {
        let message = "must be 'PersistentVolumeClaim' when referencing the default apiGroup";
        errors.push(FieldError::invalid(at, kind, message));
    }
    if !group.is_empty() {
        each(names::is_dns1123_subdomain(group), group, &at.child("apiGroup"), errors);
    }
}

/// Warnings about a claim's spec, also of one within a template.
pub fn spec_warnings(spec: &PersistentVolumeClaimSpec, at: &Path) -> Vec<String> {
    let resources = spec.resources.as_ref();
    let amounts = [
        ("requests", resources.and_then(|resources| resources.requests.as_ref())),
        ("limits", resources.and_then(|resources| resources.limits.as_ref())),
    ];
    let mut warnings = Vec::new();
    for (field, amounts) in amounts {
        let Some(raw) = amounts.and_then(|amounts| amounts.get("storage")) else { continue };
        let Ok(amount) = Quantity::parse(&raw.0) else { continue };
        if amount.milli_value() % 1000 != 0 {
            let at = at.child("resources").child(field).key("storage");
            warnings.push(format!(
                "{at}: fractional byte value {:?} is invalid, must be an integer",
                amount.to_string()
            ));
        }
    }
    warnings
}

/// Checks a change of a claim: it may be bound once, and then grow.
pub(super) fn update(new: &PersistentVolumeClaim, old: &PersistentVolumeClaim, errors: &mut FieldErrors) {
    let (Some(spec), Some(was)) = (&new.spec, &old.spec) else { return };
    let bound = new.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Bound");
    let (mut now, mut before) = (spec.clone(), was.clone());
    if was.volume_name.as_deref().is_none_or(str::is_empty) {
        before.volume_name.clone_from(&spec.volume_name);
    }
    class_change(new, old, &mut now, errors);
    if bound && let Some(requests) = now.resources.as_mut().and_then(|own| own.requests.as_mut()) {
        let own = was.resources.as_ref().and_then(|own| own.requests.as_ref());
        match own.and_then(|requests| requests.get("storage")) {
            Some(amount) => requests.insert("storage".into(), amount.clone()),
            None => requests.remove("storage"),
        };
    }
    if bound && now.volume_attributes_class_name.is_some() {
        now.volume_attributes_class_name.clone_from(&was.volume_attributes_class_name);
    }
    let at = Path::new("spec");
    if now != before {
        errors.push(FieldError::forbidden(&at, IMMUTABLE_SPEC));
    }
    let capacity = storage(old.status.as_ref().and_then(|status| status.capacity.as_ref()));
    let capacity = capacity.unwrap_or_else(|| Quantity::new(0, crate::api::quantity::Format::BinarySi));
    if let (Some(size), Some(size_was)) = (requested(spec), requested(was))
        && size < size_was
        && size <= capacity
    {
        let at = at.child("resources").child("requests").child("storage");
        errors.push(FieldError::forbidden(&at, "field can not be less than status.capacity"));
    }
    if spec.volume_mode != was.volume_mode {
        errors.push(FieldError::invalid(&Path::new("volumeMode"), &spec.volume_mode, IMMUTABLE));
    }
    let at = at.child("volumeAttributesClassName");
    match (&spec.volume_attributes_class_name, &was.volume_attributes_class_name) {
        (None, Some(_)) => {
            errors.push(FieldError::forbidden(&at, "update from non-nil value to nil is forbidden"));
        }
        (Some(class), Some(_)) if class.is_empty() => {
            let message = "update from non-nil value to an empty string is forbidden";
            errors.push(FieldError::forbidden(&at, message));
        }
        _ => {}
    }
}

/// A class may be named where none was, and move from the annotation to the field.
fn class_change(
    new: &PersistentVolumeClaim,
    old: &PersistentVolumeClaim,
    now: &mut PersistentVolumeClaimSpec,
    errors: &mut FieldErrors,
) {
    let annotation = |claim: &PersistentVolumeClaim| {
        claim.metadata.annotations.as_ref().and_then(|own| own.get(BETA_CLASS)).cloned()
    };
    let (noted, was_noted) = (annotation(new), annotation(old));
    let was = old.spec.as_ref().and_then(|spec| spec.storage_class_name.as_ref());
    let named = now.storage_class_name.clone();
    let moves =
        was_noted.is_some() && was.is_none() && named == was_noted && (noted.is_none() || noted == was_noted);
    if moves {
        now.storage_class_name = None;
        return;
    }
    if noted != was_noted {
        let at = Path::new("metadata").child("annotations").child(BETA_CLASS);
        errors.push(FieldError::invalid(&at, noted.unwrap_or_default(), IMMUTABLE));
    }
    if named.is_some() && was.is_none() && (was_noted.is_none() || named == was_noted) {
        now.storage_class_name = None;
    }
}

fn resource_key(name: &str, at: &Path, errors: &mut FieldErrors) -> bool {
    let messages = names::is_qualified_name(name);
    let native = !name.contains('/') || name.contains("kubernetes.io/");
    let fine = messages.is_empty() && (!native || name == "storage");
    if messages.is_empty() && !fine {
        errors.push(FieldError::not_supported(at, name, &["storage"]));
    }
    each(messages, name, at, errors);
    fine
}

fn not_negative(raw: &RawQuantity, at: &Path, errors: &mut FieldErrors) {
    if let Some(amount) = Quantity::parse(&raw.0).ok().filter(|amount| amount.value() < 0) {
        errors.push(FieldError::invalid(at, amount.value(), "must be a valid resource quantity"));
    }
}

/// Checks the status of a claim.
pub(super) fn status(claim: &PersistentVolumeClaim, errors: &mut FieldErrors) {
    if claim.spec.as_ref().is_none_or(|spec| spec.access_modes.as_ref().is_none_or(Vec::is_empty)) {
        errors.push(FieldError::required(&Path::new("Spec").child("accessModes"), ""));
    }
    let Some(status) = &claim.status else { return };
    let at = Path::new("status");
    for (name, raw) in status.capacity.iter().flatten() {
        not_negative(raw, &at.child("capacity").key(name.clone()), errors);
    }
    let at_resize = at.child("allocatedResourceStatus");
    for (name, phase) in status.allocated_resource_statuses.iter().flatten() {
        resource_key(name, &at_resize, errors);
        if !RESIZE_STATUSES.contains(&phase.as_str()) {
            errors.push(FieldError::not_supported(&at_resize, name, &RESIZE_STATUSES));
        }
    }
    let at = at.child("allocatedResources");
    for (name, raw) in status.allocated_resources.iter().flatten() {
        if resource_key(name, &at, errors) {
            not_negative(raw, &at.key(name.clone()), errors);
        }
    }
}
