//! The fake must behave like a runtime, or tests built on it prove nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::StreamExt;
use tonic::Code;

use super::{Behaviour, FakeRuntime};
use crate::cri::{CriError, Runtime, v1};

fn sandbox(name: &str) -> v1::PodSandboxConfig {
    v1::PodSandboxConfig {
        metadata: Some(v1::PodSandboxMetadata { name: name.into(), uid: name.into(), ..Default::default() }),
        labels: BTreeMap::from([("app".to_owned(), name.to_owned())]),
        ..Default::default()
    }
}

fn container(name: &str) -> v1::ContainerConfig {
    v1::ContainerConfig {
        metadata: Some(v1::ContainerMetadata { name: name.into(), attempt: 0 }),
        image: Some(v1::ImageSpec { image: "web:1".into(), ..Default::default() }),
        ..Default::default()
    }
}

/// A runtime with one sandbox and one running container; their ids.
async fn running(behaviours: Vec<Behaviour>) -> (FakeRuntime, String, String) {
    let runtime = FakeRuntime::new();
    runtime.add_image("web:1");
    runtime.script("main", behaviours);
    let pod = runtime.run_pod_sandbox(sandbox("a"), "").await.unwrap();
    let id = runtime.create_container(&pod, container("main"), sandbox("a")).await.unwrap();
    runtime.start_container(&id).await.unwrap();
    (runtime, pod, id)
}

async fn status(runtime: &FakeRuntime, id: &str) -> v1::ContainerStatus {
    runtime.container_status(id, false).await.unwrap().status.unwrap()
}

#[tokio::test]
async fn a_container_runs_until_told_to_exit() {
    let (runtime, _, id) = running(vec![]).await;
    assert_eq!(status(&runtime, &id).await.state(), v1::ContainerState::ContainerRunning);
    runtime.exit_because(&id, 137, "OOMKilled", "");
    let after = status(&runtime, &id).await;
    assert_eq!(after.state(), v1::ContainerState::ContainerExited);
    assert_eq!((after.exit_code, after.reason.as_str()), (137, "OOMKilled"));
    assert!(after.finished_at > after.started_at);
}

#[tokio::test]
async fn scripts_decide_what_containers_of_a_name_do() {
    let (runtime, pod, id) =
        running(vec![Behaviour::Exit(3), Behaviour::FailToStart("no such file".into())]).await;
    assert_eq!(status(&runtime, &id).await.exit_code, 3);
    let next = runtime.create_container(&pod, container("main"), sandbox("a")).await.unwrap();
    assert_eq!(runtime.start_container(&next).await.unwrap_err().code(), Code::Unknown);
    assert_eq!(status(&runtime, &next).await.reason, "StartError");
    assert_eq!(runtime.container_named("main"), Some(next));
}

#[tokio::test]
async fn events_tell_of_every_change() {
    let runtime = FakeRuntime::new();
    runtime.add_image("web:1");
    let events = runtime.container_events().await.unwrap();
    let pod = runtime.run_pod_sandbox(sandbox("a"), "").await.unwrap();
    let id = runtime.create_container(&pod, container("main"), sandbox("a")).await.unwrap();
    runtime.start_container(&id).await.unwrap();
    runtime.stop_container(&id, Duration::from_secs(1)).await.unwrap();
    runtime.remove_pod_sandbox(&pod).await.unwrap();
    let seen: Vec<_> = events
        .take(8)
        .map(|event| {
            let event = event.unwrap();
            (event.container_id.clone(), event.container_event_type())
        })
        .collect()
        .await;
    use v1::ContainerEventType::*;
    let expected = [
        (&pod, ContainerCreatedEvent),
        (&pod, ContainerStartedEvent),
        (&id, ContainerCreatedEvent),
        (&id, ContainerStartedEvent),
        (&id, ContainerStoppedEvent),
        (&pod, ContainerStoppedEvent),
        (&id, ContainerDeletedEvent),
        (&pod, ContainerDeletedEvent),
    ];
    assert_eq!(seen, expected.map(|(id, kind)| (id.clone(), kind)));
}

#[tokio::test]
async fn stopping_a_sandbox_kills_its_containers_and_is_idempotent() {
    let (runtime, pod, id) = running(vec![]).await;
    for _ in 0..2 {
        runtime.stop_pod_sandbox(&pod).await.unwrap();
    }
    assert_eq!(status(&runtime, &id).await.exit_code, 137);
    let pods = runtime.list_pod_sandboxes(None).await.unwrap();
    assert_eq!(pods[0].state(), v1::PodSandboxState::SandboxNotready);
    runtime.remove_pod_sandbox(&pod).await.unwrap();
    runtime.remove_pod_sandbox(&pod).await.unwrap();
    assert!(runtime.container_status(&id, false).await.unwrap_err().is_not_found());
}

#[tokio::test]
async fn lists_are_filtered() {
    let (runtime, pod, id) = running(vec![]).await;
    runtime.run_pod_sandbox(sandbox("b"), "").await.unwrap();
    let labels = BTreeMap::from([("app".to_owned(), "a".to_owned())]);
    let filter = v1::PodSandboxFilter { label_selector: labels, ..Default::default() };
    let pods = runtime.list_pod_sandboxes(Some(filter)).await.unwrap();
    assert_eq!(pods.iter().map(|p| &p.id).collect::<Vec<_>>(), [&pod]);
    let in_pod = v1::ContainerFilter { pod_sandbox_id: pod, ..Default::default() };
    let found = runtime.list_containers(Some(in_pod)).await.unwrap();
    assert_eq!(found.iter().map(|c| &c.id).collect::<Vec<_>>(), [&id]);
    let exited = v1::ContainerStateValue { state: v1::ContainerState::ContainerExited.into() };
    let filter = v1::ContainerFilter { state: Some(exited), ..Default::default() };
    assert!(runtime.list_containers(Some(filter)).await.unwrap().is_empty());
}

#[tokio::test]
async fn images_must_be_present_or_pullable() {
    let runtime = FakeRuntime::new();
    let pod = runtime.run_pod_sandbox(sandbox("a"), "").await.unwrap();
    let missing = runtime.create_container(&pod, container("main"), sandbox("a")).await.unwrap_err();
    assert!(missing.is_not_found());
    let spec = v1::ImageSpec { image: "web:1".into(), ..Default::default() };
    let pull = v1::PullImageRequest { image: Some(spec.clone()), ..Default::default() };
    assert!(runtime.pull_image(pull.clone()).await.unwrap_err().is_not_found());
    runtime.add_pullable("web:1");
    let id = runtime.pull_image(pull).await.unwrap();
    assert_eq!(runtime.image_status(spec.clone()).await.unwrap().unwrap().id, id);
    runtime.remove_image(spec.clone()).await.unwrap();
    assert_eq!(runtime.image_status(spec).await.unwrap(), None);
}

#[tokio::test]
async fn ordered_failures_happen_once_and_calls_are_recorded() {
    let runtime = FakeRuntime::new();
    runtime.fail_next("RunPodSandbox", CriError::rpc("RunPodSandbox", Code::Unknown, "no network"));
    assert!(runtime.run_pod_sandbox(sandbox("a"), "").await.is_err());
    assert!(runtime.run_pod_sandbox(sandbox("a"), "").await.is_ok());
    assert_eq!(runtime.calls(), [("RunPodSandbox", "a".to_owned()), ("RunPodSandbox", "a".to_owned())]);
    runtime.set_reachable(false);
    assert_eq!(runtime.version().await.unwrap_err().code(), Code::Unavailable);
}

#[tokio::test]
async fn exec_asks_the_handler_and_needs_a_running_container() {
    let (runtime, _, id) = running(vec![]).await;
    runtime.on_exec(|_, command| {
        Ok(v1::ExecSyncResponse {
            stdout: command.join(" ").into_bytes(),
            exit_code: 7,
            ..Default::default()
        })
    });
    let command = ["echo".to_owned(), "hi".to_owned()];
    let answer = runtime.exec_sync(&id, &command, Duration::ZERO).await.unwrap();
    assert_eq!((answer.stdout.as_slice(), answer.exit_code), (b"echo hi".as_slice(), 7));
    runtime.exit(&id, 0);
    assert!(runtime.exec_sync(&id, &command, Duration::ZERO).await.is_err());
}
