//! From the errors of the store and the cache to what the client reads.

use super::write::Target;
use crate::api::error::ApiError;
use crate::cache::CacheError;
use crate::registry::resource::Resource;
use crate::store::StoreError;

/// The answer to a write that the store refused.
pub(super) fn store(target: &Target<'_>, error: StoreError) -> ApiError {
    let resource = target.resource.group_resource();
    match error {
        StoreError::Exists { .. } => ApiError::already_exists(&resource, target.name),
        StoreError::NotFound { .. } => ApiError::not_found(&resource, target.name),
        StoreError::Conflict { .. } => ApiError::object_modified(&resource, target.name),
        StoreError::TooLarge { size, limit } => {
            ApiError::too_large(format!("the object has {size} bytes, the limit is {limit}"))
        }
        other => unavailable(other),
    }
}

fn unavailable(error: StoreError) -> ApiError {
    match error {
        StoreError::Compacted { .. } => ApiError::expired(
            "The provided resource version is too old: the requested history has been compacted".to_owned(),
        ),
        StoreError::Closed | StoreError::Unavailable { .. } => {
            ApiError::service_unavailable("the datastore is not available")
        }
        StoreError::Full { .. } => {
            tracing::error!(error = &error as &dyn std::error::Error, "the datastore is full");
            ApiError::internal(
                "the datastore has no space left, nothing was written: make room on its disk, or raise its quota \
                 (--datastore-quota-backend-bytes; with etcd compact, defragment and disarm the alarm)",
            )
        }
        other => {
            tracing::error!(error = &other as &dyn std::error::Error, "store operation failed");
            ApiError::internal(other)
        }
    }
}

/// The answer to a read that the cache refused.
pub(super) fn cache(resource: &Resource, error: CacheError) -> ApiError {
    match error {
        CacheError::Expired { requested, oldest } => {
            ApiError::expired(format!("too old resource version: {requested} ({oldest})"))
        }
        CacheError::TooNew { requested, current } => {
            ApiError::timeout(format!("Too large resource version: {requested}, current: {current}"), 1)
                .with_cause("ResourceVersionTooLarge", "", "Too large resource version")
        }
        CacheError::NotReady | CacheError::Reloaded => {
            ApiError::too_many_requests(format!("storage is (re)initializing for {}", resource.plural), 1)
        }
        CacheError::TooSlow => ApiError::expired("the watcher was too slow"),
        CacheError::Stopped => ApiError::service_unavailable("the server is shutting down"),
        CacheError::Store(error) => unavailable(error),
    }
}
