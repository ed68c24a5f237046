//! `DefaultStorageClass`, `PersistentVolumeClaimResize` and `StorageObjectInUseProtection`.

use async_trait::async_trait;
use k8s_openapi::Metadata;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::{Operation, Plugin, Request};
use crate::api::error::ApiError;
use crate::api::quantity::Quantity;
use crate::api::quota;
use crate::registry::groups::storage::classes::is_default;
use crate::registry::object::Object;

/// The class of a claim in the days before the field.
const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";

pub(super) struct DefaultStorageClass;

#[async_trait]
impl Plugin for DefaultStorageClass {
    async fn admit(
        &self,
        request: &Request<'_>,
        object: &mut dyn Object,
        _: Option<&dyn Object>,
    ) -> Result<bool, ApiError> {
        if request.operation != Operation::Create || !request.is("", "persistentvolumeclaims") {
            return Ok(false);
        }
        let Some(claim) = object.downcast_mut::<PersistentVolumeClaim>() else { return Ok(false) };
        let annotated = claim.metadata.annotations.as_ref().is_some_and(|a| a.contains_key(CLASS_ANNOTATION));
        let spec = claim.spec.get_or_insert_default();
        if annotated || spec.storage_class_name.is_some() {
            return Ok(false);
        }
        spec.storage_class_name =
            newest(request.registry.read_all_latest::<StorageClass>("").await?, is_default);
        Ok(spec.storage_class_name.is_some())
    }
}

/// Of several default classes the newest counts, and of several new ones the first by name.
pub(super) fn newest<K: Metadata<Ty = ObjectMeta>>(
    mut classes: Vec<K>,
    is_default: impl Fn(&K) -> bool,
) -> Option<String> {
    classes.retain(is_default);
    classes.sort_by(|a, b| {
        let made = |class: &K| class.metadata().creation_timestamp.as_ref().map(|time| time.0);
        made(b).cmp(&made(a)).then_with(|| a.metadata().name.cmp(&b.metadata().name))
    });
    classes.first().and_then(|class| class.metadata().name.clone())
}

/// What is in use is not removed: the finalizers that the protecting controllers take away are there from the start.
pub(super) struct ObjectInUseProtection;

/// Kinds of storage and the finalizer of each.
const PROTECTED: [(&str, &str, &str); 2] = [
    ("", "persistentvolumes", "kubernetes.io/pv-protection"),
    ("", "persistentvolumeclaims", "kubernetes.io/pvc-protection"),
];

#[async_trait]
impl Plugin for ObjectInUseProtection {
    async fn admit(
        &self,
        request: &Request<'_>,
        object: &mut dyn Object,
        _: Option<&dyn Object>,
    ) -> Result<bool, ApiError> {
        if request.operation != Operation::Create {
            return Ok(false);
        }
        let Some((.., own)) = PROTECTED.iter().find(|(group, plural, _)| request.is(group, plural)) else {
            return Ok(false);
        };
        let finalizers = object.meta_mut().finalizers.get_or_insert_default();
        let missing = !finalizers.iter().any(|finalizer| finalizer == own);
        if missing {
            finalizers.push((*own).to_owned());
        }
        Ok(missing)
    }
}

pub(super) struct ClaimResize;

fn wanted(claim: &PersistentVolumeClaim) -> Option<Quantity> {
    let resources = claim.spec.as_ref().and_then(|spec| spec.resources.as_ref());
    quota::parse(resources.and_then(|resources| resources.requests.as_ref())).get("storage").copied()
}

#[async_trait]
impl Plugin for ClaimResize {
    async fn validate(
        &self,
        request: &Request<'_>,
        object: Option<&dyn Object>,
        old: Option<&dyn Object>,
    ) -> Result<(), ApiError> {
        if request.operation != Operation::Update || !request.is("", "persistentvolumeclaims") {
            return Ok(());
        }
        let claim = |object: Option<&dyn Object>| {
            object.and_then(|object| object.downcast_ref::<PersistentVolumeClaim>()).cloned()
        };
        let (Some(new), Some(old)) = (claim(object), claim(old)) else { return Ok(()) };
        if wanted(&new) <= wanted(&old) {
            return Ok(());
        }
        if old.status.as_ref().and_then(|status| status.phase.as_deref()) != Some("Bound") {
            return Err(request.forbid("Only bound persistent volume claims can be expanded"));
        }
        let annotation = new.metadata.annotations.as_ref().and_then(|a| a.get(CLASS_ANNOTATION)).cloned();
        let class = annotation.or(new.spec.and_then(|spec| spec.storage_class_name)).unwrap_or_default();
        let class = request.registry.find::<StorageClass>("", &class).await?;
        if class.is_some_and(|class| class.allow_volume_expansion == Some(true)) {
            return Ok(());
        }
        Err(request.forbid(
            "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize",
        ))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_newest_default_class_counts() {
        let class = |name: &str, made: &str, default: &str| -> StorageClass {
            serde_json::from_value(json!({"metadata": {"name": name, "creationTimestamp": made,
                "annotations": {"storageclass.kubernetes.io/is-default-class": default}}, "provisioner": "p"}))
            .unwrap()
        };
        let classes = vec![
            class("old", "2026-01-01T00:00:00Z", "true"),
            class("b", "2026-01-02T00:00:00Z", "true"),
            class("a", "2026-01-02T00:00:00Z", "true"),
            class("no", "2026-01-03T00:00:00Z", "false"),
        ];
        assert_eq!(newest(classes, is_default).as_deref(), Some("a"));
        assert_eq!(newest(Vec::new(), is_default), None);
    }
}
