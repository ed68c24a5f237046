//! The members of an etcd cluster: one connection to each, and calls that go from one to the next.
//!
//! Calls go to one member until it fails, then to the next. What can be repeated is repeated until its time is up;
//! a write is sent again only when it is certain that it was not sent, or that etcd refused it before proposing it.

use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use rand::Rng;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use tokio_util::either::Either;
use tonic::transport::{Channel, Endpoint};
use tonic::{Response, Status};
use tracing::debug;

use super::EtcdOptions;
use super::errors::{Attempt, CallError, CallFailure, NotConnected, classify};
use super::tls;
use crate::store::StoreError;

/// Etcd closes connections that are pinged more often than every five seconds.
const PING_EVERY: Duration = Duration::from_secs(6);
const PING_TIMEOUT: Duration = Duration::from_secs(4);
/// Pause after all members have failed.
const PAUSE_FIRST: Duration = Duration::from_millis(25);
const PAUSE_MOST: Duration = Duration::from_millis(500);

/// Whether a call may be sent again when it is not known whether it happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Repeat {
    Freely,
    OnlyIfNotDone,
}

/// One member.
#[derive(Debug, Clone)]
pub(super) struct Member {
    pub(super) name: Arc<str>,
    pub(super) channel: Channel,
}

/// All members that were named.
#[derive(Debug)]
pub(super) struct Members {
    all: Vec<Member>,
    preferred: AtomicUsize,
    request_timeout: Duration,
    attempt_timeout: Duration,
    /// How the latest call failed, if it did. Leases are renewed all the time, so this is never old.
    failure: Mutex<Option<StoreError>>,
}

impl Members {
    /// Prepares the connections; they are made when they are needed. Must be called inside a runtime.
    pub(super) fn new(options: &EtcdOptions) -> Result<Self, StoreError> {
        let tls = tls::connector(options)?;
        let all: Vec<_> = options
            .endpoints
            .iter()
            .map(|endpoint| member(endpoint, tls.clone(), options.connect_timeout))
            .collect::<Result<_, _>>()?;
        if all.is_empty() {
            return Err(tls::setting("no etcd endpoint is given".to_owned()));
        }
        Ok(Self {
            preferred: AtomicUsize::new(rand::rng().random_range(0..all.len())),
            all,
            request_timeout: options.request_timeout,
            attempt_timeout: options.attempt_timeout,
            failure: Mutex::default(),
        })
    }

    /// The member that calls go to now.
    pub(super) fn preferred(&self) -> (usize, Member) {
        let at = self.preferred.load(Ordering::Relaxed) % self.all.len();
        (at, self.all[at].clone())
    }

    /// Says that a member failed; the next one is preferred unless that has happened already.
    pub(super) fn failed(&self, at: usize) {
        let next = (at + 1) % self.all.len();
        // Who comes second has nothing to change.
        self.preferred.compare_exchange(at, next, Ordering::Relaxed, Ordering::Relaxed).ok();
    }

    /// How the latest call failed, if it did.
    pub(super) fn last_failure(&self) -> Option<StoreError> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Asks members in turn until one answers or the time for a request is over.
    pub(super) async fn call<T, F>(
        &self,
        operation: &'static str,
        repeat: Repeat,
        call: impl Fn(Channel) -> F,
    ) -> Result<T, CallError>
    where
        F: Future<Output = Result<Response<T>, Status>> + Send,
    {
        let result = self.call_in_turn(operation, repeat, call).await;
        let failure = match &result {
            Err(CallError::Store(error)) => Some(error.clone()),
            _ => None,
        };
        *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = failure;
        result
    }

    async fn call_in_turn<T, F>(
        &self,
        operation: &'static str,
        repeat: Repeat,
        call: impl Fn(Channel) -> F,
    ) -> Result<T, CallError>
    where
        F: Future<Output = Result<Response<T>, Status>> + Send,
    {
        let deadline = Instant::now() + self.request_timeout;
        let mut pause = PAUSE_FIRST;
        let mut last = None;
        for attempt in 1.. {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            let (at, member) = self.preferred();
            let limit = match repeat {
                Repeat::Freely => left.min(self.attempt_timeout),
                Repeat::OnlyIfNotDone => left,
            };
            let failure = match tokio::time::timeout(limit, call(member.channel)).await {
                Ok(Ok(answer)) => return Ok(answer.into_inner()),
                Ok(Err(status)) => classify(status, &member.name, operation),
                Err(_) => {
                    let (member, after) = (member.name.to_string(), limit);
                    Attempt::Unknown(CallFailure::Timeout { member, operation, after }.into_store())
                }
            };
            let error = match failure {
                Attempt::Final(error) => return Err(error),
                Attempt::NotDone(error) => error,
                Attempt::Unknown(error) => {
                    self.failed(at);
                    if repeat == Repeat::OnlyIfNotDone {
                        return Err(CallError::Store(error));
                    }
                    error
                }
            };
            self.failed(at);
            debug!(member = %member.name, operation, %error, "etcd member failed, trying the next");
            last = Some(error);
            if attempt % self.all.len() == 0 {
                let jitter = rand::rng().random_range(0.5..1.0);
                tokio::time::sleep(pause.mul_f64(jitter).min(left)).await;
                pause = (pause * 2).min(PAUSE_MOST);
            }
        }
        let after = self.request_timeout;
        Err(CallError::Store(CallFailure::Exhausted { operation, after, last }.into_store()))
    }
}

/// A member by its URL.
fn member(url: &str, tls: Option<TlsConnector>, connect_timeout: Duration) -> Result<Member, StoreError> {
    let wrong = || tls::setting(format!("{url:?} is no etcd endpoint such as https://10.0.0.1:2379"));
    let uri: http::Uri = url.parse().map_err(|_| wrong())?;
    let host = uri.host().ok_or_else(wrong)?.trim_matches(['[', ']']).to_owned();
    let port = uri.port_u16().unwrap_or(2379);
    let tls = match uri.scheme_str() {
        Some("http") => None,
        Some("https") => tls,
        _ => return Err(wrong()),
    };
    let name: Arc<str> = url.into();
    let connector = {
        let name = name.clone();
        tower::service_fn(move |_: http::Uri| {
            let (name, host, tls) = (name.clone(), host.clone(), tls.clone());
            async move {
                let connect = connect(&host, port, tls);
                let stream = match tokio::time::timeout(connect_timeout, connect).await {
                    Ok(result) => result,
                    Err(_) => Err(std::io::ErrorKind::TimedOut.into()),
                };
                stream
                    .map(TokioIo::new)
                    .map_err(|error| NotConnected { member: name.to_string(), source: Arc::new(error) })
            }
        })
    };
    let channel = Endpoint::from_shared(url.to_owned())
        .map_err(|_| wrong())?
        .http2_keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_TIMEOUT)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(4 << 20)
        .initial_connection_window_size(16 << 20)
        .connect_with_connector_lazy(connector);
    Ok(Member { name, channel })
}

type Stream = Either<TcpStream, tokio_rustls::client::TlsStream<TcpStream>>;

async fn connect(host: &str, port: u16, tls: Option<TlsConnector>) -> std::io::Result<Stream> {
    let tcp = TcpStream::connect((host, port)).await?;
    tcp.set_nodelay(true)?;
    let Some(tls) = tls else { return Ok(Either::Left(tcp)) };
    let name = rustls::pki_types::ServerName::try_from(host.to_owned())
        .map_err(|error| std::io::Error::new(std::io::ErrorKind::InvalidInput, error))?;
    Ok(Either::Right(tls.connect(name, tcp).await?))
}
