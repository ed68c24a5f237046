//! Clients of an API server: a few HTTP/2 connections that many workers share, and what they measured.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;

use super::target::{Endpoint, Target};

/// Connections to one server, used in turn.
#[derive(Clone)]
pub struct Client {
    connections: Arc<Vec<SendRequest<Full<Bytes>>>>,
    next: Arc<AtomicUsize>,
}

impl Client {
    pub async fn connect(endpoint: &Endpoint, connections: usize) -> Self {
        let mut open = Vec::new();
        for _ in 0..connections {
            let stream = TcpStream::connect((endpoint.host.as_str(), endpoint.port)).await.expect("connect");
            stream.set_nodelay(true).expect("no delay");
            let name = ServerName::try_from(endpoint.host.clone()).expect("a server name");
            let connector = tokio_rustls::TlsConnector::from(endpoint.tls.clone());
            let stream = connector.connect(name, stream).await.expect("TLS");
            let builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
                .initial_stream_window_size(8 << 20)
                .initial_connection_window_size(16 << 20)
                .handshake(TokioIo::new(stream));
            let (sender, connection) = builder.await.expect("HTTP/2");
            tokio::spawn(connection);
            open.push(sender);
        }
        Client { connections: Arc::new(open), next: Arc::default() }
    }

    /// Sends a request and returns its answer, whose body is still to be read.
    pub async fn open(
        &self,
        method: Method,
        path: &str,
        kind: &str,
        body: Bytes,
    ) -> http::Response<Incoming> {
        let turn = self.next.fetch_add(1, Ordering::Relaxed) % self.connections.len();
        let request = Request::builder()
            .method(method)
            .uri(format!("https://server{path}"))
            .header("content-type", kind)
            .header("accept", "application/json")
            .body(Full::new(body))
            .expect("a request");
        self.connections[turn].clone().send_request(request).await.expect("an answer")
    }

    /// Sends a request and reads the whole answer.
    pub async fn send(&self, method: Method, path: &str, kind: &str, body: Bytes) -> (StatusCode, Bytes) {
        let response = self.open(method, path, kind, body).await;
        let code = response.status();
        (code, response.into_body().collect().await.expect("a body").to_bytes())
    }

    /// As [`send`](Self::send) with JSON; the answer must be a success.
    pub async fn expect(&self, method: Method, path: &str, kind: &str, body: impl Into<Bytes>) -> Bytes {
        let (code, answer) = self.send(method.clone(), path, kind, body.into()).await;
        assert!(code.is_success(), "{method} {path}: {code} {}", String::from_utf8_lossy(&answer));
        answer
    }
}

/// What a run of requests took.
pub struct Figures {
    pub requests: usize,
    pub wall: Duration,
    pub cpu: Duration,
    latencies: Vec<Duration>,
}

impl Figures {
    pub fn per_second(&self) -> f64 {
        self.requests as f64 / self.wall.as_secs_f64()
    }

    /// Processor time of the server for one request, in microseconds.
    pub fn cpu_micros(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / self.requests as f64
    }

    /// Latency that this share of the requests stayed under, in milliseconds.
    pub fn percentile(&self, share: f64) -> f64 {
        let last = self.latencies.len().saturating_sub(1);
        let place = (last as f64 * share).round() as usize;
        self.latencies.get(place).map_or(f64::NAN, |latency| latency.as_secs_f64() * 1e3)
    }
}

/// Runs `work` for every number below `requests`, `clients` at a time.
pub async fn run<F, W>(target: &Target, requests: usize, clients: usize, work: F) -> Figures
where
    F: Fn(usize) -> W + Clone + Send + 'static,
    W: Future<Output = ()> + Send + 'static,
{
    let next = Arc::new(AtomicUsize::new(0));
    let (begin, cpu) = (Instant::now(), target.cpu());
    let workers: Vec<_> = (0..clients)
        .map(|_| {
            let (next, work) = (next.clone(), work.clone());
            tokio::spawn(async move {
                let mut latencies = Vec::new();
                loop {
                    let turn = next.fetch_add(1, Ordering::Relaxed);
                    if turn >= requests {
                        return latencies;
                    }
                    let begin = Instant::now();
                    work(turn).await;
                    latencies.push(begin.elapsed());
                }
            })
        })
        .collect();
    let mut latencies = Vec::new();
    for worker in workers {
        latencies.extend(worker.await.expect("a worker"));
    }
    latencies.sort();
    Figures { requests, wall: begin.elapsed(), cpu: target.cpu() - cpu, latencies }
}
