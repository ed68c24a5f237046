//! Readings of a pod's spec that several parts of the kubelet need: policies, container kinds, grace periods.

use std::borrow::Cow;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, EphemeralContainer, Pod, PodSpec};

/// Which list of the spec a container comes from, and so which rules apply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// Runs to completion before the next one.
    Init,
    /// An init container that keeps running (`restartPolicy: Always`).
    Sidecar,
    /// An ordinary container.
    Main,
    /// Added to the running pod for debugging.
    Ephemeral,
}

/// A pod's restart policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestartPolicy {
    /// Restart whatever the exit code.
    Always,
    /// Restart after a failure.
    OnFailure,
    /// Never restart.
    Never,
}

impl RestartPolicy {
    /// Reads the API's word; an unknown one counts as the default.
    pub fn parse(word: Option<&str>) -> Self {
        match word {
            Some("Never") => Self::Never,
            Some("OnFailure") => Self::OnFailure,
            _ => Self::Always,
        }
    }

    /// Whether a container that ended with this code starts again.
    pub fn restarts(self, exit_code: i32) -> bool {
        match self {
            Self::Always => true,
            Self::OnFailure => exit_code != 0,
            Self::Never => false,
        }
    }
}

/// The spec, or an empty one for an object that has none.
pub fn pod_spec(pod: &Pod) -> &PodSpec {
    static EMPTY: std::sync::LazyLock<PodSpec> = std::sync::LazyLock::new(PodSpec::default);
    pod.spec.as_ref().unwrap_or(&EMPTY)
}

/// UID, empty when the object has none.
pub fn uid(pod: &Pod) -> &str {
    pod.metadata.uid.as_deref().unwrap_or_default()
}

/// Name, empty when the object has none.
pub fn name(pod: &Pod) -> &str {
    pod.metadata.name.as_deref().unwrap_or_default()
}

/// Namespace, `default` when the object has none.
pub fn namespace(pod: &Pod) -> &str {
    pod.metadata.namespace.as_deref().unwrap_or("default")
}

/// The pod-wide restart policy.
pub fn restart_policy(pod: &Pod) -> RestartPolicy {
    RestartPolicy::parse(pod_spec(pod).restart_policy.as_deref())
}

/// The policy of one container, which may override the pod's.
pub fn container_restarts(pod: &Pod, container: &Container, exit_code: i32) -> bool {
    for rule in container.restart_policy_rules.iter().flatten() {
        let Some(codes) = &rule.exit_codes else { continue };
        let listed = codes.values.iter().flatten().any(|v| *v == exit_code);
        let matches = if codes.operator == "NotIn" { !listed } else { listed };
        if matches && rule.action == "Restart" {
            return true;
        }
    }
    match container.restart_policy.as_deref() {
        Some(own) => RestartPolicy::parse(Some(own)).restarts(exit_code),
        None => restart_policy(pod).restarts(exit_code),
    }
}

/// Init and sidecar containers, in order.
pub fn init_containers(pod: &Pod) -> &[Container] {
    pod_spec(pod).init_containers.as_deref().unwrap_or_default()
}

/// Ordinary containers, in order.
pub fn main_containers(pod: &Pod) -> &[Container] {
    &pod_spec(pod).containers
}

/// Ephemeral containers, in order.
pub fn ephemeral_containers(pod: &Pod) -> &[EphemeralContainer] {
    pod_spec(pod).ephemeral_containers.as_deref().unwrap_or_default()
}

/// Whether an init container is a sidecar.
pub fn is_sidecar(init: &Container) -> bool {
    init.restart_policy.as_deref() == Some("Always")
}

/// An ephemeral container as an ordinary one; the two types differ only in `targetContainerName`.
pub fn ephemeral_as_container(e: &EphemeralContainer) -> Container {
    Container {
        args: e.args.clone(),
        command: e.command.clone(),
        env: e.env.clone(),
        env_from: e.env_from.clone(),
        image: e.image.clone(),
        image_pull_policy: e.image_pull_policy.clone(),
        name: e.name.clone(),
        resources: e.resources.clone(),
        security_context: e.security_context.clone(),
        stdin: e.stdin,
        stdin_once: e.stdin_once,
        termination_message_path: e.termination_message_path.clone(),
        termination_message_policy: e.termination_message_policy.clone(),
        tty: e.tty,
        volume_devices: e.volume_devices.clone(),
        volume_mounts: e.volume_mounts.clone(),
        working_dir: e.working_dir.clone(),
        ..Container::default()
    }
}

/// Every container of the pod with its kind, init first.
pub fn all_containers(pod: &Pod) -> impl Iterator<Item = (Kind, Cow<'_, Container>)> {
    let inits = init_containers(pod).iter().map(|c| (init_kind(c), Cow::Borrowed(c)));
    let mains = main_containers(pod).iter().map(|c| (Kind::Main, Cow::Borrowed(c)));
    let ephemeral = ephemeral_containers(pod).iter();
    let ephemeral = ephemeral.map(|e| (Kind::Ephemeral, Cow::Owned(ephemeral_as_container(e))));
    inits.chain(mains).chain(ephemeral)
}

/// Kind and definition of the container of this name.
pub fn find_container<'a>(pod: &'a Pod, name: &str) -> Option<(Kind, Cow<'a, Container>)> {
    all_containers(pod).find(|(_, c)| c.name == name)
}

/// `Init` or `Sidecar`.
pub fn init_kind(c: &Container) -> Kind {
    if is_sidecar(c) { Kind::Sidecar } else { Kind::Init }
}

/// The pod as upstream's messages name it: `name_namespace(uid)`.
pub fn named(pod: &Pod) -> String {
    format!("{}_{}({})", name(pod), namespace(pod), uid(pod))
}

/// `terminationGracePeriodSeconds`, 30 s by default.
pub fn spec_grace(pod: &Pod) -> Duration {
    let seconds = pod_spec(pod).termination_grace_period_seconds.unwrap_or(30);
    Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}

/// The grace period that a deletion of this pod asks for; at least one second, so that SIGTERM always comes first.
pub fn deletion_grace(pod: &Pod) -> Option<Duration> {
    pod.metadata.deletion_timestamp.as_ref()?;
    let asked = match pod.metadata.deletion_grace_period_seconds {
        Some(s) => Duration::from_secs(u64::try_from(s).unwrap_or(0)),
        None => spec_grace(pod),
    };
    Some(asked.max(Duration::from_secs(1)))
}

/// Whether the API already says that the pod has ended.
pub fn is_terminal(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

/// Whether the pod shares the host's network namespace.
pub fn host_network(pod: &Pod) -> bool {
    pod_spec(pod).host_network.unwrap_or(false)
}

/// Hash of what makes a running container need a restart when it changes: its name and its image.
pub fn container_hash(c: &Container) -> String {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for byte in c.name.bytes().chain([0]).chain(c.image.as_deref().unwrap_or_default().bytes()) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    format!("{hash:x}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::{ContainerRestartRule, ContainerRestartRuleOnExitCodes};

    #[test]
    fn policies_decide_by_exit_code() {
        for (word, zero, one) in [("Always", true, true), ("OnFailure", false, true), ("Never", false, false)]
        {
            let policy = RestartPolicy::parse(Some(word));
            assert_eq!((policy.restarts(0), policy.restarts(1)), (zero, one), "{word}");
        }
    }

    #[test]
    fn container_rule_overrides_the_pods_policy() {
        let pod = Pod {
            spec: Some(PodSpec { restart_policy: Some("Never".into()), ..PodSpec::default() }),
            ..Pod::default()
        };
        let rule = ContainerRestartRule {
            action: "Restart".into(),
            exit_codes: Some(ContainerRestartRuleOnExitCodes {
                operator: "In".into(),
                values: Some(vec![42]),
            }),
        };
        let c = Container { restart_policy_rules: Some(vec![rule]), ..Container::default() };
        assert!(container_restarts(&pod, &c, 42));
        assert!(!container_restarts(&pod, &c, 1));
        let always = Container { restart_policy: Some("Always".into()), ..Container::default() };
        assert!(container_restarts(&pod, &always, 0));
    }

    #[test]
    fn hash_changes_with_the_image_only() {
        let a = Container { name: "a".into(), image: Some("x:1".into()), ..Container::default() };
        let b = Container { args: Some(vec!["y".into()]), ..a.clone() };
        let c = Container { image: Some("x:2".into()), ..a.clone() };
        assert_eq!(container_hash(&a), container_hash(&b));
        assert_ne!(container_hash(&a), container_hash(&c));
    }

    #[test]
    fn deletion_without_grace_still_leaves_one_second() {
        let mut pod = Pod::default();
        assert_eq!(deletion_grace(&pod), None);
        pod.metadata.deletion_timestamp =
            Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(jiff::Timestamp::UNIX_EPOCH));
        pod.metadata.deletion_grace_period_seconds = Some(0);
        assert_eq!(deletion_grace(&pod), Some(Duration::from_secs(1)));
        pod.metadata.deletion_grace_period_seconds = None;
        assert_eq!(deletion_grace(&pod), Some(Duration::from_secs(30)));
    }
}
