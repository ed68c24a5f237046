//! The files that a configMap, secret, downwardAPI or projected volume shows. No I/O.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use k8s_openapi::api::core::v1::{
    ConfigMap, DownwardAPIVolumeFile, KeyToPath, Pod, ProjectedVolumeSource, Secret, Volume,
};

use super::atomic::{Payload, Projected};
use crate::kubelet::containers::field_ref::{FieldError, NodeFacts, field, resource};
use crate::kubelet::spec;

const DEFAULT_MODE: i32 = 0o644;

/// Objects that volumes refer to, already fetched; `None` means that the object does not exist.
#[derive(Clone, Debug, Default)]
pub struct Objects {
    /// ConfigMaps by name.
    pub config_maps: BTreeMap<String, Option<ConfigMap>>,
    /// Secrets by name.
    pub secrets: BTreeMap<String, Option<Secret>>,
    /// Service account tokens by audience and lifetime.
    pub tokens: BTreeMap<TokenKey, String>,
}

/// What distinguishes one token of a pod from another.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TokenKey {
    /// Audience; `None` is the API server's own.
    pub audience: Option<String>,
    /// Lifetime in seconds.
    pub seconds: i64,
}

/// Names of the objects that a pod's volumes need.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct References {
    /// ConfigMaps.
    pub config_maps: BTreeSet<String>,
    /// Secrets.
    pub secrets: BTreeSet<String>,
    /// Service account tokens.
    pub tokens: BTreeSet<TokenKey>,
}

/// Why a volume's files cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PayloadError {
    /// A ConfigMap does not exist.
    #[error("configmap \"{0}\" not found")]
    ConfigMap(String),
    /// A Secret does not exist.
    #[error("secret \"{0}\" not found")]
    Secret(String),
    /// A named key is not in the object.
    #[error("references non-existent {kind} key: {key}")]
    Key {
        /// `config` or `secret`.
        kind: &'static str,
        /// The key.
        key: String,
    },
    /// A token has not been issued.
    #[error("failed to fetch token")]
    Token,
    /// A field names nothing.
    #[error(transparent)]
    Field(#[from] FieldError),
}

/// What all volumes of a pod refer to.
pub fn references(pod: &Pod) -> References {
    let mut out = References::default();
    for volume in spec::pod_spec(pod).volumes.iter().flatten() {
        out.config_maps.extend(volume.config_map.iter().map(|c| c.name.clone()));
        out.secrets.extend(volume.secret.iter().filter_map(|s| s.secret_name.clone()));
        for source in volume.projected.iter().flat_map(|p| p.sources.iter().flatten()) {
            out.config_maps.extend(source.config_map.iter().map(|c| c.name.clone()));
            out.secrets.extend(source.secret.iter().map(|s| s.name.clone()));
            out.tokens.extend(source.service_account_token.iter().map(|t| TokenKey {
                audience: t.audience.clone().filter(|a| !a.is_empty()),
                seconds: t.expiration_seconds.unwrap_or(3600),
            }));
        }
    }
    out
}

/// Whether the volume's content comes from the API and may change.
pub fn is_projected(volume: &Volume) -> bool {
    volume.config_map.is_some()
        || volume.secret.is_some()
        || volume.downward_api.is_some()
        || volume.projected.is_some()
}

/// Whether the files change while the pod runs, for reasons other than the API objects' own.
pub fn follows_the_pod(pod: &Pod) -> bool {
    spec::pod_spec(pod).volumes.iter().flatten().any(|v| {
        v.downward_api.is_some()
            || v.projected.iter().flat_map(|p| p.sources.iter().flatten()).any(|s| s.downward_api.is_some())
    })
}

/// The files of one volume; empty for volumes of other types.
pub fn payload(
    pod: &Pod,
    volume: &Volume,
    facts: &NodeFacts,
    objects: &Objects,
) -> Result<Payload, PayloadError> {
    let mut out = Payload::new();
    if let Some(source) = &volume.config_map {
        let mode = source.default_mode.unwrap_or(DEFAULT_MODE);
        let optional = source.optional.unwrap_or(false);
        config_map(&mut out, objects, &source.name, source.items.as_deref(), mode, optional)?;
    } else if let Some(source) = &volume.secret {
        let mode = source.default_mode.unwrap_or(DEFAULT_MODE);
        let optional = source.optional.unwrap_or(false);
        let name = source.secret_name.as_deref().unwrap_or_default();
        secret(&mut out, objects, name, source.items.as_deref(), mode, optional)?;
    } else if let Some(source) = &volume.downward_api {
        let mode = source.default_mode.unwrap_or(DEFAULT_MODE);
        downward(&mut out, pod, facts, source.items.as_deref().unwrap_or_default(), mode)?;
    } else if let Some(source) = &volume.projected {
        projected(&mut out, pod, facts, objects, source)?;
    }
    Ok(out)
}

fn projected(
    out: &mut Payload,
    pod: &Pod,
    facts: &NodeFacts,
    objects: &Objects,
    source: &ProjectedVolumeSource,
) -> Result<(), PayloadError> {
    let mode = source.default_mode.unwrap_or(DEFAULT_MODE);
    for part in source.sources.iter().flatten() {
        if let Some(c) = &part.config_map {
            config_map(out, objects, &c.name, c.items.as_deref(), mode, c.optional.unwrap_or(false))?;
        }
        if let Some(s) = &part.secret {
            secret(out, objects, &s.name, s.items.as_deref(), mode, s.optional.unwrap_or(false))?;
        }
        if let Some(d) = &part.downward_api {
            downward(out, pod, facts, d.items.as_deref().unwrap_or_default(), mode)?;
        }
        if let Some(t) = &part.service_account_token {
            let key = TokenKey {
                audience: t.audience.clone().filter(|a| !a.is_empty()),
                seconds: t.expiration_seconds.unwrap_or(3600),
            };
            let token = objects.tokens.get(&key).ok_or(PayloadError::Token)?;
            put(out, &t.path, token.clone().into_bytes(), token_mode(pod, mode), token_owner(pod));
        }
    }
    Ok(())
}

/// A token is private, unless the pod's group must read it or its user owns it.
fn token_mode(pod: &Pod, mode: i32) -> i32 {
    let context = spec::pod_spec(pod).security_context.as_ref();
    if context.is_some_and(|c| c.fs_group.is_some()) || token_owner(pod).is_some() { 0o600 } else { mode }
}

/// All containers run as one and the same user, who may then own the token.
fn token_owner(pod: &Pod) -> Option<u32> {
    let pods = spec::pod_spec(pod).security_context.as_ref().and_then(|c| c.run_as_user);
    let mut users = spec::all_containers(pod)
        .map(|(_, c)| c.security_context.as_ref().and_then(|s| s.run_as_user).or(pods));
    let first = users.next()??;
    users.all(|user| user == Some(first)).then(|| u32::try_from(first).ok()).flatten()
}

fn config_map(
    out: &mut Payload,
    objects: &Objects,
    name: &str,
    items: Option<&[KeyToPath]>,
    mode: i32,
    optional: bool,
) -> Result<(), PayloadError> {
    let Some(map) = objects.config_maps.get(name).and_then(Option::as_ref) else {
        return if optional { Ok(()) } else { Err(PayloadError::ConfigMap(name.to_owned())) };
    };
    let text = map.data.iter().flatten().map(|(k, v)| (k.clone(), v.clone().into_bytes()));
    let binary = map.binary_data.iter().flatten().map(|(k, v)| (k.clone(), v.0.clone()));
    select(out, &text.chain(binary).collect(), items, mode, optional, "config")
}

fn secret(
    out: &mut Payload,
    objects: &Objects,
    name: &str,
    items: Option<&[KeyToPath]>,
    mode: i32,
    optional: bool,
) -> Result<(), PayloadError> {
    let Some(secret) = objects.secrets.get(name).and_then(Option::as_ref) else {
        return if optional { Ok(()) } else { Err(PayloadError::Secret(name.to_owned())) };
    };
    let data = secret.data.iter().flatten().map(|(k, v)| (k.clone(), v.0.clone())).collect();
    select(out, &data, items, mode, optional, "secret")
}

fn select(
    out: &mut Payload,
    data: &BTreeMap<String, Vec<u8>>,
    items: Option<&[KeyToPath]>,
    mode: i32,
    optional: bool,
    kind: &'static str,
) -> Result<(), PayloadError> {
    let Some(items) = items.filter(|i| !i.is_empty()) else {
        for (key, bytes) in data {
            put(out, key, bytes.clone(), mode, None);
        }
        return Ok(());
    };
    for item in items {
        match data.get(&item.key) {
            Some(bytes) => put(out, &item.path, bytes.clone(), item.mode.unwrap_or(mode), None),
            None if optional => {}
            None => return Err(PayloadError::Key { kind, key: item.key.clone() }),
        }
    }
    Ok(())
}

fn downward(
    out: &mut Payload,
    pod: &Pod,
    facts: &NodeFacts,
    items: &[DownwardAPIVolumeFile],
    mode: i32,
) -> Result<(), PayloadError> {
    for item in items {
        let text = if let Some(selector) = &item.field_ref {
            field(pod, facts, selector)?
        } else if let Some(selector) = &item.resource_field_ref {
            resource(pod, facts, None, selector)?
        } else {
            continue;
        };
        put(out, &item.path, text.into_bytes(), item.mode.unwrap_or(mode), None);
    }
    Ok(())
}

fn put(out: &mut Payload, path: &str, data: Vec<u8>, mode: i32, uid: Option<u32>) {
    let mode = u32::try_from(mode).unwrap_or(0o644);
    out.insert(PathBuf::from(path), Projected { data, mode, uid });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubelet::pods::fixture;
    use serde_json::{Value, json};
    use std::path::Path;

    fn objects() -> Objects {
        let map = json!({"data": {"a": "1", "b": "2"}, "binaryData": {"c": "AP8="}});
        Objects {
            config_maps: [("cm".to_owned(), serde_json::from_value(map).unwrap())].into(),
            secrets: [("s".to_owned(), serde_json::from_value(json!({"data": {"p": "cA=="}})).unwrap())]
                .into(),
            tokens: [(TokenKey { audience: None, seconds: 3607 }, "jwt".to_owned())].into(),
        }
    }

    fn files(volume: Value) -> Result<Vec<(String, Vec<u8>, u32)>, PayloadError> {
        let mut pod = fixture::pod(json!({"containers": [{"name": "a"}]}));
        pod.metadata.labels = Some([("l".to_owned(), "v".to_owned())].into());
        let volume: Volume = serde_json::from_value(volume).unwrap();
        let got = payload(&pod, &volume, &NodeFacts::default(), &objects())?;
        Ok(got.into_iter().map(|(p, f)| (p.display().to_string(), f.data, f.mode)).collect())
    }

    #[test]
    fn config_maps_show_all_keys_or_the_chosen_ones() {
        let all = files(json!({"name": "v", "configMap": {"name": "cm"}})).unwrap();
        assert_eq!(all.iter().map(|f| f.0.as_str()).collect::<Vec<_>>(), ["a", "b", "c"]);
        assert_eq!((all[2].1.as_slice(), all[0].2), ([0, 0xff].as_slice(), 0o644));
        let chosen = files(json!({"name": "v", "configMap": {"name": "cm", "defaultMode": 256,
            "items": [{"key": "a", "path": "x/y"}, {"key": "b", "path": "z", "mode": 511}]}}))
        .unwrap();
        assert_eq!(chosen, [("x/y".into(), b"1".to_vec(), 0o400), ("z".into(), b"2".to_vec(), 0o777)]);
    }

    #[test]
    fn missing_things_are_errors_unless_optional() {
        for (volume, want) in [
            (json!({"name": "v", "configMap": {"name": "no"}}), Some("configmap \"no\" not found")),
            (json!({"name": "v", "configMap": {"name": "no", "optional": true}}), None),
            (json!({"name": "v", "secret": {"secretName": "no"}}), Some("secret \"no\" not found")),
            (
                json!({"name": "v", "secret": {"secretName": "s", "items": [{"key": "q", "path": "q"}]}}),
                Some("references non-existent secret key: q"),
            ),
        ] {
            let got = files(volume).err().map(|e| e.to_string());
            assert_eq!(got.as_deref(), want);
        }
    }

    #[test]
    fn projected_volumes_put_their_sources_together() {
        let got = files(json!({"name": "v", "projected": {"sources": [
            {"serviceAccountToken": {"path": "token", "expirationSeconds": 3607}},
            {"configMap": {"name": "cm", "items": [{"key": "a", "path": "ca.crt"}]}},
            {"secret": {"name": "s"}},
            {"downwardAPI": {"items": [
                {"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}},
                {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}}]}}))
        .unwrap();
        let text: Vec<(String, String)> =
            got.into_iter().map(|(p, d, _)| (p, String::from_utf8(d).unwrap())).collect();
        let want =
            [("ca.crt", "1"), ("labels", "l=\"v\""), ("namespace", "default"), ("p", "p"), ("token", "jwt")];
        assert_eq!(text, want.map(|(a, b)| (a.to_owned(), b.to_owned())));
    }

    #[test]
    fn references_are_collected_once() {
        let pod = fixture::pod(json!({"containers": [], "volumes": [
            {"name": "a", "configMap": {"name": "cm"}},
            {"name": "b", "secret": {"secretName": "s"}},
            {"name": "c", "projected": {"sources": [{"configMap": {"name": "cm"}},
                {"serviceAccountToken": {"path": "t", "audience": "vault", "expirationSeconds": 600}}]}}]}));
        let got = references(&pod);
        assert_eq!(got.config_maps.len(), 1);
        assert_eq!(got.tokens.first().unwrap().audience.as_deref(), Some("vault"));
    }

    #[test]
    fn a_token_is_owned_by_the_only_user() {
        let pod = |own: Value| {
            fixture::pod(json!({"securityContext": {"runAsUser": 5}, "containers": [
                {"name": "a"}, {"name": "b", "securityContext": own}]}))
        };
        assert_eq!(token_owner(&pod(json!({}))), Some(5));
        assert_eq!(token_owner(&pod(json!({"runAsUser": 6}))), None);
        assert_eq!(token_mode(&pod(json!({})), 0o644), 0o600);
    }

    #[test]
    fn file_types_are_kept_apart() {
        let plain: Volume = serde_json::from_value(json!({"name": "v", "emptyDir": {}})).unwrap();
        assert!(!is_projected(&plain));
        assert!(files(json!({"name": "v", "emptyDir": {}})).unwrap().is_empty());
        assert!(Path::new("a").is_relative());
    }
}
