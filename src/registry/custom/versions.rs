//! The versions of a custom resource: conversion between the one that is stored and the one that is asked for.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Value, json};

use crate::api::error::ApiError;
use crate::api::meta;
use crate::api::structural::Structural;
use crate::registry::convert::Convert;
use crate::registry::hooks::{Hooks, WebhookTarget};

/// How long a conversion webhook may take.
const TIMEOUT: Duration = Duration::from_secs(30);

/// How versions differ.
#[derive(Clone)]
pub enum Strategy {
    /// By their name alone.
    None,
    /// As a webhook says.
    Webhook {
        /// Where it is.
        target: WebhookTarget,
        /// The versions of `ConversionReview` that it speaks, best first.
        reviews: Vec<String>,
    },
}

/// The conversion of one version of a custom resource.
pub struct Versions {
    /// The name of the definition, for messages.
    pub definition: String,
    /// `group/version` of the row.
    pub own: String,
    /// `group/version` that is stored.
    pub stored: String,
    /// The kind.
    pub kind: String,
    /// How versions differ.
    pub strategy: Strategy,
    /// The schema of the row's version.
    pub schema: Arc<Structural>,
    /// Who calls webhooks.
    pub hooks: Arc<OnceLock<Hooks>>,
}

#[async_trait]
impl Convert for Versions {
    async fn restored(&self, stored: Vec<Value>) -> Result<Vec<Value>, ApiError> {
        let mut objects = self.converted(stored, &self.own).await?;
        for object in &mut objects {
            // The schema may have changed since the object was written.
            self.schema.prune(object);
            self.schema.fill_defaults(object);
        }
        Ok(objects)
    }

    async fn to_stored(&self, own: Value) -> Result<Value, ApiError> {
        crate::registry::render::sole(self.converted(vec![own], &self.stored).await?)
    }

    fn changes_fields(&self) -> bool {
        matches!(self.strategy, Strategy::Webhook { .. })
    }
}

impl Versions {
    async fn converted(&self, mut objects: Vec<Value>, to: &str) -> Result<Vec<Value>, ApiError> {
        let different: Vec<usize> =
            (0..objects.len()).filter(|i| meta::api_version(&objects[*i]) != to).collect();
        match &self.strategy {
            _ if different.is_empty() => {}
            Strategy::None => {
                for i in different {
                    objects[i]["apiVersion"] = to.into();
                }
            }
            Strategy::Webhook { target, reviews } => {
                let asked: Vec<Value> = different.iter().map(|i| objects[*i].clone()).collect();
                let from = asked.first().map(meta::api_version).unwrap_or_default().to_owned();
                let answers = self.ask(target, reviews, &asked, to).await.map_err(|why| {
                    ApiError::internal(format!(
                        "conversion webhook for {from}, Kind={} failed: {why}",
                        self.kind
                    ))
                })?;
                for ((i, asked), answer) in different.into_iter().zip(&asked).zip(answers) {
                    objects[i] = checked(asked, answer, to).map_err(|why| {
                        ApiError::internal(format!(
                            "conversion webhook for {from}, Kind={} returned invalid metadata at index {i}: {why}",
                            self.kind
                        ))
                    })?;
                }
            }
        }
        Ok(objects)
    }

    async fn ask(
        &self,
        target: &WebhookTarget,
        reviews: &[String],
        objects: &[Value],
        to: &str,
    ) -> Result<Vec<Value>, String> {
        let caller = self.hooks.get().and_then(|hooks| hooks.webhooks.clone());
        let caller = caller.ok_or("webhooks are not configured")?;
        let version = reviews.iter().find(|version| matches!(version.as_str(), "v1" | "v1beta1"));
        let version = version.map_or("v1", String::as_str);
        let uid = uuid::Uuid::new_v4().to_string();
        let review = json!({
            "kind": "ConversionReview",
            "apiVersion": format!("apiextensions.k8s.io/{version}"),
            "request": {"uid": uid, "desiredAPIVersion": to, "objects": objects},
        });
        let answer = caller.call(target, TIMEOUT, &review).await.map_err(|error| error.to_string())?;
        let response = answer.get("response").ok_or("no response provided")?;
        if meta::api_version(&answer) != format!("apiextensions.k8s.io/{version}") {
            return Err(format!(
                "expected webhook response of apiextensions.k8s.io/{version}, Kind=ConversionReview, got {}",
                meta::api_version(&answer)
            ));
        }
        if response.get("uid").and_then(Value::as_str) != Some(&uid) {
            return Err(format!("expected response.uid={uid:?}"));
        }
        if response.pointer("/result/status").and_then(Value::as_str) != Some("Success") {
            let message = response.pointer("/result/message").and_then(Value::as_str).unwrap_or_default();
            return Err(message.to_owned());
        }
        let converted =
            response.get("convertedObjects").and_then(Value::as_array).cloned().unwrap_or_default();
        if converted.len() != objects.len() {
            return Err(format!("expected {} converted objects, got {}", objects.len(), converted.len()));
        }
        Ok(converted)
    }
}

/// A conversion may change labels and annotations, and nothing else of the metadata.
fn checked(asked: &Value, mut answer: Value, to: &str) -> Result<Value, String> {
    if meta::api_version(&answer) != to {
        return Err(format!("expected apiVersion {to}, got {}", meta::api_version(&answer)));
    }
    if meta::kind(&answer) != meta::kind(asked) {
        return Err(format!("expected kind {}, got {}", meta::kind(asked), meta::kind(&answer)));
    }
    for field in ["name", "namespace", "uid"] {
        if meta::get(&answer, field) != meta::get(asked, field) {
            return Err(format!("metadata.{field}: must not be changed"));
        }
    }
    let mut metadata = asked.get("metadata").cloned().unwrap_or_default();
    for field in ["labels", "annotations"] {
        let new = meta::get(&answer, field).cloned();
        if let Value::Object(map) = &mut metadata {
            match new {
                Some(value) => map.insert(field.into(), value),
                None => map.remove(field),
            };
        }
    }
    answer["metadata"] = metadata;
    Ok(answer)
}
