//! The registration of device plugins, and what each of them has to say.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::Router;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::{Request, Response, Status};

use super::{Devices, Offer};
use crate::plugins::device::device_plugin_client::DevicePluginClient;
use crate::plugins::device::registration_server::{Registration, RegistrationServer};
use crate::plugins::device::{Empty, RegisterRequest};
use crate::plugins::{channel, serve};

const VERSION: &str = "v1beta1";
const HEALTHY: &str = "Healthy";

/// Serves the registration until `stop`.
pub async fn run(devices: Arc<Devices>, stop: CancellationToken) {
    let socket = devices.directory.join("kubelet.sock");
    let listener = match serve::bind(&socket) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(socket = %socket.display(), %error, "device plugins cannot register");
            return;
        }
    };
    let tasks = TaskTracker::new();
    let registry =
        Registry { devices, tasks: tasks.clone(), stop: stop.clone(), generation: AtomicU64::new(1) };
    let router = serve::with(Router::new(), "v1beta1.Registration", RegistrationServer::new(registry));
    serve::serve(listener, router, stop).await;
    tasks.close();
    tasks.wait().await;
}

struct Registry {
    devices: Arc<Devices>,
    tasks: TaskTracker,
    stop: CancellationToken,
    generation: AtomicU64,
}

#[async_trait::async_trait]
impl Registration for Registry {
    async fn register(&self, request: Request<RegisterRequest>) -> Result<Response<Empty>, Status> {
        let request = request.into_inner();
        if request.version != VERSION {
            let why = format!("requested API version {:?} is not supported by kubelet", request.version);
            return Err(Status::invalid_argument(why));
        }
        let named = request.resource_name.split_once('/').is_some_and(|(domain, name)| {
            !name.is_empty() && domain.contains('.') && !domain.ends_with("kubernetes.io")
        });
        if !named || request.endpoint.contains('/') {
            let why = format!("the ResourceName {:?} is invalid", request.resource_name);
            return Err(Status::invalid_argument(why));
        }
        let generation = self.generation.fetch_add(1, Ordering::Relaxed);
        let (devices, stop) = (self.devices.clone(), self.stop.clone());
        self.tasks.spawn(async move {
            stop.run_until_cancelled(follow(&devices, request, generation)).await;
        });
        Ok(Response::new(Empty {}))
    }
}

/// Listens to a plugin for as long as it talks. Afterwards its devices still exist but do not work.
async fn follow(devices: &Devices, request: RegisterRequest, generation: u64) {
    let resource = request.resource_name;
    let endpoint = devices.directory.join(Path::new(&request.endpoint));
    let client = DevicePluginClient::new(channel(&endpoint));
    let options = request.options.unwrap_or_default();
    let (pre_start, prefers) = (options.pre_start_required, options.get_preferred_allocation_available);
    let offer = Offer { client: client.clone(), pre_start, prefers, devices: Default::default(), generation };
    devices.offer(&resource, offer);
    tracing::info!(resource, endpoint = %endpoint.display(), "device plugin registered");
    if let Err(status) = listen(devices, &resource, client, generation).await {
        tracing::warn!(resource, %status, "device plugin is gone");
    }
    change(devices, &resource, generation, |offer| {
        offer.devices.values_mut().for_each(|works| *works = false)
    });
}

async fn listen(
    devices: &Devices,
    resource: &str,
    mut client: DevicePluginClient<tonic::transport::Channel>,
    generation: u64,
) -> Result<(), Status> {
    let mut updates = client.list_and_watch(Empty {}).await?.into_inner();
    while let Some(update) = updates.message().await? {
        let list = update.devices.into_iter().map(|device| (device.id, device.health == HEALTHY)).collect();
        change(devices, resource, generation, |offer| offer.devices = list);
    }
    Ok(())
}

/// Changes an offer unless another plugin has taken the resource over.
fn change(devices: &Devices, resource: &str, generation: u64, with: impl FnOnce(&mut Offer)) {
    if let Some(offer) = devices.locked().offers.get_mut(resource).filter(|o| o.generation == generation) {
        with(offer);
    }
    devices.publish();
}
