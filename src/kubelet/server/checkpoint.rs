//! Writes a checkpoint of a running container below the kubelet's root, where the runtime can do that.

use std::path::Path;
use std::time::Duration;

use axum::body::Body;
use http::{Method, Request, Response, StatusCode};
use jiff::Timestamp;
use serde_json::json;

use super::containers::{self, Names, Unavailable};
use super::routes::parameters;
use super::{Sources, json as json_answer, refusal};
use crate::kubelet::spec;

/// Answers with the file that holds the checkpoint.
pub(super) async fn answer<B>(request: &Request<B>, sources: &Sources, names: Names<'_>) -> Response<Body> {
    if request.method() != Method::POST {
        return refusal(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed");
    }
    match write(request.uri().query(), sources, names).await {
        Ok(file) => json_answer(&json!({"items": [file]})),
        Err(Unavailable { code, why }) => refusal(code, &why),
    }
}

async fn write(query: Option<&str>, sources: &Sources, names: Names<'_>) -> Result<String, Unavailable> {
    let (namespace, pod, container) = names;
    let missing = |what: String| Unavailable::new(StatusCode::NOT_FOUND, what);
    let known = sources.pods.find(namespace, pod).ok_or_else(|| missing("pod does not exist".to_owned()))?;
    if spec::find_container(&known, container).is_none() {
        return Err(missing(format!("container {container} does not exist")));
    }
    let timeout = match parameters(query).into_iter().find(|(name, _)| name == "timeout") {
        Some((_, seconds)) => seconds.parse().map(Duration::from_secs).map_err(|_| {
            Unavailable::new(StatusCode::INTERNAL_SERVER_ERROR, "cannot parse value of timeout parameter")
        })?,
        None => Duration::ZERO,
    };
    let failed = |why: &dyn std::fmt::Display| {
        let why = format!("checkpointing of {namespace}/{pod}/{container} failed ({why})");
        Unavailable::new(StatusCode::INTERNAL_SERVER_ERROR, why)
    };
    let running =
        containers::find_running(sources, names).await.map_err(|Unavailable { why, .. }| failed(&why))?;
    let directory = sources.root_dir.join("checkpoints");
    make_private(&directory).map_err(|error| failed(&error))?;
    let file = directory.join(file_name(names, sources.host.clock.now()));
    let file = file.display().to_string();
    match sources.runtime.checkpoint_container(&running.id, &file, timeout).await {
        Ok(()) => Ok(file),
        Err(error) if error.is_unimplemented() => Err(missing(error.upstream_message())),
        Err(error) => Err(failed(&error.upstream_message())),
    }
}

/// What was in a container's memory is nobody else's business.
fn make_private(directory: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)
}

fn file_name((namespace, pod, container): Names<'_>, now: Timestamp) -> String {
    format!("checkpoint-{pod}_{namespace}-{container}-{}.tar", now.strftime("%Y-%m-%dT%H:%M:%SZ"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cri::CriError;
    use crate::cri::fake::FakeRuntime;
    use crate::host::fake::FakeHost;
    use crate::kubelet::labels;
    use crate::kubelet::pods::fixture;
    use crate::kubelet::server::test_sources;

    #[tokio::test]
    async fn the_runtime_writes_what_the_answer_names() {
        let (runtime, host, dir) = (FakeRuntime::new(), FakeHost::default(), tempfile::tempdir().unwrap());
        let pod = fixture::pod(json!({"containers": [{"name": "a", "image": "img:1"}]}));
        let labels = [(labels::POD_UID, "u1"), (labels::CONTAINER_NAME, "a")];
        fixture::running_with(&runtime, &labels).await;
        let sources = test_sources(&runtime, &host, dir.path(), vec![pod]);
        let ask = |method: Method, query: &str, container: &'static str| {
            let request = Request::builder().method(method).uri(format!("/x{query}")).body(()).unwrap();
            let sources = sources.clone();
            async move {
                let answer = answer(&request, &sources, ("default", "web", container)).await;
                let status = answer.status();
                let body = axum::body::to_bytes(answer.into_body(), 10_000).await.unwrap();
                (status.as_u16(), String::from_utf8(body.to_vec()).unwrap())
            }
        };
        let (code, body) = ask(Method::POST, "?timeout=5", "a").await;
        let file = dir.path().join("checkpoints/checkpoint-web_default-a-2026-01-01T00:00:00Z.tar");
        assert_eq!((code, body), (200, json!({"items": [file]}).to_string()));
        assert_eq!(ask(Method::GET, "", "a").await.0, 405);
        assert_eq!(ask(Method::POST, "", "b").await, (404, "container b does not exist\n".to_owned()));
        assert_eq!(ask(Method::POST, "?timeout=x", "a").await.0, 500);
        for (code, want) in [(tonic::Code::Unimplemented, 404), (tonic::Code::Internal, 500)] {
            runtime.fail_next("CheckpointContainer", CriError::rpc("CheckpointContainer", code, "no"));
            assert_eq!(ask(Method::POST, "", "a").await.0, want, "{code}");
        }
    }
}
