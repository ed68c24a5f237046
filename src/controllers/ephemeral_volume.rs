//! Makes the claims that pods describe in their own spec (`ephemeral.volumeClaimTemplate`); they go with their pod.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, Volume};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{Api, PostParams};
use tokio_util::sync::CancellationToken;

use super::Context;
use super::workload::pods;
use crate::client::{Change, Controller, EventType, Key, Next, error};

/// A claim could not be made.
#[derive(Debug, thiserror::Error)]
#[error("create claim")]
pub struct Error(#[source] kube::Error);

/// Runs until `stop`.
pub async fn run(context: Context, stop: CancellationToken) {
    let (pods, claims) = (context.informers.get::<Pod>(), context.informers.get::<PersistentVolumeClaim>());
    let controller = Controller::new("ephemeral-volume")
        .watch(&pods, |change: &Change<Pod>| {
            let wants = change.after().is_some_and(|pod| volumes(pod).next().is_some());
            wants.then(|| Key::of(change.object().as_ref())).into_iter().collect()
        })
        .owned_by::<Pod, PersistentVolumeClaim>(&claims);
    let reconcile = move |key: Key| {
        let (context, pods, claims) = (context.clone(), pods.clone(), claims.clone());
        async move {
            let Some(pod) = pods.get(&key).filter(|pod| pods::is_active(pod)) else {
                return Ok::<_, Error>(Next::Done);
            };
            for volume in volumes(&pod) {
                let name = format!("{}-{}", key.name(), volume.name);
                let known = claims.find(key.namespace(), &name);
                if known.as_deref().is_some_and(|claim| is_of(claim, &pod)) {
                    continue;
                }
                make(&context, &pod, known, volume, &name).await?;
            }
            Ok(Next::Done)
        }
    };
    controller.run(reconcile, stop).await;
}

fn volumes(pod: &Pod) -> impl Iterator<Item = &Volume> {
    let all = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    all.filter(|volume| {
        volume.ephemeral.as_ref().is_some_and(|source| source.volume_claim_template.is_some())
    })
}

fn is_of(claim: &PersistentVolumeClaim, pod: &Pod) -> bool {
    let owners = claim.metadata.owner_references.iter().flatten();
    owners
        .into_iter()
        .any(|owner| owner.controller == Some(true) && Some(&owner.uid) == pod.metadata.uid.as_ref())
}

async fn make(
    context: &Context,
    pod: &Pod,
    known: Option<Arc<PersistentVolumeClaim>>,
    volume: &Volume,
    name: &str,
) -> Result<(), Error> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let warn = |message: String| {
        context.recorder.event(pod, EventType::Warning, "EphemeralVolumeClaimNotCreated", message);
    };
    if known.is_some() {
        warn(format!(
            "PVC {namespace}/{name} was not created for pod {namespace}/{} (pod is not owner)",
            pod_name(pod)
        ));
        return Ok(());
    }
    let api: Api<PersistentVolumeClaim> = Api::namespaced(context.client.clone(), namespace);
    match api.create(&PostParams::default(), &claim(pod, volume, name)).await {
        Ok(_) => Ok(()),
        Err(failure) if error::is_already_exists(&failure) => Ok(()),
        Err(failure) => {
            warn(format!("ephemeral volume controller failed to create PVC {name}: {failure}"));
            Err(Error(failure))
        }
    }
}

fn pod_name(pod: &Pod) -> &str {
    pod.metadata.name.as_deref().unwrap_or_default()
}

/// The claim of a volume.
fn claim(pod: &Pod, volume: &Volume, name: &str) -> PersistentVolumeClaim {
    let template = volume.ephemeral.as_ref().and_then(|source| source.volume_claim_template.clone());
    let template = template.unwrap_or_default();
    let mut claim = PersistentVolumeClaim { spec: Some(template.spec), ..PersistentVolumeClaim::default() };
    let meta = template.metadata.unwrap_or_default();
    (claim.metadata.labels, claim.metadata.annotations) = (meta.labels, meta.annotations);
    claim.metadata.name = Some(name.to_owned());
    claim.metadata.owner_references = Some(vec![OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Pod".to_owned(),
        name: pod_name(pod).to_owned(),
        uid: pod.metadata.uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }]);
    claim
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::fake::{FakeApi, eventually};
    use crate::controllers::testing::start;
    use serde_json::json;

    fn pod() -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "default", "uid": "u"},
            "spec": {"containers": [], "volumes": [{"name": "scratch", "ephemeral": {"volumeClaimTemplate": {
                "metadata": {"labels": {"a": "b"}}, "spec": {"accessModes": ["ReadWriteOnce"]}}}}]}}))
        .unwrap()
    }

    #[tokio::test]
    async fn a_pods_own_claim_is_made_and_made_again() {
        let api = FakeApi::new();
        let _running = start(&api, run);
        let pod = api.create(&pod());
        let made = || api.get::<PersistentVolumeClaim>("default", "p-scratch");
        eventually("it is made", || made().is_some()).await;
        let claim = made().unwrap();
        assert!(is_of(&claim, &pod));
        assert_eq!(claim.metadata.labels.unwrap()["a"], "b");
        api.delete::<PersistentVolumeClaim>("default", "p-scratch");
        eventually("it is made again", || made().is_some()).await;
    }

    #[tokio::test]
    async fn somebody_elses_claim_of_the_name_is_not_taken() {
        let api = FakeApi::new();
        let other = PersistentVolumeClaim {
            metadata: crate::controllers::testing::meta("default", "p-scratch"),
            ..PersistentVolumeClaim::default()
        };
        api.create(&other);
        let _running = start(&api, run);
        api.create(&pod());
        eventually("it is told", || {
            let events = api.list::<k8s_openapi::api::core::v1::Event>();
            let reason = "EphemeralVolumeClaimNotCreated";
            events.iter().any(|event| event.reason.as_deref() == Some(reason))
        })
        .await;
        let claim = api.get::<PersistentVolumeClaim>("default", "p-scratch").unwrap();
        assert!(claim.metadata.owner_references.is_none());
    }
}
