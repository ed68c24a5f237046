//! Makes sure that a container's image is on the node, by its pull policy.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod, Secret};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::backoff::PullBackoff;
use super::credentials;
use super::gc::Ages;
use super::providers::NodeCredentials;
use crate::cri::{CriError, Runtime, v1};
use crate::kubelet::containers::security::ImageUser;
use crate::kubelet::events::PodEvents;
use crate::kubelet::pods::plan::StartFailure;
use crate::kubelet::spec;

/// Image work shared by all pods of the node.
pub struct Images {
    backoff: PullBackoff,
    slots: Semaphore,
    node: Option<NodeCredentials>,
    /// Since when images are here and when they were used.
    pub ages: Mutex<Ages>,
}

/// An image that is on the node.
#[derive(Clone, Debug, PartialEq)]
pub struct ReadyImage {
    /// The runtime's id for it.
    pub id: String,
    /// Who it runs as.
    pub user: ImageUser,
}

/// Everything one pull needs.
pub struct Request<'a> {
    /// The pod.
    pub pod: &'a Pod,
    /// The container.
    pub container: &'a Container,
    /// Where to talk to.
    pub runtime: &'a Arc<dyn Runtime>,
    /// Contents of the pod's image pull secrets.
    pub secrets: &'a [Secret],
    /// Where the pod's events go.
    pub events: &'a PodEvents,
    /// The sandbox that the image is for.
    pub sandbox: &'a v1::PodSandboxConfig,
    /// The time.
    pub now: Timestamp,
}

impl Images {
    /// Nothing was pulled yet; at most so many pulls run at the same time. The node's own credentials count after
    /// those of a pod.
    pub fn new(parallel_pulls: usize, node: Option<NodeCredentials>) -> Self {
        Self {
            backoff: PullBackoff::default(),
            slots: Semaphore::new(parallel_pulls.max(1)),
            node,
            ages: Mutex::default(),
        }
    }

    /// The image, pulled when the policy asks for it.
    pub async fn ensure(&self, request: Request<'_>) -> Result<ReadyImage, StartFailure> {
        let image = request.container.image.clone().unwrap_or_default();
        let policy = policy(request.container);
        let present = match inspect(request.runtime, &image).await {
            Ok(present) => present,
            Err(error) => {
                let message = format!("Failed to inspect image \"{image}\": {}", error.upstream_message());
                request.events.warning(Some(&request.container.name), "InspectFailed", &message);
                return Err(failure("ImageInspectError", message, request.now));
            }
        };
        match (policy, present) {
            (Policy::Always, _) | (Policy::IfNotPresent, None) => self.pull(request, &image).await,
            (Policy::Never | Policy::IfNotPresent, Some(ready)) => {
                let message = format!(
                    "Container image \"{image}\" already present on machine and can be accessed by the pod"
                );
                request.events.normal(Some(&request.container.name), "Pulled", &message);
                Ok(ready)
            }
            (Policy::Never, None) => {
                let message = format!("Container image \"{image}\" is not present with pull policy of Never");
                request.events.warning(Some(&request.container.name), "ErrImageNeverPull", &message);
                Err(failure("ErrImageNeverPull", message, request.now))
            }
        }
    }

    async fn pull(&self, request: Request<'_>, image: &str) -> Result<ReadyImage, StartFailure> {
        let key = format!("{}_{image}", spec::uid(request.pod));
        let name = Some(request.container.name.as_str());
        if let Some(until) = self.backoff.blocked_until(&key, request.now) {
            let message = format!("Back-off pulling image \"{image}\"");
            request.events.normal(name, "BackOff", &message);
            return Err(StartFailure { reason: "ImagePullBackOff".to_owned(), message, retry_at: until });
        }
        request.events.normal(name, "Pulling", &format!("Pulling image \"{image}\""));
        let asked = Instant::now();
        let permit = self.slots.acquire().await;
        let begun = Instant::now();
        let outcome = self.pull_with_any(&request, image).await;
        drop(permit);
        match outcome {
            Ok(ready) => {
                self.backoff.succeeded(&key);
                let size = size_of(request.runtime, &ready.id).await;
                let message = format!(
                    "Successfully pulled image \"{image}\" in {} ({} including waiting). Image size: {size} bytes.",
                    go_millis(begun.elapsed()),
                    go_millis(asked.elapsed()),
                );
                request.events.normal(name, "Pulled", &message);
                Ok(ready)
            }
            Err(error) => {
                let now = request.now.checked_add(asked.elapsed()).unwrap_or(request.now);
                let until = self.backoff.failed(&key, now);
                let text = error.upstream_message();
                let message = format!("Failed to pull image \"{image}\": {text}");
                request.events.warning(name, "Failed", &message);
                request.events.warning(name, "Failed", "Error: ErrImagePull");
                // The status first shows the error, then, at the next look, that it is being waited out.
                let soon = now.checked_add(Duration::from_secs(1)).unwrap_or(until).min(until);
                Err(StartFailure { reason: "ErrImagePull".to_owned(), message: text, retry_at: soon })
            }
        }
    }
}

impl Images {
    async fn pull_with_any(&self, request: &Request<'_>, image: &str) -> Result<ReadyImage, CriError> {
        let mut auths = credentials::for_image(image, request.secrets);
        if let Some(node) = &self.node {
            auths.extend(node.for_image(image, request.now).await);
        }
        let mut auths: Vec<Option<v1::AuthConfig>> = auths.into_iter().map(Some).collect();
        if auths.is_empty() {
            auths.push(None);
        }
        pull_with(request, image, auths).await
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Policy {
    Always,
    IfNotPresent,
    Never,
}

/// The policy of the spec; without one, `latest` is always pulled and everything else once.
fn policy(container: &Container) -> Policy {
    match container.image_pull_policy.as_deref() {
        Some("Always") => Policy::Always,
        Some("Never") => Policy::Never,
        Some("IfNotPresent") => Policy::IfNotPresent,
        _ => {
            let image = container.image.as_deref().unwrap_or_default();
            let last = image.rsplit('/').next().unwrap_or(image);
            let latest = !image.contains('@') && (last.ends_with(":latest") || !last.contains(':'));
            if latest { Policy::Always } else { Policy::IfNotPresent }
        }
    }
}

fn failure(reason: &str, message: String, now: Timestamp) -> StartFailure {
    let retry_at = now.checked_add(Duration::from_secs(10)).unwrap_or(now);
    StartFailure { reason: reason.to_owned(), message, retry_at }
}

async fn inspect(runtime: &Arc<dyn Runtime>, image: &str) -> Result<Option<ReadyImage>, CriError> {
    let spec = v1::ImageSpec { image: image.to_owned(), ..v1::ImageSpec::default() };
    let found = runtime.image_status(spec).await?;
    Ok(found.map(|image| {
        let user = match (image.uid, image.username.as_str()) {
            (Some(uid), _) => ImageUser::Uid(uid.value),
            (None, "") => ImageUser::Uid(0),
            (None, name) => ImageUser::Name(name.to_owned()),
        };
        ReadyImage { id: image.id, user }
    }))
}

/// Tries credentials one after the other; without any, none.
async fn pull_with(
    request: &Request<'_>,
    image: &str,
    auths: Vec<Option<v1::AuthConfig>>,
) -> Result<ReadyImage, CriError> {
    let mut last = None;
    for auth in auths {
        let pull = v1::PullImageRequest {
            image: Some(v1::ImageSpec { image: image.to_owned(), ..v1::ImageSpec::default() }),
            auth,
            sandbox_config: Some(request.sandbox.clone()),
        };
        match request.runtime.pull_image(pull).await {
            Ok(reference) => {
                let ready = inspect(request.runtime, image).await?;
                return Ok(ready.unwrap_or(ReadyImage { id: reference, user: ImageUser::Uid(0) }));
            }
            Err(error) => last = Some(error),
        }
    }
    Err(last.unwrap_or_else(|| CriError::rpc("PullImage", tonic::Code::Unknown, "no credentials were tried")))
}

async fn size_of(runtime: &Arc<dyn Runtime>, id: &str) -> u64 {
    let spec = v1::ImageSpec { image: id.to_owned(), ..v1::ImageSpec::default() };
    runtime.image_status(spec).await.ok().flatten().map_or(0, |i| i.size)
}

/// A short duration as Go prints it, to the millisecond.
fn go_millis(d: Duration) -> String {
    if d < Duration::from_secs(1) {
        return format!("{}ms", d.as_millis());
    }
    let minutes = d.as_secs() / 60;
    let seconds = format!("{:.3}", d.as_secs_f64() - (minutes * 60) as f64);
    let seconds = seconds.trim_end_matches('0').trim_end_matches('.');
    if minutes == 0 { format!("{seconds}s") } else { format!("{minutes}m{seconds}s") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cri::fake::FakeRuntime;
    use crate::kubelet::pods::fixture;
    use serde_json::json;

    #[test]
    fn policies_default_by_tag() {
        let of = |image: &str, policy_word: Option<&str>| {
            policy(&Container {
                image: Some(image.into()),
                image_pull_policy: policy_word.map(str::to_owned),
                ..Container::default()
            })
        };
        assert_eq!(of("a", None), Policy::Always);
        assert_eq!(of("reg:5000/a", None), Policy::Always);
        assert_eq!(of("a:latest", None), Policy::Always);
        assert_eq!(of("a:1", None), Policy::IfNotPresent);
        assert_eq!(of("a@sha256:00", None), Policy::IfNotPresent);
        assert_eq!(of("a", Some("Never")), Policy::Never);
    }

    async fn ensure(
        images: &Images,
        runtime: &FakeRuntime,
        word: &str,
        now: Timestamp,
    ) -> Result<ReadyImage, String> {
        let pod =
            fixture::pod(json!({"containers": [{"name": "a", "image": "img:1", "imagePullPolicy": word}]}));
        let runtime: Arc<dyn Runtime> = Arc::new(runtime.clone());
        let request = Request {
            pod: &pod,
            container: &spec::main_containers(&pod)[0],
            runtime: &runtime,
            secrets: &[],
            events: &PodEvents::discard(),
            sandbox: &v1::PodSandboxConfig::default(),
            now,
        };
        images.ensure(request).await.map_err(|f| f.reason)
    }

    #[tokio::test]
    async fn a_present_image_is_pulled_only_when_the_policy_says_so() {
        let (images, runtime) = (Images::new(5, None), FakeRuntime::new());
        let id = runtime.add_image("img:1");
        let now = Timestamp::now();
        for (word, pulls) in [("IfNotPresent", 0), ("Never", 0), ("Always", 1)] {
            runtime.add_pullable("img:1");
            runtime.clear_calls();
            assert_eq!(ensure(&images, &runtime, word, now).await.unwrap().id, id);
            let pulled = runtime.calls().iter().filter(|(op, _)| *op == "PullImage").count();
            assert_eq!(pulled, pulls, "{word}");
        }
    }

    #[tokio::test]
    async fn failures_are_waited_out() {
        let (images, runtime) = (Images::new(5, None), FakeRuntime::new());
        let now = Timestamp::now();
        assert_eq!(ensure(&images, &runtime, "Never", now).await, Err("ErrImageNeverPull".into()));
        assert_eq!(ensure(&images, &runtime, "IfNotPresent", now).await, Err("ErrImagePull".into()));
        assert_eq!(ensure(&images, &runtime, "IfNotPresent", now).await, Err("ImagePullBackOff".into()));
        runtime.add_pullable("img:1");
        let later = now.checked_add(Duration::from_secs(60)).unwrap();
        assert!(ensure(&images, &runtime, "IfNotPresent", later).await.is_ok());
    }

    #[test]
    fn durations_read_as_in_go() {
        assert_eq!(go_millis(Duration::from_millis(42)), "42ms");
        assert_eq!(go_millis(Duration::from_millis(1500)), "1.5s");
        assert_eq!(go_millis(Duration::from_millis(62_040)), "1m2.04s");
    }
}
