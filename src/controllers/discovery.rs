//! Which kinds the server has, for the loops that concern every kind.

use kube::{
    Client,
    api::ApiResource,
    client::{APIGroupDiscovery, APIResourceDiscovery},
};
use std::collections::BTreeSet;

/// A kind, in the version that its group prefers.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ResourceType {
    /// Group, version, kind and plural.
    pub resource: ApiResource,
    /// Its objects live in namespaces.
    pub namespaced: bool,
    /// What can be done with it.
    pub verbs: BTreeSet<String>,
}

impl ResourceType {
    /// All of `verbs` can be done with it.
    pub fn can(&self, verbs: &[&str]) -> bool {
        verbs.iter().all(|verb| self.verbs.contains(*verb))
    }

    /// `plural` or `plural.group`, as upstream writes a resource in messages.
    pub fn qualified(&self) -> String {
        let ApiResource { plural, group, .. } = &self.resource;
        if group.is_empty() { plural.clone() } else { format!("{plural}.{group}") }
    }
}

/// What discovery found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Discovered {
    /// Every kind once.
    pub types: Vec<ResourceType>,
    /// `group/version` of the parts whose server does not answer, so that `types` may lack kinds.
    pub stale: Vec<String>,
}

/// Asks the server for its kinds.
pub async fn discover(client: &Client) -> kube::Result<Discovered> {
    let core = client.list_core_api_versions_aggregated().await?;
    let groups = client.list_api_groups_aggregated().await?;
    Ok(flatten(core.items.into_iter().chain(groups.items)))
}

fn flatten(groups: impl Iterator<Item = APIGroupDiscovery>) -> Discovered {
    let mut found = Discovered::default();
    for group in groups {
        let name = group.metadata.and_then(|meta| meta.name).unwrap_or_default();
        let mut known = BTreeSet::new();
        for version in group.versions {
            let number = version.version.unwrap_or_default();
            if version.freshness.as_deref() == Some("Stale") {
                found.stale.push(format!("{name}/{number}"));
            }
            let types = version.resources.into_iter().filter_map(|resource| row(&name, &number, resource));
            // The first version that has a kind is the preferred one.
            found.types.extend(types.filter(|row| known.insert(row.resource.plural.clone())));
        }
    }
    found
}

fn row(group: &str, version: &str, found: APIResourceDiscovery) -> Option<ResourceType> {
    let plural = found.resource?;
    let kind = found.response_kind.and_then(|kind| kind.kind)?;
    let api_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    Some(ResourceType {
        resource: ApiResource {
            group: group.to_owned(),
            version: version.to_owned(),
            api_version,
            kind,
            plural,
        },
        namespaced: found.scope.as_deref() == Some("Namespaced"),
        verbs: found.verbs.into_iter().collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_kind_appears_once_in_its_preferred_version_and_stale_versions_are_named() {
        let resource = |plural: &str, kind: &str| {
            json!({"resource": plural, "responseKind": {"group": "", "version": "", "kind": kind},
                   "scope": "Namespaced", "singularResource": "", "verbs": ["list", "delete"]})
        };
        let groups = serde_json::from_value::<Vec<APIGroupDiscovery>>(json!([
            {"metadata": {"name": "demo.io"}, "versions": [
                {"version": "v2", "resources": [resource("widgets", "Widget")]},
                {"version": "v1", "resources": [resource("widgets", "Widget"), resource("gadgets", "Gadget")]},
                {"version": "v1alpha1", "freshness": "Stale"},
            ]},
            {"versions": [{"version": "v1", "resources": [resource("pods", "Pod")]}]},
        ]));
        let found = flatten(groups.unwrap().into_iter());
        let rows: Vec<_> = found
            .types
            .iter()
            .map(|row| format!("{} {}", row.qualified(), row.resource.api_version))
            .collect();
        assert_eq!(rows, ["widgets.demo.io demo.io/v2", "gadgets.demo.io demo.io/v1", "pods v1"]);
        assert!(found.types[0].namespaced && found.types[0].can(&["list", "delete"]));
        assert!(!found.types[0].can(&["watch"]));
        assert_eq!(found.stale, ["demo.io/v1alpha1"]);
    }
}
