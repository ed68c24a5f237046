//! Attached volumes: waiting for them, and telling what is in use, so that nothing is detached under a pod.

use std::time::Duration;

use k8s_openapi::api::core::v1::Node;
use k8s_openapi::api::storage::v1::VolumeAttachment;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use super::{CsiError, CsiVolumes};
use crate::plugins::csi::Strings;

/// A node may only get its attachments, not watch them; past this many looks the pod's worker tries again later.
const LOOKS: u32 = 7;
const FIRST_WAIT: Duration = Duration::from_millis(50);

impl CsiVolumes {
    /// What the driver has noted about the attachment, once there is one.
    pub(super) async fn attachment(&self, name: &str) -> Result<Strings, CsiError> {
        let api: Api<VolumeAttachment> = Api::all(self.client.clone());
        let mut wait = FIRST_WAIT;
        let mut problem = CsiError::NotAttached(name.to_owned());
        for _ in 0..LOOKS {
            let found = api.get_opt(name).await;
            let found = found.map_err(|e| CsiError::Get(format!("volume attachment {name}"), e))?;
            let status = found.and_then(|attachment| attachment.status);
            match status {
                Some(status) if status.attached => {
                    return Ok(status.attachment_metadata.unwrap_or_default().into_iter().collect());
                }
                Some(status) => {
                    if let Some(message) = status.attach_error.and_then(|error| error.message) {
                        problem = CsiError::Attach { name: name.to_owned(), message };
                    }
                }
                None => {}
            }
            tokio::time::sleep(wait).await;
            wait *= 2;
        }
        Err(problem)
    }

    /// Writes what is in use into the Node's status. It is said before anything is mounted and taken back after the last
    /// unmount: the controller detaches only what is not in use.
    pub(super) async fn report_use(&self) -> Result<(), CsiError> {
        let api: Api<Node> = Api::all(self.client.clone());
        let name = &self.config.node_name;
        let failed = |e| CsiError::Get(format!("node {name}"), e);
        let used: Vec<String> = self.places().in_use().into_iter().collect();
        let node = api.get_opt(name).await.map_err(failed)?;
        let shown = node.and_then(|node| node.status?.volumes_in_use).unwrap_or_default();
        if shown == used {
            return Ok(());
        }
        let patch = json!({"status": {"volumesInUse": used}});
        api.patch_status(name, &PatchParams::default(), &Patch::Merge(patch)).await.map_err(failed)?;
        Ok(())
    }
}
