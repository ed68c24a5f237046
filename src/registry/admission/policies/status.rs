//! The status of validating policies: what a check of their expressions against the kinds they match has found.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::GROUP;
use crate::api::cel::{Env, Program, Type};
use crate::api::error::ApiError;
use crate::api::meta;
use crate::registry::admission::policy_environment;
use crate::registry::admission::webhooks::config::Rule;
use crate::registry::context::{Body, RequestContext, UserInfo};
use crate::registry::resource::Resource;
use crate::registry::service::Registry;

const PAUSE: Duration = Duration::from_secs(1);
/// Kinds that one policy is checked against at most.
const MOST_KINDS: usize = 10;

impl Registry {
    /// Keeps the status of policies until `stop`. The caller spawns this once and owns the task.
    pub async fn keep_policies(self: Arc<Self>, stop: CancellationToken) {
        stop.run_until_cancelled(async {
            loop {
                self.check_policies().await;
                tokio::time::sleep(PAUSE).await;
            }
        })
        .await;
    }

    async fn check_policies(&self) {
        let Some(row) = self.catalog().by_plural(GROUP, "v1", "validatingadmissionpolicies") else { return };
        let Ok(cache) = self.cache_of(row) else { return };
        let all = cache.current();
        for object in all.iter(None, None) {
            let Ok(policy) = serde_json::from_slice::<Value>(object.json()) else { continue };
            let observed = policy.pointer("/status/observedGeneration").and_then(Value::as_i64);
            if observed == Some(meta::generation(&policy)) {
                continue;
            }
            if let Err(error) = self.write_check(row, policy).await {
                tracing::debug!(policy = object.name(), %error, "status is not written yet");
            }
        }
    }

    async fn write_check(&self, row: &Resource, mut policy: Value) -> Result<(), ApiError> {
        let warnings = self.warnings(&policy);
        let mut status = json!({"observedGeneration": meta::generation(&policy), "typeChecking": {}});
        if !warnings.is_empty() {
            status["typeChecking"]["expressionWarnings"] = warnings.into();
        }
        let name = meta::name(&policy).to_owned();
        policy["status"] = status;
        let user = UserInfo {
            name: "system:kube-controller-manager".into(),
            groups: vec!["system:masters".into(), "system:authenticated".into()],
            ..UserInfo::default()
        };
        let mut cx = RequestContext::for_user(Arc::new(user));
        cx.user_agent = "kube-controller-manager".into();
        let body = Body::json(serde_json::to_vec(&policy).map_err(ApiError::internal)?);
        self.update(&cx, row, Some("status"), "", &name, body).await.map(|_| ())
    }

    fn warnings(&self, policy: &Value) -> Vec<Value> {
        let (_, rows) = self.rows();
        let rules = Rule::list(policy.pointer("/spec/matchConstraints/resourceRules"));
        let matched = |row: &&Arc<Resource>| {
            let named = |list: &[String], wanted: &str| list.iter().any(|own| own == wanted);
            rules.iter().any(|rule| {
                named(&rule.groups, &row.group)
                    && named(&rule.versions, &row.version)
                    && named(&rule.resources, &row.plural)
            })
        };
        let kinds: Vec<(String, Type)> = rows
            .iter()
            .filter(matched)
            .take(MOST_KINDS)
            .filter_map(|row| {
                let name = format!("{}, Kind={}", row.api_version(), row.kind);
                Some((name.clone(), Type::of_schema(row.schema()?, &name)))
            })
            .collect();
        let params = policy.pointer("/spec/paramKind").is_some();
        let list = policy.pointer("/spec/validations").and_then(Value::as_array).cloned().unwrap_or_default();
        let mut warnings = Vec::new();
        for (i, validation) in list.iter().enumerate() {
            for field in ["expression", "messageExpression"] {
                let source = validation.get(field).and_then(Value::as_str).unwrap_or_default();
                if source.is_empty() {
                    continue;
                }
                let found: Vec<String> = kinds
                    .iter()
                    .filter_map(|(name, kind)| {
                        let env = environment(policy, kind, params);
                        Program::compile(source, &env).err().map(|error| format!("{name}: {error}"))
                    })
                    .collect();
                if !found.is_empty() {
                    let at = format!("spec.validations[{i}].{field}");
                    warnings.push(json!({"fieldRef": at, "warning": found.join("\n")}));
                }
            }
        }
        warnings
    }
}

/// The variables of a policy for objects of one kind.
fn environment(policy: &Value, kind: &Type, params: bool) -> Env {
    let mut env = policy_environment(params).with("object", kind.clone()).with("oldObject", kind.clone());
    let list = policy.pointer("/spec/variables").and_then(Value::as_array).into_iter().flatten();
    let mut fields = Vec::new();
    for variable in list {
        let text = |key: &str| variable.get(key).and_then(Value::as_str).unwrap_or_default();
        let compiled = Program::compile(text("expression"), &env);
        fields.push((text("name").to_owned(), compiled.map_or(Type::Dyn, |program| program.kind().clone())));
        env = env.with("variables", Type::fields("variables", fields.clone()));
    }
    env
}
