//! `DefaultIngressClass`: an Ingress that names no class gets the default one.

use async_trait::async_trait;
use k8s_openapi::api::networking::v1::{Ingress, IngressClass};

use super::storage::newest;
use super::{Operation, Plugin, Request};
use crate::api::error::ApiError;
use crate::registry::object::Object;

const DEFAULT: &str = "ingressclass.kubernetes.io/is-default-class";
const OLD_CLASS: &str = "kubernetes.io/ingress.class";

pub(super) struct DefaultIngressClass;

#[async_trait]
impl Plugin for DefaultIngressClass {
    async fn admit(
        &self,
        request: &Request<'_>,
        object: &mut dyn Object,
        _: Option<&dyn Object>,
    ) -> Result<bool, ApiError> {
        if request.operation != Operation::Create || !request.is("networking.k8s.io", "ingresses") {
            return Ok(false);
        }
        let Some(ingress) = object.downcast_mut::<Ingress>() else { return Ok(false) };
        let annotated = ingress.metadata.annotations.as_ref().is_some_and(|a| a.contains_key(OLD_CLASS));
        let spec = ingress.spec.get_or_insert_default();
        if annotated || spec.ingress_class_name.is_some() {
            return Ok(false);
        }
        spec.ingress_class_name =
            newest(request.registry.read_all_latest::<IngressClass>("").await?, is_default);
        Ok(spec.ingress_class_name.is_some())
    }
}

fn is_default(class: &IngressClass) -> bool {
    let annotations = class.metadata.annotations.as_ref();
    annotations.and_then(|a| a.get(DEFAULT)).is_some_and(|value| value == "true")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_a_marked_class_is_the_default() {
        let class = |name: &str, default: &str| -> IngressClass {
            serde_json::from_value(json!({"metadata": {"name": name, "annotations": {DEFAULT: default}}}))
                .unwrap()
        };
        assert_eq!(newest(vec![class("a", "false"), class("b", "true")], is_default).as_deref(), Some("b"));
        assert_eq!(newest(vec![class("a", "false")], is_default), None);
    }
}
