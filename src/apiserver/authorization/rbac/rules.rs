//! What one rule allows, and whether rules cover other rules.

use k8s_openapi::api::rbac::v1::PolicyRule;

use crate::apiserver::authorization::Attributes;

const ALL: &str = "*";

fn list(values: &Option<Vec<String>>) -> &[String] {
    values.as_deref().unwrap_or_default()
}

/// Whether one rule allows a request.
pub fn rule_allows(rule: &PolicyRule, attributes: &Attributes<'_>) -> bool {
    let has = |values: &[String], wanted: &str| values.iter().any(|value| value == ALL || value == wanted);
    if !has(&rule.verbs, attributes.verb) {
        return false;
    }
    match &attributes.resource {
        None => list(&rule.non_resource_urls).iter().any(|pattern| path_matches(pattern, attributes.path)),
        Some(r) => {
            let names = list(&rule.resource_names);
            has(list(&rule.api_groups), r.group)
                && list(&rule.resources).iter().any(|own| resource_matches(own, r.resource, r.subresource))
                && (names.is_empty() || names.iter().any(|name| name == r.name))
        }
    }
}

fn path_matches(pattern: &str, path: &str) -> bool {
    match pattern.strip_suffix('*') {
        _ if pattern == ALL || pattern == path => true,
        Some(prefix) => path.starts_with(prefix),
        None => false,
    }
}

/// `*`, `pods`, `pods/log`, `*/scale`.
fn resource_matches(own: &str, resource: &str, subresource: &str) -> bool {
    if own == ALL {
        return true;
    }
    match own.split_once('/') {
        None => subresource.is_empty() && own == resource,
        Some((own, own_sub)) => {
            own_sub == subresource && !subresource.is_empty() && (own == ALL || own == resource)
        }
    }
}

/// The parts of `wanted` that `owned` does not give, one rule for each verb, group and resource (or path).
///
/// Both sides are taken apart, because several owned rules together may cover one wanted rule.
pub fn covers(owned: &[PolicyRule], wanted: &[PolicyRule]) -> Vec<PolicyRule> {
    wanted
        .iter()
        .flat_map(break_down)
        .filter(|part| !owned.iter().any(|rule| rule_covers(rule, part)))
        .collect()
}

/// Rules with one verb, one group, one resource and at most one name each; or one verb and one path.
fn break_down(rule: &PolicyRule) -> Vec<PolicyRule> {
    let mut parts = Vec::new();
    let one = |value: &String| Some(vec![value.clone()]);
    for verb in &rule.verbs {
        for group in list(&rule.api_groups) {
            for resource in list(&rule.resources) {
                let part = PolicyRule {
                    verbs: vec![verb.clone()],
                    api_groups: one(group),
                    resources: one(resource),
                    ..PolicyRule::default()
                };
                match list(&rule.resource_names) {
                    [] => parts.push(part),
                    names => parts.extend(
                        names.iter().map(|name| PolicyRule { resource_names: one(name), ..part.clone() }),
                    ),
                }
            }
        }
        parts.extend(list(&rule.non_resource_urls).iter().map(|url| PolicyRule {
            verbs: vec![verb.clone()],
            non_resource_urls: one(url),
            ..PolicyRule::default()
        }));
    }
    parts
}

/// Whether one owned rule gives all of a broken-down one.
fn rule_covers(owned: &PolicyRule, part: &PolicyRule) -> bool {
    let has_all = |owned: &[String], wanted: &[String]| {
        owned.iter().any(|value| value == ALL) || wanted.iter().all(|value| owned.contains(value))
    };
    let resources_cover = |owned: &[String], wanted: &[String]| {
        wanted.iter().all(|wanted| {
            owned.iter().any(|own| {
                own == ALL
                    || own == wanted
                    || (own.starts_with("*/")
                        && wanted.split_once('/').is_some_and(|(_, sub)| own[2..] == *sub))
            })
        })
    };
    let names_cover = list(&owned.resource_names).is_empty()
        || (!list(&part.resource_names).is_empty()
            && list(&part.resource_names).iter().all(|name| list(&owned.resource_names).contains(name)));
    let paths_cover = list(&part.non_resource_urls).iter().all(|wanted| {
        list(&owned.non_resource_urls).iter().any(|own| {
            own == wanted
                || own
                    .strip_suffix('*')
                    .is_some_and(|prefix| wanted.trim_end_matches('*').starts_with(prefix))
        })
    });
    has_all(&owned.verbs, &part.verbs)
        && has_all(list(&owned.api_groups), list(&part.api_groups))
        && resources_cover(list(&owned.resources), list(&part.resources))
        && names_cover
        && paths_cover
}
