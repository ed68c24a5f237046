//! The pod resources API: on a socket of the node, monitors ask which container has which devices and processors.

use std::sync::Arc;

use axum::Router;
use k8s_openapi::api::core::v1::Pod;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use crate::kubelet::context::Context;
use crate::kubelet::pods::table::Table;
use crate::kubelet::spec::{self, Kind};
use crate::plugins::pod_resources::pod_resources_lister_server::{
    PodResourcesLister, PodResourcesListerServer,
};
use crate::plugins::pod_resources::{
    AllocatableResourcesRequest, AllocatableResourcesResponse, ContainerDevices, ContainerResources,
    GetPodResourcesRequest, GetPodResourcesResponse, ListPodResourcesRequest, ListPodResourcesResponse,
    PodResources,
};
use crate::plugins::serve;

/// Below the kubelet's root, as upstream.
const SOCKET: &str = "pod-resources/kubelet.sock";

/// Answers until `stop`.
pub async fn run(ctx: Arc<Context>, table: Table, stop: CancellationToken) {
    let socket = ctx.config.root_dir.join(SOCKET);
    let listener = match serve::bind(&socket) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(socket = %socket.display(), %error, "monitors cannot ask for the resources of pods");
            return;
        }
    };
    let server = PodResourcesListerServer::new(Lister { ctx, table });
    let router = serve::with(Router::new(), "v1.PodResourcesLister", server);
    serve::serve(listener, router, stop).await;
}

struct Lister {
    ctx: Arc<Context>,
    table: Table,
}

impl Lister {
    fn active(&self) -> Vec<Arc<Pod>> {
        let mut pods: Vec<Arc<Pod>> =
            self.table.snapshots().into_iter().filter(|s| s.active).filter_map(|s| s.pod).collect();
        pods.sort_by(|a, b| (spec::namespace(a), spec::name(a)).cmp(&(spec::namespace(b), spec::name(b))));
        pods
    }

    fn of_pod(&self, pod: &Pod) -> PodResources {
        let kept = |kind: &Kind| matches!(kind, Kind::Main | Kind::Sidecar);
        let containers = spec::all_containers(pod).filter(|(kind, _)| kept(kind));
        PodResources {
            name: spec::name(pod).to_owned(),
            namespace: spec::namespace(pod).to_owned(),
            containers: containers.map(|(_, c)| self.of_container(spec::uid(pod), c.name.clone())).collect(),
        }
    }

    fn of_container(&self, uid: &str, name: String) -> ContainerResources {
        let cpus = self.ctx.cpus.as_ref().map(|cpus| cpus.own(uid, &name)).unwrap_or_default();
        ContainerResources {
            devices: devices(self.ctx.devices.of(uid, &name)),
            cpu_ids: cpus.0.into_iter().map(i64::from).collect(),
            name,
        }
    }
}

/// One entry for each device, as upstream.
fn devices(of_resources: Vec<(String, Vec<String>)>) -> Vec<ContainerDevices> {
    let one = |resource: &str, id: String| ContainerDevices {
        resource_name: resource.to_owned(),
        device_ids: vec![id],
    };
    of_resources
        .into_iter()
        .flat_map(|(resource, ids)| ids.into_iter().map(|id| one(&resource, id)).collect::<Vec<_>>())
        .collect()
}

#[async_trait::async_trait]
impl PodResourcesLister for Lister {
    async fn list(
        &self,
        _: Request<ListPodResourcesRequest>,
    ) -> Result<Response<ListPodResourcesResponse>, Status> {
        let pod_resources = self.active().iter().map(|pod| self.of_pod(pod)).collect();
        Ok(Response::new(ListPodResourcesResponse { pod_resources }))
    }

    async fn get_allocatable_resources(
        &self,
        _: Request<AllocatableResourcesRequest>,
    ) -> Result<Response<AllocatableResourcesResponse>, Status> {
        let cpus = self.ctx.cpus.as_ref().map(|cpus| cpus.allocatable()).unwrap_or_default();
        Ok(Response::new(AllocatableResourcesResponse {
            devices: devices(self.ctx.devices.working()),
            cpu_ids: cpus.0.into_iter().map(i64::from).collect(),
        }))
    }

    async fn get(
        &self,
        request: Request<GetPodResourcesRequest>,
    ) -> Result<Response<GetPodResourcesResponse>, Status> {
        let GetPodResourcesRequest { pod_name, pod_namespace } = request.into_inner();
        let named = |pod: &&Arc<Pod>| spec::name(pod) == pod_name && spec::namespace(pod) == pod_namespace;
        let active = self.active();
        let Some(pod) = active.iter().find(named) else {
            return Err(Status::unknown(format!("pod {pod_name} in namespace {pod_namespace} not found")));
        };
        Ok(Response::new(GetPodResourcesResponse { pod_resources: Some(self.of_pod(pod)) }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cri::fake::FakeRuntime;
    use crate::host::fake::FakeHost;
    use crate::host::machine::Machine;
    use crate::kubelet::config::CpuManagerConfig;
    use crate::kubelet::cpus::CpuManager;
    use crate::kubelet::pods::harness::Harness;
    use crate::plugins::channel;
    use crate::plugins::pod_resources::pod_resources_lister_client::PodResourcesListerClient;
    use serde_json::json;

    #[tokio::test]
    async fn monitors_see_whose_the_processors_are() {
        let runtime = FakeRuntime::new();
        runtime.add_image("img:1");
        let host = FakeHost::default();
        let dir = tempfile::tempdir().unwrap();
        let config = CpuManagerConfig::default();
        let cpus = CpuManager::new(config, host.machine.processors(), 1000, dir.path()).unwrap();
        let harness = Harness::new_with_cpus(Arc::new(runtime), host.host(), Arc::new(cpus));
        let guaranteed = json!({"limits": {"cpu": "2", "memory": "1Gi"}});
        harness.create(
            "own",
            json!({"initContainers": [{"name": "i", "image": "img:1", "restartPolicy": "Always"}],
                "containers": [{"name": "a", "image": "img:1", "resources": guaranteed}]}),
        );
        let (ctx, table) = harness.parts();
        let socket = ctx.config.root_dir.join(SOCKET);
        let stop = CancellationToken::new();
        let server = tokio::spawn(run(ctx, table, stop.clone()));
        while !socket.exists() {
            tokio::task::yield_now().await;
        }
        let mut client = PodResourcesListerClient::new(channel(&socket));
        let pods = loop {
            let listed = client.list(ListPodResourcesRequest {}).await.unwrap().into_inner().pod_resources;
            if !listed.is_empty() {
                break listed;
            }
        };
        let shown: Vec<_> = pods[0].containers.iter().map(|c| (c.name.as_str(), c.cpu_ids.clone())).collect();
        // The sidecar asks for nothing, so the pod is not guaranteed and has nothing of its own.
        assert_eq!((pods[0].name.as_str(), shown), ("own", vec![("i", vec![]), ("a", vec![])]));
        harness.create(
            "alone",
            json!({"containers": [{"name": "a", "image": "img:1", "resources": guaranteed}]}),
        );
        let request = || GetPodResourcesRequest { pod_name: "alone".into(), pod_namespace: "default".into() };
        let found = loop {
            if let Ok(found) = client.get(request()).await {
                break found.into_inner().pod_resources.unwrap();
            }
        };
        assert_eq!(found.containers[0].cpu_ids, [2, 3]);
        let all =
            client.get_allocatable_resources(AllocatableResourcesRequest {}).await.unwrap().into_inner();
        assert_eq!(all.cpu_ids, [1, 2, 3]);
        let missing = GetPodResourcesRequest { pod_name: "x".into(), pod_namespace: "y".into() };
        let error = client.get(missing).await.unwrap_err();
        assert_eq!(error.message(), "pod x in namespace y not found");
        stop.cancel();
        server.await.unwrap();
        harness.end().await;
    }

    #[test]
    fn every_device_is_told_by_itself() {
        let got = devices(vec![("a.b/c".to_owned(), vec!["1".to_owned(), "2".to_owned()])]);
        let got: Vec<_> = got.iter().map(|d| (d.resource_name.as_str(), d.device_ids.join(","))).collect();
        assert_eq!(got, [("a.b/c", "1".to_owned()), ("a.b/c", "2".to_owned())]);
    }
}
