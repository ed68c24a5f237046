//! Plugins that register by a socket in `plugins_registry`: CSI drivers.
//!
//! A socket that appears is asked who listens there; one that goes takes its plugin with it. What is registered is known
//! from the sockets alone, so a restarted kubelet finds it again.

mod csi_node;

use std::collections::HashMap;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::{AbortHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::kubelet::context::Context;
use crate::kubelet::images::import::watch::Changes;
use crate::plugins::csi::Driver;
use crate::plugins::registration::registration_client::RegistrationClient;
use crate::plugins::registration::{InfoRequest, PluginInfo, RegistrationStatus};
use crate::plugins::{PluginError, answer, channel};

const LIMIT: Duration = Duration::from_secs(10);
const FIRST_RETRY: Duration = Duration::from_millis(500);
const LAST_RETRY: Duration = Duration::from_secs(30);

/// The CSI drivers that are registered on this node.
#[derive(Clone, Debug, Default)]
pub struct Drivers(Arc<Mutex<HashMap<String, Driver>>>);

impl Drivers {
    fn locked(&self) -> std::sync::MutexGuard<'_, HashMap<String, Driver>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The driver of this name.
    pub fn get(&self, name: &str) -> Option<Driver> {
        self.locked().get(name).cloned()
    }

    /// Adds a driver, in the place of one of the same name.
    pub fn insert(&self, driver: Driver) {
        self.locked().insert(driver.name.clone(), driver);
    }

    /// Forgets a driver, unless another socket has taken its name over.
    fn remove(&self, name: &str, endpoint: &Path) -> bool {
        let mut drivers = self.locked();
        let same = drivers.get(name).is_some_and(|driver| driver.endpoint == endpoint);
        same && drivers.remove(name).is_some()
    }
}

/// Why a plugin is not registered; it is told the same.
#[derive(Debug, thiserror::Error)]
enum RegisterError {
    #[error(transparent)]
    Plugin(#[from] PluginError),
    #[error("plugin type {0:?} is not supported")]
    Type(String),
    #[error("none of the versions {0:?} is supported")]
    Version(Vec<String>),
    #[error("node information of the driver")]
    Node(#[from] csi_node::NodeInfoError),
}

/// A socket: a new one at the same path is another one.
type Socket = (PathBuf, u64);

/// A plugin that is registered, until its socket goes.
struct Registered {
    name: String,
    endpoint: PathBuf,
}

/// Follows the sockets until `stop`.
pub async fn run(ctx: Arc<Context>, stop: CancellationToken) {
    stop.run_until_cancelled(follow(&ctx)).await;
}

async fn follow(ctx: &Arc<Context>) {
    csi_node::ensure(ctx).await;
    let directory = ctx.config.root_dir.join("plugins_registry");
    let mut changes = match Changes::and_creations(&directory) {
        Ok(changes) => changes,
        Err(error) => {
            tracing::error!(directory = %directory.display(), %error, "plugins cannot register");
            return;
        }
    };
    let mut tasks: JoinSet<(Socket, Registered)> = JoinSet::new();
    let mut known: HashMap<Socket, (AbortHandle, Option<Registered>)> = HashMap::new();
    loop {
        let present = sockets(&directory);
        let gone: Vec<Socket> = known.keys().filter(|socket| !present.contains(socket)).cloned().collect();
        for socket in gone {
            let Some((task, registered)) = known.remove(&socket) else { continue };
            task.abort();
            if let Some(Registered { name, endpoint }) = registered
                && ctx.volumes.drivers().remove(&name, &endpoint)
            {
                tracing::info!(driver = %name, "CSI driver is gone");
                csi_node::remove(ctx, &name).await;
            }
        }
        for socket in present {
            if known.contains_key(&socket) {
                continue;
            }
            let (ctx, own) = (ctx.clone(), socket.clone());
            let task = tasks.spawn(async move {
                let registered = register_patiently(&ctx, &own.0).await;
                (own, registered)
            });
            known.insert(socket, (task, None));
        }
        tokio::select! {
            changed = changes.next() => if let Err(error) = changed {
                tracing::error!(%error, "plugins are no longer watched");
                return;
            },
            Some(Ok((socket, registered))) = tasks.join_next(), if !tasks.is_empty() => {
                if let Some(entry) = known.get_mut(&socket) {
                    entry.1 = Some(registered);
                }
            }
        }
    }
}

/// The sockets in the directory. Those with a dot in front are not finished yet.
fn sockets(directory: &Path) -> Vec<Socket> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .filter(|entry| !entry.file_name().to_string_lossy().starts_with('.'))
        .filter_map(|entry| {
            let metadata = std::fs::metadata(entry.path()).ok()?;
            metadata.file_type().is_socket().then(|| (entry.path(), metadata.ino()))
        })
        .collect()
}

/// Tries until it succeeds: a plugin may listen before it can answer.
async fn register_patiently(ctx: &Arc<Context>, socket: &Path) -> Registered {
    let mut wait = FIRST_RETRY;
    loop {
        match register(ctx, socket).await {
            Ok(registered) => return registered,
            Err(error) => {
                let socket = socket.display();
                tracing::warn!(%socket, error = &error as &dyn std::error::Error, "plugin not registered");
            }
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(LAST_RETRY);
    }
}

async fn register(ctx: &Arc<Context>, socket: &Path) -> Result<Registered, RegisterError> {
    let mut client = RegistrationClient::new(channel(socket));
    let info = answer("GetInfo", LIMIT, client.get_info(InfoRequest {})).await?;
    let done = accept(ctx, socket, &info).await;
    let error = done.as_ref().err().map(|e| crate::kubelet::pods::sandbox::chain(e)).unwrap_or_default();
    let status = RegistrationStatus { plugin_registered: done.is_ok(), error };
    let told = answer("NotifyRegistrationStatus", LIMIT, client.notify_registration_status(status)).await;
    let driver = done?;
    let registered = Registered { name: driver.name.clone(), endpoint: driver.endpoint.clone() };
    if let Err(error) = told {
        csi_node::remove(ctx, &registered.name).await;
        return Err(error.into());
    }
    tracing::info!(driver = %driver.name, endpoint = %driver.endpoint.display(), "CSI driver registered");
    ctx.volumes.drivers().insert(driver);
    Ok(registered)
}

async fn accept(ctx: &Arc<Context>, socket: &Path, info: &PluginInfo) -> Result<Driver, RegisterError> {
    if info.r#type != "CSIPlugin" {
        return Err(RegisterError::Type(info.r#type.clone()));
    }
    let supported = |version: &String| version.trim_start_matches('v').split('.').next() == Some("1");
    if !info.supported_versions.iter().any(supported) {
        return Err(RegisterError::Version(info.supported_versions.clone()));
    }
    let endpoint = if info.endpoint.is_empty() { socket } else { Path::new(&info.endpoint) };
    let driver = Driver::connect(&info.name, endpoint).await?;
    csi_node::add(ctx, &info.name, driver.info().await?).await?;
    Ok(driver)
}
