//! Volumes that have grown: the driver makes the file system as large, and the claim is told.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::{CsiError, CsiVolumes, Wanted, capability};
use crate::client::{EventType, Recorder};
use crate::kubelet::containers::resources::units;
use crate::plugins::csi::{Capability, Driver, v1};

/// How often mounted volumes are looked at; a node may not watch claims of its pods.
const PERIOD: Duration = Duration::from_secs(30);

impl CsiVolumes {
    /// Expands the file system when the volume is larger than its claim says.
    pub(super) async fn expand(
        &self,
        driver: &Driver,
        pod: &Pod,
        wanted: &Wanted,
        target: &Path,
    ) -> Result<bool, CsiError> {
        let Some((namespace, name)) = &wanted.claim else { return Ok(false) };
        if wanted.block || wanted.read_only || !driver.can(Capability::ExpandVolume) {
            return Ok(false);
        }
        let api: Api<PersistentVolumeClaim> = Api::namespaced(self.client.clone(), namespace);
        let failed = |e| CsiError::Get(format!("claim {namespace}/{name}"), e);
        let Some(claim) = api.get_opt(name).await.map_err(failed)? else { return Ok(false) };
        if !has_grown(&claim, wanted.capacity) {
            return Ok(false);
        }
        let staging = self.places().staging(wanted);
        let request = v1::NodeExpandVolumeRequest {
            volume_id: wanted.handle.clone(),
            volume_path: target.display().to_string(),
            capacity_range: Some(v1::CapacityRange { required_bytes: wanted.capacity, limit_bytes: 0 }),
            staging_target_path: match driver.can(Capability::StageUnstageVolume) {
                true => staging.display().to_string(),
                false => String::new(),
            },
            volume_capability: Some(capability(driver, pod, wanted)),
            secrets: self.secret(wanted.expand_secret.as_ref()).await?,
        };
        driver.expand(request).await?;
        let patch = Patch::Merge(grown(&claim, wanted.capacity));
        api.patch_status(name, &PatchParams::default(), &patch).await.map_err(failed)?;
        Ok(true)
    }

    /// Expands what is mounted and has grown since, once.
    async fn expand_mounted(&self, recorder: &Recorder) -> Result<(), CsiError> {
        for (directory, data) in self.places().published() {
            let Some(driver) = self.drivers.get(&data.driver_name) else { continue };
            if data.ephemeral() || data.block || !driver.can(Capability::ExpandVolume) {
                continue;
            }
            let api: Api<PersistentVolume> = Api::all(self.client.clone());
            let failed = |e| CsiError::Get(format!("volume {}", data.name), e);
            let Some(volume) = api.get_opt(&data.name).await.map_err(failed)? else { continue };
            let Some(wanted) = Wanted::persistent(&volume, false) else { continue };
            let lock = self.lock(&wanted.driver, &wanted.handle);
            let _held = lock.lock().await;
            let target = directory.join("mount");
            if self.expand(&driver, &Pod::default(), &wanted, &target).await? {
                let message =
                    format!("MountVolume.NodeExpandVolume succeeded for volume \"{}\"", wanted.name);
                recorder.event(&volume, EventType::Normal, "FileSystemResizeSuccessful", message);
            }
        }
        Ok(())
    }

    /// Looks after mounted volumes until `stop`. Costs nothing while no driver that expands has any.
    pub async fn follow_growth(self: Arc<Self>, recorder: Recorder, stop: CancellationToken) {
        let work = async {
            loop {
                tokio::time::sleep(PERIOD).await;
                if let Err(error) = self.expand_mounted(&recorder).await {
                    tracing::warn!(error = &error as &dyn std::error::Error, "volume not expanded");
                }
            }
        };
        stop.run_until_cancelled(work).await;
    }
}

/// Whether the volume has more bytes than its claim knows of.
fn has_grown(claim: &PersistentVolumeClaim, capacity: i64) -> bool {
    let known = claim.status.as_ref().and_then(|status| status.capacity.as_ref()?.get("storage"));
    known.is_some_and(|known| units(known) < capacity)
}

/// The claim's status once the file system is as large as the volume.
fn grown(claim: &PersistentVolumeClaim, capacity: i64) -> Value {
    let status = claim.status.clone().unwrap_or_default();
    let pending = ["FileSystemResizePending", "Resizing", "NodeResizeError"];
    let left: Vec<_> =
        status.conditions.into_iter().flatten().filter(|c| !pending.contains(&c.type_.as_str())).collect();
    // The amount is written as the claim asked for it, when it is the same.
    let asked =
        claim.spec.as_ref().and_then(|spec| spec.resources.as_ref()?.requests.as_ref()?.get("storage"));
    let amount = asked.filter(|asked| units(asked) == capacity).map(|asked| asked.0.clone());
    let conditions = if left.is_empty() { Value::Null } else { json!(left) };
    json!({"status": {
        "capacity": {"storage": amount.unwrap_or_else(|| capacity.to_string())},
        "conditions": conditions,
        "allocatedResourceStatuses": {"storage": null},
    }})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_that_knows_less_than_the_volume_has_is_brought_up_to_date() {
        let claim: PersistentVolumeClaim = serde_json::from_value(json!({
            "spec": {"resources": {"requests": {"storage": "2Gi"}}},
            "status": {"capacity": {"storage": "1Gi"},
                "conditions": [{"type": "FileSystemResizePending", "status": "True"}]}}))
        .unwrap();
        assert!(has_grown(&claim, 2 << 30) && !has_grown(&claim, 1 << 30));
        assert!(!has_grown(&PersistentVolumeClaim::default(), 1), "not bound yet");
        let status = &grown(&claim, 2 << 30)["status"];
        assert_eq!((&status["capacity"]["storage"], &status["conditions"]), (&json!("2Gi"), &Value::Null));
        assert_eq!(grown(&claim, 5)["status"]["capacity"]["storage"], "5");
    }
}
