//! Audit: who asked for what and what became of it, as lines of JSON in a file.
//!
//! A policy (`audit.k8s.io/v1`) says of each request how much is recorded, and at which stages. Lines are written by a
//! task of their own; when the disk cannot keep up, requests wait for it, as with upstream's default.

mod event;
mod log;
mod policy;

use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll};

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, Response, header, request};
use serde_json::Value;
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;

use super::authorization::Decision;
use super::request_info::RequestInfo;
use crate::registry::UserInfo;
use event::Event;
use policy::{Level, Policy, Stage, Verdict};

/// Lines that wait to be written.
const BACKLOG: usize = 10_000;

/// What the server was told about auditing.
#[derive(Clone, Debug, Default)]
pub struct AuditOptions {
    /// The policy; without it nothing is recorded.
    pub policy_file: Option<PathBuf>,
    /// Where lines are written; `-` is standard output.
    pub log_path: Option<PathBuf>,
    /// Days after which old files are removed; 0 is never.
    pub max_age_days: u32,
    /// How many old files are kept; 0 is all.
    pub max_backups: usize,
    /// Megabytes after which a new file is begun.
    pub max_size_megabytes: u64,
}

/// Why nothing can be recorded.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// The policy is not there.
    #[error("read --audit-policy-file {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The policy says nothing that can be followed.
    #[error("--audit-policy-file {path}: {why}")]
    Policy {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The log cannot be written.
    #[error("open --audit-log-path {path}")]
    Log {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
}

/// Records requests, if the server was told to.
#[derive(Default)]
pub(super) struct Audit {
    policy: Option<Policy>,
    lines: Mutex<Option<mpsc::Sender<Bytes>>>,
}

impl Audit {
    /// Reads the policy, opens the log, and starts the task that writes it.
    pub(super) fn new(options: &AuditOptions, tasks: &TaskTracker) -> Result<Self, AuditError> {
        let (Some(file), Some(path)) = (&options.policy_file, &options.log_path) else {
            return Ok(Self::default());
        };
        let text = std::fs::read(file).map_err(|source| AuditError::Read { path: file.clone(), source })?;
        let policy = Policy::parse(&text).map_err(|why| AuditError::Policy { path: file.clone(), why })?;
        let log =
            log::Log::open(path, options).map_err(|source| AuditError::Log { path: path.clone(), source })?;
        let (sender, lines) = mpsc::channel(BACKLOG);
        tasks.spawn_blocking(move || log.write_all(lines));
        Ok(Self { policy: Some(policy), lines: Mutex::new(Some(sender)) })
    }

    /// Records nothing more; the task ends when what waits is written.
    pub(super) fn close(&self) {
        *self.lines.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Begins the record of a request, unless the policy leaves it out; `user` is `None` where nobody could be
    /// identified.
    pub(super) fn begin(
        &self,
        info: &RequestInfo,
        head: &request::Parts,
        user: Option<&UserInfo>,
        id: &str,
    ) -> Option<Record> {
        let policy = self.policy.as_ref()?;
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner).clone()?;
        let verdict = policy.judge(user, info);
        if verdict.level == Level::None {
            return None;
        }
        let event = Event::new(&verdict, info, head, user, id);
        Some(Record { verdict, event, lines, long_running: info.is_long_running() })
    }
}

/// The record of one request.
pub(super) struct Record {
    verdict: Verdict,
    event: Event,
    lines: mpsc::Sender<Bytes>,
    long_running: bool,
}

impl Record {
    /// Whether the request's body is wanted.
    pub(super) fn wants_request(&self) -> bool {
        self.verdict.level >= Level::Request
    }

    /// Whether the answer's body is wanted, and so must not be compressed.
    pub(super) fn wants_response(&self) -> bool {
        self.verdict.level >= Level::RequestResponse && !self.long_running
    }

    /// Notes the body of the request.
    pub(super) fn note_request(&mut self, headers: &HeaderMap, body: &[u8]) {
        self.event.request(event::object(headers, body, self.verdict.omit_managed_fields));
    }

    /// Notes whom the user asked to be.
    pub(super) fn note_impersonated(&mut self, user: &UserInfo) {
        self.event.impersonated(user);
    }

    /// Notes what the authorizers said.
    pub(super) fn note_decision(&mut self, decision: &Decision) {
        self.event.decision(decision);
    }

    /// The request has come in.
    pub(super) async fn received(&mut self) {
        self.say(Stage::RequestReceived).await;
    }

    /// The request is answered: the answer, which for a stream goes on being watched.
    pub(super) async fn answered(mut self, response: Response<Body>) -> Response<Body> {
        let code = response.status().as_u16();
        if self.long_running && code < 400 {
            self.event.status(code, None);
            self.say(Stage::ResponseStarted).await;
            if code == 101 {
                self.say(Stage::ResponseComplete).await;
                return response;
            }
            return response.map(|body| Body::new(Watched { body, record: Some(self) }));
        }
        let wanted = self.wants_response() || code >= 400;
        if !wanted {
            self.event.status(code, None);
            self.say(Stage::ResponseComplete).await;
            return response;
        }
        let (head, body) = response.into_parts();
        let bytes = match http_body_util::BodyExt::collect(body).await {
            Ok(collected) => collected.to_bytes(),
            Err(_) => Bytes::new(),
        };
        let object = event::object(&head.headers, &bytes, self.verdict.omit_managed_fields);
        let failure = object.as_ref().filter(|object| object["kind"] == "Status").cloned();
        self.event.status(code, failure);
        if self.wants_response() {
            self.event.response(object);
        }
        self.say(Stage::ResponseComplete).await;
        Response::from_parts(head, Body::from(bytes))
    }

    /// Nobody could be identified.
    pub(super) async fn refused(mut self, message: &str) {
        self.event.status(401, Some(serde_json::json!({"message": message})));
        self.say(Stage::ResponseStarted).await;
    }

    /// The handler broke.
    pub(super) async fn panicked(mut self) {
        self.event.status(500, Some(serde_json::json!({"status": "Failure", "reason": "InternalError"})));
        self.say(Stage::Panic).await;
    }

    async fn say(&mut self, stage: Stage) {
        if let Some(line) = self.line(stage)
            && self.lines.send(line).await.is_err()
        {
            tracing::warn!("an audit event came after the log was closed");
        }
    }

    fn line(&mut self, stage: Stage) -> Option<Bytes> {
        (!self.verdict.omit_stages.contains(&stage)).then(|| self.event.line(stage))
    }
}

/// The body of a stream, whose end is recorded.
struct Watched {
    body: Body,
    record: Option<Record>,
}

impl http_body::Body for Watched {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        let Some(mut record) = self.record.take() else { return };
        if let Some(line) = record.line(Stage::ResponseComplete)
            && record.lines.try_send(line).is_err()
        {
            tracing::warn!("the end of a stream is missing from the audit log, which is full or closed");
        }
    }
}

/// The id of a request: the client's own, or a new one.
pub(super) fn id_of(headers: &HeaderMap) -> String {
    let own = headers.get("audit-id").and_then(|id| id.to_str().ok());
    let own = own.filter(|id| !id.is_empty() && id.len() <= 64);
    own.map_or_else(|| uuid::Uuid::new_v4().hyphenated().to_string(), str::to_owned)
}

/// The media type of a body, without parameters.
fn media_type(headers: &HeaderMap) -> &str {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim()
}

/// Removes `managedFields` from an object, or from the items of a list.
fn without_managed_fields(object: &mut Value) {
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
    }
    if let Some(items) = object.get_mut("items").and_then(Value::as_array_mut) {
        items.iter_mut().for_each(without_managed_fields);
    }
}
