//! HTTP GET for probes and lifecycle hooks: short, without keep-alive, without verifying certificates.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::{Container, HTTPGetAction, HTTPHeader};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::track::Outcome;

const MAX_BODY: usize = 10 * 1024;
const MAX_REDIRECTS: usize = 10;
const USER_AGENT: &str = "kube-probe/1.36";

/// Number of a port that is given by number or by a container port's name.
pub fn port_number(port: &IntOrString, container: &Container) -> Option<u16> {
    let number = match port {
        IntOrString::Int(n) => *n,
        IntOrString::String(name) => match name.parse() {
            Ok(n) => n,
            Err(_) => {
                let ports = container.ports.iter().flatten();
                ports.filter(|p| p.name.as_deref() == Some(name)).map(|p| p.container_port).next()?
            }
        },
    };
    u16::try_from(number).ok().filter(|n| *n > 0)
}

/// The URL of an action, for a pod with this address.
pub fn url(action: &HTTPGetAction, container: &Container, pod_ip: &str) -> Option<Uri> {
    let port = port_number(&action.port, container)?;
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
        Ok(Ok(status)) if (200..400).contains(&status.as_u16()) => Outcome::Success,
        Ok(Ok(status)) => Outcome::Failure(format!("HTTP probe failed with statuscode: {}", status.as_u16())),
    }
}

/// Follows redirects on the same host; one that leads elsewhere counts as an answer.
async fn get_following(mut uri: Uri, headers: &[HTTPHeader]) -> Result<StatusCode, String> {
    for _ in 0..MAX_REDIRECTS {
        let (status, location) = get(&uri, headers).await?;
        let Some(next) = location.filter(|_| status.is_redirection()).and_then(|l| resolve(&uri, &l)) else {
            return Ok(status);
        };
        if next.host() != uri.host() {
            return Ok(status);
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

async fn get(uri: &Uri, headers: &[HTTPHeader]) -> Result<(StatusCode, Option<String>), String> {
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
    let tls = uri.scheme_str() == Some("https");
    let port = uri.port_u16().unwrap_or(if tls { 443 } else { 80 });
    let stream = TcpStream::connect((host.as_str(), port))
        .await
        .map_err(|e| format!("dial tcp {host}:{port}: connect: {}", plain(&e)))?;
    if !tls {
        return exchange(stream, uri, headers).await;
    }
    let name = ServerName::try_from(host).map_err(|e| e.to_string())?;
    let connector = tokio_rustls::TlsConnector::from(Arc::new(unverified()));
    let stream = connector.connect(name, stream).await.map_err(|e| e.to_string())?;
    exchange(stream, uri, headers).await
}

/// The system's words without the number that Rust adds.
fn plain(error: &std::io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_lowercase()
}

async fn exchange<S>(
    stream: S,
    uri: &Uri,
    headers: &[HTTPHeader],
) -> Result<(StatusCode, Option<String>), String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| e.to_string())?;
    let request = request(uri, headers)?;
    let answer = async {
        let response = sender.send_request(request).await.map_err(|e| e.to_string())?;
        let status = response.status();
        let location = response.headers().get(header::LOCATION);
        let location = location.and_then(|l| l.to_str().ok()).map(str::to_owned);
        // The body is read so that the server sees an orderly end; what it says does not matter.
        drop(Limited::new(response.into_body(), MAX_BODY).collect().await);
        Ok((status, location))
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

fn request(uri: &Uri, headers: &[HTTPHeader]) -> Result<Request<Empty<Bytes>>, String> {
    let path = uri.path_and_query().map_or("/", |p| p.as_str());
    let has = |name: &str| headers.iter().any(|h| h.name.eq_ignore_ascii_case(name));
    let mut builder = Request::builder().method(Method::GET).uri(path).header(header::CONNECTION, "close");
    if !has("host") {
        builder = builder.header(header::HOST, uri.authority().map_or("", |a| a.as_str()));
    }
    if !has("user-agent") {
        builder = builder.header(header::USER_AGENT, USER_AGENT);
    }
    if !has("accept") {
        builder = builder.header(header::ACCEPT, "*/*");
    }
    for h in headers.iter().filter(|h| !h.value.is_empty()) {
        builder = builder.header(&h.name, &h.value);
    }
    builder.body(Empty::new()).map_err(|e| e.to_string())
}

/// Probes go to addresses of pods, whose certificates nobody can check.
fn unverified() -> rustls::ClientConfig {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let schemes = provider.signature_verification_algorithms.supported_schemes();
    rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider supports the default versions")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AcceptAny(schemes)))
        .with_no_client_auth()
}

#[derive(Debug)]
struct AcceptAny(Vec<rustls::SignatureScheme>);

impl rustls::client::danger::ServerCertVerifier for AcceptAny {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.clone()
    }
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
        assert_eq!(probed(vec![elsewhere], "/").await.0, Outcome::Success);
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
        let container: Container = serde_json::from_value(serde_json::json!({
            "name": "a", "ports": [{"name": "web", "containerPort": 8080}]}))
        .unwrap();
        let action = |json| serde_json::from_value::<HTTPGetAction>(json).unwrap();
        let text = |json| url(&action(json), &container, "10.0.0.1").map(|u| u.to_string());
        assert_eq!(text(serde_json::json!({"port": "web", "path": "h"})).unwrap(), "http://10.0.0.1:8080/h");
        assert_eq!(
            text(serde_json::json!({"port": 1, "scheme": "HTTPS", "host": "x"})).unwrap(),
            "https://x:1/"
        );
        assert_eq!(text(serde_json::json!({"port": "none"})), None);
    }
}
