//! The API server as a `tower` service, for clients in the same process: no TLS, no sockets, no copies of bodies.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::Body;
use http::{Request, Response};
use tower::Service as TowerService;

use super::ApiServer;
use super::authentication::InProcessUser;
use crate::registry::UserInfo;

/// Calls the API server in memory as a given user, who is authorized and admitted like any other.
#[derive(Clone)]
pub struct Service {
    server: Arc<ApiServer>,
    user: Arc<UserInfo>,
}

impl Service {
    /// A service for one identity, such as `system:kube-scheduler`. `system:authenticated` need not be among the groups.
    pub fn new(server: Arc<ApiServer>, mut user: UserInfo) -> Self {
        super::authentication::add_authenticated(&mut user.groups);
        Self { server, user: Arc::new(user) }
    }
}

impl<B> TowerService<Request<B>> for Service
where
    B: http_body::Body<Data = bytes::Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(InProcessUser(self.user.clone()));
        let server = self.server.clone();
        Box::pin(async move { Ok(server.handle(request).await) })
    }
}
