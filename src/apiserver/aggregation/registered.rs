//! What other servers and their operators read: APIServices of custom groups, and how this server identifies itself.

use std::collections::BTreeSet;
use std::sync::Arc;

use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::api::error::ApiError;
use crate::api::json;
use crate::apiserver::ApiServer;
use crate::pki::ClusterPki;
use crate::registry::{Body, DeleteOptions, RequestContext, UserInfo};

/// Marks the APIServices that come and go with the custom resources of their group.
const AUTOMANAGED: &str = "kube-aggregator.kubernetes.io/automanaged";
const NAMESPACE: &str = "kube-system";
const NAME: &str = "extension-apiserver-authentication";
/// Priority of the groups of custom resources, and of their versions.
pub(in crate::apiserver) const CUSTOM_PRIORITY: (i32, i32) = (1000, 100);

/// By what other servers recognize clients of the cluster, and this server when it speaks for them.
pub(super) struct Authentication {
    client_ca: String,
    request_header_ca: String,
}

impl Authentication {
    pub(super) fn of(pki: &ClusterPki) -> Self {
        Self {
            client_ca: pki.client_ca().cert_pem().to_owned(),
            request_header_ca: pki.request_header_ca().cert_pem().to_owned(),
        }
    }

    fn data(&self) -> Value {
        let list = |names: &[&str]| json!(names).to_string();
        json!({
            "client-ca-file": self.client_ca,
            "requestheader-client-ca-file": self.request_header_ca,
            "requestheader-allowed-names": list(&["system:auth-proxy"]),
            "requestheader-extra-headers-prefix": list(&["X-Remote-Extra-"]),
            "requestheader-group-headers": list(&["X-Remote-Group"]),
            "requestheader-uid-headers": list(&["X-Remote-Uid"]),
            "requestheader-username-headers": list(&["X-Remote-User"]),
        })
    }
}

/// A definition of custom resources, as far as it says what is served.
#[derive(Deserialize)]
struct Definition {
    spec: DefinitionSpec,
}

#[derive(Deserialize)]
struct DefinitionSpec {
    group: String,
    versions: Vec<DefinitionVersion>,
}

#[derive(Deserialize)]
struct DefinitionVersion {
    name: String,
    served: bool,
}

/// The server itself, as it writes.
pub(in crate::apiserver) fn context() -> RequestContext {
    let user = UserInfo {
        name: "system:apiserver".into(),
        groups: vec!["system:masters".into(), "system:authenticated".into()],
        ..UserInfo::default()
    };
    let mut cx = RequestContext::for_user(Arc::new(user));
    cx.user_agent = "kube-aggregator".into();
    cx
}

impl ApiServer {
    /// Makes `kube-system/extension-apiserver-authentication` say what is so; keys of others stay.
    pub(super) async fn publish_authentication(&self) -> Result<(), ApiError> {
        let row = self.registry.catalog().of::<ConfigMap>();
        let row = row.ok_or_else(|| ApiError::internal("config maps are not served"))?;
        let wanted = self.aggregation.authentication.data();
        let Some(mut there) = self.registry.read_one::<ConfigMap>(NAMESPACE, NAME)? else {
            let map = json!({"metadata": {"name": NAME, "namespace": NAMESPACE}, "data": wanted});
            let body = Body::json(map.to_string());
            return self.registry.create(&context(), row, None, NAMESPACE, "", body).await.map(drop);
        };
        let data = there.data.get_or_insert_default();
        let mut differs = false;
        for (key, value) in wanted.as_object().into_iter().flatten() {
            let value = value.as_str().unwrap_or_default();
            if data.get(key).map(String::as_str) != Some(value) {
                data.insert(key.clone(), value.to_owned());
                differs = true;
            }
        }
        if !differs {
            return Ok(());
        }
        let body = Body::json(serde_json::to_vec(&there).map_err(ApiError::internal)?);
        self.registry.update(&context(), row, None, NAMESPACE, NAME, body).await.map(drop)
    }

    /// The groups and versions that definitions of custom resources serve.
    fn custom_groups(&self) -> BTreeSet<(String, String)> {
        let row =
            self.registry.catalog().by_plural("apiextensions.k8s.io", "v1", "customresourcedefinitions");
        let Some(cache) = row.and_then(|row| self.registry.cached(row)) else { return BTreeSet::new() };
        let definitions = cache.current();
        let decoded =
            definitions.iter(None, None).filter_map(|object| json::typed::<Definition>(object.json()).ok());
        decoded
            .flat_map(|Definition { spec }| {
                let served = spec.versions.into_iter().filter(|version| version.served);
                served.map(move |version| (spec.group.clone(), version.name))
            })
            .collect()
    }

    /// Registers the groups and versions of custom resources, and forgets those that are gone.
    pub(super) async fn register_custom_groups(&self) -> Result<(), ApiError> {
        let row = self.registry.catalog().of::<APIService>();
        let row = row.ok_or_else(|| ApiError::internal("APIServices are not served"))?;
        let known = self.registry.read_all::<APIService>("")?;
        let wanted = self.custom_groups();
        let name = |service: &APIService| service.metadata.name.clone().unwrap_or_default();
        let present: BTreeSet<String> = known.iter().map(name).collect();
        for (group, version) in &wanted {
            let own = format!("{version}.{group}");
            if present.contains(&own) {
                continue;
            }
            let object = json!({
                "metadata": {"name": own, "labels": {AUTOMANAGED: "true"}},
                "spec": {"group": group, "version": version,
                    "groupPriorityMinimum": CUSTOM_PRIORITY.0, "versionPriority": CUSTOM_PRIORITY.1},
            });
            let body = Body::json(object.to_string());
            match self.registry.create(&context(), row, None, "", "", body).await {
                Err(error) if error.code() != 409 => return Err(error),
                _ => {}
            }
        }
        for service in known {
            let managed = service.metadata.labels.as_ref().and_then(|labels| labels.get(AUTOMANAGED));
            let spec = service.spec.clone().unwrap_or_default();
            let pair = (spec.group.unwrap_or_default(), spec.version.unwrap_or_default());
            if managed.map(String::as_str) != Some("true") || wanted.contains(&pair) {
                continue;
            }
            let (cx, name) = (context(), name(&service));
            match self.registry.delete(&cx, row, "", &name, DeleteOptions::default()).await {
                Err(error) if error.code() != 404 => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}
