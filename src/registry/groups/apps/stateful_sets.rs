//! StatefulSets.

use k8s_openapi::api::apps::v1::{
    RollingUpdateStatefulSetStrategy, StatefulSet, StatefulSetPersistentVolumeClaimRetentionPolicy,
};
use k8s_openapi::jiff::Timestamp;
use serde_json::Value;

use super::rolling;
use crate::api::field::{FieldError, FieldErrors, Path};
use crate::registry::groups::core::{persistent_volume_claims, pods};
use crate::registry::strategy::Strategy;
use crate::registry::table::{AGE, Column, NAME, age_cell, column, name_cell, wide};

/// The columns of StatefulSets.
pub const COLUMNS: &[Column] = &[
    NAME,
    column("Ready", "string", "Pods that are ready, of those that are wanted."),
    AGE,
    wide("Containers", "string", "Names of the containers in the template."),
    wide("Images", "string", "Images of the containers in the template."),
];

const IMMUTABLE: &str = "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', \
    'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden";

/// The strategy of StatefulSets.
pub struct StatefulSetStrategy;

impl Strategy for StatefulSetStrategy {
    type Object = StatefulSet;

    fn default(&self, set: &mut StatefulSet) {
        let spec = set.spec.get_or_insert_default();
        spec.replicas.get_or_insert(1);
        spec.revision_history_limit.get_or_insert(10);
        spec.pod_management_policy.get_or_insert_with(|| "OrderedReady".into());
        let strategy = spec.update_strategy.get_or_insert_default();
        if strategy.type_.as_deref().is_none_or(str::is_empty) {
            strategy.type_ = Some("RollingUpdate".into());
        }
        if strategy.type_.as_deref() == Some("RollingUpdate") {
            let rolling =
                strategy.rolling_update.get_or_insert_with(RollingUpdateStatefulSetStrategy::default);
            rolling.partition.get_or_insert(0);
        }
        let retention = spec
            .persistent_volume_claim_retention_policy
            .get_or_insert_with(StatefulSetPersistentVolumeClaimRetentionPolicy::default);
        retention.when_deleted.get_or_insert_with(|| "Retain".into());
        retention.when_scaled.get_or_insert_with(|| "Retain".into());
        for claim in spec.volume_claim_templates.iter_mut().flatten() {
            persistent_volume_claims::default_spec(claim.spec.get_or_insert_default());
            claim.status.get_or_insert_default().phase.get_or_insert_with(|| "Pending".into());
        }
        pods::defaults::template(&mut spec.template);
    }

    fn validate(&self, set: &StatefulSet, errors: &mut FieldErrors) {
        let Some(spec) = &set.spec else { return };
        let at = Path::new("spec");
        let policy = spec.pod_management_policy.as_deref().unwrap_or_default();
        if !matches!(policy, "OrderedReady" | "Parallel") {
            let message = "must be 'OrderedReady' or 'Parallel'";
            errors.push(FieldError::invalid(&at.child("podManagementPolicy"), policy, message));
        }
        let strategy = spec.update_strategy.as_ref().and_then(|s| s.type_.as_deref()).unwrap_or_default();
        if !matches!(strategy, "RollingUpdate" | "OnDelete") {
            let message = "must be 'RollingUpdate' or 'OnDelete'";
            errors.push(FieldError::invalid(&at.child("updateStrategy"), strategy, message));
        }
        rolling::counts(
            &[("replicas", spec.replicas), ("minReadySeconds", spec.min_ready_seconds)],
            &at,
            errors,
        );
        rolling::selector_and_template(&spec.selector, Some(&without_claims(spec)), &at, errors);
    }

    fn validate_update(&self, set: &StatefulSet, old: &StatefulSet, errors: &mut FieldErrors) {
        let (Some(new), Some(old)) = (&set.spec, &old.spec) else { return };
        let mut munged = new.clone();
        munged.replicas = old.replicas;
        munged.ordinals.clone_from(&old.ordinals);
        munged.template.clone_from(&old.template);
        munged.update_strategy.clone_from(&old.update_strategy);
        munged.min_ready_seconds = old.min_ready_seconds;
        munged.revision_history_limit = old.revision_history_limit;
        munged
            .persistent_volume_claim_retention_policy
            .clone_from(&old.persistent_volume_claim_retention_policy);
        if munged != *old {
            errors.push(FieldError::forbidden(&Path::new("spec"), IMMUTABLE));
        }
    }

    fn cells(&self, set: &StatefulSet, now: Timestamp) -> Vec<Value> {
        let spec = set.spec.as_ref();
        let ready = set.status.as_ref().and_then(|s| s.ready_replicas).unwrap_or(0);
        let (names, images) = rolling::containers_and_images(spec.and_then(|s| s.template.spec.as_ref()));
        vec![
            name_cell(&set.metadata),
            format!("{ready}/{}", spec.and_then(|s| s.replicas).unwrap_or(0)).into(),
            age_cell(&set.metadata, now),
            names.into(),
            images.into(),
        ]
    }
}

/// The template with a volume for each claim, so that mounts of claims are found.
fn without_claims(
    spec: &k8s_openapi::api::apps::v1::StatefulSetSpec,
) -> k8s_openapi::api::core::v1::PodTemplateSpec {
    let mut template = spec.template.clone();
    let volumes = template.spec.get_or_insert_default().volumes.get_or_insert_default();
    for claim in spec.volume_claim_templates.iter().flatten() {
        let name = claim.metadata.name.clone().unwrap_or_default();
        if volumes.iter().all(|volume| volume.name != name) {
            volumes.push(k8s_openapi::api::core::v1::Volume {
                name,
                empty_dir: Some(Default::default()),
                ..Default::default()
            });
        }
    }
    template
}
