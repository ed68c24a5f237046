//! Creates objects that are missing and brings others to what they should say, through the ordinary verbs.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::Resource as Kind;
use serde_json::Value;

use super::BootstrapError;
use crate::api::error::ApiError;
use crate::registry::context::{Body, RequestContext, UserInfo};
use crate::registry::options::GetOptions;
use crate::registry::resource::Resource;
use crate::registry::service::Registry;

/// Who makes the first objects; upstream's loopback client has the same name and rights.
const USER: &str = "system:apiserver";
const MASTERS: &str = "system:masters";

/// How often an object is tried that another server makes at the same time, and the pause in between.
const ATTEMPTS: usize = 20;
const PAUSE: Duration = Duration::from_millis(100);

/// A writer of the first objects.
pub(super) struct Applier<'a> {
    registry: &'a Arc<Registry>,
    context: RequestContext,
}

/// What became of the object that is there.
pub(super) enum Change {
    /// It is as it should be.
    None,
    /// It should be this.
    To(Value),
}

impl<'a> Applier<'a> {
    pub(super) fn new(registry: &'a Arc<Registry>) -> Self {
        let groups = vec![MASTERS.to_owned(), "system:authenticated".to_owned()];
        let user = UserInfo { name: USER.to_owned(), groups, ..UserInfo::default() };
        let mut context = RequestContext::default();
        context.user = Arc::new(user);
        context.field_manager = "kube-apiserver".to_owned();
        Applier { registry, context }
    }

    /// Creates the object unless one of that name is there.
    pub(super) async fn create_missing<K: Kind>(&self, object: Value) -> Result<(), BootstrapError> {
        self.ensure::<K>(object, |_, _| Change::None).await
    }

    /// Creates the object, or makes the part below `pointer` of the one that is there equal to its.
    pub(super) async fn make_equal<K: Kind>(
        &self,
        object: Value,
        pointer: &str,
    ) -> Result<(), BootstrapError> {
        self.ensure::<K>(object, |there, wanted| {
            let (Some(old), Some(new)) = (there.pointer(pointer), wanted.pointer(pointer)) else {
                return Change::To(wanted.clone());
            };
            if contains(old, new) {
                return Change::None;
            }
            let mut changed = there.clone();
            if let Some(part) = changed.pointer_mut(pointer) {
                *part = new.clone();
            }
            Change::To(changed)
        })
        .await
    }

    /// Creates the object, or changes the one that is there to what `mend` makes of the two (there, wanted).
    pub(super) async fn ensure<K: Kind>(
        &self,
        mut wanted: Value,
        mend: impl Fn(&Value, &Value) -> Change + Sync,
    ) -> Result<(), BootstrapError> {
        wanted["apiVersion"] = K::API_VERSION.into();
        wanted["kind"] = K::KIND.into();
        let text =
            |pointer: &str| wanted.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
        let (namespace, name) = (text("/metadata/namespace"), text("/metadata/name"));
        let failed = |source| BootstrapError::Object { kind: K::KIND, name: name.clone(), source };
        let Some(resource) = self.registry.catalog().of::<K>() else {
            return Err(failed(ApiError::internal(format!("{} is not served", K::KIND))));
        };
        for _ in 1..ATTEMPTS {
            match self.ensure_once(resource, (&namespace, &name), &wanted, &mend).await {
                // Another server does the same at this moment, or has an address that is about to be the object's.
                Err(error) if matches!(error.code(), 409 | 422) => tokio::time::sleep(PAUSE).await,
                done => return done.map_err(failed),
            }
        }
        self.ensure_once(resource, (&namespace, &name), &wanted, &mend).await.map_err(failed)
    }

    async fn ensure_once(
        &self,
        resource: &Resource,
        (namespace, name): (&str, &str),
        wanted: &Value,
        mend: &(impl Fn(&Value, &Value) -> Change + Sync),
    ) -> Result<(), ApiError> {
        let options = GetOptions::default();
        let there = self.registry.get(&self.context, resource, None, namespace, name, &options).await;
        let there = match there {
            Err(error) if error.code() == 404 => return self.create(resource, namespace, wanted).await,
            there => serde_json::from_slice(&there?.body).map_err(ApiError::internal)?,
        };
        match mend(&there, wanted) {
            Change::None => Ok(()),
            Change::To(object) => {
                let body = Body::json(object.to_string());
                self.registry.update(&self.context, resource, None, namespace, name, body).await.map(drop)
            }
        }
    }

    async fn create(&self, resource: &Resource, namespace: &str, object: &Value) -> Result<(), ApiError> {
        let body = Body::json(object.to_string());
        self.registry.create(&self.context, resource, None, namespace, "", body).await.map(drop)
    }
}

/// Whether `whole` says everything that `part` says: defaults that the server has added do not count.
fn contains(whole: &Value, part: &Value) -> bool {
    match (whole, part) {
        (Value::Object(whole), Value::Object(part)) => {
            part.iter().all(|(key, value)| whole.get(key).is_some_and(|there| contains(there, value)))
        }
        (Value::Array(whole), Value::Array(part)) => {
            whole.len() == part.len() && whole.iter().zip(part).all(|(whole, part)| contains(whole, part))
        }
        (whole, part) => whole == part,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn defaults_are_no_difference() {
        let there = json!([{"ip": "1", "extra": true}]);
        assert!(contains(&there, &json!([{"ip": "1"}])));
        assert!(!contains(&there, &json!([{"ip": "2"}])));
        assert!(!contains(&there, &json!([{"ip": "1"}, {"ip": "2"}])));
        assert!(!contains(&json!({}), &json!({"a": null})));
    }
}
