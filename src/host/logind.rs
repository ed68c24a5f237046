//! Shutdowns of the machine as systemd-logind tells of them, and locks that delay them.
//!
//! logind is spoken to by `busctl` and `systemd-inhibit`, which every installation of it has. Children that stay read
//! from us, or a shell does so for them, so that they go with us, however we end.

use std::ffi::OsStr;
use std::io;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader, Lines};
use tokio::process::{Child, ChildStdin};
use tokio::sync::mpsc;

use super::processes::{Command, ProcessError, Processes, run};

const SERVICE: &str = "org.freedesktop.login1";
const OBJECT: &str = "/org/freedesktop/login1";
const INTERFACE: &str = "org.freedesktop.login1.Manager";
const SIGNAL: &str = "PrepareForShutdown";
/// Where logind looks for settings of others.
const SETTINGS: &str = "/etc/systemd/logind.conf.d";
const SETTING: &str = "99-kubelet.conf";
const LIMIT: Duration = Duration::from_secs(10);
/// Words of a test that nobody has heard yet; more are a mistake of the test.
const QUEUE: usize = 4;

/// logind did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum LogindError {
    /// A program failed or is not there.
    #[error(transparent)]
    Program(#[from] ProcessError),
    /// A program could not be started or read from.
    #[error("{0}")]
    Talk(&'static str, #[source] io::Error),
    /// A program said something that is not understood, or ended.
    #[error("{0} said {1:?}")]
    Answer(&'static str, String),
    /// The settings cannot be written.
    #[error("write {}", .0.display())]
    Write(PathBuf, #[source] io::Error),
}

/// Shutdowns as they begin (true) and are cancelled (false); ends when logind goes away.
pub type Shutdowns = BoxStream<'static, bool>;

/// A lock; dropping it lets the machine go on.
pub type Lock = Box<dyn Send>;

/// What is asked of logind.
#[async_trait]
pub trait Logind: Send + Sync {
    /// Delays shutdowns for as long as the lock is kept, and not longer than [`Logind::longest_delay`].
    async fn delay(&self, why: &str) -> Result<Lock, LogindError>;
    /// How long logind waits for locks.
    async fn longest_delay(&self) -> Result<Duration, LogindError>;
    /// Makes it wait longer.
    async fn set_longest_delay(&self, to: Duration) -> Result<(), LogindError>;
    /// Listens for shutdowns.
    async fn shutdowns(&self) -> Result<Shutdowns, LogindError>;
}

/// logind of this machine.
pub struct RealLogind {
    processes: Arc<dyn Processes>,
    settings: PathBuf,
}

impl RealLogind {
    /// Asks with programs that `processes` finds.
    pub fn new(processes: Arc<dyn Processes>) -> Self {
        Self { processes, settings: SETTINGS.into() }
    }

    fn find(&self, program: &'static str) -> Result<PathBuf, LogindError> {
        let found = self.processes.find(program);
        Ok(found.ok_or_else(|| ProcessError::NotFound { program: program.to_owned() })?)
    }

    /// Starts a program that we write to and read from, and that ends when we no longer write.
    fn spawn(&self, program: &'static str, args: &[&OsStr]) -> Result<Child, LogindError> {
        tokio::process::Command::new(self.find(program)?)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|source| ProcessError::Start { program: program.to_owned(), source }.into())
    }
}

/// Runs a program, and ends it when nobody writes any more. The program alone has the output, which so ends with it.
const LEASH: &str = "\"$@\" & exec > /dev/null; read -r _; kill $!";

/// The process that has the lock, which ends when nobody writes to it any more.
struct Held {
    _stdin: ChildStdin,
    _child: Child,
}

#[async_trait]
impl Logind for RealLogind {
    async fn delay(&self, why: &str) -> Result<Lock, LogindError> {
        const PROGRAM: &str = "systemd-inhibit";
        let why = format!("--why={why}");
        let words =
            ["--what=shutdown", "--who=kubelet", &why, "--mode=delay", "sh", "-c", "echo held; exec cat"];
        let mut child = self.spawn(PROGRAM, &words.map(OsStr::new))?;
        let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(LogindError::Answer(PROGRAM, String::new()));
        };
        let mut lines = BufReader::new(stdout).lines();
        let said = tokio::time::timeout(LIMIT, lines.next_line()).await;
        let said = said.map_err(|_| LogindError::Answer(PROGRAM, "nothing".to_owned()))?;
        match said.map_err(|error| LogindError::Talk(PROGRAM, error))?.as_deref() {
            Some("held") => Ok(Box::new(Held { _stdin: stdin, _child: child })),
            other => Err(LogindError::Answer(PROGRAM, other.unwrap_or_default().to_owned())),
        }
    }

    async fn longest_delay(&self) -> Result<Duration, LogindError> {
        let words = ["--system", "get-property", SERVICE, OBJECT, INTERFACE, "InhibitDelayMaxUSec"];
        let output = run(self.processes.as_ref(), Command::new("busctl", words), LIMIT).await?;
        let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        let micros = text.strip_prefix("t ").and_then(|number| number.parse().ok());
        micros.map(Duration::from_micros).ok_or(LogindError::Answer("busctl", text))
    }

    async fn set_longest_delay(&self, to: Duration) -> Result<(), LogindError> {
        let file = self.settings.join(SETTING);
        let text = format!("# Kubelet logind override\n[Login]\nInhibitDelayMaxSec={}\n", to.as_secs());
        let written = std::fs::create_dir_all(&self.settings).and_then(|()| std::fs::write(&file, text));
        written.map_err(|error| LogindError::Write(file, error))?;
        // logind reads its settings again when it gets SIGHUP.
        let systemd =
            ["org.freedesktop.systemd1", "/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager"];
        let words = ["--system", "call"].iter().chain(&systemd).chain(&[
            "KillUnit",
            "ssi",
            "systemd-logind.service",
            "all",
            "1",
        ]);
        run(self.processes.as_ref(), Command::new("busctl", words.copied()), LIMIT).await?;
        Ok(())
    }

    async fn shutdowns(&self) -> Result<Shutdowns, LogindError> {
        let rule = format!("--match=type='signal',interface='{INTERFACE}',member='{SIGNAL}'");
        let busctl = self.find("busctl")?;
        let words = ["-c", LEASH, "sh"].into_iter().map(OsStr::new);
        let program = [busctl.as_os_str(), "--system".as_ref(), "monitor".as_ref(), rule.as_ref()];
        let mut child = self.spawn("sh", &words.chain(program).collect::<Vec<_>>())?;
        let stdout = child.stdout.take().ok_or_else(|| LogindError::Answer("busctl", String::new()))?;
        let lines = BufReader::new(stdout).lines();
        // The program goes when nobody listens any more.
        let heard = futures::stream::unfold((child, lines), |(child, mut lines)| async move {
            let begins = next_shutdown(&mut lines).await?;
            Some((begins, (child, lines)))
        });
        Ok(heard.boxed())
    }
}

/// The value of the next signal in what `busctl monitor` prints; `None` at its end.
async fn next_shutdown(lines: &mut Lines<BufReader<impl AsyncRead + Unpin>>) -> Option<bool> {
    let mut ours = false;
    while let Ok(Some(line)) = lines.next_line().await {
        if let Some((_, member)) = line.split_once("Member=") {
            ours = member.split_whitespace().next() == Some(SIGNAL);
        }
        match line.trim() {
            "BOOLEAN true;" if ours => return Some(true),
            "BOOLEAN false;" if ours => return Some(false),
            _ => {}
        }
    }
    None
}

/// A logind that says what a test says.
#[derive(Debug, Default)]
pub struct FakeLogind(Mutex<FakeState>);

#[derive(Debug, Default)]
struct FakeState {
    absent: bool,
    longest: Duration,
    locks: Arc<()>,
    listeners: Vec<mpsc::Sender<bool>>,
}

impl FakeLogind {
    fn lock(&self) -> std::sync::MutexGuard<'_, FakeState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// There is none on this machine.
    pub fn set_absent(&self) {
        self.lock().absent = true;
    }

    /// How many locks are held.
    pub fn locks(&self) -> usize {
        Arc::strong_count(&self.lock().locks) - 1
    }

    /// A shutdown begins, or is cancelled.
    pub fn say(&self, begins: bool) {
        self.lock().listeners.retain(|listener| listener.try_send(begins).is_ok());
    }

    /// Whether somebody listens.
    pub fn is_heard(&self) -> bool {
        self.lock().listeners.iter().any(|listener| !listener.is_closed())
    }

    fn absent(&self) -> Result<(), LogindError> {
        let missing = || ProcessError::NotFound { program: "busctl".to_owned() };
        if self.lock().absent { Err(missing().into()) } else { Ok(()) }
    }
}

#[async_trait]
impl Logind for FakeLogind {
    async fn delay(&self, _why: &str) -> Result<Lock, LogindError> {
        self.absent()?;
        Ok(Box::new(self.lock().locks.clone()))
    }

    async fn longest_delay(&self) -> Result<Duration, LogindError> {
        self.absent()?;
        Ok(self.lock().longest)
    }

    async fn set_longest_delay(&self, to: Duration) -> Result<(), LogindError> {
        self.lock().longest = to;
        Ok(())
    }

    async fn shutdowns(&self) -> Result<Shutdowns, LogindError> {
        self.absent()?;
        let (sender, receiver) = mpsc::channel(QUEUE);
        self.lock().listeners.push(sender);
        let heard = futures::stream::unfold(receiver, |mut receiver| async move {
            receiver.recv().await.map(|begins| (begins, receiver))
        });
        Ok(heard.boxed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::processes::RealProcesses;
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;

    /// Programs that answer as the real ones do.
    fn logind(dir: &Path) -> RealLogind {
        let program = |name: &str, text: &str| {
            std::fs::write(dir.join(name), format!("#!/bin/sh\n{text}")).unwrap();
            std::fs::set_permissions(dir.join(name), std::fs::Permissions::from_mode(0o755)).unwrap();
        };
        let here = dir.display();
        program(
            "busctl",
            &format!(
                "echo \"$@\" >> {here}/called\ncase $2 in\nget-property) echo t 5000000;;\nmonitor)\n\
                 for value in true false; do\n\
                 echo 'Type=signal  Endian=l  Flags=1  Version=1 Cookie=1'\n\
                 echo '  Sender=:1.3  Path=/org/freedesktop/login1  Interface=org.freedesktop.login1.Manager  Member=PrepareForShutdown'\n\
                 echo '  UniqueName=:1.3'\necho '  MESSAGE \"b\" {{'\necho \"          BOOLEAN $value;\"\necho '  }};'\n\
                 done;;\nesac\n"
            ),
        );
        program("systemd-inhibit", &format!("shift 4; echo $$ > {here}/holder; exec \"$@\"\n"));
        let processes = RealProcesses::new(vec![dir.to_owned(), "/usr/bin".into(), "/bin".into()]);
        RealLogind { processes: Arc::new(processes), settings: dir.join("logind.conf.d") }
    }

    /// The process whose number is in the file ends when that is dropped which reads or writes to it.
    async fn ends_with<T>(file: &Path, held: T) {
        let number = std::fs::read_to_string(file).unwrap();
        let state = format!("/proc/{}/stat", number.trim());
        let gone = || std::fs::read_to_string(&state).map_or(true, |stat| stat.contains(") Z "));
        assert!(!gone());
        drop(held);
        let ended = async {
            while !gone() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(LIMIT, ended).await.unwrap();
    }

    #[tokio::test]
    async fn a_lock_lasts_until_it_is_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let lock = logind(dir.path()).delay("Kubelet needs time").await.unwrap();
        ends_with(&dir.path().join("holder"), lock).await;
    }

    #[tokio::test]
    async fn what_listens_ends_when_its_pipe_does_as_it_does_when_we_are_killed() {
        let dir = tempfile::tempdir().unwrap();
        let logind = logind(dir.path());
        let file = dir.path().join("listener");
        let script = format!(
            "#!/bin/sh\necho $$ > {}\necho Member=PrepareForShutdown\necho 'BOOLEAN true;'\nexec sleep 1000\n",
            file.display()
        );
        std::fs::write(dir.path().join("busctl"), script).unwrap();
        let mut shutdowns = logind.shutdowns().await.unwrap();
        assert_eq!(shutdowns.next().await, Some(true));
        ends_with(&file, shutdowns).await;
    }

    #[tokio::test]
    async fn delays_are_read_and_raised() {
        let dir = tempfile::tempdir().unwrap();
        let logind = logind(dir.path());
        assert_eq!(logind.longest_delay().await.unwrap(), Duration::from_secs(5));
        logind.set_longest_delay(Duration::from_secs(30)).await.unwrap();
        let text = std::fs::read_to_string(dir.path().join("logind.conf.d/99-kubelet.conf")).unwrap();
        assert!(text.ends_with("[Login]\nInhibitDelayMaxSec=30\n"), "{text}");
        let called = std::fs::read_to_string(dir.path().join("called")).unwrap();
        assert!(called.ends_with("KillUnit ssi systemd-logind.service all 1\n"), "{called}");
    }

    #[tokio::test]
    async fn shutdowns_are_heard_until_the_bus_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let mut shutdowns = logind(dir.path()).shutdowns().await.unwrap();
        let heard = [shutdowns.next().await, shutdowns.next().await, shutdowns.next().await];
        assert_eq!(heard, [Some(true), Some(false), None]);
    }

    #[tokio::test]
    async fn a_machine_without_logind_says_so() {
        let nothing = RealLogind::new(Arc::new(RealProcesses::new(Vec::new())));
        assert!(matches!(nothing.delay("").await, Err(LogindError::Program(ProcessError::NotFound { .. }))));
        assert!(matches!(nothing.shutdowns().await, Err(LogindError::Program(_))));
    }
}
