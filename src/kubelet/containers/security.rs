//! Security contexts as CRI wants them.

use k8s_openapi::api::core::v1::{
    AppArmorProfile, Container, Pod, PodSecurityContext, SeccompProfile, SecurityContext,
};

use super::user_namespace;
use crate::cri::v1;
use crate::kubelet::spec;

const MASKED_PATHS: [&str; 12] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];
const READONLY_PATHS: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// The user that an image declares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImageUser {
    /// A number; images that declare nothing run as 0.
    Uid(i64),
    /// A name that only the image can resolve.
    Name(String),
}

/// A container that must not run as root would.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NonRootError {
    /// `runAsUser: 0` and `runAsNonRoot: true`.
    #[error("container's runAsUser breaks non-root policy (pod: \"{pod}\", container: {container})")]
    Asked {
        /// Name, namespace and UID of the pod.
        pod: String,
        /// Name of the container.
        container: String,
    },
    /// The image runs as root.
    #[error("container has runAsNonRoot and image will run as root (pod: \"{pod}\", container: {container})")]
    Image {
        /// Name, namespace and UID of the pod.
        pod: String,
        /// Name of the container.
        container: String,
    },
    /// The image's user is a name.
    #[error(
        "container has runAsNonRoot and image has non-numeric user ({user}), cannot verify user is non-root (pod: \"{pod}\", container: {container})"
    )]
    Unknown {
        /// The image's user.
        user: String,
        /// Name, namespace and UID of the pod.
        pod: String,
        /// Name of the container.
        container: String,
    },
}

fn of_pod(pod: &Pod) -> PodSecurityContext {
    spec::pod_spec(pod).security_context.clone().unwrap_or_default()
}

/// Checks `runAsNonRoot`.
pub fn verify_non_root(pod: &Pod, container: &Container, image: &ImageUser) -> Result<(), NonRootError> {
    let own = container.security_context.clone().unwrap_or_default();
    let pods = of_pod(pod);
    if !own.run_as_non_root.or(pods.run_as_non_root).unwrap_or(false) {
        return Ok(());
    }
    let name = format!("{}_{}({})", spec::name(pod), spec::namespace(pod), spec::uid(pod));
    let container = container.name.clone();
    match (own.run_as_user.or(pods.run_as_user), image) {
        (Some(0), _) => Err(NonRootError::Asked { pod: name, container }),
        (Some(_), _) | (None, ImageUser::Uid(1..)) => Ok(()),
        (None, ImageUser::Uid(_)) => Err(NonRootError::Image { pod: name, container }),
        (None, ImageUser::Name(user)) => {
            Err(NonRootError::Unknown { user: user.clone(), pod: name, container })
        }
    }
}

/// The security context of a container. `seccomp_rules` say where profiles are, and whether a container without one has
/// the runtime's.
pub fn container_context(
    pod: &Pod,
    container: &Container,
    image: &ImageUser,
    namespaces: v1::NamespaceOption,
    seccomp_rules: (&std::path::Path, bool),
) -> v1::LinuxContainerSecurityContext {
    let (seccomp_root, seccomp_default) = seccomp_rules;
    let own = container.security_context.clone().unwrap_or_default();
    let pods = of_pod(pod);
    let privileged = own.privileged.unwrap_or(false);
    let user = own.run_as_user.or(pods.run_as_user);
    let (uid, username) = match (user, image) {
        (Some(uid), _) => (Some(uid), String::new()),
        (None, ImageUser::Uid(uid)) => (Some(*uid), String::new()),
        (None, ImageUser::Name(name)) => (None, name.clone()),
    };
    let default_proc = own.proc_mount.as_deref().unwrap_or("Default") == "Default" && !privileged;
    let (masked_paths, readonly_paths) = if default_proc {
        (strings(&MASKED_PATHS), strings(&READONLY_PATHS))
    } else {
        (Vec::new(), Vec::new())
    };
    v1::LinuxContainerSecurityContext {
        capabilities: Some(capabilities(&own)),
        privileged,
        namespace_options: Some(namespaces),
        selinux_options: own.se_linux_options.or(pods.se_linux_options.clone()).map(|o| selinux(&o)),
        run_as_user: uid.map(|value| v1::Int64Value { value }),
        run_as_group: own.run_as_group.or(pods.run_as_group).map(|value| v1::Int64Value { value }),
        run_as_username: username,
        readonly_rootfs: own.read_only_root_filesystem.unwrap_or(false),
        supplemental_groups: groups(&pods),
        supplemental_groups_policy: groups_policy(&pods),
        no_new_privs: own.allow_privilege_escalation == Some(false),
        masked_paths,
        readonly_paths,
        seccomp: seccomp(
            own.seccomp_profile
                .as_ref()
                .or(pods.seccomp_profile.as_ref())
                .or(seccomp_default.then(runtime_default).as_ref()),
            privileged,
            seccomp_root,
        ),
        apparmor: apparmor(own.app_armor_profile.as_ref().or(pods.app_armor_profile.as_ref())),
        ..v1::LinuxContainerSecurityContext::default()
    }
}

/// The security context of a pod's sandbox.
pub fn sandbox_context(
    pod: &Pod,
    namespaces: v1::NamespaceOption,
    seccomp_root: &std::path::Path,
) -> v1::LinuxSandboxSecurityContext {
    let pods = of_pod(pod);
    let privileged = spec::all_containers(pod)
        .any(|(_, c)| c.security_context.as_ref().is_some_and(|s| s.privileged == Some(true)));
    let default_profile = runtime_default();
    v1::LinuxSandboxSecurityContext {
        namespace_options: Some(namespaces),
        selinux_options: pods.se_linux_options.as_ref().map(selinux),
        run_as_user: pods.run_as_user.map(|value| v1::Int64Value { value }),
        run_as_group: pods.run_as_user.and(pods.run_as_group).map(|value| v1::Int64Value { value }),
        supplemental_groups: groups(&pods),
        supplemental_groups_policy: groups_policy(&pods),
        privileged,
        seccomp: seccomp(
            Some(pods.seccomp_profile.as_ref().unwrap_or(&default_profile)),
            false,
            seccomp_root,
        ),
        ..v1::LinuxSandboxSecurityContext::default()
    }
}

fn runtime_default() -> SeccompProfile {
    SeccompProfile { type_: "RuntimeDefault".to_owned(), ..SeccompProfile::default() }
}

fn strings(list: &[&str]) -> Vec<String> {
    list.iter().map(|s| (*s).to_owned()).collect()
}

fn groups(pods: &PodSecurityContext) -> Vec<i64> {
    let mut out: Vec<i64> = pods.fs_group.into_iter().collect();
    out.extend(pods.supplemental_groups.iter().flatten());
    out
}

fn groups_policy(pods: &PodSecurityContext) -> i32 {
    let policy = match pods.supplemental_groups_policy.as_deref() {
        Some("Strict") => v1::SupplementalGroupsPolicy::Strict,
        _ => v1::SupplementalGroupsPolicy::Merge,
    };
    policy.into()
}

fn capabilities(own: &SecurityContext) -> v1::Capability {
    let caps = own.capabilities.clone().unwrap_or_default();
    v1::Capability {
        add_capabilities: caps.add.unwrap_or_default(),
        drop_capabilities: caps.drop.unwrap_or_default(),
        ..v1::Capability::default()
    }
}

fn selinux(o: &k8s_openapi::api::core::v1::SELinuxOptions) -> v1::SeLinuxOption {
    v1::SeLinuxOption {
        user: o.user.clone().unwrap_or_default(),
        role: o.role.clone().unwrap_or_default(),
        r#type: o.type_.clone().unwrap_or_default(),
        level: o.level.clone().unwrap_or_default(),
    }
}

fn seccomp(
    profile: Option<&SeccompProfile>,
    privileged: bool,
    root: &std::path::Path,
) -> Option<v1::SecurityProfile> {
    use v1::security_profile::ProfileType;
    let unconfined =
        v1::SecurityProfile { profile_type: ProfileType::Unconfined.into(), localhost_ref: String::new() };
    let Some(profile) = profile.filter(|_| !privileged) else { return Some(unconfined) };
    Some(match profile.type_.as_str() {
        "RuntimeDefault" => v1::SecurityProfile {
            profile_type: ProfileType::RuntimeDefault.into(),
            localhost_ref: String::new(),
        },
        "Localhost" => v1::SecurityProfile {
            profile_type: ProfileType::Localhost.into(),
            localhost_ref: root
                .join(profile.localhost_profile.as_deref().unwrap_or_default())
                .display()
                .to_string(),
        },
        _ => unconfined,
    })
}

fn apparmor(profile: Option<&AppArmorProfile>) -> Option<v1::SecurityProfile> {
    use v1::security_profile::ProfileType;
    let profile = profile?;
    let profile_type = match profile.type_.as_str() {
        "RuntimeDefault" => ProfileType::RuntimeDefault,
        "Localhost" => ProfileType::Localhost,
        _ => ProfileType::Unconfined,
    };
    let localhost_ref = profile.localhost_profile.clone().unwrap_or_default();
    Some(v1::SecurityProfile { profile_type: profile_type.into(), localhost_ref })
}

/// The namespaces that the pod's containers share with the host, with each other, or keep to themselves.
/// `first_user` is the first host id of a pod with users of its own.
pub fn namespaces(pod: &Pod, first_user: Option<u32>) -> v1::NamespaceOption {
    use v1::NamespaceMode::{Container, Node, Pod as Shared};
    let spec = spec::pod_spec(pod);
    let host = |flag: Option<bool>| flag.unwrap_or(false);
    let pid = if host(spec.host_pid) {
        Node
    } else if host(spec.share_process_namespace) {
        Shared
    } else {
        Container
    };
    v1::NamespaceOption {
        network: if host(spec.host_network) { Node } else { Shared }.into(),
        pid: pid.into(),
        ipc: if host(spec.host_ipc) { Node } else { Shared }.into(),
        userns_options: user_namespace::options(first_user),
        ..v1::NamespaceOption::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubelet::pods::fixture;
    use serde_json::{Value, json};
    use std::path::Path;

    fn context(pod_context: Value, own: Value, image: &ImageUser) -> v1::LinuxContainerSecurityContext {
        let pod = fixture::pod(
            json!({"securityContext": pod_context, "containers": [{"name": "a", "securityContext": own}]}),
        );
        container_context(
            &pod,
            &spec::main_containers(&pod)[0],
            image,
            namespaces(&pod, None),
            (Path::new("/s"), false),
        )
    }

    #[test]
    fn a_node_may_confine_who_says_nothing() {
        let pod = fixture::pod(json!({"containers": [{"name": "a"}, {"name": "b",
            "securityContext": {"seccompProfile": {"type": "Unconfined"}}}]}));
        for (container, by_default, want) in [(0, false, 1), (0, true, 0), (1, true, 1)] {
            let container = &spec::main_containers(&pod)[container];
            let names = namespaces(&pod, None);
            let got =
                container_context(&pod, container, &ImageUser::Uid(0), names, (Path::new("/s"), by_default));
            assert_eq!(got.seccomp.unwrap().profile_type, want, "{} {by_default}", container.name);
        }
    }

    #[test]
    fn the_containers_context_beats_the_pods() {
        let got = context(
            json!({"runAsUser": 1, "runAsGroup": 2, "fsGroup": 3, "supplementalGroups": [4],
                   "seccompProfile": {"type": "RuntimeDefault"}}),
            json!({"runAsUser": 10, "readOnlyRootFilesystem": true, "allowPrivilegeEscalation": false,
                   "capabilities": {"add": ["NET_ADMIN"], "drop": ["ALL"]},
                   "seccompProfile": {"type": "Localhost", "localhostProfile": "p.json"}}),
            &ImageUser::Uid(0),
        );
        assert_eq!(got.run_as_user.unwrap().value, 10);
        assert_eq!(got.run_as_group.unwrap().value, 2);
        assert_eq!(got.supplemental_groups, [3, 4]);
        assert!(got.readonly_rootfs && got.no_new_privs && !got.privileged);
        let caps = got.capabilities.unwrap();
        assert_eq!(
            (caps.add_capabilities, caps.drop_capabilities),
            (vec!["NET_ADMIN".into()], vec!["ALL".into()])
        );
        assert_eq!(got.seccomp.unwrap().localhost_ref, "/s/p.json");
        assert_eq!(got.masked_paths.len(), MASKED_PATHS.len());
    }

    #[test]
    fn the_images_user_counts_when_nobody_says_otherwise() {
        let named = context(json!({}), json!({}), &ImageUser::Name("www".into()));
        assert_eq!((named.run_as_username.as_str(), named.run_as_user.is_none()), ("www", true));
        assert_eq!(context(json!({}), json!({}), &ImageUser::Uid(7)).run_as_user.unwrap().value, 7);
    }

    #[test]
    fn privileged_means_no_masks_and_no_seccomp() {
        let got = context(
            json!({"seccompProfile": {"type": "RuntimeDefault"}}),
            json!({"privileged": true}),
            &ImageUser::Uid(0),
        );
        assert!(got.privileged && got.masked_paths.is_empty() && got.readonly_paths.is_empty());
        assert_eq!(
            got.seccomp.unwrap().profile_type,
            i32::from(v1::security_profile::ProfileType::Unconfined)
        );
    }

    #[test]
    fn non_root_is_verified() {
        for (own, image, ok) in [
            (json!({}), ImageUser::Uid(0), true),
            (json!({"runAsNonRoot": true}), ImageUser::Uid(0), false),
            (json!({"runAsNonRoot": true}), ImageUser::Uid(1), true),
            (json!({"runAsNonRoot": true}), ImageUser::Name("x".into()), false),
            (json!({"runAsNonRoot": true, "runAsUser": 5}), ImageUser::Uid(0), true),
            (json!({"runAsNonRoot": true, "runAsUser": 0}), ImageUser::Uid(1), false),
        ] {
            let pod = fixture::pod(json!({"containers": [{"name": "a", "securityContext": own}]}));
            let got = verify_non_root(&pod, &spec::main_containers(&pod)[0], &image);
            assert_eq!(got.is_ok(), ok, "{own} {image:?}");
        }
    }

    #[test]
    fn namespaces_follow_the_spec() {
        let modes = |spec: Value| {
            let n = namespaces(&fixture::pod(spec), None);
            (n.network, n.pid, n.ipc)
        };
        assert_eq!(modes(json!({"containers": []})), (0, 1, 0));
        assert_eq!(modes(json!({"containers": [], "shareProcessNamespace": true})), (0, 0, 0));
        assert_eq!(
            modes(json!({"containers": [], "hostNetwork": true, "hostPID": true, "hostIPC": true})),
            (2, 2, 2)
        );
    }
}
