//! From samples of pods to the number of pods that brings their average to the target. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Pod};
use k8s_openapi::jiff::{SignedDuration, Timestamp};

use crate::api::quantity::Quantity;
use crate::controllers::workload::pods;

/// A pod that started no longer ago than this may still be busy with starting.
const INITIALIZATION: SignedDuration = SignedDuration::from_secs(300);
/// A pod that became not ready within this time after its start has never been ready.
const FIRST_READINESS: SignedDuration = SignedDuration::from_secs(30);

/// One measured value, in thousandths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// The value.
    pub value: i64,
    /// When it was measured.
    pub at: Timestamp,
    /// What it is an average over.
    pub window: Duration,
}

/// Samples by pod.
pub type Samples = BTreeMap<String, Sample>;

/// How far a ratio may be from 1 without anything being done.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tolerance {
    /// Upwards.
    pub up: f64,
    /// Downwards.
    pub down: f64,
}

impl Default for Tolerance {
    fn default() -> Self {
        Self { up: 0.1, down: 0.1 }
    }
}

impl Tolerance {
    /// The ratio is near enough to 1.
    pub fn covers(self, ratio: f64) -> bool {
        1.0 - self.down <= ratio && ratio <= 1.0 + self.up
    }
}

/// What the pods' average is to be.
#[derive(Debug, Clone, Copy)]
pub enum Goal<'a> {
    /// A percentage of what pods request; requests in thousandths.
    Utilization {
        /// The percentage.
        percent: i32,
        /// Requests by pod.
        requests: &'a BTreeMap<String, i64>,
    },
    /// A value in thousandths.
    Average(i64),
}

/// A number of pods, and the measured average that it follows from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Proposal {
    /// Number of pods.
    pub replicas: i32,
    /// The average as a percentage of the requests, where the goal is one.
    pub utilization: Option<i32>,
    /// The average in thousandths.
    pub average: i64,
}

fn float(number: i64) -> f64 {
    // Thousandths of anything that a cluster has are exact in a float.
    #[expect(clippy::cast_precision_loss, reason = "a ratio is wanted, not an exact number")]
    let float = number as f64;
    float
}

fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Rounds up to a number of pods.
pub fn whole(number: f64) -> i32 {
    #[expect(clippy::cast_possible_truncation, reason = "the value is clamped to the range before")]
    let whole = number.ceil().clamp(0.0, f64::from(i32::MAX)) as i32;
    whole
}

/// The ratio of two values.
pub fn ratio(value: i64, target: i64) -> f64 {
    float(value) / float(target)
}

impl Goal<'_> {
    /// The average over `samples`, and its ratio to the goal.
    fn measure(&self, samples: &Samples) -> Result<(f64, Proposal), String> {
        match self {
            Self::Average(target) => {
                let total: i64 = samples.values().map(|sample| sample.value).sum();
                let average = total / count(samples.len()).max(1);
                Ok((ratio(average, *target), Proposal { replicas: 0, utilization: None, average }))
            }
            Self::Utilization { percent, requests } => {
                let known =
                    samples.iter().filter_map(|(pod, sample)| Some((sample.value, requests.get(pod)?)));
                let (mut used, mut requested, mut entries) = (0, 0, 0);
                for (value, request) in known {
                    (used, requested, entries) = (used + value, requested + request, entries + 1);
                }
                if requested == 0 {
                    return Err("no metrics returned matched known pods".to_owned());
                }
                let utilization = i32::try_from(used * 100 / requested).unwrap_or(i32::MAX);
                let proposal =
                    Proposal { replicas: 0, utilization: Some(utilization), average: used / entries };
                Ok((f64::from(utilization) / f64::from(*percent), proposal))
            }
        }
    }

    /// What a pod of which nothing is known is taken to use, so that it is no reason to scale down.
    fn assumed(&self, pod: &str) -> i64 {
        match self {
            Self::Average(target) => *target,
            Self::Utilization { percent, requests } => {
                requests.get(pod).copied().unwrap_or(0) * i64::from(*percent).max(100) / 100
            }
        }
    }
}

/// The pods by what their samples are worth.
#[derive(Debug, Default, PartialEq, Eq)]
struct Groups {
    ready: usize,
    unready: BTreeSet<String>,
    missing: BTreeSet<String>,
    ignored: BTreeSet<String>,
}

fn group(pods: &[Arc<Pod>], samples: &Samples, is_cpu: bool, now: Timestamp) -> Groups {
    let mut groups = Groups::default();
    for pod in pods {
        let name = pod.metadata.name.clone().unwrap_or_default();
        if pods::is_deleting(pod) || pods::phase(pod) == "Failed" {
            groups.ignored.insert(name);
        } else if pods::phase(pod) == "Pending" {
            groups.unready.insert(name);
        } else {
            match samples.get(&name) {
                None => drop(groups.missing.insert(name)),
                Some(sample) if is_cpu && is_starting(pod, sample, now) => drop(groups.unready.insert(name)),
                Some(_) => groups.ready += 1,
            }
        }
    }
    groups
}

/// The sample tells of the pod's start rather than of its work.
fn is_starting(pod: &Pod, sample: &Sample, now: Timestamp) -> bool {
    let condition = pods::condition(pod, "Ready");
    let started = pod.status.as_ref().and_then(|status| status.start_time.as_ref());
    let (Some(condition), Some(started)) = (condition, started) else { return true };
    let changed = condition.last_transition_time.as_ref().map_or(started.0, |time| time.0);
    let not_ready = condition.status == "False";
    if started.0 + INITIALIZATION > now {
        let window = SignedDuration::try_from(sample.window).unwrap_or_default();
        not_ready || sample.at < changed + window
    } else {
        not_ready && started.0 + FIRST_READINESS > changed
    }
}

/// The number of pods that brings their average to the goal.
///
/// # Errors
/// There is nothing to calculate with, in upstream's words.
pub fn propose(
    goal: Goal<'_>,
    pods: &[Arc<Pod>],
    mut samples: Samples,
    current: i32,
    tolerance: Tolerance,
    is_cpu: bool,
    now: Timestamp,
) -> Result<Proposal, String> {
    if pods.is_empty() {
        return Err("no pods returned by selector while calculating replica count".to_owned());
    }
    let groups = group(pods, &samples, is_cpu, now);
    samples.retain(|pod, _| !groups.ignored.contains(pod) && !groups.unready.contains(pod));
    if samples.is_empty() {
        return Err("did not receive metrics for targeted pods (pods might be unready)".to_owned());
    }
    let (usage, measured) = goal.measure(&samples)?;
    let keep = Proposal { replicas: current, ..measured };
    let rebalance = !groups.unready.is_empty() && usage > 1.0;
    if !rebalance && groups.missing.is_empty() {
        if tolerance.covers(usage) {
            return Ok(keep);
        }
        return Ok(Proposal { replicas: whole(usage * float(count(groups.ready))), ..measured });
    }
    let mut assume = |pod: &String, value: i64| {
        samples.insert(pod.clone(), Sample { value, at: now, window: Duration::ZERO });
    };
    for pod in &groups.missing {
        if usage < 1.0 {
            assume(pod, goal.assumed(pod));
        } else if usage > 1.0 {
            assume(pod, 0);
        }
    }
    if rebalance {
        groups.unready.iter().for_each(|pod| assume(pod, 0));
    }
    let (usage_then, _) = goal.measure(&samples)?;
    if tolerance.covers(usage_then) || (usage < 1.0 && usage_then > 1.0) || (usage > 1.0 && usage_then < 1.0)
    {
        return Ok(keep);
    }
    let replicas = whole(usage_then * float(count(samples.len())));
    if (usage_then < 1.0 && replicas > current) || (usage_then > 1.0 && replicas < current) {
        return Ok(keep);
    }
    Ok(Proposal { replicas, ..measured })
}

/// The number of pods for a value that is not measured at pods: `usage` is its ratio to the target.
pub fn propose_for_ratio(
    usage: f64,
    pods: &[Arc<Pod>],
    current: i32,
    tolerance: Tolerance,
) -> Result<i32, String> {
    if current == 0 {
        return Ok(whole(usage));
    }
    if tolerance.covers(usage) {
        return Ok(current);
    }
    if pods.is_empty() {
        let why = "no pods returned by selector while calculating replica count";
        return Err(format!("unable to calculate ready pods: {why}"));
    }
    let ready = pods.iter().filter(|pod| pods::phase(pod) == "Running" && pods::is_ready(pod)).count();
    Ok(whole(usage * float(count(ready))))
}

/// The number of pods that share `value` so that each has `target`, and what each of the present ones has.
pub fn propose_per_pod(value: i64, target: i64, present: i32, tolerance: Tolerance) -> (i32, i64) {
    let usage = float(value) / (float(target) * f64::from(present));
    let replicas = if tolerance.covers(usage) { present } else { whole(ratio(value, target)) };
    let shares = i64::from(present).max(1);
    (replicas, value.div_euclid(shares) + i64::from(value.rem_euclid(shares) > 0))
}

/// What the pods request of a resource, in thousandths; of one container, if one is named.
///
/// # Errors
/// A container requests nothing, in upstream's words.
pub fn requests(
    pods: &[Arc<Pod>],
    resource: &str,
    container: Option<&str>,
) -> Result<BTreeMap<String, i64>, String> {
    let mut all = BTreeMap::new();
    for pod in pods {
        let name = pod.metadata.name.clone().unwrap_or_default();
        let request = of_pod(pod, resource, container).map_err(|missing| {
            format!("missing request for {resource} in container {missing} of Pod {name}")
        })?;
        all.insert(name, request);
    }
    Ok(all)
}

fn of_pod(pod: &Pod, resource: &str, container: Option<&str>) -> Result<i64, String> {
    let Some(spec) = &pod.spec else { return Ok(0) };
    let whole_pod = spec.resources.as_ref().filter(|_| container.is_none());
    if let Some(amount) = whole_pod.and_then(|resources| resources.requests.as_ref()?.get(resource)) {
        return Ok(milli(&amount.0));
    }
    let is_sidecar = |container: &&Container| container.restart_policy.as_deref() == Some("Always");
    let sidecars = spec.init_containers.iter().flatten().filter(is_sidecar);
    let asked =
        spec.containers.iter().chain(sidecars).filter(|c| container.is_none_or(|name| name == c.name));
    let amounts = asked.map(|container| {
        let requests = container.resources.as_ref().and_then(|resources| resources.requests.as_ref());
        let amount = requests.and_then(|requests| requests.get(resource));
        amount.map(|amount| milli(&amount.0)).ok_or_else(|| container.name.clone())
    });
    amounts.sum()
}

/// A quantity in thousandths; nothing if it cannot be read.
pub fn milli(quantity: &str) -> i64 {
    Quantity::parse(quantity).map_or(0, |quantity| quantity.milli_value())
}
