//! Deleting what is in a namespace, and seeing what is left.

use crate::{
    client::error,
    controllers::discovery::{Discovered, ResourceType},
};
use kube::{
    Api, Client,
    api::{DeleteParams, DynamicObject, ListParams, PropagationPolicy},
};
use std::collections::BTreeMap;

/// What one look at a namespace found.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Report {
    /// Objects left, by resource (`pods`, `widgets.demo.io`).
    pub(super) left: BTreeMap<String, usize>,
    /// Objects left, by finalizer that keeps them.
    pub(super) finalizers: BTreeMap<String, usize>,
    /// What could not be deleted or listed.
    pub(super) failures: Vec<String>,
    /// Group versions that could not be discovered.
    pub(super) undiscovered: Vec<String>,
    /// There was something to delete.
    pub(super) deleted: bool,
}

impl Report {
    pub(super) fn is_empty(&self) -> bool {
        self.left.is_empty() && self.failures.is_empty()
    }

    pub(super) fn remaining(&self) -> usize {
        self.left.values().sum()
    }
}

/// The kinds to delete, pods first: what protects or feeds them goes only when they are gone. Events are stored once
/// and served by two groups.
fn plan(discovered: &Discovered) -> (Vec<&ResourceType>, Vec<&ResourceType>) {
    let wanted = discovered
        .types
        .iter()
        .filter(|row| row.namespaced && row.can(&["list", "delete"]))
        .filter(|row| !(row.resource.group == "events.k8s.io" && row.resource.plural == "events"));
    wanted.partition(|row| row.resource.group.is_empty() && row.resource.plural == "pods")
}

/// Deletes everything in `namespace` that can go now.
pub(super) async fn empty(client: &Client, namespace: &str, discovered: &Discovered) -> Report {
    let mut report = Report { undiscovered: discovered.stale.clone(), ..Report::default() };
    let (pods, others) = plan(discovered);
    for row in pods {
        delete_all(client, namespace, row, &mut report).await;
    }
    if report.is_empty() {
        for row in others {
            delete_all(client, namespace, row, &mut report).await;
        }
    }
    report
}

async fn delete_all(client: &Client, namespace: &str, row: &ResourceType, report: &mut Report) {
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &row.resource);
    if let Err(failure) = try_delete_all(&api, row, report).await {
        // The kind itself has gone in the meantime.
        if !error::is_not_found(&failure) {
            report.failures.push(format!("{}: {}", row.qualified(), error::chain(&failure)));
        }
    }
}

async fn try_delete_all(
    api: &Api<DynamicObject>,
    row: &ResourceType,
    report: &mut Report,
) -> kube::Result<()> {
    // Most kinds have no object here: one list tells, and nothing needs to be deleted.
    let found = api.list_metadata(&ListParams::default()).await?;
    if found.items.is_empty() {
        return Ok(());
    }
    report.deleted = true;
    let params =
        DeleteParams { propagation_policy: Some(PropagationPolicy::Background), ..DeleteParams::default() };
    if row.can(&["deletecollection"]) {
        api.delete_collection(&params, &ListParams::default()).await?;
    } else {
        for name in found.items.iter().filter_map(|object| object.metadata.name.as_deref()) {
            match api.delete(name, &params).await {
                Err(failure) if !error::is_not_found(&failure) => return Err(failure),
                _ => {}
            }
        }
    }
    let left = api.list_metadata(&ListParams::default()).await?;
    if !left.items.is_empty() {
        report.left.insert(row.qualified(), left.items.len());
    }
    for finalizer in left.items.iter().flat_map(|object| object.metadata.finalizers.iter().flatten()) {
        *report.finalizers.entry(finalizer.clone()).or_default() += 1;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::api::ApiResource;

    #[test]
    fn pods_come_first_and_only_namespaced_deletable_kinds_count() {
        let row = |group: &str, plural: &str, namespaced, verbs: &[&str]| ResourceType {
            resource: ApiResource {
                group: group.into(),
                version: "v1".into(),
                api_version: "v1".into(),
                kind: "K".into(),
                plural: plural.into(),
            },
            namespaced,
            verbs: verbs.iter().map(ToString::to_string).collect(),
        };
        let types = vec![
            row("", "configmaps", true, &["list", "delete"]),
            row("", "pods", true, &["list", "delete"]),
            row("metrics.k8s.io", "pods", true, &["list"]),
            row("", "bindings", true, &["create"]),
            row("", "nodes", false, &["list", "delete"]),
            row("", "events", true, &["list", "delete"]),
            row("events.k8s.io", "events", true, &["list", "delete"]),
        ];
        let discovered = Discovered { types, stale: vec![] };
        let (first, then) = plan(&discovered);
        let names = |rows: Vec<&ResourceType>| rows.iter().map(|row| row.qualified()).collect::<Vec<_>>();
        assert_eq!(names(first), ["pods"]);
        assert_eq!(names(then), ["configmaps", "events"]);
    }
}
