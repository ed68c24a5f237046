//! The pod failure policy and the success policy.

use k8s_openapi::api::batch::v1::{PodFailurePolicyRule, SuccessPolicyRule};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};

use super::indexes::Indexes;

/// What the failure policy says about a failed pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It counts towards the backoff limit.
    Count,
    /// It does not count.
    Ignore,
    /// Its index is given up.
    FailIndex,
    /// The Job fails, with this message.
    FailJob(String),
}

/// The verdict of the first rule that matches a failed pod.
pub fn judge(rules: &[PodFailurePolicyRule], pod: &Pod) -> Verdict {
    for (at, rule) in rules.iter().enumerate() {
        let Some(cause) = cause(rule, pod) else { continue };
        return match rule.action.as_str() {
            "Ignore" => Verdict::Ignore,
            "FailIndex" => Verdict::FailIndex,
            "FailJob" => Verdict::FailJob(format!("{cause} matching FailJob rule at index {at}")),
            _ => Verdict::Count,
        };
    }
    Verdict::Count
}

/// Why the rule matches the pod, in upstream's words.
fn cause(rule: &PodFailurePolicyRule, pod: &Pod) -> Option<String> {
    let name = || {
        let meta = &pod.metadata;
        format!(
            "{}/{}",
            meta.namespace.as_deref().unwrap_or_default(),
            meta.name.as_deref().unwrap_or_default()
        )
    };
    let status = pod.status.as_ref()?;
    if let Some(codes) = &rule.on_exit_codes {
        let all = status.container_statuses.iter().chain(&status.init_container_statuses).flatten();
        let asked = |container: &&ContainerStatus| {
            codes.container_name.as_ref().is_none_or(|name| *name == container.name)
        };
        let failed = all.filter(asked).find_map(|container| {
            let code = container.state.as_ref()?.terminated.as_ref()?.exit_code;
            let listed = codes.values.contains(&code);
            let hit = code != 0 && (if codes.operator == "NotIn" { !listed } else { listed });
            hit.then_some((&container.name, code))
        });
        return failed.map(|(container, code)| {
            format!("Container {container} for pod {} failed with exit code {code}", name())
        });
    }
    let patterns = rule.on_pod_conditions.iter().flatten();
    let mut conditions = status.conditions.iter().flatten();
    let hit = conditions.find(|condition| {
        patterns.clone().any(|pattern| {
            let wanted = pattern.status.as_deref().unwrap_or("True");
            pattern.type_ == condition.type_ && wanted == condition.status
        })
    });
    hit.map(|condition| format!("Pod {} has condition {}", name(), condition.type_))
}

/// The number of the first success rule that is met.
pub fn met(rules: &[SuccessPolicyRule], completions: i32, done: &Indexes) -> Option<usize> {
    rules.iter().position(|rule| {
        let count = rule.succeeded_count.unwrap_or(i32::MAX);
        match rule.succeeded_indexes.as_deref() {
            None => done.total() >= count,
            Some(text) => {
                let wanted = Indexes::parse(text, completions);
                let hits = wanted.0.intersection(&done.0).count();
                hits == wanted.0.len() || i32::try_from(hits).is_ok_and(|hits| hits >= count)
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn judged(rules: Value, status: Value) -> Verdict {
        let pod = json!({"metadata": {"name": "p", "namespace": "ns"}, "status": status});
        let rules: Vec<PodFailurePolicyRule> = serde_json::from_value(rules).unwrap();
        judge(&rules, &serde_json::from_value(pod).unwrap())
    }

    fn exited(code: i32) -> Value {
        json!({"containerStatuses": [{"name": "main", "image": "", "imageID": "", "ready": false, "restartCount": 0,
            "state": {"terminated": {"exitCode": code}}}]})
    }

    #[test]
    fn the_first_matching_rule_decides() {
        let codes = |action: &str, operator: &str, container: Option<&str>| json!([{"action": action, "onExitCodes": {"operator": operator, "values": [42], "containerName": container}}]);
        for (rules, code, expected) in [
            (codes("Ignore", "In", None), 42, Verdict::Ignore),
            (codes("Ignore", "In", None), 1, Verdict::Count),
            (codes("FailIndex", "NotIn", None), 1, Verdict::FailIndex),
            (codes("FailIndex", "NotIn", Some("other")), 1, Verdict::Count),
            (
                codes("FailJob", "In", Some("main")),
                42,
                Verdict::FailJob(
                    "Container main for pod ns/p failed with exit code 42 matching FailJob rule at index 0"
                        .into(),
                ),
            ),
        ] {
            assert_eq!(judged(rules.clone(), exited(code)), expected, "{rules} {code}");
        }
        let disrupted = json!([
            {"action": "Count", "onPodConditions": [{"type": "Other", "status": "True"}]},
            {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]},
        ]);
        let status = json!({"conditions": [{"type": "DisruptionTarget", "status": "True"}]});
        assert_eq!(judged(disrupted, status), Verdict::Ignore);
    }

    #[test]
    fn success_rules_ask_for_indexes_numbers_or_both() {
        let done = Indexes::parse("0,2,5", 10);
        for (rule, expected) in [
            (json!({"succeededIndexes": "0,2"}), true),
            (json!({"succeededIndexes": "0-2"}), false),
            (json!({"succeededIndexes": "0-2", "succeededCount": 2}), true),
            (json!({"succeededCount": 3}), true),
            (json!({"succeededCount": 4}), false),
        ] {
            let rules: Vec<SuccessPolicyRule> = vec![serde_json::from_value(rule.clone()).unwrap()];
            assert_eq!(met(&rules, 10, &done), expected.then_some(0), "{rule}");
        }
    }
}
