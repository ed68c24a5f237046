//! Which of the runtime's containers and sandboxes a request means.

use http::StatusCode;
use k8s_openapi::api::core::v1::Pod;

use super::Sources;
use crate::cri::{CriError, v1};
use crate::kubelet::labels;
use crate::kubelet::pods::static_pods::mirrored;

/// Namespace, pod and container of a request.
pub(super) type Names<'a> = (&'a str, &'a str, &'a str);

/// Why a request cannot be served, in the words that users see.
#[derive(Debug)]
pub(super) struct Unavailable {
    pub(super) code: StatusCode,
    pub(super) why: String,
}

impl Unavailable {
    pub(super) fn new(code: StatusCode, why: impl Into<String>) -> Self {
        Self { code, why: why.into() }
    }
}

impl From<CriError> for Unavailable {
    fn from(error: CriError) -> Self {
        let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
        Unavailable::new(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}{cause}"))
    }
}

/// The newest container of that name, or the one before it.
pub(super) async fn find(
    sources: &Sources,
    names: Names<'_>,
    previous: bool,
) -> Result<v1::Container, Unavailable> {
    let (namespace, pod, container) = names;
    let uid = uid_of(sources, namespace, pod)?;
    let selector =
        [(labels::POD_UID.to_owned(), uid), (labels::CONTAINER_NAME.to_owned(), container.to_owned())];
    let filter = v1::ContainerFilter { label_selector: selector.into_iter().collect(), ..Default::default() };
    let mut found = sources.runtime.list_containers(Some(filter)).await?;
    found.sort_by_key(|one| std::cmp::Reverse(one.created_at));
    match (found.into_iter().nth(usize::from(previous)), previous) {
        (Some(container), _) => Ok(container),
        (None, true) => {
            let why = format!("previous terminated container {container:?} in pod {pod:?} not found");
            Err(Unavailable::new(StatusCode::BAD_REQUEST, why))
        }
        (None, false) => Err(Unavailable::new(StatusCode::BAD_REQUEST, waiting(sources, names))),
    }
}

/// The container, which must be running.
pub(super) async fn find_running(sources: &Sources, names: Names<'_>) -> Result<v1::Container, Unavailable> {
    let found = find(sources, names, false).await?;
    if found.state() == v1::ContainerState::ContainerRunning {
        return Ok(found);
    }
    let why = format!("container {:?} in pod {:?} is not running", names.2, names.1);
    Err(Unavailable::new(StatusCode::BAD_REQUEST, why))
}

/// The sandbox of a pod, which must be ready.
pub(super) async fn find_sandbox(
    sources: &Sources,
    namespace: &str,
    pod: &str,
) -> Result<String, Unavailable> {
    let uid = uid_of(sources, namespace, pod)?;
    let filter = v1::PodSandboxFilter {
        label_selector: [(labels::POD_UID.to_owned(), uid)].into_iter().collect(),
        ..Default::default()
    };
    let sandboxes = sources.runtime.list_pod_sandboxes(Some(filter)).await?;
    let ready = sandboxes.into_iter().filter(|one| one.state() == v1::PodSandboxState::SandboxReady);
    ready
        .max_by_key(|one| one.created_at)
        .map(|one| one.id)
        .ok_or_else(|| Unavailable::new(StatusCode::BAD_REQUEST, format!("pod {pod:?} is not running")))
}

/// The UID that the runtime knows a pod by: a static pod's own, not its mirror's.
pub(super) fn runtime_uid(pod: &Pod) -> String {
    mirrored(pod).map(str::to_owned).or_else(|| pod.metadata.uid.clone()).unwrap_or_default()
}

fn uid_of(sources: &Sources, namespace: &str, pod: &str) -> Result<String, Unavailable> {
    let known = sources.pods.find(namespace, pod).map(|pod| runtime_uid(&pod));
    known.ok_or_else(|| {
        Unavailable::new(StatusCode::NOT_FOUND, format!("pod \"{namespace}/{pod}\" not found"))
    })
}

/// Why there is no container yet, as its status says it.
fn waiting(sources: &Sources, (namespace, pod, container): Names<'_>) -> String {
    let object = sources.pods.find(namespace, pod);
    let statuses = object.iter().filter_map(|pod| pod.status.as_ref()).flat_map(|status| {
        let lists = [
            &status.container_statuses,
            &status.init_container_statuses,
            &status.ephemeral_container_statuses,
        ];
        lists.into_iter().flatten().flatten()
    });
    let state = statuses.filter(|status| status.name == container).find_map(|status| status.state.clone());
    let reason =
        state.and_then(|state| state.waiting?.reason).unwrap_or_else(|| "ContainerCreating".to_owned());
    format!("container {container:?} in pod {pod:?} is waiting to start: {reason}")
}
