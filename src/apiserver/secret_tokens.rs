//! Notes the use of tokens that stand in Secrets, and since when it does so: what the cleaner of such Secrets goes by.

use futures::FutureExt as _;
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use serde_json::json;
use tokio::sync::mpsc;

use super::ApiServer;
use super::authentication::unix_now;
use super::upkeep::context;
use crate::api::error::ApiError;
use crate::registry::{Body, PatchKind};

/// The day on which a Secret's token was used last.
pub(super) const LAST_USED: &str = "kubernetes.io/legacy-token-last-used";
/// The day since which a Secret's token is refused.
pub(super) const INVALID_SINCE: &str = "kubernetes.io/legacy-token-invalid-since";
/// Says since when uses are noted.
const TRACKING: &str = "kube-apiserver-legacy-service-account-token-tracking";
const SINCE: &str = "since";
/// Uses that wait to be noted. What does not fit is noted with the next use.
const WAITING: usize = 64;

/// A Secret whose token was used: its namespace and name.
pub(super) type Use = (String, String);

/// Where uses go, and where they are taken from.
pub(super) fn channel() -> (mpsc::Sender<Use>, mpsc::Receiver<Use>) {
    mpsc::channel(WAITING)
}

/// Today in UTC, as labels have it.
pub(super) fn today() -> String {
    let now = k8s_openapi::jiff::Timestamp::from_second(unix_now()).unwrap_or_default();
    now.to_zoned(k8s_openapi::jiff::tz::TimeZone::UTC).date().to_string()
}

fn is_day(text: &str) -> bool {
    text.parse::<k8s_openapi::jiff::civil::Date>().is_ok_and(|date| date.to_string() == text)
}

pub(super) fn track(server: &ApiServer) -> BoxFuture<'_, Result<(), ApiError>> {
    server.keep_tracking().boxed()
}

impl ApiServer {
    /// Writes down uses until the server stops.
    pub(super) async fn note_uses(self: std::sync::Arc<Self>, mut uses: mpsc::Receiver<Use>) {
        let stop = self.stop.clone();
        while let Some(Some((namespace, name))) = stop.run_until_cancelled(uses.recv()).await {
            if let Err(error) = self.note_use(&namespace, &name).await {
                tracing::debug!(namespace, name, %error, "cannot note the use of a token in a secret");
            }
        }
    }

    async fn note_use(&self, namespace: &str, name: &str) -> Result<(), ApiError> {
        let row = self.registry.catalog().of::<Secret>();
        let row = row.ok_or_else(|| ApiError::internal("secrets are not served"))?;
        let today = today();
        let known = self.registry.cache_of(row)?.get(namespace, name);
        if known.is_none_or(|secret| secret.label(LAST_USED) == Some(&today)) {
            return Ok(());
        }
        let body = json!({"metadata": {"labels": {LAST_USED: today}}}).to_string();
        let cx = context("kube-apiserver");
        self.registry.patch(&cx, row, None, namespace, name, PatchKind::Merge, Body::json(body)).await?;
        Ok(())
    }

    /// Says since when uses are noted, unless that is said already.
    async fn keep_tracking(&self) -> Result<(), ApiError> {
        let row = self.registry.catalog().of::<ConfigMap>();
        let row = row.ok_or_else(|| ApiError::internal("config maps are not served"))?;
        let since = json!({SINCE: today()});
        let cx = context("kube-apiserver");
        let done = match self.registry.find::<ConfigMap>("kube-system", TRACKING).await? {
            None => {
                let body = json!({"apiVersion": "v1", "kind": "ConfigMap", "data": since,
                    "metadata": {"name": TRACKING, "namespace": "kube-system"}});
                self.registry.create(&cx, row, None, "kube-system", "", Body::json(body.to_string())).await
            }
            Some(map)
                if map.data.as_ref().and_then(|data| data.get(SINCE)).is_some_and(|day| is_day(day)) =>
            {
                return Ok(());
            }
            Some(_) => {
                let body = Body::json(json!({"data": since}).to_string());
                self.registry.patch(&cx, row, None, "kube-system", TRACKING, PatchKind::Merge, body).await
            }
        };
        match done {
            // Another server was first, or the namespace is yet to come.
            Err(error) if !matches!(error.code(), 404 | 409) => Err(error),
            _ => Ok(()),
        }
    }
}
