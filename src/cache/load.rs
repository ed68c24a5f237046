//! Reading a resource from the store.

use std::sync::Arc;

use tracing::warn;

use super::CacheError;
use super::fields::FieldSet;
use super::parse::parse;
use super::resource::Objects;
use crate::store::{ListOptions, Revision, Store, StoreError};

/// Entries that are read at once.
const PAGE: usize = 1000;

/// All objects under `prefix` at one revision, which is the latest unless given.
pub(super) async fn load(
    store: &Arc<dyn Store>,
    prefix: &str,
    names: &Arc<FieldSet>,
    at: Option<Revision>,
) -> Result<(Revision, Objects), CacheError> {
    let mut options = ListOptions { revision: at, limit: Some(PAGE), start_after: None };
    let mut objects = Objects::new();
    loop {
        let page = store.list(prefix, &options).await.map_err(|error| match (error, at) {
            (StoreError::Compacted { oldest }, Some(requested)) => CacheError::Expired { requested, oldest },
            (error, _) => error.into(),
        })?;
        options.start_after = page.entries.last().map(|e| e.key.to_string());
        options.revision = Some(page.revision);
        for entry in page.entries {
            let key: Arc<str> = entry.key[prefix.len()..].into();
            match parse(key.clone(), &entry.value, entry.mod_revision, names) {
                Ok(object) => {
                    objects.insert(key, Arc::new(object));
                }
                Err(error) => warn!(key = %entry.key, %error, "stored value is no object"),
            }
        }
        if !page.more {
            return Ok((page.revision, objects));
        }
    }
}
