//! A plugin that registers, tells and allocates, over real sockets.

use std::sync::Arc;

use axum::Router;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use k8s_openapi::api::core::v1::{Container, Pod};
use serde_json::json;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use super::{Counts, Devices, run};
use crate::kubelet::pods::fixture;
use crate::kubelet::spec::Kind;
use crate::plugins::device::device_plugin_server::{DevicePlugin, DevicePluginServer};
use crate::plugins::device::registration_client::RegistrationClient;
use crate::plugins::device::*;
use crate::plugins::{channel, serve};

const RESOURCE: &str = "test.dev/thing";

/// Its devices, and which of them it likes best.
struct Plugin(watch::Receiver<Vec<(&'static str, &'static str)>>, Option<&'static str>);

#[async_trait::async_trait]
impl DevicePlugin for Plugin {
    type ListAndWatchStream = BoxStream<'static, Result<ListAndWatchResponse, Status>>;

    async fn get_device_plugin_options(
        &self,
        _: Request<Empty>,
    ) -> Result<Response<DevicePluginOptions>, Status> {
        Ok(Response::new(DevicePluginOptions::default()))
    }

    async fn list_and_watch(&self, _: Request<Empty>) -> Result<Response<Self::ListAndWatchStream>, Status> {
        let mut list = self.0.clone();
        list.mark_changed();
        let updates = futures::stream::unfold(list, |mut list| async move {
            list.changed().await.ok()?;
            let device = |(id, health): &(&str, &str)| Device { id: (*id).into(), health: (*health).into() };
            let devices = list.borrow_and_update().iter().map(device).collect();
            Some((Ok(ListAndWatchResponse { devices }), list))
        });
        Ok(Response::new(updates.boxed()))
    }

    async fn get_preferred_allocation(
        &self,
        request: Request<PreferredAllocationRequest>,
    ) -> Result<Response<PreferredAllocationResponse>, Status> {
        let Some(best) = self.1 else { return Err(Status::unimplemented("no preference")) };
        let wanted = request.into_inner().container_requests.remove(0);
        assert!(wanted.available_device_ids.contains(&best.to_owned()) && wanted.allocation_size == 1);
        let best = ContainerPreferredAllocationResponse { device_ids: vec![best.to_owned()] };
        Ok(Response::new(PreferredAllocationResponse { container_responses: vec![best] }))
    }

    async fn allocate(
        &self,
        request: Request<AllocateRequest>,
    ) -> Result<Response<AllocateResponse>, Status> {
        let responses = request.into_inner().container_requests.into_iter().map(|wanted| {
            let ids = wanted.devices_ids.join(",");
            ContainerAllocateResponse {
                envs: [("THINGS".to_owned(), ids.clone())].into(),
                mounts: vec![Mount { container_path: "/c".into(), host_path: "/h".into(), read_only: true }],
                devices: vec![DeviceSpec {
                    container_path: "/dev/c".into(),
                    host_path: "/dev/h".into(),
                    permissions: "rw".into(),
                }],
                annotations: Default::default(),
                cdi_devices: vec![CdiDevice { name: format!("test.dev/thing={ids}") }],
            }
        });
        Ok(Response::new(AllocateResponse { container_responses: responses.collect() }))
    }

    async fn pre_start_container(
        &self,
        _: Request<PreStartContainerRequest>,
    ) -> Result<Response<PreStartContainerResponse>, Status> {
        Ok(Response::new(PreStartContainerResponse {}))
    }
}

struct Node {
    devices: Arc<Devices>,
    list: watch::Sender<Vec<(&'static str, &'static str)>>,
    plugin: CancellationToken,
    _stop: tokio_util::sync::DropGuard,
    dir: tempfile::TempDir,
}

async fn node() -> Node {
    node_with(None).await
}

async fn node_with(best: Option<&'static str>) -> Node {
    let dir = tempfile::tempdir().unwrap();
    let devices = Devices::new(dir.path());
    let stop = CancellationToken::new();
    let (list, seen) = watch::channel(vec![("a", "Healthy"), ("b", "Healthy"), ("c", "Unhealthy")]);
    let plugin = stop.child_token();
    let listener = serve::bind(&dir.path().join("device-plugins/thing.sock")).unwrap();
    let router =
        serve::with(Router::new(), "v1beta1.DevicePlugin", DevicePluginServer::new(Plugin(seen, best)));
    tokio::spawn(serve::serve(listener, router, plugin.clone()));
    tokio::spawn(run(devices.clone(), stop.clone()));
    let socket = dir.path().join("device-plugins/kubelet.sock");
    let mut kubelet = RegistrationClient::new(channel(&socket));
    let request = RegisterRequest {
        version: "v1beta1".into(),
        endpoint: "thing.sock".into(),
        resource_name: RESOURCE.into(),
        options: Some(DevicePluginOptions { get_preferred_allocation_available: true, ..Default::default() }),
    };
    // Its socket is bound by a task of its own.
    while kubelet.register(request.clone()).await.is_err() {
        tokio::task::yield_now().await;
    }
    let old = RegisterRequest { version: "v1alpha1".into(), ..request };
    assert!(kubelet.register(old).await.unwrap_err().message().contains("not supported"));
    Node { devices, list, plugin, _stop: stop.drop_guard(), dir }
}

async fn counted(node: &Node, wanted: (usize, usize)) {
    let wanted: Counts = [(RESOURCE.to_owned(), wanted)].into();
    let mut counts = node.devices.counts();
    let waited =
        tokio::time::timeout(std::time::Duration::from_secs(20), counts.wait_for(|now| *now == wanted));
    waited.await.unwrap().unwrap();
}

fn pod(uid: &str) -> Pod {
    let mut pod = fixture::pod(json!({"containers": []}));
    pod.metadata.uid = Some(uid.to_owned());
    pod
}

fn container(name: &str, amount: &str) -> Container {
    serde_json::from_value(json!({"name": name, "resources": {"limits": {RESOURCE: amount, "cpu": "1"}}}))
        .unwrap()
}

async fn things(
    devices: &Devices,
    uid: &str,
    kind: Kind,
    name: &str,
    amount: &str,
) -> Result<String, String> {
    let given = devices.give(&pod(uid), kind, &container(name, amount)).await.map_err(|e| e.to_string())?;
    Ok(given.env.into_iter().find(|(key, _)| key == "THINGS").map(|(_, value)| value).unwrap_or_default())
}

#[tokio::test]
async fn containers_get_devices_that_work_and_keep_them_over_a_restart() {
    let node = node().await;
    counted(&node, (3, 2)).await;
    let given = node.devices.give(&pod("u1"), Kind::Main, &container("x", "1")).await.unwrap();
    assert_eq!(given.env, [("THINGS".to_owned(), "a".to_owned())]);
    assert_eq!((given.devices[0].host_path.as_str(), given.mounts[0].readonly), ("/dev/h", true));
    assert_eq!(given.cdi, ["test.dev/thing=a"]);
    assert_eq!(things(&node.devices, "u1", Kind::Main, "x", "1").await.unwrap(), "a", "the same again");
    let error = things(&node.devices, "u2", Kind::Main, "x", "2").await.unwrap_err();
    assert!(error.contains("Requested: 2, Available: 1"), "{error}");
    let restarted = Devices::new(node.dir.path());
    assert!(restarted.locked().book.taken(RESOURCE, ("u2", "x")).contains("a"));
    node.devices.take_back("u1");
    assert_eq!(things(&node.devices, "u2", Kind::Main, "x", "2").await.unwrap(), "a,b");
}

#[tokio::test]
async fn the_plugin_says_which_of_several_devices_it_likes_best() {
    let node = node_with(Some("b")).await;
    counted(&node, (3, 2)).await;
    assert_eq!(things(&node.devices, "u1", Kind::Main, "x", "1").await.unwrap(), "b");
    assert_eq!(
        things(&node.devices, "u1", Kind::Main, "x", "1").await.unwrap(),
        "b",
        "it is not asked again"
    );
    assert_eq!(things(&node.devices, "u2", Kind::Main, "x", "1").await.unwrap(), "a", "there is no choice");
    assert_eq!(node.devices.of("u1", "x"), [(RESOURCE.to_owned(), vec!["b".to_owned()])]);
    assert_eq!(node.devices.working()[0].1, ["a", "b"]);
}

#[tokio::test]
async fn a_container_waits_for_the_plugin_of_the_devices_that_it_had() {
    let node = node().await;
    counted(&node, (3, 2)).await;
    things(&node.devices, "u1", Kind::Main, "x", "1").await.unwrap();
    let restarted = Devices::new(node.dir.path());
    let error = things(&restarted, "u1", Kind::Main, "x", "1").await.unwrap_err();
    assert!(error.contains("Requested: 1, Available: 0"), "{error}");
    assert_eq!(*restarted.counts().borrow(), [(RESOURCE.to_owned(), (0, 0))].into(), "not even counted");
}

#[tokio::test]
async fn what_an_init_container_had_is_the_next_ones_first() {
    let node = node().await;
    counted(&node, (3, 2)).await;
    node.list.send_replace(vec![("a", "Healthy"), ("b", "Healthy")]);
    counted(&node, (2, 2)).await;
    assert_eq!(things(&node.devices, "u0", Kind::Main, "x", "1").await.unwrap(), "a");
    assert_eq!(things(&node.devices, "u1", Kind::Init, "i", "1").await.unwrap(), "b");
    assert_eq!(things(&node.devices, "u1", Kind::Main, "x", "1").await.unwrap(), "b");
    assert!(things(&node.devices, "u1", Kind::Main, "y", "1").await.is_err(), "nothing is given twice");
}

#[tokio::test]
async fn devices_of_a_plugin_that_is_gone_do_not_work() {
    let node = node().await;
    counted(&node, (3, 2)).await;
    node.list.send_replace(vec![("a", "Healthy")]);
    counted(&node, (1, 1)).await;
    node.plugin.cancel();
    counted(&node, (1, 0)).await;
}
