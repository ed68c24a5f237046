//! What the tests of the controllers share: running one controller against the model of the API.

use super::{Clients, Context, ControllersConfig};
use crate::client::{Informers, fake::FakeApi};
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::{Namespace, Node, Pod, PodSpec};
use kube::api::ObjectMeta;
use std::{future::Future, sync::Arc};
use tokio_util::{sync::CancellationToken, sync::DropGuard, task::TaskTracker};

pub(super) const ROOT_CA: &str = "-----BEGIN CERTIFICATE-----\n";

/// A controller that runs until this is dropped.
pub(super) struct Running {
    _stop: DropGuard,
}

pub(super) fn start<F, Fut>(api: &Arc<FakeApi>, run: F) -> Running
where
    F: FnOnce(Context, CancellationToken) -> Fut,
    Fut: Future<Output = ()> + Send + 'static,
{
    start_with(api, ControllersConfig { root_ca_pem: ROOT_CA.into(), ..ControllersConfig::default() }, run)
}

pub(super) fn start_with<F, Fut>(api: &Arc<FakeApi>, config: ControllersConfig, run: F) -> Running
where
    F: FnOnce(Context, CancellationToken) -> Fut,
    Fut: Future<Output = ()> + Send + 'static,
{
    let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
    let informers = Informers::new(api.client(), stop.clone());
    let clients = Clients::shared(api.client());
    let context = Context::new(&clients, "test-controller", &informers, &Arc::new(config), &tasks, &stop);
    let work: BoxFuture<'static, ()> = Box::pin(run(context, stop.clone()));
    tokio::spawn(work);
    Running { _stop: stop.drop_guard() }
}

pub(super) fn meta(namespace: &str, name: &str) -> ObjectMeta {
    ObjectMeta {
        namespace: Some(namespace.to_owned()).filter(|namespace| !namespace.is_empty()),
        name: Some(name.to_owned()),
        ..ObjectMeta::default()
    }
}

pub(super) fn namespace(name: &str) -> Namespace {
    Namespace { metadata: meta("", name), ..Namespace::default() }
}

pub(super) fn node(name: &str) -> Node {
    Node { metadata: meta("", name), ..Node::default() }
}

/// A pod in `default` on a node (none if empty).
pub(super) fn pod(name: &str, node: &str) -> Pod {
    let node_name = Some(node.to_owned()).filter(|node| !node.is_empty());
    let spec = PodSpec { node_name, ..PodSpec::default() };
    Pod { metadata: meta("default", name), spec: Some(spec), ..Pod::default() }
}
