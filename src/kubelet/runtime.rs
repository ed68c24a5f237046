//! Reads what the runtime holds of a pod into the kubelet's own terms.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::LinuxContainerUser;

use crate::cri::{CriError, Runtime, v1};
use crate::kubelet::labels;
use crate::kubelet::observed::{ObservedContainer, ObservedPod, ObservedSandbox, RunState};

/// Most bytes of a termination message, from file and from log.
const MESSAGE_BYTES: u64 = 4096;
const LOG_MESSAGE_BYTES: u64 = 2048;
const LOG_MESSAGE_LINES: usize = 80;

/// Lists one pod's sandboxes and containers. What can no longer change is taken from `former`.
pub async fn observe(
    runtime: &Arc<dyn Runtime>,
    uid: &str,
    former: &ObservedPod,
) -> Result<ObservedPod, CriError> {
    let selector: HashMap<String, String> = [(labels::POD_UID.to_owned(), uid.to_owned())].into();
    let sandbox_filter =
        v1::PodSandboxFilter { label_selector: selector.clone().into_iter().collect(), ..Default::default() };
    let container_filter =
        v1::ContainerFilter { label_selector: selector.into_iter().collect(), ..Default::default() };
    let (sandboxes, containers) = futures::try_join!(
        runtime.list_pod_sandboxes(Some(sandbox_filter)),
        runtime.list_containers(Some(container_filter))
    )?;
    let mut out = ObservedPod::default();
    for sandbox in sandboxes {
        out.sandboxes.push(observe_sandbox(runtime, sandbox, former).await?);
    }
    for container in containers {
        out.containers.extend(observe_container(runtime, container, former).await?);
    }
    out.sort();
    Ok(out)
}

/// One sandbox that was just made; `None` where only a listing helps.
pub async fn sandbox(runtime: &Arc<dyn Runtime>, id: &str) -> Option<ObservedSandbox> {
    let status = runtime.pod_sandbox_status(id, false).await.ok()?.status?;
    Some(ObservedSandbox {
        attempt: status.metadata.as_ref().map_or(0, |m| m.attempt),
        created_at: timestamp(status.created_at).unwrap_or_default(),
        ready: status.state() == v1::PodSandboxState::SandboxReady,
        ips: status.network.map(addresses).unwrap_or_default(),
        id: status.id,
    })
}

/// One container that was just started; `None` where only a listing helps.
pub async fn container(runtime: &Arc<dyn Runtime>, id: &str, sandbox: &str) -> Option<ObservedContainer> {
    Some(from_status(sandbox, runtime.container_status(id, false).await.ok()?.status?))
}

async fn observe_sandbox(
    runtime: &Arc<dyn Runtime>,
    sandbox: v1::PodSandbox,
    former: &ObservedPod,
) -> Result<ObservedSandbox, CriError> {
    let ready = sandbox.state() == v1::PodSandboxState::SandboxReady;
    let known = former.sandboxes.iter().find(|s| s.id == sandbox.id && s.ready && !s.ips.is_empty());
    let ips = match known {
        _ if !ready => Vec::new(),
        Some(known) => known.ips.clone(),
        None => match runtime.pod_sandbox_status(&sandbox.id, false).await {
            Ok(status) => status.status.and_then(|s| s.network).map(addresses).unwrap_or_default(),
            Err(error) if error.is_not_found() => Vec::new(),
            Err(error) => return Err(error),
        },
    };
    Ok(ObservedSandbox {
        attempt: sandbox.metadata.as_ref().map_or(0, |m| m.attempt),
        created_at: timestamp(sandbox.created_at).unwrap_or_default(),
        id: sandbox.id,
        ready,
        ips,
    })
}

fn addresses(network: v1::PodSandboxNetworkStatus) -> Vec<String> {
    let more = network.additional_ips.into_iter().map(|ip| ip.ip);
    std::iter::once(network.ip).chain(more).filter(|ip| !ip.is_empty()).collect()
}

/// `None` when the container vanished meanwhile.
async fn observe_container(
    runtime: &Arc<dyn Runtime>,
    container: v1::Container,
    former: &ObservedPod,
) -> Result<Option<ObservedContainer>, CriError> {
    let exited = container.state() == v1::ContainerState::ContainerExited;
    let known = former.containers.iter().find(|c| c.id == container.id);
    if let Some(known) = known.filter(|k| exited && k.state == RunState::Exited) {
        return Ok(Some(known.clone()));
    }
    match runtime.container_status(&container.id, false).await {
        Ok(response) => {
            let Some(status) = response.status else { return Ok(None) };
            Ok(Some(from_status(&container.pod_sandbox_id, status)))
        }
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

fn from_status(sandbox_id: &str, status: v1::ContainerStatus) -> ObservedContainer {
    let state = match status.state() {
        v1::ContainerState::ContainerCreated => RunState::Created,
        v1::ContainerState::ContainerRunning => RunState::Running,
        v1::ContainerState::ContainerExited => RunState::Exited,
        v1::ContainerState::ContainerUnknown => RunState::Unknown,
    };
    let note = |key: &str| status.annotations.get(key).map(String::as_str);
    let seconds = |key: &str| note(key).and_then(|v| v.parse().ok()).map(Duration::from_secs);
    let message = if state == RunState::Exited { last_words(&status) } else { String::new() };
    let metadata = status.metadata.clone().unwrap_or_default();
    ObservedContainer {
        name: metadata.name,
        attempt: metadata.attempt,
        sandbox_id: sandbox_id.to_owned(),
        state,
        created_at: timestamp(status.created_at).unwrap_or_default(),
        started_at: timestamp(status.started_at),
        finished_at: timestamp(status.finished_at),
        exit_code: status.exit_code,
        reason: status.reason.clone(),
        message,
        image: status.image.as_ref().map(|i| i.image.clone()).unwrap_or_default(),
        image_id: status.image_ref.clone(),
        hash: note(labels::CONTAINER_HASH).unwrap_or_default().to_owned(),
        backoff: seconds(labels::RESTART_BACKOFF).unwrap_or_default(),
        grace: seconds(labels::TERMINATION_GRACE),
        pre_stop: note(labels::PRE_STOP).map(str::to_owned),
        // A container without the annotation was made without any.
        resources: Some(
            note(labels::RESOURCES).and_then(|t| serde_json::from_str(t).ok()).unwrap_or_default(),
        ),
        user: status.user.as_ref().and_then(|u| u.linux.as_ref()).map(|linux| LinuxContainerUser {
            uid: linux.uid,
            gid: linux.gid,
            supplemental_groups: Some(linux.supplemental_groups.clone()).filter(|g| !g.is_empty()),
        }),
        log_path: status.log_path.clone(),
        id: status.id,
    }
}

/// The termination message: the runtime's own words and what the container left in its file or, failing that, its log.
fn last_words(status: &v1::ContainerStatus) -> String {
    let path = status.annotations.get(labels::TERMINATION_MESSAGE_PATH);
    let file = path.and_then(|p| status.mounts.iter().find(|m| m.container_path == *p));
    let mut text = file.map(|m| tail_bytes(Path::new(&m.host_path), MESSAGE_BYTES)).unwrap_or_default();
    let policy = status.annotations.get(labels::TERMINATION_MESSAGE_POLICY).map(String::as_str);
    if text.is_empty() && status.exit_code != 0 && policy == Some("FallbackToLogsOnError") {
        text = log_tail(Path::new(&status.log_path));
    }
    match (status.message.is_empty(), text.is_empty()) {
        (true, _) => text,
        (false, true) => status.message.clone(),
        (false, false) => format!("{}: {text}", status.message),
    }
}

fn tail_bytes(path: &Path, limit: u64) -> String {
    use std::io::{Read, Seek, SeekFrom};
    let read = || -> std::io::Result<String> {
        let mut file = std::fs::File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(limit)))?;
        let mut bytes = Vec::new();
        file.take(limit).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    // A container that never wrote a message has no file, which is the ordinary case.
    read().unwrap_or_default()
}

fn log_tail(path: &Path) -> String {
    // The log's own framing takes room, so more is read than may be shown.
    let raw = tail_bytes(path, LOG_MESSAGE_BYTES * 4);
    let mut text = String::new();
    for line in raw.lines() {
        if let Some(entry) = super::logs::parse::parse(line.as_bytes()) {
            text.push_str(&String::from_utf8_lossy(entry.content));
            if !entry.partial {
                text.push('\n');
            }
        }
    }
    // The text stays as it was written: a last line without an end has none here either.
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let kept = lines[lines.len().saturating_sub(LOG_MESSAGE_LINES)..].concat();
    let start = kept.len().saturating_sub(usize::try_from(LOG_MESSAGE_BYTES).unwrap_or(usize::MAX));
    let start = (start..=kept.len()).find(|i| kept.is_char_boundary(*i)).unwrap_or(0);
    kept[start..].to_owned()
}

/// CRI's nanoseconds; zero means never.
fn timestamp(nanos: i64) -> Option<Timestamp> {
    (nanos > 0).then(|| Timestamp::from_nanosecond(i128::from(nanos)).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(policy: &str, exit_code: i32, file: &Path, log: &Path) -> v1::ContainerStatus {
        let annotations = [
            (labels::TERMINATION_MESSAGE_PATH, "/dev/termination-log"),
            (labels::TERMINATION_MESSAGE_POLICY, policy),
        ];
        v1::ContainerStatus {
            exit_code,
            annotations: annotations.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect(),
            mounts: vec![v1::Mount {
                container_path: "/dev/termination-log".into(),
                host_path: file.display().to_string(),
                ..v1::Mount::default()
            }],
            log_path: log.display().to_string(),
            ..v1::ContainerStatus::default()
        }
    }

    #[test]
    fn last_words_come_from_the_file_then_from_the_log() {
        let dir = tempfile::tempdir().unwrap();
        let (file, log) = (dir.path().join("m"), dir.path().join("l"));
        std::fs::write(&log, "2026-01-01T00:00:00Z stderr F boom\n").unwrap();
        assert_eq!(last_words(&status("File", 1, &file, &log)), "");
        assert_eq!(last_words(&status("FallbackToLogsOnError", 1, &file, &log)), "boom\n");
        assert_eq!(last_words(&status("FallbackToLogsOnError", 0, &file, &log)), "");
        std::fs::write(&log, "2026-01-01T00:00:00Z stderr F a\n2026-01-01T00:00:00Z stderr P DONE\n")
            .unwrap();
        assert_eq!(last_words(&status("FallbackToLogsOnError", 1, &file, &log)), "a\nDONE");
        std::fs::write(&file, "done").unwrap();
        assert_eq!(last_words(&status("FallbackToLogsOnError", 1, &file, &log)), "done");
    }

    #[test]
    fn annotations_are_read_back() {
        let mut s = status("File", 0, Path::new("/none"), Path::new("/none"));
        s.annotations.insert(labels::RESTART_BACKOFF.into(), "40".into());
        s.annotations.insert(labels::TERMINATION_GRACE.into(), "7".into());
        s.set_state(v1::ContainerState::ContainerRunning);
        let got = from_status("s1", s);
        assert_eq!((got.backoff, got.grace), (Duration::from_secs(40), Some(Duration::from_secs(7))));
        assert_eq!((got.state, got.finished_at), (RunState::Running, None));
    }
}
