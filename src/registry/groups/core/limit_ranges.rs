//! LimitRanges.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{LimitRange, LimitRangeItem};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as RawQuantity;
use k8s_openapi::jiff::Timestamp;
use serde_json::Value;

use crate::api::field::{FieldError, FieldErrors, Path};
use crate::api::names;
use crate::api::quantity::Quantity;
use crate::registry::groups::core::pods::validate::{container_name, name_shape, overcommits};
use crate::registry::strategy::Strategy;
use crate::registry::table::{Column, NAME, name_cell};
use crate::registry::validation::each;

/// The columns of LimitRanges.
pub const COLUMNS: &[Column] = &[
    NAME,
    Column {
        name: "Created At",
        kind: "date",
        format: "",
        description: "When the server accepted the object.",
        priority: 0,
    },
];

const TYPES: [&str; 3] = ["Container", "PersistentVolumeClaim", "Pod"];

/// The strategy of LimitRanges.
pub struct LimitRangeStrategy;

type Amounts = BTreeMap<String, RawQuantity>;

/// Adds to `into` what `from` has and `into` does not.
fn fill(into: &mut Option<Amounts>, from: Option<&Amounts>) {
    for (name, amount) in from.into_iter().flatten() {
        into.get_or_insert_default().entry(name.clone()).or_insert_with(|| amount.clone());
    }
}

impl Strategy for LimitRangeStrategy {
    type Object = LimitRange;

    fn default(&self, range: &mut LimitRange) {
        let items = range.spec.iter_mut().flat_map(|spec| spec.limits.iter_mut());
        for item in items.filter(|item| item.type_ == "Container") {
            fill(&mut item.default, item.max.clone().as_ref());
            fill(&mut item.default_request, item.default.clone().as_ref());
            fill(&mut item.default_request, item.min.clone().as_ref());
        }
    }

    fn validate(&self, range: &LimitRange, errors: &mut FieldErrors) {
        let mut kinds = BTreeSet::new();
        for (i, one) in range.spec.iter().flat_map(|spec| &spec.limits).enumerate() {
            let at = Path::new("spec").child("limits").index(i);
            let messages = names::is_qualified_name(&one.type_);
            if messages.is_empty() && !one.type_.contains('/') && !TYPES.contains(&one.type_.as_str()) {
                let message = "must be a standard limit type or fully qualified";
                errors.push(FieldError::invalid(&at.child("type"), &one.type_, message));
            }
            each(messages, &one.type_, &at.child("type"), errors);
            if !kinds.insert(&one.type_) {
                errors.push(FieldError::duplicate(&at.child("type"), &one.type_));
            }
            item(one, &at, errors);
        }
    }

    fn cells(&self, range: &LimitRange, _: Timestamp) -> Vec<Value> {
        let created = range.metadata.creation_timestamp.as_ref();
        let created = created.map(|time| time.0.strftime("%Y-%m-%dT%H:%M:%SZ").to_string());
        vec![name_cell(&range.metadata), created.into()]
    }
}

fn amount(amounts: Option<&Amounts>, name: &str) -> Option<Quantity> {
    amounts.and_then(|amounts| amounts.get(name)).and_then(|raw| Quantity::parse(&raw.0).ok())
}

fn item(item: &LimitRangeItem, at: &Path, errors: &mut FieldErrors) {
    let maps = [
        ("max", &item.max),
        ("min", &item.min),
        ("default", &item.default),
        ("defaultRequest", &item.default_request),
        ("maxLimitRequestRatio", &item.max_limit_request_ratio),
    ];
    let mut all = BTreeSet::new();
    for (field, amounts) in maps {
        if item.type_ == "Pod" && field.starts_with("default") {
            continue;
        }
        for name in amounts.iter().flatten().map(|(name, _)| name) {
            let at = at.child(field).key(name.clone());
            if matches!(item.type_.as_str(), "Pod" | "Container") {
                container_name(name, &at, errors);
            } else {
                name_shape(name, &at, errors);
            }
            all.insert(name.as_str());
        }
    }
    if item.type_ == "Pod" {
        let message = "may not be specified when `type` is 'Pod'";
        for (field, amounts) in [("default", &item.default), ("defaultRequest", &item.default_request)] {
            if amounts.as_ref().is_some_and(|amounts| !amounts.is_empty()) {
                errors.push(FieldError::forbidden(&at.child(field), message));
            }
        }
    }
    if item.type_ == "PersistentVolumeClaim"
        && amount(item.min.as_ref(), "storage").is_none()
        && amount(item.max.as_ref(), "storage").is_none()
    {
        let message = "either minimum or maximum storage value is required, but neither was provided";
        errors.push(FieldError::required(&at.child("limits"), message));
    }
    all.into_iter().for_each(|name| relations(item, name, at, errors));
}

/// Checks that the amounts of one resource do not contradict each other.
fn relations(item: &LimitRangeItem, name: &str, at: &Path, errors: &mut FieldErrors) {
    let (min, max) = (amount(item.min.as_ref(), name), amount(item.max.as_ref(), name));
    let defaults = item.type_ != "Pod";
    let default = amount(item.default.as_ref(), name).filter(|_| defaults);
    let request = amount(item.default_request.as_ref(), name).filter(|_| defaults);
    let ratio = amount(item.max_limit_request_ratio.as_ref(), name);
    let mut ordered =
        |low: (&str, Option<Quantity>), high: (&str, Option<Quantity>), field: &'static str, shown| {
            if let (Some(low_value), Some(high_value)) = (low.1, high.1)
                && low_value > high_value
            {
                let message = format!("{} {low_value} is greater than {} {high_value}", low.0, high.0);
                errors.push(FieldError::invalid(&at.child(field).key(name.to_owned()), shown, message));
            }
        };
    ordered(("min value", min), ("max value", max), "min", min);
    ordered(("min value", min), ("default request value", request), "defaultRequest", request);
    ordered(("default request value", request), ("max value", max), "defaultRequest", request);
    ordered(("default request value", request), ("default limit value", default), "defaultRequest", request);
    ordered(("min value", min), ("default value", default), "default", min);
    ordered(("default value", default), ("max value", max), "default", max);
    if let (Some(default), Some(request)) = (default, request)
        && !overcommits(name)
        && default != request
    {
        let at = at.child("defaultRequest").key(name.to_owned());
        let message =
            format!("default value {default} must equal to defaultRequest value {request} in {name}");
        errors.push(FieldError::invalid(&at, request, message));
    }
    let at = at.child("maxLimitRequestRatio").key(name.to_owned());
    let Some(ratio) = ratio else { return };
    if ratio < Quantity::new(1, Default::default()) {
        errors.push(FieldError::invalid(&at, ratio, format!("ratio {ratio} is less than 1")));
    }
    if let (Some(min), Some(max)) = (min, max)
        && !min.is_zero()
    {
        let most = max.as_f64() / min.as_f64();
        if ratio.as_f64() > most {
            let message = format!("ratio {ratio} is greater than max/min = {most:.6}");
            errors.push(FieldError::invalid(&at, ratio, message));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn range(limits: Value) -> LimitRange {
        serde_json::from_value(json!({"metadata": {"name": "l"}, "spec": {"limits": limits}})).unwrap()
    }

    #[test]
    fn containers_get_the_maximum_and_request_the_default() {
        let mut object = range(json!([{"type": "Container", "max": {"cpu": "2"}, "min": {"memory": "1Mi"}}]));
        LimitRangeStrategy.default(&mut object);
        let item = serde_json::to_value(&object.spec.unwrap().limits[0]).unwrap();
        assert_eq!(item["default"], json!({"cpu": "2"}));
        assert_eq!(item["defaultRequest"], json!({"cpu": "2", "memory": "1Mi"}));
    }

    #[test]
    fn amounts_may_not_contradict_each_other() {
        let object = range(json!([
            {"type": "Container", "min": {"cpu": "3"}, "max": {"cpu": "2"}, "maxLimitRequestRatio": {"cpu": "500m"}},
            {"type": "Pod", "default": {"cpu": "1"}}]));
        let mut errors = FieldErrors::new();
        LimitRangeStrategy.validate(&object, &mut errors);
        let found: Vec<_> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(
            found,
            [
                "spec.limits[0].min[cpu]: Invalid value: \"3\": min value 3 is greater than max value 2",
                "spec.limits[0].maxLimitRequestRatio[cpu]: Invalid value: \"500m\": ratio 500m is less than 1",
                "spec.limits[1].default: Forbidden: may not be specified when `type` is 'Pod'",
            ]
        );
    }

    #[test]
    fn limits_are_of_known_things() {
        let cases = [
            (json!({"type": "Container", "max": {"cpu": "1", "example.com/gpu": "1"}}), None),
            (json!({"type": "PersistentVolumeClaim", "max": {"storage": "1Gi"}}), None),
            (
                json!({"type": "Node"}),
                Some(
                    "spec.limits[0].type: Invalid value: \"Node\": must be a standard limit type or fully qualified",
                ),
            ),
            (
                json!({"type": "Container", "max": {"storage": "1"}}),
                Some(
                    "spec.limits[0].max[storage]: Invalid value: \"storage\": must be a standard resource for containers",
                ),
            ),
            (
                json!({"type": "Container", "default": {"example.com/gpu": "2"}, "defaultRequest": {"example.com/gpu": "1"}}),
                Some(
                    "spec.limits[0].defaultRequest[example.com/gpu]: Invalid value: \"1\": default value 2 must equal to defaultRequest value 1 in example.com/gpu",
                ),
            ),
        ];
        for (limit, expected) in cases {
            let mut errors = FieldErrors::new();
            LimitRangeStrategy.validate(&range(json!([limit])), &mut errors);
            let found: Vec<_> = errors.iter().map(ToString::to_string).collect();
            assert_eq!(found, Vec::from_iter(expected.map(str::to_owned)), "{limit}");
        }
    }
}
