//! The containerd that a node supervises when it is not told to use another runtime.
//!
//! It has a configuration, root, state and socket of its own, so that a containerd of the host is never touched.
//! containerd and its shims are no part of this process: they go on when kube-lite stops, is killed or replaced, and
//! the next start adopts them if their configuration is still the wanted one. A containerd that dies is started again;
//! containers do not notice, because their shims hold them.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::cri::{Client, CriError};
use crate::host::Host;
use crate::host::cgroups::Driver;
use crate::host::processes::ProcessError;

mod config;
mod daemon;
mod log;
mod probe;
mod registries;
mod stop;

pub use config::{RuntimeVersion, Settings, render};
pub use registries::{Registries, RegistriesError};
pub use stop::stop_all;

use daemon::Daemon;

/// How long a containerd may take to serve before it counts as failed.
const SERVE_LIMIT: Duration = Duration::from_secs(60);
/// How long an adopted one may; it is running already.
const ADOPT_LIMIT: Duration = Duration::from_secs(10);
const FIRST_BACKOFF: Duration = Duration::from_millis(100);
const LONGEST_BACKOFF: Duration = Duration::from_secs(10);
/// A containerd that ran this long has recovered from whatever made it fail before.
const HEALTHY_AFTER: Duration = Duration::from_secs(60);
const LOG_CHECK: Duration = Duration::from_secs(15 * 60);
/// Where distributions and people put network plugins.
const CNI_DIRECTORIES: &[&str] = &["/opt/cni/bin", "/usr/lib/cni", "/usr/libexec/cni", "/usr/lib64/cni"];

/// What the supervised containerd is told.
#[derive(Debug, Clone)]
pub struct ContainerdConfig {
    /// `agent/` below the data directory.
    pub agent_dir: PathBuf,
    /// Directory for sockets and what a reboot may take.
    pub run_dir: PathBuf,
    /// The image that holds a pod's namespaces.
    pub pause_image: String,
    /// The snapshotter; probed when absent.
    pub snapshotter: Option<String>,
    /// Mirrors and credentials.
    pub registries: Registries,
}

impl ContainerdConfig {
    /// Our own containerd with the built-in pause image.
    pub fn new(agent_dir: impl Into<PathBuf>, run_dir: impl Into<PathBuf>) -> Self {
        let pause_image = super::images::pause::IMAGE.to_owned();
        let registries = Registries::default();
        Self {
            agent_dir: agent_dir.into(),
            run_dir: run_dir.into(),
            pause_image,
            snapshotter: None,
            registries,
        }
    }

    /// Images, snapshots and everything else that a reboot must not take.
    pub fn root(&self) -> PathBuf {
        self.agent_dir.join("containerd")
    }

    /// State of running containers.
    pub fn state(&self) -> PathBuf {
        self.run_dir.join("containerd")
    }

    /// The socket, as a path.
    pub fn socket(&self) -> PathBuf {
        self.state().join("containerd.sock")
    }

    /// The configuration file that we write.
    pub fn file(&self) -> PathBuf {
        self.agent_dir.join("etc/containerd/config.toml")
    }

    /// Directory of the network configuration.
    pub fn cni_conf_dir(&self) -> PathBuf {
        self.agent_dir.join("etc/cni/net.d")
    }

    /// Directory with one folder per registry, as containerd's `config_path` wants it.
    pub fn registries_dir(&self) -> PathBuf {
        self.agent_dir.join("etc/containerd/certs.d")
    }

    fn log(&self) -> PathBuf {
        self.root().join("containerd.log")
    }

    fn pid_file(&self) -> PathBuf {
        self.state().join("containerd.pid")
    }

    /// Where network plugins may be, ours first.
    pub fn cni_bin_dirs(&self) -> Vec<PathBuf> {
        let own = self.agent_dir.join("cni/bin");
        std::iter::once(own).chain(CNI_DIRECTORIES.iter().map(PathBuf::from)).collect()
    }
}

/// Why the supervised containerd cannot be run.
#[derive(Debug, thiserror::Error)]
pub enum ContainerdError {
    /// A file or directory cannot be made.
    #[error("write {}", path.display())]
    Write {
        /// The file or directory.
        path: PathBuf,
        /// The operating system's reason.
        #[source]
        source: io::Error,
    },
    /// The program is missing or does not start.
    #[error("run containerd")]
    Program(#[source] ProcessError),
    /// It ended before it served.
    #[error("containerd ended before it served; its log is {}", log.display())]
    Ended {
        /// Where it says why.
        log: PathBuf,
    },
    /// It does not answer.
    #[error("containerd does not answer; its log is {}", log.display())]
    Silent {
        /// Where it may say why.
        log: PathBuf,
        /// The last answer.
        #[source]
        source: Option<CriError>,
    },
    /// The registries could not be configured.
    #[error(transparent)]
    Registries(#[from] RegistriesError),
    /// The client could not be made.
    #[error("connect to containerd")]
    Client(#[source] CriError),
}

/// A supervised containerd. Stopping the supervision leaves it running.
pub struct Containerd {
    socket: PathBuf,
    snapshotter: String,
    cgroup_driver: Driver,
    serving: watch::Receiver<bool>,
    supervisor: JoinHandle<()>,
}

impl Containerd {
    /// Writes the configuration and starts containerd, or adopts the one that is running. Returns as soon as it is
    /// started; [`Containerd::ready`] waits until it serves. `stop` ends the supervision only.
    pub async fn start(
        config: ContainerdConfig,
        host: &Host,
        stop: CancellationToken,
    ) -> Result<Self, ContainerdError> {
        let begun = Instant::now();
        let settings = prepare(&config, host).await?;
        let text = render(&settings);
        let (snapshotter, cgroup_driver) = (settings.snapshotter.clone(), settings.cgroup_driver);
        let changed = write_if_changed(&config.file(), &text)
            .map_err(|source| ContainerdError::Write { path: config.file(), source })?;
        log::rotate(&config.log());
        let client =
            Client::connect(&config.socket().display().to_string()).map_err(ContainerdError::Client)?;
        let socket = config.socket();
        let daemon = Daemon::new(config, Arc::clone(&host.processes), client);
        let first = match daemon.running() {
            Some(running) if !changed => {
                info!(pid = running.id().pid, "containerd of an earlier start adopted");
                running
            }
            Some(running) => {
                info!(pid = running.id().pid, "containerd is restarted with a new configuration");
                daemon.end(running).await;
                daemon.spawn().map_err(ContainerdError::Program)?
            }
            None => daemon.spawn().map_err(ContainerdError::Program)?,
        };
        debug!(elapsed = ?begun.elapsed(), "containerd started");
        let (sender, serving) = watch::channel(false);
        let supervisor = tokio::spawn(supervise(daemon, first, sender, stop));
        Ok(Self { socket, snapshotter, cgroup_driver, serving, supervisor })
    }

    /// Where to connect to, as `unix:///…`.
    pub fn endpoint(&self) -> String {
        format!("unix://{}", self.socket.display())
    }

    /// The socket, as a path.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// The snapshotter in use.
    pub fn snapshotter(&self) -> &str {
        &self.snapshotter
    }

    /// Who owns the cgroups of containers; the kubelet must do as the runtime does.
    pub fn cgroup_driver(&self) -> Driver {
        self.cgroup_driver
    }

    /// Waits until containerd serves; `false` when the supervision has ended before.
    pub async fn ready(&self) -> bool {
        self.serving.clone().wait_for(|serving| *serving).await.is_ok()
    }

    /// Waits for the end of the supervision, after `stop`.
    pub async fn join(self) {
        if let Err(error) = self.supervisor.await {
            warn!(%error, "containerd's supervisor failed");
        }
    }
}

/// Finds out what this machine's containerd can do and needs.
async fn prepare(config: &ContainerdConfig, host: &Host) -> Result<Settings, ContainerdError> {
    let directories = [
        config.root(),
        config.state(),
        config.cni_conf_dir(),
        config.registries_dir(),
        config.agent_dir.join("images"),
    ];
    for path in directories {
        std::fs::create_dir_all(&path).map_err(|source| ContainerdError::Write { path, source })?;
    }
    config.registries.write(&config.registries_dir())?;
    let (version, lowering) = tokio::join!(probe::version(host, config), probe::oom_lowering(host));
    let snapshotter = match &config.snapshotter {
        Some(named) => named.clone(),
        None => probe::snapshotter(host, &config.root()),
    };
    Ok(Settings {
        version: version.map_err(ContainerdError::Program)?,
        root: config.root(),
        state: config.state(),
        socket: config.socket(),
        pause_image: config.pause_image.clone(),
        snapshotter,
        cgroup_driver: host.cgroups.driver(),
        restrict_oom_score_adj: !lowering,
        cni_bin_dir: probe::cni_bin_dir(&config.cni_bin_dirs()),
        cni_conf_dir: config.cni_conf_dir(),
        registries_dir: config.registries_dir(),
        registries: config.registries.clone(),
    })
}

/// Whether there was another text before.
fn write_if_changed(path: &Path, text: &str) -> io::Result<bool> {
    if std::fs::read_to_string(path).is_ok_and(|current| current == text) {
        return Ok(false);
    }
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory)?;
    }
    let temporary = path.with_extension("new");
    // Credentials of registries may be in it.
    let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::write(&temporary, "")?;
    std::fs::set_permissions(&temporary, private)?;
    std::fs::write(&temporary, text)?;
    std::fs::rename(temporary, path)?;
    Ok(true)
}

/// Keeps one containerd running until told to stop watching.
async fn supervise(
    daemon: Daemon,
    first: Box<dyn crate::host::processes::Running>,
    serving: watch::Sender<bool>,
    stop: CancellationToken,
) {
    let mut running = first;
    let mut backoff = FIRST_BACKOFF;
    loop {
        let begun = tokio::time::Instant::now();
        let ended = tokio::select! {
            () = stop.cancelled() => return,
            ended = daemon.serve_and_wait(&mut running, &serving) => ended,
        };
        serving.send_replace(false);
        if begun.elapsed() > HEALTHY_AFTER {
            backoff = FIRST_BACKOFF;
        }
        match ended {
            Ok(code) => {
                warn!(?code, log = %daemon.log().display(), "containerd has ended and is started again")
            }
            Err(error) => {
                warn!(%error, "containerd is killed and started again");
                daemon.end(running).await;
            }
        }
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(backoff) => {}
            }
            backoff = (backoff * 2).min(LONGEST_BACKOFF);
            match daemon.spawn() {
                Ok(next) => {
                    running = next;
                    break;
                }
                Err(error) => warn!(%error, "containerd cannot be started"),
            }
        }
    }
}

#[cfg(test)]
mod tests;
