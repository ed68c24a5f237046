//! Which zones and nodes an endpoint is for: `trafficDistribution` of the service, or the older topology mode `Auto`.
//!
//! Closeness needs to know the endpoint alone. `Auto` shares the ready endpoints out so that each zone gets about its
//! part of the CPUs of all nodes, no zone more than a fifth too few; where that cannot be done there are no hints. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointHints, ForNode, ForZone};

use crate::api::quantity::Quantity;

/// Label of a node with its zone.
pub const ZONE: &str = "topology.kubernetes.io/zone";
const MODE: &str = "service.kubernetes.io/topology-mode";
const FORMER_MODE: &str = "service.kubernetes.io/topology-aware-hints";
/// Nodes with these labels do not count as places of clients.
const CONTROL_PLANE: [&str; 2] = ["node-role.kubernetes.io/control-plane", "node-role.kubernetes.io/master"];
/// How much more than its part a zone's endpoints may have to bear.
const OVERLOAD: f64 = 0.2;

/// Each zone's part of the CPUs of the cluster; empty when it cannot be told or there are fewer than two zones.
pub type Zones = BTreeMap<String, f64>;

/// What a service wants of hints.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Policy<'a> {
    /// No hints: any endpoint will do.
    None,
    /// Endpoints of the client's zone.
    SameZone,
    /// Endpoints of the client's node or else zone.
    SameNode,
    /// Endpoints in proportion to the zones' CPUs.
    Auto(&'a Zones),
}

impl<'a> Policy<'a> {
    /// The policy of a service.
    pub fn of(service: &Service, zones: &'a Zones) -> Self {
        if is_auto(service) {
            return Self::Auto(zones);
        }
        let distribution = service.spec.as_ref().and_then(|spec| spec.traffic_distribution.as_deref());
        match distribution {
            Some("PreferClose" | "PreferSameZone") => Self::SameZone,
            Some("PreferSameNode") => Self::SameNode,
            _ => Self::None,
        }
    }
}

/// The service has asked for endpoints in proportion to the zones' CPUs.
pub fn is_auto(service: &Service) -> bool {
    let annotations = service.metadata.annotations.as_ref();
    let mode = annotations.and_then(|all| all.get(MODE).or_else(|| all.get(FORMER_MODE)));
    mode.is_some_and(|mode| mode == "Auto" || mode == "auto")
}

/// What a node counts for, if it counts at all: its zone (empty if unknown) and its CPUs.
pub fn weight(node: &Node) -> Option<(String, f64)> {
    let labels = node.metadata.labels.as_ref();
    if CONTROL_PLANE.iter().any(|key| labels.is_some_and(|labels| labels.contains_key(*key))) {
        return None;
    }
    let status = node.status.as_ref()?;
    let ready = status.conditions.iter().flatten().find(|condition| condition.type_ == "Ready");
    if ready.is_none_or(|condition| condition.status != "True") {
        return None;
    }
    let cpu = status.allocatable.as_ref().and_then(|all| Quantity::parse(&all.get("cpu")?.0).ok());
    let cpu = cpu.map_or(0.0, |cpu| cpu.as_f64());
    Some((labels.and_then(|labels| labels.get(ZONE)).cloned().unwrap_or_default(), cpu))
}

/// The parts of the zones.
pub fn zones<'a>(nodes: impl IntoIterator<Item = &'a Node>) -> Zones {
    let mut zones = Zones::new();
    for (zone, cpu) in nodes.into_iter().filter_map(weight) {
        if zone.is_empty() || cpu <= 0.0 {
            return Zones::new();
        }
        *zones.entry(zone).or_default() += cpu;
    }
    let total: f64 = zones.values().sum();
    if zones.len() < 2 {
        return Zones::new();
    }
    zones.values_mut().for_each(|part| *part /= total);
    zones
}

/// Gives hints to endpoints that have none yet.
///
/// # Errors
/// `Auto` cannot be followed, and why not; no endpoint has hints then.
pub fn assign(policy: Policy<'_>, mut endpoints: Vec<&mut Endpoint>) -> Result<(), String> {
    endpoints.retain(|endpoint| is_ready(endpoint));
    match policy {
        Policy::None => Ok(()),
        Policy::SameZone => {
            endpoints.iter_mut().for_each(|endpoint| endpoint.hints = close(endpoint, false));
            Ok(())
        }
        Policy::SameNode => {
            endpoints.iter_mut().for_each(|endpoint| endpoint.hints = close(endpoint, true));
            Ok(())
        }
        Policy::Auto(zones) => share(zones, endpoints),
    }
}

fn is_ready(endpoint: &Endpoint) -> bool {
    endpoint.conditions.as_ref().is_some_and(|conditions| conditions.ready == Some(true))
}

fn for_zone(zone: &str) -> EndpointHints {
    EndpointHints { for_zones: Some(vec![ForZone { name: zone.to_owned() }]), for_nodes: None }
}

fn close(endpoint: &Endpoint, with_node: bool) -> Option<EndpointHints> {
    let for_zones = endpoint.zone.clone().map(|name| vec![ForZone { name }]);
    let for_nodes = endpoint.node_name.clone().filter(|_| with_node).map(|name| vec![ForNode { name }]);
    (for_zones.is_some() || for_nodes.is_some()).then_some(EndpointHints { for_nodes, for_zones })
}

fn whole(number: usize) -> f64 {
    f64::from(u32::try_from(number).unwrap_or(u32::MAX))
}

/// Every endpoint is for its own zone; then zones that have too many give some of theirs to zones that have too few.
fn share(zones: &Zones, endpoints: Vec<&mut Endpoint>) -> Result<(), String> {
    let count = endpoints.len();
    let sizes = || format!("({count} endpoints, {} zones)", zones.len());
    if zones.is_empty() {
        let message =
            "Insufficient Node information: allocatable CPU or zone not specified on one or more nodes";
        return Err(message.to_owned());
    }
    if zones.len() > count {
        return Err(format!("Insufficient number of endpoints {}", sizes()));
    }
    let least = |part: f64| (part * whole(count) / (1.0 + OVERLOAD)).ceil();
    if zones.values().map(|part| least(*part)).sum::<f64>() > whole(count) {
        let message =
            "Unable to allocate minimum required endpoints to each zone without exceeding overload threshold";
        return Err(format!("{message} {}", sizes()));
    }
    let zone_of = |endpoint: &Endpoint| endpoint.zone.clone().filter(|zone| !zone.is_empty());
    if endpoints.iter().any(|endpoint| zone_of(endpoint).is_none()) {
        return Err("One or more endpoints do not have a zone specified".to_owned());
    }
    let mut surplus: BTreeMap<&str, f64> =
        zones.iter().map(|(zone, part)| (zone.as_str(), -(part * whole(count)).max(least(*part)))).collect();
    for endpoint in &endpoints {
        if let Some(of_zone) = surplus.get_mut(endpoint.zone.as_deref().unwrap_or_default()) {
            *of_zone += 1.0;
        }
    }
    let mut moves = moves(surplus);
    for endpoint in endpoints {
        let zone = zone_of(endpoint).unwrap_or_default();
        let moved = moves.get_mut(&zone).and_then(Vec::pop);
        endpoint.hints = Some(for_zone(moved.as_deref().unwrap_or(&zone)));
    }
    Ok(())
}

/// For each zone with a surplus, the zones that its endpoints go to. What is left in the end is less than half an
/// endpoint on one side, or less than one on both.
fn moves(mut surplus: BTreeMap<&str, f64>) -> BTreeMap<String, Vec<String>> {
    let mut moves: BTreeMap<String, Vec<String>> = BTreeMap::new();
    loop {
        let most = surplus.iter().max_by(|a, b| a.1.total_cmp(b.1)).map(|(zone, n)| (*zone, *n));
        let least = surplus.iter().min_by(|a, b| a.1.total_cmp(b.1)).map(|(zone, n)| (*zone, *n));
        let (Some((giver, gives)), Some((taker, takes))) = (most, least) else { return moves };
        if gives < 0.5 || -takes < 0.5 || (gives < 1.0 && -takes < 1.0) {
            return moves;
        }
        moves.entry(giver.to_owned()).or_default().push(taker.to_owned());
        surplus.entry(giver).and_modify(|n| *n -= 1.0);
        surplus.entry(taker).and_modify(|n| *n += 1.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn endpoint(zone: Option<&str>, ready: bool) -> Endpoint {
        let body = json!({"addresses": ["10.0.0.1"], "nodeName": "n1", "zone": zone, "conditions": {"ready": ready}});
        serde_json::from_value(body).unwrap()
    }

    fn hints(endpoints: &[Endpoint]) -> Vec<Value> {
        endpoints.iter().map(|endpoint| serde_json::to_value(&endpoint.hints).unwrap()).collect()
    }

    fn assigned(policy: Policy<'_>, mut endpoints: Vec<Endpoint>) -> Result<Vec<Value>, String> {
        assign(policy, endpoints.iter_mut().collect())?;
        Ok(hints(&endpoints))
    }

    fn parts(all: &[(&str, f64)]) -> Zones {
        all.iter().map(|(zone, part)| ((*zone).to_owned(), *part)).collect()
    }

    #[test]
    fn closeness_is_the_endpoints_own_zone_and_node_while_it_is_ready() {
        let all = || vec![endpoint(Some("a"), true), endpoint(None, true), endpoint(Some("a"), false)];
        let zone = json!({"forZones": [{"name": "a"}]});
        let node = json!([{"name": "n1"}]);
        assert_eq!(assigned(Policy::SameZone, all()), Ok(vec![zone, Value::Null, Value::Null]));
        let both = json!({"forZones": [{"name": "a"}], "forNodes": node});
        let only_node = json!({"forNodes": node});
        assert_eq!(assigned(Policy::SameNode, all()), Ok(vec![both, only_node, Value::Null]));
        assert_eq!(assigned(Policy::None, all()), Ok(vec![Value::Null; 3]));
    }

    #[test]
    fn zones_with_too_many_endpoints_give_to_those_with_too_few() {
        let zones = parts(&[("a", 0.5), ("b", 0.5)]);
        let per_zone = |in_a: usize, in_b: usize| {
            let all = std::iter::repeat_n("a", in_a).chain(std::iter::repeat_n("b", in_b));
            let hints =
                assigned(Policy::Auto(&zones), all.map(|zone| endpoint(Some(zone), true)).collect()).unwrap();
            let count = |zone: &str| hints.iter().filter(|h| h["forZones"][0]["name"] == zone).count();
            (count("a"), count("b"))
        };
        for (given, expected) in
            [((2, 2), (2, 2)), ((4, 0), (2, 2)), ((5, 1), (3, 3)), ((1, 3), (2, 2)), ((5, 4), (5, 4))]
        {
            assert_eq!(per_zone(given.0, given.1), expected, "{given:?}");
        }
    }

    #[test]
    fn auto_says_why_it_gives_no_hints() {
        let zones = parts(&[("a", 0.5), ("b", 0.5)]);
        let none = Zones::new();
        let three = vec![endpoint(Some("a"), true); 3];
        for (policy, endpoints, expected) in [
            (Policy::Auto(&none), three.clone(), "Insufficient Node information"),
            (
                Policy::Auto(&zones),
                vec![three[0].clone()],
                "Insufficient number of endpoints (1 endpoints, 2 zones)",
            ),
            (
                Policy::Auto(&zones),
                three,
                "Unable to allocate minimum required endpoints to each zone without exceeding overload threshold (3 endpoints, 2 zones)",
            ),
            (
                Policy::Auto(&zones),
                vec![endpoint(Some("a"), true), endpoint(None, true)],
                "One or more endpoints do not have a zone specified",
            ),
        ] {
            let told = assigned(policy, endpoints).unwrap_err();
            assert!(told.starts_with(expected), "{told}");
        }
    }

    #[test]
    fn zones_weigh_by_the_cpus_of_their_ready_workers() {
        let node = |zone: Option<&str>, cpu: &str, ready: &str, labels: Value| -> Node {
            let mut all = labels;
            zone.inspect(|zone| all[ZONE] = (*zone).into());
            serde_json::from_value(json!({
                "metadata": {"labels": all},
                "status": {"allocatable": {"cpu": cpu}, "conditions": [{"type": "Ready", "status": ready}]},
            }))
            .unwrap()
        };
        let mut nodes = vec![
            node(Some("a"), "3", "True", json!({})),
            node(Some("b"), "500m", "True", json!({})),
            node(Some("b"), "500m", "True", json!({})),
            node(Some("b"), "64", "False", json!({})),
            node(None, "64", "True", json!({"node-role.kubernetes.io/control-plane": ""})),
        ];
        assert_eq!(zones(&nodes), parts(&[("a", 0.75), ("b", 0.25)]));
        nodes.push(node(None, "1", "True", json!({})));
        assert_eq!(zones(&nodes), Zones::new(), "a node of which the zone is not known");
    }
}
