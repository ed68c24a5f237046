//! The CPU manager with the static policy: containers of guaranteed pods that ask for whole processors have them to
//! themselves, all others share the rest.
//!
//! Who has what is kept in upstream's file `cpu_manager_state`, so that a restarted kubelet takes nothing from anybody.

mod take;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Pod};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::cri::{Runtime, v1};
use crate::host::cpus::{CpuSet, Processor};
use crate::kubelet::config::CpuManagerConfig;
use crate::kubelet::containers::qos::{QosClass, qos_class};
use crate::kubelet::containers::resources::amount;
use crate::kubelet::pods::admission::Rejection;
use crate::kubelet::pods::table::Table;
use crate::kubelet::spec;

/// File below the kubelet's root.
const FILE: &str = "cpu_manager_state";
const POLICY: &str = "static";
/// How often what containers run on is compared with what they should.
const PERIOD: Duration = Duration::from_secs(10);

/// Why there can be no such manager.
#[derive(Debug, thiserror::Error)]
pub enum CpuManagerError {
    /// Nothing is reserved.
    #[error("the static policy requires systemreserved.cpu + kubereserved.cpu to be greater than zero")]
    NothingReserved,
    /// More is reserved than there is.
    #[error("{0} processors cannot be reserved: there are {1}")]
    TooMuchReserved(usize, usize),
    /// A reserved processor is not there.
    #[error("the reserved processors {0} are not all switched on ({1})")]
    NoSuchProcessor(CpuSet, CpuSet),
    /// The machine or the configuration has changed under the pods.
    #[error("{} does not fit this machine and configuration: drain the node and remove it", .0.display())]
    Stale(PathBuf),
    /// The file cannot be written.
    #[error("write {}", .0.display())]
    Write(PathBuf, #[source] std::io::Error),
}

/// What the file holds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct State {
    policy_name: String,
    /// What everybody may use.
    default_cpu_set: String,
    /// Pod and container to processors.
    entries: BTreeMap<String, BTreeMap<String, String>>,
}

impl State {
    fn load(directory: &Path) -> Option<Self> {
        serde_json::from_slice(&std::fs::read(directory.join(FILE)).ok()?).ok()
    }

    fn save(&self, directory: &Path) -> std::io::Result<()> {
        let new = directory.join(format!("{FILE}.new"));
        std::fs::write(&new, serde_json::to_vec(self)?)?;
        std::fs::rename(new, directory.join(FILE))
    }

    fn of(&self, uid: &str, container: &str) -> Option<CpuSet> {
        self.entries.get(uid)?.get(container)?.parse().ok()
    }

    fn given(&self) -> CpuSet {
        let sets = self.entries.values().flat_map(BTreeMap::values).filter_map(|set| set.parse().ok());
        sets.fold(CpuSet::default(), |all, set: CpuSet| all.with(&set))
    }
}

/// The processors of this node.
pub struct CpuManager {
    config: CpuManagerConfig,
    topology: Vec<Processor>,
    reserved: CpuSet,
    directory: PathBuf,
    state: Mutex<State>,
    shared: watch::Sender<CpuSet>,
}

impl CpuManager {
    /// The manager, with what was given before. `reserved` is the reserved CPU in thousandths.
    ///
    /// # Errors
    /// Nothing is reserved, or what is there does not fit what was given before.
    pub fn new(
        config: CpuManagerConfig,
        topology: Vec<Processor>,
        reserved: i64,
        root_dir: &Path,
    ) -> Result<Self, CpuManagerError> {
        let all: CpuSet = topology.iter().map(|p| p.id).collect();
        let reserved = reserve(&config, &topology, &all, reserved)?;
        let fresh = State { policy_name: POLICY.to_owned(), ..State::default() };
        let known = State::load(root_dir);
        let mut state = match known {
            Some(known) if known.policy_name == POLICY => known,
            // The policy before gave nothing to anybody.
            _ => fresh,
        };
        // A pod without a directory left without a trace.
        state.entries.retain(|uid, _| root_dir.join("pods").join(uid).is_dir());
        let given = state.given();
        if !given.0.is_subset(&all.without(&reserved).0) {
            return Err(CpuManagerError::Stale(root_dir.join(FILE)));
        }
        let manager = Self {
            config,
            topology,
            reserved,
            directory: root_dir.to_owned(),
            state: Mutex::new(state),
            shared: watch::Sender::default(),
        };
        let mut state = manager.locked();
        manager.publish(&mut state).map_err(|error| CpuManagerError::Write(root_dir.join(FILE), error))?;
        drop(state);
        Ok(manager)
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn all(&self) -> CpuSet {
        self.topology.iter().map(|p| p.id).collect()
    }

    /// Writes the state down and tells everybody what is shared now.
    fn publish(&self, state: &mut State) -> std::io::Result<()> {
        let kept = if self.config.strict_reservation { self.reserved.clone() } else { CpuSet::default() };
        let shared = self.all().without(&state.given()).without(&kept);
        state.default_cpu_set = shared.to_string();
        self.shared.send_if_modified(|known| std::mem::replace(known, shared.clone()) != shared);
        state.save(&self.directory)
    }

    /// Gives a pod that is admitted the processors that its containers have to themselves.
    ///
    /// # Errors
    /// There are too few.
    pub fn admit(&self, pod: &Pod) -> Result<(), Rejection> {
        let mut state = self.locked();
        let before = state.entries.get(spec::uid(pod)).cloned();
        let mut changed = false;
        // What ordinary init containers had is there again for those after them.
        let mut reusable = CpuSet::default();
        for (kind, container) in spec::all_containers(pod) {
            let wanted = wanted(pod, &container);
            if wanted == 0 || kind == spec::Kind::Ephemeral {
                continue;
            }
            if let Some(had) = state.of(spec::uid(pod), &container.name).filter(|had| had.len() == wanted) {
                note(kind, &had, &mut reusable);
                continue;
            }
            let set = match self.choose(&state, &reusable, wanted) {
                Ok(set) => set,
                Err(rejection) => {
                    match before {
                        Some(before) => drop(state.entries.insert(spec::uid(pod).to_owned(), before)),
                        None => drop(state.entries.remove(spec::uid(pod))),
                    }
                    return Err(rejection);
                }
            };
            note(kind, &set, &mut reusable);
            changed = true;
            let entries = state.entries.entry(spec::uid(pod).to_owned()).or_default();
            entries.insert(container.name.clone(), set.to_string());
        }
        if !changed {
            return Ok(());
        }
        self.publish(&mut state).map_err(|error| unexpected(&format!("write {FILE}: {error}")))
    }

    fn choose(&self, state: &State, reusable: &CpuSet, wanted: usize) -> Result<CpuSet, Rejection> {
        let free = self.all().without(&state.given()).without(&self.reserved).with(reusable);
        let preferred = take::take(&self.topology, reusable, wanted);
        let Some(set) = preferred.or_else(|| take::take(&self.topology, &free, wanted)) else {
            let message = format!(
                "not enough cpus available to satisfy request: requested={wanted}, available={}",
                free.len()
            );
            return Err(unexpected(&message));
        };
        if self.config.full_cores_only && !take::whole_cores(&self.topology, &set) {
            let message = format!("SMT Alignment Error: requested {wanted} cpus are no whole cores");
            return Err(("SMTAlignmentError".to_owned(), message));
        }
        Ok(set)
    }

    /// What a container runs on, and whether it has that to itself.
    pub fn of(&self, uid: &str, container: &str) -> (CpuSet, bool) {
        match self.locked().of(uid, container) {
            Some(own) => (own, true),
            None => (self.shared.borrow().clone(), false),
        }
    }

    /// What a container has to itself.
    pub fn own(&self, uid: &str, container: &str) -> CpuSet {
        self.locked().of(uid, container).unwrap_or_default()
    }

    /// What can be given to containers at all.
    pub fn allocatable(&self) -> CpuSet {
        self.all().without(&self.reserved)
    }

    /// Takes back what a pod had.
    pub fn take_back(&self, uid: &str) {
        let mut state = self.locked();
        if state.entries.remove(uid).is_some()
            && let Err(error) = self.publish(&mut state)
        {
            tracing::warn!(pod = uid, %error, "processors given back are not noted");
        }
    }

    /// Keeps running containers on the processors that they should be on, until `stop`.
    pub async fn run(self: Arc<Self>, runtime: Arc<dyn Runtime>, table: Table, stop: CancellationToken) {
        let mut shared = self.shared.subscribe();
        // Container id to what it was told last.
        let mut told: BTreeMap<String, CpuSet> = BTreeMap::new();
        stop.run_until_cancelled(async {
            loop {
                self.reconcile(&runtime, &table, &mut told).await;
                tokio::select! {
                    _ = shared.changed() => {}
                    () = tokio::time::sleep(PERIOD) => {}
                }
            }
        })
        .await;
    }

    async fn reconcile(
        &self,
        runtime: &Arc<dyn Runtime>,
        table: &Table,
        told: &mut BTreeMap<String, CpuSet>,
    ) {
        let mut running = BTreeMap::new();
        for snapshot in table.snapshots() {
            let Some(pod) = &snapshot.pod else { continue };
            for container in snapshot.observed.containers.iter().filter(|c| c.running()) {
                running.insert(container.id.clone(), self.of(spec::uid(pod), &container.name).0);
            }
        }
        told.retain(|id, _| running.contains_key(id));
        for (id, set) in running {
            if told.get(&id) == Some(&set) || set.is_empty() {
                continue;
            }
            let request = v1::UpdateContainerResourcesRequest {
                container_id: id.clone(),
                linux: Some(v1::LinuxContainerResources {
                    cpuset_cpus: set.to_string(),
                    ..v1::LinuxContainerResources::default()
                }),
                ..v1::UpdateContainerResourcesRequest::default()
            };
            match runtime.update_container_resources(request).await {
                Ok(()) => drop(told.insert(id, set)),
                Err(error) => {
                    tracing::warn!(container = %id, error = &error as &dyn std::error::Error, "processors not set");
                }
            }
        }
    }
}

fn note(kind: spec::Kind, set: &CpuSet, reusable: &mut CpuSet) {
    *reusable = match kind {
        spec::Kind::Init => reusable.with(set),
        _ => reusable.without(set),
    };
}

fn unexpected(message: &str) -> Rejection {
    let message = format!("Allocate failed due to {message}, which is unexpected");
    ("UnexpectedAdmissionError".to_owned(), message)
}

/// How many processors a container has to itself: as many as it asks for, when they are whole and the pod is guaranteed.
fn wanted(pod: &Pod, container: &Container) -> usize {
    let milli = amount(container, false, "cpu").or_else(|| amount(container, true, "cpu")).unwrap_or(0);
    match qos_class(pod) {
        QosClass::Guaranteed if milli % 1000 == 0 => usize::try_from(milli / 1000).unwrap_or(0),
        _ => 0,
    }
}

fn reserve(
    config: &CpuManagerConfig,
    topology: &[Processor],
    all: &CpuSet,
    reserved: i64,
) -> Result<CpuSet, CpuManagerError> {
    if !config.reserved.is_empty() {
        return match config.reserved.0.is_subset(&all.0) {
            true => Ok(config.reserved.clone()),
            false => Err(CpuManagerError::NoSuchProcessor(config.reserved.clone(), all.clone())),
        };
    }
    let whole = usize::try_from(reserved.max(0).unsigned_abs().div_ceil(1000)).unwrap_or(usize::MAX);
    if whole == 0 {
        return Err(CpuManagerError::NothingReserved);
    }
    take::take(topology, all, whole).ok_or(CpuManagerError::TooMuchReserved(whole, all.len()))
}

#[cfg(test)]
mod tests;
