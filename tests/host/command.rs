//! Commands that a test waits for, but not for ever.

use std::io::Read;
use std::process::{Command, ExitStatus, Output, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// More than any command inside a node is told to wait by itself.
pub const LIMIT: Duration = Duration::from_secs(660);

/// Which output of the command, and what it printed there; nothing at its end.
type Printed = (usize, Option<Vec<u8>>);

/// Runs a command to its end.
///
/// # Errors
/// It took longer than `limit` and was killed: what it had printed by then.
pub fn finish(command: &mut Command, limit: Duration) -> Result<Output, Output> {
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let (sender, printed) = mpsc::channel();
    follow(0, child.stdout.take().unwrap(), sender.clone());
    follow(1, child.stderr.take().unwrap(), sender);
    let (begun, mut texts, mut open) = (Instant::now(), [Vec::new(), Vec::new()], 2);
    while open > 0 {
        match printed.recv_timeout(limit.saturating_sub(begun.elapsed())) {
            Ok((which, Some(more))) => texts[which].extend(more),
            Ok((_, None)) => open -= 1,
            Err(_) => break,
        }
    }
    let in_time = open == 0;
    if !in_time {
        // The child may be nsenter, which waits for the process inside.
        for pid in super::children(child.id()).split_whitespace().filter_map(|pid| pid.parse().ok()) {
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::SIGKILL).ok();
        }
        child.kill().ok();
    }
    let status: ExitStatus = child.wait().unwrap();
    let [stdout, stderr] = texts;
    let output = Output { status, stdout, stderr };
    if in_time { Ok(output) } else { Err(output) }
}

fn follow(which: usize, mut pipe: impl Read + Send + 'static, sender: mpsc::Sender<Printed>) {
    std::thread::spawn(move || {
        let mut buffer = [0; 8192];
        loop {
            let read = pipe.read(&mut buffer).unwrap_or(0);
            let more = (read > 0).then(|| buffer[..read].to_vec());
            if sender.send((which, more)).is_err() || read == 0 {
                return;
            }
        }
    });
}

#[test]
fn a_command_that_hangs_is_ended_and_what_it_said_is_shown() {
    let shell = |script: &str| {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    };
    let ended = finish(&mut shell("echo out; echo err >&2; exit 3"), LIMIT).unwrap();
    assert_eq!(
        (ended.status.code(), &*ended.stdout, &*ended.stderr),
        (Some(3), &b"out\n"[..], &b"err\n"[..])
    );
    for script in ["echo begun; exec sleep 1000", "echo begun; sleep 1000; echo never"] {
        let begun = Instant::now();
        let hung = finish(&mut shell(script), Duration::from_secs(1)).unwrap_err();
        assert_eq!((&*hung.stdout, hung.status.code()), (&b"begun\n"[..], None));
        assert!(begun.elapsed() < Duration::from_secs(30));
    }
}
