//! Programs: where they are, running them to their end, starting daemons that outlive us, finding them again.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;

mod real;

pub use real::RealProcesses;

/// A program to run and what it is given.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Command {
    /// A name to look for, or an absolute path.
    pub program: PathBuf,
    /// Arguments, without the program itself.
    pub args: Vec<String>,
    /// Environment in addition to ours.
    pub env: Vec<(String, String)>,
    /// What the program reads from standard input.
    pub stdin: Vec<u8>,
}

impl Command {
    /// A program with arguments.
    pub fn new(program: impl Into<PathBuf>, args: impl IntoIterator<Item = impl Into<String>>) -> Self {
        let args = args.into_iter().map(Into::into).collect();
        Self { program: program.into(), args, ..Self::default() }
    }

    /// The same, reading `stdin`.
    pub fn stdin(mut self, stdin: impl Into<Vec<u8>>) -> Self {
        self.stdin = stdin.into();
        self
    }

    /// The same with one more environment variable.
    pub fn env(mut self, name: &str, value: impl Into<String>) -> Self {
        self.env.push((name.to_owned(), value.into()));
        self
    }

    /// The program's name for messages.
    pub fn name(&self) -> String {
        self.program.file_name().unwrap_or(self.program.as_os_str()).to_string_lossy().into_owned()
    }
}

/// What a program that ran to its end left behind.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Output {
    /// Exit code; 128 + signal when it was killed.
    pub code: i32,
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: Vec<u8>,
}

/// One process, told apart from later ones with the same number by its start time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ProcessId {
    /// Process number.
    pub pid: i32,
    /// Start time in clock ticks since boot, field 22 of `/proc/<pid>/stat`.
    pub started: u64,
}

/// A process found on the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessInfo {
    /// Which one.
    pub id: ProcessId,
    /// Its parent's number.
    pub parent: i32,
    /// Program and arguments.
    pub command_line: Vec<String>,
}

/// Signals that we send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// Ask to end.
    Terminate,
    /// End at once.
    Kill,
}

/// What can go wrong with a program.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// The program is in none of the directories searched.
    #[error("{program}: no such program")]
    NotFound {
        /// Name of the program.
        program: String,
    },
    /// It could not be started.
    #[error("start {program}")]
    Start {
        /// Name of the program.
        program: String,
        /// The operating system's reason.
        #[source]
        source: io::Error,
    },
    /// It ran longer than allowed and was killed.
    #[error("{program} did not end within {limit:?}")]
    TooSlow {
        /// Name of the program.
        program: String,
        /// What it was allowed.
        limit: Duration,
    },
    /// It ended with a failure.
    #[error("{program} failed with exit code {code}: {message}")]
    Failed {
        /// Name of the program.
        program: String,
        /// Its exit code.
        code: i32,
        /// The end of its standard error.
        message: String,
    },
    /// A process could not be signalled.
    #[error("signal process {pid}")]
    Signal {
        /// Process number.
        pid: i32,
        /// The operating system's reason.
        #[source]
        source: io::Error,
    },
}

/// A daemon started by us, or adopted. Dropping it leaves the process alone.
#[async_trait]
pub trait Running: Send {
    /// Which process.
    fn id(&self) -> ProcessId;
    /// Waits until it has ended; the exit code where the operating system tells us (not for adopted processes).
    /// Cancel safe.
    async fn wait(&mut self) -> Option<i32>;
}

/// Processes of the machine.
#[async_trait]
pub trait Processes: Send + Sync {
    /// Where a program is, if it is installed.
    fn find(&self, program: &str) -> Option<PathBuf>;
    /// Runs a program to its end, whatever its exit code; kills it after `limit`.
    async fn output(&self, command: Command, limit: Duration) -> Result<Output, ProcessError>;
    /// Starts a daemon in a process group of its own, with its output appended to `log`. It outlives us.
    fn spawn(&self, command: &Command, log: &Path) -> Result<Box<dyn Running>, ProcessError>;
    /// The running process with this number.
    fn identify(&self, pid: i32) -> Option<ProcessId>;
    /// Takes charge of a process that somebody else started, if it is still there.
    fn adopt(&self, id: ProcessId) -> Option<Box<dyn Running>>;
    /// Sends a signal; a process that is gone is no error.
    fn signal(&self, id: ProcessId, signal: Signal) -> Result<(), ProcessError>;
    /// All processes of the machine.
    fn list(&self) -> Vec<ProcessInfo>;
}

/// Runs a program that must succeed; its output.
pub async fn run(
    processes: &dyn Processes,
    command: Command,
    limit: Duration,
) -> Result<Output, ProcessError> {
    let program = command.name();
    let output = processes.output(command, limit).await?;
    if output.code == 0 {
        return Ok(output);
    }
    Err(ProcessError::Failed { program, code: output.code, message: last_words(&output.stderr) })
}

/// The end of what a program printed, in one line that is fit for a message.
pub fn last_words(output: &[u8]) -> String {
    const MOST: usize = 500;
    let text = String::from_utf8_lossy(output);
    let line = text.split('\n').map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; ");
    match line.char_indices().rev().nth(MOST) {
        Some((at, _)) => format!("…{}", &line[at..]),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_words_are_one_short_line() {
        assert_eq!(last_words(b"a\n\n  b \n"), "a; b");
        let long = "x".repeat(2000);
        let words = last_words(long.as_bytes());
        assert!(words.starts_with('…') && words.chars().count() < 600);
    }
}
