//! `ServiceAccount`: pods run as an account that exists, with its token mounted and its pull secrets.

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{
    ConfigMapProjection, Container, DownwardAPIProjection, DownwardAPIVolumeFile, KeyToPath,
    ObjectFieldSelector, Pod, PodSpec, ProjectedVolumeSource, ServiceAccount, ServiceAccountTokenProjection,
    Volume, VolumeMount, VolumeProjection,
};

use super::{Operation, Plugin, Request};
use crate::api::error::ApiError;
use crate::registry::object::Object;
use crate::registry::write::system;

/// Where containers find their token.
const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const VOLUME_PREFIX: &str = "kube-api-access-";
/// An hour and seven seconds: recognisable as the default in audit logs.
const TOKEN_SECONDS: i64 = 3607;
const MIRROR: &str = "kubernetes.io/config.mirror";

pub(super) struct ServiceAccountPlugin;

#[async_trait]
impl Plugin for ServiceAccountPlugin {
    async fn admit(
        &self,
        request: &Request<'_>,
        object: &mut dyn Object,
        _: Option<&dyn Object>,
    ) -> Result<bool, ApiError> {
        if request.operation != Operation::Create || !request.is("", "pods") {
            return Ok(false);
        }
        let Some(pod) = object.downcast_mut::<Pod>() else { return Ok(false) };
        let name = pod.metadata.name.clone().unwrap_or_default();
        let mirror = pod.metadata.annotations.as_ref().is_some_and(|a| a.contains_key(MIRROR));
        let spec = pod.spec.get_or_insert_default();
        if mirror {
            if spec.service_account_name.as_deref().is_some_and(|n| !n.is_empty()) {
                return Err(request.forbid("a mirror pod may not reference service accounts"));
            }
            return Ok(false);
        }
        if spec.service_account_name.as_deref().is_none_or(str::is_empty) {
            spec.service_account_name = Some("default".into());
            spec.service_account = Some("default".into());
        }
        let account = self.account(request, &name, spec).await?;
        if automounts(&account, spec) {
            mount_token(spec);
        }
        if spec.image_pull_secrets.as_ref().is_none_or(Vec::is_empty) {
            spec.image_pull_secrets = account.image_pull_secrets.filter(|secrets| !secrets.is_empty());
        }
        Ok(true)
    }
}

impl ServiceAccountPlugin {
    async fn account(
        &self,
        request: &Request<'_>,
        pod: &str,
        spec: &PodSpec,
    ) -> Result<ServiceAccount, ApiError> {
        let name = spec.service_account_name.as_deref().unwrap_or_default();
        if let Some(account) = request.registry.read_one::<ServiceAccount>(request.namespace, name)? {
            return Ok(account);
        }
        match request.registry.read_latest::<ServiceAccount>(request.namespace, name).await {
            Ok(account) => Ok(account),
            Err(error) if error.code() == 404 => Err(ApiError::forbidden(
                &request.resource.group_resource(),
                pod,
                format!("error looking up service account {}/{name}: {}", request.namespace, error.message()),
            )),
            Err(error) => Err(error),
        }
    }
}

fn automounts(account: &ServiceAccount, spec: &PodSpec) -> bool {
    spec.automount_service_account_token.or(account.automount_service_account_token).unwrap_or(true)
}

fn mount_token(spec: &mut PodSpec) {
    let existing =
        spec.volumes.iter().flatten().find(|v| v.name.starts_with(VOLUME_PREFIX)).map(|v| v.name.clone());
    let name = existing.clone().unwrap_or_else(|| system::generate_name(VOLUME_PREFIX));
    let mut used = false;
    let containers = spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten());
    for container in containers {
        used |= mount_in(container, &name);
    }
    if used && existing.is_none() {
        spec.volumes.get_or_insert_default().push(token_volume(name));
    }
}

fn mount_in(container: &mut Container, volume: &str) -> bool {
    let mounts = container.volume_mounts.get_or_insert_default();
    if mounts.iter().any(|mount| mount.mount_path == MOUNT_PATH) {
        return false;
    }
    mounts.push(VolumeMount {
        name: volume.into(),
        mount_path: MOUNT_PATH.into(),
        read_only: Some(true),
        ..Default::default()
    });
    true
}

fn token_volume(name: String) -> Volume {
    let token = VolumeProjection {
        service_account_token: Some(ServiceAccountTokenProjection {
            path: "token".into(),
            expiration_seconds: Some(TOKEN_SECONDS),
            audience: None,
        }),
        ..Default::default()
    };
    let authority = VolumeProjection {
        config_map: Some(ConfigMapProjection {
            name: "kube-root-ca.crt".into(),
            items: Some(vec![KeyToPath { key: "ca.crt".into(), path: "ca.crt".into(), mode: None }]),
            optional: None,
        }),
        ..Default::default()
    };
    let namespace = VolumeProjection {
        downward_api: Some(DownwardAPIProjection {
            items: Some(vec![DownwardAPIVolumeFile {
                path: "namespace".into(),
                field_ref: Some(ObjectFieldSelector {
                    api_version: Some("v1".into()),
                    field_path: "metadata.namespace".into(),
                }),
                ..Default::default()
            }]),
        }),
        ..Default::default()
    };
    Volume {
        name,
        projected: Some(ProjectedVolumeSource {
            default_mode: Some(0o644),
            sources: Some(vec![token, authority, namespace]),
        }),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> PodSpec {
        PodSpec {
            containers: vec![Container { name: "a".into(), ..Default::default() }],
            init_containers: Some(vec![Container { name: "b".into(), ..Default::default() }]),
            ..Default::default()
        }
    }

    #[test]
    fn the_token_is_mounted_once_in_every_container() {
        let mut spec = spec();
        mount_token(&mut spec);
        mount_token(&mut spec);
        let volumes = spec.volumes.as_ref().unwrap();
        assert_eq!(volumes.len(), 1);
        let mount = &spec.containers[0].volume_mounts.as_ref().unwrap()[0];
        assert_eq!((mount.name.as_str(), mount.mount_path.as_str()), (volumes[0].name.as_str(), MOUNT_PATH));
        assert_eq!(spec.init_containers.unwrap()[0].volume_mounts.as_ref().unwrap().len(), 1);
    }

    #[test]
    fn the_pod_overrides_the_account_about_mounting() {
        let mut account = ServiceAccount::default();
        let mut spec = spec();
        assert!(automounts(&account, &spec));
        account.automount_service_account_token = Some(false);
        assert!(!automounts(&account, &spec));
        spec.automount_service_account_token = Some(true);
        assert!(automounts(&account, &spec));
    }
}
