//! Reviews: objects whose creation asks a question and whose status is the answer.

use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::api::authentication::v1::{
    SelfSubjectReview, SelfSubjectReviewStatus, TokenReview, TokenReviewStatus, UserInfo as ApiUserInfo,
};
use k8s_openapi::api::authorization::v1::{
    LocalSubjectAccessReview, NonResourceAttributes, NonResourceRule,
    ResourceAttributes as ApiResourceAttributes, ResourceRule, SelfSubjectAccessReview,
    SelfSubjectRulesReview, SubjectAccessReview, SubjectAccessReviewStatus, SubjectRulesReviewStatus,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::authentication::{MASTERS, ServiceAccountTokens};
use super::authorization::{Attributes, Authorizer, Decision, ResourceAttributes};
use crate::api::error::{ApiError, GroupKind};
use crate::api::field::{FieldError, FieldErrors, Path};
use crate::api::json;
use crate::registry::{RequestContext, Resource, ReviewHandler, UserInfo};

/// Answers reviews by the API server's own authenticator and authorizer.
pub(super) struct Reviews {
    tokens: Arc<ServiceAccountTokens>,
    authorizer: Arc<Authorizer>,
}

impl Reviews {
    pub(super) fn new(tokens: Arc<ServiceAccountTokens>, authorizer: Arc<Authorizer>) -> Self {
        Self { tokens, authorizer }
    }

    fn token_review(&self, mut review: TokenReview) -> Result<TokenReview, ApiError> {
        // The answer does not repeat the token: it is a secret, and the client has it.
        let token = std::mem::take(&mut review.spec.token);
        if token.is_empty() {
            return Err(ApiError::bad_request("token is required for TokenReview in authentication"));
        }
        let own = vec![self.tokens.issuer().to_owned()];
        let audiences =
            review.spec.audiences.clone().filter(|audiences| !audiences.is_empty()).unwrap_or(own);
        review.status = Some(match self.tokens.authenticate_for(&token, &audiences) {
            Some((user, audiences)) => TokenReviewStatus {
                authenticated: Some(true),
                audiences: Some(audiences),
                user: Some(api_user(&user)),
                ..TokenReviewStatus::default()
            },
            None => TokenReviewStatus {
                error: Some("invalid bearer token".to_owned()),
                user: Some(ApiUserInfo::default()),
                ..TokenReviewStatus::default()
            },
        });
        Ok(review)
    }

    fn decide(
        &self,
        user: &UserInfo,
        resource: Option<&ApiResourceAttributes>,
        path: Option<&NonResourceAttributes>,
    ) -> SubjectAccessReviewStatus {
        fn text(value: &Option<String>) -> &str {
            value.as_deref().unwrap_or_default()
        }
        let fields = resource.and_then(|r| r.field_selector.as_ref()).map(field_selector).unwrap_or_default();
        let attributes = match (resource, path) {
            (Some(r), _) => Attributes {
                verb: text(&r.verb),
                resource: Some(ResourceAttributes {
                    group: text(&r.group),
                    version: text(&r.version),
                    namespace: text(&r.namespace),
                    resource: text(&r.resource),
                    subresource: text(&r.subresource),
                    name: text(&r.name),
                }),
                field_selector: &fields,
                ..Attributes::default()
            },
            (None, Some(p)) => {
                Attributes { verb: text(&p.verb), path: text(&p.path), ..Attributes::default() }
            }
            (None, None) => Attributes::default(),
        };
        let (allowed, reason) = match self.authorizer.authorize(user, &attributes) {
            Decision::Allow(reason) => (true, reason),
            Decision::NoOpinion(reason) => (false, reason),
        };
        let reason = Some(reason).filter(|reason| !reason.is_empty());
        SubjectAccessReviewStatus { allowed, reason, ..SubjectAccessReviewStatus::default() }
    }

    fn subject_access_review(
        &self,
        mut review: SubjectAccessReview,
    ) -> Result<SubjectAccessReview, ApiError> {
        let spec = &review.spec;
        let mut errors = FieldErrors::default();
        check_one_kind(
            spec.resource_attributes.is_some(),
            spec.non_resource_attributes.is_some(),
            &mut errors,
        );
        check_subject(&spec.user, &spec.groups, &mut errors);
        refuse(errors, "SubjectAccessReview")?;
        let user = subject(&spec.user, &spec.uid, &spec.groups, &spec.extra);
        review.status = Some(self.decide(
            &user,
            spec.resource_attributes.as_ref(),
            spec.non_resource_attributes.as_ref(),
        ));
        Ok(review)
    }

    fn local_review(
        &self,
        namespace: &str,
        mut review: LocalSubjectAccessReview,
    ) -> Result<LocalSubjectAccessReview, ApiError> {
        let spec = &review.spec;
        let mut errors = FieldErrors::default();
        let path = Path::new("spec");
        match &spec.resource_attributes {
            None => errors.push(FieldError::required(&path.child("resourceAttributes"), "")),
            Some(r) if r.namespace.as_deref().unwrap_or_default() != namespace => {
                errors.push(FieldError::invalid(
                    &path.child("resourceAttributes").child("namespace"),
                    r.namespace.as_deref().unwrap_or_default(),
                    "must match metadata.namespace",
                ))
            }
            Some(_) => {}
        }
        if spec.non_resource_attributes.is_some() {
            errors.push(FieldError::forbidden(
                &path.child("nonResourceAttributes"),
                "disallowed on this kind of request",
            ));
        }
        check_subject(&spec.user, &spec.groups, &mut errors);
        refuse(errors, "LocalSubjectAccessReview")?;
        let user = subject(&spec.user, &spec.uid, &spec.groups, &spec.extra);
        review.status = Some(self.decide(&user, spec.resource_attributes.as_ref(), None));
        Ok(review)
    }

    fn self_access_review(
        &self,
        user: &UserInfo,
        mut review: SelfSubjectAccessReview,
    ) -> Result<SelfSubjectAccessReview, ApiError> {
        let spec = &review.spec;
        let mut errors = FieldErrors::default();
        check_one_kind(
            spec.resource_attributes.is_some(),
            spec.non_resource_attributes.is_some(),
            &mut errors,
        );
        refuse(errors, "SelfSubjectAccessReview")?;
        review.status =
            Some(self.decide(user, spec.resource_attributes.as_ref(), spec.non_resource_attributes.as_ref()));
        Ok(review)
    }

    fn rules_review(&self, user: &UserInfo, mut review: SelfSubjectRulesReview) -> SelfSubjectRulesReview {
        let namespace = review.spec.namespace.clone().unwrap_or_default();
        let mut rules = self.authorizer.rbac().rules_for(user, &namespace);
        if user.groups.iter().any(|group| group == MASTERS) {
            let all = || Some(vec!["*".to_owned()]);
            rules.insert(
                0,
                k8s_openapi::api::rbac::v1::PolicyRule {
                    verbs: vec!["*".to_owned()],
                    api_groups: all(),
                    resources: all(),
                    ..Default::default()
                },
            );
            rules.insert(
                1,
                k8s_openapi::api::rbac::v1::PolicyRule {
                    verbs: vec!["*".to_owned()],
                    non_resource_urls: all(),
                    ..Default::default()
                },
            );
        }
        let mut status = SubjectRulesReviewStatus::default();
        for rule in rules {
            if rule.non_resource_urls.as_ref().is_some_and(|urls| !urls.is_empty()) {
                status
                    .non_resource_rules
                    .push(NonResourceRule { verbs: rule.verbs, non_resource_urls: rule.non_resource_urls });
            } else {
                status.resource_rules.push(ResourceRule {
                    verbs: rule.verbs,
                    api_groups: rule.api_groups,
                    resources: rule.resources,
                    resource_names: rule.resource_names,
                });
            }
        }
        review.status = Some(status);
        review
    }
}

#[async_trait]
impl ReviewHandler for Reviews {
    async fn review(
        &self,
        cx: &RequestContext,
        resource: &Resource,
        namespace: &str,
        object: Value,
    ) -> Result<Value, ApiError> {
        match resource.kind.as_ref() {
            "TokenReview" => encode(self.token_review(decode(object)?)?),
            "SelfSubjectReview" => {
                let mut review: SelfSubjectReview = decode(object)?;
                review.status = Some(SelfSubjectReviewStatus { user_info: Some(api_user(&cx.user)) });
                encode(review)
            }
            "SubjectAccessReview" => encode(self.subject_access_review(decode(object)?)?),
            "LocalSubjectAccessReview" => encode(self.local_review(namespace, decode(object)?)?),
            "SelfSubjectAccessReview" => encode(self.self_access_review(&cx.user, decode(object)?)?),
            "SelfSubjectRulesReview" => encode(self.rules_review(&cx.user, decode(object)?)),
            other => Err(ApiError::internal(format!("no handler for {other}"))),
        }
    }
}

fn decode<K: DeserializeOwned>(object: Value) -> Result<K, ApiError> {
    json::typed_value(&object).map_err(|error| ApiError::bad_request(error.to_string()))
}

fn encode<K: Serialize>(review: K) -> Result<Value, ApiError> {
    serde_json::to_value(review).map_err(ApiError::internal)
}

fn refuse(errors: FieldErrors, kind: &str) -> Result<(), ApiError> {
    if errors.is_empty() {
        return Ok(());
    }
    Err(ApiError::invalid(&GroupKind::new("authorization.k8s.io", kind), "", errors))
}

fn check_one_kind(resource: bool, path: bool, errors: &mut FieldErrors) {
    let spec = Path::new("spec");
    match (resource, path) {
        (true, true) => errors.push(FieldError::invalid(
            &spec.child("nonResourceAttributes"),
            "",
            "cannot be specified in combination with resourceAttributes",
        )),
        (false, false) => errors.push(FieldError::invalid(
            &spec.child("resourceAttributes"),
            "",
            "exactly one of nonResourceAttributes or resourceAttributes must be specified",
        )),
        _ => {}
    }
}

fn check_subject(user: &Option<String>, groups: &Option<Vec<String>>, errors: &mut FieldErrors) {
    let nobody = user.as_deref().unwrap_or_default().is_empty() && groups.as_ref().is_none_or(Vec::is_empty);
    if nobody {
        let path = Path::new("spec").child("user");
        errors.push(FieldError::invalid(&path, "", "at least one of user or group must be specified"));
    }
}

type Extra = Option<std::collections::BTreeMap<String, Vec<String>>>;

fn subject(
    user: &Option<String>,
    uid: &Option<String>,
    groups: &Option<Vec<String>>,
    extra: &Extra,
) -> UserInfo {
    UserInfo {
        name: user.clone().unwrap_or_default(),
        uid: uid.clone().unwrap_or_default(),
        groups: groups.clone().unwrap_or_default(),
        extra: extra.clone().unwrap_or_default(),
    }
}

fn api_user(user: &UserInfo) -> ApiUserInfo {
    let given = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
    ApiUserInfo {
        username: given(&user.name),
        uid: given(&user.uid),
        groups: Some(user.groups.clone()).filter(|groups| !groups.is_empty()),
        extra: Some(user.extra.clone()).filter(|extra| !extra.is_empty()),
    }
}

/// A review's field selector in the form of a query parameter; requirements other than equality are left out, which
/// only ever denies.
fn field_selector(attributes: &k8s_openapi::api::authorization::v1::FieldSelectorAttributes) -> String {
    if let Some(raw) = &attributes.raw_selector {
        return raw.clone();
    }
    let equal = |r: &k8s_openapi::apimachinery::pkg::apis::meta::v1::FieldSelectorRequirement| match (
        r.operator.as_str(),
        r.values.as_deref(),
    ) {
        ("In", Some([value])) => Some(format!("{}={value}", r.key)),
        _ => None,
    };
    attributes.requirements.iter().flatten().filter_map(equal).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests;
