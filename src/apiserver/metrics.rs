//! What is counted of requests, under upstream's names.

use std::time::Duration;

use super::request_info::RequestInfo;
use crate::telemetry::metrics::{Family, REQUEST_BUCKETS};

static TOTAL: Family = Family::counter(
    "apiserver_request_total",
    "Counter of apiserver requests broken out for each verb, dry run value, group, version, resource, scope, component, and HTTP response code.",
    &["verb", "dry_run", "group", "version", "resource", "subresource", "scope", "component", "code"],
);
static DURATION: Family = Family::histogram(
    "apiserver_request_duration_seconds",
    "Response latency distribution in seconds for each verb, dry run value, group, version, resource, subresource, scope and component.",
    &["verb", "dry_run", "group", "version", "resource", "subresource", "scope", "component"],
    REQUEST_BUCKETS,
);

/// Longest resource or subresource name that becomes a label; what is longer is no name of ours.
const LONGEST_LABEL: usize = 63;

/// Counts requests.
pub(super) struct RequestMetrics;

/// The labels of one request, kept while it is handled.
pub(super) struct Labels {
    verb: &'static str,
    dry_run: &'static str,
    group: String,
    version: String,
    resource: String,
    subresource: String,
    scope: &'static str,
}

impl RequestMetrics {
    pub(super) fn new() -> Self {
        Self
    }

    /// The labels of a request.
    pub(super) fn labels(&self, info: &RequestInfo) -> Labels {
        let verb = match info.verb.as_str() {
            "get" => "GET",
            "list" => "LIST",
            "watch" => "WATCH",
            "create" | "post" => "POST",
            "update" | "put" => "PUT",
            "patch" => "PATCH",
            "delete" => "DELETE",
            "deletecollection" => "DELETECOLLECTION",
            "proxy" => "CONNECT",
            _ => "other",
        };
        let target = info.target.clone().unwrap_or_default();
        let scope = match (&info.target, target.name.is_empty(), target.namespace.is_empty()) {
            (None, ..) => "",
            (_, false, _) => "resource",
            (_, true, false) => "namespace",
            (_, true, true) => "cluster",
        };
        let dry_run = if info.param("dryRun") == "All" { "All" } else { "" };
        Labels {
            verb,
            dry_run,
            group: target.group,
            version: target.version,
            resource: target.resource,
            subresource: target.subresource,
            scope,
        }
    }

    /// Counts an answered request. A path that names no resource of ours is counted without its words, which are the
    /// client's and without bound.
    pub(super) fn observe(&self, labels: &Labels, code: u16, took: Duration, long_running: bool) {
        let Labels { verb, dry_run, group, version, resource, subresource, scope } = labels;
        let known = code != 404
            && code != 401
            && code != 403
            && [group, version, resource, subresource].iter().all(|label| label.len() <= LONGEST_LABEL);
        let (group, version, resource, subresource) =
            if known { (&**group, &**version, &**resource, &**subresource) } else { ("", "", "", "") };
        let code = code.to_string();
        TOTAL.with(&[verb, dry_run, group, version, resource, subresource, scope, "apiserver", &code]).inc();
        if !long_running {
            DURATION
                .with(&[verb, dry_run, group, version, resource, subresource, scope, "apiserver"])
                .observe(took);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_under_upstreams_names() {
        let metrics = RequestMetrics::new();
        let count = |method: &str, uri: &str, code| {
            let info = RequestInfo::new(&method.parse().unwrap(), &uri.parse().unwrap());
            metrics.observe(&metrics.labels(&info), code, Duration::from_millis(1), info.is_long_running());
        };
        count("GET", "/apis/apps/v1/namespaces/a/deployments", 200);
        count("GET", "/apis/evil-7/v1/words", 404);
        let text = crate::telemetry::metrics::render();
        assert!(text.contains("apiserver_request_total{verb=\"LIST\",dry_run=\"\",group=\"apps\",version=\"v1\",resource=\"deployments\",subresource=\"\",scope=\"namespace\",component=\"apiserver\",code=\"200\"} 1"), "{text}");
        assert!(!text.contains("evil-7"));
    }
}
