//! A whole API server over a temporary directory, in this process.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use http::{Method, Request, Response};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use kube::Client;
use kube_lite::apiserver::{ApiServer, ApiServerConfig, Tls, in_process, serve};
use kube_lite::cache::Cache;
use kube_lite::pki::token::JoinSecrets;
use kube_lite::pki::{ClusterPki, kubeconfig};
use kube_lite::registry::{Registry, RegistryConfig, UserInfo, bootstrap};
use kube_lite::store::Store;
use kube_lite::store::sqlite::{SqliteOptions, SqliteStore};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

/// The join token's secret of every test server.
pub const JOIN_SECRET: &str = "join-secret";

/// A running server; dropped, it stops.
pub struct TestServer {
    pub api: Arc<ApiServer>,
    pub pki: Arc<ClusterPki>,
    pub stop: CancellationToken,
    dir: tempfile::TempDir,
}

/// A server that also listens.
pub struct Listening {
    pub server: TestServer,
    pub address: SocketAddr,
    task: JoinHandle<()>,
}

impl TestServer {
    pub async fn start() -> Self {
        Self::with(ApiServerConfig::default()).await
    }

    /// A server with other settings than the usual ones.
    pub async fn with(config: ApiServerConfig) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(&dir.path().join("state.db"), SqliteOptions::default()).unwrap();
        let server = Self::made(store, dir, config).await;
        let ready = async {
            while !server.api.checks().ready() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), ready).await.unwrap();
        server
    }

    /// A server over a store of the caller, which need not be ready.
    pub async fn over(store: Arc<dyn Store>, dir: tempfile::TempDir) -> Self {
        Self::made(store, dir, ApiServerConfig::default()).await
    }

    async fn made(store: Arc<dyn Store>, dir: tempfile::TempDir, config: ApiServerConfig) -> Self {
        let stop = CancellationToken::new();
        let cache = Cache::new(store.clone());
        let registry = Registry::new(store, cache.clone(), RegistryConfig::default()).unwrap();
        tokio::spawn(cache.run(stop.clone()));
        registry.ready().await.unwrap();
        let sans = ["127.0.0.1".to_owned()];
        let pki = Arc::new(ClusterPki::load_or_create(&dir.path().join("tls"), &sans).unwrap());
        let secrets = JoinSecrets::new(JOIN_SECRET, JOIN_SECRET);
        let api = ApiServer::new(registry, pki.clone(), secrets, config, stop.clone()).unwrap();
        bootstrap::run(api.registry()).await.unwrap();
        Self { api, pki, stop, dir }
    }

    pub async fn listening() -> Listening {
        let server = Self::start().await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let tls = Tls::new(server.pki.apiserver_serving(), server.pki.client_ca()).unwrap();
        let task = tokio::spawn(serve(listener, tls, server.api.clone(), server.stop.clone()));
        Listening { server, address, task }
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// A client in the server's process.
    pub fn client(&self, name: &str, groups: &[&str]) -> Client {
        Client::new(self.service(name, groups), "default")
    }

    /// A client that may do everything.
    pub fn admin(&self) -> Client {
        self.client("admin", &["system:masters"])
    }

    fn service(&self, name: &str, groups: &[&str]) -> in_process::Service {
        let groups = groups.iter().map(|&group| group.to_owned()).collect();
        in_process::Service::new(
            self.api.clone(),
            UserInfo { name: name.to_owned(), groups, ..UserInfo::default() },
        )
    }

    /// Sends a request as it is, as a user of a group.
    pub async fn raw_as(&self, name: &str, groups: &[&str], request: Request<Body>) -> Response<Body> {
        self.service(name, groups).oneshot(request).await.unwrap()
    }

    /// Sends a request as it is, as the administrator.
    pub async fn raw(&self, request: Request<Body>) -> Response<Body> {
        self.raw_as("admin", &["system:masters"], request).await
    }

    /// Sends a JSON request as the administrator; the answer's code and JSON body.
    pub async fn send(&self, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
        self.send_as("admin", &["system:masters"], method, path, body).await
    }

    /// Sends a JSON request as a user; the answer's code and JSON body.
    pub async fn send_as(
        &self,
        name: &str,
        groups: &[&str],
        method: &str,
        path: &str,
        body: Option<Value>,
    ) -> (u16, Value) {
        let body = body.map_or_else(Body::empty, |body| Body::from(body.to_string()));
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("content-type", "application/json")
            .body(body)
            .unwrap();
        let response = self.raw_as(name, groups, request).await;
        let code = response.status().as_u16();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        (code, serde_json::from_slice(&bytes).unwrap_or(Value::String(text)))
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Listening {
    pub fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// Writes the administrator's kubeconfig.
    pub fn kubeconfig(&self) -> PathBuf {
        let path = self.server.path().join("admin.yaml");
        let pki = &self.server.pki;
        kubeconfig::write(&path, 0o600, &self.url(), pki.server_ca().cert_pem(), pki.admin()).unwrap();
        path
    }

    /// Sends a request over a connection of its own, as the administrator, and leaves HTTP with it.
    pub async fn upgrade(&self, method: Method, path: &str, headers: &[(&str, &str)]) -> Response<Incoming> {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(self.server.pki.server_ca().certificates());
        let (chain, key) = self.server.pki.admin().to_rustls().unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)
            .unwrap();
        let tcp = TcpStream::connect(self.address).await.unwrap();
        let name = ServerName::try_from("127.0.0.1").unwrap();
        let stream = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, tcp).await.unwrap();
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection.with_upgrades());
        let mut request = Request::builder().method(method).uri(path).header("host", "x");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        sender.send_request(request.body(Body::empty()).unwrap()).await.unwrap()
    }

    /// Stops the server and waits for its end.
    pub async fn stop(self) {
        self.server.stop.cancel();
        tokio::time::timeout(Duration::from_secs(20), self.task).await.unwrap().unwrap();
    }
}
