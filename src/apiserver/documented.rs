//! The rows of the catalog as OpenAPI describes them.

use std::sync::Arc;

use super::aggregation::Learned;
use super::openapi::{Elsewhere, OpenApi, OwnDefinitions, Served, ServedSubresource};
use crate::registry::custom::openapi::{definition_name, list_definition};
use crate::registry::{Resource, Scope, SubresourceRole};

/// The OpenAPI documents of all rows, and of what other servers serve.
pub(super) fn open_api<'a>(rows: impl Iterator<Item = &'a Arc<Resource>>, learned: &Learned) -> OpenApi {
    let elsewhere = |group: &str, version: &str| {
        let key = (group.to_owned(), version.to_owned());
        learned.versions.contains_key(&key)
    };
    let own = rows.filter(|row| !elsewhere(&row.group, &row.version)).map(|row| served(row)).collect();
    let others = learned.versions.values().map(|one| Elsewhere {
        path: format!("apis/{}/{}", one.group, one.version),
        v3_url: one.openapi_v3.clone(),
        v2: one.openapi_v2.clone(),
    });
    OpenApi::new(own, others.collect())
}

fn served(row: &Resource) -> Served {
    Served {
        group: row.group.to_string(),
        version: row.version.to_string(),
        kind: row.kind.to_string(),
        plural: row.plural.to_string(),
        namespaced: row.scope == Scope::Namespaced,
        verbs: row.verbs.iter().map(|verb| verb.as_str().to_owned()).collect(),
        subresources: row.subresources.iter().map(|sub| subresource(row, sub)).collect(),
        own: row.dynamic.as_ref().map(|dynamic| OwnDefinitions {
            name: definition_name(&row.group, &row.version, &row.kind),
            object: dynamic.definition.clone(),
            list: list_definition(&row.group, &row.version, &row.kind, &row.list_kind),
        }),
    }
}

fn subresource(row: &Resource, sub: &crate::registry::Subresource) -> ServedSubresource {
    let own = (row.group.as_ref(), row.version.as_ref(), row.kind.as_ref());
    let (group, version, kind) = sub.body.unwrap_or(own);
    let connects = sub.role == SubresourceRole::Connect && sub.name != "log";
    let verbs = if connects { &["connect"][..] } else { sub.verbs };
    ServedSubresource {
        name: sub.name.to_owned(),
        body: (group.to_owned(), version.to_owned(), kind.to_owned()),
        verbs: verbs.iter().map(|verb| (*verb).to_owned()).collect(),
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Pod;

    use super::*;

    #[test]
    fn connections_are_told_apart_from_reads() {
        let sub = |name, role| crate::registry::Subresource { name, role, body: None, verbs: &["get"] };
        let row = Resource::plain::<Pod>()
            .with(sub("status", SubresourceRole::Status))
            .with(sub("exec", SubresourceRole::Connect))
            .with(sub("log", SubresourceRole::Connect));
        let served = served(&row);
        assert!(served.namespaced && served.verbs.contains(&"deletecollection".to_owned()));
        let verbs: Vec<_> = served.subresources.iter().map(|sub| sub.verbs[0].as_str()).collect();
        assert_eq!(verbs, ["get", "connect", "get"]);
        assert_eq!(served.subresources[0].body.2, "Pod");
    }
}
