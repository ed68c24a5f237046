//! Pods made from a pod template.

use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

/// Longest name prefix that leaves room for the API server's random suffix.
const MAX_PREFIX: usize = 58;

/// The `generateName` of the children of `owner`: its name and a dash.
pub fn name_prefix(owner: &str) -> String {
    let mut prefix = format!("{owner}-");
    if prefix.len() > MAX_PREFIX {
        let end = (0..=MAX_PREFIX).rev().find(|&i| prefix.is_char_boundary(i)).unwrap_or(0);
        prefix.truncate(end);
    }
    prefix
}

/// The pod that `template` describes, named after and controlled by its owner.
pub fn pod_from_template(
    template: &PodTemplateSpec,
    namespace: &str,
    owner_name: &str,
    owner: OwnerReference,
) -> Pod {
    let from = template.metadata.clone().unwrap_or_default();
    Pod {
        metadata: ObjectMeta {
            namespace: Some(namespace.to_owned()),
            generate_name: Some(name_prefix(owner_name)),
            labels: from.labels,
            annotations: from.annotations,
            finalizers: from.finalizers,
            owner_references: Some(vec![owner]),
            ..ObjectMeta::default()
        },
        spec: template.spec.clone(),
        status: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_pod_carries_the_templates_labels_and_the_owner() {
        let template: PodTemplateSpec = serde_json::from_value(json!({
            "metadata": {"labels": {"app": "web"}, "annotations": {"a": "b"}, "name": "ignored"},
            "spec": {"containers": [{"name": "c"}]},
        }))
        .unwrap();
        let owner = OwnerReference { name: "web-1".into(), uid: "u".into(), ..OwnerReference::default() };
        let pod = pod_from_template(&template, "ns", "web-1", owner.clone());
        assert_eq!(pod.metadata.generate_name.as_deref(), Some("web-1-"));
        assert_eq!(pod.metadata.name, None);
        assert_eq!(pod.metadata.labels.unwrap()["app"], "web");
        assert_eq!(pod.metadata.owner_references, Some(vec![owner]));
        assert_eq!(pod.spec.unwrap().containers.len(), 1);
    }

    #[test]
    fn long_owner_names_leave_room_for_the_suffix() {
        assert_eq!(name_prefix(&"x".repeat(63)).len(), 58);
        assert_eq!(name_prefix("web"), "web-");
    }
}
