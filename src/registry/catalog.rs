//! The table of kinds: every row, found by URL or by kind.

use std::collections::HashMap;
use std::sync::Arc;

use crate::registry::resource::Resource;

/// Every kind that is served, in the order of discovery.
#[derive(Clone, Default)]
pub struct Catalog {
    rows: Vec<Arc<Resource>>,
    by_plural: HashMap<(String, String, String), usize>,
    by_kind: HashMap<(String, String, String), usize>,
}

impl Catalog {
    /// The built-in kinds.
    pub fn builtin() -> Self {
        crate::registry::groups::all().into_iter().collect()
    }

    /// The row behind a URL.
    pub fn by_plural(&self, group: &str, version: &str, plural: &str) -> Option<&Arc<Resource>> {
        let key = (group.to_owned(), version.to_owned(), plural.to_owned());
        self.by_plural.get(&key).and_then(|i| self.rows.get(*i))
    }

    /// The row of a kind.
    pub fn by_kind(&self, group: &str, version: &str, kind: &str) -> Option<&Arc<Resource>> {
        let key = (group.to_owned(), version.to_owned(), kind.to_owned());
        self.by_kind.get(&key).and_then(|i| self.rows.get(*i))
    }

    /// The row of a `k8s-openapi` type.
    pub fn of<K: k8s_openapi::Resource>(&self) -> Option<&Arc<Resource>> {
        self.by_kind(K::GROUP, K::VERSION, K::KIND)
    }

    /// Every row.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Resource>> {
        self.rows.iter()
    }
}

impl FromIterator<Resource> for Catalog {
    fn from_iter<I: IntoIterator<Item = Resource>>(rows: I) -> Self {
        let mut catalog = Self::default();
        for row in rows {
            let at = catalog.rows.len();
            let name = |last: &str| (row.group.to_string(), row.version.to_string(), last.to_owned());
            catalog.by_plural.insert(name(&row.plural), at);
            catalog.by_kind.insert(name(&row.kind), at);
            catalog.rows.push(Arc::new(row));
        }
        catalog
    }
}
