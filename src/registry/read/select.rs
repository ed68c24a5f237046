//! Lists: what is selected, at which version, and where the next page begins.

use std::sync::Arc;

use super::continuation::Continuation;
use super::converted;
use super::get::parse_version;
use crate::api::error::{ApiError, GroupKind};
use crate::api::field::{FieldError, FieldErrors, Path};
use crate::api::selector::{FieldSelector, LabelSelector};
use crate::cache::{CacheError, Consistency, Object};
use crate::registry::errors;
use crate::registry::options::{ListOptions, VersionMatch};
use crate::registry::resource::Resource;
use crate::registry::service::Registry;
use crate::registry::write::system;
use crate::store::Revision;

const TOO_OLD: &str = "The provided continue parameter is too old to display a consistent list result. You can start a \
    new list without the continue parameter, or use the continue token in this response to retrieve the remainder of \
    the results. Continuing with the provided token results in an inconsistent list - objects that were created, \
    modified, or deleted between the time the first chunk was returned and now may show up in the list.";

/// A page of a list.
pub(in crate::registry) struct Page {
    pub objects: Vec<Arc<Object>>,
    pub revision: Revision,
    pub continue_token: Option<String>,
    pub remaining: Option<usize>,
}

/// Fails when a field selector names a field that the kind does not offer.
pub(in crate::registry) fn check_fields(resource: &Resource, fields: &FieldSelector) -> Result<(), ApiError> {
    for requirement in fields.requirements() {
        let name = requirement.field.as_str();
        let known = matches!(name, "metadata.name" | "metadata.namespace") || resource.selects(name);
        if known {
            continue;
        }
        return Err(ApiError::bad_request(if !resource.has_selectable() {
            format!("{name:?} is not a known field selector: only \"metadata.name\", \"metadata.namespace\"")
        } else {
            format!("field label not supported: {name}")
        }));
    }
    Ok(())
}

/// Whether both selectors select an object.
pub(in crate::registry) fn selected(object: &Object, labels: &LabelSelector, fields: &FieldSelector) -> bool {
    labels.matches(|key| object.label(key)) && fields.matches(|name| object.field(name))
}

fn check_versions(options: &ListOptions) -> Result<(), ApiError> {
    let Some(wanted) = options.version_match else { return Ok(()) };
    let problem = if !options.continue_token.is_empty() {
        "resourceVersionMatch is forbidden when continue is provided"
    } else if options.resource_version.is_empty() {
        "resourceVersionMatch is forbidden unless resourceVersion is provided"
    } else if wanted == VersionMatch::Exact && options.resource_version == "0" {
        "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\""
    } else {
        return Ok(());
    };
    Err(invalid_options(problem))
}

/// The error about list options that do not go together.
pub(in crate::registry) fn invalid_options(problem: &str) -> ApiError {
    let error = FieldError::forbidden(&Path::new("resourceVersionMatch"), problem);
    ApiError::invalid(&GroupKind::new("meta.k8s.io", "ListOptions"), "", FieldErrors(vec![error]))
}

fn consistency(options: &ListOptions) -> Result<Consistency, ApiError> {
    Ok(match (parse_version(&options.resource_version)?, options.version_match) {
        (None, _) => Consistency::Latest,
        (Some(0), _) => Consistency::Any,
        (Some(version), Some(VersionMatch::Exact)) => Consistency::Exact(Revision(version)),
        (Some(version), None) if options.limit > 0 => Consistency::Exact(Revision(version)),
        (Some(version), _) => Consistency::NotOlderThan(Revision(version)),
    })
}

impl Registry {
    /// Selects what a list shows; an empty namespace is all of them.
    pub(in crate::registry) async fn select(
        &self,
        resource: &Resource,
        namespace: &str,
        options: &ListOptions,
    ) -> Result<Page, ApiError> {
        check_fields(resource, &options.fields)?;
        check_versions(options)?;
        let now = system::now().0.as_second();
        let (at, after, since) = if options.continue_token.is_empty() {
            (consistency(options)?, None, now)
        } else {
            let token = self.continuation(options)?;
            if token.is_overdue(now) {
                return Err(too_old(&token.after));
            }
            let at =
                token.revision.map_or(Consistency::Latest, |revision| Consistency::Exact(Revision(revision)));
            let since = if token.revision.is_some() { token.since } else { now };
            (at, Some(token.after), since)
        };
        let cache = self.cache_of(resource)?;
        let snapshot = cache.snapshot(at).await.map_err(|error| match (&after, error) {
            (Some(after), CacheError::Expired { .. }) => too_old(after),
            (_, error) => errors::cache(resource, error),
        })?;
        let scope = (!namespace.is_empty()).then_some(namespace);
        let limit = if options.limit == 0 { usize::MAX } else { options.limit };
        if converted::needed(resource, &options.fields) {
            let labelled = snapshot.iter(scope, after.as_deref());
            let labelled = labelled.filter(|object| options.labels.matches(|key| object.label(key)));
            let candidates: Vec<Arc<Object>> = labelled.cloned().collect();
            let most = limit.saturating_add(1);
            let mut objects = converted::selected(resource, candidates, &options.fields, most).await?;
            let more = objects.len() > limit;
            objects.truncate(limit);
            let continue_token = objects.last().filter(|_| more).map(|last| {
                let revision = Some(snapshot.revision().0);
                Continuation { revision, after: last.key().to_owned(), since }.encode()
            });
            return Ok(Page { objects, revision: snapshot.revision(), continue_token, remaining: None });
        }
        let mut all = snapshot.iter(scope, after.as_deref());
        let mut objects = Vec::new();
        for object in all.by_ref() {
            if objects.len() == limit {
                let last: &Arc<Object> = &objects[limit - 1];
                let token = Continuation {
                    revision: Some(snapshot.revision().0),
                    after: last.key().to_owned(),
                    since,
                };
                let unfiltered = options.labels.is_everything() && options.fields.is_everything();
                let remaining = unfiltered.then(|| 1 + all.count());
                return Ok(Page {
                    objects,
                    revision: snapshot.revision(),
                    continue_token: Some(token.encode()),
                    remaining,
                });
            }
            if selected(object, &options.labels, &options.fields) {
                objects.push(Arc::clone(object));
            }
        }
        Ok(Page { objects, revision: snapshot.revision(), continue_token: None, remaining: None })
    }

    fn continuation(&self, options: &ListOptions) -> Result<Continuation, ApiError> {
        if !matches!(options.resource_version.as_str(), "" | "0") {
            return Err(ApiError::bad_request(
                "specifying resource version is not allowed when using continue",
            ));
        }
        Continuation::decode(&options.continue_token)
    }
}

/// 410 for a continue token whose version is forgotten, with a token that goes on with the latest state.
fn too_old(after: &str) -> ApiError {
    let mut status = ApiError::expired(TOO_OLD).into_status();
    let token = Continuation { revision: None, after: after.to_owned(), since: 0 };
    status.metadata.continue_ = Some(token.encode());
    ApiError::from(status)
}
