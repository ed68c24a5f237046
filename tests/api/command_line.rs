//! What an operator sees of a start that cannot work: one line that says what to do, exit code 1, nothing half-made.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

/// Runs `kube-lite`, behind a prefix of words, with directories that a test has to itself. Should it start after all, it
/// is ended.
fn run(prefix: &[&str], dir: &Path, arguments: &[&str]) -> Output {
    let place = |name: &str| dir.join(name).display().to_string();
    Command::new("timeout")
        .arg("30")
        .args(prefix)
        .arg(env!("CARGO_BIN_EXE_kube-lite"))
        .args(arguments)
        .args(["--data-dir", &place("data"), "--run-dir", &place("run"), "--pod-log-dir", &place("logs")])
        .env_remove("RUST_LOG")
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

/// It ended with code 1 and one line with all of the words, and made nothing.
fn refused(dir: &Path, output: &Output, words: &[&str]) {
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{told}");
    let lines: Vec<_> = told.lines().filter(|line| line.starts_with("kube-lite: ")).collect();
    assert_eq!((lines.len(), told.lines().count()), (1, 1), "one line: {told}");
    for word in words {
        assert!(lines[0].contains(word), "{word} is not in {told}");
    }
    let made: Vec<_> =
        ["data", "run", "logs", "kube-lite.yaml"].iter().filter(|name| dir.join(name).exists()).collect();
    assert!(made.is_empty(), "{made:?} was made");
}

fn empty() -> (TempDir, String) {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("config.yaml");
    std::fs::write(&config, "").unwrap();
    let config = config.display().to_string();
    (dir, config)
}

#[test]
fn used_port_is_named_with_its_flag() {
    let (dir, config) = empty();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let kubeconfig = dir.path().join("kube-lite.yaml").display().to_string();
    let arguments = ["server", "--disable-agent", "--config", &config, "--write-kubeconfig", &kubeconfig];
    let arguments = [&arguments[..], &["--bind-address", "127.0.0.1", "--https-listen-port", &port]].concat();
    let output = run(&[], dir.path(), &arguments);
    refused(dir.path(), &output, &[&format!("127.0.0.1:{port}"), "--https-listen-port", "another program"]);
}

#[test]
fn missing_programs_are_named() {
    if !nix::unistd::geteuid().is_root() {
        return eprintln!("skipped: not root");
    }
    let (dir, config) = empty();
    // A mount namespace in which no directory of programs holds any; `mount` itself comes from the last of them.
    let hide = "mount -t tmpfs tmpfs /usr/local && mount -t tmpfs tmpfs /usr/sbin && mount -t tmpfs tmpfs /usr/bin \
                && exec \"$@\"";
    let shell = ["--mount", "--net", "--propagation", "private", "sh", "-c", hide, "sh"];
    let output = run(&[&["unshare"], &shell[..]].concat(), dir.path(), &["server", "--config", &config]);
    refused(dir.path(), &output, &["containerd", "runc", "iptables"]);
}

#[test]
fn unreadable_and_wrong_configuration_is_named_with_its_place() {
    let (dir, config) = empty();
    let absent = dir.path().join("absent.yaml").display().to_string();
    let output = run(&[], dir.path(), &["server", "--config", &absent]);
    refused(dir.path(), &output, &["absent.yaml", "No such file"]);
    std::fs::write(&config, "https-listen-port: many\n").unwrap();
    let output = run(&[], dir.path(), &["server", "--config", &config]);
    refused(dir.path(), &output, &["https-listen-port", "many"]);
    std::fs::write(&config, "").unwrap();
    let output = run(&[], dir.path(), &["server", "--config", &config, "--cluster-cidr", "10.0.0.0/99"]);
    refused(dir.path(), &output, &["cluster-cidr", "10.0.0.0/99"]);
}

#[test]
fn agent_without_server_or_with_a_wrong_token_says_so() {
    let (dir, config) = empty();
    let output = run(&[], dir.path(), &["agent", "--config", &config]);
    refused(dir.path(), &output, &["--server is missing"]);
    let output = run(&[], dir.path(), &["agent", "--config", &config, "--server", "https://127.0.0.1:1"]);
    refused(dir.path(), &output, &["--token is missing"]);
}
