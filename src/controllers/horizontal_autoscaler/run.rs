//! One look at an autoscaler: read the target's scale, ask for its metrics, scale, tell.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::api::autoscaling::v1::Scale;
use k8s_openapi::api::autoscaling::v2::{
    HorizontalPodAutoscaler, HorizontalPodAutoscalerStatus, MetricStatus,
};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use kube::api::{Api, ApiResource, DynamicObject, PostParams};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::behavior::{self, History};
use super::evaluate::Target;
use super::metrics::{Metrics, group_version_kind};
use super::status::{ABLE_TO_SCALE, SCALING_ACTIVE, SCALING_LIMITED, set};
use crate::api::selector::LabelSelector;
use crate::client::{Change, Clock, Controller, EventType, Informer, Key, Next, Recorder, error};
use crate::controllers::workload::{failure_text, selects};
use crate::controllers::{Context, discovery};

const WORKERS: usize = 5;
/// The time between two looks.
const PERIOD: Duration = Duration::from_secs(15);

/// Why an autoscaler could not be looked at.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The status could not be written.
    #[error("update status")]
    Status(#[source] kube::Error),
}

/// Runs the autoscaler until `stop`.
pub async fn run(context: Context, stop: CancellationToken) {
    let Context { client, informers, recorder, clock, .. } = context;
    let (scalers, pods) = (informers.get::<HorizontalPodAutoscaler>(), informers.get::<Pod>());
    let controller = Controller::new("horizontalpodautoscaler")
        .workers(WORKERS)
        .watch(&scalers, |change: &Change<HorizontalPodAutoscaler>| {
            // Our own writes of the status are no reason to look again.
            let spec =
                |scaler: Option<&Arc<HorizontalPodAutoscaler>>| scaler.map(|scaler| scaler.spec.clone());
            let changed = spec(change.before()) != spec(change.after()) || change.after().is_none();
            if changed { vec![Key::of(change.object().as_ref())] } else { Vec::new() }
        })
        .after(&pods);
    let metrics = Metrics(client.clone());
    let (histories, selectors, kinds) = (Mutex::default(), Mutex::default(), Mutex::default());
    let this = Arc::new(Autoscalers {
        client,
        metrics,
        scalers,
        pods,
        recorder,
        clock,
        histories,
        selectors,
        kinds,
    });
    let reconcile = move |key: Key| {
        let this = this.clone();
        async move { this.reconcile(&key).await }
    };
    controller.run(reconcile, stop).await;
}

struct Autoscalers {
    client: Client,
    metrics: Metrics,
    scalers: Informer<HorizontalPodAutoscaler>,
    pods: Informer<Pod>,
    recorder: Recorder,
    clock: Clock,
    histories: Mutex<HashMap<Key, History>>,
    /// What each autoscaler selected when it was last looked at.
    selectors: Mutex<HashMap<Key, LabelSelector>>,
    /// Resources of kinds that were targets before, by API version and kind.
    kinds: Mutex<HashMap<(String, String), ApiResource>>,
}

/// What a look came to.
struct Outcome {
    status: HorizontalPodAutoscalerStatus,
    /// Why it came to nothing, for the log; conditions and events tell the user.
    failure: Option<String>,
}

impl Autoscalers {
    async fn reconcile(&self, key: &Key) -> Result<Next, Error> {
        let Some(scaler) = self.scalers.get(key) else {
            self.histories().remove(key);
            self.selectors.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
            return Ok(Next::Done);
        };
        let Outcome { status, failure } = self.look(key, &scaler).await;
        if let Some(failure) = failure {
            debug!(failure, "not autoscaled");
        }
        if scaler.status.as_ref() != Some(&status) {
            let wanted = HorizontalPodAutoscaler { status: Some(status), ..scaler.as_ref().clone() };
            match selects::write_status(&self.client, &wanted).await {
                // Somebody changed it meanwhile; the next look begins with that.
                Err(failure) if error::is_conflict(&failure) => {}
                written => written.map_err(Error::Status)?,
            }
        }
        Ok(Next::After(PERIOD))
    }

    fn histories(&self) -> std::sync::MutexGuard<'_, HashMap<Key, History>> {
        self.histories.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn warn(&self, scaler: &HorizontalPodAutoscaler, reason: &str, message: impl Into<String>) {
        self.recorder.event(scaler, EventType::Warning, reason, message.into());
    }

    async fn look(&self, key: &Key, scaler: &HorizontalPodAutoscaler) -> Outcome {
        let now = self.clock.now();
        let mut status = scaler.status.clone().unwrap_or_default();
        let target = &scaler.spec.scale_target_ref;
        let found = match self.resource(scaler).await {
            Ok(resource) => {
                let api: Api<DynamicObject> =
                    Api::namespaced_with(self.client.clone(), key.namespace(), &resource);
                api.get_scale(&target.name).await.map(|scale| (api, scale))
            }
            Err(failure) => Err(failure),
        };
        let (api, scale) = match found {
            Ok(found) => found,
            Err(failure) => {
                let why = failure_text(&failure);
                self.warn(scaler, "FailedGetScale", &why);
                let message =
                    format!("the HPA controller was unable to get the target's current scale: {why}");
                set(&mut status, ABLE_TO_SCALE, false, "FailedGetScale", message, now);
                return Outcome { status, failure: Some(why) };
            }
        };
        let message = "the HPA controller was able to get the target's current scale";
        set(&mut status, ABLE_TO_SCALE, true, "SucceededGetScale", message, now);
        let current = scale.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(0);
        self.histories().entry(key.clone()).or_default().begin(current, now);
        let (least, most) = (behavior::least(&scaler.spec), scaler.spec.max_replicas);
        let mut metrics = Vec::new();
        let (desired, reason) = if current == 0 && least != 0 {
            let message = "scaling is disabled since the replica count of the target is zero";
            set(&mut status, SCALING_ACTIVE, false, "ScalingDisabled", message, now);
            (0, String::new())
        } else if current > most {
            (most, "Current number of replicas above Spec.MaxReplicas".to_owned())
        } else if current < least {
            (least, "Current number of replicas below Spec.MinReplicas".to_owned())
        } else {
            match self.recommend(key, scaler, &scale, &mut status, now).await {
                Ok((wanted, metric, said)) => {
                    metrics = said;
                    let desired = self.normalize(key, scaler, current, wanted, &mut status, now);
                    let reason = match wanted {
                        wanted if wanted > current => format!("{metric} above target"),
                        wanted if wanted < current => "All metrics below target".to_owned(),
                        _ => String::new(),
                    };
                    (desired, reason)
                }
                Err(failure) => {
                    status.current_replicas = Some(current);
                    return Outcome { status, failure: Some(failure) };
                }
            }
        };
        status.current_replicas = Some(current);
        if desired != current {
            if let Err(failure) = self.scale(&api, &target.name, scale, desired).await {
                let why = failure_text(&failure);
                self.warn(
                    scaler,
                    "FailedRescale",
                    format!("New size: {desired}; reason: {reason}; error: {why}"),
                );
                let message = format!("the HPA controller was unable to update the target scale: {why}");
                set(&mut status, ABLE_TO_SCALE, false, "FailedUpdateScale", message, now);
                return Outcome { status, failure: Some(why) };
            }
            let message = format!("the HPA controller was able to update the target scale to {desired}");
            set(&mut status, ABLE_TO_SCALE, true, "SucceededRescale", message, now);
            let message = format!("New size: {desired}; reason: {reason}");
            self.recorder.event(scaler, EventType::Normal, "SuccessfulRescale", message);
            self.histories().entry(key.clone()).or_default().scaled(current, desired, now);
            status.last_scale_time = Some(Time(now));
        }
        status.desired_replicas = desired;
        status.current_metrics = Some(metrics).filter(|metrics| !metrics.is_empty());
        Outcome { status, failure: None }
    }

    fn normalize(
        &self,
        key: &Key,
        scaler: &HorizontalPodAutoscaler,
        current: i32,
        wanted: i32,
        status: &mut HorizontalPodAutoscalerStatus,
        now: Timestamp,
    ) -> i32 {
        let mut histories = self.histories();
        let history = histories.entry(key.clone()).or_default();
        let normal = behavior::normalize(&scaler.spec, history, current, wanted, now);
        set(status, ABLE_TO_SCALE, true, normal.able.0, normal.able.1, now);
        set(status, SCALING_LIMITED, normal.limited.0, normal.limited.1, normal.limited.2, now);
        normal.desired
    }

    /// The size that the metrics ask for, the metric that asks for most, and what each says.
    async fn recommend(
        &self,
        key: &Key,
        scaler: &HorizontalPodAutoscaler,
        scale: &Scale,
        status: &mut HorizontalPodAutoscalerStatus,
        now: Timestamp,
    ) -> Result<(i32, String, Vec<MetricStatus>), String> {
        let text = scale.status.as_ref().and_then(|status| status.selector.as_deref()).unwrap_or_default();
        let selector = self.selector(scaler, text, status, now)?;
        let mut pods = self.pods.in_namespace(key.namespace());
        pods.retain(|pod| selector.matches_labels(pod.metadata.labels.as_ref()));
        let target = Target {
            namespace: key.namespace(),
            selector: text,
            pods: &pods,
            wanted: scale.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(0),
            present: scale.status.as_ref().map_or(0, |status| status.replicas),
            tolerance: behavior::tolerance(&scaler.spec),
            now,
        };
        let specs = scaler.spec.metrics.as_deref().unwrap_or_default();
        let (mut best, mut statuses, mut silent) = (None::<(i32, String)>, Vec::new(), Vec::new());
        for spec in specs {
            match target.evaluate(&self.metrics, spec).await {
                Ok(said) => {
                    statuses.push(said.status);
                    if best.as_ref().is_none_or(|(most, _)| said.replicas > *most) {
                        best = Some((said.replicas, said.name));
                    }
                }
                Err(failure) => {
                    self.warn(scaler, failure.reason, &failure.message);
                    statuses.push(MetricStatus::default());
                    silent.push(failure);
                }
            }
        }
        let asked = best.filter(|(most, _)| silent.is_empty() || *most >= target.wanted);
        let Some((replicas, metric)) = asked else {
            let Some(first) = silent.first() else { return Err("no metrics".to_owned()) };
            let message = format!("the HPA was unable to compute the replica count: {}", first.message);
            set(status, SCALING_ACTIVE, false, first.reason, message, now);
            let message = format!(
                "invalid metrics ({} invalid out of {}), first error is: {}",
                silent.len(),
                specs.len(),
                first.summary
            );
            self.warn(scaler, "FailedComputeMetricsReplicas", &message);
            return Err(message);
        };
        let message = format!("the HPA was able to successfully calculate a replica count from {metric}");
        set(status, SCALING_ACTIVE, true, "ValidMetricFound", message, now);
        Ok((replicas, metric, statuses))
    }

    /// The selector of the target's pods.
    fn selector(
        &self,
        scaler: &HorizontalPodAutoscaler,
        text: &str,
        status: &mut HorizontalPodAutoscalerStatus,
        now: Timestamp,
    ) -> Result<LabelSelector, String> {
        if text.is_empty() {
            let message = "the HPA target's scale is missing a selector";
            set(status, SCALING_ACTIVE, false, "InvalidSelector", message, now);
            self.warn(scaler, "SelectorRequired", "selector is required");
            self.warn(scaler, "FailedComputeMetricsReplicas", "selector is required");
            return Err("selector is required".to_owned());
        }
        let mut refuse = |reason: &str, why: String| {
            set(status, SCALING_ACTIVE, false, reason, &why, now);
            self.warn(scaler, reason, &why);
            self.warn(scaler, "FailedComputeMetricsReplicas", &why);
            why
        };
        let selector = LabelSelector::parse(text).map_err(|error| {
            let why =
                format!("couldn't convert selector into a corresponding internal selector object: {error}");
            refuse("InvalidSelector", why)
        })?;
        let rivals = self.rivals(&Key::of(scaler), &selector);
        if rivals.len() > 1 {
            let why =
                format!("pods by selector {text} are controlled by multiple HPAs: [{}]", rivals.join(" "));
            return Err(refuse("AmbiguousSelector", why));
        }
        Ok(selector)
    }

    /// The autoscalers, this one among them, that select pods which this one selects.
    fn rivals(&self, key: &Key, selector: &LabelSelector) -> Vec<String> {
        let mut selectors = self.selectors.lock().unwrap_or_else(PoisonError::into_inner);
        selectors.insert(key.clone(), selector.clone());
        let pods = self.pods.in_namespace(key.namespace());
        let own: Vec<_> =
            pods.iter().filter(|pod| selector.matches_labels(pod.metadata.labels.as_ref())).collect();
        let in_namespace = selectors.iter().filter(|(other, _)| other.namespace() == key.namespace());
        let rivals = in_namespace
            .filter(|(_, other)| own.iter().any(|pod| other.matches_labels(pod.metadata.labels.as_ref())));
        let mut names: Vec<_> = rivals.map(|(other, _)| other.to_string()).collect();
        names.sort();
        names
    }

    async fn scale(
        &self,
        api: &Api<DynamicObject>,
        name: &str,
        mut scale: Scale,
        size: i32,
    ) -> kube::Result<()> {
        scale.spec.get_or_insert_default().replicas = Some(size);
        api.replace_scale(name, &PostParams::default(), &scale).await.map(drop)
    }

    /// The resource of the target's kind: in the version that is named, or else in the group's preferred one.
    async fn resource(&self, scaler: &HorizontalPodAutoscaler) -> kube::Result<ApiResource> {
        let target = &scaler.spec.scale_target_ref;
        let slot = (target.api_version.clone().unwrap_or_default(), target.kind.clone());
        let known = self.kinds.lock().unwrap_or_else(PoisonError::into_inner).get(&slot).cloned();
        if let Some(known) = known {
            return Ok(known);
        }
        let kind = group_version_kind(target);
        let resource = match kube::discovery::pinned_kind(&self.client, &kind).await {
            Ok((resource, _)) => resource,
            Err(failure) => {
                let all = discovery::discover(&self.client).await?;
                let resources = all.types.into_iter().map(|found| found.resource);
                let same = |found: &ApiResource| found.group == kind.group && found.kind == kind.kind;
                resources.into_iter().find(same).ok_or(failure)?
            }
        };
        self.kinds.lock().unwrap_or_else(PoisonError::into_inner).insert(slot, resource.clone());
        Ok(resource)
    }
}
