//! The conditions of an autoscaler.

use k8s_openapi::api::autoscaling::v2::{HorizontalPodAutoscalerCondition, HorizontalPodAutoscalerStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

/// The target can be read and scaled.
pub(super) const ABLE_TO_SCALE: &str = "AbleToScale";
/// A size can be calculated.
pub(super) const SCALING_ACTIVE: &str = "ScalingActive";
/// The calculated size is beyond a limit.
pub(super) const SCALING_LIMITED: &str = "ScalingLimited";

/// Sets a condition; its transition time moves with its status only.
pub(super) fn set(
    status: &mut HorizontalPodAutoscalerStatus,
    type_: &str,
    value: bool,
    reason: &str,
    message: impl Into<String>,
    now: Timestamp,
) {
    let conditions = status.conditions.get_or_insert_default();
    let at = conditions.iter().position(|condition| condition.type_ == type_).unwrap_or_else(|| {
        conditions.push(HorizontalPodAutoscalerCondition::default());
        conditions.len() - 1
    });
    let known = &mut conditions[at];
    let value = if value { "True" } else { "False" };
    if known.status != value {
        known.last_transition_time = Some(Time(now));
    }
    known.type_ = type_.to_owned();
    known.status = value.to_owned();
    known.reason = Some(reason.to_owned());
    known.message = Some(message.into());
}
