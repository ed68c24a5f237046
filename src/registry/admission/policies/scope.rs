//! The variables of a policy's expressions: those of the request at once, the policy's own when they are used.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use serde_json::{Value, json};

use super::config::Policy;
use crate::api::cel::Value as CelValue;
use crate::api::cel::{Budget, EvalError, Scope, Source, from_json};
use crate::api::error::ApiError;
use crate::registry::admission::webhooks::matching::{self, Form, Subject};
use crate::registry::admission::webhooks::review;
use crate::registry::admission::{Request, rights};

/// The variables of one request.
pub struct Variables<'p> {
    policy: &'p Policy,
    values: Vec<(&'static str, CelValue)>,
    made: Mutex<HashMap<String, Result<CelValue, EvalError>>>,
}

/// What expressions see of a request, before parameters.
pub async fn values(
    request: &Request<'_>,
    form: &Form,
    subject: &Subject,
) -> Result<Vec<(&'static str, CelValue)>, ApiError> {
    let tree = |value: Option<&Value>| value.map_or(CelValue::Null, |value| from_json(value, None));
    let object = matching::converted(request, form, subject.object.as_ref()).await?;
    let old = matching::converted(request, form, subject.old.as_ref()).await?;
    let asked = review::request(request, subject, form, &json!(""));
    let is_namespace = request.resource.group.is_empty() && request.resource.plural == "namespaces";
    let namespace = match request.namespace {
        "" => None,
        _ if is_namespace => None,
        _ => matching::namespace(request).await?,
    };
    Ok(vec![
        ("object", tree(object.as_ref())),
        ("oldObject", tree(old.as_ref())),
        ("request", tree(Some(&asked))),
        ("namespaceObject", tree(namespace.as_ref())),
        ("authorizer", rights::authorizer(request)),
        ("authorizer.requestResource", rights::request_resource(request, subject.name(request))),
    ])
}

impl<'p> Variables<'p> {
    /// The variables with one set of parameters.
    pub fn new(policy: &'p Policy, values: &[(&'static str, CelValue)], params: Option<&Value>) -> Self {
        let mut values = values.to_vec();
        values.push(("params", params.map_or(CelValue::Null, |params| from_json(params, None))));
        Self { policy, values, made: Mutex::default() }
    }

    /// The variables of the request alone.
    pub fn plain(&self) -> Scope<'_> {
        Scope::Values(&self.values)
    }
}

impl Source for Variables<'_> {
    fn get(&self, name: &str, budget: &mut Budget) -> Option<Result<CelValue, EvalError>> {
        let name = name.strip_prefix("variables.")?;
        if let Some(known) = self.made.lock().unwrap_or_else(PoisonError::into_inner).get(name) {
            return Some(known.clone());
        }
        let (_, program) = self.policy.variables.iter().find(|(own, _)| own == name)?;
        let value = match program {
            Ok(program) => {
                let plain = self.plain();
                program.run(&Scope::Computed(self, &plain), budget)
            }
            Err(error) => Err(EvalError::Failed(error.clone())),
        };
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        made.insert(name.to_owned(), value.clone());
        Some(value)
    }
}
