//! Which webhooks are asked about a request, and about which form of the object.

use std::sync::Arc;

use serde_json::{Value, json};

use super::conditions::Verdict;
use super::config::{Rule, Webhook};
use super::review;
use crate::api::cel::Value as CelValue;
use crate::api::cel::{Scope, from_json};
use crate::api::error::ApiError;
use crate::api::json;
use crate::api::meta;
use crate::api::selector::LabelSelector;
use crate::cache::Consistency;
use crate::registry::admission::{Operation, Request};
use crate::registry::object::Object;
use crate::registry::resource::Resource;
use crate::registry::write::Target;

/// What a request is about, as trees.
pub struct Subject {
    /// The new object.
    pub object: Option<Value>,
    /// The object that is there.
    pub old: Option<Value>,
}

impl Subject {
    /// Takes the trees of the objects.
    pub fn new(
        request: &Request<'_>,
        object: Option<&dyn Object>,
        old: Option<&dyn Object>,
    ) -> Result<Self, ApiError> {
        let tree = |object: &dyn Object| {
            let mut value = object.to_value().map_err(ApiError::internal)?;
            if request.subresource.is_empty() || meta::kind(&value).is_empty() {
                value["apiVersion"] = request.resource.api_version().as_ref().into();
                value["kind"] = request.resource.kind.as_ref().into();
            }
            Ok::<Value, ApiError>(value)
        };
        Ok(Self { object: object.map(tree).transpose()?, old: old.map(tree).transpose()? })
    }

    /// The name of the object: the request's, or for a create that of the body.
    pub fn name<'s>(&'s self, request: &'s Request<'_>) -> &'s str {
        if request.name.is_empty() { self.object.as_ref().map_or("", meta::name) } else { request.name }
    }
}

/// The form of the resource in which a webhook is asked: the request's own, or an equivalent one.
pub struct Form {
    /// The row of another version, when the webhook knows the resource by that.
    pub other: Option<Arc<Resource>>,
}

/// The name of an operation in rules.
pub fn operation(operation: Operation) -> &'static str {
    match operation {
        Operation::Create => "CREATE",
        Operation::Update => "UPDATE",
        Operation::Delete => "DELETE",
        Operation::Connect => "CONNECT",
    }
}

fn identity(resource: &Resource) -> (&str, &str, &str) {
    (&resource.group, &resource.version, &resource.plural)
}

/// Whether any rule covers the request, and in which form.
pub fn covered(request: &Request<'_>, rules: &[Rule], equivalent: bool, name: &str) -> Option<Form> {
    let covers = |resource: &Resource| {
        let operation = operation(request.operation);
        // Namespaces are cluster-wide, though requests about them name themselves as theirs.
        let namespaced = resource.namespaced();
        rules
            .iter()
            .any(|rule| rule.covers(operation, identity(resource), request.subresource, namespaced, name))
    };
    if covers(request.resource) {
        return Some(Form { other: None });
    }
    if !equivalent {
        return None;
    }
    let (_, rows) = request.registry.rows();
    let same = |row: &&Arc<Resource>| {
        row.storage_prefix == request.resource.storage_prefix
            && row.stored()
            && identity(row) != identity(request.resource)
            && covers(row)
    };
    rows.iter().find(same).map(|row| Form { other: Some(row.clone()) })
}

/// Whether labels of the request's namespace are selected. Cluster-wide objects are not in any namespace.
pub async fn namespace_selected(
    request: &Request<'_>,
    selector: &LabelSelector,
    subject: &Subject,
) -> Result<bool, ApiError> {
    if selector.is_everything() {
        return Ok(true);
    }
    let is_namespace = request.resource.group.is_empty() && request.resource.plural == "namespaces";
    if is_namespace {
        let object = if request.operation == Operation::Create { &subject.object } else { &subject.old };
        let object = object.as_ref().or(subject.object.as_ref());
        return Ok(object.is_none_or(|object| selector.matches(|key| meta::label(object, key))));
    }
    if request.namespace.is_empty() {
        return Ok(true);
    }
    match namespace(request).await? {
        Some(namespace) => Ok(selector.matches(|key| meta::label(&namespace, key))),
        None => Ok(false),
    }
}

/// The namespace of a request.
pub async fn namespace(request: &Request<'_>) -> Result<Option<Value>, ApiError> {
    let Some(row) = request.registry.catalog().by_plural("", "v1", "namespaces") else { return Ok(None) };
    let target = Target { resource: row, subresource: None, namespace: "", name: request.namespace };
    match request.registry.read_object(&target, Consistency::Any).await {
        Ok(object) => json::typed(object.json()).map(Some).map_err(ApiError::internal),
        // The cache follows by moments; the namespace may just have been made.
        Err(error) if error.code() == 404 => {
            match request.registry.read_object(&target, Consistency::Latest).await {
                Ok(object) => json::typed(object.json()).map(Some).map_err(ApiError::internal),
                Err(error) if error.code() == 404 => Ok(None),
                Err(error) => Err(error),
            }
        }
        Err(error) => Err(error),
    }
}

/// Whether the object, as it is or as it becomes, is selected.
pub fn object_selected(selector: &LabelSelector, subject: &Subject) -> bool {
    let selected = |object: &Value| selector.matches(|key| meta::label(object, key));
    selector.is_everything()
        || subject.object.as_ref().is_some_and(selected)
        || subject.old.as_ref().is_some_and(selected)
}

/// Whether a webhook is asked, and about which form of the object.
pub async fn matched(
    request: &Request<'_>,
    webhook: &Webhook,
    subject: &Subject,
) -> Result<Option<Form>, ApiError> {
    let Some(form) = covered(request, &webhook.rules, webhook.equivalent, subject.name(request)) else {
        return Ok(None);
    };
    if !object_selected(&webhook.objects, subject)
        || !namespace_selected(request, &webhook.namespaces, subject).await?
    {
        return Ok(None);
    }
    if webhook.conditions.is_empty() {
        return Ok(Some(form));
    }
    let json = |value: Option<&Value>| value.map_or(CelValue::Null, |value| from_json(value, None));
    let asked = review::request(request, subject, &form, &json!(""));
    let variables = [
        ("object", json(subject.object.as_ref())),
        ("oldObject", json(subject.old.as_ref())),
        ("request", json(Some(&asked))),
        ("authorizer", crate::registry::admission::rights::authorizer(request)),
    ];
    match webhook.conditions.verdict(&Scope::Values(&variables)) {
        Verdict::Asked => Ok(Some(form)),
        Verdict::Skipped => Ok(None),
        Verdict::Failed(why) if webhook.must_answer => Err(request
            .forbid(format!("failed to evaluate match conditions of webhook {:?}: {why}", webhook.name))),
        Verdict::Failed(why) => {
            tracing::warn!(webhook = webhook.name, %why, "match conditions failed, webhook is not asked");
            Ok(None)
        }
    }
}

/// The objects in the form in which a webhook is asked.
pub async fn converted(
    request: &Request<'_>,
    form: &Form,
    value: Option<&Value>,
) -> Result<Option<Value>, ApiError> {
    let (Some(value), Some(other)) = (value, &form.other) else { return Ok(value.cloned()) };
    request.registry.between(request.resource, other, value.clone()).await.map(Some)
}
