//! The way of every request from its head to the handler, and of the answer back.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use axum::body::Body;
use futures::FutureExt as _;
use http::header::{ACCEPT, ACCEPT_ENCODING, AUTHORIZATION};
use http::{HeaderMap, HeaderValue, Method, Request, Response, request};
use hyper::upgrade::OnUpgrade;
use tracing::error;

use super::audit::{self, Record};
use super::authentication::{self, impersonation};
use super::authorization::Attributes;
use super::flow_control::Place;
use super::request_info::RequestInfo;
use super::respond::Rendering;
use super::{ApiServer, negotiate, routes};
use crate::api::error::ApiError;
use crate::registry::UserInfo;

/// How long a request that is not long-running may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

/// An authenticated and authorized request on its way to a handler.
pub(super) struct Call {
    /// What it is about.
    pub(super) info: RequestInfo,
    /// Its head.
    pub(super) head: request::Parts,
    /// Its body.
    pub(super) body: Body,
    /// Who makes it.
    pub(super) user: Arc<UserInfo>,
    /// The connection, for requests that take it over.
    pub(super) upgrade: Option<OnUpgrade>,
}

/// What comes after the head of a request.
struct Connection {
    body: Body,
    upgrade: Option<OnUpgrade>,
}

/// What is found out on the way to the handler and is still known when the handler gave up.
#[derive(Default)]
struct Told {
    place: OnceLock<Place>,
    record: Mutex<Option<Record>>,
}

impl Told {
    fn set_record(&self, record: Option<Record>) {
        *self.record.lock().unwrap_or_else(PoisonError::into_inner) = record;
    }

    fn record(&self) -> Option<Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl ApiServer {
    /// Answers one request. The caller's identity is in the request's extensions: [`super::tls::Peer`] from a
    /// connection, [`authentication::InProcessUser`] from the same process.
    pub async fn handle(self: &Arc<Self>, request: Request<Body>) -> Response<Body> {
        let started = Instant::now();
        let (mut head, body) = request.into_parts();
        let info = RequestInfo::new(&head.method, &head.uri);
        let labels = self.metrics.labels(&info);
        let long_running = info.is_long_running();
        let upgrade = head.extensions.remove::<OnUpgrade>();
        let path = info.path.clone();
        let id = audit::id_of(&head.headers);
        let deadline = deadline(&info);
        let accept = head.headers.get(ACCEPT).cloned();
        let failed = |error: &ApiError| {
            let format = negotiate::error_format(accept.as_ref());
            Rendering { format, ..Rendering::default() }.error(error)
        };
        let told = Told::default();
        let connection = Connection { body, upgrade };
        let answer = AssertUnwindSafe(self.answer(info, head, connection, &id, &told)).catch_unwind();
        let outcome = match deadline {
            Ok(_) if long_running => answer.await,
            Ok(limit) => match tokio::time::timeout(limit, answer).await {
                Ok(outcome) => outcome,
                Err(_) => Ok(Err(timed_out())),
            },
            Err(error) => Ok(Err(error)),
        };
        let mut response = match outcome {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => failed(&error),
            Err(_) => {
                error!(%path, "request handler panicked");
                if let Some(record) = told.record() {
                    Box::pin(record.panicked()).await;
                }
                failed(&ApiError::internal("the server could not handle the request"))
            }
        };
        if let Some(record) = told.record() {
            response = Box::pin(record.answered(response)).await;
        }
        if let Ok(id) = HeaderValue::from_str(&id) {
            response.headers_mut().insert("audit-id", id);
        }
        response
            .headers_mut()
            .entry("cache-control")
            .or_insert(HeaderValue::from_static("no-cache, private"));
        if let Some(place) = told.place.get() {
            show_place(place, response.headers_mut());
        }
        self.metrics.observe(&labels, response.status().as_u16(), started.elapsed(), long_running);
        response
    }

    async fn answer(
        self: &Arc<Self>,
        info: RequestInfo,
        mut head: request::Parts,
        Connection { mut body, upgrade }: Connection,
        id: &str,
        told: &Told,
    ) -> Result<Response<Body>, ApiError> {
        if self.join.owns(&info.path) {
            return Box::pin(self.join.answer(&info, &head, body)).await;
        }
        let identify = || {
            authentication::authenticate(
                &self.tokens,
                &head.extensions,
                &head.headers,
                self.config.anonymous_auth,
            )
        };
        let user = match identify() {
            Err(_) if head.headers.contains_key(AUTHORIZATION) => {
                self.objects.catch_up().await;
                identify()
            }
            outcome => outcome,
        };
        let user = match user {
            Ok(user) => user,
            Err(error) => {
                if let Some(record) = self.audit.begin(&info, &head, None, id) {
                    Box::pin(record.refused("Authentication failed")).await;
                }
                return Err(error);
            }
        };
        let mut record = self.audit.begin(&info, &head, Some(&user), id);
        if let Some(record) = &mut record {
            Box::pin(record.received()).await;
        }
        let asking = user.clone();
        let user = match impersonation::effective_user(&self.authorizer, user, &head.headers) {
            Ok(user) => user,
            Err(error) => {
                told.set_record(record);
                return Err(error);
            }
        };
        if let Some(record) = &mut record {
            if !Arc::ptr_eq(&user, &asking) {
                record.note_impersonated(&user);
            }
            if record.wants_response() {
                head.headers.remove(ACCEPT_ENCODING);
            }
            if record.wants_request() {
                let bytes = super::body::read(body).await?;
                record.note_request(&head.headers, &bytes);
                body = Body::from(bytes);
            }
            if !routes::always_allowed(&info.path) {
                record.note_decision(&self.authorizer.authorize(&user, &Attributes::of(&info)));
            }
        }
        told.set_record(record);
        let (own, seats) = self.flow_control.enter(&user, &info).await;
        let _first = told.place.set(own);
        let _seats = match seats {
            Ok(seats) => seats,
            Err(rejected) => return Ok(rejected.response()),
        };
        if !routes::always_allowed(&info.path) {
            self.permit(&user, &Attributes::of(&info)).await?;
        }
        self.dispatch(Call { info, head, body, user, upgrade }).await
    }
}

impl ApiServer {
    /// Asks the authorizers; a refusal is looked at again when the cache has caught up.
    pub(super) async fn permit(&self, user: &UserInfo, attributes: &Attributes<'_>) -> Result<(), ApiError> {
        if self.authorizer.check(user, attributes).is_ok() {
            return Ok(());
        }
        self.objects.catch_up().await;
        self.authorizer.check(user, attributes)
    }
}

/// Tells the client which flow schema and priority level its request belonged to.
fn show_place(place: &Place, headers: &mut HeaderMap) {
    let shown = [
        ("x-kubernetes-pf-flowschema-uid", &place.schema),
        ("x-kubernetes-pf-prioritylevel-uid", &place.level),
    ];
    for (name, uid) in shown.into_iter().filter(|(_, uid)| !uid.is_empty()) {
        if let Ok(value) = HeaderValue::from_str(uid) {
            headers.insert(name, value);
        }
    }
}

/// The time a request may take: `?timeout=` if shorter than the server's own.
fn deadline(info: &RequestInfo) -> Result<Duration, ApiError> {
    match info.param("timeout") {
        "" => Ok(REQUEST_TIMEOUT),
        text => {
            let asked = parse_go_duration(text).ok_or_else(|| {
                ApiError::bad_request(format!(
                    "invalid timeout specified in the request URL - time: invalid duration {text:?}"
                ))
            })?;
            Ok(if asked.is_zero() { REQUEST_TIMEOUT } else { asked.min(REQUEST_TIMEOUT) })
        }
    }
}

fn timed_out() -> ApiError {
    ApiError::timeout(
        "the server was unable to return a response in the time allotted, but may still be processing the request",
        0,
    )
}

/// Parses `1m30s`, `500ms`, `1.5h`; plain numbers have no unit and are no duration.
fn parse_go_duration(text: &str) -> Option<Duration> {
    const UNITS: [(&str, f64); 8] = [
        ("ns", 1e-9),
        ("us", 1e-6),
        ("µs", 1e-6),
        ("μs", 1e-6),
        ("ms", 1e-3),
        ("s", 1.0),
        ("m", 60.0),
        ("h", 3600.0),
    ];
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let (mut rest, mut seconds) = (text, 0.0);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let value: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let unit_len = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let (_, factor) = UNITS.iter().find(|(unit, _)| *unit == &rest[..unit_len])?;
        seconds += value * factor;
        rest = &rest[unit_len..];
    }
    (!text.is_empty()).then(|| Duration::try_from_secs_f64(seconds).ok()).flatten()
}

/// Whether the method only reads.
pub(super) fn is_read(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD)
}
