//! Stops one container: event, preStop hook within the grace period, then the runtime's stop.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, LifecycleHandler, Pod};
use tokio::time::Instant;

use super::plan::Kill;
use crate::kubelet::context::Context;
use crate::kubelet::observed::ObservedContainer;
use crate::kubelet::probes::act::{Target, hook};
use crate::kubelet::spec;

/// A container gets at least this long between SIGTERM and SIGKILL, however long its hook took.
const MIN_AFTER_HOOK: Duration = Duration::from_secs(2);

/// Stops the container; true when it is known to have stopped.
pub async fn kill(
    ctx: Arc<Context>,
    pod: Option<Arc<Pod>>,
    container: ObservedContainer,
    kill: Kill,
    pod_ip: String,
    with_hook: bool,
) -> bool {
    let begun = Instant::now();
    if let Some(pod) = &pod {
        ctx.events(pod).normal(Some(&kill.name), "Killing", &kill.message);
    }
    let mut grace = kill.grace;
    if with_hook && let Some((handler, definition)) = pre_stop(pod.as_deref(), &container) {
        let target = Target {
            runtime: ctx.runtime.clone(),
            container_id: container.id.clone(),
            container: Box::new(definition),
            pod_ip,
        };
        match tokio::time::timeout(grace, hook(&target, &handler)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::debug!(container = %container.name, %error, "preStop hook failed");
                if let Some(pod) = &pod {
                    ctx.events(pod).warning(Some(&kill.name), "FailedPreStopHook", "PreStopHook failed");
                }
            }
            Err(_) => {
                tracing::debug!(container = %container.name, "preStop hook took the whole grace period")
            }
        }
        let least = MIN_AFTER_HOOK.min(kill.grace);
        grace = grace.saturating_sub(begun.elapsed()).max(least);
    }
    match ctx.runtime.stop_container(&container.id, grace).await {
        Ok(()) => true,
        Err(error) if error.is_not_found() => true,
        Err(error) => {
            tracing::warn!(container = %container.id, error = &error as &dyn std::error::Error, "container not stopped");
            false
        }
    }
}

/// The hook from the spec, or from the container's annotation when the API no longer has the pod.
fn pre_stop(pod: Option<&Pod>, observed: &ObservedContainer) -> Option<(LifecycleHandler, Container)> {
    if let Some((_, definition)) = pod.and_then(|p| spec::find_container(p, &observed.name)) {
        let handler = definition.lifecycle.as_ref()?.pre_stop.clone()?;
        return Some((handler, definition));
    }
    let handler = serde_json::from_str(observed.pre_stop.as_deref()?).ok()?;
    Some((handler, Container { name: observed.name.clone(), ..Container::default() }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubelet::pods::fixture;
    use serde_json::json;

    #[test]
    fn hooks_come_from_the_spec_or_from_the_annotation() {
        let pod = fixture::pod(json!({"containers": [{"name": "a",
            "lifecycle": {"preStop": {"sleep": {"seconds": 3}}}}, {"name": "b"}]}));
        let mut a = fixture::running("a");
        assert_eq!(pre_stop(Some(&pod), &a).unwrap().0.sleep.unwrap().seconds, 3);
        assert!(pre_stop(Some(&pod), &fixture::running("b")).is_none());
        assert!(pre_stop(None, &a).is_none());
        a.pre_stop = Some(r#"{"exec":{"command":["x"]}}"#.into());
        assert!(pre_stop(None, &a).unwrap().0.exec.is_some());
    }
}
