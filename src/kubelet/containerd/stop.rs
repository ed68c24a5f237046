//! Ending everything that the supervised containerd runs: for taking a node down, not for stopping kube-lite.

use std::collections::BTreeSet;
use std::time::Duration;

use tracing::{info, warn};

use super::{ContainerdConfig, daemon};
use crate::cri::{Client, Runtime};
use crate::host::Host;
use crate::host::mounts::unmount_below;
use crate::host::processes::{ProcessId, ProcessInfo, Signal};

/// How long pods may take to be stopped in good order.
const POD_LIMIT: Duration = Duration::from_secs(30);
/// How long killed processes may take to be gone.
const KILL_LIMIT: Duration = Duration::from_secs(10);

/// Stops all pods, containerd, its shims and what they hold, and unmounts what is below its state. Goes on whatever
/// fails, since the next step may still work; images and configuration stay.
pub async fn stop_all(config: &ContainerdConfig, host: &Host) {
    if let Ok(client) = Client::connect(&config.socket().display().to_string())
        && tokio::time::timeout(POD_LIMIT, stop_pods(&client)).await.is_err()
    {
        warn!("pods did not stop in time and are killed");
    }
    let processes = host.processes.as_ref();
    if let Some(id) = daemon::find(processes, config)
        && let Some(mut running) = processes.adopt(id)
    {
        daemon::end(processes, running.as_mut()).await;
        info!(pid = id.pid, "containerd stopped");
    }
    let socket = config.socket().display().to_string();
    for id in held_by_shims(&processes.list(), &socket) {
        kill(host, id).await;
    }
    for directory in [config.state(), config.root()] {
        if let Err(error) = unmount_below(host.mounts.as_ref(), &directory) {
            warn!(%error, "mounts of containers are left");
        }
    }
    for file in [config.socket(), config.pid_file()] {
        // Both may be gone already.
        drop(std::fs::remove_file(file));
    }
}

async fn stop_pods(client: &Client) {
    let Ok(pods) = client.list_pod_sandboxes(None).await else { return };
    let stop = |id: String| async move {
        for answer in [client.stop_pod_sandbox(&id).await, client.remove_pod_sandbox(&id).await] {
            if let Err(error) = answer {
                warn!(%error, sandbox = id, "pod not stopped in good order");
            }
        }
    };
    futures::future::join_all(pods.into_iter().map(|pod| stop(pod.id))).await;
}

async fn kill(host: &Host, id: ProcessId) {
    let Some(mut running) = host.processes.adopt(id) else { return };
    if let Err(error) = host.processes.signal(id, Signal::Kill) {
        warn!(%error, "process of a container is left");
    } else if tokio::time::timeout(KILL_LIMIT, running.wait()).await.is_err() {
        warn!(pid = id.pid, "process of a container does not end");
    }
}

/// The shims of this containerd, told by the socket they report to, and everything below them; shims first, so that
/// none of them starts anything in answer to a death.
fn held_by_shims(all: &[ProcessInfo], socket: &str) -> Vec<ProcessId> {
    let is_shim = |process: &&ProcessInfo| {
        process.command_line.first().is_some_and(|program| program.contains("containerd-shim"))
            && process.command_line.iter().any(|word| word == socket)
    };
    let shims: Vec<_> = all.iter().filter(is_shim).collect();
    let mut found: Vec<ProcessId> = shims.iter().map(|process| process.id).collect();
    let mut pids: BTreeSet<i32> = found.iter().map(|id| id.pid).collect();
    loop {
        let next: Vec<_> = all
            .iter()
            .filter(|p| pids.contains(&p.parent) && !pids.contains(&p.id.pid))
            .map(|p| p.id)
            .collect();
        if next.is_empty() {
            return found;
        }
        pids.extend(next.iter().map(|id| id.pid));
        found.extend(next);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(pid: i32, parent: i32, line: &str) -> ProcessInfo {
        let command_line = line.split(' ').map(str::to_owned).collect();
        ProcessInfo { id: ProcessId { pid, started: 1 }, parent, command_line }
    }

    #[test]
    fn only_our_shims_and_what_is_below_them_is_ended() {
        let all = [
            process(1, 0, "init"),
            process(10, 1, "/usr/bin/containerd-shim-runc-v2 -namespace k8s.io -address /run/ours.sock"),
            process(11, 10, "/pause"),
            process(12, 11, "child"),
            process(20, 1, "/usr/bin/containerd-shim-runc-v2 -namespace k8s.io -address /run/other.sock"),
            process(21, 20, "/pause"),
        ];
        let pids: Vec<_> = held_by_shims(&all, "/run/ours.sock").iter().map(|id| id.pid).collect();
        assert_eq!(pids, [10, 11, 12]);
        assert!(held_by_shims(&all, "/run/none.sock").is_empty());
    }
}
