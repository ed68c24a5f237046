//! Which FlowSchema a request belongs to.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use k8s_openapi::api::flowcontrol::v1::{
    FlowSchema, NonResourcePolicyRule, PolicyRulesWithSubjects, ResourcePolicyRule, Subject,
};

use crate::apiserver::authentication::MASTERS;
use crate::apiserver::authentication::service_account::USER_PREFIX;
use crate::apiserver::request_info::RequestInfo;
use crate::registry::UserInfo;

/// The schema and level that nothing holds back.
pub(super) const EXEMPT: &str = "exempt";
/// The schema and level of what nothing else matches.
pub(super) const CATCH_ALL: &str = "catch-all";

/// The schemas in the order in which they are asked.
#[derive(Default)]
pub(super) struct Schemas(Vec<Compiled>);

struct Compiled {
    name: Arc<str>,
    uid: Arc<str>,
    level: Arc<str>,
    by: By,
    rules: Vec<PolicyRulesWithSubjects>,
}

/// What tells the flows of one schema apart.
#[derive(Clone, Copy, PartialEq, Eq)]
enum By {
    Nothing,
    User,
    Namespace,
}

/// A request's schema, its level, and which of the schema's flows it is in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Flow {
    pub(super) schema: Arc<str>,
    pub(super) schema_uid: Arc<str>,
    pub(super) level: Arc<str>,
    pub(super) hash: u64,
}

impl Schemas {
    /// Sorts schemas by precedence, then by name. One whose level does not exist is not asked.
    pub(super) fn new(objects: Vec<FlowSchema>, level_exists: &dyn Fn(&str) -> bool) -> Self {
        let mut sorted: Vec<(i32, String, Compiled)> = objects
            .into_iter()
            .filter_map(|object| {
                let spec = object.spec?;
                let name = object.metadata.name.unwrap_or_default();
                let level = spec.priority_level_configuration.name;
                let by = match spec.distinguisher_method.as_ref().map(|method| method.type_.as_str()) {
                    Some("ByUser") => By::User,
                    Some("ByNamespace") => By::Namespace,
                    _ => By::Nothing,
                };
                level_exists(&level).then(|| {
                    let compiled = Compiled {
                        name: name.as_str().into(),
                        uid: object.metadata.uid.unwrap_or_default().into(),
                        level: level.into(),
                        by,
                        rules: spec.rules.unwrap_or_default(),
                    };
                    (spec.matching_precedence.unwrap_or(1000), name, compiled)
                })
            })
            .collect();
        sorted.sort_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1)));
        Self(sorted.into_iter().map(|(_, _, compiled)| compiled).collect())
    }

    /// The first schema that matches. Masters are exempt and everything else is caught even where no object says so.
    pub(super) fn classify(&self, user: &UserInfo, info: &RequestInfo) -> Flow {
        if let Some(found) = self.0.iter().find(|schema| schema.matches(user, info)) {
            return found.flow(user, info);
        }
        let name = if user.groups.iter().any(|group| group == MASTERS) { EXEMPT } else { CATCH_ALL };
        Flow { schema: name.into(), schema_uid: "".into(), level: name.into(), hash: hash(name, &user.name) }
    }
}

fn hash(schema: &str, distinguisher: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    (schema, distinguisher).hash(&mut hasher);
    hasher.finish()
}

impl Compiled {
    fn matches(&self, user: &UserInfo, info: &RequestInfo) -> bool {
        self.rules.iter().any(|rule| {
            rule.subjects.iter().any(|subject| is_subject(subject, user))
                && match &info.target {
                    Some(_) => rule.resource_rules.iter().flatten().any(|rule| covers(rule, info)),
                    None => rule.non_resource_rules.iter().flatten().any(|rule| covers_path(rule, info)),
                }
        })
    }

    fn flow(&self, user: &UserInfo, info: &RequestInfo) -> Flow {
        let namespace = info.target.as_ref().map_or("", |target| target.namespace.as_str());
        let distinguisher = match self.by {
            By::Nothing => "",
            By::User => user.name.as_str(),
            By::Namespace => namespace,
        };
        Flow {
            schema: self.name.clone(),
            schema_uid: self.uid.clone(),
            level: self.level.clone(),
            hash: hash(&self.name, distinguisher),
        }
    }
}

fn is_subject(subject: &Subject, user: &UserInfo) -> bool {
    match subject.kind.as_str() {
        "User" => subject.user.as_ref().is_some_and(|own| own.name == "*" || own.name == user.name),
        "Group" => {
            subject.group.as_ref().is_some_and(|own| own.name == "*" || user.groups.contains(&own.name))
        }
        "ServiceAccount" => subject.service_account.as_ref().is_some_and(|own| {
            let Some((namespace, name)) =
                user.name.strip_prefix(USER_PREFIX).and_then(|rest| rest.split_once(':'))
            else {
                return false;
            };
            own.namespace == namespace && (own.name == "*" || own.name == name)
        }),
        _ => false,
    }
}

fn has(list: &[String], value: &str) -> bool {
    list.iter().any(|own| own == "*" || own == value)
}

fn covers(rule: &ResourcePolicyRule, info: &RequestInfo) -> bool {
    let Some(target) = &info.target else { return false };
    let resource = match target.subresource.as_str() {
        "" => target.resource.clone(),
        part => format!("{}/{part}", target.resource),
    };
    let place = if target.namespace.is_empty() {
        rule.cluster_scope == Some(true)
    } else {
        rule.namespaces.as_deref().is_some_and(|namespaces| has(namespaces, &target.namespace))
    };
    place
        && has(&rule.verbs, &info.verb)
        && has(&rule.api_groups, &target.group)
        && has(&rule.resources, &resource)
}

fn covers_path(rule: &NonResourcePolicyRule, info: &RequestInfo) -> bool {
    let path = info.path.as_str();
    let covered = rule.non_resource_urls.iter().any(|url| match url.strip_suffix('*') {
        Some(prefix) => path.starts_with(prefix),
        None => url == path,
    });
    covered && has(&rule.verbs, &info.verb)
}
