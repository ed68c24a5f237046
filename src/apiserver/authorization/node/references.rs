//! What a pod refers to: everything its kubelet must read to run it.

use std::collections::HashSet;

use k8s_openapi::api::core::v1::{Container, EphemeralContainer, Pod, Volume};

/// Names, all in the pod's own namespace, that a pod refers to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct References {
    /// Secrets: volumes, environment, image pull secrets.
    pub secrets: HashSet<String>,
    /// Config maps: volumes, environment.
    pub config_maps: HashSet<String>,
    /// Persistent volume claims, the ones of generic ephemeral volumes among them.
    pub claims: HashSet<String>,
    /// Resource claims.
    pub resource_claims: HashSet<String>,
    /// The service account.
    pub service_account: String,
}

impl References {
    /// Collects them.
    pub fn of(pod: &Pod) -> Self {
        let mut refs = Self::default();
        let Some(spec) = &pod.spec else { return refs };
        refs.service_account = spec.service_account_name.clone().unwrap_or_default();
        refs.secrets.extend(spec.image_pull_secrets.iter().flatten().map(|secret| secret.name.clone()));
        for container in spec.init_containers.iter().flatten().chain(&spec.containers) {
            refs.add_container(container);
        }
        for container in spec.ephemeral_containers.iter().flatten() {
            refs.add_ephemeral(container);
        }
        let pod_name = pod.metadata.name.as_deref().unwrap_or_default();
        for volume in spec.volumes.iter().flatten() {
            refs.add_volume(volume, pod_name);
        }
        let statuses = pod.status.iter().flat_map(|status| status.resource_claim_statuses.iter().flatten());
        refs.resource_claims.extend(statuses.filter_map(|status| status.resource_claim_name.clone()));
        refs.resource_claims.extend(
            spec.resource_claims.iter().flatten().filter_map(|claim| claim.resource_claim_name.clone()),
        );
        refs
    }

    fn add_container(&mut self, container: &Container) {
        for source in container.env_from.iter().flatten() {
            self.secrets.extend(source.secret_ref.iter().map(|r| r.name.clone()));
            self.config_maps.extend(source.config_map_ref.iter().map(|r| r.name.clone()));
        }
        for source in container.env.iter().flatten().filter_map(|env| env.value_from.as_ref()) {
            self.secrets.extend(source.secret_key_ref.iter().map(|r| r.name.clone()));
            self.config_maps.extend(source.config_map_key_ref.iter().map(|r| r.name.clone()));
        }
    }

    fn add_ephemeral(&mut self, container: &EphemeralContainer) {
        self.add_container(&Container {
            env: container.env.clone(),
            env_from: container.env_from.clone(),
            ..Container::default()
        });
    }

    fn add_volume(&mut self, volume: &Volume, pod_name: &str) {
        self.secrets.extend(volume.secret.iter().filter_map(|s| s.secret_name.clone()));
        self.config_maps.extend(volume.config_map.iter().map(|c| c.name.clone()));
        self.claims.extend(volume.persistent_volume_claim.iter().map(|c| c.claim_name.clone()));
        if volume.ephemeral.is_some() {
            self.claims.insert(format!("{pod_name}-{}", volume.name));
        }
        for source in volume.projected.iter().flat_map(|p| p.sources.iter().flatten()) {
            self.secrets.extend(source.secret.iter().map(|s| s.name.clone()));
            self.config_maps.extend(source.config_map.iter().map(|c| c.name.clone()));
        }
        let csi = volume.csi.iter().filter_map(|csi| csi.node_publish_secret_ref.as_ref());
        self.secrets.extend(csi.map(|secret| secret.name.clone()));
        let legacy = [
            volume.rbd.as_ref().and_then(|v| v.secret_ref.as_ref()),
            volume.cephfs.as_ref().and_then(|v| v.secret_ref.as_ref()),
            volume.flex_volume.as_ref().and_then(|v| v.secret_ref.as_ref()),
            volume.iscsi.as_ref().and_then(|v| v.secret_ref.as_ref()),
        ];
        self.secrets.extend(legacy.into_iter().flatten().map(|secret| secret.name.clone()));
    }
}
