//! Keeps volumes, claims and classes of volume attributes that are in use: their deletion waits for the last pod, for the
//! end of the binding, or for the last claim and volume.

use std::fmt::Debug;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::VolumeAttributesClass;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Api, ListParams, PostParams};
use kube::{Client, Resource};
use serde::{Serialize, de::DeserializeOwned};
use tokio_util::sync::CancellationToken;

use super::Context;
use super::workload::pods;
use crate::client::volumes::claims_of;
use crate::client::{Change, Controller, Informer, Key, Next, error};

/// The finalizer of claims.
pub const CLAIM: &str = "kubernetes.io/pvc-protection";
/// The finalizer of volumes.
pub const VOLUME: &str = "kubernetes.io/pv-protection";
/// The finalizer of classes of volume attributes.
pub const ATTRIBUTES: &str = "kubernetes.io/vac-protection";
/// Index of pods by `namespace/claim`.
pub const BY_CLAIM: &str = "volume-claim";

/// What went wrong with one object.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The pods of the namespace could not be listed.
    #[error("list pods")]
    List(#[source] kube::Error),
    /// The finalizer could not be set or removed.
    #[error("update finalizers")]
    Update(#[source] kube::Error),
}

/// What is to become of the finalizer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Keep,
    Add,
    /// If the object is not in use.
    Remove,
}

fn fate(meta: &ObjectMeta, finalizer: &str) -> Fate {
    let has = meta.finalizers.iter().flatten().any(|known| known == finalizer);
    match (meta.deletion_timestamp.is_some(), has) {
        (true, true) => Fate::Remove,
        (false, false) => Fate::Add,
        _ => Fate::Keep,
    }
}

/// The pod may have the claim mounted: it is on a node and has not ended.
fn holds(pod: &Pod, claim: &str) -> bool {
    pods::node_name(pod).is_some() && !pods::is_finished(pod) && claims_of(pod).iter().any(|own| own == claim)
}

/// Protects claims until `stop`.
pub async fn run_claims(context: Context, stop: CancellationToken) {
    let Context { client, informers, .. } = context;
    let (claims, pods) = (informers.get::<PersistentVolumeClaim>(), informers.get::<Pod>());
    pods.add_index(BY_CLAIM, claims_of);
    let controller =
        Controller::new("pvc-protection").for_each(&claims).watch(&pods, |change: &Change<Pod>| {
            let ended = change.after().is_none_or(|pod| pods::is_finished(pod));
            let keys = claims_of(change.object()).into_iter().filter(|_| ended);
            keys.filter_map(|key| key.split_once('/').map(|(namespace, name)| Key::new(namespace, name)))
                .collect()
        });
    let reconcile = move |key: Key| {
        let (client, claims, pods) = (client.clone(), claims.clone(), pods.clone());
        async move {
            let Some(claim) = claims.get(&key) else { return Ok(Next::Done) };
            let fate = fate(&claim.metadata, CLAIM);
            if fate == Fate::Remove && is_held(&client, &pods, &key).await? {
                return Ok(Next::Done);
            }
            let api: Api<PersistentVolumeClaim> = Api::namespaced(client, key.namespace());
            settle(&api, claim, CLAIM, fate).await
        }
    };
    controller.run(reconcile, stop).await;
}

/// Asks the cache, and the server if the cache says no: nothing may be lost because a cache lags behind.
async fn is_held(client: &Client, pods: &Informer<Pod>, key: &Key) -> Result<bool, Error> {
    let claim = key.as_str();
    if pods.by_index(BY_CLAIM, claim).iter().any(|pod| holds(pod, claim)) {
        return Ok(true);
    }
    let api: Api<Pod> = Api::namespaced(client.clone(), key.namespace());
    let live = api.list(&ListParams::default()).await.map_err(Error::List)?;
    Ok(live.items.iter().any(|pod| holds(pod, claim)))
}

/// Protects volumes until `stop`.
pub async fn run_volumes(context: Context, stop: CancellationToken) {
    let Context { client, informers, .. } = context;
    let volumes = informers.get::<PersistentVolume>();
    let controller = Controller::new("pv-protection").for_each(&volumes);
    let reconcile = move |key: Key| {
        let (client, volumes) = (client.clone(), volumes.clone());
        async move {
            let Some(volume) = volumes.get(&key) else { return Ok(Next::Done) };
            let fate = fate(&volume.metadata, VOLUME);
            let phase = volume.status.as_ref().and_then(|status| status.phase.as_deref());
            if fate == Fate::Remove && phase == Some("Bound") {
                return Ok(Next::Done);
            }
            settle(&Api::all(client), volume, VOLUME, fate).await
        }
    };
    controller.run(reconcile, stop).await;
}

/// Protects classes of volume attributes until `stop`.
pub async fn run_attributes(context: Context, stop: CancellationToken) {
    let Context { client, informers, .. } = context;
    let classes = informers.get::<VolumeAttributesClass>();
    let (claims, volumes) = (informers.get::<PersistentVolumeClaim>(), informers.get::<PersistentVolume>());
    let controller = Controller::new("vac-protection")
        .for_each(&classes)
        .watch(&claims, |change| dropped(change, attributes_of_claim))
        .watch(&volumes, |change| dropped(change, attributes_of_volume));
    let reconcile = move |key: Key| {
        let (client, classes) = (client.clone(), classes.clone());
        let (claims, volumes) = (claims.clone(), volumes.clone());
        async move {
            let Some(class) = classes.get(&key) else { return Ok(Next::Done) };
            let fate = fate(&class.metadata, ATTRIBUTES);
            let in_use = || {
                volumes.list().iter().any(|volume| attributes_of_volume(volume).contains(&key.name()))
                    || claims.list().iter().any(|claim| attributes_of_claim(claim).contains(&key.name()))
            };
            if fate == Fate::Remove && in_use() {
                return Ok(Next::Done);
            }
            settle(&Api::all(client), class, ATTRIBUTES, fate).await
        }
    };
    controller.run(reconcile, stop).await;
}

/// The classes that an object named before a change and names no more.
fn dropped<K>(change: &Change<K>, names: fn(&K) -> Vec<&str>) -> Vec<Key> {
    let of = |object: Option<&Arc<K>>| -> Vec<String> {
        object.map(|object| names(object).into_iter().map(str::to_owned).collect()).unwrap_or_default()
    };
    let after = of(change.after());
    of(change.before()).iter().filter(|name| !after.contains(name)).map(|name| Key::cluster(name)).collect()
}

/// The classes of attributes that a claim asks for, has, or is being given.
fn attributes_of_claim(claim: &PersistentVolumeClaim) -> Vec<&str> {
    let wanted = claim.spec.as_ref().and_then(|spec| spec.volume_attributes_class_name.as_deref());
    let status = claim.status.as_ref();
    let has = status.and_then(|status| status.current_volume_attributes_class_name.as_deref());
    let next = status.and_then(|status| status.modify_volume_status.as_ref());
    let next = next.and_then(|next| next.target_volume_attributes_class_name.as_deref());
    [wanted, has, next].into_iter().flatten().filter(|name| !name.is_empty()).collect()
}

/// The class of attributes that a volume has.
fn attributes_of_volume(volume: &PersistentVolume) -> Vec<&str> {
    let name = volume.spec.as_ref().and_then(|spec| spec.volume_attributes_class_name.as_deref());
    name.into_iter().filter(|name| !name.is_empty()).collect()
}

async fn settle<K>(api: &Api<K>, object: Arc<K>, finalizer: &str, fate: Fate) -> Result<Next, Error>
where
    K: Resource + Clone + Debug + Serialize + DeserializeOwned,
{
    let mut wanted = object.as_ref().clone();
    let finalizers = wanted.meta_mut().finalizers.get_or_insert_default();
    match fate {
        Fate::Keep => return Ok(Next::Done),
        Fate::Add => finalizers.push(finalizer.to_owned()),
        Fate::Remove => finalizers.retain(|known| known != finalizer),
    }
    let name = object.meta().name.clone().unwrap_or_default();
    match api.replace(&name, &PostParams::default(), &wanted).await {
        Err(failure) if !error::is_not_found(&failure) => Err(Error::Update(failure)),
        _ => Ok(Next::Done),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::fake::{FakeApi, eventually};
    use crate::controllers::testing::start;
    use serde_json::json;

    #[test]
    fn a_finalizer_is_there_until_the_object_is_to_go() {
        for (deleted, finalizers, expected) in [
            (false, json!([]), Fate::Add),
            (false, json!([CLAIM]), Fate::Keep),
            (true, json!([CLAIM, "x"]), Fate::Remove),
            (true, json!(["x"]), Fate::Keep),
        ] {
            let at = deleted.then_some("2026-01-01T00:00:00Z");
            let meta =
                serde_json::from_value(json!({"deletionTimestamp": at, "finalizers": finalizers})).unwrap();
            assert_eq!(fate(&meta, CLAIM), expected, "{deleted} {finalizers}");
        }
    }

    #[test]
    fn only_living_pods_on_nodes_hold_claims() {
        for (node, phase, claim, expected) in [
            ("n1", "Running", "ns/data", true),
            ("n1", "Pending", "ns/p-scratch", true),
            ("", "Pending", "ns/data", false),
            ("n1", "Succeeded", "ns/data", false),
            ("n1", "Running", "ns/other", false),
            ("n1", "Running", "else/data", false),
        ] {
            let pod = serde_json::from_value(json!({
                "metadata": {"name": "p", "namespace": "ns"}, "status": {"phase": phase},
                "spec": {"nodeName": node, "containers": [], "volumes": [
                    {"name": "v", "persistentVolumeClaim": {"claimName": "data"}}, {"name": "scratch", "ephemeral": {}}]},
            }))
            .unwrap();
            assert_eq!(holds(&pod, claim), expected, "{node} {phase} {claim}");
        }
    }

    #[tokio::test]
    async fn a_class_of_attributes_goes_when_nothing_has_it_any_more() {
        let api = FakeApi::new();
        let _running = start(&api, run_attributes);
        let class = json!({"metadata": {"name": "gold"}, "driverName": "csi.example"});
        api.create::<VolumeAttributesClass>(&serde_json::from_value(class).unwrap());
        let class = || api.get::<VolumeAttributesClass>("", "gold");
        let finalizers = || class().and_then(|class| class.metadata.finalizers).unwrap_or_default();
        eventually("it is protected", || finalizers() == [ATTRIBUTES]).await;
        let claim = json!({"metadata": {"name": "c", "namespace": "default"}, "spec": {},
                           "status": {"currentVolumeAttributesClassName": "gold"}});
        api.create::<PersistentVolumeClaim>(&serde_json::from_value(claim).unwrap());
        let volume = json!({"metadata": {"name": "v"}, "spec": {"volumeAttributesClassName": "gold"}});
        api.create::<PersistentVolume>(&serde_json::from_value(volume).unwrap());
        api.delete::<VolumeAttributesClass>("", "gold");
        let silver = |spec: &mut Option<String>| *spec = Some("silver".to_owned());
        api.update::<PersistentVolumeClaim>("default", "c", |claim| {
            silver(&mut claim.status.get_or_insert_default().current_volume_attributes_class_name);
        });
        assert_eq!(finalizers(), [ATTRIBUTES], "a volume has it");
        api.update::<PersistentVolume>("", "v", |volume| {
            silver(&mut volume.spec.get_or_insert_default().volume_attributes_class_name);
        });
        eventually("it is gone", || class().is_none()).await;
    }
}
