//! Pods with volumes of a driver, from the first mount to the last trace, over a driver that only remembers.

use std::sync::Arc;

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::cri::fake::FakeRuntime;
use crate::host::fake::FakeHost;
use crate::host::mounts::{MountKind, Mounts as _};
use crate::kubelet::pods::harness::Harness;
use crate::plugins::csi::{Capability, Driver};
use crate::plugins::fake::{Effect, FakeDriver};

const NAME: &str = "csi.test";

struct Cluster {
    kubelet: Harness,
    runtime: FakeRuntime,
    host: FakeHost,
    driver: FakeDriver,
    _stop: tokio_util::sync::DropGuard,
    _dir: tempfile::TempDir,
}

async fn cluster(capabilities: &[Capability], rules: Value) -> Cluster {
    let (host, runtime) = (FakeHost::default(), FakeRuntime::new());
    let dir = tempfile::tempdir().unwrap();
    let endpoint = dir.path().join("csi.sock");
    let mounts = host.mounts.clone();
    let act = move |effect: Effect| {
        match effect {
            Effect::Mount { volume, target, block } => {
                match block {
                    true => std::fs::write(&target, "").unwrap(),
                    false => std::fs::create_dir_all(&target).unwrap(),
                }
                let source = format!("/{volume}").into();
                mounts.mount(&target, &MountKind::Bind { source, read_only: false }).unwrap();
            }
            Effect::Unmount { target, remove } => {
                mounts.unmount(&target, false).unwrap();
                if remove {
                    std::fs::remove_dir(&target).or_else(|_| std::fs::remove_file(&target)).ok();
                }
            }
        }
        Ok(())
    };
    let driver = FakeDriver::new(NAME, &endpoint, capabilities, act);
    let stop = CancellationToken::new();
    tokio::spawn(driver.clone().serve(None, stop.clone()));
    let kubelet = Harness::new(Arc::new(runtime.clone()), host.host());
    kubelet.put_object("/api/v1/nodes/n1", json!({"metadata": {"name": "n1"}, "status": {}}));
    let path = format!("/apis/storage.k8s.io/v1/csidrivers/{NAME}");
    kubelet.put_object(&path, json!({"metadata": {"name": NAME}, "spec": rules}));
    kubelet.create_object("secrets", "pw", json!({"data": {"key": "YWJj"}}));
    // Its socket is bound by a task of its own.
    let connected = loop {
        match Driver::connect(NAME, &endpoint).await {
            Ok(driver) => break driver,
            Err(_) => tokio::task::yield_now().await,
        }
    };
    kubelet.volumes().drivers().insert(connected);
    Cluster { kubelet, runtime, host, driver, _stop: stop.drop_guard(), _dir: dir }
}

impl Cluster {
    fn volume(&self, mode: &str, capacity: &str) {
        self.kubelet.put_object(
            "/api/v1/persistentvolumes/pv",
            json!({"metadata": {"name": "pv"}, "spec": {
                "capacity": {"storage": capacity}, "accessModes": ["ReadWriteOnce"], "volumeMode": mode,
                "claimRef": {"namespace": "default", "name": "c", "uid": "claim"},
                "csi": {"driver": NAME, "volumeHandle": "vol-1", "volumeAttributes": {"a": "b"},
                    "nodeStageSecretRef": {"namespace": "default", "name": "pw"}}}}),
        );
        self.kubelet.put_object(
            "/api/v1/namespaces/default/persistentvolumeclaims/c",
            json!({"metadata": {"name": "c", "namespace": "default", "uid": "claim"},
                "spec": {"volumeName": "pv", "resources": {"requests": {"storage": capacity}}},
                "status": {"phase": "Bound", "capacity": {"storage": "1Gi"}}}),
        );
    }

    fn pod(&self, name: &str, volume: Value, use_it: Value) {
        let mut container = json!({"name": "a", "image": "img", "imagePullPolicy": "Never"});
        container.as_object_mut().unwrap().extend(use_it.as_object().unwrap().clone());
        self.runtime.add_image("img");
        self.kubelet.create(
            name,
            json!({"terminationGracePeriodSeconds": 0, "serviceAccountName": "robot",
                "volumes": [volume], "containers": [container]}),
        );
    }

    fn in_use(&self) -> Value {
        self.kubelet.object("/api/v1/nodes/n1").unwrap()["status"]["volumesInUse"].clone()
    }
}

fn claimed() -> Value {
    json!({"name": "v", "persistentVolumeClaim": {"claimName": "c"}})
}

fn mounted() -> Value {
    json!({"volumeMounts": [{"name": "v", "mountPath": "/v"}]})
}

#[tokio::test]
async fn a_volume_is_staged_once_published_per_pod_and_taken_back_in_the_opposite_order() {
    let mut cluster = cluster(&[Capability::StageUnstageVolume], json!({"attachRequired": false})).await;
    cluster.volume("Filesystem", "1Gi");
    cluster.pod("one", claimed(), mounted());
    cluster.kubelet.ready("one").await;
    cluster.pod("two", claimed(), mounted());
    cluster.kubelet.ready("two").await;
    let up = ["stage vol-1 [] [key]", "publish vol-1", "publish vol-1"];
    assert_eq!(cluster.driver.calls(), up);
    assert_eq!(cluster.driver.contexts()[0]["a"], "b");
    cluster.kubelet.restart().await;
    cluster.kubelet.delete("one", 0);
    cluster.kubelet.gone("one").await;
    assert_eq!(cluster.driver.calls()[3..], ["unpublish vol-1"], "a restarted kubelet mounts nothing again");
    cluster.kubelet.delete("two", 0);
    cluster.kubelet.gone("two").await;
    assert_eq!(cluster.driver.calls()[4..], ["unpublish vol-1", "unstage vol-1"]);
    assert!(cluster.host.mounts.targets().is_empty());
    let plugins = cluster.kubelet.root.join("plugins/kubernetes.io/csi").join(NAME);
    assert_eq!(std::fs::read_dir(plugins).unwrap().count(), 0, "nothing is left on the disk");
    cluster.kubelet.end().await;
}

#[tokio::test]
async fn an_attached_volume_is_waited_for_and_shown_as_used_until_its_last_pod_is_gone() {
    let cluster = cluster(&[Capability::StageUnstageVolume], json!({})).await;
    cluster.volume("Filesystem", "1Gi");
    cluster.pod("one", claimed(), mounted());
    let id = crate::kubelet::images::archive::sha256(format!("vol-1{NAME}n1").as_bytes());
    let path = format!("/apis/storage.k8s.io/v1/volumeattachments/csi-{id}");
    cluster
        .kubelet
        .wait("one", "it waits", |_| cluster.in_use() == json!([format!("kubernetes.io/csi/{NAME}^vol-1")]))
        .await;
    assert!(cluster.driver.calls().is_empty(), "nothing is mounted before it is attached");
    let attached = json!({"metadata": {"name": format!("csi-{id}")},
        "spec": {"attacher": NAME, "nodeName": "n1", "source": {"persistentVolumeName": "pv"}},
        "status": {"attached": true, "attachmentMetadata": {"device": "/dev/x"}}});
    cluster.kubelet.put_object(&path, attached);
    cluster.kubelet.ready("one").await;
    assert_eq!(cluster.driver.calls(), ["stage vol-1 [/dev/x] [key]", "publish vol-1"]);
    cluster.kubelet.delete("one", 0);
    cluster.kubelet.gone("one").await;
    assert_eq!(cluster.in_use(), json!([]));
    cluster.kubelet.end().await;
}

#[tokio::test]
async fn a_volume_of_the_pods_own_is_published_with_what_the_driver_wants_to_know() {
    let rules =
        json!({"attachRequired": false, "podInfoOnMount": true, "volumeLifecycleModes": ["Ephemeral"]});
    let cluster = cluster(&[Capability::StageUnstageVolume], rules).await;
    let volume =
        json!({"name": "v", "csi": {"driver": NAME, "readOnly": true, "volumeAttributes": {"size": "1"}}});
    cluster.pod("one", volume, mounted());
    cluster.kubelet.ready("one").await;
    let id = crate::kubelet::images::archive::sha256(b"uid-onev");
    assert_eq!(cluster.driver.calls(), [format!("publish csi-{id} ro")], "it is not staged");
    let context = &cluster.driver.contexts()[0];
    for (key, value) in [("ephemeral", "true"), ("pod.name", "one"), ("serviceAccount.name", "robot")] {
        assert_eq!(context[&format!("csi.storage.k8s.io/{key}")], value);
    }
    assert_eq!(context["size"], "1");
    cluster.kubelet.delete("one", 0);
    cluster.kubelet.gone("one").await;
    assert_eq!(cluster.driver.calls()[1..], [format!("unpublish csi-{id}")]);
    cluster.kubelet.end().await;
}

#[tokio::test]
async fn a_device_is_handed_to_the_container_and_not_mounted() {
    let cluster = cluster(&[Capability::StageUnstageVolume], json!({"attachRequired": false})).await;
    cluster.volume("Block", "1Gi");
    cluster.pod("one", claimed(), json!({"volumeDevices": [{"name": "v", "devicePath": "/dev/data"}]}));
    cluster.kubelet.ready("one").await;
    let publish = cluster.kubelet.root.join("plugins/kubernetes.io/csi/volumeDevices/publish/pv/uid-one");
    assert!(cluster.host.mounts.at(&publish).is_some());
    cluster.kubelet.delete("one", 0);
    cluster.kubelet.gone("one").await;
    assert_eq!(cluster.driver.calls()[2..], ["unpublish vol-1", "unstage vol-1"]);
    cluster.kubelet.end().await;
}

#[tokio::test]
async fn a_volume_that_has_grown_is_expanded_when_it_is_mounted() {
    let cluster = cluster(&[Capability::ExpandVolume], json!({"attachRequired": false})).await;
    cluster.volume("Filesystem", "2Gi");
    cluster.pod("one", claimed(), mounted());
    cluster.kubelet.ready("one").await;
    assert_eq!(cluster.driver.calls(), ["publish vol-1".to_owned(), format!("expand vol-1 {}", 2_i64 << 30)]);
    let claim = cluster.kubelet.object("/api/v1/namespaces/default/persistentvolumeclaims/c").unwrap();
    assert_eq!(claim["status"]["capacity"]["storage"], "2Gi");
    cluster.kubelet.end().await;
}

#[tokio::test]
async fn a_driver_that_keeps_content_up_to_date_is_asked_again() {
    let rules = json!({"attachRequired": false, "requiresRepublish": true});
    let cluster = cluster(&[], rules).await;
    cluster.volume("Filesystem", "1Gi");
    cluster.pod("one", claimed(), mounted());
    let pod = cluster.kubelet.ready("one").await;
    let published = cluster.driver.calls().len();
    let pod: k8s_openapi::api::core::v1::Pod = serde_json::from_value(pod).unwrap();
    assert!(cluster.kubelet.volumes().csi().republishes(&pod).await);
    cluster.kubelet.volumes().prepare(&pod, &Default::default(), None).await.unwrap();
    assert_eq!(cluster.driver.calls().len(), published + 1);
    cluster.kubelet.end().await;
}

#[tokio::test]
async fn a_driver_that_does_not_do_such_volumes_is_not_asked() {
    let cluster = cluster(&[], json!({"attachRequired": false})).await;
    let volume = json!({"name": "v", "csi": {"driver": NAME}});
    let pod = crate::kubelet::pods::fixture::pod(json!({"volumes": [volume], "containers": []}));
    let wanted =
        super::Wanted::inline(&pod, &pod.spec.as_ref().unwrap().volumes.as_ref().unwrap()[0]).unwrap();
    let error = wanted.check(&Default::default()).unwrap_err();
    assert_eq!(error.to_string(), format!("driver {NAME} does not support volume lifecycle mode Ephemeral"));
    cluster.kubelet.end().await;
}
