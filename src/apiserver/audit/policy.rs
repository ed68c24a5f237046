//! The policy: how much of which request is recorded. The first rule that matches a request decides.

use serde::Deserialize;

use crate::apiserver::request_info::{RequestInfo, Target};
use crate::registry::UserInfo;

/// How much is recorded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub(super) enum Level {
    /// Nothing.
    #[default]
    None,
    /// Who did what to what.
    Metadata,
    /// The body of the request too.
    Request,
    /// The body of the answer too.
    RequestResponse,
}

impl Level {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::None => "None",
            Self::Metadata => "Metadata",
            Self::Request => "Request",
            Self::RequestResponse => "RequestResponse",
        }
    }
}

/// When something is recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub(super) enum Stage {
    /// The request has come in.
    RequestReceived,
    /// The head of the answer is out and its body follows for as long as the client stays.
    ResponseStarted,
    /// The answer is out.
    ResponseComplete,
    /// The handler broke.
    Panic,
}

impl Stage {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::RequestReceived => "RequestReceived",
            Self::ResponseStarted => "ResponseStarted",
            Self::ResponseComplete => "ResponseComplete",
            Self::Panic => "Panic",
        }
    }
}

/// The policy.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Policy {
    api_version: String,
    kind: String,
    #[serde(default, rename = "metadata")]
    _metadata: serde_json::Value,
    rules: Vec<Rule>,
    #[serde(default)]
    omit_stages: Vec<Stage>,
    #[serde(default)]
    omit_managed_fields: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Rule {
    level: Level,
    #[serde(default)]
    users: Vec<String>,
    #[serde(default)]
    user_groups: Vec<String>,
    #[serde(default)]
    verbs: Vec<String>,
    #[serde(default)]
    resources: Vec<GroupResources>,
    #[serde(default)]
    namespaces: Vec<String>,
    #[serde(default, rename = "nonResourceURLs")]
    non_resource_urls: Vec<String>,
    #[serde(default)]
    omit_stages: Vec<Stage>,
    omit_managed_fields: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct GroupResources {
    #[serde(default)]
    group: String,
    #[serde(default)]
    resources: Vec<String>,
    #[serde(default)]
    resource_names: Vec<String>,
}

/// What the policy says of one request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) level: Level,
    pub(super) omit_stages: Vec<Stage>,
    pub(super) omit_managed_fields: bool,
}

impl Policy {
    /// Reads a policy from YAML or JSON; what is wrong with it, in words.
    pub(super) fn parse(text: &[u8]) -> Result<Self, String> {
        let decoded = crate::api::yaml::decode(text).map_err(|error| error.to_string())?;
        let policy: Self = serde_json::from_value(decoded.value).map_err(|error| error.to_string())?;
        if (policy.api_version.as_str(), policy.kind.as_str()) != ("audit.k8s.io/v1", "Policy") {
            return Err(format!(
                "{}, Kind={} is no policy of audit.k8s.io/v1",
                policy.api_version, policy.kind
            ));
        }
        if policy.rules.is_empty() {
            return Err("no rules".to_owned());
        }
        for (i, rule) in policy.rules.iter().enumerate() {
            let of_paths = !rule.non_resource_urls.is_empty();
            if of_paths && !(rule.resources.is_empty() && rule.namespaces.is_empty()) {
                return Err(format!(
                    "rules[{i}].nonResourceURLs: rules cannot apply to both regular resources and non-resource URLs"
                ));
            }
            let wrong = |url: &&String| *url != "*" && !url.starts_with('/');
            if let Some(url) = rule.non_resource_urls.iter().find(wrong) {
                return Err(format!("rules[{i}].nonResourceURLs: {url:?} must begin with / or be *"));
            }
            let star = |url: &&String| url.len() > 1 && url[..url.len() - 1].contains('*');
            if let Some(url) = rule.non_resource_urls.iter().find(star) {
                return Err(format!(
                    "rules[{i}].nonResourceURLs: {url:?} may end with *, and have none before"
                ));
            }
        }
        Ok(policy)
    }

    /// What it says of a request.
    pub(super) fn judge(&self, user: Option<&UserInfo>, info: &RequestInfo) -> Verdict {
        let Some(rule) = self.rules.iter().find(|rule| rule.matches(user, info)) else {
            return Verdict::default();
        };
        let mut omit_stages = self.omit_stages.clone();
        omit_stages.extend(&rule.omit_stages);
        Verdict {
            level: rule.level,
            omit_stages,
            omit_managed_fields: rule.omit_managed_fields.unwrap_or(self.omit_managed_fields),
        }
    }
}

fn has(list: &[String], text: &str) -> bool {
    list.iter().any(|own| own == text)
}

impl Rule {
    fn matches(&self, user: Option<&UserInfo>, info: &RequestInfo) -> bool {
        let named = self.users.is_empty() || user.is_some_and(|user| has(&self.users, &user.name));
        let groups = user.map(|user| user.groups.as_slice()).unwrap_or_default();
        let grouped = self.user_groups.is_empty() || groups.iter().any(|group| has(&self.user_groups, group));
        if !named || !grouped {
            return false;
        }
        if !self.verbs.is_empty() && !has(&self.verbs, &info.verb) {
            return false;
        }
        if !self.namespaces.is_empty() || !self.resources.is_empty() {
            return info.target.as_ref().is_some_and(|target| self.matches_resource(target));
        }
        if !self.non_resource_urls.is_empty() {
            return info.target.is_none() && self.non_resource_urls.iter().any(|url| covers(url, &info.path));
        }
        true
    }

    fn matches_resource(&self, target: &Target) -> bool {
        if !self.namespaces.is_empty() && !has(&self.namespaces, &target.namespace) {
            return false;
        }
        self.resources.is_empty() || self.resources.iter().any(|resources| resources.match_(target))
    }
}

impl GroupResources {
    fn match_(&self, target: &Target) -> bool {
        if self.group != target.group {
            return false;
        }
        let named = self.resource_names.is_empty() || has(&self.resource_names, &target.name);
        let (resource, part) = (target.resource.as_str(), target.subresource.as_str());
        self.resources.is_empty()
            || self.resources.iter().any(|own| {
                let matches = match own.split_once('/') {
                    _ if own == "*" => true,
                    Some(("*", own_part)) => own_part == part,
                    Some((own, "*")) => own == resource,
                    Some((own, own_part)) => (own, own_part) == (resource, part),
                    None => part.is_empty() && own == resource,
                };
                matches && named
            })
    }
}

fn covers(pattern: &str, path: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => path.starts_with(prefix),
        None => pattern == path,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: &str = r#"
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: None
  users: ["system:kube-proxy"]
  verbs: ["watch"]
  resources: [{group: "", resources: ["endpoints", "services", "services/status"]}]
- level: None
  nonResourceURLs: ["/healthz*", "/version"]
- level: RequestResponse
  resources: [{group: "", resources: ["pods/*"]}, {group: "apps", resources: ["*"], resourceNames: ["web"]}]
  namespaces: ["default"]
  omitManagedFields: true
  omitStages: [ResponseStarted]
- level: Request
  userGroups: ["devs"]
- level: Metadata
  resources: [{group: "", resources: ["*/log"]}, {group: "batch"}]
"#;

    #[test]
    fn the_first_rule_that_matches_decides() {
        let policy = Policy::parse(POLICY.as_bytes()).unwrap();
        let judge = |name: &str, group: &str, method: &str, path: &str| {
            let user = UserInfo { name: name.into(), groups: vec![group.into()], ..UserInfo::default() };
            let info = RequestInfo::new(&method.parse().unwrap(), &path.parse().unwrap());
            policy.judge(Some(&user), &info)
        };
        let pods = "/api/v1/namespaces/default/pods";
        let cases = [
            ("system:kube-proxy", "", "GET", "/api/v1/services?watch=1".to_owned(), Level::None),
            ("system:kube-proxy", "devs", "GET", "/api/v1/services".to_owned(), Level::Request),
            ("a", "devs", "GET", "/healthz/ping".to_owned(), Level::None),
            ("a", "", "GET", pods.to_owned(), Level::RequestResponse),
            ("a", "", "GET", format!("{pods}/x/log"), Level::RequestResponse),
            ("a", "", "GET", "/api/v1/namespaces/other/pods/x/log".to_owned(), Level::Metadata),
            (
                "a",
                "",
                "GET",
                "/apis/apps/v1/namespaces/default/deployments/web".to_owned(),
                Level::RequestResponse,
            ),
            ("a", "", "GET", "/apis/apps/v1/namespaces/default/deployments/other".to_owned(), Level::None),
            ("a", "", "POST", "/apis/batch/v1/namespaces/default/jobs".to_owned(), Level::Metadata),
            ("a", "", "GET", "/metrics".to_owned(), Level::None),
        ];
        for (name, group, method, path, level) in cases {
            assert_eq!(judge(name, group, method, &path).level, level, "{name} {method} {path}");
        }
        let verdict = judge("a", "", "GET", pods);
        assert_eq!(verdict.omit_stages, [Stage::RequestReceived, Stage::ResponseStarted]);
        assert!(verdict.omit_managed_fields && !judge("a", "devs", "GET", "/metrics").omit_managed_fields);
    }

    #[test]
    fn a_policy_that_cannot_be_followed_is_refused() {
        let rules = |rules: &str| format!("apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: {rules}\n");
        for text in [
            rules("[]"),
            rules("[{level: Everything}]"),
            rules("[{level: None, unknown: 1}]"),
            rules("[{level: None, nonResourceURLs: [\"healthz\"]}]"),
            rules("[{level: None, nonResourceURLs: [\"/a*b*\"]}]"),
            rules("[{level: None, nonResourceURLs: [\"/a\"], namespaces: [x]}]"),
            "apiVersion: audit.k8s.io/v1beta1\nkind: Policy\nrules: [{level: None}]\n".to_owned(),
        ] {
            assert!(Policy::parse(text.as_bytes()).is_err(), "{text}");
        }
    }
}
