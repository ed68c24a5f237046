//! Services.

pub mod addresses;
mod allocate;
pub mod cells;
mod defaults;
mod details;
mod validate;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::jiff::Timestamp;
use serde_json::Value;

use crate::api::error::ApiError;
use crate::api::field::FieldErrors;
use crate::registry::allocators::claims::Number;
use crate::registry::allocators::{self, Allocators, Pools, Reservation};
use crate::registry::context::RequestContext;
use crate::registry::strategy::Strategy;

/// The strategy of Services.
pub struct ServiceStrategy;

impl Strategy for ServiceStrategy {
    type Object = Service;

    fn default(&self, service: &mut Service) {
        defaults::service(service);
    }

    fn prepare_for_create(&self, _: &RequestContext, service: &mut Service) {
        service.status = Some(k8s_openapi::api::core::v1::ServiceStatus {
            load_balancer: Some(Default::default()),
            ..Default::default()
        });
        defaults::normalize_ips(service);
    }

    fn prepare_for_update(&self, _: &RequestContext, service: &mut Service, old: &Service) {
        defaults::drop_unused(service, old);
        defaults::keep_allocated(service, old);
        defaults::normalize_ips(service);
    }

    fn validate(&self, service: &Service, errors: &mut FieldErrors) {
        validate::service(service, errors);
    }

    fn validate_update(&self, service: &Service, old: &Service, errors: &mut FieldErrors) {
        addresses::update(service, old, errors);
        details::update(service, old, errors);
    }

    fn validate_status_update(&self, service: &Service, _: &Service, errors: &mut FieldErrors) {
        details::status(service, errors);
    }

    fn allocate(
        &self,
        allocators: &Allocators,
        service: &mut Service,
        old: Option<&Service>,
        reservation: &mut Reservation,
    ) -> Result<(), ApiError> {
        allocate::allocate(&mut allocators.lock(), service, old, reservation)
    }

    fn release(&self, allocators: &Allocators, service: &Service) {
        allocate::release(&mut allocators.lock(), service);
    }

    fn cells(&self, service: &Service, now: Timestamp) -> Vec<Value> {
        cells::cells(service, now)
    }
}

/// The addresses and ports that a Service holds.
pub fn numbers(service: &Service) -> Vec<Number> {
    allocators::numbers(&allocate::ips_of(service), &allocate::ports_of(service))
}

/// Marks what a stored Service holds as taken.
pub fn adopt(pools: &mut Pools, service: &Service) {
    allocate::adopt(pools, service);
}

fn kind(service: &Service) -> &str {
    service.spec.as_ref().and_then(|spec| spec.type_.as_deref()).unwrap_or("ClusterIP")
}

/// Whether the Service has an address or is at least headless.
fn wants_ip(service: &Service) -> bool {
    matches!(kind(service), "ClusterIP" | "NodePort" | "LoadBalancer")
}

fn headless(service: &Service) -> bool {
    service.spec.as_ref().and_then(|spec| spec.cluster_ip.as_deref()) == Some("None")
}

fn wants_node_ports(service: &Service) -> bool {
    let asks = service.spec.as_ref().and_then(|spec| spec.allocate_load_balancer_node_ports).unwrap_or(true);
    kind(service) == "NodePort" || (kind(service) == "LoadBalancer" && asks)
}

/// Whether the Service has a node port for health checks of its local endpoints.
fn wants_health_port(service: &Service) -> bool {
    let policy = service.spec.as_ref().and_then(|spec| spec.external_traffic_policy.as_deref());
    kind(service) == "LoadBalancer" && policy == Some("Local")
}

/// Whether the Service can be reached from outside of the cluster.
fn external(service: &Service) -> bool {
    let ips = service.spec.as_ref().and_then(|spec| spec.external_ips.as_ref());
    match kind(service) {
        "NodePort" | "LoadBalancer" => true,
        "ClusterIP" => ips.is_some_and(|ips| !ips.is_empty()),
        _ => false,
    }
}
