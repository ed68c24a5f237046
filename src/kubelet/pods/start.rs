//! Starts one container: image, configuration, creation, start, postStart hook.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, LifecycleHandler, Pod, Secret};

use super::kill::kill;
use super::plan::{Kill, Start, StartFailure};
use super::sandbox::{chain, prepare, write_hosts};
use crate::cri::v1;
use crate::kubelet::containers::config::{Parts, container_config, termination_path};
use crate::kubelet::containers::env::{self, Sources};
use crate::kubelet::containers::mounts::{ReadyVolume, devices, mounts_at, termination_log, wanted_mounts};
use crate::kubelet::containers::sandbox::sandbox_config;
use crate::kubelet::containers::{security, service_env};
use crate::kubelet::context::Context;
use crate::kubelet::events::PodEvents;
use crate::kubelet::images::pull::{ReadyImage, Request};
use crate::kubelet::logs::links;
use crate::kubelet::observed::{ObservedContainer, ObservedPod, ObservedSandbox};
use crate::kubelet::probes::act::{HookError, Target, hook};
use crate::kubelet::runtime;
use crate::kubelet::spec::{self, Kind};
use crate::kubelet::volumes::sub_path::read_beneath;

/// What a start needs to know.
pub struct Job {
    /// The pod.
    pub pod: Arc<Pod>,
    /// Which container, and which run of it.
    pub start: Start,
    /// What the runtime holds.
    pub observed: Arc<ObservedPod>,
}

/// Starts the container, and runs its postStart hook to its end; what has become of it, unless the runtime does not say.
///
/// # Errors
/// It does not run. One whose hook failed has been stopped again.
pub async fn start(ctx: &Arc<Context>, job: &Job) -> Result<Option<ObservedContainer>, StartFailure> {
    let events = ctx.events(&job.pod);
    let (_, container) = spec::find_container(&job.pod, &job.start.name).ok_or_else(|| {
        failed(ctx, "CreateContainerConfigError", "no such container in the pod".to_owned())
    })?;
    let sandbox = job.observed.sandboxes.iter().find(|s| s.id == job.start.sandbox_id);
    let ips = sandbox.map(|s| s.ips.clone()).unwrap_or_default();
    let attempt = sandbox.map_or(0, |s| s.attempt);
    let users = ctx.first_user(&job.pod);
    let users = users.map_err(|e| failed(ctx, "CreateContainerConfigError", e.to_string()))?;
    let sandbox_cri = sandbox_config(&job.pod, attempt, &ctx.config, ctx.dns(&job.pod).0, users);
    let image = ensure_image(ctx, job, &container, &sandbox_cri, &events).await?;
    let volumes = image_volumes(ctx, job, &container, &sandbox_cri, &events).await?;
    let config = configure(ctx, job, &container, &image, &ips, volumes).await.inspect_err(|failure| {
        events.warning(Some(&container.name), "Failed", &format!("Error: {}", failure.message));
    })?;
    let id = create(ctx, job, &container, config, sandbox_cri, &events).await?;
    post_start(ctx, job, &container, &id, sandbox, &events).await?;
    Ok(runtime::container(&ctx.runtime, &id, &job.start.sandbox_id).await)
}

fn failed(ctx: &Context, reason: &str, message: String) -> StartFailure {
    let now = ctx.now();
    let retry_at = now.checked_add(Duration::from_secs(10)).unwrap_or(now);
    StartFailure { reason: reason.to_owned(), message, retry_at }
}

async fn ensure_image(
    ctx: &Context,
    job: &Job,
    container: &Container,
    sandbox: &v1::PodSandboxConfig,
    events: &PodEvents,
) -> Result<ReadyImage, StartFailure> {
    let secrets = pull_secrets(ctx, &job.pod).await;
    let request = Request {
        pod: &job.pod,
        container,
        runtime: &ctx.runtime,
        secrets: &secrets,
        events,
        sandbox,
        now: ctx.now(),
    };
    ctx.images.ensure(request).await
}

/// An image that is mounted as a volume.
enum ImageVolume {
    /// The runtime mounts the image of this id.
    Runtime(String),
    /// It is mounted here.
    At(std::path::PathBuf),
}

/// Pulls the images that the container mounts as volumes.
async fn image_volumes(
    ctx: &Context,
    job: &Job,
    container: &Container,
    sandbox: &v1::PodSandboxConfig,
    events: &PodEvents,
) -> Result<BTreeMap<String, ImageVolume>, StartFailure> {
    let mut out = BTreeMap::new();
    let mounted = |name: &str| container.volume_mounts.iter().flatten().any(|m| m.name == name);
    for volume in spec::pod_spec(&job.pod).volumes.iter().flatten().filter(|v| mounted(&v.name)) {
        let Some(source) = &volume.image else { continue };
        let pulled = Container {
            name: container.name.clone(),
            image: source.reference.clone(),
            image_pull_policy: source.pull_policy.clone(),
            ..Container::default()
        };
        let ready = ensure_image(ctx, job, &pulled, sandbox, events).await?;
        let reference = source.reference.clone().unwrap_or_default();
        let at = ctx.volumes.mount_image(&job.pod, &volume.name, &ready.id).await;
        let at = at.map_err(|e| {
            let message = format!("image {reference:?}: {}", chain(&e));
            events.warning(Some(&container.name), "FailedMount", &message);
            failed(ctx, "CreateContainerError", message)
        })?;
        out.insert(volume.name.clone(), at.map_or(ImageVolume::Runtime(ready.id), ImageVolume::At));
    }
    Ok(out)
}

/// The pod's pull secrets; one that is missing does not keep a public image from being pulled.
async fn pull_secrets(ctx: &Context, pod: &Pod) -> Vec<Secret> {
    let mut out = Vec::new();
    for reference in spec::pod_spec(pod).image_pull_secrets.iter().flatten() {
        match ctx.volumes.secret(pod, &reference.name).await {
            Ok(Some(secret)) => out.push(secret),
            Ok(None) => {
                let message = format!(
                    "Unable to retrieve some image pull secrets ({}); attempting to pull the image may not succeed.",
                    reference.name
                );
                ctx.events(pod).warning(None, "FailedToRetrieveImagePullSecret", &message);
            }
            Err(error) => {
                tracing::warn!(secret = %reference.name, error = &error as &dyn std::error::Error, "pull secret not read");
            }
        }
    }
    out
}

async fn configure(
    ctx: &Context,
    job: &Job,
    container: &Container,
    image: &ReadyImage,
    ips: &[String],
    images: BTreeMap<String, ImageVolume>,
) -> Result<v1::ContainerConfig, StartFailure> {
    let bad = |message: String| failed(ctx, "CreateContainerConfigError", message);
    security::verify_non_root(&job.pod, container, &image.user).map_err(|e| bad(e.to_string()))?;
    let mut volumes = prepare(ctx, &job.pod, ips.to_vec()).await.map_err(|e| bad(chain(&e)))?;
    for (name, image) in images {
        if let Some(volume) = volumes.get_mut(&name) {
            match image {
                ImageVolume::Runtime(id) => volume.image = Some(id),
                ImageVolume::At(path) => (volume.image, volume.path) = (None, path),
            }
        }
    }
    let mut sources = sources(ctx, &job.pod, container).await.map_err(bad)?;
    sources.files = files(container, &volumes);
    let facts = ctx.facts(ips.to_vec());
    let mut env = env::variables(&job.pod, container, &facts, &sources).map_err(|e| bad(e.to_string()))?;
    let mut mounts = mounts(ctx, job, container, &volumes, &env, ips).map_err(bad)?;
    let mut devices = devices(container, &volumes).map_err(|e| bad(e.to_string()))?;
    let given = ctx.devices.give(&job.pod, job.start.kind, container).await.map_err(|e| bad(chain(&e)))?;
    // What the spec says is stronger than what a plugin adds.
    let more: Vec<_> = given.env.into_iter().filter(|(key, _)| !env.iter().any(|(k, _)| k == key)).collect();
    env.extend(more);
    mounts.extend(given.mounts);
    devices.extend(given.devices);
    let target_id = target(&job.pod, &job.start, &job.observed);
    Ok(container_config(Parts {
        pod: &job.pod,
        container,
        start: &job.start,
        image_ref: &image.id,
        image_user: &image.user,
        env,
        mounts,
        devices,
        first_user: ctx.first_user(&job.pod).map_err(|e| bad(e.to_string()))?,
        annotations: given.annotations,
        cdi: given.cdi,
        target_id,
        node: &ctx.limits,
        cpus: ctx.cpus.as_ref().map(|cpus| cpus.of(spec::uid(&job.pod), &container.name)),
        seccomp: (&ctx.config.root_dir.join("seccomp"), ctx.config.seccomp_default),
    }))
}

/// The files of variables that the container refers to.
fn files(
    container: &Container,
    volumes: &BTreeMap<String, ReadyVolume>,
) -> BTreeMap<(String, String), Result<Option<String>, String>> {
    let sources = container.env.iter().flatten().filter_map(|variable| variable.value_from.as_ref());
    let wanted = sources.filter_map(|source| source.file_key_ref.as_ref());
    wanted
        .filter_map(|r| {
            let volume = volumes.get(&r.volume_name)?;
            let text = read_beneath(&volume.path, Path::new(&r.path)).map_err(|error| error.to_string());
            Some(((r.volume_name.clone(), r.path.clone()), text))
        })
        .collect()
}

async fn sources(ctx: &Context, pod: &Pod, container: &Container) -> Result<Sources, String> {
    let (maps, secrets): (BTreeSet<String>, BTreeSet<String>) = env::references(container);
    let mut out = Sources { config_maps: BTreeMap::new(), secrets: BTreeMap::new(), ..Sources::default() };
    for name in maps {
        let map = ctx.volumes.config_map(pod, &name).await.map_err(|e| chain(&e))?;
        out.config_maps.insert(name, map);
    }
    for name in secrets {
        let secret = ctx.volumes.secret(pod, &name).await.map_err(|e| chain(&e))?;
        out.secrets.insert(name, secret);
    }
    // The variables of Services are part of the contract, so a pod waits until they are known.
    if tokio::time::timeout(Duration::from_secs(10), ctx.services.synced()).await.is_err() {
        return Err("services have not yet been read at least once, cannot construct envvars".to_owned());
    }
    let links = spec::pod_spec(pod).enable_service_links.unwrap_or(true);
    let services = ctx.services.list();
    out.services = service_env::variables(services.iter().map(AsRef::as_ref), spec::namespace(pod), links);
    Ok(out)
}

fn mounts(
    ctx: &Context,
    job: &Job,
    container: &Container,
    volumes: &BTreeMap<String, ReadyVolume>,
    env: &[(String, String)],
    ips: &[String],
) -> Result<Vec<v1::Mount>, String> {
    let mut out = Vec::new();
    for wanted in wanted_mounts(container, volumes, env).map_err(|e| e.to_string())? {
        let path = match wanted.volume.image {
            Some(_) => wanted.volume.path.clone(),
            None => ctx.volumes.resolve(&job.pod, &container.name, &wanted).map_err(|e| chain(&e))?,
        };
        out.push(wanted.into_cri(&path));
    }
    if !mounts_at(container, "/etc/hosts") && !ips_unknown(&job.pod, ips) {
        let path = write_hosts(ctx, &job.pod, ips).map_err(|e| format!("write hosts file: {e}"))?;
        out.push(plain_mount("/etc/hosts", &path));
    }
    let log = termination_log(&ctx.config.pod_dir(spec::uid(&job.pod)), &container.name, job.start.attempt);
    make_termination_log(&log).map_err(|e| format!("make termination log: {e}"))?;
    out.push(plain_mount(termination_path(container), &log));
    Ok(out)
}

fn ips_unknown(pod: &Pod, ips: &[String]) -> bool {
    ips.is_empty() && !spec::host_network(pod)
}

fn plain_mount(container_path: &str, host_path: &Path) -> v1::Mount {
    v1::Mount {
        container_path: container_path.to_owned(),
        host_path: host_path.display().to_string(),
        ..v1::Mount::default()
    }
}

/// An empty file that every user of the container may write.
fn make_termination_log(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)?;
    }
    std::fs::write(path, "")?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666))
}

/// The running container whose processes an ephemeral one wants to see.
fn target(pod: &Pod, start: &Start, observed: &ObservedPod) -> Option<String> {
    if start.kind != Kind::Ephemeral {
        return None;
    }
    let list = spec::ephemeral_containers(pod);
    let name = list.iter().find(|e| e.name == start.name)?.target_container_name.as_deref()?;
    observed.latest(name).filter(|c| c.running()).map(|c| c.id.clone())
}

async fn create(
    ctx: &Context,
    job: &Job,
    container: &Container,
    config: v1::ContainerConfig,
    sandbox: v1::PodSandboxConfig,
    events: &PodEvents,
) -> Result<String, StartFailure> {
    let name = Some(container.name.as_str());
    let log_dir = ctx.log_dir(&job.pod).join(&container.name);
    if let Err(error) = std::fs::create_dir_all(&log_dir) {
        return Err(failed(ctx, "CreateContainerError", format!("create log directory: {error}")));
    }
    let created = ctx.runtime.create_container(&job.start.sandbox_id, config, sandbox).await;
    let id = created.map_err(|error| {
        let message = error.upstream_message();
        events.warning(name, "Failed", &format!("Error: {message}"));
        failed(ctx, "CreateContainerError", message)
    })?;
    events.normal(name, "Created", "Container created");
    ctx.runtime.start_container(&id).await.map_err(|error| {
        let message = error.upstream_message();
        events.warning(name, "Failed", &format!("Error: {message}"));
        failed(ctx, "RunContainerError", message)
    })?;
    events.normal(name, "Started", "Container started");
    let log = log_dir.join(format!("{}.log", job.start.attempt));
    let whose = (spec::name(&job.pod), spec::namespace(&job.pod), container.name.as_str());
    if let Err(error) = links::make(&ctx.config.log_links(), whose, &id, &log) {
        tracing::debug!(container = %id, %error, "log not linked");
    }
    Ok(id)
}

/// Runs the hook. A container whose hook failed is stopped before anything else happens to the pod.
async fn post_start(
    ctx: &Arc<Context>,
    job: &Job,
    container: &Container,
    id: &str,
    sandbox: Option<&ObservedSandbox>,
    events: &PodEvents,
) -> Result<(), StartFailure> {
    let Some(handler) = container.lifecycle.as_ref().and_then(|l| l.post_start.as_ref()) else {
        return Ok(());
    };
    let facts = ctx.facts(sandbox.map(|s| s.ips.clone()).unwrap_or_default());
    let pod_ip = if spec::host_network(&job.pod) { facts.host_ips } else { facts.pod_ips };
    let pod_ip = pod_ip.first().cloned().unwrap_or_default();
    let target = Target::new(&ctx.runtime, id, container, pod_ip.clone());
    let Err(error) = hook(&target, handler).await else { return Ok(()) };
    // What the hook said may be secret: the status shows it to those who may read the pod, events do not.
    events.warning(Some(&container.name), "FailedPostStartHook", "PostStartHook failed");
    let stop = Kill {
        id: id.to_owned(),
        name: container.name.clone(),
        grace: spec::spec_grace(&job.pod),
        message: "FailedPostStartHook".to_owned(),
    };
    kill(ctx.clone(), Some(job.pod.clone()), None, stop, pod_ip, true).await;
    let message = hook_failed(&job.pod, &container.name, handler, &error);
    // The container's end decides when it starts again.
    Err(StartFailure { reason: "PostStartHookError".to_owned(), message, retry_at: ctx.now() })
}

/// The text of upstream's handler runner.
fn hook_failed(pod: &Pod, container: &str, handler: &LifecycleHandler, error: &HookError) -> String {
    let pod = spec::named(pod);
    let (kind, subject) = match handler {
        LifecycleHandler { exec: Some(action), .. } => {
            ("Exec", format!("[{}]", action.command.as_deref().unwrap_or_default().join(" ")))
        }
        LifecycleHandler { http_get: Some(action), .. } => ("HTTP", action.path.clone().unwrap_or_default()),
        _ => ("Sleep", handler.sleep.as_ref().map_or(0, |s| s.seconds).to_string()),
    };
    let mut text = format!(
        "{kind} lifecycle hook ({subject}) for Container {container:?} in Pod {pod:?} failed - error: {}",
        error.text
    );
    if handler.exec.is_some() {
        text.push_str(&format!(", message: {:?}", error.output));
    }
    text
}
