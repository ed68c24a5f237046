//! How fast and how steadily a wanted size is followed: limits, scaling policies, stabilisation windows. Pure.

use k8s_openapi::api::autoscaling::v2::{
    HPAScalingPolicy, HPAScalingRules, HorizontalPodAutoscalerBehavior, HorizontalPodAutoscalerSpec,
};
use k8s_openapi::jiff::{SignedDuration, Timestamp};

use super::calculate::{Tolerance, milli, whole};

/// Recommendations of this many seconds keep a target from being scaled down, unless its behavior says otherwise.
const DOWNSCALE_WINDOW: i32 = 300;
/// The longest period of a policy.
const LONGEST_PERIOD: SignedDuration = SignedDuration::from_secs(1800);
/// The longest stabilisation window.
const LONGEST_WINDOW: SignedDuration = SignedDuration::from_secs(3600);

/// What has been recommended and done.
#[derive(Debug, Clone, Default)]
pub struct History {
    recommendations: Vec<(Timestamp, i32)>,
    ups: Vec<(Timestamp, i32)>,
    downs: Vec<(Timestamp, i32)>,
}

impl History {
    /// Notes the size that was there first.
    pub fn begin(&mut self, current: i32, now: Timestamp) {
        if self.recommendations.is_empty() {
            self.recommendations.push((now, current));
        }
    }

    /// Notes that the target was scaled.
    pub fn scaled(&mut self, from: i32, to: i32, now: Timestamp) {
        let changes = if to > from { &mut self.ups } else { &mut self.downs };
        changes.retain(|(at, _)| *at + LONGEST_PERIOD >= now);
        changes.push((now, (to - from).abs()));
    }

    fn recommend(&mut self, size: i32, now: Timestamp) {
        self.recommendations.retain(|(at, _)| *at + LONGEST_WINDOW >= now);
        self.recommendations.push((now, size));
    }

    /// Recommendations of the last seconds.
    fn recent(&self, seconds: i32, now: Timestamp) -> impl Iterator<Item = i32> {
        let window = SignedDuration::from_secs(seconds.into());
        self.recommendations.iter().filter(move |(at, _)| *at + window > now).map(|(_, size)| *size)
    }
}

fn changed(changes: &[(Timestamp, i32)], seconds: i32, now: Timestamp) -> i32 {
    let period = SignedDuration::from_secs(seconds.into());
    changes.iter().filter(|(at, _)| *at + period > now).map(|(_, change)| change).sum()
}

/// What becomes of a wanted size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Normal {
    /// The size to scale to.
    pub desired: i32,
    /// Reason and message of the condition `AbleToScale`.
    pub able: (&'static str, &'static str),
    /// Whether the size was limited, and reason and message of the condition `ScalingLimited`.
    pub limited: (bool, &'static str, &'static str),
}

const READY: (&str, &str) = ("ReadyForNewScale", "recommended size matches current size");
const HIGHER: (&str, &str) = (
    "ScaleDownStabilized",
    "recent recommendations were higher than current one, applying the highest recent recommendation",
);
const LOWER: (&str, &str) = (
    "ScaleUpStabilized",
    "recent recommendations were lower than current one, applying the lowest recent recommendation",
);
const WITHIN: (&str, &str) = ("DesiredWithinRange", "the desired count is within the acceptable range");
const TOO_FAST_UP: (&str, &str) =
    ("ScaleUpLimit", "the desired replica count is increasing faster than the maximum scale rate");
const TOO_FAST_DOWN: (&str, &str) =
    ("ScaleDownLimit", "the desired replica count is decreasing faster than the maximum scale rate");
const TOO_MANY: (&str, &str) =
    ("TooManyReplicas", "the desired replica count is more than the maximum replica count");
const TOO_FEW: (&str, &str) =
    ("TooFewReplicas", "the desired replica count is less than the minimum replica count");

/// The fewest replicas.
pub fn least(spec: &HorizontalPodAutoscalerSpec) -> i32 {
    spec.min_replicas.unwrap_or(1)
}

/// How far a ratio may be from 1.
pub fn tolerance(spec: &HorizontalPodAutoscalerSpec) -> Tolerance {
    let behavior = spec.behavior.as_ref();
    let of = |rules: Option<&HPAScalingRules>, default: f64| {
        let tolerance = rules.and_then(|rules| rules.tolerance.as_ref());
        tolerance.map_or(default, |tolerance| super::calculate::ratio(milli(&tolerance.0), 1000))
    };
    let default = Tolerance::default();
    Tolerance {
        up: of(behavior.and_then(|b| b.scale_up.as_ref()), default.up),
        down: of(behavior.and_then(|b| b.scale_down.as_ref()), default.down),
    }
}

/// Bounds and steadies `wanted`, and notes it as recommended.
pub fn normalize(
    spec: &HorizontalPodAutoscalerSpec,
    history: &mut History,
    current: i32,
    wanted: i32,
    now: Timestamp,
) -> Normal {
    match &spec.behavior {
        None => simple(spec, history, current, wanted, now),
        Some(behavior) => by_rules(spec, behavior, history, current, wanted, now),
    }
}

fn limited(
    desired: i32,
    steady: i32,
    (reason, message): (&'static str, &'static str),
) -> (bool, &'static str, &'static str) {
    (desired != steady, reason, message)
}

fn simple(
    spec: &HorizontalPodAutoscalerSpec,
    history: &mut History,
    current: i32,
    wanted: i32,
    now: Timestamp,
) -> Normal {
    let steady = history.recent(DOWNSCALE_WINDOW, now).fold(wanted, i32::max);
    history.recommend(wanted, now);
    let able = if steady == wanted { READY } else { HIGHER };
    let fast = current.saturating_mul(2).max(4);
    let (most, why_most) =
        if spec.max_replicas > fast { (fast, TOO_FAST_UP) } else { (spec.max_replicas, TOO_MANY) };
    let (desired, why) = if steady < least(spec) {
        (least(spec), TOO_FEW)
    } else if steady > most {
        (most, why_most)
    } else {
        (steady, WITHIN)
    };
    Normal { desired, able, limited: limited(desired, steady, why) }
}

fn by_rules(
    spec: &HorizontalPodAutoscalerSpec,
    behavior: &HorizontalPodAutoscalerBehavior,
    history: &mut History,
    current: i32,
    wanted: i32,
    now: Timestamp,
) -> Normal {
    let up_window = behavior.scale_up.as_ref().and_then(|rules| rules.stabilization_window_seconds);
    let down_window = behavior.scale_down.as_ref().and_then(|rules| rules.stabilization_window_seconds);
    let lowest = history.recent(up_window.unwrap_or(0), now).fold(wanted, i32::min);
    let highest = history.recent(down_window.unwrap_or(DOWNSCALE_WINDOW), now).fold(wanted, i32::max);
    history.recommend(wanted, now);
    let steady = current.max(lowest).min(highest);
    let able = match steady == wanted {
        true => READY,
        false if wanted >= current => LOWER,
        false => HIGHER,
    };
    let (desired, why) = if steady > current {
        let fast = highest_allowed(behavior.scale_up.as_ref(), history, current, now).max(current);
        let (most, why) =
            if spec.max_replicas > fast { (fast, TOO_FAST_UP) } else { (spec.max_replicas, TOO_MANY) };
        if steady > most { (most, why) } else { (steady, WITHIN) }
    } else if steady < current {
        let fast = lowest_allowed(behavior.scale_down.as_ref(), history, current, now).min(current);
        let (fewest, why) = if least(spec) < fast { (fast, TOO_FAST_DOWN) } else { (least(spec), TOO_FEW) };
        if steady < fewest { (fewest, why) } else { (steady, WITHIN) }
    } else {
        (steady, WITHIN)
    };
    Normal { desired, able, limited: limited(desired, steady, why) }
}

fn policy(kind: &str, value: i32) -> HPAScalingPolicy {
    HPAScalingPolicy { type_: kind.to_owned(), value, period_seconds: 15 }
}

/// The policies of one direction, or upstream's defaults; `None` when scaling in that direction is disabled.
fn policies(
    rules: Option<&HPAScalingRules>,
    defaults: Vec<HPAScalingPolicy>,
) -> Option<(bool, Vec<HPAScalingPolicy>)> {
    let select = rules.and_then(|rules| rules.select_policy.as_deref());
    if select == Some("Disabled") {
        return None;
    }
    let given = rules.and_then(|rules| rules.policies.clone()).filter(|policies| !policies.is_empty());
    Some((select == Some("Min"), given.unwrap_or(defaults)))
}

fn highest_allowed(rules: Option<&HPAScalingRules>, history: &History, current: i32, now: Timestamp) -> i32 {
    let defaults = vec![policy("Pods", 4), policy("Percent", 100)];
    let Some((smallest, policies)) = policies(rules, defaults) else { return current };
    let limits = policies.iter().map(|policy| {
        let start = start_of_period(history, current, policy, now);
        match policy.type_.as_str() {
            "Percent" => whole(f64::from(start) * (1.0 + f64::from(policy.value) / 100.0)),
            _ => start.saturating_add(policy.value),
        }
    });
    if smallest { limits.min() } else { limits.max() }.unwrap_or(current)
}

fn lowest_allowed(rules: Option<&HPAScalingRules>, history: &History, current: i32, now: Timestamp) -> i32 {
    let Some((smallest, policies)) = policies(rules, vec![policy("Percent", 100)]) else { return current };
    let limits = policies.iter().map(|policy| {
        let start = start_of_period(history, current, policy, now);
        match policy.type_.as_str() {
            // Rounded down, as upstream truncates.
            "Percent" => {
                i32::try_from(i64::from(start) * i64::from(100 - policy.value) / 100).unwrap_or(start)
            }
            _ => start.saturating_sub(policy.value),
        }
    });
    // The smallest change down leaves the most.
    if smallest { limits.max() } else { limits.min() }.unwrap_or(current)
}

fn start_of_period(history: &History, current: i32, policy: &HPAScalingPolicy, now: Timestamp) -> i32 {
    let (added, removed) = (
        changed(&history.ups, policy.period_seconds, now),
        changed(&history.downs, policy.period_seconds, now),
    );
    current - added + removed
}
