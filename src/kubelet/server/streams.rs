//! Exec, attach and port forwarding: the runtime has a streaming server of its own, and this one joins the client's
//! connection with it byte for byte, whatever protocol the two speak on it.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use http::header::{CONNECTION, HOST, HeaderValue, UPGRADE};
use http::{Method, Request, Response, StatusCode, Uri};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tracing::debug;

use super::containers::{self, Names, Unavailable};
use super::routes::{Stream, parameters};
use super::{Shared, Sources, refusal, text};
use crate::cri::v1;

/// How long a command of `/run` may take.
const RUN_TIMEOUT: Duration = Duration::from_secs(120);

pub(super) async fn answer(
    request: Request<Incoming>,
    shared: &Arc<Shared>,
    kind: Stream,
    names: Names<'_>,
) -> Response<Body> {
    if !request.headers().contains_key(UPGRADE) {
        return refusal(StatusCode::BAD_REQUEST, "Upgrade request required");
    }
    let joined = async {
        let url = streaming_url(&request, &shared.sources, kind, names).await?;
        join(request, &url, shared).await
    };
    joined.await.unwrap_or_else(|Unavailable { code, why }| refusal(code, &why))
}

/// Runs a command to its end and answers with what it printed.
pub(super) async fn run(request: &Request<Incoming>, sources: &Sources, names: Names<'_>) -> Response<Body> {
    if request.method() != Method::POST {
        return refusal(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed");
    }
    let pairs = parameters(request.uri().query());
    let command =
        pairs.iter().find(|(name, _)| name == "cmd").map(|(_, value)| value.as_str()).unwrap_or_default();
    let words: Vec<String> = command.split_whitespace().map(str::to_owned).collect();
    let ran = async {
        let container = containers::find_running(sources, names).await?;
        Ok::<_, Unavailable>(sources.runtime.exec_sync(&container.id, &words, RUN_TIMEOUT).await?)
    };
    match ran.await {
        Ok(output) => text([output.stdout, output.stderr].concat()),
        Err(Unavailable { code, why }) => refusal(code, &why),
    }
}

/// Where the runtime waits for this stream, for once.
async fn streaming_url(
    request: &Request<Incoming>,
    sources: &Sources,
    kind: Stream,
    names: Names<'_>,
) -> Result<String, Unavailable> {
    let pairs = parameters(request.uri().query());
    let is_set =
        |wanted: &str| pairs.iter().any(|(name, value)| name == wanted && (value == "1" || value == "true"));
    let tty = is_set("tty");
    // A terminal has one output: standard error goes the same way.
    let (stdin, stdout, stderr) = (is_set("input"), is_set("output"), is_set("error") && !tty);
    match kind {
        Stream::Exec => {
            let container_id = containers::find_running(sources, names).await?.id;
            let command = pairs.iter().filter(|(name, _)| name == "command");
            let cmd: Vec<_> = command.map(|(_, value)| value.clone()).collect();
            if cmd.is_empty() {
                return Err(Unavailable::new(StatusCode::BAD_REQUEST, "you must specify at least 1 command"));
            }
            Ok(sources
                .runtime
                .exec(v1::ExecRequest { container_id, cmd, tty, stdin, stdout, stderr })
                .await?)
        }
        Stream::Attach => {
            let container_id = containers::find_running(sources, names).await?.id;
            Ok(sources.runtime.attach(v1::AttachRequest { container_id, stdin, tty, stdout, stderr }).await?)
        }
        Stream::PortForward => {
            let pod_sandbox_id = containers::find_sandbox(sources, names.0, names.1).await?;
            let ports = pairs.iter().filter(|(name, _)| name == "port" || name == "ports");
            let numbers = ports.flat_map(|(_, value)| value.split(',')).filter_map(|port| port.parse().ok());
            let port = numbers.collect();
            Ok(sources.runtime.port_forward(v1::PortForwardRequest { pod_sandbox_id, port }).await?)
        }
    }
}

/// Repeats the upgrade towards the runtime and, once both have switched, copies both ways.
async fn join(
    mut request: Request<Incoming>,
    url: &str,
    shared: &Arc<Shared>,
) -> Result<Response<Body>, Unavailable> {
    let failed = |what: &str, error: &dyn std::fmt::Display| {
        Unavailable::new(StatusCode::BAD_GATEWAY, format!("{what} of the container runtime: {error}"))
    };
    let uri: Uri = url.parse().map_err(|error| failed("streaming address", &error))?;
    let authority = uri.authority().ok_or_else(|| failed("streaming address", &url))?.clone();
    let address = (authority.host().trim_matches(['[', ']']).to_owned(), authority.port_u16().unwrap_or(80));
    let tcp = TcpStream::connect(address).await.map_err(|error| failed("streaming server", &error))?;
    tcp.set_nodelay(true).map_err(|error| failed("streaming server", &error))?;
    let handshake = http1::handshake::<_, Body>(TokioIo::new(tcp)).await;
    let (mut sender, connection) = handshake.map_err(|error| failed("streaming server", &error))?;
    let stop = shared.stop.clone();
    shared.tasks.spawn(async move {
        if let Some(Err(error)) = stop.run_until_cancelled(connection.with_upgrades()).await {
            debug!(%error, "connection to the runtime's streaming server ended");
        }
    });
    let client = hyper::upgrade::on(&mut request);
    let forwarded = forwarded(&request, &uri).map_err(|error| failed("streaming request", &error))?;
    let mut answer =
        sender.send_request(forwarded).await.map_err(|error| failed("streaming server", &error))?;
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        let (parts, body) = answer.into_parts();
        return Ok(Response::from_parts(parts, Body::new(body)));
    }
    let runtime = hyper::upgrade::on(&mut answer);
    let stop = shared.stop.clone();
    shared.tasks.spawn(async move {
        let copy = async {
            let (client, runtime) = tokio::try_join!(client, runtime)?;
            let (mut client, mut runtime) = (TokioIo::new(client), TokioIo::new(runtime));
            tokio::io::copy_bidirectional(&mut client, &mut runtime).await?;
            anyhow::Ok(())
        };
        if let Some(Err(error)) = stop.run_until_cancelled(copy).await {
            debug!(%error, "a stream broke");
        }
    });
    let mut switched = Response::new(Body::empty());
    *switched.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    *switched.headers_mut() = answer.headers().clone();
    Ok(switched)
}

fn forwarded(request: &Request<Incoming>, uri: &Uri) -> Result<Request<Body>, http::Error> {
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let host = uri.authority().map_or("localhost", |authority| authority.as_str());
    let mut forwarded = Request::builder().method(request.method().clone()).uri(path).body(Body::empty())?;
    *forwarded.headers_mut() = request.headers().clone();
    forwarded.headers_mut().insert(HOST, HeaderValue::from_str(host)?);
    forwarded.headers_mut().insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    Ok(forwarded)
}
