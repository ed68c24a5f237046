//! StatefulSets.

mod validate;

use k8s_openapi::api::apps::v1::{
    RollingUpdateStatefulSetStrategy, StatefulSet, StatefulSetPersistentVolumeClaimRetentionPolicy,
    StatefulSetSpec, StatefulSetStatus,
};
use k8s_openapi::jiff::Timestamp;
use serde_json::Value;

use super::rolling;
use crate::api::field::{FieldError, FieldErrors, Path};
use crate::registry::context::RequestContext;
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

    fn prepare_for_create(&self, _: &RequestContext, set: &mut StatefulSet) {
        set.status = Some(StatefulSetStatus::default());
        drop_disabled(set.spec.get_or_insert_default(), None);
    }

    fn prepare_for_update(&self, _: &RequestContext, set: &mut StatefulSet, old: &StatefulSet) {
        drop_disabled(set.spec.get_or_insert_default(), old.spec.as_ref());
    }

    fn validate(&self, set: &StatefulSet, errors: &mut FieldErrors) {
        validate::spec(set.spec.as_ref().unwrap_or(&Default::default()), errors);
    }

    fn validate_create(&self, set: &StatefulSet, errors: &mut FieldErrors) {
        validate::create(set, errors);
    }

    fn validate_status_update(&self, set: &StatefulSet, old: &StatefulSet, errors: &mut FieldErrors) {
        validate::status(set, old, errors);
    }

    fn warnings(&self, set: &StatefulSet, old: Option<&StatefulSet>) -> Vec<String> {
        let Some(spec) = &set.spec else { return Vec::new() };
        let was = old.and_then(|old| old.spec.as_ref());
        let mut warnings = rolling::warnings(None, (spec, was), &spec.template);
        if was == Some(spec) {
            return warnings;
        }
        for (i, claim) in spec.volume_claim_templates.iter().flatten().enumerate() {
            let at = Path::new("spec").child("volumeClaimTemplates").index(i);
            warnings.extend(
                claim.spec.iter().flat_map(|spec| persistent_volume_claims::spec_warnings(spec, &at)),
            );
        }
        if spec.revision_history_limit.is_some_and(|limit| limit < 0) {
            warnings.push(
                "spec.revisionHistoryLimit: a negative value retains all historical revisions; a value >= 0 is recommended"
                    .into(),
            );
        }
        warnings
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

/// Drops what only features that are off would use.
fn drop_disabled(spec: &mut StatefulSetSpec, old: Option<&StatefulSetSpec>) {
    rolling::drop_disabled(&mut spec.template, old.map(|old| &old.template));
    let rolling = |spec: &StatefulSetSpec| {
        let strategy = spec.update_strategy.as_ref().and_then(|own| own.rolling_update.as_ref());
        strategy.is_some_and(|own| own.max_unavailable.is_some())
    };
    if !old.is_some_and(rolling)
        && let Some(own) = spec.update_strategy.as_mut().and_then(|own| own.rolling_update.as_mut())
    {
        own.max_unavailable = None;
    }
}
