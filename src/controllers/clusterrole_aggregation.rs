//! Fills cluster roles that have an aggregation rule with the rules of the roles that it selects.

use super::Context;
use crate::client::{Change, Controller, Informer, Key, Next, error};
use k8s_openapi::{
    api::rbac::v1::{ClusterRole, PolicyRule},
    apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement},
};
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use serde_json::json;
use std::{collections::BTreeMap, sync::Arc};
use tokio_util::sync::CancellationToken;
use tracing::debug;

/// What went wrong with one role.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The rules could not be written.
    #[error("update aggregated rules")]
    Patch(#[source] kube::Error),
}

/// Runs until `stop`.
pub async fn run(context: Context, stop: CancellationToken) {
    let roles = context.informers.get::<ClusterRole>();
    let (aggregated, client) = (roles.clone(), context.client);
    let controller = Controller::new("clusterrole-aggregation").watch(&roles, move |change| {
        if is_irrelevant(change) {
            return Vec::new();
        }
        let all = aggregated.list();
        all.iter().filter(|role| role.aggregation_rule.is_some()).map(|role| Key::of(role.as_ref())).collect()
    });
    let reconcile = move |key: Key| {
        let (roles, client) = (roles.clone(), client.clone());
        async move { reconcile(&roles, client, &key).await }
    };
    controller.run(reconcile, stop).await;
}

/// A role changed in nothing that matters to any aggregation.
fn is_irrelevant(change: &Change<ClusterRole>) -> bool {
    change.before().zip(change.after()).is_some_and(|(old, new)| {
        old.rules == new.rules
            && old.metadata.labels == new.metadata.labels
            && old.aggregation_rule == new.aggregation_rule
    })
}

async fn reconcile(roles: &Informer<ClusterRole>, client: Client, key: &Key) -> Result<Next, Error> {
    let Some(role) = roles.get(key).filter(|role| role.metadata.deletion_timestamp.is_none()) else {
        return Ok(Next::Done);
    };
    let Some(rules) = aggregate(&role, &roles.list()) else { return Ok(Next::Done) };
    debug!(role = %key, rules = rules.len(), "aggregated rules changed");
    let patch = json!({"metadata": {"resourceVersion": role.metadata.resource_version}, "rules": rules});
    let api = Api::<ClusterRole>::all(client);
    match api.patch(key.name(), &PatchParams::default(), &Patch::Merge(patch)).await {
        Ok(_) => Ok(Next::Done),
        Err(failure) if error::is_not_found(&failure) => Ok(Next::Done),
        Err(failure) => Err(Error::Patch(failure)),
    }
}

/// The rules that `role` must have, if it aggregates and has others.
fn aggregate(role: &ClusterRole, all: &[Arc<ClusterRole>]) -> Option<Vec<PolicyRule>> {
    let selectors = role.aggregation_rule.as_ref()?.cluster_role_selectors.as_deref().unwrap_or_default();
    let mut rules: Vec<PolicyRule> = Vec::new();
    for selector in selectors {
        let selected = all
            .iter()
            .filter(|other| other.metadata.name != role.metadata.name)
            .filter(|other| matches(selector, other.metadata.labels.as_ref()));
        for rule in selected.flat_map(|other| other.rules.iter().flatten()) {
            if !rules.contains(rule) {
                rules.push(rule.clone());
            }
        }
    }
    (role.rules.as_deref().unwrap_or_default() != rules).then_some(rules)
}

fn matches(selector: &LabelSelector, labels: Option<&BTreeMap<String, String>>) -> bool {
    let label = |key: &str| labels.and_then(|labels| labels.get(key));
    let wanted = selector.match_labels.iter().flatten();
    let holds = |requirement: &LabelSelectorRequirement| {
        let value = label(&requirement.key);
        let listed = |value: &String| requirement.values.iter().flatten().any(|known| known == value);
        match requirement.operator.as_str() {
            "In" => value.is_some_and(listed),
            "NotIn" => !value.is_some_and(listed),
            "Exists" => value.is_some(),
            "DoesNotExist" => value.is_none(),
            _ => false,
        }
    };
    wanted.into_iter().all(|(key, value)| label(key) == Some(value))
        && selector.match_expressions.iter().flatten().all(holds)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        client::fake::{FakeApi, eventually},
        controllers::testing::{self, meta},
    };
    use k8s_openapi::api::rbac::v1::AggregationRule;

    fn role(name: &str, label: &str, resources: &[&str]) -> ClusterRole {
        let rule = |resource: &&str| PolicyRule {
            resources: Some(vec![(*resource).to_owned()]),
            verbs: vec!["get".into()],
            ..PolicyRule::default()
        };
        let mut metadata = meta("", name);
        metadata.labels = Some([(label.to_owned(), "true".to_owned())].into());
        ClusterRole { metadata, rules: Some(resources.iter().map(rule).collect()), aggregation_rule: None }
    }

    fn aggregated(name: &str, labels: &[&str]) -> ClusterRole {
        let selector = |label: &&str| LabelSelector {
            match_labels: Some([((*label).to_owned(), "true".to_owned())].into()),
            match_expressions: None,
        };
        let rule = AggregationRule { cluster_role_selectors: Some(labels.iter().map(selector).collect()) };
        ClusterRole { metadata: meta("", name), aggregation_rule: Some(rule), rules: None }
    }

    fn resources(rules: &[PolicyRule]) -> Vec<String> {
        rules.iter().flat_map(|rule| rule.resources.clone().unwrap_or_default()).collect()
    }

    #[test]
    fn rules_come_in_order_and_once() {
        let all: Vec<_> = [
            role("a", "to-view", &["pods", "services"]),
            role("b", "to-view", &["services", "nodes"]),
            role("c", "to-edit", &["secrets"]),
        ]
        .map(Arc::new)
        .into();
        let mut view = aggregated("view", &["to-view"]);
        let rules = aggregate(&view, &all).unwrap();
        assert_eq!(resources(&rules), ["pods", "services", "nodes"]);
        view.rules = Some(rules);
        assert!(aggregate(&view, &all).is_none(), "nothing to write when they are right");
        assert_eq!(
            resources(&aggregate(&aggregated("edit", &["to-edit", "to-view"]), &all).unwrap())[0],
            "secrets"
        );
        assert!(aggregate(&all[0], &all).is_none(), "a role without an aggregation rule is left alone");
    }

    #[test]
    fn selectors_know_all_operators() {
        let labels: BTreeMap<_, _> = [("a".to_owned(), "1".to_owned())].into();
        for (key, operator, values, want) in [
            ("a", "In", &["1", "2"][..], true),
            ("a", "NotIn", &["1"], false),
            ("b", "NotIn", &["1"], true),
            ("a", "Exists", &[], true),
            ("b", "DoesNotExist", &[], true),
            ("a", "Unknown", &[], false),
        ] {
            let requirement = LabelSelectorRequirement {
                key: key.into(),
                operator: operator.into(),
                values: Some(values.iter().map(ToString::to_string).collect()),
            };
            let selector = LabelSelector { match_expressions: Some(vec![requirement]), match_labels: None };
            assert_eq!(matches(&selector, Some(&labels)), want, "{key} {operator}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn roles_follow_what_they_aggregate_even_in_a_chain() {
        let api = FakeApi::new();
        let mut edit = aggregated("edit", &["to-edit"]);
        edit.metadata.labels = Some([("to-admin".to_owned(), "true".to_owned())].into());
        api.create(&edit);
        api.create(&aggregated("admin", &["to-admin"]));
        let _running = testing::start(&api, run);
        api.create(&role("custom", "to-edit", &["widgets"]));
        let rules =
            |name: &str| resources(&api.get::<ClusterRole>("", name).unwrap().rules.unwrap_or_default());
        eventually("admin has it through edit", || rules("admin") == ["widgets"]).await;
        api.delete::<ClusterRole>("", "custom");
        eventually("and loses it", || rules("admin").is_empty() && rules("edit").is_empty()).await;
    }
}
