//! The official Python client against a server on loopback: it speaks JSON, and reads discovery its own way.

use std::path::Path;

use tokio::process::Command;

use crate::server::TestServer;

/// Where `.ci/run` installs the client.
const PYTHON: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/python/bin/python");
const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/api/client.py");

#[tokio::test]
async fn the_python_client_works() {
    if !Path::new(PYTHON).exists() {
        let in_ci = std::env::var_os("CI").is_some_and(|value| value == "true");
        assert!(!in_ci, "{PYTHON} is missing: .ci/run makes it");
        println!(
            "skipped: no Python client; python3 -m venv target/python && target/python/bin/pip install kubernetes"
        );
        return;
    }
    let listening = TestServer::listening().await;
    let output = Command::new(PYTHON)
        .arg(SCRIPT)
        .env_clear()
        .env("KUBECONFIG", listening.kubeconfig())
        .env("HOME", listening.server.path())
        .kill_on_drop(true)
        .output()
        .await
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("python client: done"), "{text}");
    listening.stop().await;
}
