//! A way to the API server on which calls fail, get lost, come late or arrive twice, at random from a seed.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use http::{Request, Response};
use http_body_util::BodyExt;
use kube::client::Body as RequestBody;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::json;
use tower::Service as TowerService;

use crate::apiserver::in_process::Service;

/// What befalls a call.
#[derive(Debug, Clone, Copy)]
enum Fate {
    Well,
    /// It never arrives.
    Refused,
    /// It is carried out, but the answer never arrives.
    Lost,
    /// It arrives twice.
    Twice,
    /// It arrives late.
    Late(Duration),
}

/// The source of fates, shared by all clients of a test.
#[derive(Debug, Clone)]
pub(super) struct Dice(Arc<Mutex<StdRng>>);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(StdRng::seed_from_u64(seed))))
    }

    fn roll(&self) -> Fate {
        let mut dice = self.0.lock().unwrap();
        match dice.random_range(0..100) {
            0..10 => Fate::Refused,
            10..15 => Fate::Lost,
            15..20 => Fate::Twice,
            20..30 => Fate::Late(Duration::from_millis(dice.random_range(1..20))),
            _ => Fate::Well,
        }
    }
}

/// The API server behind such a way.
#[derive(Clone)]
pub(super) struct Faulty {
    inner: Service,
    dice: Dice,
}

impl Faulty {
    pub(super) fn new(inner: Service, dice: Dice) -> Self {
        Self { inner, dice }
    }
}

fn unavailable() -> Response<Body> {
    let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 503,
                        "reason": "ServiceUnavailable", "message": "a fault of the test", "metadata": {}});
    let response = Response::builder().status(503).header("content-type", "application/json");
    response.body(Body::from(status.to_string())).unwrap()
}

impl TowerService<Request<RequestBody>> for Faulty {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<RequestBody>) -> Self::Future {
        let (fate, mut inner) = (self.dice.roll(), self.inner.clone());
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            let bytes = body.collect().await.unwrap().to_bytes();
            let copy = || Request::from_parts(parts.clone(), Body::from(bytes.clone()));
            match fate {
                Fate::Well => inner.call(copy()).await,
                Fate::Refused => Ok(unavailable()),
                Fate::Lost => {
                    inner.call(copy()).await?;
                    Ok(unavailable())
                }
                Fate::Twice => {
                    inner.call(copy()).await?;
                    inner.call(copy()).await
                }
                Fate::Late(by) => {
                    let call = inner.call(copy());
                    // The delay is the fault itself, nothing waits for it to be over.
                    let mut late = tokio::time::interval_at(tokio::time::Instant::now() + by, by);
                    late.tick().await;
                    call.await
                }
            }
        })
    }
}
