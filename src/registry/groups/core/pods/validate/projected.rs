//! Checks of projected volumes and of the files that other volumes make of keys and fields.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{
    DownwardAPIVolumeFile, KeyToPath, PodSpec, ProjectedVolumeSource, ServiceAccountTokenProjection,
};

use super::env;
use crate::api::field::{FieldError, FieldErrors, Path};
use crate::registry::groups::core::volume_sources::{mode, own_path};
use crate::registry::validation::required;

/// Fields that a file may show; labels and annotations wholly, or one of them.
const FIELDS: [&str; 5] =
    ["metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"];
const TWICE: &str = "conflicting duplicate paths";

pub(super) fn validate(source: &ProjectedVolumeSource, at: &Path, errors: &mut FieldErrors) {
    mode(source.default_mode, &at.child("defaultMode"), errors);
    let mut paths = BTreeSet::new();
    let mut once = |path: &str, shown: &str, errors: &mut FieldErrors| {
        if !path.is_empty() && !paths.insert(path.to_owned()) {
            errors.push(FieldError::invalid(at, shown, TWICE));
        }
    };
    for (i, projection) in source.sources.iter().flatten().enumerate() {
        let at_source = at.child("sources").index(i);
        let named = [
            ("secret", projection.secret.as_ref().map(|own| (own.name.as_str(), own.items.as_deref()))),
            (
                "configMap",
                projection.config_map.as_ref().map(|own| (own.name.as_str(), own.items.as_deref())),
            ),
        ];
        let mut count = 0;
        for (field, (name, items)) in named.into_iter().filter_map(|(field, own)| Some((field, own?))) {
            count += 1;
            let at = at_source.child(field);
            required(name, &at.child("name"), errors);
            for (i, item) in items.into_iter().flatten().enumerate() {
                key_to_path(item, &at.child("items").index(i), errors);
                once(&item.path, name, errors);
            }
        }
        if let Some(own) = &projection.downward_api {
            count += 1;
            for item in own.items.iter().flatten() {
                file(item, &at_source.child("downwardAPI"), errors);
                once(&item.path, &item.path, errors);
            }
        }
        if let Some(own) = &projection.service_account_token {
            count += 1;
            token(own, &at_source.child("serviceAccountToken"), at, errors);
        }
        if count > 1 {
            let message = "may not specify more than 1 volume type per source";
            errors.push(FieldError::forbidden(&at_source, message));
        }
    }
}

/// Upstream names the volume itself as the place of the path.
fn token(own: &ServiceAccountTokenProjection, at: &Path, volume: &Path, errors: &mut FieldErrors) {
    let at_seconds = at.child("expirationSeconds");
    let seconds = own.expiration_seconds.unwrap_or(0);
    if seconds < 600 {
        let message = "may not specify a duration less than 10 minutes";
        errors.push(FieldError::invalid(&at_seconds, seconds, message));
    }
    if seconds > 1 << 32 {
        let message = "may not specify a duration larger than 2^32 seconds";
        errors.push(FieldError::invalid(&at_seconds, seconds, message));
    }
    match own.path.as_str() {
        "" => errors.push(FieldError::required(&volume.child("path"), "")),
        path => own_path(path, &volume.child("path"), errors),
    }
}

/// The files of some keys.
pub(super) fn items(items: Option<&[KeyToPath]>, at: &Path, errors: &mut FieldErrors) {
    for (i, item) in items.into_iter().flatten().enumerate() {
        key_to_path(item, &at.index(i), errors);
    }
}

fn key_to_path(item: &KeyToPath, at: &Path, errors: &mut FieldErrors) {
    required(&item.key, &at.child("key"), errors);
    required(&item.path, &at.child("path"), errors);
    own_path(&item.path, &at.child("path"), errors);
    mode(item.mode, &at.child("mode"), errors);
}

/// A file of a field of the pod or an amount of a container.
pub(super) fn file(item: &DownwardAPIVolumeFile, at: &Path, errors: &mut FieldErrors) {
    required(&item.path, &at.child("path"), errors);
    own_path(&item.path, &at.child("path"), errors);
    match (&item.field_ref, &item.resource_field_ref) {
        (Some(field), amount) => {
            env::field(field, &FIELDS, &at.child("fieldRef"), errors);
            if amount.is_some() {
                let message = "fieldRef and resourceFieldRef can not be specified simultaneously";
                errors.push(FieldError::invalid(at, "resource", message));
            }
        }
        (None, Some(amount)) => env::amount(amount, true, &at.child("resourceFieldRef"), errors),
        (None, None) => {
            errors.push(FieldError::required(at, "one of fieldRef and resourceFieldRef is required"))
        }
    }
    mode(item.mode, &at.child("mode"), errors);
}

/// A pod without an account has no tokens of it.
pub(super) fn no_tokens(spec: &PodSpec, at: &Path, errors: &mut FieldErrors) {
    for (i, volume) in spec.volumes.iter().flatten().enumerate() {
        let sources = volume.projected.iter().flat_map(|own| own.sources.iter().flatten());
        for (j, _) in sources.enumerate().filter(|(_, source)| source.service_account_token.is_some()) {
            let at = at.index(i).child("projected").child("sources").index(j).child("serviceAccountToken");
            let message = "must not be specified when serviceAccountName is not set";
            errors.push(FieldError::forbidden(&at, message));
        }
    }
}
