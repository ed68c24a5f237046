//! The plain discovery documents: one per group and version.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::VersionRows;
use crate::registry::Resource;
use crate::registry::resource::Storage;

/// `/api`.
pub(super) fn api_versions(versions: &[VersionRows], advertise: &str) -> Value {
    let names: Vec<&str> = versions.iter().map(|version| version.name.as_str()).collect();
    json!({
        "kind": "APIVersions",
        "versions": names,
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": advertise}],
    })
}

/// `/apis`.
pub(super) fn group_list(groups: &[(String, Vec<VersionRows>)]) -> Value {
    let groups: Vec<Value> = groups.iter().map(|(name, versions)| group_body(name, versions)).collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

/// `/apis/<group>`.
pub(super) fn group(name: &str, versions: &[VersionRows]) -> Option<Value> {
    if versions.is_empty() || name.is_empty() {
        return None;
    }
    let mut body = group_body(name, versions);
    body["kind"] = "APIGroup".into();
    body["apiVersion"] = "v1".into();
    Some(body)
}

fn group_body(name: &str, versions: &[VersionRows]) -> Value {
    let entry = |version: &str| json!({"groupVersion": format!("{name}/{version}"), "version": version});
    let entries: Vec<Value> = versions.iter().map(|version| entry(&version.name)).collect();
    json!({"name": name, "versions": entries, "preferredVersion": entries.first()})
}

/// `/api/<version>` and `/apis/<group>/<version>`.
pub(super) fn resource_list(group: &str, version: &str, versions: &[VersionRows]) -> Option<Value> {
    let rows = &versions.iter().find(|own| own.name == version && own.remote.is_none())?.rows;
    let group_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    let resources: Vec<Value> = rows.iter().flat_map(|row| resource_entries(row)).collect();
    let mut list = json!({"kind": "APIResourceList", "groupVersion": group_version, "resources": resources});
    if !group.is_empty() {
        list["apiVersion"] = "v1".into();
    }
    Some(list)
}

fn resource_entries(row: &Resource) -> Vec<Value> {
    let verbs: Vec<&str> = row.verbs.iter().map(|verb| verb.as_str()).collect();
    let mut own = json!({
        "name": row.plural, "singularName": row.singular, "namespaced": row.namespaced(), "kind": row.kind, "verbs": verbs,
    });
    if !row.short_names.is_empty() {
        own["shortNames"] = json!(row.short_names);
    }
    if !row.categories.is_empty() {
        own["categories"] = json!(row.categories);
    }
    if matches!(row.storage, Storage::Own | Storage::Shared(_) | Storage::Custom(_)) {
        own["storageVersionHash"] = storage_hash(row).into();
    }
    // A kind without verbs of its own exists for its subresources alone.
    let mut entries = if row.verbs.is_empty() { Vec::new() } else { vec![own] };
    let mut subresources: Vec<_> = row.subresources.iter().collect();
    subresources.sort_by_key(|subresource| subresource.name);
    for subresource in subresources {
        let mut entry = json!({
            "name": format!("{}/{}", row.plural, subresource.name), "singularName": "", "namespaced": row.namespaced(),
            "kind": subresource.body.map_or(row.kind.as_ref(), |(_, _, kind)| kind), "verbs": subresource.verbs,
        });
        if let Some((group, version, _)) = subresource.body
            && (group, version) != (row.group.as_ref(), row.version.as_ref())
        {
            entry["group"] = group.into();
            entry["version"] = version.into();
        }
        entries.push(entry);
    }
    entries
}

/// A name for the form in which objects are stored: clients compare it and nothing more.
fn storage_hash(row: &Resource) -> String {
    let text = format!("{}/{}/{}", row.group, row.version, row.kind);
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes());
    STANDARD.encode(&digest.as_ref()[..8])
}
