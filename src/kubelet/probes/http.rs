//! HTTP GET for probes and lifecycle hooks: short, without keep-alive, without verifying certificates.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::{HTTPGetAction, HTTPHeader};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::track::Outcome;
use crate::pki::unverified_client;

const MAX_BODY: usize = 10 * 1024;
const MAX_REDIRECTS: usize = 10;
const PROBE: &str = "kube-probe/1.36";
const LIFECYCLE: &str = "kube-lifecycle/1.36";

/// A container's ports that have names.
pub type Ports = Vec<(String, i32)>;

/// Number of a port that is given by number or by a container port's name.
pub fn port_number(port: &IntOrString, ports: &[(String, i32)]) -> Option<u16> {
    let number = match port {
        IntOrString::Int(n) => *n,
        IntOrString::String(name) => match name.parse() {
            Ok(n) => n,
            Err(_) => ports.iter().find(|(own, _)| own == name).map(|(_, port)| *port)?,
        },
    };
    u16::try_from(number).ok().filter(|n| *n > 0)
}

/// The URL of an action, for a pod with this address.
pub fn url(action: &HTTPGetAction, ports: &[(String, i32)], pod_ip: &str) -> Option<Uri> {
    let port = port_number(&action.port, ports)?;
    let scheme = action.scheme.as_deref().unwrap_or("HTTP").to_lowercase();
    let host = action.host.as_deref().filter(|h| !h.is_empty()).unwrap_or(pod_ip);
    let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    let path = action.path.as_deref().filter(|p| !p.is_empty()).unwrap_or("/");
    let slash = if path.starts_with('/') { "" } else { "/" };
    format!("{scheme}://{host}:{port}{slash}{path}").parse().ok()
}

/// Performs the action as a probe.
pub async fn probe(uri: Uri, headers: &[HTTPHeader], timeout: Duration) -> Outcome {
    let attempt = tokio::time::timeout(timeout, get_following(uri.clone(), headers));
    match attempt.await {
        Err(_) => Outcome::Failure(format!(
            "Get \"{uri}\": context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
        )),
        Ok(Err(error)) => Outcome::Failure(format!("Get \"{uri}\": {error}")),
        Ok(Ok(Answer { status, .. })) if status.is_success() => Outcome::Success,
        Ok(Ok(Answer { status, body, .. })) if status.is_redirection() => {
            Outcome::Warning(format!("Probe terminated redirects, Response body: {body}"))
        }
        Ok(Ok(Answer { status, .. })) => {
            Outcome::Failure(format!("HTTP probe failed with statuscode: {}", status.as_u16()))
        }
    }
}

/// Performs the action as a lifecycle hook: any answer will do. A server that does not speak TLS where HTTPS is asked
/// for is called without.
pub async fn call(uri: Uri, headers: &[HTTPHeader], timeout: Duration) -> Result<(), String> {
    let call = async {
        let answer = get(&uri, headers, LIFECYCLE).await;
        match (answer, without_tls(&uri)) {
            (Err(error), Some(plain)) if error.contains(NOT_TLS) => {
                let kept = headers.iter().filter(|h| !h.name.eq_ignore_ascii_case("authorization"));
                get(&plain, &kept.cloned().collect::<Vec<_>>(), LIFECYCLE).await.map(drop)
            }
            (answer, _) => answer.map(drop),
        }
    };
    let late = |_| format!("Get \"{uri}\": context deadline exceeded");
    tokio::time::timeout(timeout, call).await.map_err(late)?
}

/// What the TLS library says of an answer that is none of TLS.
const NOT_TLS: &str = "corrupt message";

fn without_tls(uri: &Uri) -> Option<Uri> {
    uri.to_string().strip_prefix("https://").and_then(|rest| format!("http://{rest}").parse().ok())
}

/// What a server said.
struct Answer {
    status: StatusCode,
    location: Option<String>,
    body: String,
}

/// Follows redirects on the same host; one that leads elsewhere counts as an answer.
async fn get_following(mut uri: Uri, headers: &[HTTPHeader]) -> Result<Answer, String> {
    for _ in 0..MAX_REDIRECTS {
        let answer = get(&uri, headers, PROBE).await?;
        let location = answer.location.as_ref().filter(|_| answer.status.is_redirection());
        let Some(next) = location.and_then(|l| resolve(&uri, l)) else {
            return Ok(answer);
        };
        if next.host() != uri.host() {
            return Ok(answer);
        }
        uri = next;
    }
    Err(format!("stopped after {MAX_REDIRECTS} redirects"))
}

fn resolve(base: &Uri, location: &str) -> Option<Uri> {
    if location.contains("://") {
        return location.parse().ok();
    }
    let path = if location.starts_with('/') { location.to_owned() } else { format!("/{location}") };
    format!("{}://{}{path}", base.scheme_str()?, base.authority()?).parse().ok()
}

async fn get(uri: &Uri, headers: &[HTTPHeader], agent: &str) -> Result<Answer, String> {
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
    let tls = uri.scheme_str() == Some("https");
    let port = uri.port_u16().unwrap_or(if tls { 443 } else { 80 });
    let stream = TcpStream::connect((host.as_str(), port))
        .await
        .map_err(|e| format!("dial tcp {host}:{port}: connect: {}", plain(&e)))?;
    if !tls {
        return exchange(stream, uri, headers, agent).await;
    }
    let name = ServerName::try_from(host).map_err(|e| e.to_string())?;
    let connector = tokio_rustls::TlsConnector::from(Arc::new(unverified_client()));
    let stream = connector.connect(name, stream).await.map_err(|e| e.to_string())?;
    exchange(stream, uri, headers, agent).await
}

/// The system's words without the number that Rust adds.
fn plain(error: &std::io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_lowercase()
}

async fn exchange<S>(stream: S, uri: &Uri, headers: &[HTTPHeader], agent: &str) -> Result<Answer, String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| e.to_string())?;
    let request = request(uri, headers, agent)?;
    let answer = async {
        let response = sender.send_request(request).await.map_err(|e| e.to_string())?;
        let status = response.status();
        let location = response.headers().get(header::LOCATION);
        let location = location.and_then(|l| l.to_str().ok()).map(str::to_owned);
        // The body is read so that the server sees an orderly end; what is too long does not matter.
        let body = Limited::new(response.into_body(), MAX_BODY).collect().await;
        let body = body.map(|b| String::from_utf8_lossy(&b.to_bytes()).into_owned()).unwrap_or_default();
        Ok(Answer { status, location, body })
    };
    tokio::pin!(answer);
    tokio::pin!(connection);
    tokio::select! {
        answer = &mut answer => answer,
        ended = &mut connection => match ended {
            Ok(()) => answer.await,
            Err(error) => Err(error.to_string()),
        },
    }
}

fn request(uri: &Uri, headers: &[HTTPHeader], agent: &str) -> Result<Request<Empty<Bytes>>, String> {
    let path = uri.path_and_query().map_or("/", |p| p.as_str());
    let has = |name: &str| headers.iter().any(|h| h.name.eq_ignore_ascii_case(name));
    let mut builder = Request::builder().method(Method::GET).uri(path).header(header::CONNECTION, "close");
    if !has("host") {
        builder = builder.header(header::HOST, uri.authority().map_or("", |a| a.as_str()));
    }
    if !has("user-agent") {
        builder = builder.header(header::USER_AGENT, agent);
    }
    if !has("accept") {
        builder = builder.header(header::ACCEPT, "*/*");
    }
    for h in headers.iter().filter(|h| !h.value.is_empty()) {
        builder = builder.header(&h.name, &h.value);
    }
    builder.body(Empty::new()).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    async fn answering(answers: Vec<&'static str>) -> (u16, tokio::task::JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let task = tokio::spawn(async move {
            let mut seen = Vec::new();
            for answer in answers {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut buffer = vec![0; 4096];
                let n = stream.read(&mut buffer).await.unwrap();
                seen.push(String::from_utf8_lossy(&buffer[..n]).into_owned());
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
            seen
        });
        (port, task)
    }

    async fn probed(answers: Vec<&'static str>, path: &str) -> (Outcome, Vec<String>) {
        let (port, task) = answering(answers).await;
        let uri = format!("http://127.0.0.1:{port}{path}").parse().unwrap();
        let header = HTTPHeader { name: "X-Own".into(), value: "v".into() };
        let outcome = probe(uri, &[header], Duration::from_secs(5)).await;
        (outcome, task.await.unwrap())
    }

    #[tokio::test]
    async fn two_and_three_hundreds_succeed() {
        let (outcome, seen) =
            probed(vec!["HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"], "/healthz?x=1").await;
        assert_eq!(outcome, Outcome::Success);
        assert!(seen[0].starts_with("GET /healthz?x=1 HTTP/1.1\r\n") && seen[0].contains("x-own: v"));
        assert!(seen[0].contains("kube-probe/"));
        let (outcome, _) = probed(vec!["HTTP/1.1 500 Oops\r\ncontent-length: 0\r\n\r\n"], "/").await;
        assert_eq!(outcome, Outcome::Failure("HTTP probe failed with statuscode: 500".into()));
    }

    #[tokio::test]
    async fn local_redirects_are_followed() {
        let (outcome, seen) = probed(
            vec![
                "HTTP/1.1 302 Found\r\nlocation: /bad\r\ncontent-length: 0\r\n\r\n",
                "HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n",
            ],
            "/",
        )
        .await;
        assert_eq!(outcome, Outcome::Failure("HTTP probe failed with statuscode: 503".into()));
        assert!(seen[1].starts_with("GET /bad "));
        let elsewhere = "HTTP/1.1 302 Found\r\nlocation: http://other.example/\r\ncontent-length: 0\r\n\r\n";
        let warning = "Probe terminated redirects, Response body: ";
        assert_eq!(probed(vec![elsewhere], "/").await.0, Outcome::Warning(warning.into()));
    }

    #[tokio::test]
    async fn hooks_take_any_answer_and_plain_http_where_https_was_asked() {
        const OOPS: &str = "HTTP/1.1 500 Oops\r\ncontent-length: 0\r\n\r\n";
        let (port, task) = answering(vec![OOPS]).await;
        let uri = format!("http://127.0.0.1:{port}/bye").parse().unwrap();
        call(uri, &[], Duration::from_secs(5)).await.unwrap();
        assert!(task.await.unwrap()[0].contains("kube-lifecycle/"));
        let (port, task) = answering(vec!["HTTP/1.1 400 Bad Request\r\n\r\n", OOPS]).await;
        let uri = format!("https://127.0.0.1:{port}/bye").parse().unwrap();
        let token = HTTPHeader { name: "Authorization".into(), value: "secret".into() };
        call(uri, &[token], Duration::from_secs(5)).await.unwrap();
        let plain = &task.await.unwrap()[1];
        assert!(plain.starts_with("GET /bye ") && !plain.contains("secret"), "{plain}");
    }

    #[tokio::test]
    async fn a_closed_port_says_so() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let uri = format!("http://127.0.0.1:{port}/").parse().unwrap();
        let Outcome::Failure(text) = probe(uri, &[], Duration::from_secs(5)).await else {
            panic!("no failure")
        };
        assert!(text.ends_with("connect: connection refused"), "{text}");
    }

    #[test]
    fn ports_and_urls() {
        let ports = [("web".to_owned(), 8080)];
        let action = |json| serde_json::from_value::<HTTPGetAction>(json).unwrap();
        let text = |json| url(&action(json), &ports, "10.0.0.1").map(|u| u.to_string());
        assert_eq!(text(serde_json::json!({"port": "web", "path": "h"})).unwrap(), "http://10.0.0.1:8080/h");
        assert_eq!(
            text(serde_json::json!({"port": 1, "scheme": "HTTPS", "host": "x"})).unwrap(),
            "https://x:1/"
        );
        assert_eq!(text(serde_json::json!({"port": "none"})), None);
    }
}
