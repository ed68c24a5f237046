//! `networking.k8s.io`.

pub mod addresses;
mod ingress_classes;
mod ingresses;
mod network_policies;

use crate::registry::resource::{NameRule, Resource, STATUS, SelectableField};

const ADDRESS_FIELDS: &[SelectableField] = &[
    SelectableField { label: "spec.parentRef.name", path: &["spec", "parentRef", "name"], absent: "" },
    SelectableField {
        label: "spec.parentRef.namespace",
        path: &["spec", "parentRef", "namespace"],
        absent: "",
    },
];

/// The rows.
pub fn rows() -> Vec<Resource> {
    vec![
        Resource::of(ingress_classes::IngressClassStrategy).columns(ingress_classes::COLUMNS).generation(),
        Resource::of(ingresses::IngressStrategy)
            .columns(ingresses::COLUMNS)
            .short(&["ing"])
            .with(STATUS)
            .generation()
            .prefix("/registry/ingress/"),
        Resource::of(addresses::IpAddressStrategy)
            .columns(addresses::ADDRESS_COLUMNS)
            .short(&["ip"])
            .names(NameRule::Any)
            .generation()
            .selectable(ADDRESS_FIELDS),
        Resource::of(network_policies::NetworkPolicyStrategy)
            .columns(network_policies::COLUMNS)
            .short(&["netpol"])
            .generation(),
        Resource::of(addresses::ServiceCidrStrategy)
            .columns(addresses::CIDR_COLUMNS)
            .with(STATUS)
            .generation(),
    ]
}
