//! Processes of this machine.

use std::fs::{self, OpenOptions};
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use async_trait::async_trait;
use nix::errno::Errno;
use nix::sys::signal;
use nix::unistd::{AccessFlags, Pid, access};
use tokio::io::AsyncWriteExt;

use super::{Command, Output, ProcessError, ProcessId, ProcessInfo, Processes, Running, Signal};

/// How often an adopted process is looked at where the kernel cannot tell of its end (before Linux 5.3).
const POLL: Duration = Duration::from_millis(500);

/// Programs and processes of this machine.
#[derive(Debug)]
pub struct RealProcesses {
    path: Vec<PathBuf>,
}

impl RealProcesses {
    /// Looks for programs in these directories, in order.
    pub fn new(path: Vec<PathBuf>) -> Self {
        Self { path }
    }

    fn locate(&self, command: &Command) -> Result<PathBuf, ProcessError> {
        if command.program.is_absolute() {
            return Ok(command.program.clone());
        }
        let name = command.program.to_string_lossy();
        self.find(&name).ok_or_else(|| ProcessError::NotFound { program: command.name() })
    }

    /// The search path for the programs that a program runs in turn.
    fn path_variable(&self) -> String {
        let directories = self.path.iter().map(|dir| dir.to_string_lossy());
        directories.collect::<Vec<_>>().join(":")
    }
}

#[async_trait]
impl Processes for RealProcesses {
    fn find(&self, program: &str) -> Option<PathBuf> {
        self.path
            .iter()
            .map(|dir| dir.join(program))
            .find(|file| file.is_file() && access(file, AccessFlags::X_OK).is_ok())
    }

    async fn output(&self, command: Command, limit: Duration) -> Result<Output, ProcessError> {
        let program = command.name();
        let start = |source| ProcessError::Start { program: program.clone(), source };
        let mut child = tokio::process::Command::new(self.locate(&command)?)
            .args(&command.args)
            .env("PATH", self.path_variable())
            .envs(command.env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(start)?;
        let stdin = child.stdin.take();
        let feed = async {
            if let Some(mut stdin) = stdin {
                // A program may end without having read everything; its exit code tells what that means.
                drop(stdin.write_all(&command.stdin).await);
            }
        };
        let both = async { tokio::join!(feed, child.wait_with_output()).1 };
        let output = tokio::time::timeout(limit, both)
            .await
            .map_err(|_elapsed| ProcessError::TooSlow { program: program.clone(), limit })?
            .map_err(start)?;
        Ok(Output { code: exit_code(output.status), stdout: output.stdout, stderr: output.stderr })
    }

    fn spawn(&self, command: &Command, log: &Path) -> Result<Box<dyn Running>, ProcessError> {
        let program = command.name();
        let start = |source| ProcessError::Start { program: program.clone(), source };
        let open = || OpenOptions::new().create(true).append(true).open(log);
        let mut daemon = std::process::Command::new(self.locate(command)?);
        daemon
            .args(&command.args)
            .env("PATH", self.path_variable())
            .envs(command.env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(open().map_err(start)?)
            .stderr(open().map_err(start)?)
            // Not in our process group: an interrupt at the terminal is for us alone.
            .process_group(0);
        let child = tokio::process::Command::from(daemon).kill_on_drop(false).spawn().map_err(start)?;
        let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).unwrap_or_default();
        let started = self.identify(pid).map_or(0, |id| id.started);
        Ok(Box::new(Child { id: ProcessId { pid, started }, child }))
    }

    fn identify(&self, pid: i32) -> Option<ProcessId> {
        let stat = stat(pid)?;
        (stat.state != 'Z').then_some(ProcessId { pid, started: stat.started })
    }

    fn adopt(&self, id: ProcessId) -> Option<Box<dyn Running>> {
        // The descriptor first: if the number is ours afterwards, it was ours when the descriptor was opened.
        let pid = rustix::process::Pid::from_raw(id.pid)?;
        let descriptor = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::NONBLOCK).ok();
        (self.identify(id.pid) == Some(id)).then(|| Box::new(Adopted { id, descriptor }) as Box<dyn Running>)
    }

    fn signal(&self, id: ProcessId, signal: Signal) -> Result<(), ProcessError> {
        if self.identify(id.pid) != Some(id) {
            return Ok(());
        }
        let number = match signal {
            Signal::Terminate => signal::Signal::SIGTERM,
            Signal::Kill => signal::Signal::SIGKILL,
        };
        match signal::kill(Pid::from_raw(id.pid), number) {
            Ok(()) | Err(Errno::ESRCH) => Ok(()),
            Err(errno) => Err(ProcessError::Signal { pid: id.pid, source: errno.into() }),
        }
    }

    fn list(&self) -> Vec<ProcessInfo> {
        let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
        entries
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok())
            .filter_map(|pid| {
                let stat = stat(pid)?;
                let raw = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
                let command_line = raw
                    .split(|byte| *byte == 0)
                    .filter(|word| !word.is_empty())
                    .map(|word| String::from_utf8_lossy(word).into_owned())
                    .collect();
                let id = ProcessId { pid, started: stat.started };
                Some(ProcessInfo { id, parent: stat.parent, command_line })
            })
            .collect()
    }
}

/// A daemon that is our child.
struct Child {
    id: ProcessId,
    child: tokio::process::Child,
}

#[async_trait]
impl Running for Child {
    fn id(&self) -> ProcessId {
        self.id
    }

    async fn wait(&mut self) -> Option<i32> {
        self.child.wait().await.ok().map(exit_code)
    }
}

/// A daemon that an earlier run of ours has started.
struct Adopted {
    id: ProcessId,
    descriptor: Option<OwnedFd>,
}

#[async_trait]
impl Running for Adopted {
    fn id(&self) -> ProcessId {
        self.id
    }

    async fn wait(&mut self) -> Option<i32> {
        // A pipe's end is the one descriptor that tokio watches without `unsafe`; only its readiness is used here.
        if let Some(Ok(copy)) = self.descriptor.as_ref().map(OwnedFd::try_clone)
            && let Ok(descriptor) = tokio::net::unix::pipe::Receiver::from_owned_fd_unchecked(copy)
            && descriptor.readable().await.is_ok()
        {
            return None;
        }
        while stat(self.id.pid).is_some_and(|stat| stat.state != 'Z' && stat.started == self.id.started) {
            tokio::time::sleep(POLL).await;
        }
        None
    }
}

fn exit_code(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}

struct Stat {
    state: char,
    parent: i32,
    started: u64,
}

fn stat(pid: i32) -> Option<Stat> {
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// `/proc/<pid>/stat`: the program's name stands in parentheses and may hold anything, so fields count from its end.
fn parse_stat(text: &str) -> Option<Stat> {
    let (_, rest) = text.rsplit_once(") ")?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    Some(Stat {
        state: fields.first()?.chars().next()?,
        parent: fields.get(1)?.parse().ok()?,
        started: fields.get(19)?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::processes::run;

    const LIMIT: Duration = Duration::from_secs(20);

    fn real() -> RealProcesses {
        RealProcesses::new(vec!["/usr/bin".into(), "/bin".into()])
    }

    fn shell(script: &str) -> Command {
        Command::new("sh", ["-c", script])
    }

    #[tokio::test]
    async fn a_program_gets_its_input_and_gives_output_and_code() {
        let command = shell("cat; echo problem >&2; exit 3").stdin("hello");
        let output = real().output(command, LIMIT).await.unwrap();
        assert_eq!((output.code, output.stdout.as_slice()), (3, b"hello".as_slice()));
        let error = run(&real(), shell("echo problem >&2; exit 3"), LIMIT).await.unwrap_err();
        assert_eq!(error.to_string(), "sh failed with exit code 3: problem");
    }

    #[tokio::test]
    async fn a_program_that_reads_nothing_is_not_an_error() {
        let output = real().output(shell("exit 0").stdin(vec![b'x'; 1 << 20]), LIMIT).await.unwrap();
        assert_eq!(output.code, 0);
    }

    #[tokio::test]
    async fn a_slow_program_is_killed() {
        let error = real().output(shell("sleep 100"), Duration::from_millis(50)).await.unwrap_err();
        assert!(matches!(error, ProcessError::TooSlow { .. }), "{error}");
        let missing = real().output(Command::new("no-such-program", [""; 0]), LIMIT).await.unwrap_err();
        assert_eq!(missing.to_string(), "no-such-program: no such program");
    }

    #[tokio::test]
    async fn a_daemon_is_found_again_signalled_and_awaited() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        let real = real();
        let mut child = real.spawn(&shell("echo started; exec sleep 100"), &log).unwrap();
        let id = child.id();
        assert_eq!(real.identify(id.pid), Some(id));
        let mut adopted = real.adopt(id).unwrap();
        assert!(real.list().iter().any(|process| process.id == id));
        real.signal(id, Signal::Terminate).unwrap();
        assert_eq!(child.wait().await, Some(128 + 15));
        assert_eq!(adopted.wait().await, None);
        assert_eq!(real.identify(id.pid), None);
        assert!(real.adopt(id).is_none());
        real.signal(id, Signal::Kill).unwrap();
    }

    #[tokio::test]
    async fn another_process_with_the_same_number_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let real = real();
        let mut child = real.spawn(&shell("exec sleep 100"), &dir.path().join("log")).unwrap();
        let id = child.id();
        let other = ProcessId { started: id.started + 1, ..id };
        assert!(real.adopt(other).is_none());
        real.signal(other, Signal::Kill).unwrap();
        assert_eq!(real.identify(id.pid), Some(id));
        real.signal(id, Signal::Kill).unwrap();
        assert_eq!(child.wait().await, Some(128 + 9));
    }

    #[test]
    fn stat_survives_odd_program_names() {
        let text = "7 (a) b (c) S 3 7 7 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 1 0 4242 100 200";
        let stat = parse_stat(text).unwrap();
        assert_eq!((stat.state, stat.parent, stat.started), ('S', 3, 4242));
        assert!(parse_stat("garbage").is_none());
    }
}
