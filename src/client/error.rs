//! Questions that callers ask about a failed request.

use kube::Error;

/// The `Status` code when the server answered with an error, else `None`.
pub fn code(error: &Error) -> Option<u16> {
    match error {
        Error::Api(status) => Some(status.code),
        _ => None,
    }
}

/// The object is not there.
pub fn is_not_found(error: &Error) -> bool {
    code(error) == Some(404)
}

/// An object of that name exists already.
pub fn is_already_exists(error: &Error) -> bool {
    matches!(error, Error::Api(status) if status.code == 409 && status.reason == "AlreadyExists")
}

/// The object changed since it was read, or a precondition did not hold.
pub fn is_conflict(error: &Error) -> bool {
    matches!(error, Error::Api(status) if status.code == 409 && status.reason != "AlreadyExists")
}

/// The resourceVersion or continue token is too old: list again.
pub fn is_expired(error: &Error) -> bool {
    code(error) == Some(410)
}

/// The namespace is being deleted, so nothing may be created in it.
pub fn is_namespace_terminating(error: &Error) -> bool {
    match error {
        Error::Api(status) if status.code == 403 => status
            .details
            .as_ref()
            .is_some_and(|details| details.causes.iter().any(|cause| cause.reason == "NamespaceTerminating")),
        _ => false,
    }
}

/// The chain of causes of `error` contains a conflict: somebody else wrote first, which is ordinary.
pub fn is_conflict_in_chain(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if error.downcast_ref::<Error>().is_some_and(is_conflict) {
            return true;
        }
        next = error.source();
    }
    false
}

/// `error` and all its causes on one line, each said once.
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::core::Status;

    #[derive(Debug, thiserror::Error)]
    #[error("update status")]
    struct Outer(#[source] Error);

    fn api(code: u16, reason: &str) -> Error {
        Error::Api(Box::new(Status { code, reason: reason.into(), message: "m".into(), ..Status::default() }))
    }

    #[test]
    fn tells_conflict_from_already_exists() {
        assert!(is_conflict(&api(409, "Conflict")) && !is_already_exists(&api(409, "Conflict")));
        assert!(is_already_exists(&api(409, "AlreadyExists")) && !is_conflict(&api(409, "AlreadyExists")));
        assert!(is_not_found(&api(404, "NotFound")) && is_expired(&api(410, "Expired")));
    }

    #[test]
    fn finds_a_conflict_below_the_surface() {
        assert!(is_conflict_in_chain(&Outer(api(409, "Conflict"))));
        assert!(!is_conflict_in_chain(&Outer(api(404, "NotFound"))));
        assert!(chain(&Outer(api(404, "NotFound"))).starts_with("update status: "));
    }
}
