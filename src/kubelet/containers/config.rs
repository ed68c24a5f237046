//! The CRI configuration of one container, put together from its parts.

use std::collections::BTreeMap;
use std::path::Path;

use k8s_openapi::api::core::v1::{Container, Pod};

use super::env::expand_all;
use super::resources::{NodeLimits, linux_resources};
use super::security::{self, ImageUser};
use super::user_namespace;
use crate::cri::v1;
use crate::host::cpus::CpuSet;
use crate::kubelet::pods::plan::Start;
use crate::kubelet::{labels, spec};

/// What a container's configuration is made of.
#[derive(Debug)]
pub struct Parts<'a> {
    /// The pod.
    pub pod: &'a Pod,
    /// The container.
    pub container: &'a Container,
    /// Attempt, back-off and kind.
    pub start: &'a Start,
    /// The runtime's name for the pulled image.
    pub image_ref: &'a str,
    /// Who the image runs as.
    pub image_user: &'a ImageUser,
    /// Environment.
    pub env: Vec<(String, String)>,
    /// Mounts.
    pub mounts: Vec<v1::Mount>,
    /// Devices.
    pub devices: Vec<v1::Device>,
    /// First host id of a pod with users of its own.
    pub first_user: Option<u32>,
    /// Annotations of device plugins.
    pub annotations: Vec<(String, String)>,
    /// Names of devices that the runtime looks up.
    pub cdi: Vec<String>,
    /// Id of the container whose processes this one joins (ephemeral containers).
    pub target_id: Option<String>,
    /// What of the node decides about limits.
    pub node: &'a NodeLimits,
    /// The processors that it runs on, and whether it has them to itself.
    pub cpus: Option<(CpuSet, bool)>,
    /// Directory of seccomp profiles, and whether the runtime's counts where none is named.
    pub seccomp: (&'a Path, bool),
}

/// The configuration.
pub fn container_config(parts: Parts<'_>) -> v1::ContainerConfig {
    let Parts { pod, container, start, .. } = parts;
    let mut namespaces = security::namespaces(pod, parts.first_user);
    let mut mounts = parts.mounts;
    if let Some(first) = parts.first_user {
        for mount in &mut mounts {
            mount.uid_mappings = vec![user_namespace::mapping(first)];
            mount.gid_mappings = vec![user_namespace::mapping(first)];
        }
    }
    if let Some(target) = parts.target_id {
        namespaces.pid = v1::NamespaceMode::Target.into();
        namespaces.target_id = target;
    }
    let context = security::container_context(pod, container, parts.image_user, namespaces, parts.seccomp);
    let mut resources = linux_resources(pod, container, parts.node);
    if let Some((cpus, exclusive)) = &parts.cpus {
        resources.cpuset_cpus = cpus.to_string();
        if *exclusive {
            // Who has processors to itself is not slowed down on them.
            resources.cpu_quota = -1;
        }
    }
    v1::ContainerConfig {
        metadata: Some(v1::ContainerMetadata { name: container.name.clone(), attempt: start.attempt }),
        image: Some(v1::ImageSpec {
            image: parts.image_ref.to_owned(),
            user_specified_image: container.image.clone().unwrap_or_default(),
            ..v1::ImageSpec::default()
        }),
        command: expand_all(container.command.as_ref(), &parts.env),
        args: expand_all(container.args.as_ref(), &parts.env),
        working_dir: container.working_dir.clone().unwrap_or_default(),
        envs: parts.env.into_iter().map(|(key, value)| v1::KeyValue { key, value }).collect(),
        mounts,
        devices: parts.devices,
        labels: container_labels(pod, container).into_iter().collect(),
        annotations: parts.annotations.into_iter().chain(annotations(pod, container, start)).collect(),
        cdi_devices: parts.cdi.into_iter().map(|name| v1::CdiDevice { name }).collect(),
        log_path: log_path(&container.name, start.attempt),
        stdin: container.stdin.unwrap_or(false),
        stdin_once: container.stdin_once.unwrap_or(false),
        tty: container.tty.unwrap_or(false),
        linux: Some(v1::LinuxContainerConfig { resources: Some(resources), security_context: Some(context) }),
        stop_signal: stop_signal(container),
    }
}

/// Path of a log file below the pod's log directory.
pub fn log_path(container: &str, attempt: u32) -> String {
    format!("{container}/{attempt}.log")
}

fn container_labels(pod: &Pod, container: &Container) -> BTreeMap<String, String> {
    [
        (labels::POD_NAME, spec::name(pod)),
        (labels::POD_NAMESPACE, spec::namespace(pod)),
        (labels::POD_UID, spec::uid(pod)),
        (labels::CONTAINER_NAME, &container.name),
    ]
    .into_iter()
    .map(|(k, v)| (k.to_owned(), v.to_owned()))
    .collect()
}

fn annotations(pod: &Pod, container: &Container, start: &Start) -> BTreeMap<String, String> {
    let mut out: BTreeMap<String, String> = [
        (labels::CONTAINER_HASH, spec::container_hash(container)),
        (labels::CONTAINER_RESTARTS, start.attempt.to_string()),
        (labels::RESTART_BACKOFF, start.backoff.as_secs().to_string()),
        (labels::TERMINATION_MESSAGE_PATH, termination_path(container).to_owned()),
        (
            labels::TERMINATION_MESSAGE_POLICY,
            container.termination_message_policy.clone().unwrap_or_else(|| "File".to_owned()),
        ),
        (labels::TERMINATION_GRACE, spec::spec_grace(pod).as_secs().to_string()),
    ]
    .into_iter()
    .map(|(k, v)| (k.to_owned(), v))
    .collect();
    if let Some(json) = container.resources.as_ref().and_then(|r| serde_json::to_string(r).ok()) {
        out.insert(labels::RESOURCES.to_owned(), json);
    }
    let pre_stop = container.lifecycle.as_ref().and_then(|l| l.pre_stop.as_ref());
    if let Some(json) = pre_stop.and_then(|p| serde_json::to_string(p).ok()) {
        out.insert(labels::PRE_STOP.to_owned(), json);
    }
    out
}

/// Where the container leaves its last words.
pub fn termination_path(container: &Container) -> &str {
    match container.termination_message_path.as_deref() {
        Some(path) if !path.is_empty() => path,
        _ => "/dev/termination-log",
    }
}

fn stop_signal(container: &Container) -> i32 {
    let name = container.lifecycle.as_ref().and_then(|l| l.stop_signal.as_deref()).unwrap_or_default();
    v1::Signal::from_str_name(name).unwrap_or(v1::Signal::RuntimeDefault).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubelet::pods::fixture;
    use crate::kubelet::spec::Kind;
    use serde_json::json;
    use std::time::Duration;

    fn built() -> v1::ContainerConfig {
        built_with(None)
    }

    fn built_with(cpus: Option<(CpuSet, bool)>) -> v1::ContainerConfig {
        let pod = fixture::pod(json!({"terminationGracePeriodSeconds": 7, "containers": [{
            "name": "a", "image": "img:1", "command": ["sh", "$(A)"], "args": ["$(B)"], "tty": true,
            "resources": {"limits": {"cpu": "1"}},
            "lifecycle": {"stopSignal": "SIGUSR1", "preStop": {"exec": {"command": ["bye"]}}}}]}));
        let start = Start {
            name: "a".into(),
            kind: Kind::Main,
            sandbox_id: "s1".into(),
            attempt: 3,
            backoff: Duration::from_secs(40),
        };
        container_config(Parts {
            pod: &pod,
            container: &spec::main_containers(&pod)[0],
            start: &start,
            image_ref: "sha256:1",
            image_user: &ImageUser::Uid(0),
            env: vec![("A".into(), "1".into())],
            mounts: vec![v1::Mount::default()],
            devices: Vec::new(),
            first_user: Some(65_536),
            annotations: vec![("x".into(), "y".into()), (labels::POD_NAME.into(), "z".into())],
            cdi: vec!["vendor/class=1".into()],
            target_id: None,
            node: &NodeLimits { memory: 1 << 30, ..NodeLimits::default() },
            cpus,
            seccomp: (Path::new("/s"), false),
        })
    }

    #[test]
    fn who_has_processors_to_itself_is_not_slowed_down_on_them() {
        let resources = |cpus| built_with(cpus).linux.unwrap().resources.unwrap();
        let got = resources(None);
        assert_eq!((got.cpuset_cpus.as_str(), got.cpu_quota), ("", 100_000));
        let set: CpuSet = "1,3".parse().unwrap();
        let got = resources(Some((set.clone(), false)));
        assert_eq!((got.cpuset_cpus.as_str(), got.cpu_quota), ("1,3", 100_000));
        assert_eq!(resources(Some((set, true))).cpu_quota, -1);
    }

    #[test]
    fn commands_expand_and_paths_carry_the_attempt() {
        let got = built();
        assert_eq!((got.command, got.args), (vec!["sh".into(), "1".into()], vec!["$(B)".to_owned()]));
        assert_eq!(got.log_path, "a/3.log");
        let image = got.image.unwrap();
        assert_eq!((image.image.as_str(), image.user_specified_image.as_str()), ("sha256:1", "img:1"));
        assert!(got.tty && !got.stdin);
        let first = |list: &[v1::IdMapping]| list.first().map(|mapping| mapping.host_id);
        assert_eq!(first(&got.mounts[0].uid_mappings), Some(65_536), "files are the pod's users' own");
        assert_eq!(got.stop_signal, i32::from(v1::Signal::Sigusr1));
    }

    #[test]
    fn what_a_restarted_kubelet_needs_is_written_down() {
        let got = built();
        assert_eq!(got.labels[labels::POD_UID], "u1");
        assert_eq!(got.labels[labels::CONTAINER_NAME], "a");
        assert_eq!(
            (got.annotations["x"].as_str(), got.cdi_devices[0].name.as_str()),
            ("y", "vendor/class=1")
        );
        assert_eq!(got.annotations[labels::RESTART_BACKOFF], "40");
        assert_eq!(got.annotations[labels::TERMINATION_GRACE], "7");
        assert_eq!(got.annotations[labels::TERMINATION_MESSAGE_PATH], "/dev/termination-log");
        assert_eq!(got.annotations[labels::PRE_STOP], r#"{"exec":{"command":["bye"]}}"#);
    }
}
