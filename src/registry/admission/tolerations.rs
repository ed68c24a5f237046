//! `DefaultTolerationSeconds`: pods stay on a node that is not ready or not reachable for five minutes.

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{Pod, Toleration};

use super::{Operation, Plugin, Request};
use crate::api::error::ApiError;
use crate::registry::object::Object;

const SECONDS: i64 = 300;
const KEYS: [&str; 2] = ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"];

pub(super) struct DefaultTolerationSeconds;

fn tolerates(toleration: &Toleration, key: &str) -> bool {
    let own = toleration.key.as_deref().unwrap_or_default();
    let effect = toleration.effect.as_deref().unwrap_or_default();
    (own == key || own.is_empty()) && (effect == "NoExecute" || effect.is_empty())
}

fn add_missing(pod: &mut Pod) -> bool {
    let tolerations = pod.spec.get_or_insert_default().tolerations.get_or_insert_default();
    let mut changed = false;
    for key in KEYS {
        if tolerations.iter().any(|t| tolerates(t, key)) {
            continue;
        }
        tolerations.push(Toleration {
            key: Some(key.into()),
            operator: Some("Exists".into()),
            effect: Some("NoExecute".into()),
            toleration_seconds: Some(SECONDS),
            value: None,
        });
        changed = true;
    }
    changed
}

#[async_trait]
impl Plugin for DefaultTolerationSeconds {
    async fn admit(
        &self,
        request: &Request<'_>,
        object: &mut dyn Object,
        _: Option<&dyn Object>,
    ) -> Result<bool, ApiError> {
        if request.operation != Operation::Create || !request.is("", "pods") {
            return Ok(false);
        }
        Ok(object.downcast_mut::<Pod>().is_some_and(add_missing))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_missing_tolerations_are_added() {
        let mut pod = Pod::default();
        assert!(add_missing(&mut pod));
        assert!(!add_missing(&mut pod));
        assert_eq!(pod.spec.as_ref().unwrap().tolerations.as_ref().unwrap().len(), 2);
        let mut pod = Pod::default();
        pod.spec.get_or_insert_default().tolerations =
            Some(vec![Toleration { operator: Some("Exists".into()), ..Default::default() }]);
        assert!(!add_missing(&mut pod));
    }
}
