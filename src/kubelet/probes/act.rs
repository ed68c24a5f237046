//! Performs a probe or a lifecycle hook once.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, LifecycleHandler, Probe};
use tokio::net::TcpStream;

use super::http::Ports;
use super::track::Outcome;
use super::{grpc, http};
use crate::cri::Runtime;
use crate::kubelet::pods::plan::go_duration;

/// Most of a probe's output that an event carries.
const MAX_OUTPUT: usize = 10 * 1024;
/// How long the server of an HTTP hook may take.
const HOOK_LIMIT: Duration = Duration::from_secs(30);

/// The container that is probed.
#[derive(Clone)]
pub struct Target {
    /// Where commands run.
    pub runtime: Arc<dyn Runtime>,
    /// The runtime's id.
    pub container_id: String,
    /// Its name.
    pub name: String,
    /// Its ports that have names.
    pub ports: Ports,
    /// Address of the pod.
    pub pod_ip: String,
}

impl Target {
    /// The container of this definition. Probes live as long as it does, so no more than they need is kept of that.
    pub fn new(runtime: &Arc<dyn Runtime>, id: &str, definition: &Container, pod_ip: String) -> Self {
        let ports = definition.ports.iter().flatten();
        Self {
            runtime: runtime.clone(),
            container_id: id.to_owned(),
            name: definition.name.clone(),
            ports: ports.filter_map(|p| Some((p.name.clone()?, p.container_port))).collect(),
            pod_ip,
        }
    }
}

/// Performs the probe once.
pub async fn probe(target: &Target, probe: &Probe) -> Outcome {
    let seconds = u64::try_from(probe.timeout_seconds.unwrap_or(1)).unwrap_or(1).max(1);
    let timeout = Duration::from_secs(seconds);
    if let Some(action) = &probe.exec {
        return exec(target, action.command.as_deref().unwrap_or_default(), timeout).await;
    }
    if let Some(action) = &probe.http_get {
        let headers = action.http_headers.as_deref().unwrap_or_default();
        return match http::url(action, &target.ports, &target.pod_ip) {
            Some(url) => http::probe(url, headers, timeout).await,
            None => Outcome::Unknown("invalid port number".to_owned()),
        };
    }
    if let Some(action) = &probe.tcp_socket {
        let host = action.host.as_deref().filter(|h| !h.is_empty()).unwrap_or(&target.pod_ip);
        return match http::port_number(&action.port, &target.ports) {
            Some(port) => tcp(host, port, timeout).await,
            None => Outcome::Unknown("invalid port number".to_owned()),
        };
    }
    if let Some(action) = &probe.grpc {
        let service = action.service.as_deref().unwrap_or_default();
        return match u16::try_from(action.port) {
            Ok(port) => grpc::probe(&target.pod_ip, port, service, timeout).await,
            Err(_) => Outcome::Unknown("invalid port number".to_owned()),
        };
    }
    Outcome::Unknown("missing probe handler".to_owned())
}

async fn exec(target: &Target, command: &[String], timeout: Duration) -> Outcome {
    match target.runtime.exec_sync(&target.container_id, command, timeout).await {
        Ok(answer) if answer.exit_code == 0 => Outcome::Success,
        Ok(answer) => {
            let mut text = String::from_utf8_lossy(&answer.stdout).into_owned();
            text.push_str(&String::from_utf8_lossy(&answer.stderr));
            let cut = text.char_indices().nth(MAX_OUTPUT).map_or(text.len(), |(i, _)| i);
            text.truncate(cut);
            Outcome::Failure(text)
        }
        Err(error) if error.code() == tonic::Code::DeadlineExceeded => Outcome::Failure(format!(
            "command timed out: \"{}\" timed out after {}",
            command.join(" "),
            go_duration(timeout)
        )),
        Err(error) => Outcome::Unknown(error.upstream_message()),
    }
}

async fn tcp(host: &str, port: u16, timeout: Duration) -> Outcome {
    match tokio::time::timeout(timeout, TcpStream::connect((host, port))).await {
        Ok(Ok(_)) => Outcome::Success,
        Ok(Err(error)) => {
            let text = error.to_string();
            let text = text.split(" (os error").next().unwrap_or_default().to_lowercase();
            Outcome::Failure(format!("dial tcp {host}:{port}: connect: {text}"))
        }
        Err(_) => Outcome::Failure(format!("dial tcp {host}:{port}: i/o timeout")),
    }
}

/// Why a hook failed.
#[derive(Debug)]
pub struct HookError {
    /// What happened.
    pub text: String,
    /// What its command wrote.
    pub output: String,
}

impl From<String> for HookError {
    fn from(text: String) -> Self {
        Self { text, output: String::new() }
    }
}

/// Runs a postStart or preStop handler to its end.
pub async fn hook(target: &Target, handler: &LifecycleHandler) -> Result<(), HookError> {
    if let Some(action) = &handler.exec {
        let command = action.command.clone().unwrap_or_default();
        let answer = target.runtime.exec_sync(&target.container_id, &command, Duration::ZERO).await;
        return match answer {
            Ok(answer) if answer.exit_code == 0 => Ok(()),
            Ok(answer) => {
                let errors = String::from_utf8_lossy(&answer.stderr);
                Err(HookError {
                    text: format!(
                        "command '{}' exited with {}: {errors}",
                        command.join(" "),
                        answer.exit_code
                    ),
                    output: format!("{}{errors}", String::from_utf8_lossy(&answer.stdout)),
                })
            }
            Err(error) => Err(error.upstream_message().into()),
        };
    }
    if let Some(action) = &handler.sleep {
        let seconds = u64::try_from(action.seconds).unwrap_or(0);
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        return Ok(());
    }
    if let Some(action) = &handler.http_get {
        let headers = action.http_headers.as_deref().unwrap_or_default();
        let url = http::url(action, &target.ports, &target.pod_ip)
            .ok_or_else(|| "invalid port number".to_owned())?;
        return Ok(http::call(url, headers, HOOK_LIMIT).await?);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cri::{CriError, fake::FakeRuntime, v1};
    use serde_json::json;

    async fn target(runtime: &FakeRuntime) -> Target {
        let id = crate::kubelet::pods::fixture::running_in(runtime).await;
        let runtime: Arc<dyn Runtime> = Arc::new(runtime.clone());
        Target::new(&runtime, &id, &Container::default(), "127.0.0.1".into())
    }

    fn exec_probe() -> Probe {
        serde_json::from_value(json!({"exec": {"command": ["check", "me"]}})).unwrap()
    }

    #[tokio::test]
    async fn a_commands_exit_code_decides() {
        let runtime = FakeRuntime::new();
        for (code, want) in [(0, Outcome::Success), (1, Outcome::Failure("outerr".into()))] {
            runtime.on_exec(move |_, _| {
                Ok(v1::ExecSyncResponse { stdout: b"out".to_vec(), stderr: b"err".to_vec(), exit_code: code })
            });
            let probe_spec = exec_probe();
            assert_eq!(probe(&target(&runtime).await, &probe_spec).await, want);
        }
        runtime.on_exec(|_, _| Err(CriError::rpc("ExecSync", tonic::Code::DeadlineExceeded, "x")));
        let got = probe(&target(&runtime).await, &exec_probe()).await;
        assert_eq!(got, Outcome::Failure("command timed out: \"check me\" timed out after 1s".into()));
    }

    #[tokio::test]
    async fn an_open_port_is_healthy() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let spec: Probe = serde_json::from_value(json!({"tcpSocket": {"port": port}})).unwrap();
        assert_eq!(probe(&target(&FakeRuntime::new()).await, &spec).await, Outcome::Success);
        drop(listener);
        let got = probe(&target(&FakeRuntime::new()).await, &spec).await;
        assert!(matches!(got, Outcome::Failure(text) if text.ends_with("connection refused")));
    }

    #[tokio::test(start_paused = true)]
    async fn hooks_sleep_and_fail_with_words() {
        let runtime = FakeRuntime::new();
        let sleep: LifecycleHandler = serde_json::from_value(json!({"sleep": {"seconds": 5}})).unwrap();
        let begun = tokio::time::Instant::now();
        hook(&target(&runtime).await, &sleep).await.unwrap();
        assert_eq!(begun.elapsed(), Duration::from_secs(5));
        runtime.on_exec(|_, _| Ok(v1::ExecSyncResponse { exit_code: 2, ..Default::default() }));
        let exec: LifecycleHandler = serde_json::from_value(json!({"exec": {"command": ["x"]}})).unwrap();
        assert!(
            hook(&target(&runtime).await, &exec)
                .await
                .unwrap_err()
                .text
                .starts_with("command 'x' exited with 2")
        );
    }
}
