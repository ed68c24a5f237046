//! Programs that do what a test says.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;

use crate::host::processes::{
    Command, Output, ProcessError, ProcessId, ProcessInfo, Processes, Running, Signal,
};

type Answer = dyn Fn(&Command) -> Output + Send + Sync;

/// A daemon in memory: its exit code once it has ended.
struct Daemon {
    info: ProcessInfo,
    ended: watch::Sender<Option<i32>>,
}

#[derive(Default)]
struct State {
    installed: BTreeSet<String>,
    answers: BTreeMap<String, Arc<Answer>>,
    ran: Vec<Command>,
    daemons: BTreeMap<i32, Daemon>,
    last_pid: i32,
}

/// Programs in memory: none is installed until a test says so.
#[derive(Default)]
pub struct FakeProcesses(Mutex<State>);

impl FakeProcesses {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The program exists and succeeds silently.
    pub fn install(&self, program: &str) {
        self.lock().installed.insert(program.to_owned());
    }

    /// The program does not exist.
    pub fn uninstall(&self, program: &str) {
        self.lock().installed.remove(program);
    }

    /// The program exists and answers this.
    pub fn answer(&self, program: &str, answer: impl Fn(&Command) -> Output + Send + Sync + 'static) {
        self.install(program);
        self.lock().answers.insert(program.to_owned(), Arc::new(answer));
    }

    /// The programs that were run or spawned, in order.
    pub fn ran(&self) -> Vec<Command> {
        self.lock().ran.clone()
    }

    /// The daemons that are running.
    pub fn running(&self) -> Vec<ProcessId> {
        let state = self.lock();
        state.daemons.values().filter(|d| d.ended.borrow().is_none()).map(|d| d.info.id).collect()
    }

    /// A daemon ends by itself.
    pub fn end(&self, pid: i32, code: i32) {
        if let Some(daemon) = self.lock().daemons.get(&pid) {
            daemon.ended.send_replace(Some(code));
        }
    }
}

struct FakeRunning {
    id: ProcessId,
    ended: watch::Receiver<Option<i32>>,
}

#[async_trait]
impl Running for FakeRunning {
    fn id(&self) -> ProcessId {
        self.id
    }

    async fn wait(&mut self) -> Option<i32> {
        self.ended.wait_for(Option::is_some).await.ok().and_then(|code| *code)
    }
}

#[async_trait]
impl Processes for FakeProcesses {
    fn find(&self, program: &str) -> Option<PathBuf> {
        self.lock().installed.contains(program).then(|| Path::new("/usr/bin").join(program))
    }

    async fn output(&self, command: Command, _limit: Duration) -> Result<Output, ProcessError> {
        let program = command.name();
        let answer = {
            let mut state = self.lock();
            if !state.installed.contains(&program) {
                return Err(ProcessError::NotFound { program });
            }
            state.ran.push(command.clone());
            state.answers.get(&program).cloned()
        };
        Ok(answer.map_or_else(Output::default, |answer| answer(&command)))
    }

    fn spawn(&self, command: &Command, _log: &Path) -> Result<Box<dyn Running>, ProcessError> {
        let program = command.name();
        let mut state = self.lock();
        if !state.installed.contains(&program) {
            return Err(ProcessError::NotFound { program });
        }
        state.ran.push(command.clone());
        state.last_pid += 1;
        let id = ProcessId { pid: state.last_pid, started: 1 };
        let command_line = std::iter::once(program).chain(command.args.iter().cloned()).collect();
        let (ended, receiver) = watch::channel(None);
        state.daemons.insert(id.pid, Daemon { info: ProcessInfo { id, parent: 1, command_line }, ended });
        Ok(Box::new(FakeRunning { id, ended: receiver }))
    }

    fn identify(&self, pid: i32) -> Option<ProcessId> {
        self.running().into_iter().find(|id| id.pid == pid)
    }

    fn adopt(&self, id: ProcessId) -> Option<Box<dyn Running>> {
        let state = self.lock();
        let daemon = state.daemons.get(&id.pid).filter(|d| d.info.id == id && d.ended.borrow().is_none())?;
        Some(Box::new(FakeRunning { id, ended: daemon.ended.subscribe() }))
    }

    fn signal(&self, id: ProcessId, signal: Signal) -> Result<(), ProcessError> {
        let code = match signal {
            Signal::Terminate => 143,
            Signal::Kill => 137,
        };
        if self.identify(id.pid) == Some(id) {
            self.end(id.pid, code);
        }
        Ok(())
    }

    fn list(&self) -> Vec<ProcessInfo> {
        let state = self.lock();
        state.daemons.values().filter(|d| d.ended.borrow().is_none()).map(|d| d.info.clone()).collect()
    }
}
