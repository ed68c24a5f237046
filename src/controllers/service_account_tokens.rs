//! Fills Secrets of type `kubernetes.io/service-account-token` that people make for a ServiceAccount.
//!
//! The token is bound to the Secret, so that deleting the Secret revokes it, and lasts as long as the API allows. A
//! Secret whose account does not exist is deleted, as upstream's controller does.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::ByteString;
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use kube::Client;
use kube::api::{Api, DeleteParams, PostParams, Preconditions};
use tokio_util::sync::CancellationToken;

use super::Context;
use crate::client::{Change, Controller, Informer, Key, Next, Selection, error};

pub(super) const TYPE: &str = "kubernetes.io/service-account-token";
pub(super) const ACCOUNT_NAME: &str = "kubernetes.io/service-account.name";
pub(super) const ACCOUNT_UID: &str = "kubernetes.io/service-account.uid";
/// The longest lifetime that the API grants, in seconds.
const LIFETIME: i64 = (1 << 32) - 1;

/// What went wrong with one Secret.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The account could not be looked up.
    #[error("get service account")]
    Account(#[source] kube::Error),
    /// No token was issued.
    #[error("request token")]
    Token(#[source] kube::Error),
    /// The Secret could not be filled.
    #[error("update secret")]
    Update(#[source] kube::Error),
    /// The Secret of an account that does not exist could not be deleted.
    #[error("delete secret")]
    Delete(#[source] kube::Error),
}

/// Runs until `stop`.
pub async fn run(context: Context, stop: CancellationToken) {
    let Context { client, informers, config, .. } = context;
    // Only these, so that no other Secret is held in memory.
    let secrets = informers.select::<Secret>(Selection::fields(format!("type={TYPE}")));
    let accounts = informers.get::<ServiceAccount>();
    let of_accounts = secrets.clone();
    let controller = Controller::new("serviceaccount_tokens")
        .for_each(&secrets)
        .watch(&accounts, move |change: &Change<ServiceAccount>| secrets_of(&of_accounts, change));
    let root_ca = config.root_ca_pem.clone();
    let this = Arc::new(Tokens { client, secrets, accounts, root_ca });
    let reconcile = move |key: Key| {
        let this = this.clone();
        async move { this.reconcile(&key).await }
    };
    controller.run(reconcile, stop).await;
}

fn account_of(secret: &Secret) -> &str {
    let annotations = secret.metadata.annotations.as_ref();
    annotations.and_then(|all| all.get(ACCOUNT_NAME)).map_or("", String::as_str)
}

/// The Secrets of an account that came or went.
fn secrets_of(secrets: &Informer<Secret>, change: &Change<ServiceAccount>) -> Vec<Key> {
    let meta = &change.object().metadata;
    if change.before().is_some() && change.after().is_some() {
        return Vec::new();
    }
    let all = secrets.in_namespace(meta.namespace.as_deref().unwrap_or_default());
    let own = all.iter().filter(|secret| Some(account_of(secret)) == meta.name.as_deref());
    own.map(|secret| Key::of(secret.as_ref())).collect()
}

/// The Secret as it should be, except for the token, and whether that is missing; `None` if all is well.
fn wanted(secret: &Secret, account: &ServiceAccount, root_ca: &str) -> Option<(Secret, bool)> {
    let mut wanted = secret.clone();
    let uid = account.metadata.uid.clone().unwrap_or_default();
    wanted.metadata.annotations.get_or_insert_default().insert(ACCOUNT_UID.to_owned(), uid);
    let namespace = secret.metadata.namespace.clone().unwrap_or_default();
    let data: &mut BTreeMap<_, _> = wanted.data.get_or_insert_default();
    data.insert("ca.crt".to_owned(), ByteString(root_ca.as_bytes().to_vec()));
    data.entry("namespace".to_owned()).or_insert_with(|| ByteString(namespace.into_bytes()));
    let no_token = data.get("token").is_none_or(|token| token.0.is_empty());
    (no_token || wanted != *secret).then_some((wanted, no_token))
}

struct Tokens {
    client: Client,
    secrets: Informer<Secret>,
    accounts: Informer<ServiceAccount>,
    root_ca: String,
}

impl Tokens {
    async fn reconcile(&self, key: &Key) -> Result<Next, Error> {
        let Some(secret) = self.secrets.get(key) else { return Ok(Next::Done) };
        let name = account_of(&secret);
        if secret.metadata.deletion_timestamp.is_some() || name.is_empty() {
            return Ok(Next::Done);
        }
        let api: Api<ServiceAccount> = Api::namespaced(self.client.clone(), key.namespace());
        let account = match self.accounts.find(key.namespace(), name) {
            Some(account) => Some(account),
            // The cache may lag behind a Secret that was made right after its account.
            None => api.get_opt(name).await.map_err(Error::Account)?.map(Arc::new),
        };
        let annotations = secret.metadata.annotations.as_ref();
        let uid = annotations.and_then(|all| all.get(ACCOUNT_UID));
        let account = account.filter(|account| uid.is_none() || account.metadata.uid.as_ref() == uid);
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), key.namespace());
        let Some(account) = account else { return delete(&secrets, &secret).await };
        let Some((mut wanted, no_token)) = wanted(&secret, &account, &self.root_ca) else {
            return Ok(Next::Done);
        };
        if no_token {
            let token = request(&api, name, &secret).await?;
            wanted.data.get_or_insert_default().insert("token".to_owned(), token);
        }
        match secrets.replace(key.name(), &PostParams::default(), &wanted).await {
            Err(failure) if !error::is_not_found(&failure) => Err(Error::Update(failure)),
            _ => Ok(Next::Done),
        }
    }
}

async fn request(api: &Api<ServiceAccount>, account: &str, secret: &Secret) -> Result<ByteString, Error> {
    let bound = BoundObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Secret".to_owned()),
        name: secret.metadata.name.clone(),
        uid: secret.metadata.uid.clone(),
    };
    let request = TokenRequest {
        spec: Some(TokenRequestSpec {
            audiences: None,
            bound_object_ref: Some(bound),
            expiration_seconds: Some(LIFETIME),
        }),
        ..TokenRequest::default()
    };
    let answer = api.create_token_request(account, &PostParams::default(), &request).await;
    let token = answer.map_err(Error::Token)?.status.and_then(|status| status.token).unwrap_or_default();
    Ok(ByteString(token.into_bytes()))
}

async fn delete(secrets: &Api<Secret>, secret: &Secret) -> Result<Next, Error> {
    let preconditions = Preconditions { uid: secret.metadata.uid.clone(), resource_version: None };
    let parameters = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
    match secrets.delete(secret.metadata.name.as_deref().unwrap_or_default(), &parameters).await {
        Err(failure) if !error::is_not_found(&failure) => Err(Error::Delete(failure)),
        _ => Ok(Next::Done),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_secret_is_filled_once() {
        let account: ServiceAccount =
            serde_json::from_value(json!({"metadata": {"name": "a", "namespace": "ns", "uid": "u"}}))
                .unwrap();
        let secret: Secret = serde_json::from_value(json!({"type": TYPE,
            "metadata": {"name": "s", "namespace": "ns", "annotations": {ACCOUNT_NAME: "a"}}}))
        .unwrap();
        let (mut filled, no_token) = wanted(&secret, &account, "the root").unwrap();
        assert!(no_token);
        assert_eq!(filled.metadata.annotations.as_ref().unwrap()[ACCOUNT_UID], "u");
        let data = filled.data.as_mut().unwrap();
        assert_eq!(
            (data["ca.crt"].0.as_slice(), data["namespace"].0.as_slice()),
            (&b"the root"[..], &b"ns"[..])
        );
        data.insert("token".to_owned(), ByteString(b"t".to_vec()));
        assert_eq!(wanted(&filled, &account, "the root"), None);
        let (renewed, no_token) = wanted(&filled, &account, "another root").unwrap();
        assert!(!no_token && renewed.data.unwrap()["token"].0 == b"t", "the token stays");
    }
}
