//! Asking one webhook, and what its answer means.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::config::Webhook;
use super::matching::{self, Form, Subject};
use super::review;
use crate::api::error::ApiError;
use crate::registry::admission::Request;

/// The answer of a webhook.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    allowed: bool,
    status: Value,
    warnings: Vec<String>,
    /// A JSON patch.
    pub patch: Option<Vec<u8>>,
}

impl Answer {
    /// Passes warnings on, and fails when the webhook denies.
    pub fn admitted(&self, request: &Request<'_>, webhook: &str) -> Result<(), ApiError> {
        for warning in &self.warnings {
            request.cx.warn(warning.clone());
        }
        if self.allowed { Ok(()) } else { Err(denied(webhook, &self.status)) }
    }
}

fn denied(webhook: &str, status: &Value) -> ApiError {
    let text = |key: &str| status.get(key).and_then(Value::as_str).unwrap_or_default();
    let by = format!("admission webhook {webhook:?} denied the request");
    let message = match (text("message"), text("reason")) {
        ("", "") => format!("{by} without explanation"),
        ("", reason) => format!("{by}: {reason}"),
        (message, _) => format!("{by}: {message}"),
    };
    let code = status.get("code").and_then(Value::as_i64).and_then(|code| i32::try_from(code).ok());
    let mut found = ApiError::bad_request(message).into_status();
    found.reason = Some(text("reason").to_owned()).filter(|reason| !reason.is_empty());
    found.code = Some(code.filter(|code| *code >= 400).unwrap_or(400));
    ApiError::from(found)
}

/// Asks a webhook. None: it did not answer, and that is no reason to fail.
pub async fn ask(
    request: &Request<'_>,
    webhook: &Webhook,
    subject: &Subject,
    form: &Form,
) -> Result<Option<Answer>, ApiError> {
    if request.cx.dry_run && !webhook.dry_run {
        let message = format!("admission webhook {:?} does not support dry run", webhook.name);
        return Err(ApiError::bad_request(message));
    }
    match answered(request, webhook, subject, form).await {
        Ok(answer) => Ok(Some(answer)),
        Err(why) if webhook.must_answer => {
            Err(ApiError::internal(format!("failed calling webhook {:?}: {why}", webhook.name)))
        }
        Err(why) => {
            tracing::warn!(webhook = webhook.name, configuration = webhook.configuration, %why, "webhook is passed over");
            Ok(None)
        }
    }
}

async fn answered(
    request: &Request<'_>,
    webhook: &Webhook,
    subject: &Subject,
    form: &Form,
) -> Result<Answer, String> {
    let caller = request.registry.hooks().and_then(|hooks| hooks.webhooks.clone());
    let caller = caller.ok_or("webhooks are not configured")?;
    let version = webhook.reviews.iter().find(|version| matches!(version.as_str(), "v1" | "v1beta1"));
    let version = format!("admission.k8s.io/{}", version.map_or("v1", String::as_str));
    let uid = uuid::Uuid::new_v4().to_string();
    let mut asked = review::request(request, subject, form, &json!(uid));
    let shown = |error: ApiError| error.message().to_owned();
    asked["object"] =
        matching::converted(request, form, subject.object.as_ref()).await.map_err(shown)?.into();
    asked["oldObject"] =
        matching::converted(request, form, subject.old.as_ref()).await.map_err(shown)?.into();
    let review = json!({"kind": "AdmissionReview", "apiVersion": version, "request": asked});
    let answer =
        caller.call(&webhook.target, webhook.timeout, &review).await.map_err(|error| error.to_string())?;
    read(&answer, &version, &uid)
}

fn read(answer: &Value, version: &str, uid: &str) -> Result<Answer, String> {
    let text = |key: &str| answer.get(key).and_then(Value::as_str).unwrap_or_default();
    if (text("apiVersion"), text("kind")) != (version, "AdmissionReview") {
        return Err(format!(
            "received invalid webhook response: expected webhook response of {version}, Kind=AdmissionReview, got {}, Kind={}",
            text("apiVersion"),
            text("kind")
        ));
    }
    let response = answer.get("response").filter(|response| response.is_object());
    let response = response.ok_or("received invalid webhook response: webhook response was absent")?;
    let field = |key: &str| response.get(key).and_then(Value::as_str).unwrap_or_default();
    if field("uid") != uid {
        return Err(format!(
            "received invalid webhook response: expected response.uid={uid:?}, got {:?}",
            field("uid")
        ));
    }
    let warnings = response.get("warnings").and_then(Value::as_array).into_iter().flatten();
    let patch = match (field("patch"), field("patchType")) {
        ("", "") => None,
        ("", _) => return Err(
            "received invalid webhook response: webhook returned response.patchType but not response.patch"
                .to_owned(),
        ),
        (patch, "JSONPatch") => Some(
            STANDARD.decode(patch).map_err(|error| format!("received invalid webhook response: {error}"))?,
        ),
        (_, other) => {
            return Err(format!(
                "received invalid webhook response: invalid value of response.patchType={other:?}, expected \"JSONPatch\""
            ));
        }
    };
    Ok(Answer {
        allowed: response.get("allowed") == Some(&Value::Bool(true)),
        status: response.get("status").cloned().unwrap_or_default(),
        warnings: warnings.filter_map(Value::as_str).map(str::to_owned).collect(),
        patch,
    })
}
