//! Stops one container: event, preStop hook within the grace period, then the runtime's stop.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, LifecycleHandler, Pod};
use tokio::time::Instant;

use super::plan::Kill;
use crate::kubelet::context::Context;
use crate::kubelet::probes::act::{Target, hook};
use crate::kubelet::spec;

/// A container gets at least this long between SIGTERM and SIGKILL, however long its hook took.
const MIN_AFTER_HOOK: Duration = Duration::from_secs(2);

/// Stops the container; true when it is known to have stopped. `noted` is the container's annotation of its hook.
pub async fn kill(
    ctx: Arc<Context>,
    pod: Option<Arc<Pod>>,
    noted: Option<String>,
    kill: Kill,
    pod_ip: String,
    with_hook: bool,
) -> bool {
    let begun = Instant::now();
    if let Some(pod) = &pod {
        ctx.events(pod).normal(Some(&kill.name), "Killing", &kill.message);
    }
    let mut grace = kill.grace;
    if with_hook && let Some((handler, definition)) = pre_stop(pod.as_deref(), &kill.name, noted.as_deref()) {
        let target = Target::new(&ctx.runtime, &kill.id, &definition, pod_ip);
        match tokio::time::timeout(grace, hook(&target, &handler)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::debug!(container = %kill.name, error = %error.text, "preStop hook failed");
                if let Some(pod) = &pod {
                    ctx.events(pod).warning(Some(&kill.name), "FailedPreStopHook", "PreStopHook failed");
                }
            }
            Err(_) => {
                tracing::debug!(container = %kill.name, "preStop hook took the whole grace period")
            }
        }
        let least = MIN_AFTER_HOOK.min(kill.grace);
        grace = grace.saturating_sub(begun.elapsed()).max(least);
    }
    match ctx.runtime.stop_container(&kill.id, grace).await {
        Ok(()) => true,
        Err(error) if error.is_not_found() => true,
        Err(error) => {
            tracing::warn!(container = %kill.id, error = &error as &dyn std::error::Error, "container not stopped");
            false
        }
    }
}

/// The hook from the spec, or from the container's annotation when the API no longer has the pod.
fn pre_stop(pod: Option<&Pod>, name: &str, noted: Option<&str>) -> Option<(LifecycleHandler, Container)> {
    if let Some((_, definition)) = pod.and_then(|p| spec::find_container(p, name)) {
        let handler = definition.lifecycle.as_ref()?.pre_stop.clone()?;
        return Some((handler, definition.into_owned()));
    }
    let handler = serde_json::from_str(noted?).ok()?;
    Some((handler, Container { name: name.to_owned(), ..Container::default() }))
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
        assert_eq!(pre_stop(Some(&pod), "a", None).unwrap().0.sleep.unwrap().seconds, 3);
        assert!(pre_stop(Some(&pod), "b", None).is_none());
        assert!(pre_stop(None, "a", None).is_none());
        assert!(pre_stop(None, "a", Some(r#"{"exec":{"command":["x"]}}"#)).unwrap().0.exec.is_some());
    }
}
