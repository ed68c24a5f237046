//! One metric of an autoscaler: its measured value, the size it asks for, and its part of the status.

use std::sync::Arc;

use k8s_openapi::api::autoscaling::v2::{
    ContainerResourceMetricStatus, ExternalMetricStatus, MetricIdentifier, MetricSpec, MetricStatus,
    MetricTarget, MetricValueStatus, ObjectMetricStatus, PodsMetricStatus, ResourceMetricStatus,
};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;
use k8s_openapi::jiff::Timestamp;

use super::calculate::{self, Goal, Proposal, Samples, Tolerance, milli};
use super::metrics::{Metrics, Pods};
use crate::api::quantity::{Format, Quantity};
use crate::api::selector::LabelSelector;

/// What metrics are evaluated against.
pub(super) struct Target<'a> {
    pub(super) namespace: &'a str,
    /// The selector of the target's pods, as text.
    pub(super) selector: &'a str,
    pub(super) pods: &'a [Arc<Pod>],
    /// `spec.replicas` of the target.
    pub(super) wanted: i32,
    /// `status.replicas` of the target.
    pub(super) present: i32,
    pub(super) tolerance: Tolerance,
    pub(super) now: Timestamp,
}

/// What a metric says.
pub(super) struct Said {
    pub(super) replicas: i32,
    /// The metric, as events name it.
    pub(super) name: String,
    pub(super) status: MetricStatus,
}

/// Why a metric says nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Silent {
    /// The reason of the condition and of the event.
    pub(super) reason: &'static str,
    /// What went wrong.
    pub(super) message: String,
    /// The same with the metric in front, for the event that sums up.
    pub(super) summary: String,
}

fn quantity(milli: i64) -> Option<ApiQuantity> {
    Some(ApiQuantity(Quantity::from_milli(milli, Format::DecimalSi).to_string()))
}

fn average(value: i64) -> MetricValueStatus {
    MetricValueStatus { average_value: quantity(value), ..MetricValueStatus::default() }
}

fn value(value: i64) -> MetricValueStatus {
    MetricValueStatus { value: quantity(value), ..MetricValueStatus::default() }
}

fn labels(metric: &MetricIdentifier) -> Result<String, String> {
    let Some(selector) = &metric.selector else { return Ok(String::new()) };
    LabelSelector::from_meta(Some(selector)).map(|s| s.to_string()).map_err(|error| error.to_string())
}

fn target_value(target: &MetricTarget) -> Option<i64> {
    target.value.as_ref().map(|value| milli(&value.0))
}

fn target_average(target: &MetricTarget) -> Option<i64> {
    target.average_value.as_ref().map(|value| milli(&value.0))
}

impl Target<'_> {
    fn pods_of(&self) -> Pods<'_> {
        Pods { namespace: self.namespace, selector: self.selector }
    }

    fn propose(&self, goal: Goal<'_>, samples: Samples, is_cpu: bool) -> Result<Proposal, String> {
        calculate::propose(goal, self.pods, samples, self.wanted, self.tolerance, is_cpu, self.now)
    }

    /// Evaluates one metric.
    pub(super) async fn evaluate(&self, metrics: &Metrics, spec: &MetricSpec) -> Result<Said, Silent> {
        let (reason, prefix, said) = match spec.type_.as_str() {
            "Resource" => {
                let name = spec.resource.as_ref().map_or("", |resource| resource.name.as_str());
                let prefix = format!("failed to get {name} resource metric value");
                ("FailedGetResourceMetric", prefix, self.resource(metrics, spec).await)
            }
            "ContainerResource" => {
                let name = spec.container_resource.as_ref().map_or("", |resource| resource.name.as_str());
                let prefix = format!("failed to get {name} container metric value");
                ("FailedGetContainerResourceMetric", prefix, self.resource(metrics, spec).await)
            }
            "Pods" => {
                let prefix = "failed to get pods metric value".to_owned();
                ("FailedGetPodsMetric", prefix, self.of_pods(metrics, spec).await)
            }
            "Object" => {
                let prefix = "failed to get object metric value".to_owned();
                ("FailedGetObjectMetric", prefix, self.of_object(metrics, spec).await)
            }
            "External" => {
                let name = spec.external.as_ref().map_or("", |external| external.metric.name.as_str());
                let prefix = format!("failed to get {name} external metric value");
                ("FailedGetExternalMetric", prefix, self.external(metrics, spec).await)
            }
            other => {
                let message = format!("unknown metric source type {other:?}");
                let summary = message.clone();
                return Err(Silent { reason: "InvalidMetricSourceType", message, summary });
            }
        };
        said.map_err(|message| Silent { reason, summary: format!("{prefix}: {message}"), message })
    }

    async fn resource(&self, metrics: &Metrics, spec: &MetricSpec) -> Result<Said, String> {
        let (name, container, target) = match (&spec.resource, &spec.container_resource) {
            (Some(source), _) => (&source.name, None, &source.target),
            (None, Some(source)) => (&source.name, Some(source.container.as_str()), &source.target),
            (None, None) => return Err("the metric names no resource".to_owned()),
        };
        let failed = |why: String| format!("failed to get {name} utilization: {why}");
        let get = async {
            let samples = metrics.resource(self.pods_of(), name, container).await;
            samples.map_err(|why| failed(format!("unable to get metrics for resource {name}: {why}")))
        };
        let is_cpu = name == "cpu";
        let (proposal, title) = if let Some(target) = target_average(target) {
            let proposal = self.propose(Goal::Average(target), get.await?, is_cpu).map_err(failed)?;
            (proposal, format!("{name} resource"))
        } else if let Some(percent) = target.average_utilization {
            let samples = get.await?;
            let requests = calculate::requests(self.pods, name, container).map_err(failed)?;
            let goal = Goal::Utilization { percent, requests: &requests };
            let proposal = self.propose(goal, samples, is_cpu).map_err(failed)?;
            (proposal, format!("{name} resource utilization (percentage of request)"))
        } else {
            let why = "invalid resource metric source: neither an average utilization target nor an average value \
                       (usage) target was set";
            return Err(why.to_owned());
        };
        let current =
            MetricValueStatus { average_utilization: proposal.utilization, ..average(proposal.average) };
        let mut status = MetricStatus { type_: spec.type_.clone(), ..MetricStatus::default() };
        match container {
            None => status.resource = Some(ResourceMetricStatus { name: name.clone(), current }),
            Some(container) => {
                let (name, container) = (name.clone(), container.to_owned());
                status.container_resource = Some(ContainerResourceMetricStatus { name, container, current });
            }
        }
        Ok(Said { replicas: proposal.replicas, name: title, status })
    }

    async fn of_pods(&self, metrics: &Metrics, spec: &MetricSpec) -> Result<Said, String> {
        let source = spec.pods.as_ref().ok_or("the metric has no source")?;
        let name = &source.metric.name;
        let target = target_average(&source.target).ok_or("the metric has no average value as target")?;
        let samples = metrics.pods(self.pods_of(), name, &labels(&source.metric)?).await;
        let samples = samples.map_err(|why| format!("unable to get metric {name}: {why}"))?;
        let proposal = self.propose(Goal::Average(target), samples, false)?;
        let status = PodsMetricStatus { metric: source.metric.clone(), current: average(proposal.average) };
        Ok(Said {
            replicas: proposal.replicas,
            name: format!("pods metric {name}"),
            status: MetricStatus { type_: spec.type_.clone(), pods: Some(status), ..MetricStatus::default() },
        })
    }

    async fn of_object(&self, metrics: &Metrics, spec: &MetricSpec) -> Result<Said, String> {
        let source = spec.object.as_ref().ok_or("the metric has no source")?;
        let (name, object) = (&source.metric.name, &source.described_object);
        let get = async {
            let value = metrics.object(self.namespace, object, name, &labels(&source.metric)?).await;
            value.map_err(|why| {
                let namespace = self.namespace;
                format!("unable to get metric {name}: {} on {namespace} {}/{why}", object.kind, object.name)
            })
        };
        let (replicas, current) = if let Some(target) = target_value(&source.target) {
            let measured = get.await?;
            (self.propose_for(measured, target)?, value(measured))
        } else if let Some(target) = target_average(&source.target) {
            let (replicas, share) =
                calculate::propose_per_pod(get.await?, target, self.present, self.tolerance);
            (replicas, average(share))
        } else {
            let why =
                "invalid object metric source: neither a value target nor an average value target was set";
            return Err(why.to_owned());
        };
        let status =
            ObjectMetricStatus { metric: source.metric.clone(), described_object: object.clone(), current };
        Ok(Said {
            replicas,
            name: format!("{} metric {name}", object.kind),
            status: MetricStatus {
                type_: spec.type_.clone(),
                object: Some(status),
                ..MetricStatus::default()
            },
        })
    }

    async fn external(&self, metrics: &Metrics, spec: &MetricSpec) -> Result<Said, String> {
        let source = spec.external.as_ref().ok_or("the metric has no source")?;
        let (name, selector) = (&source.metric.name, labels(&source.metric)?);
        let get = async {
            let values = metrics.external(self.namespace, name, &selector).await;
            let values = values.map_err(|why| {
                let namespace = self.namespace;
                format!("unable to get external metric {namespace}/{name}/{selector}: {why}")
            });
            values.map(|values| values.iter().sum::<i64>())
        };
        let (replicas, current) = if let Some(target) = target_average(&source.target) {
            let value = get.await.map_err(|why| format!("failed to get {name} external metric: {why}"))?;
            let (replicas, share) = calculate::propose_per_pod(value, target, self.present, self.tolerance);
            (replicas, average(share))
        } else if let Some(target) = target_value(&source.target) {
            let measured = get.await.map_err(|why| format!("failed to get external metric {name}: {why}"))?;
            (self.propose_for(measured, target)?, value(measured))
        } else {
            let why =
                "invalid external metric source: neither a value target nor an average value target was set";
            return Err(why.to_owned());
        };
        let status = ExternalMetricStatus { metric: source.metric.clone(), current };
        let shown = if selector.is_empty() { "nil" } else { &selector };
        Ok(Said {
            replicas,
            name: format!("external metric {name}({shown})"),
            status: MetricStatus {
                type_: spec.type_.clone(),
                external: Some(status),
                ..MetricStatus::default()
            },
        })
    }

    fn propose_for(&self, measured: i64, target: i64) -> Result<i32, String> {
        let usage = calculate::ratio(measured, target);
        calculate::propose_for_ratio(usage, self.pods, self.wanted, self.tolerance)
    }
}
