//! Checks of what only pods on Windows have.

use k8s_openapi::api::core::v1::{PodSpec, WindowsSecurityContextOptions};

use super::parts;
use crate::api::field::{FieldError, FieldErrors, Path};
use crate::api::names;
use crate::registry::validation::each;

const MAX_SPEC: usize = 64 * 1024;
const MAX_DOMAIN: usize = 256;
const MAX_USER: usize = 104;
const FORBIDDEN_IN_USERS: &str = "\"/\\:;|=,+*?<>@[]";

/// Checks options of a security context.
pub(super) fn options(options: Option<&WindowsSecurityContextOptions>, at: &Path, errors: &mut FieldErrors) {
    let Some(options) = options else { return };
    if let Some(name) = &options.gmsa_credential_spec_name {
        each(names::is_dns1123_subdomain(name), name, &at.child("gmsaCredentialSpecName"), errors);
    }
    if let Some(spec) = &options.gmsa_credential_spec {
        let at = at.child("gmsaCredentialSpec");
        if spec.is_empty() {
            errors.push(FieldError::invalid(&at, spec, "gmsaCredentialSpec cannot be an empty string"));
        } else if spec.len() > MAX_SPEC {
            let message = format!("gmsaCredentialSpec size must be under {} KiB", MAX_SPEC / 1024);
            errors.push(FieldError::invalid(&at, spec, message));
        }
    }
    if let Some(name) = &options.run_as_user_name {
        for message in user_name(name) {
            errors.push(FieldError::invalid(&at.child("runAsUserName"), name, message));
        }
    }
}

/// What is wrong with `DOMAIN\user`.
fn user_name(name: &str) -> Vec<String> {
    if name.is_empty() {
        return vec!["runAsUserName cannot be an empty string".into()];
    }
    if name.chars().any(|c| c.is_ascii_control()) {
        return vec!["runAsUserName cannot contain control characters".into()];
    }
    let parts: Vec<&str> = name.split('\\').collect();
    let (domain, user) = match parts.as_slice() {
        [user] => (None, *user),
        [domain, user] => (Some(*domain), *user),
        _ => return vec!["runAsUserName cannot contain more than one backslash".into()],
    };
    let mut messages = Vec::new();
    if domain.is_some_and(|domain| domain.len() >= MAX_DOMAIN) {
        messages.push(format!("runAsUserName's Domain length must be under {MAX_DOMAIN} characters"));
    }
    if domain.is_some_and(|domain| !is_net_bios(domain) && !is_dns(domain)) {
        messages.push("runAsUserName's Domain doesn't match the NetBios nor the DNS format".into());
    }
    if user.is_empty() {
        messages.push("runAsUserName's User cannot be empty".into());
    } else if user.len() > MAX_USER {
        messages.push(format!("runAsUserName's User length must not be longer than {MAX_USER} characters"));
    }
    if !user.is_empty() && user.chars().all(|c| matches!(c, '.' | ' ')) {
        messages.push("runAsUserName's User cannot contain only periods or spaces".into());
    }
    if user.contains(|c| FORBIDDEN_IN_USERS.contains(c)) {
        messages.push(
            "runAsUserName's User cannot contain the following characters: \"/\\:;|=,+*?<>@[]".to_owned(),
        );
    }
    messages
}

fn is_net_bios(domain: &str) -> bool {
    let count = domain.chars().count();
    (1..=15).contains(&count)
        && !domain.starts_with('.')
        && !domain.contains(['\\', '/', ':', '*', '?', '"', '<', '>', '|'])
}

fn is_dns(domain: &str) -> bool {
    domain.split('.').all(|label| {
        let bytes = label.as_bytes();
        (1..=63).contains(&bytes.len())
            && bytes[0].is_ascii_alphanumeric()
            && bytes[bytes.len() - 1].is_ascii_alphanumeric()
            && bytes.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'-')
    })
}

/// Containers that are processes of the host: all of a pod or none, and in the host's network.
pub(super) fn host_process(spec: &PodSpec, at: &Path, errors: &mut FieldErrors) {
    let process = |options: Option<&WindowsSecurityContextOptions>| options.and_then(|own| own.host_process);
    let pod = process(spec.security_context.as_ref().and_then(|context| context.windows_options.as_ref()));
    let parts = parts(spec, at);
    let mut count = 0;
    for part in &parts {
        let own = process(part.security.and_then(|context| context.windows_options.as_ref()));
        if let (Some(pod), Some(own)) = (pod, own)
            && pod != own
        {
            let at = part.at.child("securityContext").child("windowsOptions").child("hostProcess");
            let message = format!("pod hostProcess value must be identical if both are specified, was {pod}");
            errors.push(FieldError::invalid(&at, own, message));
        }
        count += usize::from(own.or(pod) == Some(true));
    }
    if count == 0 {
        return;
    }
    if count != parts.len() {
        let message =
            "If pod contains any hostProcess containers then all containers must be HostProcess containers";
        errors.push(FieldError::invalid(at, "", message));
    }
    if spec.host_network != Some(true) {
        let message = "hostNetwork must be true if pod contains any hostProcess containers";
        errors.push(FieldError::invalid(&at.child("hostNetwork"), false, message));
    }
}
