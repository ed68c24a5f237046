//! The parameters of a binding.

use serde_json::Value;

use super::config::{Binding, Policy};
use crate::api::meta::group_version;
use crate::registry::admission::Request;
use crate::registry::admission::webhooks::config::selector;
use crate::registry::render;

/// The parameters that a binding names; `[None]` for a policy without.
///
/// # Errors
/// The parameters cannot be found, and the binding does not allow that.
pub async fn of(
    request: &Request<'_>,
    policy: &Policy,
    binding: &Binding,
) -> Result<Vec<Option<Value>>, String> {
    let Some((api_version, kind)) = &policy.param_kind else { return Ok(vec![None]) };
    let Some(reference) = &binding.param_ref else { return Ok(vec![None]) };
    let (group, version) = group_version(api_version);
    let (_, rows) = request.registry.rows();
    let row =
        rows.iter().find(|row| row.group == group && row.version == version && row.kind == *kind.as_str());
    let row = row.ok_or_else(|| {
        format!("failed to find resource referenced by paramKind: '{api_version}, Kind={kind}'")
    })?;
    let text = |key: &str| reference.get(key).and_then(Value::as_str).unwrap_or_default();
    let namespace = match (row.namespaced(), text("namespace")) {
        (false, "") => "",
        (false, _) => {
            return Err("paramRef.namespace must not be provided for a cluster-scoped `paramKind`".to_owned());
        }
        (true, "") if request.namespace.is_empty() => {
            return Err(
                "cannot use namespaced paramRef in policy binding that matches cluster-scoped resources"
                    .to_owned(),
            );
        }
        (true, "") => request.namespace,
        (true, given) => given,
    };
    let cache = request.registry.cache_of(row).map_err(|error| error.message().to_owned())?;
    let found: Vec<_> = if text("name").is_empty() {
        let labels = selector(reference.get("selector"));
        let scope = (!namespace.is_empty()).then_some(namespace);
        let all = cache.current();
        all.iter(scope, None).filter(|object| labels.matches(|key| object.label(key))).cloned().collect()
    } else {
        cache.get(namespace, text("name")).into_iter().collect()
    };
    if found.is_empty() {
        if text("parameterNotFoundAction") == "Allow" {
            return Ok(Vec::new());
        }
        return Err("no params found for policy binding with `Deny` parameterNotFoundAction".to_owned());
    }
    let mut params = Vec::with_capacity(found.len());
    for object in found {
        let own = render::own_form(row, object.json()).await.map_err(|error| error.message().to_owned())?;
        params.push(Some(serde_json::from_slice(&own).map_err(|error| error.to_string())?));
    }
    Ok(params)
}
