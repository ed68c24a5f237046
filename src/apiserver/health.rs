//! `/healthz`, `/livez` and `/readyz`: named checks, alone or together.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::{Arc, PoisonError, RwLock};

use axum::body::Body;
use http::{Response, StatusCode};
use tokio_util::sync::CancellationToken;

use super::request_info::RequestInfo;
use super::respond;

/// A check: an error says what is wrong, for the log of an operator who may see it.
type Check = Arc<dyn Fn() -> Result<(), String> + Send + Sync>;

/// Which endpoints ask a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// All of them: without it the process is of no use.
    Always,
    /// Only `/readyz`: the server is alive but should get no requests yet.
    ForReadiness,
}

/// The checks of one server.
#[derive(Clone)]
pub struct Checks {
    checks: Arc<RwLock<Vec<(String, Asked, Check)>>>,
}

impl std::fmt::Debug for Checks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Checks")
    }
}

impl Checks {
    /// `ping`, and `shutdown` for readiness.
    pub(super) fn new(stop: CancellationToken) -> Self {
        let checks = Self { checks: Arc::default() };
        checks.add("ping", Asked::Always, || Ok(()));
        checks.add("shutdown", Asked::ForReadiness, move || {
            if stop.is_cancelled() { Err("the server is shutting down".to_owned()) } else { Ok(()) }
        });
        checks
    }

    /// Adds a check that is asked with every request, so it must be quick; one of the same name is replaced.
    pub fn add(
        &self,
        name: &str,
        asked: Asked,
        check: impl Fn() -> Result<(), String> + Send + Sync + 'static,
    ) {
        let mut checks = self.checks.write().unwrap_or_else(PoisonError::into_inner);
        checks.retain(|(own, ..)| own != name);
        checks.push((name.to_owned(), asked, Arc::new(check)));
    }

    /// Whether `/readyz` would say ok.
    pub fn ready(&self) -> bool {
        self.run("readyz", &BTreeSet::new()).iter().all(|(_, result)| result.is_ok())
    }

    fn run(&self, endpoint: &str, without: &BTreeSet<&str>) -> Vec<(String, Result<(), String>)> {
        let checks = self.checks.read().unwrap_or_else(PoisonError::into_inner).clone();
        checks
            .into_iter()
            .filter(|(name, asked, _)| {
                (endpoint == "readyz" || *asked == Asked::Always) && !without.contains(name.as_str())
            })
            .map(|(name, _, check)| (name, check()))
            .collect()
    }

    /// Answers `/healthz`, `/livez`, `/readyz` and what is below them; `None` for another path.
    pub(super) fn answer(&self, info: &RequestInfo) -> Option<Response<Body>> {
        let (endpoint, single) = match info.path.trim_matches('/').split_once('/') {
            Some((endpoint, single)) => (endpoint, Some(single)),
            None => (info.path.trim_matches('/'), None),
        };
        if !matches!(endpoint, "healthz" | "livez" | "readyz") {
            return None;
        }
        let without: BTreeSet<&str> =
            info.query.iter().filter(|(key, _)| key == "exclude").map(|(_, value)| value.as_str()).collect();
        let results = self.run(endpoint, &without);
        if let Some(single) = single {
            let (_, result) = results.into_iter().find(|(name, _)| name == single)?;
            return Some(match result {
                Ok(()) => respond::text(StatusCode::OK, "ok"),
                Err(_) => respond::text(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "internal server error: reason withheld\n",
                ),
            });
        }
        let healthy = results.iter().all(|(_, result)| result.is_ok());
        let verbose = info.query.iter().any(|(key, _)| key == "verbose");
        if healthy && !verbose {
            return Some(respond::text(StatusCode::OK, "ok"));
        }
        let mut text = String::new();
        for (name, result) in &results {
            // Writing to a string cannot fail.
            let _ = match result {
                Ok(()) => writeln!(text, "[+]{name} ok"),
                Err(reason) => {
                    tracing::debug!(check = %name, %reason, endpoint, "health check failed");
                    writeln!(text, "[-]{name} failed: reason withheld")
                }
            };
        }
        let (code, verdict) =
            if healthy { (StatusCode::OK, "passed") } else { (StatusCode::INTERNAL_SERVER_ERROR, "failed") };
        let _ = writeln!(text, "{endpoint} check {verdict}");
        Some(respond::text(code, text))
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    async fn ask(checks: &Checks, uri: &str) -> Option<(u16, String)> {
        let response = checks.answer(&RequestInfo::new(&http::Method::GET, &uri.parse().unwrap()))?;
        let code = response.status().as_u16();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        Some((code, String::from_utf8(bytes.to_vec()).unwrap()))
    }

    #[tokio::test]
    async fn healthy_server_says_ok() {
        let checks = Checks::new(CancellationToken::new());
        for uri in ["/healthz", "/livez", "/readyz", "/readyz/ping", "/livez/ping"] {
            assert_eq!(ask(&checks, uri).await.unwrap(), (200, "ok".to_owned()), "{uri}");
        }
        assert_eq!(ask(&checks, "/livez?verbose").await.unwrap().1, "[+]ping ok\nlivez check passed\n");
        assert!(ask(&checks, "/livez/nothing").await.is_none() && ask(&checks, "/other").await.is_none());
    }

    #[tokio::test]
    async fn failing_check_is_named_but_not_explained() {
        let checks = Checks::new(CancellationToken::new());
        checks.add("etcd", Asked::Always, || Err("disk full at /secret/path".to_owned()));
        let (code, text) = ask(&checks, "/healthz").await.unwrap();
        assert_eq!(
            (code, text.as_str()),
            (500, "[+]ping ok\n[-]etcd failed: reason withheld\nhealthz check failed\n")
        );
        assert_eq!(ask(&checks, "/healthz?exclude=etcd").await.unwrap().0, 200);
        assert_eq!(ask(&checks, "/healthz/etcd").await.unwrap().0, 500);
        assert!(!checks.ready());
    }

    #[tokio::test]
    async fn stopping_server_is_alive_but_not_ready() {
        let stop = CancellationToken::new();
        let checks = Checks::new(stop.clone());
        stop.cancel();
        assert_eq!(ask(&checks, "/readyz").await.unwrap().0, 500);
        assert_eq!(ask(&checks, "/livez").await.unwrap().0, 200);
    }
}
