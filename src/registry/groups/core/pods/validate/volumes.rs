//! Checks of a pod's volumes.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{ISCSIVolumeSource, PersistentVolumeClaimTemplate, Volume};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::{containers, projected};
use crate::api::field::{FieldError, FieldErrors, Path};
use crate::api::names;
use crate::api::quantity::Quantity;
use crate::registry::groups::core::persistent_volume_claims;
use crate::registry::groups::core::volume_sources as sources;
use crate::registry::validation::{each, metadata, required, text};

const ONE_TYPE: &str = "may not specify more than 1 volume type";

/// Checks the volumes; the result is those that are right, which mounts may use. `pod` is the pod's name.
pub(super) fn validate<'a>(
    volumes: &'a [Volume],
    pod: Option<&str>,
    at: &Path,
    errors: &mut FieldErrors,
) -> Vec<&'a Volume> {
    let own_claims: BTreeSet<String> = volumes
        .iter()
        .filter(|volume| volume.ephemeral.is_some())
        .filter_map(|volume| Some(format!("{}-{}", pod?, volume.name)))
        .collect();
    let mut seen = BTreeSet::new();
    let mut fine = Vec::new();
    for (i, volume) in volumes.iter().enumerate() {
        let at = at.index(i);
        let mut own = FieldErrors::new();
        source(volume, pod, &at, &mut own);
        match volume.name.as_str() {
            "" => own.push(FieldError::required(&at.child("name"), "")),
            name => each(names::is_dns1123_label(name), name, &at.child("name"), &mut own),
        }
        if seen.contains(volume.name.as_str()) {
            own.push(FieldError::duplicate(&at.child("name"), &volume.name));
        }
        if own.is_empty() {
            seen.insert(volume.name.as_str());
            fine.push(volume);
        }
        errors.extend(own);
        let claim = volume.persistent_volume_claim.as_ref().map(|claim| &claim.claim_name);
        if let Some(claim) = claim.filter(|claim| own_claims.contains(*claim)) {
            let at = at.child("persistentVolumeClaim").child("claimName");
            let message = "must not reference a PVC that gets created for an ephemeral volume";
            errors.push(FieldError::invalid(&at, claim, message));
        }
    }
    fine
}

type Check<'a> = Box<dyn Fn(&Path, &mut FieldErrors) + 'a>;

/// The name of a source when it is one too many, its place otherwise, and its check.
fn check<'a, T>(
    source: &'a Option<T>,
    extra: &'static str,
    field: &'static str,
    check: impl Fn(&'a T, &Path, &mut FieldErrors) + 'a,
) -> Option<(&'static str, &'static str, Check<'a>)> {
    let source = source.as_ref()?;
    Some((extra, field, Box::new(move |at, errors| check(source, at, errors))))
}

/// Checks the first source, in upstream's order, and refuses all others.
fn source(volume: &Volume, pod: Option<&str>, at: &Path, errors: &mut FieldErrors) {
    let v = volume;
    let checks: [_; 30] = [
        check(&v.empty_dir, "emptyDir", "emptyDir", |s, at, errors| {
            let size = s.size_limit.as_ref().and_then(|raw| Quantity::parse(&raw.0).ok());
            if size.is_some_and(|size| size.sign().is_lt()) {
                let message = "SizeLimit field must be a valid resource quantity";
                errors.push(FieldError::forbidden(&at.child("sizeLimit"), message));
            }
        }),
        check(&v.host_path, "hostPath", "hostPath", sources::host_path),
        check(&v.git_repo, "gitRepo", "gitRepo", |s, at, errors| {
            required(&s.repository, &at.child("repository"), errors);
            sources::descending_path(text(&s.directory), &at.child("directory"), errors);
        }),
        check(&v.gce_persistent_disk, "gcePersistentDisk", "persistentDisk", |s, at, errors| {
            sources::partitioned("pdName", &s.pd_name, s.partition, at, errors);
        }),
        check(&v.aws_elastic_block_store, "awsElasticBlockStore", "awsElasticBlockStore", |s, at, errors| {
            sources::partitioned("volumeID", &s.volume_id, s.partition, at, errors);
        }),
        check(&v.secret, "secret", "secret", |s, at, errors| {
            required(text(&s.secret_name), &at.child("secretName"), errors);
            sources::mode(s.default_mode, &at.child("defaultMode"), errors);
            projected::items(s.items.as_deref(), &at.child("items"), errors);
        }),
        check(&v.nfs, "nfs", "nfs", sources::nfs),
        check(&v.iscsi, "iscsi", "iscsi", |s, at, errors| {
            sources::iscsi(&iscsi(s, &v.name), at, errors);
        }),
        check(&v.glusterfs, "glusterfs", "glusterfs", |s, at, errors| {
            sources::all_required(&[("endpoints", &s.endpoints), ("path", &s.path)], at, errors);
        }),
        check(&v.flocker, "flocker", "flocker", sources::flocker),
        check(
            &v.persistent_volume_claim,
            "persistentVolumeClaim",
            "persistentVolumeClaim",
            |s, at, errors| {
                required(&s.claim_name, &at.child("claimName"), errors);
            },
        ),
        check(&v.rbd, "rbd", "rbd", |s, at, errors| {
            sources::ceph(&s.monitors, Some(&s.image), at, errors);
        }),
        check(&v.cinder, "cinder", "cinder", |s, at, errors| {
            required(&s.volume_id, &at.child("volumeID"), errors);
            if let Some(secret) = &s.secret_ref {
                required(&secret.name, &at.child("secretRef").child("name"), errors);
            }
        }),
        check(&v.cephfs, "cephFS", "cephfs", |s, at, errors| {
            sources::ceph(&s.monitors, None, at, errors);
        }),
        check(&v.quobyte, "quobyte", "quobyte", sources::quobyte),
        check(&v.downward_api, "downwarAPI", "downwardAPI", |s, at, errors| {
            sources::mode(s.default_mode, &at.child("defaultMode"), errors);
            s.items.iter().flatten().for_each(|item| projected::file(item, at, errors));
        }),
        check(&v.fc, "fc", "fc", sources::fibre_channel),
        check(&v.flex_volume, "flexVolume", "flexVolume", |s, at, errors| {
            sources::flex(&s.driver, s.options.as_ref(), at, errors);
        }),
        check(&v.config_map, "configMap", "configMap", |s, at, errors| {
            required(&s.name, &at.child("name"), errors);
            sources::mode(s.default_mode, &at.child("defaultMode"), errors);
            projected::items(s.items.as_deref(), &at.child("items"), errors);
        }),
        check(&v.azure_file, "azureFile", "azureFile", |s, at, errors| {
            sources::azure_file(&s.secret_name, &s.share_name, None, at, errors);
        }),
        check(&v.vsphere_volume, "vsphereVolume", "vsphereVolume", |s, at, errors| {
            required(&s.volume_path, &at.child("volumePath"), errors);
        }),
        check(&v.photon_persistent_disk, "photonPersistentDisk", "photonPersistentDisk", |s, at, errors| {
            required(&s.pd_id, &at.child("pdID"), errors);
        }),
        check(&v.portworx_volume, "portworxVolume", "portworxVolume", |s, at, errors| {
            required(&s.volume_id, &at.child("volumeID"), errors);
        }),
        check(&v.azure_disk, "azureDisk", "azureDisk", sources::azure_disk),
        check(&v.storageos, "storageos", "storageos", |s, at, errors| {
            let secret: Vec<_> = s.secret_ref.iter().map(|secret| ("name", secret.name.as_str())).collect();
            sources::storage_os(text(&s.volume_name), text(&s.volume_namespace), &secret, at, errors);
        }),
        check(&v.projected, "projected", "projected", projected::validate),
        check(&v.scale_io, "scaleIO", "scaleIO", |s, at, errors| {
            sources::scale_io(&s.gateway, &s.system, text(&s.volume_name), at, errors);
        }),
        check(&v.csi, "csi", "csi", |s, at, errors| {
            sources::csi_driver(&s.driver, &at.child("driver"), errors);
            match s.node_publish_secret_ref.as_ref().map(|secret| secret.name.as_str()) {
                None => {}
                Some("") => {
                    errors.push(FieldError::required(&at.child("nodePublishSecretRef").child("name"), ""))
                }
                Some(name) => each(names::is_dns1123_subdomain(name), name, &at.child("name"), errors),
            }
        }),
        check(&v.ephemeral, "ephemeral", "ephemeral", |s, at, errors| {
            let at = at.child("volumeClaimTemplate");
            match &s.volume_claim_template {
                Some(template) => claim_template(template, &at, errors),
                None => errors.push(FieldError::required(&at, "")),
            }
        }),
        check(&v.image, "image", "image", |s, at, errors| {
            required(text(&s.reference), &at.child("reference"), errors);
            containers::pull_policy(s.pull_policy.as_deref(), &at.child("pullPolicy"), errors);
        }),
    ];
    let mut given = checks.into_iter().flatten();
    match given.next() {
        None => errors.push(FieldError::required(at, "must specify a volume type")),
        Some((_, field, check)) => check(&at.child(field), errors),
    }
    for (field, ..) in given {
        errors.push(FieldError::forbidden(&at.child(field), ONE_TYPE));
    }
    if v.iscsi.as_ref().is_some_and(|s| iscsi(s, &v.name).is_too_long()) {
        errors.push(FieldError::invalid(&at.child("name"), &v.name, sources::PORTAL_TOO_LONG));
    }
    if let Some(pod) = pod.filter(|_| v.ephemeral.is_some() && !v.name.is_empty()) {
        let claim = format!("{pod}-{}", v.name);
        for message in names::is_dns1123_subdomain(&claim) {
            let message = format!("PVC name {claim:?}: {message}");
            errors.push(FieldError::invalid(&at.child("name"), &v.name, message));
        }
    }
}

fn iscsi<'a>(source: &'a ISCSIVolumeSource, volume: &'a str) -> sources::Iscsi<'a> {
    sources::Iscsi {
        portal: &source.target_portal,
        iqn: &source.iqn,
        lun: source.lun,
        login: source.chap_auth_discovery == Some(true) || source.chap_auth_session == Some(true),
        secret: source.secret_ref.as_ref().map(|secret| secret.name.as_str()),
        initiator: source.initiator_name.as_deref(),
        volume,
        persistent: false,
    }
}

/// Of a template's metadata only labels and annotations mean anything, so that nothing else may be there.
fn claim_template(template: &PersistentVolumeClaimTemplate, at: &Path, errors: &mut FieldErrors) {
    let none = ObjectMeta::default();
    let meta = template.metadata.as_ref().unwrap_or(&none);
    let at_meta = at.child("metadata");
    if let Some(annotations) = &meta.annotations {
        metadata::validate_annotations(annotations, &at_meta.child("annotations"), errors);
    }
    if let Some(labels) = &meta.labels {
        metadata::validate_labels(labels, &at_meta.child("labels"), errors);
    }
    if let Ok(serde_json::Value::Object(fields)) = serde_json::to_value(meta) {
        for field in fields.keys().filter(|field| !matches!(field.as_str(), "annotations" | "labels")) {
            errors.push(FieldError::forbidden(&at_meta.child(field.clone()), "cannot be set"));
        }
    }
    persistent_volume_claims::validate_spec(&template.spec, &at.child("spec"), errors);
}
