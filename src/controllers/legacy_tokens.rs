//! Cleans up the token Secrets that old releases made for every ServiceAccount, once nobody has used them for a year.
//!
//! As upstream's legacy-service-account-token-cleaner: an unused Secret is first marked as invalid since today, which
//! makes the API server refuse its token, and is deleted when the mark is a year old too. What the API server notes of
//! uses counts only a year after it began to note them. Secrets that an account does not list are somebody's own.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{ConfigMap, Container, Pod, Secret, ServiceAccount, Volume};
use k8s_openapi::jiff::civil::Date;
use k8s_openapi::jiff::tz::TimeZone;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::Client;
use kube::api::{Api, DeleteParams, Patch, PatchParams, Preconditions};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::Context;
use super::service_account_tokens::{ACCOUNT_NAME, ACCOUNT_UID, TYPE};
use crate::client::{Clock, Controller, Informer, Key, Next, Selection, error};

/// The day on which a Secret's token was used last.
const LAST_USED: &str = "kubernetes.io/legacy-token-last-used";
/// The day since which a Secret's token is refused.
const INVALID_SINCE: &str = "kubernetes.io/legacy-token-invalid-since";
/// Where the API server says since when it notes uses.
const TRACKING: &str = "kube-apiserver-legacy-service-account-token-tracking";
/// How long a token must be unused; upstream's default.
const UNUSED_FOR: SignedDuration = SignedDuration::from_hours(365 * 24);
/// How often Secrets are looked at.
const EVERY: Duration = Duration::from_secs(24 * 60 * 60);

/// What went wrong with one Secret.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is not known since when uses are noted.
    #[error("get the config map of the tracking")]
    Tracking(#[source] kube::Error),
    /// The Secret could not be marked.
    #[error("label legacy service account token with its invalid-since date")]
    Mark(#[source] kube::Error),
    /// The Secret could not be deleted.
    #[error("delete legacy service account token")]
    Delete(#[source] kube::Error),
}

/// Runs until `stop`.
pub async fn run(context: Context, stop: CancellationToken) {
    let Context { client, informers, clock, .. } = context;
    let secrets = informers.select::<Secret>(Selection::fields(format!("type={TYPE}")));
    let (accounts, pods) = (informers.get::<ServiceAccount>(), informers.get::<Pod>());
    let controller = Controller::new("legacy-service-account-token-cleaner")
        .for_each(&secrets)
        .after(&accounts)
        .after(&pods);
    let this = Arc::new(Cleaner { client, clock, secrets, accounts, pods });
    let reconcile = move |key: Key| {
        let this = this.clone();
        async move { this.reconcile(&key).await }
    };
    controller.run(reconcile, stop).await;
}

struct Cleaner {
    client: Client,
    clock: Clock,
    secrets: Informer<Secret>,
    accounts: Informer<ServiceAccount>,
    pods: Informer<Pod>,
}

impl Cleaner {
    async fn reconcile(&self, key: &Key) -> Result<Next, Error> {
        let Some(secret) = self.secrets.get(key) else { return Ok(Next::Done) };
        let now = self.clock.now();
        if !is_unused(&secret, now) || !self.is_generated(&secret) || self.is_mounted(key) {
            return Ok(Next::After(EVERY));
        }
        if !self.tracked_since().await?.is_some_and(|since| is_long_ago(since, now)) {
            return Ok(Next::After(EVERY));
        }
        let api: Api<Secret> = Api::namespaced(self.client.clone(), key.namespace());
        let done = match invalid_since(&secret) {
            None => {
                let labels = json!({INVALID_SINCE: day(now).to_string()});
                let patch = json!({"metadata": {"uid": secret.metadata.uid, "labels": labels}});
                let sent = api.patch(key.name(), &PatchParams::default(), &Patch::Merge(patch)).await;
                sent.map(|_| ()).map_err(Error::Mark)
            }
            Some(since) if since < day(now - UNUSED_FOR) => {
                // A use that has just been noted changes the version.
                let resource_version = secret.metadata.resource_version.clone();
                let preconditions = Some(Preconditions { uid: None, resource_version });
                let parameters = DeleteParams { preconditions, ..DeleteParams::default() };
                api.delete(key.name(), &parameters).await.map(|_| ()).map_err(Error::Delete)
            }
            Some(_) => Ok(()),
        };
        match done {
            Err(Error::Mark(failure) | Error::Delete(failure))
                if error::is_not_found(&failure) || error::is_conflict(&failure) =>
            {
                Ok(Next::After(EVERY))
            }
            done => done.map(|()| Next::After(EVERY)),
        }
    }

    /// Whether the Secret is one that its account lists.
    fn is_generated(&self, secret: &Secret) -> bool {
        let annotation = |key| secret.metadata.annotations.as_ref().and_then(|all| all.get(key));
        let Some(name) = annotation(ACCOUNT_NAME).filter(|name| !name.is_empty()) else { return false };
        let namespace = secret.metadata.namespace.as_deref().unwrap_or_default();
        let Some(account) = self.accounts.find(namespace, name) else { return false };
        let same = annotation(ACCOUNT_UID)
            .is_none_or(|uid| uid.is_empty() || Some(uid) == account.metadata.uid.as_ref());
        same && account.secrets.iter().flatten().any(|listed| listed.name == secret.metadata.name)
    }

    fn is_mounted(&self, key: &Key) -> bool {
        let pods = self.pods.in_namespace(key.namespace());
        pods.iter().any(|pod| secret_names(pod).contains(key.name()))
    }

    /// The day after which all uses are noted.
    async fn tracked_since(&self) -> Result<Option<Date>, Error> {
        let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), "kube-system");
        let found = api.get_opt(TRACKING).await.map_err(Error::Tracking)?;
        Ok(found.and_then(|map| map.data?.get("since").and_then(|since| parse(since))))
    }
}

/// The day in UTC.
fn day(at: Timestamp) -> Date {
    at.to_zoned(TimeZone::UTC).date()
}

fn parse(text: &str) -> Option<Date> {
    text.parse::<Date>().ok().filter(|date| date.to_string() == text)
}

/// Whether uses have been noted for long enough, from the first whole day.
fn is_long_ago(tracked_since: Date, now: Timestamp) -> bool {
    let first = tracked_since.tomorrow().and_then(|day| day.to_zoned(TimeZone::UTC));
    first.is_ok_and(|first| now.duration_since(first.timestamp()) >= UNUSED_FOR)
}

/// Whether the Secret is old, and no use of its token is known in the time that counts. What its label says must be a day.
fn is_unused(secret: &Secret, now: Timestamp) -> bool {
    let since = now - UNUSED_FOR;
    let meta = &secret.metadata;
    let old = meta.creation_timestamp.as_ref().is_some_and(|created| created.0 < since);
    let used = meta.labels.as_ref().and_then(|labels| labels.get(LAST_USED));
    let unused = used.is_none_or(|used| parse(used).is_some_and(|used| used < day(since)));
    old && meta.deletion_timestamp.is_none() && unused
}

fn invalid_since(secret: &Secret) -> Option<Date> {
    parse(secret.metadata.labels.as_ref()?.get(INVALID_SINCE)?)
}

/// The Secrets that a pod refers to.
fn secret_names(pod: &Pod) -> BTreeSet<&str> {
    let mut names = BTreeSet::new();
    let Some(spec) = &pod.spec else { return names };
    names.extend(spec.image_pull_secrets.iter().flatten().map(|reference| reference.name.as_str()));
    let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    containers.for_each(|container| of_environment(container, &mut names));
    for container in spec.ephemeral_containers.iter().flatten() {
        let sources = container.env.iter().flatten().filter_map(|env| env.value_from.as_ref());
        names.extend(sources.filter_map(|from| Some(from.secret_key_ref.as_ref()?.name.as_str())));
        let sources = container.env_from.iter().flatten();
        names.extend(sources.filter_map(|from| Some(from.secret_ref.as_ref()?.name.as_str())));
    }
    spec.volumes.iter().flatten().for_each(|volume| of_volume(volume, &mut names));
    names
}

fn of_environment<'a>(container: &'a Container, names: &mut BTreeSet<&'a str>) {
    let sources = container.env.iter().flatten().filter_map(|env| env.value_from.as_ref());
    names.extend(sources.filter_map(|from| Some(from.secret_key_ref.as_ref()?.name.as_str())));
    let sources = container.env_from.iter().flatten();
    names.extend(sources.filter_map(|from| Some(from.secret_ref.as_ref()?.name.as_str())));
}

fn of_volume<'a>(volume: &'a Volume, names: &mut BTreeSet<&'a str>) {
    let references = [
        volume.cephfs.as_ref().and_then(|v| v.secret_ref.as_ref()),
        volume.cinder.as_ref().and_then(|v| v.secret_ref.as_ref()),
        volume.flex_volume.as_ref().and_then(|v| v.secret_ref.as_ref()),
        volume.rbd.as_ref().and_then(|v| v.secret_ref.as_ref()),
        volume.scale_io.as_ref().map(|v| &v.secret_ref),
        volume.iscsi.as_ref().and_then(|v| v.secret_ref.as_ref()),
        volume.storageos.as_ref().and_then(|v| v.secret_ref.as_ref()),
        volume.csi.as_ref().and_then(|v| v.node_publish_secret_ref.as_ref()),
    ];
    names.extend(references.into_iter().flatten().map(|reference| reference.name.as_str()));
    names.extend(volume.azure_file.as_ref().map(|v| v.secret_name.as_str()));
    names.extend(volume.secret.as_ref().and_then(|v| v.secret_name.as_deref()));
    let projected = volume.projected.iter().flat_map(|v| v.sources.iter().flatten());
    names.extend(projected.filter_map(|source| Some(source.secret.as_ref()?.name.as_str())));
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn secret(meta: Value) -> Secret {
        serde_json::from_value(json!({"metadata": meta, "type": TYPE})).unwrap()
    }

    #[test]
    fn only_old_secrets_without_a_use_in_a_year_are_unused() {
        let now: Timestamp = "2026-06-15T12:00:00Z".parse().unwrap();
        let (old, young) = ("2024-01-01T00:00:00Z", "2025-06-15T12:00:00Z");
        for (created, used, gone, expected) in [
            (old, None, false, true),
            (young, None, false, false),
            (old, None, true, false),
            (old, Some("2025-06-14"), false, true),
            (old, Some("2025-06-15"), false, false),
            (old, Some("long ago"), false, false),
        ] {
            let labels = used.map(|used| json!({LAST_USED: used}));
            let ends = gone.then_some(old);
            let meta = json!({"creationTimestamp": created, "labels": labels, "deletionTimestamp": ends});
            assert_eq!(is_unused(&secret(meta.clone()), now), expected, "{meta}");
        }
    }

    #[test]
    fn uses_count_from_the_day_after_the_tracking_began() {
        let since = parse("2025-06-14").unwrap();
        for (now, expected) in [("2026-06-14T23:59:59Z", false), ("2026-06-15T00:00:00Z", true)] {
            assert_eq!(is_long_ago(since, now.parse().unwrap()), expected, "{now}");
        }
        assert_eq!(parse("2025-6-14"), None);
        assert_eq!(invalid_since(&secret(json!({"labels": {INVALID_SINCE: "x"}}))), None);
    }

    #[test]
    fn every_way_to_refer_to_a_secret_is_known() {
        let env = json!([{"name": "E", "valueFrom": {"secretKeyRef": {"name": "env", "key": "k"}}}]);
        let from = json!([{"secretRef": {"name": "from"}}]);
        let pod: Pod = serde_json::from_value(json!({"spec": {
            "imagePullSecrets": [{"name": "pull"}],
            "containers": [{"name": "a", "env": env}], "initContainers": [{"name": "b", "envFrom": from}],
            "ephemeralContainers": [{"name": "c", "envFrom": [{"secretRef": {"name": "later"}}]}],
            "volumes": [{"name": "1", "secret": {"secretName": "volume"}},
                {"name": "2", "projected": {"sources": [{"secret": {"name": "part"}}]}},
                {"name": "3", "csi": {"driver": "d", "nodePublishSecretRef": {"name": "csi"}}}]}}))
        .unwrap();
        let expected = ["csi", "env", "from", "later", "part", "pull", "volume"];
        assert_eq!(secret_names(&pod).into_iter().collect::<Vec<_>>(), expected);
    }
}
