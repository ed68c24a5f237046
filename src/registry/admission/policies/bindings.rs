//! Which policies and bindings are about a request.

use super::config::{Binding, Matches, Policy};
use crate::api::error::ApiError;
use crate::registry::admission::Request;
use crate::registry::admission::webhooks::matching::{self, Form, Subject};

/// Whether a choice of requests includes one, and in which form of the object.
async fn chosen(
    request: &Request<'_>,
    matches: &Matches,
    every: bool,
    subject: &Subject,
) -> Result<Option<Form>, ApiError> {
    let name = subject.name(request);
    let form = if every && matches.rules.is_empty() {
        Some(Form { other: None })
    } else {
        matching::covered(request, &matches.rules, matches.equivalent, name)
    };
    let Some(form) = form else { return Ok(None) };
    if matching::covered(request, &matches.excluded, matches.equivalent, name).is_some()
        || !matching::object_selected(&matches.objects, subject)
        || !matching::namespace_selected(request, &matches.namespaces, subject).await?
    {
        return Ok(None);
    }
    Ok(Some(form))
}

/// Whether a policy is about a request, and in which form.
pub async fn policy(
    request: &Request<'_>,
    policy: &Policy,
    subject: &Subject,
) -> Result<Option<Form>, ApiError> {
    chosen(request, &policy.matches, false, subject).await
}

/// Whether a binding is about a request of its policy.
pub async fn binding(request: &Request<'_>, binding: &Binding, subject: &Subject) -> Result<bool, ApiError> {
    match &binding.matches {
        None => Ok(true),
        Some(matches) => Ok(chosen(request, matches, true, subject).await?.is_some()),
    }
}
