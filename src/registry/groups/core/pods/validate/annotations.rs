//! Checks of the annotations that mean something to pods: mirrors, deletion cost, seccomp and AppArmor.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{AppArmorProfile, PodSpec, SeccompProfile};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::parts;
use crate::api::field::{FieldError, FieldErrors, Path};
use crate::registry::groups::core::volume_sources::descending_path;

/// Marks the mirror of a static pod.
pub(super) const MIRROR: &str = "kubernetes.io/config.mirror";
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";
const SECCOMP_POD: &str = "seccomp.security.alpha.kubernetes.io/pod";
const SECCOMP_CONTAINER: &str = "container.seccomp.security.alpha.kubernetes.io/";
const APP_ARMOR: &str = "container.apparmor.security.beta.kubernetes.io/";
const LOCALHOST: &str = "localhost/";

/// Checks annotations by themselves.
pub(super) fn check(meta: &ObjectMeta, spec: &PodSpec, at: &Path, errors: &mut FieldErrors) {
    let Some(annotations) = &meta.annotations else { return };
    if let Some(value) = annotations.get(MIRROR)
        && spec.node_name.as_deref().is_none_or(str::is_empty)
    {
        let message = "must set spec.nodeName if mirror pod annotation is set";
        errors.push(FieldError::invalid(&at.key(MIRROR), value, message));
    }
    if let Some(cost) = annotations.get(DELETION_COST).filter(|cost| !is_cost(cost)) {
        errors.push(FieldError::invalid(&at.key(DELETION_COST), cost, "must be a 32bit integer"));
    }
    for (key, profile) in annotations {
        if key == SECCOMP_POD || key.starts_with(SECCOMP_CONTAINER) {
            seccomp(profile, &at.child(key.clone()), errors);
        }
        if let Some(name) = key.strip_prefix(APP_ARMOR) {
            app_armor(name, profile, spec, &at.key(key.clone()), errors);
        }
    }
}

/// A 32 bit number without a plus sign or leading zeros.
fn is_cost(text: &str) -> bool {
    text.parse::<i32>().is_ok_and(|_| !text.starts_with('+') && (text == "0" || !text.starts_with('0')))
}

fn seccomp(profile: &str, at: &Path, errors: &mut FieldErrors) {
    match profile.strip_prefix(LOCALHOST) {
        _ if matches!(profile, "runtime/default" | "docker/default" | "unconfined") => {}
        Some(path) => descending_path(path, at, errors),
        None => errors.push(FieldError::invalid(at, profile, "must be a valid seccomp profile")),
    }
}

fn app_armor(name: &str, profile: &str, spec: &PodSpec, at: &Path, errors: &mut FieldErrors) {
    if !parts(spec, &Path::new("spec")).iter().any(|part| part.name == name) {
        errors.push(FieldError::invalid(at, name, "container not found"));
    }
    if !matches!(profile, "" | "runtime/default" | "unconfined") && !profile.starts_with(LOCALHOST) {
        let message = format!("invalid AppArmor profile name: {profile:?}");
        errors.push(FieldError::invalid(at, profile, message));
    }
}

/// Checks that annotations and the fields that took their place say the same.
pub(super) fn agree(meta: &ObjectMeta, spec: &PodSpec, at: &Path, errors: &mut FieldErrors) {
    let none = BTreeMap::new();
    let annotations = meta.annotations.as_ref().unwrap_or(&none);
    let pod = spec.security_context.as_ref();
    if let (Some(profile), Some(note)) =
        (pod.and_then(|context| context.seccomp_profile.as_ref()), annotations.get(SECCOMP_POD))
    {
        seccomp_agrees(note, profile, &at.child("securityContext").child("seccompProfile"), errors);
    }
    let parts = parts(spec, at);
    for part in &parts {
        let own = part.security.and_then(|context| context.seccomp_profile.as_ref());
        let note = annotations.get(&format!("{SECCOMP_CONTAINER}{}", part.name));
        if let (Some(profile), Some(note)) = (own, note) {
            seccomp_agrees(note, profile, &part.at.child("securityContext").child("seccompProfile"), errors);
        }
    }
    if spec.os.as_ref().is_some_and(|os| os.name == "windows") {
        return;
    }
    for part in &parts {
        let own = part.security.and_then(|context| context.app_armor_profile.as_ref());
        let profile = own.or(pod.and_then(|context| context.app_armor_profile.as_ref()));
        let note = annotations.get(&format!("{APP_ARMOR}{}", part.name));
        if let (Some(profile), Some(note)) = (profile, note) {
            let at = part.at.child("securityContext").child("appArmorProfile");
            app_armor_agrees(note, profile, &at, errors);
        }
    }
}

fn seccomp_agrees(note: &str, profile: &SeccompProfile, at: &Path, errors: &mut FieldErrors) {
    let local = note.strip_prefix(LOCALHOST);
    let same_type = match profile.type_.as_str() {
        "Unconfined" => note == "unconfined",
        "RuntimeDefault" => matches!(note, "runtime/default" | "docker/default"),
        "Localhost" => local.is_some(),
        _ => true,
    };
    if !same_type {
        let message = "seccomp type in annotation and field must match";
        errors.push(FieldError::forbidden(&at.child("type"), message));
    } else if profile.type_ == "Localhost" && local != profile.localhost_profile.as_deref() {
        let message = "seccomp profile in annotation and field must match";
        errors.push(FieldError::forbidden(&at.child("localhostProfile"), message));
    }
}

fn app_armor_agrees(note: &str, profile: &AppArmorProfile, at: &Path, errors: &mut FieldErrors) {
    let local = note.strip_prefix(LOCALHOST);
    let same_type = match profile.type_.as_str() {
        "Unconfined" => note == "unconfined",
        "RuntimeDefault" => note == "runtime/default",
        "Localhost" => local.is_some(),
        _ => true,
    };
    if !same_type {
        let message = "apparmor type in annotation and field must match";
        errors.push(FieldError::forbidden(&at.child("type"), message));
    } else if profile.type_ == "Localhost" && local != profile.localhost_profile.as_deref() {
        let message = "apparmor profile in annotation and field must match";
        errors.push(FieldError::forbidden(&at.child("localhostProfile"), message));
    }
}

/// Checks what of the annotations may change.
pub(super) fn update(new: &ObjectMeta, old: &ObjectMeta, errors: &mut FieldErrors) {
    let none = BTreeMap::new();
    let at = Path::new("metadata").child("annotations");
    let now = new.annotations.as_ref().unwrap_or(&none);
    let was = old.annotations.as_ref().unwrap_or(&none);
    for (key, value) in was {
        if now.get(key) != Some(value) {
            fixed(key, "may not remove or update", &at, errors);
        }
    }
    for key in now.keys().filter(|key| !was.contains_key(*key)) {
        fixed(key, "may not add", &at, errors);
    }
}

fn fixed(key: &str, refusal: &str, at: &Path, errors: &mut FieldErrors) {
    let what = match key {
        MIRROR => "mirror pod annotation",
        key if key.starts_with(APP_ARMOR) => "AppArmor annotations",
        _ => return,
    };
    errors.push(FieldError::forbidden(&at.key(key.to_owned()), format!("{refusal} {what}")));
}
