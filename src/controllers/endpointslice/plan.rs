//! Slices that are there against endpoints that should be: as few writes as possible. Pure.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{ObjectReference, Pod, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::Timestamp;

use super::hints::{self, Policy};
use super::select::{self, Family, Port};
use crate::client::EventType;
use crate::controllers::workload::{ownership, pods, template};

/// Most endpoints in one slice.
pub const MAX_ENDPOINTS: usize = 100;
/// Label with the service's name.
pub const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// Label with the name of who looks after the slice.
pub const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
/// This controller, in [`MANAGED_BY`].
pub const CONTROLLER: &str = "endpointslice-controller.k8s.io";
/// Label of slices of headless services.
pub const HEADLESS: &str = "service.kubernetes.io/headless";
/// Annotation with the time of the change that led to the present content.
pub const TRIGGER_TIME: &str = "endpoints.kubernetes.io/last-change-trigger-time";

/// Writes to slices.
#[derive(Debug, Default, PartialEq)]
pub struct Plan {
    /// Slices to create.
    pub create: Vec<EndpointSlice>,
    /// Slices to write back.
    pub update: Vec<EndpointSlice>,
    /// Slices to delete.
    pub delete: Vec<Arc<EndpointSlice>>,
    /// Events about hints: type, reason, message.
    pub events: Vec<(EventType, &'static str, String)>,
}

/// The topology that endpoints are described in.
#[derive(Debug)]
pub struct Topology<'a, F> {
    /// The zone of a node.
    pub zone_of: F,
    /// What the service wants of hints.
    pub policy: Policy<'a>,
}

/// Compares the service's slices with the pods it selects.
pub fn plan<F: Fn(&str) -> Option<String>>(
    service: &Service,
    selected: &[Arc<Pod>],
    slices: &[Arc<EndpointSlice>],
    trigger: Option<Timestamp>,
    topology: &Topology<'_, F>,
) -> Plan {
    let mut plan = Plan::default();
    let families = select::families(service);
    let of_family = |slice: &EndpointSlice, family: &Family| slice.address_type == family.as_str();
    for family in &families {
        let existing: Vec<_> = slices.iter().filter(|slice| of_family(slice, family)).cloned().collect();
        plan_family(&mut plan, service, selected, existing, *family, trigger, topology);
    }
    let foreign = slices.iter().filter(|slice| !families.iter().any(|family| of_family(slice, family)));
    plan.delete.extend(foreign.cloned());
    plan
}

fn plan_family<F: Fn(&str) -> Option<String>>(
    plan: &mut Plan,
    service: &Service,
    selected: &[Arc<Pod>],
    existing: Vec<Arc<EndpointSlice>>,
    family: Family,
    trigger: Option<Timestamp>,
    topology: &Topology<'_, F>,
) {
    let mut wanted: BTreeMap<Vec<Port>, Vec<Endpoint>> = BTreeMap::new();
    for pod in selected.iter().filter(|pod| select::is_candidate(pod)) {
        let Some(address) = select::address(pod, family) else { continue };
        let ports = select::ports(service, pod);
        if ports.is_empty() && !select::is_headless(service) {
            continue;
        }
        wanted.entry(ports).or_default().push(endpoint(service, pod, address, &topology.zone_of));
    }
    let hinted = hints::assign(topology.policy, wanted.values_mut().flatten().collect());
    tell_hints(plan, topology.policy, hinted, family, &existing);
    // Slices with ports that nobody has any more can take other ports.
    let (mut by_ports, mut free) = (BTreeMap::<_, Vec<_>>::new(), Vec::new());
    for slice in existing {
        let ports = ports_of(&slice);
        if wanted.contains_key(&ports) {
            by_ports.entry(ports).or_default().push(slice);
        } else {
            free.push(slice);
        }
    }
    let mut group = Group { service, family, trigger, plan, kept: 0 };
    for (ports, endpoints) in wanted {
        let slices = by_ports.remove(&ports).unwrap_or_default();
        group.fill(&ports, endpoints, slices, &mut free);
    }
    group.settle(free);
}

/// Events about the topology mode `Auto`, which is the only one that can fail.
fn tell_hints(
    plan: &mut Plan,
    policy: Policy<'_>,
    hinted: Result<(), String>,
    family: Family,
    existing: &[Arc<EndpointSlice>],
) {
    let before = existing.iter().flat_map(|slice| slice.endpoints.iter().flatten());
    let had_hints = before.into_iter().any(|endpoint| endpoint.hints.is_some());
    let event = match (policy, hinted) {
        (Policy::Auto(_), Err(why)) => (EventType::Warning, "TopologyAwareHintsDisabled", why),
        (Policy::Auto(_), Ok(())) if !had_hints => {
            let message = "Topology Aware Hints has been enabled".to_owned();
            (EventType::Normal, "TopologyAwareHintsEnabled", message)
        }
        (Policy::None, _) if had_hints => {
            let message = "Topology Aware Hints has been disabled".to_owned();
            (EventType::Warning, "TopologyAwareHintsDisabled", message)
        }
        _ => return,
    };
    plan.events.push((event.0, event.1, format!("{}, addressType: {}", event.2, family.as_str())));
}

/// The slices of one service and family in the making.
struct Group<'a> {
    service: &'a Service,
    family: Family,
    trigger: Option<Timestamp>,
    plan: &'a mut Plan,
    /// How many slices there are when the plan is carried out.
    kept: usize,
}

impl Group<'_> {
    /// Distributes `endpoints` over the slices that have these ports; slices that end up empty become `free`.
    fn fill(
        &mut self,
        ports: &[Port],
        endpoints: Vec<Endpoint>,
        slices: Vec<Arc<EndpointSlice>>,
        free: &mut Vec<Arc<EndpointSlice>>,
    ) {
        let mut missing: HashMap<String, Endpoint> =
            endpoints.into_iter().map(|endpoint| (identity(&endpoint), endpoint)).collect();
        let mut drafts: Vec<Draft> =
            slices.into_iter().map(|slice| Draft::keep(slice, &mut missing)).collect();
        let mut missing: Vec<_> = missing.into_values().collect();
        missing.sort_by_key(identity);
        // Slices that are written anyway are filled first, the fullest of them before the others.
        drafts.sort_by_key(|draft| (!draft.changed, usize::MAX - draft.endpoints.len()));
        for draft in drafts.iter_mut().filter(|draft| draft.changed && !draft.endpoints.is_empty()) {
            draft.take(&mut missing);
        }
        if !missing.is_empty()
            && let Some(draft) = drafts
                .iter_mut()
                .find(|draft| !draft.changed && !draft.endpoints.is_empty() && draft.room() >= missing.len())
        {
            draft.take(&mut missing);
        }
        for draft in drafts {
            if draft.endpoints.is_empty() {
                free.push(draft.slice);
            } else {
                self.finish(draft);
            }
        }
        while !missing.is_empty() {
            let rest = missing.split_off(missing.len().min(MAX_ENDPOINTS));
            let endpoints = std::mem::replace(&mut missing, rest);
            match free.pop() {
                Some(slice) => self.update(&slice, endpoints, ports),
                None => {
                    let slice = self.new_slice(endpoints, ports);
                    self.plan.create.push(slice);
                    self.kept += 1;
                }
            }
        }
    }

    fn finish(&mut self, draft: Draft) {
        if draft.changed
            || Some(self.labels()) != draft.slice.metadata.labels
            || !self.is_owner_set(&draft.slice)
        {
            let ports = ports_of(&draft.slice);
            self.update(&draft.slice, draft.endpoints, &ports);
        } else {
            self.kept += 1;
        }
    }

    /// Deletes what is left over, but keeps one empty slice for a service without endpoints.
    fn settle(&mut self, mut free: Vec<Arc<EndpointSlice>>) {
        if self.kept == 0 {
            let empty = free.iter().position(|slice| {
                slice.endpoints.as_ref().is_none_or(Vec::is_empty)
                    && slice.ports.as_ref().is_none_or(Vec::is_empty)
            });
            match (empty, free.is_empty()) {
                (Some(at), _) => drop(free.remove(at)),
                (None, false) => {
                    let slice = free.remove(0);
                    self.update(&slice, Vec::new(), &[]);
                }
                (None, true) => {
                    let slice = self.new_slice(Vec::new(), &[]);
                    self.plan.create.push(slice);
                }
            }
        }
        self.plan.delete.append(&mut free);
    }

    fn update(&mut self, slice: &EndpointSlice, endpoints: Vec<Endpoint>, ports: &[Port]) {
        let fresh = self.new_slice(endpoints, ports);
        let mut wanted = slice.clone();
        wanted.metadata.labels = fresh.metadata.labels;
        wanted.metadata.owner_references = fresh.metadata.owner_references;
        let annotations = wanted.metadata.annotations.get_or_insert_default();
        annotations.remove(TRIGGER_TIME);
        annotations.extend(fresh.metadata.annotations.into_iter().flatten());
        wanted.endpoints = fresh.endpoints;
        wanted.ports = fresh.ports;
        self.plan.update.push(wanted);
        self.kept += 1;
    }

    fn is_owner_set(&self, slice: &EndpointSlice) -> bool {
        ownership::controller_uid(&slice.metadata) == self.service.metadata.uid.as_deref()
    }

    /// The labels of a slice: the service's own, and those by which slices are found.
    fn labels(&self) -> BTreeMap<String, String> {
        let reserved = [SERVICE_NAME, MANAGED_BY, HEADLESS];
        let of_service = self.service.metadata.labels.clone().unwrap_or_default();
        let mut labels: BTreeMap<_, _> =
            of_service.into_iter().filter(|(key, _)| !reserved.contains(&key.as_str())).collect();
        let name = self.service.metadata.name.clone().unwrap_or_default();
        labels.insert(SERVICE_NAME.to_owned(), name);
        labels.insert(MANAGED_BY.to_owned(), CONTROLLER.to_owned());
        if select::is_headless(self.service) {
            labels.insert(HEADLESS.to_owned(), String::new());
        }
        labels
    }

    fn new_slice(&self, endpoints: Vec<Endpoint>, ports: &[Port]) -> EndpointSlice {
        let meta = &self.service.metadata;
        let trigger = self.trigger.map(|at| [(TRIGGER_TIME.to_owned(), at.to_string())].into());
        EndpointSlice {
            metadata: ObjectMeta {
                generate_name: Some(template::name_prefix(meta.name.as_deref().unwrap_or_default())),
                namespace: meta.namespace.clone(),
                labels: Some(self.labels()),
                annotations: trigger,
                owner_references: Some(vec![ownership::controller_reference("v1", "Service", meta)]),
                ..ObjectMeta::default()
            },
            address_type: self.family.as_str().to_owned(),
            endpoints: Some(endpoints),
            ports: Some(ports.iter().map(api_port).collect()),
        }
    }
}

/// An existing slice with the endpoints it keeps.
struct Draft {
    slice: Arc<EndpointSlice>,
    endpoints: Vec<Endpoint>,
    changed: bool,
}

impl Draft {
    /// Keeps those endpoints that are still wanted, in their present condition, and takes them out of `missing`.
    fn keep(slice: Arc<EndpointSlice>, missing: &mut HashMap<String, Endpoint>) -> Self {
        let before = slice.endpoints.as_deref().unwrap_or_default();
        let endpoints: Vec<_> = before.iter().filter_map(|old| missing.remove(&identity(old))).collect();
        let changed =
            endpoints.len() != before.len() || endpoints.iter().zip(before).any(|(a, b)| !same(a, b));
        Self { slice, endpoints, changed }
    }

    fn room(&self) -> usize {
        MAX_ENDPOINTS.saturating_sub(self.endpoints.len())
    }

    fn take(&mut self, missing: &mut Vec<Endpoint>) {
        let taken = missing.len().min(self.room());
        self.changed |= taken > 0;
        self.endpoints.extend(missing.drain(..taken));
    }
}

/// What makes an endpoint that endpoint, whatever condition it is in.
fn identity(endpoint: &Endpoint) -> String {
    let target = endpoint.target_ref.as_ref().and_then(|target| target.uid.as_deref()).unwrap_or_default();
    let hostname = endpoint.hostname.as_deref().unwrap_or_default();
    format!("{} {target} {hostname}", endpoint.addresses.join(" "))
}

fn same(a: &Endpoint, b: &Endpoint) -> bool {
    let strip = |endpoint: &Endpoint| {
        let mut endpoint = endpoint.clone();
        if let Some(target) = &mut endpoint.target_ref {
            target.resource_version = None;
        }
        endpoint
    };
    strip(a) == strip(b)
}

fn endpoint(
    service: &Service,
    pod: &Pod,
    address: &str,
    zone_of: &impl Fn(&str) -> Option<String>,
) -> Endpoint {
    let publish = service.spec.as_ref().and_then(|s| s.publish_not_ready_addresses).unwrap_or(false);
    let (serving, terminating) = (pods::is_ready(pod), pods::is_deleting(pod));
    let node = pods::node_name(pod);
    Endpoint {
        addresses: vec![address.to_owned()],
        conditions: Some(EndpointConditions {
            ready: Some(publish || serving && !terminating),
            serving: Some(serving),
            terminating: Some(terminating),
        }),
        hostname: select::published_hostname(service, pod).map(str::to_owned),
        node_name: node.map(str::to_owned),
        zone: node.and_then(zone_of),
        target_ref: Some(pod_reference(pod)),
        ..Endpoint::default()
    }
}

/// The reference from an endpoint to its pod.
pub fn pod_reference(pod: &Pod) -> ObjectReference {
    ObjectReference {
        kind: Some("Pod".to_owned()),
        namespace: pod.metadata.namespace.clone(),
        name: pod.metadata.name.clone(),
        uid: pod.metadata.uid.clone(),
        ..ObjectReference::default()
    }
}

fn api_port(port: &Port) -> EndpointPort {
    EndpointPort {
        name: Some(port.name.clone()),
        protocol: Some(port.protocol.clone()),
        port: Some(port.port),
        app_protocol: port.app_protocol.clone(),
    }
}

fn ports_of(slice: &EndpointSlice) -> Vec<Port> {
    let ports = slice.ports.iter().flatten().map(|port| Port {
        name: port.name.clone().unwrap_or_default(),
        protocol: port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()),
        port: port.port.unwrap_or(0),
        app_protocol: port.app_protocol.clone(),
    });
    let mut ports: Vec<_> = ports.collect();
    ports.sort();
    ports
}
