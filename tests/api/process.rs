//! `kube-lite server` as a process that is killed and started again on the same data.

use std::path::PathBuf;
use std::process::Stdio;

use kube::config::{KubeConfigOptions, Kubeconfig};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

/// A control plane alone; it ends with the test.
pub struct Process {
    child: Option<Child>,
    folder: tempfile::TempDir,
    port: u16,
    arguments: Vec<String>,
}

impl Process {
    /// Starts it and waits until it answers.
    pub async fn start(arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("config.yaml"), "").unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let arguments = arguments.iter().map(|&word| word.to_owned()).collect();
        let mut process = Self { child: None, folder, port, arguments };
        process.revive().await;
        process
    }

    /// What a server says that ends instead of answering.
    pub async fn refused(arguments: &[&str]) -> String {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("config.yaml"), "").unwrap();
        let arguments = arguments.iter().map(|&word| word.to_owned()).collect();
        let process = Self { child: None, folder, port: 0, arguments };
        let output = process.command().output().await.unwrap();
        assert!(!output.status.success());
        String::from_utf8(output.stderr).unwrap()
    }

    /// What it says when it does not start any more.
    pub async fn refuses(&mut self) -> String {
        self.kill().await;
        let output = self.command().output().await.unwrap();
        assert!(!output.status.success());
        String::from_utf8(output.stderr).unwrap()
    }

    /// Runs `kube-lite snapshot` on its data.
    pub fn snapshot(&self, action: &str, arguments: &[&str]) -> std::process::Output {
        std::process::Command::new(env!("CARGO_BIN_EXE_kube-lite"))
            .args(["snapshot", "--data-dir"])
            .arg(self.place("data"))
            .arg(action)
            .args(arguments)
            .env_remove("RUST_LOG")
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    /// A file or folder of its own.
    pub fn place(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// `kill -9`.
    pub async fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().await.unwrap();
        }
    }

    /// Has it end in order, as at the shutdown of a host.
    pub async fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let pid = nix::unistd::Pid::from_raw(child.id().expect("it runs") as i32);
            nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
            child.wait().await.unwrap();
        }
    }

    /// Starts it with the data that it had, and waits until it answers.
    pub async fn revive(&mut self) {
        let mut child = self.command().spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut told = Vec::new();
        loop {
            let line = lines.next_line().await.unwrap();
            let line = line.unwrap_or_else(|| panic!("the server ended: {told:?}"));
            if line.contains("the API server answers") {
                break;
            }
            told.push(line);
        }
        // A pipe that nobody reads would stop it.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        self.child = Some(child);
    }

    fn command(&self) -> Command {
        let mut command = Command::new("setpriv");
        command
            // Ends with the test even when the test is killed.
            .args(["--pdeathsig", "KILL", env!("CARGO_BIN_EXE_kube-lite"), "server", "--disable-agent"])
            .args(["--disable-scheduler", "--disable-controller-manager", "--bind-address", "127.0.0.1"])
            .args(["--https-listen-port", &self.port.to_string()])
            .arg("--config")
            .arg(self.place("config.yaml"))
            .arg("--data-dir")
            .arg(self.place("data"))
            .arg("--write-kubeconfig")
            .arg(self.place("kubeconfig"))
            .args(&self.arguments)
            .env_remove("RUST_LOG")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    /// Where it answers.
    pub fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    /// The administrator's kubeconfig.
    pub fn kubeconfig(&self) -> Kubeconfig {
        Kubeconfig::read_from(self.place("kubeconfig")).unwrap()
    }

    /// The administrator's client, over TLS.
    pub async fn admin(&self) -> kube::Client {
        client(self.kubeconfig()).await
    }
}

/// A client of what a kubeconfig names.
pub async fn client(kubeconfig: Kubeconfig) -> kube::Client {
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await;
    kube::Client::try_from(config.unwrap()).unwrap()
}
