//! One containerd process: starting it, finding it again, telling whether it serves, ending it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tracing::{info, warn};

use super::{ADOPT_LIMIT, ContainerdConfig, ContainerdError, LOG_CHECK, SERVE_LIMIT, log};
use crate::cri::{Client, CriError, Runtime};
use crate::host::processes::{Command, ProcessError, ProcessId, Processes, Running, Signal};

/// How long containerd may take to end when asked; it has nothing to save.
const END_LIMIT: Duration = Duration::from_secs(5);
/// Between two questions whether it serves: short, because a node's start waits for the answer.
const ASK_INTERVAL: Duration = Duration::from_millis(5);

/// How to run containerd with our configuration.
pub(super) struct Daemon {
    config: ContainerdConfig,
    processes: Arc<dyn Processes>,
    client: Client,
}

impl Daemon {
    pub(super) fn new(config: ContainerdConfig, processes: Arc<dyn Processes>, client: Client) -> Self {
        Self { config, processes, client }
    }

    pub(super) fn log(&self) -> PathBuf {
        self.config.log()
    }

    fn failed_log(&self) -> PathBuf {
        self.config.log()
    }

    /// Starts it and remembers which process it is.
    pub(super) fn spawn(&self) -> Result<Box<dyn Running>, ProcessError> {
        let file = self.config.file().display().to_string();
        let command = Command::new("containerd", ["--config", &file])
            // Its own sockets and those of its shims are for root alone.
            .env("CONTAINERD_NAMESPACE", "k8s.io");
        let running = self.processes.spawn(&command, &self.config.log())?;
        let ProcessId { pid, started } = running.id();
        if let Err(error) = std::fs::write(self.config.pid_file(), format!("{pid} {started}\n")) {
            // It is found by its command line then.
            warn!(%error, "containerd's process is not remembered");
        }
        Ok(running)
    }

    /// The one that an earlier start left running.
    pub(super) fn running(&self) -> Option<Box<dyn Running>> {
        let remembered = std::fs::read_to_string(self.config.pid_file()).ok();
        let remembered = remembered.as_deref().and_then(parse).and_then(|id| self.processes.adopt(id));
        remembered
            .or_else(|| find(self.processes.as_ref(), &self.config).and_then(|id| self.processes.adopt(id)))
    }

    /// Asks it to end, and kills it when it does not.
    pub(super) async fn end(&self, mut running: Box<dyn Running>) {
        end(self.processes.as_ref(), running.as_mut()).await;
    }

    /// Waits until it serves, says so, and waits until it ends: its exit code, where known.
    pub(super) async fn serve_and_wait(
        &self,
        running: &mut Box<dyn Running>,
        serving: &watch::Sender<bool>,
    ) -> Result<Option<i32>, ContainerdError> {
        let begun = tokio::time::Instant::now();
        tokio::select! {
            code = running.wait() => return Ok(code),
            answer = self.answers() => answer?,
        }
        info!(elapsed_ms = begun.elapsed().as_millis(), socket = %self.config.socket().display(), "containerd serves");
        serving.send_replace(true);
        let mut check = tokio::time::interval(LOG_CHECK);
        loop {
            tokio::select! {
                code = running.wait() => return Ok(code),
                _ = check.tick() => log::rotate(&self.config.log()),
            }
        }
    }

    /// Returns when its CRI service answers. A connection is refused until the socket is there, so asking is cheap.
    async fn answers(&self) -> Result<(), ContainerdError> {
        let limit = if self.config.socket().exists() { ADOPT_LIMIT.max(SERVE_LIMIT) } else { SERVE_LIMIT };
        let mut last: Option<CriError> = None;
        let asked = async {
            loop {
                match self.client.status(false).await {
                    Ok(_) => return,
                    Err(error) => last = Some(error),
                }
                tokio::time::sleep(ASK_INTERVAL).await;
            }
        };
        let silent = tokio::time::timeout(limit, asked).await;
        silent.map_err(|_elapsed| ContainerdError::Silent { log: self.failed_log(), source: last })
    }
}

fn parse(text: &str) -> Option<ProcessId> {
    let (pid, started) = text.trim().split_once(' ')?;
    Some(ProcessId { pid: pid.parse().ok()?, started: started.parse().ok()? })
}

/// The process that runs containerd with our configuration file.
pub(super) fn find(processes: &dyn Processes, config: &ContainerdConfig) -> Option<ProcessId> {
    let file = config.file().display().to_string();
    let ours = |words: &[String]| {
        words.first().is_some_and(|program| program.rsplit('/').next() == Some("containerd"))
            && words.contains(&file)
    };
    processes.list().into_iter().find(|process| ours(&process.command_line)).map(|process| process.id)
}

/// Asks a process to end, and kills it when it does not.
pub(super) async fn end(processes: &dyn Processes, running: &mut dyn Running) {
    for signal in [Signal::Terminate, Signal::Kill] {
        if let Err(error) = processes.signal(running.id(), signal) {
            warn!(%error, "containerd cannot be signalled");
        }
        if tokio::time::timeout(END_LIMIT, running.wait()).await.is_ok() {
            return;
        }
    }
    warn!(pid = running.id().pid, "containerd does not end");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::fake::FakeProcesses;

    #[test]
    fn a_process_is_remembered_with_its_start_time() {
        assert_eq!(parse("7 99\n"), Some(ProcessId { pid: 7, started: 99 }));
        for damaged in ["", "7", "7 x"] {
            assert_eq!(parse(damaged), None, "{damaged}");
        }
    }

    #[tokio::test]
    async fn only_a_containerd_with_our_configuration_is_ours() {
        let fake = FakeProcesses::default();
        for program in ["containerd", "vim"] {
            fake.install(program);
        }
        let config = ContainerdConfig::new("/data/agent", "/run/x");
        let file = config.file().display().to_string();
        let log = std::path::Path::new("/log");
        drop(
            fake.spawn(&Command::new("containerd", ["--config", "/etc/containerd/config.toml"]), log)
                .unwrap(),
        );
        drop(fake.spawn(&Command::new("vim", [file.as_str()]), log).unwrap());
        assert_eq!(find(&fake, &config), None);
        let ours = fake.spawn(&Command::new("containerd", ["--config", &file]), log).unwrap();
        assert_eq!(find(&fake, &config), Some(ours.id()));
    }
}
