//! What the workload controllers share: predicates over pods, ownership, expectations, slow start, pods from templates.
//!
//! Decisions are pure; only [`claims`], [`selects`], [`control`] and [`batch::slow_start`] make calls.

pub mod batch;
pub mod claims;
pub mod control;
pub mod expectations;
pub mod ownership;
pub mod pods;
pub mod revisions;
pub mod selects;
pub mod template;

/// Index of objects that nobody controls, by namespace.
pub const ORPHANS: &str = "orphans";

/// The value of [`ORPHANS`] for one object.
pub fn orphan_namespace<K: kube::Resource>(object: &K) -> Vec<String> {
    let meta = object.meta();
    if ownership::controller_of(meta).is_some() {
        return Vec::new();
    }
    meta.namespace.iter().cloned().collect()
}

/// What the API server said about a failed request, as events and conditions quote it.
pub fn failure_text(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => crate::client::error::chain(other),
    }
}

#[cfg(test)]
mod tests;
