//! ConfigMaps, Secrets and ServiceAccounts.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ConfigMap, Secret, ServiceAccount};
use k8s_openapi::jiff::Timestamp;
use serde_json::Value;

use crate::api::field::{FieldError, FieldErrors, Path};
use crate::api::names;
use crate::registry::strategy::Strategy;
use crate::registry::table::{AGE, Column, NAME, age_cell, column, name_cell};
use crate::registry::validation::{IMMUTABLE, each};

/// The most that a ConfigMap or Secret holds.
const MAX_SIZE: usize = 1024 * 1024;

/// The columns of ConfigMaps.
pub const CONFIG_MAP_COLUMNS: &[Column] =
    &[NAME, column("Data", "string", "How many entries there are."), AGE];
/// The columns of Secrets.
pub const SECRET_COLUMNS: &[Column] = &[
    NAME,
    column("Type", "string", "What the secret is for."),
    column("Data", "string", "How many entries there are."),
    AGE,
];
/// The columns of ServiceAccounts.
pub const SERVICE_ACCOUNT_COLUMNS: &[Column] =
    &[NAME, column("Secrets", "string", "How many secrets the account names."), AGE];

/// The strategy of ConfigMaps.
pub struct ConfigMapStrategy;
/// The strategy of Secrets.
pub struct SecretStrategy;
/// The strategy of ServiceAccounts.
pub struct ServiceAccountStrategy;

fn len<K, V>(map: Option<&BTreeMap<K, V>>) -> usize {
    map.map_or(0, BTreeMap::len)
}

fn keys<'a>(keys: impl Iterator<Item = &'a String>, at: &Path, errors: &mut FieldErrors) {
    for key in keys {
        each(names::is_config_map_key(key), key, &at.key(key.clone()), errors);
    }
}

/// Checks that an entry, if it is there, is a JSON object; what it holds is not told.
fn json(secret: &Secret, key: &'static str, at: &Path, errors: &mut FieldErrors) {
    let Some(bytes) = secret.data.as_ref().and_then(|data| data.get(key)) else { return };
    let what = match serde_json::from_slice::<Value>(&bytes.0) {
        Ok(Value::Object(_) | Value::Null) => return,
        Ok(Value::Array(_)) => "array",
        Ok(Value::String(_)) => "string",
        Ok(Value::Number(_)) => "number",
        Ok(Value::Bool(_)) => "bool",
        Err(_) => "",
    };
    let first = bytes.0.iter().find(|b| !b.is_ascii_whitespace()).map(|b| char::from(*b));
    let message = match first {
        _ if !what.is_empty() => {
            format!("json: cannot unmarshal {what} into Go value of type map[string]interface {{}}")
        }
        Some(first) if first != '{' => format!("invalid character '{first}' looking for beginning of value"),
        _ => "unexpected end of JSON input".to_owned(),
    };
    errors.push(FieldError::invalid(&at.key(key), "<secret contents redacted>", message));
}

impl Strategy for ConfigMapStrategy {
    type Object = ConfigMap;

    fn validate(&self, map: &ConfigMap, errors: &mut FieldErrors) {
        let at = Path::new("data");
        keys(map.data.iter().flatten().map(|(key, _)| key), &at, errors);
        keys(map.binary_data.iter().flatten().map(|(key, _)| key), &Path::new("binaryData"), errors);
        let binary = map.binary_data.iter().flatten();
        for (key, _) in
            binary.filter(|(key, _)| map.data.as_ref().is_some_and(|data| data.contains_key(*key)))
        {
            let message = "duplicate of key present in binaryData";
            errors.push(FieldError::invalid(&at.key(key.clone()), key, message));
        }
        let size: usize = map.data.iter().flatten().map(|(_, value)| value.len()).sum::<usize>()
            + map.binary_data.iter().flatten().map(|(_, value)| value.0.len()).sum::<usize>();
        if size > MAX_SIZE {
            errors.push(FieldError::too_long(&Path::new(""), MAX_SIZE));
        }
    }

    fn validate_update(&self, map: &ConfigMap, old: &ConfigMap, errors: &mut FieldErrors) {
        if old.immutable != Some(true) {
            return;
        }
        let message = "field is immutable when `immutable` is set";
        if map.immutable != Some(true) {
            errors.push(FieldError::forbidden(&Path::new("immutable"), message));
        }
        if map.data != old.data {
            errors.push(FieldError::forbidden(&Path::new("data"), message));
        }
        if map.binary_data != old.binary_data {
            errors.push(FieldError::forbidden(&Path::new("binaryData"), message));
        }
    }

    fn cells(&self, map: &ConfigMap, now: Timestamp) -> Vec<Value> {
        let count = len(map.data.as_ref()) + len(map.binary_data.as_ref());
        vec![name_cell(&map.metadata), count.to_string().into(), age_cell(&map.metadata, now)]
    }
}

impl Strategy for SecretStrategy {
    type Object = Secret;

    fn default(&self, secret: &mut Secret) {
        if secret.type_.as_deref().is_none_or(str::is_empty) {
            secret.type_ = Some("Opaque".into());
        }
        for (key, value) in secret.string_data.take().into_iter().flatten() {
            let bytes = k8s_openapi::ByteString(value.into_bytes());
            secret.data.get_or_insert_default().insert(key, bytes);
        }
    }

    fn validate(&self, secret: &Secret, errors: &mut FieldErrors) {
        let at = Path::new("data");
        keys(secret.data.iter().flatten().map(|(key, _)| key), &at, errors);
        let size: usize = secret.data.iter().flatten().map(|(_, value)| value.0.len()).sum();
        if size > MAX_SIZE {
            errors.push(FieldError::too_long(&at, MAX_SIZE));
        }
        let mut need = |key: &'static str| {
            if secret.data.as_ref().is_none_or(|data| !data.contains_key(key)) {
                errors.push(FieldError::required(&at.key(key), ""));
            }
        };
        match secret.type_.as_deref().unwrap_or_default() {
            "kubernetes.io/service-account-token" => {
                let annotation = "kubernetes.io/service-account.name";
                let named = secret.metadata.annotations.as_ref().and_then(|a| a.get(annotation));
                if named.is_none_or(String::is_empty) {
                    let at = Path::new("metadata").child("annotations").key(annotation);
                    errors.push(FieldError::required(&at, ""));
                }
            }
            "kubernetes.io/dockerconfigjson" => {
                need(".dockerconfigjson");
                json(secret, ".dockerconfigjson", &at, errors);
            }
            "kubernetes.io/dockercfg" => {
                need(".dockercfg");
                json(secret, ".dockercfg", &at, errors);
            }
            "kubernetes.io/ssh-auth" => {
                let key = secret.data.as_ref().and_then(|data| data.get("ssh-privatekey"));
                if key.is_none_or(|key| key.0.is_empty()) {
                    errors.push(FieldError::required(&at.key("ssh-privatekey"), ""));
                }
            }
            "kubernetes.io/tls" => {
                need("tls.crt");
                need("tls.key");
            }
            "kubernetes.io/basic-auth" => {
                let data = secret.data.as_ref();
                if !data.is_some_and(|d| d.contains_key("username") || d.contains_key("password")) {
                    need("username");
                    need("password");
                }
            }
            _ => {}
        }
    }

    fn validate_update(&self, secret: &Secret, old: &Secret, errors: &mut FieldErrors) {
        if secret.type_ != old.type_ {
            errors.push(FieldError::invalid(&Path::new("type"), &secret.type_, IMMUTABLE));
        }
        if old.immutable != Some(true) {
            return;
        }
        let message = "field is immutable when `immutable` is set";
        if secret.immutable != Some(true) {
            errors.push(FieldError::forbidden(&Path::new("immutable"), message));
        }
        if secret.data != old.data {
            errors.push(FieldError::forbidden(&Path::new("data"), message));
        }
    }

    fn cells(&self, secret: &Secret, now: Timestamp) -> Vec<Value> {
        vec![
            name_cell(&secret.metadata),
            secret.type_.clone().unwrap_or_default().into(),
            len(secret.data.as_ref()).to_string().into(),
            age_cell(&secret.metadata, now),
        ]
    }
}

impl Strategy for ServiceAccountStrategy {
    type Object = ServiceAccount;

    fn cells(&self, account: &ServiceAccount, now: Timestamp) -> Vec<Value> {
        let secrets = account.secrets.as_ref().map_or(0, Vec::len);
        vec![name_cell(&account.metadata), secrets.to_string().into(), age_cell(&account.metadata, now)]
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn string_data_becomes_data() {
        let mut secret: Secret =
            serde_json::from_value(json!({"stringData": {"a": "b"}, "data": {"a": "eA=="}})).unwrap();
        SecretStrategy.default(&mut secret);
        assert_eq!(serde_json::to_value(&secret).unwrap()["data"], json!({"a": "Yg=="}));
        assert_eq!((secret.type_.as_deref(), secret.string_data), (Some("Opaque"), None));
    }

    #[test]
    fn immutable_maps_and_typed_secrets_are_guarded() {
        let old: ConfigMap = serde_json::from_value(json!({"immutable": true, "data": {"a": "b"}})).unwrap();
        let new = ConfigMap::default();
        let mut errors = FieldErrors::new();
        ConfigMapStrategy.validate_update(&new, &old, &mut errors);
        let found: Vec<_> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(
            found,
            [
                "immutable: Forbidden: field is immutable when `immutable` is set",
                "data: Forbidden: field is immutable when `immutable` is set"
            ]
        );
        let secret: Secret =
            serde_json::from_value(json!({"type": "kubernetes.io/tls", "data": {"!": "eA=="}})).unwrap();
        let mut errors = FieldErrors::new();
        SecretStrategy.validate(&secret, &mut errors);
        let found: Vec<_> = errors.iter().map(ToString::to_string).collect();
        assert!(found[0].starts_with("data[!]: Invalid value: \"!\""), "{found:?}");
        assert_eq!(found[1..], ["data[tls.crt]: Required value", "data[tls.key]: Required value"]);
    }

    #[test]
    fn credentials_are_json_and_keys_are_not_empty() {
        let check = |kind: &str, key: &str, value: &str| {
            let mut secret: Secret =
                serde_json::from_value(json!({"type": kind, "stringData": {key: value}})).unwrap();
            SecretStrategy.default(&mut secret);
            let mut errors = FieldErrors::new();
            SecretStrategy.validate(&secret, &mut errors);
            errors.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        let (docker, key) = ("kubernetes.io/dockerconfigjson", ".dockerconfigjson");
        let start = "data[.dockerconfigjson]: Invalid value: \"<secret contents redacted>\": ";
        assert_eq!(check(docker, key, "{\"auths\":{}}"), Vec::<String>::new());
        assert_eq!(check(docker, key, ""), [format!("{start}unexpected end of JSON input")]);
        assert_eq!(
            check(docker, key, "x"),
            [format!("{start}invalid character 'x' looking for beginning of value")]
        );
        assert_eq!(
            check(docker, key, "[]"),
            [format!("{start}json: cannot unmarshal array into Go value of type map[string]interface {{}}")]
        );
        assert_eq!(
            check("kubernetes.io/ssh-auth", "ssh-privatekey", ""),
            ["data[ssh-privatekey]: Required value"]
        );
        assert_eq!(check("kubernetes.io/ssh-auth", "ssh-privatekey", "k"), Vec::<String>::new());
    }
}
