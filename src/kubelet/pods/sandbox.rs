//! Makes a pod's sandbox: volumes and directories first, then the runtime's part.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Container, Pod};

use crate::host::cgroups::{CgroupPath, Limits};
use crate::kubelet::containers::mounts::ReadyVolume;
use crate::kubelet::containers::sandbox::{cgroup_path, sandbox_config};
use crate::kubelet::containers::{hosts, resources, user_namespace};
use crate::kubelet::context::Context;
use crate::kubelet::observed::ObservedSandbox;
use crate::kubelet::{runtime, spec};

/// Why there is no sandbox.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// A volume is not ready; the event has been recorded.
    #[error("volumes")]
    Volumes(#[from] crate::kubelet::volumes::SetUpError),
    /// A directory cannot be made.
    #[error("make {0}")]
    Directory(String, #[source] std::io::Error),
    /// The RuntimeClass cannot be used.
    #[error("RuntimeClass \"{0}\" not found")]
    RuntimeClass(String),
    /// The pod's users cannot be its own: running it as the host's would give it more than it may have.
    #[error("the handler {0:?} does not support user namespaces")]
    UserNamespaces(String),
    /// There are no ids for them.
    #[error("ids of the pod's users")]
    Users(#[source] std::io::Error),
    /// The runtime refused.
    #[error("run sandbox")]
    Runtime(#[source] crate::cri::CriError),
}

/// Makes sandbox number `attempt` of a pod; what it has become, unless the runtime does not say.
pub async fn create(
    ctx: &Arc<Context>,
    pod: &Pod,
    attempt: u32,
) -> Result<Option<ObservedSandbox>, SandboxError> {
    let events = ctx.events(pod);
    if attempt > 0 {
        let text = "Pod sandbox changed, it will be killed and re-created.";
        events.normal(None, "SandboxChanged", text);
    }
    if let Err(error) = prepare(ctx, pod, Vec::new()).await {
        events.warning(None, "FailedMount", &chain(&error));
        return Err(error);
    }
    let handler = match runtime_handler(ctx, pod).await {
        Ok(handler) => handler,
        Err(error) => {
            events.warning(None, "FailedCreatePodSandBox", &format!("Failed to create pod sandbox: {error}"));
            return Err(error);
        }
    };
    let first_user = match users(ctx, pod, &handler).await {
        Ok(first) => first,
        Err(error) => {
            let message = format!("Failed to create pod sandbox: {}", chain(&error));
            events.warning(None, "FailedCreatePodSandBox", &message);
            return Err(error);
        }
    };
    let (dns, omitted) = ctx.dns(pod);
    omitted.iter().for_each(|text| events.warning(None, "DNSConfigForming", text));
    let config = sandbox_config(pod, attempt, &ctx.config, dns, first_user);
    let made = ctx.runtime.run_pod_sandbox(config, &handler).await.map_err(|error| {
        let message = format!("Failed to create pod sandbox: {}", error.upstream_message());
        events.warning(None, "FailedCreatePodSandBox", &message);
        SandboxError::Runtime(error)
    })?;
    Ok(runtime::sandbox(&ctx.runtime, &made).await)
}

/// The first id of a pod with users of its own, when the runtime can do that.
async fn users(ctx: &Context, pod: &Pod, handler: &str) -> Result<Option<u32>, SandboxError> {
    if !user_namespace::wanted(pod) {
        return Ok(None);
    }
    let status = ctx.runtime.status(false).await.map_err(SandboxError::Runtime)?;
    if !user_namespace::runtime_can(&status.runtime_handlers, handler) {
        return Err(SandboxError::UserNamespaces(handler.to_owned()));
    }
    ctx.first_user(pod).map_err(SandboxError::Users)
}

/// Makes the pod's directories and volumes ready; may be repeated.
pub async fn prepare(
    ctx: &Context,
    pod: &Pod,
    pod_ips: Vec<String>,
) -> Result<BTreeMap<String, ReadyVolume>, SandboxError> {
    for dir in [ctx.config.pod_dir(spec::uid(pod)), ctx.log_dir(pod)] {
        let made = std::fs::create_dir_all(&dir);
        made.map_err(|e| SandboxError::Directory(dir.display().to_string(), e))?;
    }
    ensure_cgroup(ctx, pod).await;
    let node = ctx.node.borrow().clone();
    Ok(ctx.volumes.prepare(pod, &ctx.facts(pod_ips), node.as_deref()).await?)
}

/// The pod's own group bounds all its containers together. A host that does not allow it still runs the pod.
async fn ensure_cgroup(ctx: &Context, pod: &Pod) {
    let Some(path) = cgroup_path(pod, &ctx.config) else { return };
    let pids = ctx.config.pod_pids_limit;
    set_cgroup(ctx, &path, Limits { pids, ..limits(ctx, pod) }).await;
}

/// Gives the pod's group room for the larger of two sizes.
pub async fn resize_cgroup(ctx: &Context, from: &Pod, to: &Pod) {
    let Some(path) = cgroup_path(to, &ctx.config) else { return };
    let (from, to) = (limits(ctx, from), limits(ctx, to));
    // No limit at all is more than any.
    let wider = |a: Option<i64>, b: Option<i64>| a.zip(b).map_or(Some(-1), |(a, b)| Some(a.max(b)));
    let both = Limits {
        cpu_shares: from.cpu_shares.max(to.cpu_shares),
        cpu_quota: wider(from.cpu_quota, to.cpu_quota),
        cpu_period: to.cpu_period,
        memory: wider(from.memory, to.memory),
        ..Limits::default()
    };
    set_cgroup(ctx, &path, both).await;
}

/// The limits of the pod's group.
fn limits(ctx: &Context, pod: &Pod) -> Limits {
    let rules = ctx.limits.rules;
    // Who has processors to itself is not slowed down on them.
    let own = |c: &Container| ctx.cpus.as_ref().is_some_and(|cpus| cpus.of(spec::uid(pod), &c.name).1);
    let slowed = rules.cpu_quota && !spec::all_containers(pod).any(|(_, c)| own(&c));
    let requests = resources::pod_requests(pod);
    let limit = |name: &str| resources::pod_limit(pod, name);
    let shares = resources::shares(requests.get("cpu").copied().unwrap_or(0));
    Limits {
        cpu_shares: u64::try_from(shares).ok(),
        cpu_quota: match slowed {
            true => limit("cpu").map(|milli| resources::quota(milli, rules.cpu_period)),
            false => Some(-1),
        },
        cpu_period: u64::try_from(rules.cpu_period).ok(),
        memory: limit("memory").map(|m| m / 1000),
        ..Limits::default()
    }
}

async fn set_cgroup(ctx: &Context, path: &CgroupPath, limits: Limits) {
    if let Err(error) = ctx.host.cgroups.ensure(path, &limits).await {
        tracing::debug!(
            group = %path,
            error = &error as &dyn std::error::Error,
            "no control group for the pod"
        );
    }
}

async fn runtime_handler(ctx: &Context, pod: &Pod) -> Result<String, SandboxError> {
    use k8s_openapi::api::node::v1::RuntimeClass;
    let Some(name) = spec::pod_spec(pod).runtime_class_name.as_deref().filter(|n| !n.is_empty()) else {
        return Ok(ctx.config.default_runtime_handler.clone());
    };
    let api: kube::Api<RuntimeClass> = kube::Api::all(ctx.client.clone());
    match api.get_opt(name).await {
        Ok(Some(class)) => Ok(class.handler),
        Ok(None) | Err(_) => Err(SandboxError::RuntimeClass(name.to_owned())),
    }
}

/// Writes the pod's hosts file and returns its place.
pub fn write_hosts(ctx: &Context, pod: &Pod, pod_ips: &[String]) -> std::io::Result<std::path::PathBuf> {
    let path = ctx.config.pod_dir(spec::uid(pod)).join("etc-hosts");
    let aliases = spec::pod_spec(pod).host_aliases.as_deref().unwrap_or_default();
    let text = if spec::host_network(pod) {
        hosts::host_network_hosts(&std::fs::read_to_string("/etc/hosts").unwrap_or_default(), aliases)
    } else {
        let (hostname, domain) = hosts::hostname(pod, &ctx.config.hostname, &ctx.config.cluster_domain);
        hosts::pod_hosts(pod_ips, &hostname, &domain, aliases)
    };
    // Running containers see this very file, so it is written in place and only when it differs.
    if std::fs::read_to_string(&path).ok().as_deref() != Some(&text) {
        std::fs::write(&path, text)?;
    }
    Ok(path)
}

/// An error with its causes, as one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut out = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let text = cause.to_string();
        if !out.ends_with(&text) {
            out = format!("{}: {text}", out.trim_end());
        }
        next = cause.source();
    }
    out.trim_start_matches("volumes: ").to_owned()
}
