//! `authorizer` in expressions: what the requesting user may do besides.

use std::sync::Arc;

use super::Request;
use crate::api::cel::Value as CelValue;
use crate::api::cel::value::{Foreign, Question, Rights};
use crate::registry::context::UserInfo;
use crate::registry::hooks::BindCheck;

struct UserRights {
    user: Arc<UserInfo>,
    check: Option<Arc<dyn BindCheck>>,
}

impl Rights for UserRights {
    fn check(&self, question: &Question) -> (bool, String) {
        let Some(check) = &self.check else { return (false, String::new()) };
        let account;
        let user = match &question.account {
            Some((namespace, name)) => {
                account = UserInfo {
                    name: format!("system:serviceaccount:{namespace}:{name}"),
                    groups: vec![
                        "system:serviceaccounts".to_owned(),
                        format!("system:serviceaccounts:{namespace}"),
                        "system:authenticated".to_owned(),
                    ],
                    ..UserInfo::default()
                };
                &account
            }
            None => &*self.user,
        };
        let plural = if question.subresource.is_empty() {
            question.resource.clone()
        } else {
            format!("{}/{}", question.resource, question.subresource)
        };
        let allowed = check.allowed(
            user,
            &question.verb,
            &question.group,
            &plural,
            &question.namespace,
            &question.name,
        );
        (allowed, String::new())
    }
}

/// The authorizer, about the user of a request.
pub fn authorizer(request: &Request<'_>) -> CelValue {
    let rights = UserRights { user: request.cx.user.clone(), check: request.registry.bind_check().cloned() };
    CelValue::foreign(Foreign::Authorizer(Arc::new(rights), Question::default()))
}

/// The authorizer, asked about the very resource of a request.
pub fn request_resource(request: &Request<'_>, name: &str) -> CelValue {
    let rights = UserRights { user: request.cx.user.clone(), check: request.registry.bind_check().cloned() };
    let question = Question {
        group: request.resource.group.to_string(),
        resource: request.resource.plural.to_string(),
        subresource: request.subresource.to_owned(),
        namespace: request.namespace.to_owned(),
        name: name.to_owned(),
        ..Question::default()
    };
    CelValue::foreign(Foreign::Authorizer(Arc::new(rights), question))
}
