//! Checks of volumes.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{KeyToPath, Volume};

use crate::api::field::{FieldError, FieldErrors, Path};
use crate::api::names;
use crate::registry::groups::core::pods::defaults::source_count;
use crate::registry::validation::each;

const HOST_PATH_TYPES: [&str; 8] =
    ["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"];

/// Checks the volumes; the result is their names, which mounts may use.
pub(super) fn validate<'a>(volumes: &'a [Volume], at: &Path, errors: &mut FieldErrors) -> BTreeSet<&'a str> {
    let mut seen = BTreeSet::new();
    for (i, volume) in volumes.iter().enumerate() {
        let at = at.index(i);
        match source_count(volume) {
            0 => errors.push(FieldError::required(&at, "must specify a volume type")),
            1 => source(volume, &at, errors),
            _ => errors.push(FieldError::forbidden(&at, "may not specify more than 1 volume type")),
        }
        let at = at.child("name");
        if volume.name.is_empty() {
            errors.push(FieldError::required(&at, ""));
        } else {
            each(names::is_dns1123_label(&volume.name), &volume.name, &at, errors);
        }
        if !seen.insert(volume.name.as_str()) {
            errors.push(FieldError::duplicate(&at, &volume.name));
        }
    }
    seen
}

fn required(value: &str, at: &Path, errors: &mut FieldErrors) {
    if value.is_empty() {
        errors.push(FieldError::required(at, ""));
    }
}

fn source(volume: &Volume, at: &Path, errors: &mut FieldErrors) {
    if let Some(host) = &volume.host_path {
        let at = at.child("hostPath");
        required(&host.path, &at.child("path"), errors);
        if host.path.split('/').any(|part| part == "..") {
            errors.push(FieldError::invalid(&at.child("path"), &host.path, "must not contain '..'"));
        }
        let kind = host.type_.as_deref().unwrap_or_default();
        if !HOST_PATH_TYPES.contains(&kind) {
            errors.push(FieldError::not_supported(&at.child("type"), kind, &HOST_PATH_TYPES));
        }
    }
    if let Some(secret) = &volume.secret {
        let at = at.child("secret");
        required(secret.secret_name.as_deref().unwrap_or_default(), &at.child("secretName"), errors);
        mode(secret.default_mode, &at.child("defaultMode"), errors);
        items(secret.items.as_deref(), &at.child("items"), errors);
    }
    if let Some(map) = &volume.config_map {
        let at = at.child("configMap");
        required(&map.name, &at.child("name"), errors);
        mode(map.default_mode, &at.child("defaultMode"), errors);
        items(map.items.as_deref(), &at.child("items"), errors);
    }
    if let Some(claim) = &volume.persistent_volume_claim {
        required(&claim.claim_name, &at.child("persistentVolumeClaim").child("claimName"), errors);
    }
    if let Some(nfs) = &volume.nfs {
        required(&nfs.server, &at.child("nfs").child("server"), errors);
        required(&nfs.path, &at.child("nfs").child("path"), errors);
    }
    if let Some(csi) = &volume.csi {
        required(&csi.driver, &at.child("csi").child("driver"), errors);
    }
    projected(volume, at, errors);
}

fn projected(volume: &Volume, at: &Path, errors: &mut FieldErrors) {
    let Some(projected) = &volume.projected else { return };
    let at = at.child("projected");
    mode(projected.default_mode, &at.child("defaultMode"), errors);
    for (i, source) in projected.sources.iter().flatten().enumerate() {
        let at = at.child("sources").index(i);
        if let Some(secret) = &source.secret {
            required(&secret.name, &at.child("secret").child("name"), errors);
            items(secret.items.as_deref(), &at.child("secret").child("items"), errors);
        }
        if let Some(map) = &source.config_map {
            required(&map.name, &at.child("configMap").child("name"), errors);
            items(map.items.as_deref(), &at.child("configMap").child("items"), errors);
        }
        if let Some(token) = &source.service_account_token {
            let at = at.child("serviceAccountToken");
            if token.expiration_seconds.is_some_and(|seconds| seconds < 600) {
                let message = "may not specify a duration less than 10 minutes";
                errors.push(FieldError::invalid(
                    &at.child("expirationSeconds"),
                    token.expiration_seconds,
                    message,
                ));
            }
            required(&token.path, &at.child("path"), errors);
        }
    }
}

fn mode(mode: Option<i32>, at: &Path, errors: &mut FieldErrors) {
    if let Some(mode) = mode.filter(|mode| !(0..=0o777).contains(mode)) {
        let message = "must be a number between 0 and 0777 (octal), both inclusive";
        errors.push(FieldError::invalid(at, mode, message));
    }
}

fn items(items: Option<&[KeyToPath]>, at: &Path, errors: &mut FieldErrors) {
    for (i, item) in items.into_iter().flatten().enumerate() {
        let at = at.index(i);
        required(&item.key, &at.child("key"), errors);
        required(&item.path, &at.child("path"), errors);
        local_path(&item.path, &at.child("path"), errors);
        mode(item.mode, &at.child("mode"), errors);
    }
}

/// A path that stays where it is.
pub(super) fn local_path(path: &str, at: &Path, errors: &mut FieldErrors) {
    if path.starts_with('/') {
        errors.push(FieldError::invalid(at, path, "must be a relative path"));
    }
    if path.split('/').any(|part| part == "..") {
        errors.push(FieldError::invalid(at, path, "must not contain '..'"));
    }
}
