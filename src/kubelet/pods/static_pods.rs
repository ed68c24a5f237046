//! Pods from manifests on this node's disk, and the mirror pods that show them in the API.
//!
//! A static pod is run from its file alone, with or without an API server. Its UID is the hash of what the file says,
//! so that a changed file is another pod. The mirror is an API object that the node owns: it carries the status, and
//! deleting it only makes it come back.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use k8s_openapi::api::core::v1::{Pod, Toleration};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{Api, DeleteParams, PostParams, Preconditions};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::api::json;
use crate::api::yaml;
use crate::client::error;
use crate::client::informer::Informer;
use crate::kubelet::context::Context;
use crate::kubelet::images::archive::hex;
use crate::kubelet::images::import::watch::Changes;
use crate::kubelet::spec;

/// Annotation: where a pod comes from.
const SOURCE: &str = "kubernetes.io/config.source";
/// Annotation: the hash of a pod's manifest.
const HASH: &str = "kubernetes.io/config.hash";
/// Annotation: on a mirror pod, the hash of the pod that it shows.
const MIRROR: &str = "kubernetes.io/config.mirror";
const RETRY: Duration = Duration::from_secs(5);

/// The static pods of the moment.
pub type StaticPods = watch::Receiver<Vec<Arc<Pod>>>;

fn annotation<'a>(pod: &'a Pod, name: &str) -> Option<&'a str> {
    pod.metadata.annotations.as_ref()?.get(name).map(String::as_str)
}

/// The pod comes from a manifest, and is not what the API shows of it.
pub fn is_static(pod: &Pod) -> bool {
    annotation(pod, SOURCE) == Some("file") && mirrored(pod).is_none()
}

/// UID of the static pod that this API object shows.
pub fn mirrored(pod: &Pod) -> Option<&str> {
    annotation(pod, MIRROR)
}

/// Reads a manifest; the error says what is wrong with it.
fn parse(bytes: &[u8], node: &str) -> Result<Pod, String> {
    let value = yaml::decode(bytes).map_err(|e| e.to_string())?.value;
    if value["kind"] != "Pod" {
        return Err(format!("kind is {}, not Pod", value["kind"]));
    }
    let mut pod: Pod = json::typed_value(&value).map_err(|e| e.to_string())?;
    let Some(name) = pod.metadata.name.clone().filter(|n| !n.is_empty()) else {
        return Err("it has no name".to_owned());
    };
    if pod.spec.as_ref().is_none_or(|s| s.containers.is_empty()) {
        return Err("it has no containers".to_owned());
    }
    let hash = hex(&digest(&SHA256, &[node.as_bytes(), bytes].concat()).as_ref()[..16]);
    let metadata = &mut pod.metadata;
    metadata.name = Some(format!("{name}-{node}"));
    metadata.namespace.get_or_insert_with(|| "default".to_owned());
    let uid = metadata.uid.get_or_insert_with(|| hash.clone()).clone();
    let annotations = metadata.annotations.get_or_insert_default();
    annotations.insert(SOURCE.to_owned(), "file".to_owned());
    annotations.insert(HASH.to_owned(), uid);
    let spec = pod.spec.get_or_insert_default();
    spec.node_name = Some(node.to_owned());
    // What the API's defaults would say, as far as it matters here.
    spec.termination_grace_period_seconds.get_or_insert(30);
    let everything = Toleration {
        operator: Some("Exists".into()),
        effect: Some("NoExecute".into()),
        ..Default::default()
    };
    spec.tolerations.get_or_insert_default().push(everything);
    Ok(pod)
}

/// The pods that a directory's manifests describe; files that make no sense are left out with a warning.
pub fn read(directory: &Path, node: &str) -> Vec<Arc<Pod>> {
    let mut files: Vec<PathBuf> = match std::fs::read_dir(directory) {
        Ok(entries) => entries.flatten().map(|e| e.path()).filter(|p| p.is_file()).collect(),
        Err(_) => return Vec::new(),
    };
    files.sort();
    let mut out: BTreeMap<String, Arc<Pod>> = BTreeMap::new();
    for file in files {
        if file.file_name().is_none_or(|n| n.to_string_lossy().starts_with('.')) {
            continue;
        }
        let parsed = std::fs::read(&file).map_err(|e| e.to_string()).and_then(|bytes| parse(&bytes, node));
        match parsed {
            Ok(pod) => {
                let full = format!("{}/{}", spec::namespace(&pod), spec::name(&pod));
                out.entry(full).or_insert_with(|| Arc::new(pod));
            }
            Err(why) => tracing::warn!(file = %file.display(), why, "manifest not understood"),
        }
    }
    out.into_values().collect()
}

/// Reads the directory again whenever something in it changes, until `stop`.
pub async fn follow(
    directory: PathBuf,
    node: String,
    pods: watch::Sender<Vec<Arc<Pod>>>,
    stop: CancellationToken,
) {
    let work = async {
        loop {
            let mut changes = match Changes::of(&directory) {
                Ok(changes) => changes,
                Err(error) => {
                    tracing::warn!(directory = %directory.display(), %error, "manifests are not watched");
                    tokio::time::sleep(RETRY).await;
                    continue;
                }
            };
            loop {
                let now = read(&directory, &node);
                pods.send_if_modified(|known| {
                    let changed = *known != now;
                    *known = now;
                    changed
                });
                if let Err(error) = changes.next().await {
                    tracing::warn!(directory = %directory.display(), %error, "manifests are watched anew");
                    break;
                }
            }
        }
    };
    stop.run_until_cancelled(work).await;
}

/// What to do about the mirrors.
#[derive(Debug, PartialEq)]
enum Repair {
    Create(Arc<Pod>),
    Delete(Arc<Pod>),
}

/// Compares the static pods with the mirrors that the API has.
fn repairs(statics: &[Arc<Pod>], api: &[Arc<Pod>]) -> Vec<Repair> {
    let mut out = Vec::new();
    for mirror in api.iter().filter(|p| mirrored(p).is_some()) {
        let shows = statics.iter().any(|s| Some(spec::uid(s)) == mirrored(mirror));
        if !shows || mirror.metadata.deletion_timestamp.is_some() {
            out.push(Repair::Delete(mirror.clone()));
        }
    }
    for pod in statics {
        let taken = api
            .iter()
            .any(|p| spec::name(p) == spec::name(pod) && spec::namespace(p) == spec::namespace(pod));
        if !taken {
            out.push(Repair::Create(pod.clone()));
        }
    }
    out
}

/// Keeps a mirror in the API for each static pod, until `stop`.
pub async fn mirror(ctx: Arc<Context>, mut statics: StaticPods, api: Informer<Pod>, stop: CancellationToken) {
    let work = async {
        let mut changes = api.subscribe();
        api.synced().await;
        loop {
            let wanted = statics.borrow_and_update().clone();
            let mut failed = false;
            for repair in repairs(&wanted, &api.list()) {
                failed |= !perform(&ctx, repair).await;
            }
            tokio::select! {
                changed = statics.changed() => if changed.is_err() { return },
                _ = changes.next() => {}
                () = tokio::time::sleep(RETRY), if failed => {}
            }
        }
    };
    stop.run_until_cancelled(work).await;
}

async fn perform(ctx: &Context, repair: Repair) -> bool {
    let outcome = match &repair {
        Repair::Delete(mirror) => {
            let api: Api<Pod> = Api::namespaced(ctx.client.clone(), spec::namespace(mirror));
            let params = DeleteParams {
                grace_period_seconds: Some(0),
                preconditions: Some(Preconditions {
                    uid: mirror.metadata.uid.clone(),
                    resource_version: None,
                }),
                ..DeleteParams::default()
            };
            api.delete(spec::name(mirror), &params).await.map(drop)
        }
        Repair::Create(pod) => {
            let Some(owner) = node_owner(ctx) else { return false };
            let api: Api<Pod> = Api::namespaced(ctx.client.clone(), spec::namespace(pod));
            api.create(&PostParams::default(), &mirror_of(pod, owner)).await.map(drop)
        }
    };
    match outcome {
        Ok(()) => true,
        Err(e) if error::is_not_found(&e) && matches!(repair, Repair::Delete(_)) => true,
        Err(e) => {
            tracing::debug!(error = &e as &dyn std::error::Error, "mirror pod not as it should be");
            false
        }
    }
}

fn node_owner(ctx: &Context) -> Option<OwnerReference> {
    let node = ctx.node.borrow().clone()?;
    Some(OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Node".to_owned(),
        name: node.metadata.name.clone()?,
        uid: node.metadata.uid.clone()?,
        controller: Some(true),
        block_owner_deletion: None,
    })
}

/// The object that shows a static pod.
fn mirror_of(pod: &Pod, owner: OwnerReference) -> Pod {
    let mut mirror = Pod { metadata: pod.metadata.clone(), spec: pod.spec.clone(), status: None };
    let uid = mirror.metadata.uid.take().unwrap_or_default();
    mirror.metadata.annotations.get_or_insert_default().insert(MIRROR.to_owned(), uid);
    mirror.metadata.owner_references = Some(vec![owner]);
    mirror
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANIFEST: &str =
        "apiVersion: v1\nkind: Pod\nmetadata: {name: web}\nspec:\n  containers: [{name: a, image: i}]\n";

    fn mirror_for(pod: &Pod) -> Pod {
        let mut mirror = mirror_of(pod, OwnerReference::default());
        mirror.metadata.uid = Some("api".into());
        mirror
    }

    #[test]
    fn manifests_become_pods_of_this_node() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("web.yaml"), MANIFEST).unwrap();
        std::fs::write(dir.path().join("again.yaml"), MANIFEST.replace("image: i", "image: j")).unwrap();
        std::fs::write(dir.path().join(".hidden.yaml"), MANIFEST.replace("web", "hidden")).unwrap();
        std::fs::write(dir.path().join("broken.yaml"), "kind: Service\n").unwrap();
        let got = read(dir.path(), "n1");
        assert_eq!(got.len(), 1, "one pod per name");
        assert_eq!(spec::name(&got[0]), "web-n1");
        assert!(is_static(&got[0]) && !spec::uid(&got[0]).is_empty());
        let other = parse(MANIFEST.as_bytes(), "n1").unwrap();
        assert_ne!(spec::uid(&got[0]), spec::uid(&other), "another content is another pod");
        assert!(read(Path::new("/no/such"), "n1").is_empty());
    }

    #[test]
    fn mirrors_follow_the_manifests() {
        let pod = Arc::new(parse(MANIFEST.as_bytes(), "n1").unwrap());
        let mirror = Arc::new(mirror_for(&pod));
        assert_eq!(mirrored(&mirror), pod.metadata.uid.as_deref());
        assert!(!is_static(&mirror));
        assert_eq!(repairs(std::slice::from_ref(&pod), &[]), [Repair::Create(pod.clone())]);
        assert_eq!(repairs(std::slice::from_ref(&pod), std::slice::from_ref(&mirror)), []);
        assert_eq!(repairs(&[], std::slice::from_ref(&mirror)), [Repair::Delete(mirror.clone())]);
        let changed = Arc::new(parse(MANIFEST.replace("image: i", "image: j").as_bytes(), "n1").unwrap());
        assert_eq!(
            repairs(&[changed], std::slice::from_ref(&mirror)),
            [Repair::Delete(mirror.clone())],
            "first the old one goes"
        );
        let mut deleted = (*mirror).clone();
        deleted.metadata.deletion_timestamp =
            Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(jiff::Timestamp::UNIX_EPOCH));
        assert!(matches!(repairs(&[pod], &[Arc::new(deleted)]).as_slice(), [Repair::Delete(_)]));
    }
}
