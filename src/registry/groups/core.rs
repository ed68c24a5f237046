//! The core group.

use std::time::Duration;

use k8s_openapi::api::core::v1::Binding;

use crate::registry::resource::{
    NameRule, Resource, SCALE, STATUS, Scope, SelectableField, Subresource, SubresourceRole, Verb,
};

pub mod component_statuses;
pub mod config;
pub mod endpoints;
pub mod events;
pub mod fields;
pub mod limit_ranges;
pub mod namespaces;
pub mod nodes;
pub mod persistent_volume_claims;
pub mod persistent_volumes;
pub mod pods;
pub mod replication_controllers;
pub mod resource_quotas;
pub mod services;
pub mod volume_sources;

const GPU: &[&str] = &["get", "patch", "update"];
const PROXY_VERBS: &[&str] = &["create", "delete", "get", "patch", "update"];

const fn connect(name: &'static str, kind: &'static str, verbs: &'static [&'static str]) -> Subresource {
    Subresource { name, role: SubresourceRole::Connect, body: Some(("", "v1", kind)), verbs }
}

const fn part(name: &'static str, verbs: &'static [&'static str]) -> Subresource {
    Subresource { name, role: SubresourceRole::Part, body: None, verbs }
}

const fn action(name: &'static str, group: &'static str, kind: &'static str) -> Subresource {
    Subresource { name, role: SubresourceRole::Action, body: Some((group, "v1", kind)), verbs: &["create"] }
}

const fn field(label: &'static str, path: &'static [&'static str]) -> SelectableField {
    SelectableField { label, path, absent: "" }
}

/// How long events live.
pub const EVENT_TTL: Duration = Duration::from_secs(3600);

const NAMESPACE_VERBS: &[Verb] =
    &[Verb::Create, Verb::Delete, Verb::Get, Verb::List, Verb::Patch, Verb::Update, Verb::Watch];

fn pods() -> Resource {
    Resource::of(pods::PodStrategy)
        .short(&["po"])
        .categories(&["all"])
        .with(connect("attach", "PodAttachOptions", &["create", "get"]))
        .with(action("binding", "", "Binding"))
        .with(part("ephemeralcontainers", GPU))
        .with(action("eviction", "policy", "Eviction"))
        .with(connect("exec", "PodExecOptions", &["create", "get"]))
        .with(Subresource { name: "log", role: SubresourceRole::Connect, body: None, verbs: &["get"] })
        .with(connect("portforward", "PodPortForwardOptions", &["create", "get"]))
        .with(connect("proxy", "PodProxyOptions", PROXY_VERBS))
        .with(part("resize", GPU))
        .with(STATUS)
        .selectable(fields::POD)
        .columns(pods::cells::COLUMNS)
        .generation()
        .returns_deleted()
}

fn namespaces() -> Resource {
    let mut row = Resource::of(namespaces::NamespaceStrategy)
        .columns(namespaces::COLUMNS)
        .short(&["ns"])
        .names(NameRule::Label)
        .with(part("finalize", &["update"]))
        .with(STATUS)
        .selectable(fields::NAMESPACE);
    row.verbs = NAMESPACE_VERBS;
    row
}

fn services() -> Resource {
    Resource::of(services::ServiceStrategy)
        .columns(services::cells::COLUMNS)
        .short(&["svc"])
        .categories(&["all"])
        .names(NameRule::Label1035)
        .prefix("/registry/services/specs/")
        .with(connect("proxy", "ServiceProxyOptions", PROXY_VERBS))
        .with(STATUS)
        .selectable(fields::SERVICE)
        .create_on_update()
        .returns_deleted()
}

/// The rows.
pub fn rows() -> Vec<Resource> {
    vec![
        Resource::action::<Binding>("bindings", Scope::Namespaced, "pods", "binding"),
        Resource::of(component_statuses::ComponentStatusStrategy)
            .columns(component_statuses::COLUMNS)
            .short(&["cs"])
            .deprecated("v1 ComponentStatus is deprecated in v1.19+")
            .computed(&component_statuses::Components),
        Resource::of(config::ConfigMapStrategy).columns(config::CONFIG_MAP_COLUMNS).short(&["cm"]),
        Resource::of(endpoints::EndpointsStrategy)
            .columns(endpoints::COLUMNS)
            .short(&["ep"])
            .deprecated("v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice")
            .prefix("/registry/services/endpoints/")
            .create_on_update(),
        Resource::of(events::EventStrategy)
            .columns(events::COLUMNS)
            .short(&["ev"])
            .ttl(EVENT_TTL)
            .selectable(fields::EVENT)
            .create_on_update(),
        Resource::of(limit_ranges::LimitRangeStrategy)
            .columns(limit_ranges::COLUMNS)
            .short(&["limits"])
            .create_on_update(),
        namespaces(),
        Resource::of(nodes::NodeStrategy)
            .columns(nodes::COLUMNS)
            .keeps_status()
            .short(&["no"])
            .prefix("/registry/minions/")
            .with(connect("proxy", "NodeProxyOptions", PROXY_VERBS))
            .with(STATUS)
            .selectable(fields::NODE),
        Resource::of(persistent_volume_claims::ClaimStrategy)
            .columns(persistent_volume_claims::COLUMNS)
            .short(&["pvc"])
            .with(STATUS)
            .returns_deleted(),
        Resource::of(persistent_volumes::VolumeStrategy)
            .columns(persistent_volumes::COLUMNS)
            .short(&["pv"])
            .with(STATUS)
            .returns_deleted(),
        pods(),
        Resource::of(replication_controllers::PodTemplateStrategy)
            .columns(replication_controllers::TEMPLATE_COLUMNS)
            .generation()
            .returns_deleted(),
        Resource::of(replication_controllers::ReplicationControllerStrategy)
            .orphans()
            .columns(replication_controllers::COLUMNS)
            .short(&["rc"])
            .categories(&["all"])
            .prefix("/registry/controllers/")
            .with(SCALE)
            .with(STATUS)
            .generation()
            .selectable(fields::REPLICATION_CONTROLLER),
        Resource::of(resource_quotas::QuotaStrategy)
            .columns(resource_quotas::COLUMNS)
            .short(&["quota"])
            .with(STATUS)
            .returns_deleted(),
        Resource::of(config::SecretStrategy).columns(config::SECRET_COLUMNS).selectable(fields::SECRET),
        Resource::of(config::ServiceAccountStrategy)
            .columns(config::SERVICE_ACCOUNT_COLUMNS)
            .short(&["sa"])
            .with(action("token", "authentication.k8s.io", "TokenRequest"))
            .returns_deleted(),
        services(),
    ]
}
