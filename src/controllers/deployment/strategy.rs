//! What the deployment's strategy allows: surge and unavailability in pods.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// The strategy in numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Old pods must be gone before new ones start.
    pub recreate: bool,
    /// Wanted number of pods.
    pub replicas: i32,
    /// How many pods more than wanted may exist during an update.
    pub max_surge: i32,
    /// How many pods fewer than wanted may be available during an update.
    pub max_unavailable: i32,
}

impl Limits {
    /// Reads the limits from the deployment's spec; absent fields have the API's defaults.
    pub fn of(deployment: &Deployment) -> Self {
        let spec = deployment.spec.as_ref();
        let replicas = spec.and_then(|s| s.replicas).unwrap_or(1).max(0);
        let strategy = spec.and_then(|s| s.strategy.as_ref());
        if strategy.and_then(|s| s.type_.as_deref()) == Some("Recreate") {
            return Self { recreate: true, replicas, max_surge: 0, max_unavailable: 0 };
        }
        let rolling = strategy.and_then(|s| s.rolling_update.as_ref());
        let default = IntOrString::String("25%".to_owned());
        let surge = rolling.and_then(|r| r.max_surge.as_ref()).unwrap_or(&default);
        let unavailable = rolling.and_then(|r| r.max_unavailable.as_ref()).unwrap_or(&default);
        let max_surge = scaled(surge, replicas, true);
        let mut max_unavailable = scaled(unavailable, replicas, false);
        if max_surge == 0 && max_unavailable == 0 {
            max_unavailable = 1;
        }
        Self { recreate: false, replicas, max_surge, max_unavailable: max_unavailable.min(replicas) }
    }

    /// The most pods that may exist.
    pub fn max_total(&self) -> i32 {
        self.replicas.saturating_add(self.max_surge)
    }

    /// The fewest pods that must be available.
    pub fn min_available(&self) -> i32 {
        self.replicas - self.max_unavailable
    }
}

/// A number as it is, a percentage of `total` rounded up or down. Values that validation refuses count as zero.
pub fn scaled(value: &IntOrString, total: i32, round_up: bool) -> i32 {
    match value {
        IntOrString::Int(number) => (*number).max(0),
        IntOrString::String(text) => {
            let percent = text.strip_suffix('%').and_then(|p| p.parse::<i64>().ok()).unwrap_or(0).max(0);
            let product = percent.saturating_mul(i64::from(total));
            let result = if round_up { product.saturating_add(99) / 100 } else { product / 100 };
            i32::try_from(result).unwrap_or(i32::MAX)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn limits(replicas: i32, strategy: Value) -> Limits {
        let deployment = json!({"metadata": {}, "spec": {"replicas": replicas, "strategy": strategy, "selector": {}, "template": {}}});
        Limits::of(&serde_json::from_value(deployment).unwrap())
    }

    #[test]
    fn numbers_and_percentages_become_pods() {
        for (replicas, surge, unavailable, expected) in [
            (4, json!("25%"), json!("25%"), (1, 1)),
            (3, json!("25%"), json!("25%"), (1, 0)),
            (10, json!("25%"), json!("25%"), (3, 2)),
            (10, json!(2), json!(0), (2, 0)),
            (10, json!(0), json!(0), (0, 1)),
            (10, json!("0%"), json!("1%"), (0, 1)),
            (3, json!(1), json!(100), (1, 3)),
            (0, json!("25%"), json!("25%"), (0, 0)),
            (5, json!("100%"), json!("100%"), (5, 5)),
        ] {
            let update = json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}});
            let limits = limits(replicas, update);
            assert_eq!(
                (limits.max_surge, limits.max_unavailable),
                expected,
                "{replicas} {surge} {unavailable}"
            );
        }
    }

    #[test]
    fn recreate_has_neither_surge_nor_unavailability() {
        let limits = limits(3, json!({"type": "Recreate"}));
        assert!(limits.recreate);
        assert_eq!((limits.max_total(), limits.min_available()), (3, 3));
    }

    #[test]
    fn absent_fields_default_to_a_quarter() {
        let limits = limits(8, Value::Null);
        assert_eq!((limits.max_total(), limits.min_available()), (10, 6));
    }
}
