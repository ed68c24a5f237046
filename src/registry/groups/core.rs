//! The core group.

use std::time::Duration;

use k8s_openapi::api::core::v1::{
    LimitRange, PersistentVolume, PersistentVolumeClaim, PodTemplate, ReplicationController, ResourceQuota,
};

use crate::registry::resource::{
    NameRule, Resource, SCALE, STATUS, SelectableField, Subresource, SubresourceRole, Verb,
};

pub mod config;
pub mod endpoints;
pub mod events;
pub mod fields;
pub mod namespaces;
pub mod nodes;
pub mod pods;
pub mod services;

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
        .part(connect("attach", "PodAttachOptions", &["create", "get"]))
        .part(action("binding", "", "Binding"))
        .part(part("ephemeralcontainers", GPU))
        .part(action("eviction", "policy", "Eviction"))
        .part(connect("exec", "PodExecOptions", &["create", "get"]))
        .part(Subresource { name: "log", role: SubresourceRole::Connect, body: None, verbs: &["get"] })
        .part(connect("portforward", "PodPortForwardOptions", &["create", "get"]))
        .part(connect("proxy", "PodProxyOptions", PROXY_VERBS))
        .part(part("resize", GPU))
        .part(STATUS)
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
        .part(part("finalize", &["update"]))
        .part(STATUS)
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
        .part(connect("proxy", "ServiceProxyOptions", PROXY_VERBS))
        .part(STATUS)
        .selectable(fields::SERVICE)
        .create_on_update()
        .returns_deleted()
}

/// The rows.
pub fn rows() -> Vec<Resource> {
    vec![
        Resource::of(config::ConfigMapStrategy).columns(config::CONFIG_MAP_COLUMNS).short(&["cm"]),
        Resource::of(endpoints::EndpointsStrategy)
            .columns(endpoints::COLUMNS)
            .short(&["ep"])
            .prefix("/registry/services/endpoints/")
            .create_on_update(),
        Resource::of(events::EventStrategy)
            .columns(events::COLUMNS)
            .short(&["ev"])
            .ttl(EVENT_TTL)
            .selectable(fields::EVENT)
            .create_on_update(),
        Resource::plain::<LimitRange>().short(&["limits"]).create_on_update(),
        namespaces(),
        Resource::of(nodes::NodeStrategy)
            .columns(nodes::COLUMNS)
            .keeps_status()
            .short(&["no"])
            .prefix("/registry/minions/")
            .part(connect("proxy", "NodeProxyOptions", PROXY_VERBS))
            .part(STATUS)
            .selectable(fields::NODE),
        Resource::plain::<PersistentVolumeClaim>().short(&["pvc"]).part(STATUS).returns_deleted(),
        Resource::plain::<PersistentVolume>().short(&["pv"]).part(STATUS).returns_deleted(),
        pods(),
        Resource::plain::<PodTemplate>().generation().returns_deleted(),
        Resource::plain::<ReplicationController>()
            .short(&["rc"])
            .categories(&["all"])
            .prefix("/registry/controllers/")
            .part(SCALE)
            .part(STATUS)
            .generation()
            .selectable(fields::REPLICATION_CONTROLLER),
        Resource::plain::<ResourceQuota>().short(&["quota"]).part(STATUS).returns_deleted(),
        Resource::of(config::SecretStrategy).columns(config::SECRET_COLUMNS).selectable(fields::SECRET),
        Resource::of(config::ServiceAccountStrategy)
            .columns(config::SERVICE_ACCOUNT_COLUMNS)
            .short(&["sa"])
            .part(action("token", "authentication.k8s.io", "TokenRequest"))
            .returns_deleted(),
        services(),
    ]
}
