//! Devices of device plugins: who offers which, and which container has which.
//!
//! Plugins register at a socket of the kubelet's and then tell what they have, for as long as they live. What a
//! container was given is kept in a file, so that a restarted kubelet gives nothing away twice.

mod book;
mod plugins;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Pod};
use tokio::sync::watch;
use tonic::transport::Channel;

use crate::cri::v1;
use crate::kubelet::containers::resources::units;
use crate::kubelet::spec::{self, Kind};
use crate::plugins::device::device_plugin_client::DevicePluginClient;
use crate::plugins::device::{
    AllocateRequest, ContainerAllocateRequest, ContainerAllocateResponse,
    ContainerPreferredAllocationRequest, PreStartContainerRequest, PreferredAllocationRequest,
};
use crate::plugins::{PluginError, answer};
use book::Book;
pub use plugins::run;

const LIMIT: Duration = Duration::from_secs(30);

/// How many devices of each resource there are, and how many of them work.
pub type Counts = BTreeMap<String, (usize, usize)>;

/// Devices that a container cannot have.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// There are too few.
    #[error(
        "requested number of devices unavailable for {resource}. Requested: {wanted}, Available: {available}"
    )]
    TooFew {
        /// The resource.
        resource: String,
        /// So many are asked for.
        wanted: usize,
        /// So many are free.
        available: usize,
    },
    /// The plugin refuses.
    #[error("Allocate failed due to {0}")]
    Plugin(#[from] PluginError),
    /// The file that keeps what was given cannot be written.
    #[error("write {0}")]
    Book(String, #[source] std::io::Error),
}

/// A plugin that offers a resource.
#[derive(Clone)]
struct Offer {
    client: DevicePluginClient<Channel>,
    /// It wants to hear of every start.
    pre_start: bool,
    /// It says which devices go well together.
    prefers: bool,
    /// Device to whether it works.
    devices: BTreeMap<String, bool>,
    /// Tells a plugin from the one that registered before it.
    generation: u64,
}

#[derive(Default)]
struct State {
    offers: HashMap<String, Offer>,
    /// All resources that were ever offered.
    known: BTreeSet<String>,
    book: Book,
}

/// What a container gets beside what its spec says.
#[derive(Debug, Default, PartialEq)]
pub struct Given {
    /// Environment.
    pub env: Vec<(String, String)>,
    /// Mounts.
    pub mounts: Vec<v1::Mount>,
    /// Device nodes.
    pub devices: Vec<v1::Device>,
    /// Annotations for the runtime.
    pub annotations: Vec<(String, String)>,
    /// Names of devices that the runtime looks up (CDI).
    pub cdi: Vec<String>,
}

/// The devices of this node.
pub struct Devices {
    directory: PathBuf,
    state: Mutex<State>,
    counts: watch::Sender<Counts>,
}

impl Devices {
    /// Nothing is offered yet; what was given before is read from the directory.
    pub fn new(root_dir: &Path) -> Arc<Self> {
        let directory = root_dir.join("device-plugins");
        let known = book::load_resources(&directory);
        let counts = known.iter().map(|name| (name.clone(), (0, 0))).collect();
        let state = State { book: Book::load(&directory), known, ..State::default() };
        Arc::new(Self { directory, state: Mutex::new(state), counts: watch::Sender::new(counts) })
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The counts, as they change.
    pub fn counts(&self) -> watch::Receiver<Counts> {
        self.counts.subscribe()
    }

    fn publish(&self) {
        let counts: Counts = {
            let State { offers, known, .. } = &*self.locked();
            let count = |name| {
                let devices = offers.get(name).map(|offer: &Offer| &offer.devices);
                let working = devices.into_iter().flatten().filter(|(_, works)| **works).count();
                (devices.map_or(0, BTreeMap::len), working)
            };
            known.iter().map(|name| (name.clone(), count(name))).collect()
        };
        self.counts.send_if_modified(|known| {
            let changed = *known != counts;
            *known = counts;
            changed
        });
    }

    /// A plugin offers a resource.
    fn offer(&self, resource: &str, offer: Offer) {
        let mut state = self.locked();
        state.offers.insert(resource.to_owned(), offer);
        if state.known.insert(resource.to_owned())
            && let Err(error) = book::save_resources(&self.directory, &state.known)
        {
            tracing::warn!(resource, %error, "resource of a device plugin is not noted");
        }
    }

    /// Gives a container the devices that its limits ask for, the same ones as before when it had some.
    ///
    /// # Errors
    /// There are too few, or the plugin refuses.
    pub async fn give(&self, pod: &Pod, kind: Kind, container: &Container) -> Result<Given, DeviceError> {
        let mut given = Given::default();
        let limits = container.resources.iter().flat_map(|resources| resources.limits.iter().flatten());
        for (resource, amount) in limits {
            let wanted = usize::try_from(units(amount)).unwrap_or(0);
            let preferred = self.preferred(pod, &container.name, resource, wanted).await;
            let chosen = self.choose(pod, kind, &container.name, resource, wanted, &preferred)?;
            let Some((offer, ids)) = chosen else { continue };
            let mut client = offer.client.clone();
            let request = AllocateRequest {
                container_requests: vec![ContainerAllocateRequest { devices_ids: ids.clone() }],
            };
            let allocated = answer("Allocate", LIMIT, client.allocate(request)).await?;
            if offer.pre_start {
                let request = PreStartContainerRequest { devices_ids: ids };
                answer("PreStartContainer", LIMIT, client.pre_start_container(request)).await?;
            }
            allocated.container_responses.into_iter().for_each(|response| given.add(response));
        }
        Ok(given)
    }

    /// Which of the free devices the plugin would give, when it has an opinion and there is a choice.
    async fn preferred(&self, pod: &Pod, container: &str, resource: &str, wanted: usize) -> Vec<String> {
        let uid = spec::uid(pod);
        let (mut client, request) = {
            let state = self.locked();
            let Some(offer) = state.offers.get(resource).filter(|offer| offer.prefers && wanted > 0) else {
                return Vec::new();
            };
            let available_device_ids = free(offer, &state.book, uid, container, resource);
            let chosen_already = state.book.of(uid, container, resource).len() == wanted;
            if chosen_already || available_device_ids.len() <= wanted {
                return Vec::new();
            }
            let left = |id: &&String| state.book.left_behind(uid, resource, id);
            let mut must_include_device_ids: Vec<_> =
                available_device_ids.iter().filter(left).cloned().collect();
            must_include_device_ids.truncate(wanted);
            let allocation_size = i32::try_from(wanted).unwrap_or(i32::MAX);
            let request = ContainerPreferredAllocationRequest {
                available_device_ids,
                must_include_device_ids,
                allocation_size,
            };
            (offer.client.clone(), PreferredAllocationRequest { container_requests: vec![request] })
        };
        match answer("GetPreferredAllocation", LIMIT, client.get_preferred_allocation(request)).await {
            Ok(answer) => answer.container_responses.into_iter().flat_map(|one| one.device_ids).collect(),
            Err(error) => {
                tracing::warn!(
                    resource,
                    error = &error as &dyn std::error::Error,
                    "no preference among devices"
                );
                Vec::new()
            }
        }
    }

    /// Picks devices and notes whose they are; `None` for a resource that no plugin offers.
    fn choose(
        &self,
        pod: &Pod,
        kind: Kind,
        container: &str,
        resource: &str,
        wanted: usize,
        preferred: &[String],
    ) -> Result<Option<(Offer, Vec<String>)>, DeviceError> {
        let mut state = self.locked();
        let State { offers, known, book } = &mut *state;
        let uid = spec::uid(pod);
        let Some(offer) = offers.get(resource).filter(|_| wanted > 0) else {
            // The plugin of devices that were given before has not come back yet.
            let absent = wanted > 0 && (known.contains(resource) || book.knows(resource));
            let too_few = || DeviceError::TooFew { resource: resource.to_owned(), wanted, available: 0 };
            return if absent { Err(too_few()) } else { Ok(None) };
        };
        let had = book.of(uid, container, resource);
        let works = |id: &String| offer.devices.get(id) == Some(&true);
        if had.len() == wanted && had.iter().all(works) {
            return Ok(Some((offer.clone(), had)));
        }
        let mut free = free(offer, book, uid, container, resource);
        // What a container of the pod has left behind is taken first, so that the pod as a whole takes no more than the
        // scheduler has counted; then what the plugin likes best.
        free.sort_by_key(|id| (!book.left_behind(uid, resource, id), !preferred.contains(id)));
        if free.len() < wanted {
            return Err(DeviceError::TooFew { resource: resource.to_owned(), wanted, available: free.len() });
        }
        free.truncate(wanted);
        book.note(uid, container, kind == Kind::Init, resource, &free);
        book.save(&self.directory)
            .map_err(|error| DeviceError::Book(self.directory.display().to_string(), error))?;
        Ok(Some((offer.clone(), free)))
    }

    /// What a container has, by resource.
    pub fn of(&self, uid: &str, container: &str) -> Vec<(String, Vec<String>)> {
        self.locked().book.all_of(uid, container)
    }

    /// The devices that work, by resource.
    pub fn working(&self) -> Vec<(String, Vec<String>)> {
        let state = self.locked();
        let working = |offer: &Offer| {
            offer.devices.iter().filter(|(_, works)| **works).map(|(id, _)| id.clone()).collect()
        };
        let mut all: Vec<_> =
            state.offers.iter().map(|(name, offer)| (name.clone(), working(offer))).collect();
        all.sort();
        all
    }

    /// Takes back what a pod had.
    pub fn take_back(&self, uid: &str) {
        let mut state = self.locked();
        if state.book.forget(uid)
            && let Err(error) = state.book.save(&self.directory)
        {
            tracing::warn!(pod = uid, %error, "devices given back are not noted");
        }
    }
}

/// The devices of a resource that work and that nobody else has.
fn free(offer: &Offer, book: &Book, uid: &str, container: &str, resource: &str) -> Vec<String> {
    let taken = book.taken(resource, (uid, container));
    let free = offer.devices.iter().filter(|(id, works)| **works && !taken.contains(*id));
    free.map(|(id, _)| id.clone()).collect()
}

impl Given {
    fn add(&mut self, response: ContainerAllocateResponse) {
        self.env.extend(response.envs);
        self.annotations.extend(response.annotations);
        self.cdi.extend(response.cdi_devices.into_iter().map(|device| device.name));
        self.mounts.extend(response.mounts.into_iter().map(|mount| v1::Mount {
            container_path: mount.container_path,
            host_path: mount.host_path,
            readonly: mount.read_only,
            ..v1::Mount::default()
        }));
        self.devices.extend(response.devices.into_iter().map(|device| v1::Device {
            container_path: device.container_path,
            host_path: device.host_path,
            permissions: device.permissions,
        }));
    }
}
