//! The aggregated discovery document: all groups at once.

use serde_json::{Value, json};

use super::VersionRows;
use crate::registry::Resource;
use crate::registry::resource::Subresource;

/// `/api` and `/apis` for clients that ask for `APIGroupDiscoveryList`.
pub(super) fn group_list(groups: &[(String, Vec<VersionRows>)], version: &str) -> Value {
    let items: Vec<Value> = groups
        .iter()
        .map(|(name, versions)| {
            let metadata = if name.is_empty() { json!({}) } else { json!({"name": name}) };
            let versions: Vec<Value> = versions.iter().map(version_entry).collect();
            json!({"metadata": metadata, "versions": versions})
        })
        .collect();
    json!({
        "kind": "APIGroupDiscoveryList",
        "apiVersion": format!("apidiscovery.k8s.io/{version}"),
        "metadata": {},
        "items": items,
    })
}

fn version_entry(version: &VersionRows) -> Value {
    if let Some(remote) = &version.remote {
        return remote.discovery.clone();
    }
    let resources: Vec<Value> = version.rows.iter().map(|row| resource_entry(row)).collect();
    json!({"version": version.name, "resources": resources, "freshness": "Current"})
}

/// A kind of another group than the enclosing one is named in full; one of the same group by its name alone.
fn response_kind(row: &Resource, subresource: Option<&Subresource>) -> Value {
    match subresource.and_then(|subresource| subresource.body) {
        Some((group, version, kind)) if (group, version) != (row.group.as_ref(), row.version.as_ref()) => {
            json!({"group": group, "version": version, "kind": kind})
        }
        Some((_, _, kind)) => json!({"group": "", "version": "", "kind": kind}),
        None => json!({"group": "", "version": "", "kind": row.kind}),
    }
}

fn resource_entry(row: &Resource) -> Value {
    let mut entry = json!({
        "resource": row.plural,
        "responseKind": response_kind(row, None),
        "scope": if row.namespaced() { "Namespaced" } else { "Cluster" },
        "singularResource": row.singular,
        "verbs": row.verbs.iter().map(|verb| verb.as_str()).collect::<Vec<_>>(),
    });
    if !row.short_names.is_empty() {
        entry["shortNames"] = json!(row.short_names);
    }
    if !row.categories.is_empty() {
        entry["categories"] = json!(row.categories);
    }
    let mut subresources: Vec<&Subresource> = row.subresources.iter().collect();
    subresources.sort_by_key(|subresource| subresource.name);
    if !subresources.is_empty() {
        let entries: Vec<Value> = subresources
            .into_iter()
            .map(|subresource| {
                json!({
                    "subresource": subresource.name,
                    "responseKind": response_kind(row, Some(subresource)),
                    "verbs": subresource.verbs,
                })
            })
            .collect();
        entry["subresources"] = entries.into();
    }
    entry
}
