//! Gives back what a pod held: sandbox, volumes and group when it has stopped; containers and logs when it is gone.

use k8s_openapi::api::core::v1::Pod;

use super::housekeeping::{Garbage, remove_logs};
use crate::kubelet::containers::sandbox::cgroup_path;
use crate::kubelet::context::Context;
use crate::kubelet::logs::links;
use crate::kubelet::observed::ObservedPod;

/// Stops the sandboxes and removes volumes and group; true when all of it is done.
pub async fn release(ctx: &Context, uid: &str, pod: Option<&Pod>, observed: &ObservedPod) -> bool {
    for sandbox in &observed.sandboxes {
        if let Err(error) = ctx.runtime.stop_pod_sandbox(&sandbox.id).await {
            tracing::warn!(sandbox = %sandbox.id, error = &error as &dyn std::error::Error, "sandbox not stopped");
            return false;
        }
    }
    if let Err(error) = ctx.volumes.clean(uid).await {
        tracing::warn!(pod = uid, error = &error as &dyn std::error::Error, "volumes not removed");
        return false;
    }
    ctx.devices.take_back(uid);
    if let Some(cpus) = &ctx.cpus {
        cpus.take_back(uid);
    }
    if let Some(path) = pod.and_then(|p| cgroup_path(p, &ctx.config))
        && let Err(error) = ctx.host.cgroups.remove(&path).await
    {
        // An empty group left behind does no harm.
        tracing::debug!(pod = uid, error = &error as &dyn std::error::Error, "control group not removed");
    }
    true
}

/// Removes containers, sandboxes and logs; true when all of it is done.
pub async fn remove(ctx: &Context, uid: &str, observed: &ObservedPod) -> bool {
    for container in &observed.containers {
        if let Err(error) = ctx.runtime.remove_container(&container.id).await {
            tracing::warn!(container = %container.id, error = &error as &dyn std::error::Error, "container not removed");
            return false;
        }
        links::remove(&ctx.config.log_links(), &container.id);
    }
    for sandbox in &observed.sandboxes {
        if let Err(error) = ctx.runtime.remove_pod_sandbox(&sandbox.id).await {
            tracing::warn!(sandbox = %sandbox.id, error = &error as &dyn std::error::Error, "sandbox not removed");
            return false;
        }
    }
    remove_log_directory(ctx, uid);
    ctx.probes.forget(uid);
    true
}

/// The directory's name ends with the UID; the rest of it is not known for orphans.
fn remove_log_directory(ctx: &Context, uid: &str) {
    let Ok(entries) = std::fs::read_dir(&ctx.config.log_dir) else { return };
    let suffix = format!("_{uid}");
    for entry in entries.flatten().filter(|e| e.file_name().to_string_lossy().ends_with(&suffix)) {
        if let Err(error) = std::fs::remove_dir_all(entry.path()) {
            tracing::warn!(path = %entry.path().display(), %error, "logs not removed");
        }
    }
}

/// Removes old dead containers, with their logs, and old sandboxes.
pub async fn sweep(ctx: &Context, pod: Option<&Pod>, garbage: Garbage) {
    for (id, name, attempt) in garbage.containers {
        match ctx.runtime.remove_container(&id).await {
            Ok(()) => {
                links::remove(&ctx.config.log_links(), &id);
                if let Some(pod) = pod {
                    remove_logs(&ctx.log_dir(pod), &name, attempt);
                }
            }
            Err(error) => {
                tracing::debug!(container = %id, error = &error as &dyn std::error::Error, "container not removed");
            }
        }
    }
    for id in garbage.sandboxes {
        if let Err(error) = ctx.runtime.remove_pod_sandbox(&id).await {
            tracing::debug!(sandbox = %id, error = &error as &dyn std::error::Error, "sandbox not removed");
        }
    }
}
