//! Draws addresses and node ports for Services.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Service, ServiceSpec};

use super::{headless, wants_health_port, wants_ip, wants_node_ports};
use crate::api::error::{ApiError, GroupKind};
use crate::api::field::{FieldError, FieldErrors, Path};
use crate::registry::allocators::node_ports::PortError;
use crate::registry::allocators::{Pools, Reservation};

pub(super) fn adopt(pools: &mut Pools, service: &Service) {
    ips_of(service).into_iter().for_each(|ip| pools.ips.adopt(ip));
    ports_of(service).into_iter().for_each(|port| pools.ports.adopt(port));
}

pub(super) fn release(pools: &mut Pools, service: &Service) {
    ips_of(service).into_iter().for_each(|ip| pools.ips.release(ip));
    ports_of(service).into_iter().for_each(|port| pools.ports.release(port));
}

pub(super) fn ips_of(service: &Service) -> Vec<IpAddr> {
    let spec = service.spec.as_ref();
    spec.and_then(|spec| spec.cluster_ips.as_ref())
        .into_iter()
        .flatten()
        .filter_map(|ip| ip.parse().ok())
        .collect()
}

pub(super) fn ports_of(service: &Service) -> Vec<u16> {
    let Some(spec) = &service.spec else { return Vec::new() };
    let ports = spec.ports.iter().flatten().filter_map(|port| port.node_port);
    let all = ports.chain(spec.health_check_node_port);
    let mut ports: Vec<u16> =
        all.filter_map(|port| u16::try_from(port).ok()).filter(|port| *port > 0).collect();
    ports.sort_unstable();
    ports.dedup();
    ports
}

fn invalid(service: &Service, error: FieldError) -> ApiError {
    let name = service.metadata.name.as_deref().unwrap_or_default();
    ApiError::invalid(&GroupKind::new("", "Service"), name, FieldErrors(vec![error]))
}

/// Draws what the Service needs and does not have, and notes what it no longer needs.
pub(super) fn allocate(
    pools: &mut Pools,
    service: &mut Service,
    old: Option<&Service>,
    reservation: &mut Reservation,
) -> Result<(), ApiError> {
    families(pools, service)?;
    let held_ips = old.map(ips_of).unwrap_or_default();
    let held_ports = old.map(ports_of).unwrap_or_default();
    if wants_ip(service) && !headless(service) {
        address(pools, service, &held_ips, reservation)?;
    }
    if wants_node_ports(service) {
        node_ports(pools, service, &held_ports, reservation)?;
    }
    if wants_health_port(service) {
        health_port(pools, service, &held_ports, reservation)?;
    }
    let (ips, ports) = (ips_of(service), ports_of(service));
    held_ips.into_iter().filter(|ip| !ips.contains(ip)).for_each(|ip| reservation.frees_ip(ip));
    held_ports.into_iter().filter(|port| !ports.contains(port)).for_each(|port| reservation.frees_port(port));
    Ok(())
}

/// The families of a Service: the cluster's one, or both where nothing ties it to the cluster. Asking for more than the
/// cluster has is refused.
fn families(pools: &Pools, service: &mut Service) -> Result<(), ApiError> {
    if !wants_ip(service) {
        return Ok(());
    }
    let (own, other) = if pools.ips.is_v4() { ("IPv4", "IPv6") } else { ("IPv6", "IPv4") };
    let free = headless(service)
        && service.spec.as_ref().is_some_and(|spec| spec.selector.as_ref().is_none_or(|s| s.is_empty()));
    let at = Path::new("spec");
    let wanted = service.spec.clone().unwrap_or_default();
    if !free && wanted.ip_family_policy.as_deref() == Some("RequireDualStack") {
        let at = at.child("ipFamilyPolicy");
        let message = "this cluster is not configured for dual-stack services";
        return Err(invalid(service, FieldError::invalid(&at, "RequireDualStack", message)));
    }
    let foreign = wanted.ip_families.iter().flatten().position(|family| family == other);
    if let Some(i) = foreign.filter(|_| !free) {
        let at = at.child("ipFamilies").index(i);
        return Err(invalid(service, FieldError::invalid(&at, other, "not configured on this cluster")));
    }
    let Some(spec) = service.spec.as_mut() else { return Ok(()) };
    let policy = if free { "RequireDualStack" } else { "SingleStack" };
    let policy = spec.ip_family_policy.get_or_insert_with(|| policy.to_owned());
    let both = free && policy != "SingleStack";
    if spec.ip_families.as_ref().is_none_or(Vec::is_empty) {
        let families = if both { vec![own.to_owned(), other.to_owned()] } else { vec![own.to_owned()] };
        spec.ip_families = Some(families);
    }
    Ok(())
}

fn address(
    pools: &mut Pools,
    service: &mut Service,
    held: &[IpAddr],
    reservation: &mut Reservation,
) -> Result<(), ApiError> {
    let at = Path::new("spec").child("clusterIPs");
    let wanted = service.spec.as_ref().and_then(|spec| spec.cluster_ip.clone()).filter(|ip| !ip.is_empty());
    let ip = match &wanted {
        Some(text) => {
            // What does not parse is for validation to refuse.
            let Ok(ip) = text.parse::<IpAddr>() else { return Ok(()) };
            if held.contains(&ip) {
                return Ok(());
            }
            pools.ips.take(ip).map_err(|error| {
                let message = format!("failed to allocate IP {ip}: {error}");
                invalid(service, FieldError::invalid(&at, [text], message))
            })?;
            ip
        }
        None => pools
            .ips
            .take_any()
            .map_err(|error| ApiError::internal(format!("failed to allocate a serviceIP: {error}")))?,
    };
    reservation.took_ip(ip);
    let spec = service.spec.get_or_insert_default();
    spec.cluster_ip = Some(ip.to_string());
    spec.cluster_ips = Some(vec![ip.to_string()]);
    Ok(())
}

fn node_ports(
    pools: &mut Pools,
    service: &mut Service,
    held: &[u16],
    reservation: &mut Reservation,
) -> Result<(), ApiError> {
    let mut mine: Vec<u16> = held.to_vec();
    let count = service.spec.as_ref().and_then(|spec| spec.ports.as_ref()).map_or(0, Vec::len);
    for i in 0..count {
        let at = Path::new("spec").child("ports").index(i).child("nodePort");
        let port = port_mut(service.spec.as_mut(), i);
        let Some(port) = port else { break };
        let wanted = port.node_port.unwrap_or(0);
        if wanted == 0 {
            let taken = pools
                .ports
                .take_any()
                .map_err(|error| ApiError::internal(format!("failed to allocate a nodePort: {error}")))?;
            port.node_port = Some(i32::from(taken));
            reservation.took_port(taken);
            mine.push(taken);
            continue;
        }
        let chosen = u16::try_from(wanted).unwrap_or(0);
        if mine.contains(&chosen) {
            continue;
        }
        take(pools, chosen)
            .map_err(|error| invalid(service, FieldError::invalid(&at, wanted, error.to_string())))?;
        reservation.took_port(chosen);
        mine.push(chosen);
    }
    Ok(())
}

fn port_mut(
    spec: Option<&mut ServiceSpec>,
    index: usize,
) -> Option<&mut k8s_openapi::api::core::v1::ServicePort> {
    spec?.ports.as_mut()?.get_mut(index)
}

fn take(pools: &mut Pools, port: u16) -> Result<(), PortError> {
    pools.ports.take(port)
}

fn health_port(
    pools: &mut Pools,
    service: &mut Service,
    held: &[u16],
    reservation: &mut Reservation,
) -> Result<(), ApiError> {
    let wanted = service.spec.as_ref().and_then(|spec| spec.health_check_node_port).unwrap_or(0);
    let chosen = u16::try_from(wanted).unwrap_or(0);
    if chosen > 0 && held.contains(&chosen) {
        return Ok(());
    }
    let port = if chosen == 0 { pools.ports.take_any() } else { take(pools, chosen).map(|()| chosen) };
    let port = port.map_err(|error| {
        ApiError::internal(format!("failed to allocate requested HealthCheck NodePort {wanted}: {error}"))
    })?;
    reservation.took_port(port);
    service.spec.get_or_insert_default().health_check_node_port = Some(i32::from(port));
    Ok(())
}
