//! Which container of a pod a request means.

use k8s_openapi::api::core::v1::Pod;

use crate::api::error::ApiError;

/// The node that runs a pod; `None` before it is scheduled.
pub(super) fn node_of(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref().filter(|node| !node.is_empty())
}

/// The named container, or the only one; 400 when there is no such one or several to choose from.
pub(super) fn choose(pod: &Pod, wanted: &str) -> Result<String, ApiError> {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let Some(spec) = &pod.spec else { return Err(ApiError::internal("pod without spec")) };
    let containers: Vec<&str> = spec.containers.iter().map(|c| c.name.as_str()).collect();
    let init: Vec<&str> = spec.init_containers.iter().flatten().map(|c| c.name.as_str()).collect();
    let ephemeral: Vec<&str> = spec.ephemeral_containers.iter().flatten().map(|c| c.name.as_str()).collect();
    if wanted.is_empty() {
        if let [only] = containers.as_slice() {
            return Ok((*only).to_owned());
        }
        let mut message = format!(
            "a container name must be specified for pod {name}, choose one of: [{}]",
            containers.join(" ")
        );
        if !init.is_empty() {
            message.push_str(&format!(" or one of the init containers: [{}]", init.join(" ")));
        }
        if !ephemeral.is_empty() {
            message.push_str(&format!(" or one of the ephemeral containers: [{}]", ephemeral.join(" ")));
        }
        return Err(ApiError::bad_request(message));
    }
    if [containers, init, ephemeral].iter().any(|names| names.contains(&wanted)) {
        return Ok(wanted.to_owned());
    }
    Err(ApiError::bad_request(format!("container {wanted} is not valid for pod {name}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(containers: &[&str], init: &[&str]) -> Pod {
        let named = |names: &[&str]| names.iter().map(|n| serde_json::json!({"name": n})).collect::<Vec<_>>();
        serde_json::from_value(serde_json::json!({
            "metadata": {"name": "web"},
            "spec": {"containers": named(containers), "initContainers": named(init)},
        }))
        .unwrap()
    }

    #[test]
    fn only_container_is_the_default() {
        assert_eq!(choose(&pod(&["a"], &["i"]), "").unwrap(), "a");
        assert_eq!(choose(&pod(&["a", "b"], &["i"]), "i").unwrap(), "i");
    }

    #[test]
    fn choice_among_several_is_the_clients() {
        let error = choose(&pod(&["a", "b"], &["i"]), "").unwrap_err();
        assert_eq!(
            (error.code(), error.message()),
            (
                400,
                "a container name must be specified for pod web, choose one of: [a b] or one of the init containers: [i]"
            )
        );
        assert_eq!(
            choose(&pod(&["a"], &[]), "x").unwrap_err().message(),
            "container x is not valid for pod web"
        );
    }
}
