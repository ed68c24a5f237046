//! Asking the metrics APIs: `metrics.k8s.io`, and `custom.metrics.k8s.io` and `external.metrics.k8s.io` where somebody
//! serves them. Failures are sentences, because they become conditions and events in upstream's words.

use std::time::Duration;

use http::Request;
use k8s_openapi::api::autoscaling::v2::CrossVersionObjectReference;
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use kube::api::GroupVersionKind;
use serde_json::Value;

use super::calculate::{Sample, Samples, milli};
use crate::controllers::workload::failure_text;

const CUSTOM: &str = "custom.metrics.k8s.io";
/// What a sample is an average over, if its API does not say.
const DEFAULT_WINDOW: Duration = Duration::from_secs(60);

/// Which pods' metrics are asked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pods<'a> {
    pub(super) namespace: &'a str,
    /// A label selector in its text form.
    pub(super) selector: &'a str,
}

pub(super) struct Metrics(pub(super) Client);

impl Metrics {
    async fn get(&self, path: &str, query: &[(&str, &str)]) -> kube::Result<Value> {
        let query: Vec<_> = query
            .iter()
            .filter(|(_, value)| !value.is_empty())
            .map(|(key, value)| format!("{key}={}", encoded(value)))
            .collect();
        let uri = format!("{path}?{}", query.join("&"));
        let request = Request::get(uri).body(Vec::new()).map_err(kube::Error::HttpError)?;
        self.0.request(request).await
    }

    /// What pods, or one container of theirs, use of a resource.
    pub(super) async fn resource(
        &self,
        pods: Pods<'_>,
        resource: &str,
        container: Option<&str>,
    ) -> Result<Samples, String> {
        let path = format!("/apis/metrics.k8s.io/v1beta1/namespaces/{}/pods", pods.namespace);
        let answer = self.get(&path, &[("labelSelector", pods.selector)]).await.map_err(|error| {
            format!("unable to fetch metrics from resource metrics API: {}", failure_text(&error))
        })?;
        let items = items(&answer);
        if items.is_empty() {
            return Err("no metrics returned from resource metrics API".to_owned());
        }
        let mut samples = Samples::new();
        for item in items {
            let name = item["metadata"]["name"].as_str().unwrap_or_default();
            let containers = item["containers"].as_array().map(Vec::as_slice).unwrap_or_default();
            let mut asked =
                containers.iter().filter(|c| container.is_none_or(|name| c["name"] == name)).peekable();
            if let Some(container) = container.filter(|_| asked.peek().is_none()) {
                let namespace = pods.namespace;
                return Err(format!(
                    "failed to get container metrics: container {container} not present in metrics for pod \
                     {namespace}/{name}"
                ));
            }
            let used: Option<i64> = asked.map(|c| Some(milli(c["usage"][resource].as_str()?))).sum();
            if let Some(value) = used.filter(|_| !containers.is_empty()) {
                let window = item["window"].as_str().and_then(window);
                samples.insert(name.to_owned(), sample(item, value, window));
            }
        }
        Ok(samples)
    }

    /// A custom metric of each pod.
    pub(super) async fn pods(&self, pods: Pods<'_>, metric: &str, labels: &str) -> Result<Samples, String> {
        let failed = |why: String| format!("unable to fetch metrics from custom metrics API: {why}");
        let version = self.custom_version().await.map_err(failed)?;
        let path = format!("/apis/{CUSTOM}/{version}/namespaces/{}/pods/*/{metric}", pods.namespace);
        let query = [("labelSelector", pods.selector), ("metricLabelSelector", labels)];
        let answer = self.get(&path, &query).await.map_err(|error| failed(failure_text(&error)))?;
        let items = items(&answer);
        if items.is_empty() {
            return Err("no metrics returned from custom metrics API".to_owned());
        }
        let of_pod = |item: &Value| {
            let name = item["describedObject"]["name"].as_str().unwrap_or_default().to_owned();
            let window = item["windowSeconds"].as_u64().or(item["window"].as_u64()).map(Duration::from_secs);
            (name, sample(item, milli(item["value"].as_str().unwrap_or_default()), window))
        };
        Ok(items.iter().map(of_pod).collect())
    }

    /// A custom metric of an object.
    pub(super) async fn object(
        &self,
        namespace: &str,
        object: &CrossVersionObjectReference,
        metric: &str,
        labels: &str,
    ) -> Result<i64, String> {
        let failed = |why: String| format!("unable to fetch metrics from custom metrics API: {why}");
        let version = self.custom_version().await.map_err(failed)?;
        let kind = group_version_kind(object);
        let place = if kind.kind == "Namespace" && kind.group.is_empty() {
            format!("namespaces/{}/metrics", object.name)
        } else {
            let found = kube::discovery::pinned_kind(&self.0, &kind).await;
            let (resource, _) = found.map_err(|error| failed(failure_text(&error)))?;
            let dot = if resource.group.is_empty() { "" } else { "." };
            format!("namespaces/{namespace}/{}{dot}{}/{}", resource.plural, resource.group, object.name)
        };
        let path = format!("/apis/{CUSTOM}/{version}/{place}/{metric}");
        let answer = self.get(&path, &[("metricLabelSelector", labels)]).await;
        let answer = answer.map_err(|error| failed(failure_text(&error)))?;
        let value = items(&answer).first().and_then(|item| item["value"].as_str());
        value.map(milli).ok_or_else(|| failed("the custom metrics API server returned 0 results".to_owned()))
    }

    /// The version of the custom metrics API that is served.
    async fn custom_version(&self) -> Result<&'static str, String> {
        let group = self.get(&format!("/apis/{CUSTOM}"), &[]).await.unwrap_or_default();
        let served = group["versions"].as_array().map(Vec::as_slice).unwrap_or_default();
        let known = ["v1beta2", "v1beta1"].into_iter();
        let mut both = known.filter(|version| served.iter().any(|one| one["version"] == *version));
        both.next().ok_or_else(|| format!("no custom metrics API ({CUSTOM}) registered"))
    }

    /// The values of an external metric.
    pub(super) async fn external(
        &self,
        namespace: &str,
        metric: &str,
        labels: &str,
    ) -> Result<Vec<i64>, String> {
        let path = format!("/apis/external.metrics.k8s.io/v1beta1/namespaces/{namespace}/{metric}");
        let answer = self.get(&path, &[("labelSelector", labels)]).await.map_err(|error| {
            format!("unable to fetch metrics from external metrics API: {}", failure_text(&error))
        })?;
        let items = items(&answer);
        if items.is_empty() {
            return Err("no metrics returned from external metrics API".to_owned());
        }
        Ok(items.iter().map(|item| milli(item["value"].as_str().unwrap_or_default())).collect())
    }
}

/// The kind that a reference names.
pub(super) fn group_version_kind(object: &CrossVersionObjectReference) -> GroupVersionKind {
    let version = object.api_version.as_deref().unwrap_or("v1");
    let (group, version) = version.split_once('/').unwrap_or(("", version));
    GroupVersionKind::gvk(group, version, &object.kind)
}

fn items(answer: &Value) -> &[Value] {
    answer["items"].as_array().map(Vec::as_slice).unwrap_or_default()
}

fn sample(item: &Value, value: i64, window: Option<Duration>) -> Sample {
    let at = item["timestamp"].as_str().and_then(|text| text.parse().ok());
    Sample { value, at: at.unwrap_or(Timestamp::UNIX_EPOCH), window: window.unwrap_or(DEFAULT_WINDOW) }
}

/// A duration as Go writes it, such as `1m30s` or `10.5s`.
fn window(text: &str) -> Option<Duration> {
    let (mut total, mut rest) = (0.0, text);
    while !rest.is_empty() {
        let unit_at = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..unit_at].parse().ok()?;
        let after = &rest[unit_at..];
        let unit_end = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        total += number
            * match &after[..unit_end] {
                "h" => 3600.0,
                "m" => 60.0,
                "s" => 1.0,
                "ms" => 0.001,
                _ => return None,
            };
        rest = &after[unit_end..];
    }
    Duration::try_from_secs_f64(total).ok()
}

/// Percent-encoded for a query.
fn encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes()
        .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_go_writes_them() {
        for (text, seconds) in [
            ("10s", Some(10.0)),
            ("1m30s", Some(90.0)),
            ("10.5s", Some(10.5)),
            ("1h0m0s", Some(3600.0)),
            ("x", None),
        ] {
            assert_eq!(window(text), seconds.map(Duration::from_secs_f64), "{text}");
        }
    }

    #[test]
    fn selectors_are_encoded() {
        assert_eq!(encoded("app=web,tier in (a,b)"), "app%3Dweb%2Ctier%20in%20%28a%2Cb%29");
    }
}
