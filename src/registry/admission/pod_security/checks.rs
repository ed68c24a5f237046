//! The rules of the levels `baseline` and `restricted`.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{
    AppArmorProfile, Capabilities, ContainerPort, Lifecycle, LifecycleHandler, PodSpec, Probe,
    SELinuxOptions, SecurityContext,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::policy::{Level, LevelVersion};

/// One broken rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Violation {
    reason: String,
    detail: String,
}

/// The reasons alone.
pub(super) fn reasons(found: &[Violation]) -> String {
    found.iter().map(|one| one.reason.as_str()).collect::<Vec<_>>().join(", ")
}

/// The reasons with what breaks the rules.
pub(super) fn details(found: &[Violation]) -> String {
    let text = |one: &Violation| match one.detail.as_str() {
        "" => one.reason.clone(),
        detail => format!("{} ({detail})", one.reason),
    };
    found.iter().map(text).collect::<Vec<_>>().join(", ")
}

/// What the rules look at in a container, of whatever sort it is.
struct View<'a> {
    name: &'a str,
    security: Option<&'a SecurityContext>,
    ports: &'a [ContainerPort],
    probes: [Option<&'a Probe>; 3],
    lifecycle: Option<&'a Lifecycle>,
}

macro_rules! view {
    ($container:expr) => {
        View {
            name: &$container.name,
            security: $container.security_context.as_ref(),
            ports: $container.ports.as_deref().unwrap_or_default(),
            probes: [
                $container.liveness_probe.as_ref(),
                $container.readiness_probe.as_ref(),
                $container.startup_probe.as_ref(),
            ],
            lifecycle: $container.lifecycle.as_ref(),
        }
    };
}

fn containers(spec: &PodSpec) -> Vec<View<'_>> {
    let init = spec.init_containers.iter().flatten().map(|container| view!(container));
    let main = spec.containers.iter().map(|container| view!(container));
    let debug = spec.ephemeral_containers.iter().flatten().map(|container| view!(container));
    init.chain(main).chain(debug).collect()
}

const DEFAULT_CAPABILITIES: [&str; 13] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];
/// Harmless kernel settings, and the minor version since which they count as such.
const SYSCTLS: [(&str, u32); 12] = [
    ("kernel.shm_rmid_forced", 0),
    ("net.ipv4.ip_local_port_range", 0),
    ("net.ipv4.ip_unprivileged_port_start", 0),
    ("net.ipv4.ping_group_range", 0),
    ("net.ipv4.tcp_syncookies", 0),
    ("net.ipv4.ip_local_reserved_ports", 27),
    ("net.ipv4.tcp_fin_timeout", 29),
    ("net.ipv4.tcp_keepalive_intvl", 29),
    ("net.ipv4.tcp_keepalive_probes", 29),
    ("net.ipv4.tcp_keepalive_time", 29),
    ("net.ipv4.tcp_rmem", 32),
    ("net.ipv4.tcp_wmem", 32),
];
const SELINUX_TYPES: [&str; 5] =
    ["", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"];
const APPARMOR_ANNOTATION: &str = "container.apparmor.security.beta.kubernetes.io/";

/// The rules of `wanted` that a pod breaks, in upstream's order.
pub(super) fn violations(wanted: LevelVersion, meta: &ObjectMeta, spec: &PodSpec) -> Vec<Violation> {
    if wanted.level == Level::Privileged {
        return Vec::new();
    }
    let pod = PodView { meta, spec, containers: containers(spec), wanted };
    let restricted = wanted.level == Level::Restricted;
    let baseline = [
        pod.app_armor(),
        (!restricted).then(|| pod.capabilities()).flatten(),
        pod.host_namespaces(),
        (!restricted).then(|| pod.host_paths()).flatten(),
        pod.host_ports(),
        pod.probe_hosts(),
        pod.privileged(),
        pod.proc_mount(),
        pod.selinux(),
        (!restricted).then(|| pod.seccomp()).flatten(),
        pod.sysctls(),
        pod.host_process(),
    ];
    let mut found: Vec<Violation> = baseline.into_iter().flatten().collect();
    if restricted {
        let strict = [
            pod.escalation(),
            pod.few_capabilities(),
            pod.few_volumes(),
            pod.non_root(),
            pod.root_user(),
            pod.seccomp_required(),
        ];
        found.extend(strict.into_iter().flatten());
    }
    found
}

struct PodView<'a> {
    meta: &'a ObjectMeta,
    spec: &'a PodSpec,
    containers: Vec<View<'a>>,
    wanted: LevelVersion,
}

fn violation(reason: &str, detail: String) -> Option<Violation> {
    Some(Violation { reason: reason.to_owned(), detail })
}

fn quoted<S: AsRef<str>>(names: impl IntoIterator<Item = S>) -> String {
    names.into_iter().map(|name| format!("\"{}\"", name.as_ref())).collect::<Vec<_>>().join(", ")
}

/// `container "a"` or `containers "a", "b"`.
fn named(names: &[&str]) -> String {
    let noun = if names.len() == 1 { "container" } else { "containers" };
    format!("{noun} {}", quoted(names))
}

/// `pod and container "a"`, of those that there are.
fn setters(pod: bool, names: &[&str]) -> String {
    match (pod, names.is_empty()) {
        (true, true) => "pod".to_owned(),
        (true, false) => format!("pod and {}", named(names)),
        (false, _) => named(names),
    }
}

impl<'a> PodView<'a> {
    fn where_context(&self, bad: impl Fn(&SecurityContext) -> bool) -> Vec<&'a str> {
        let broken = self.containers.iter().filter(|container| container.security.is_some_and(&bad));
        broken.map(|container| container.name).collect()
    }

    fn is_windows(&self) -> bool {
        self.wanted.since(25) && self.spec.os.as_ref().is_some_and(|os| os.name == "windows")
    }

    /// A pod in a user namespace of its own may be root there.
    fn has_own_users(&self) -> bool {
        self.spec.host_users == Some(false)
    }

    fn app_armor(&self) -> Option<Violation> {
        let mut bad: Vec<String> = Vec::new();
        let allowed =
            |profile: &AppArmorProfile| matches!(profile.type_.as_str(), "RuntimeDefault" | "Localhost");
        let pod = self.spec.security_context.as_ref().and_then(|context| context.app_armor_profile.as_ref());
        let mut values = BTreeSet::new();
        let bad_pod = pod.is_some_and(|profile| !allowed(profile));
        if let Some(profile) = pod.filter(|_| bad_pod) {
            values.insert(profile.type_.clone());
        }
        let names =
            self.where_context(|context| context.app_armor_profile.as_ref().is_some_and(|p| !allowed(p)));
        for profile in self.containers.iter().filter_map(|c| c.security?.app_armor_profile.as_ref()) {
            if !allowed(profile) {
                values.insert(profile.type_.clone());
            }
        }
        if bad_pod || !names.is_empty() {
            bad.push(format!(
                "{} must not set AppArmor profile type to {}",
                setters(bad_pod, &names),
                quoted(values)
            ));
        }
        let annotations: Vec<String> = self
            .meta
            .annotations
            .iter()
            .flatten()
            .filter(|(key, value)| {
                key.starts_with(APPARMOR_ANNOTATION)
                    && !value.is_empty()
                    && *value != "runtime/default"
                    && !value.starts_with("localhost/")
            })
            .map(|(key, value)| format!("{key}={value:?}"))
            .collect();
        if !annotations.is_empty() {
            let noun = if annotations.len() == 1 { "annotation" } else { "annotations" };
            bad.push(format!("{noun} {}", annotations.join(", ")));
        }
        if bad.is_empty() {
            return None;
        }
        let reason =
            if bad.len() == 1 { "forbidden AppArmor profile" } else { "forbidden AppArmor profiles" };
        violation(reason, bad.join(", "))
    }

    fn adding(&self, allowed: &[&str]) -> (Vec<&'a str>, BTreeSet<String>) {
        let mut values = BTreeSet::new();
        let mut names = Vec::new();
        for container in &self.containers {
            let added = container.security.and_then(|c| c.capabilities.as_ref()).and_then(|c| c.add.as_ref());
            let bad: Vec<&String> =
                added.into_iter().flatten().filter(|name| !allowed.contains(&name.as_str())).collect();
            if !bad.is_empty() {
                names.push(container.name);
                values.extend(bad.into_iter().cloned());
            }
        }
        (names, values)
    }

    fn capabilities(&self) -> Option<Violation> {
        let (names, values) = self.adding(&DEFAULT_CAPABILITIES);
        if names.is_empty() {
            return None;
        }
        let detail = format!(
            "{} must not include {} in securityContext.capabilities.add",
            named(&names),
            quoted(values)
        );
        violation("non-default capabilities", detail)
    }

    fn host_namespaces(&self) -> Option<Violation> {
        let spec = self.spec;
        let all =
            [("hostNetwork", spec.host_network), ("hostPID", spec.host_pid), ("hostIPC", spec.host_ipc)];
        let used: Vec<String> =
            all.iter().filter(|(_, on)| *on == Some(true)).map(|(name, _)| format!("{name}=true")).collect();
        if used.is_empty() { None } else { violation("host namespaces", used.join(", ")) }
    }

    fn host_paths(&self) -> Option<Violation> {
        let volumes = self.spec.volumes.iter().flatten().filter(|volume| volume.host_path.is_some());
        let names: Vec<&str> = volumes.map(|volume| volume.name.as_str()).collect();
        let noun = if names.len() == 1 { "volume" } else { "volumes" };
        if names.is_empty() {
            return None;
        }
        violation("hostPath volumes", format!("{noun} {}", quoted(names)))
    }

    fn host_ports(&self) -> Option<Violation> {
        let (mut names, mut ports) = (Vec::new(), BTreeSet::new());
        for container in &self.containers {
            let used: Vec<i32> =
                container.ports.iter().filter_map(|port| port.host_port).filter(|port| *port != 0).collect();
            if !used.is_empty() {
                names.push(container.name);
                ports.extend(used.iter().map(ToString::to_string));
            }
        }
        if names.is_empty() {
            return None;
        }
        let verb = if names.len() == 1 { "uses" } else { "use" };
        let noun = if ports.len() == 1 { "hostPort" } else { "hostPorts" };
        let ports: Vec<String> = ports.into_iter().collect();
        violation("hostPort", format!("{} {verb} {noun} {}", named(&names), ports.join(", ")))
    }

    fn probe_hosts(&self) -> Option<Violation> {
        if !self.wanted.since(34) {
            return None;
        }
        let (mut names, mut hosts) = (BTreeSet::new(), BTreeSet::new());
        for container in &self.containers {
            let mut own: Vec<&String> = Vec::new();
            for probe in container.probes.iter().flatten() {
                own.extend(probe.http_get.as_ref().and_then(|action| action.host.as_ref()));
                own.extend(probe.tcp_socket.as_ref().and_then(|action| action.host.as_ref()));
            }
            let handlers: [Option<&LifecycleHandler>; 2] =
                container.lifecycle.map_or([None, None], |lifecycle| {
                    [lifecycle.post_start.as_ref(), lifecycle.pre_stop.as_ref()]
                });
            for handler in handlers.into_iter().flatten() {
                own.extend(handler.http_get.as_ref().and_then(|action| action.host.as_ref()));
                own.extend(handler.tcp_socket.as_ref().and_then(|action| action.host.as_ref()));
            }
            own.retain(|host| !host.is_empty());
            if !own.is_empty() {
                names.insert(container.name);
                hosts.extend(own);
            }
        }
        if names.is_empty() {
            return None;
        }
        let names: Vec<&str> = names.into_iter().collect();
        let verb = if names.len() == 1 { "uses" } else { "use" };
        let noun = if hosts.len() == 1 { "probe or lifecycle host" } else { "probe or lifecycle hosts" };
        violation("probe or lifecycle host", format!("{} {verb} {noun} {}", named(&names), quoted(hosts)))
    }

    fn privileged(&self) -> Option<Violation> {
        let names = self.where_context(|context| context.privileged == Some(true));
        if names.is_empty() {
            return None;
        }
        violation("privileged", format!("{} must not set securityContext.privileged=true", named(&names)))
    }

    fn proc_mount(&self) -> Option<Violation> {
        if self.wanted.since(35) && self.wanted.level == Level::Baseline && self.has_own_users() {
            return None;
        }
        let bad =
            |context: &SecurityContext| context.proc_mount.as_ref().is_some_and(|kind| kind != "Default");
        let names = self.where_context(bad);
        if names.is_empty() {
            return None;
        }
        let contexts = self.containers.iter().filter_map(|container| container.security);
        let values: BTreeSet<&String> = contexts
            .filter(|context| bad(context))
            .filter_map(|context| context.proc_mount.as_ref())
            .collect();
        let detail =
            format!("{} must not set securityContext.procMount to {}", named(&names), quoted(values));
        violation("procMount", detail)
    }

    fn selinux(&self) -> Option<Violation> {
        let given = |text: &Option<String>| text.as_deref().is_some_and(|text| !text.is_empty());
        let bad_type = |options: &SELinuxOptions| {
            let kind = options.type_.as_deref().unwrap_or_default();
            let engine = kind == "container_engine_t" && !self.wanted.since(31);
            !SELINUX_TYPES.contains(&kind) || engine
        };
        let bad =
            |options: &SELinuxOptions| bad_type(options) || given(&options.user) || given(&options.role);
        let pod = self.spec.security_context.as_ref().and_then(|context| context.se_linux_options.as_ref());
        let names = self.where_context(|context| context.se_linux_options.as_ref().is_some_and(bad));
        let bad_pod = pod.is_some_and(bad);
        if !bad_pod && names.is_empty() {
            return None;
        }
        let own = self.containers.iter().filter_map(|c| c.security?.se_linux_options.as_ref());
        let all: Vec<&SELinuxOptions> = pod.into_iter().chain(own).collect();
        let types: BTreeSet<&str> =
            all.iter().filter(|o| bad_type(o)).filter_map(|o| o.type_.as_deref()).collect();
        let mut data = Vec::new();
        if !types.is_empty() {
            let noun = if types.len() == 1 { "type" } else { "types" };
            data.push(format!("{noun} {}", quoted(types)));
        }
        if all.iter().any(|options| given(&options.user)) {
            data.push("user may not be set".into());
        }
        if all.iter().any(|options| given(&options.role)) {
            data.push("role may not be set".into());
        }
        let who = setters(bad_pod, &names);
        violation(
            "seLinuxOptions",
            format!("{who} set forbidden securityContext.seLinuxOptions: {}", data.join("; ")),
        )
    }

    /// Who sets a seccomp profile other than those that are allowed, and which.
    fn bad_seccomp(&self) -> Option<Violation> {
        let bad = |kind: &str| !matches!(kind, "RuntimeDefault" | "Localhost");
        let pod = self.spec.security_context.as_ref().and_then(|context| context.seccomp_profile.as_ref());
        let bad_pod = pod.is_some_and(|profile| bad(&profile.type_));
        let names =
            self.where_context(|context| context.seccomp_profile.as_ref().is_some_and(|p| bad(&p.type_)));
        if !bad_pod && names.is_empty() {
            return None;
        }
        let own = self.containers.iter().filter_map(|c| c.security?.seccomp_profile.as_ref());
        let values: BTreeSet<&str> = pod
            .into_iter()
            .chain(own)
            .map(|profile| profile.type_.as_str())
            .filter(|kind| bad(kind))
            .collect();
        let detail = format!(
            "{} must not set securityContext.seccompProfile.type to {}",
            setters(bad_pod, &names),
            quoted(values)
        );
        violation("seccompProfile", detail)
    }

    fn seccomp(&self) -> Option<Violation> {
        self.bad_seccomp()
    }

    fn sysctls(&self) -> Option<Violation> {
        let allowed =
            |name: &str| SYSCTLS.iter().any(|(own, since)| *own == name && self.wanted.since(*since));
        let context = self.spec.security_context.as_ref();
        let set = context.and_then(|context| context.sysctls.as_deref()).unwrap_or_default();
        let bad: Vec<&str> =
            set.iter().map(|sysctl| sysctl.name.as_str()).filter(|name| !allowed(name)).collect();
        if bad.is_empty() { None } else { violation("forbidden sysctls", bad.join(", ")) }
    }

    fn host_process(&self) -> Option<Violation> {
        let pod = self.spec.security_context.as_ref().and_then(|context| context.windows_options.as_ref());
        let bad_pod = pod.is_some_and(|options| options.host_process == Some(true));
        let names = self.where_context(|context| {
            context.windows_options.as_ref().is_some_and(|options| options.host_process == Some(true))
        });
        if !bad_pod && names.is_empty() {
            return None;
        }
        let who = setters(bad_pod, &names);
        violation(
            "hostProcess",
            format!("{who} must not set securityContext.windowsOptions.hostProcess=true"),
        )
    }

    fn escalation(&self) -> Option<Violation> {
        if self.is_windows() || !self.wanted.since(8) {
            return None;
        }
        let names: Vec<&str> = self
            .containers
            .iter()
            .filter(|c| c.security.and_then(|context| context.allow_privilege_escalation) != Some(false))
            .map(|container| container.name)
            .collect();
        if names.is_empty() {
            return None;
        }
        let detail = format!("{} must set securityContext.allowPrivilegeEscalation=false", named(&names));
        violation("allowPrivilegeEscalation != false", detail)
    }

    fn few_capabilities(&self) -> Option<Violation> {
        if self.is_windows() || !self.wanted.since(22) {
            return None;
        }
        let drops_all =
            |capabilities: &Capabilities| capabilities.drop.iter().flatten().any(|name| name == "ALL");
        let keeping: Vec<&str> = self
            .containers
            .iter()
            .filter(|c| !c.security.and_then(|context| context.capabilities.as_ref()).is_some_and(drops_all))
            .map(|container| container.name)
            .collect();
        let (adding, values) = self.adding(&["NET_BIND_SERVICE"]);
        let mut parts = Vec::new();
        if !keeping.is_empty() {
            parts.push(format!("{} must set securityContext.capabilities.drop=[\"ALL\"]", named(&keeping)));
        }
        if !adding.is_empty() {
            parts.push(format!(
                "{} must not include {} in securityContext.capabilities.add",
                named(&adding),
                quoted(values)
            ));
        }
        if parts.is_empty() { None } else { violation("unrestricted capabilities", parts.join("; ")) }
    }

    fn few_volumes(&self) -> Option<Violation> {
        const ALLOWED: [&str; 9] = [
            "configMap",
            "csi",
            "downwardAPI",
            "emptyDir",
            "ephemeral",
            "image",
            "persistentVolumeClaim",
            "projected",
            "secret",
        ];
        let (mut names, mut kinds) = (Vec::new(), BTreeSet::new());
        for volume in self.spec.volumes.iter().flatten() {
            let value = serde_json::to_value(volume).unwrap_or_default();
            let kind = value.as_object().and_then(|map| map.keys().find(|key| *key != "name").cloned());
            let kind = kind.unwrap_or_else(|| "unknown".into());
            if !ALLOWED.contains(&kind.as_str()) {
                names.push(volume.name.as_str());
                kinds.insert(kind);
            }
        }
        if names.is_empty() {
            return None;
        }
        let (noun, verb) = if names.len() == 1 { ("volume", "uses") } else { ("volumes", "use") };
        let types = if kinds.len() == 1 { "type" } else { "types" };
        let detail = format!("{noun} {} {verb} restricted volume {types} {}", quoted(names), quoted(kinds));
        violation("restricted volume types", detail)
    }

    fn non_root(&self) -> Option<Violation> {
        if self.has_own_users() {
            return None;
        }
        let pod = self.spec.security_context.as_ref().and_then(|context| context.run_as_non_root);
        let explicit = self.where_context(|context| context.run_as_non_root == Some(false));
        if pod == Some(false) || !explicit.is_empty() {
            let who = setters(pod == Some(false), &explicit);
            return violation(
                "runAsNonRoot != true",
                format!("{who} must not set securityContext.runAsNonRoot=false"),
            );
        }
        let implicit: Vec<&str> = self
            .containers
            .iter()
            .filter(|c| pod != Some(true) && c.security.and_then(|context| context.run_as_non_root).is_none())
            .map(|container| container.name)
            .collect();
        if implicit.is_empty() {
            return None;
        }
        let detail = format!("pod or {} must set securityContext.runAsNonRoot=true", named(&implicit));
        violation("runAsNonRoot != true", detail)
    }

    fn root_user(&self) -> Option<Violation> {
        if self.has_own_users() || !self.wanted.since(23) {
            return None;
        }
        let pod = self.spec.security_context.as_ref().and_then(|context| context.run_as_user) == Some(0);
        let names = self.where_context(|context| context.run_as_user == Some(0));
        if !pod && names.is_empty() {
            return None;
        }
        violation("runAsUser=0", format!("{} must not set runAsUser=0", setters(pod, &names)))
    }

    fn seccomp_required(&self) -> Option<Violation> {
        if self.is_windows() || !self.wanted.since(19) {
            return None;
        }
        if let Some(found) = self.bad_seccomp() {
            return Some(found);
        }
        let pod =
            self.spec.security_context.as_ref().is_some_and(|context| context.seccomp_profile.is_some());
        let implicit: Vec<&str> = self
            .containers
            .iter()
            .filter(|c| !pod && c.security.is_none_or(|context| context.seccomp_profile.is_none()))
            .map(|container| container.name)
            .collect();
        if implicit.is_empty() {
            return None;
        }
        let detail = format!(
            "pod or {} must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\"",
            named(&implicit)
        );
        violation("seccompProfile", detail)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn found(level: Level, spec: Value) -> String {
        let spec: PodSpec = serde_json::from_value(spec).unwrap();
        details(&violations(LevelVersion { level, version: None }, &ObjectMeta::default(), &spec))
    }

    #[test]
    fn a_plain_pod_is_baseline_and_not_restricted() {
        let plain = json!({"containers": [{"name": "nginx", "image": "nginx"}]});
        assert_eq!(found(Level::Baseline, plain.clone()), "");
        assert_eq!(found(Level::Privileged, json!({"hostNetwork": true, "containers": []})), "");
        assert_eq!(
            found(Level::Restricted, plain),
            "allowPrivilegeEscalation != false (container \"nginx\" must set \
             securityContext.allowPrivilegeEscalation=false), unrestricted capabilities (container \"nginx\" must set \
             securityContext.capabilities.drop=[\"ALL\"]), runAsNonRoot != true (pod or container \"nginx\" must set \
             securityContext.runAsNonRoot=true), seccompProfile (pod or container \"nginx\" must set \
             securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\")"
        );
        let careful = json!({"securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [{"name": "c", "securityContext": {"allowPrivilegeEscalation": false,
                "capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]}}}]});
        assert_eq!(found(Level::Restricted, careful), "");
    }

    #[test]
    fn each_rule_says_what_breaks_it() {
        let container = |context: Value| json!({"containers": [{"name": "c", "securityContext": context}]});
        for (spec, expected) in [
            (
                json!({"hostNetwork": true, "hostPID": true, "containers": []}),
                "host namespaces (hostNetwork=true, hostPID=true)",
            ),
            (
                json!({"containers": [], "volumes": [{"name": "v", "hostPath": {"path": "/"}}]}),
                "hostPath volumes (volume \"v\")",
            ),
            (
                json!({"containers": [{"name": "c", "ports": [{"containerPort": 1, "hostPort": 80}]}]}),
                "hostPort (container \"c\" uses hostPort 80)",
            ),
            (
                container(json!({"privileged": true})),
                "privileged (container \"c\" must not set securityContext.privileged=true)",
            ),
            (
                container(json!({"capabilities": {"add": ["SYS_ADMIN"]}})),
                "non-default capabilities (container \"c\" must not include \"SYS_ADMIN\" in \
                 securityContext.capabilities.add)",
            ),
            (
                container(json!({"procMount": "Unmasked"})),
                "procMount (container \"c\" must not set securityContext.procMount to \"Unmasked\")",
            ),
            (
                container(json!({"seccompProfile": {"type": "Unconfined"}})),
                "seccompProfile (container \"c\" must not set securityContext.seccompProfile.type to \"Unconfined\")",
            ),
            (
                json!({"containers": [], "securityContext": {"sysctls": [{"name": "kernel.msgmax", "value": "1"}]}}),
                "forbidden sysctls (kernel.msgmax)",
            ),
            (
                container(json!({"seLinuxOptions": {"type": "spc_t", "user": "u"}})),
                "seLinuxOptions (container \"c\" set forbidden securityContext.seLinuxOptions: type \"spc_t\"; user may \
                 not be set)",
            ),
        ] {
            assert_eq!(found(Level::Baseline, spec.clone()), expected, "{spec}");
        }
    }
}
