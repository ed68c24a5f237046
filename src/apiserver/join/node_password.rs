//! Node passwords: who asked for a node name first.

use std::num::NonZeroU32;
use std::sync::Arc;

use aws_lc_rs::pbkdf2;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::api::core::v1::Secret;
use serde_json::{Value, json};

use crate::api::error::{ApiError, GroupResource, Reason};
use crate::apiserver::authentication::MASTERS;
use crate::registry::{Body, GetOptions, Registry, RequestContext, UserInfo};

const NAMESPACE: &str = "kube-system";
const KEY: &str = "hash";
/// Shortest password that is accepted; agents make random ones.
const SHORTEST: usize = 16;
/// Rounds of the hash. The password is random, so that few rounds are enough; more would make joining many nodes slow.
const ROUNDS: NonZeroU32 = NonZeroU32::new(10_000).expect("ten thousand is not zero");
const SALT_LEN: usize = 16;
const HASH_LEN: usize = 32;

/// Checks the password of a node name, or sets it if the name has none yet.
pub(super) async fn ensure(registry: &Arc<Registry>, node: &str, password: &str) -> Result<(), ApiError> {
    if password.len() < SHORTEST {
        return Err(ApiError::bad_request(format!(
            "the node password must have at least {SHORTEST} characters"
        )));
    }
    let name = format!("{node}.node-password.kube-lite");
    let row =
        registry.catalog().of::<Secret>().ok_or_else(|| ApiError::internal("secrets are not served"))?;
    let context = RequestContext::for_user(Arc::new(UserInfo {
        name: "system:apiserver".to_owned(),
        groups: vec![MASTERS.to_owned()],
        ..UserInfo::default()
    }));
    let latest = GetOptions::default();
    let read = || registry.get(&context, row, None, NAMESPACE, &name, &latest);
    let stored = match read().await {
        Ok(reply) => reply.body,
        Err(error) if error.reason() == Reason::NotFound => {
            let secret = json!({
                "apiVersion": "v1",
                "kind": "Secret",
                "metadata": {"name": name, "namespace": NAMESPACE},
                "immutable": true,
                "data": {KEY: STANDARD.encode(hash(password)?)},
            });
            let body = Body::json(secret.to_string().into_bytes());
            match registry.create(&context, row, None, NAMESPACE, "", body).await {
                Ok(_) => return Ok(()),
                // Another request for the same name was first; its password counts.
                Err(error) if error.reason() == Reason::AlreadyExists => read().await?.body,
                Err(error) => return Err(error),
            }
        }
        Err(error) => return Err(error),
    };
    let secret: Value = serde_json::from_slice(&stored).map_err(ApiError::internal)?;
    let matches = secret["data"][KEY]
        .as_str()
        .and_then(|text| STANDARD.decode(text).ok())
        .is_some_and(|stored| verify(&stored, password));
    if matches {
        return Ok(());
    }
    Err(ApiError::forbidden(
        &GroupResource::new("", "nodes"),
        node,
        format!(
            "another host has this node name: choose another with --node-name, or delete secret {NAMESPACE}/{name} if \
             this host was installed anew"
        ),
    ))
}

fn derive(salt: &[u8], password: &str) -> [u8; HASH_LEN] {
    let mut out = [0; HASH_LEN];
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, ROUNDS, salt, password.as_bytes(), &mut out);
    out
}

/// Salt and hash.
fn hash(password: &str) -> Result<Vec<u8>, ApiError> {
    let mut salt = [0; SALT_LEN];
    aws_lc_rs::rand::fill(&mut salt)
        .map_err(|_| ApiError::internal("the system's random generator failed"))?;
    Ok([salt.as_slice(), &derive(&salt, password)].concat())
}

fn verify(stored: &[u8], password: &str) -> bool {
    let Some((salt, hash)) = stored.split_at_checked(SALT_LEN) else { return false };
    hash.len() == HASH_LEN
        && pbkdf2::verify(pbkdf2::PBKDF2_HMAC_SHA256, ROUNDS, salt, password.as_bytes(), hash).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hash_verifies_its_own_password_only() {
        let stored = hash("correct horse battery").unwrap();
        assert!(verify(&stored, "correct horse battery"));
        assert!(!verify(&stored, "correct horse batterz"));
        assert!(!verify(&stored[..20], "correct horse battery") && !verify(b"", ""));
        assert_ne!(stored, hash("correct horse battery").unwrap(), "salted");
    }
}
