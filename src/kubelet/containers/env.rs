//! A container's environment.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{ConfigMap, Container, EnvVar, FileKeySelector, Pod, Secret};

use super::env_file;
use super::expand::expand;
use super::field_ref::{FieldError, NodeFacts, field, resource};
use crate::kubelet::spec;

/// What a container's environment refers to, already fetched; `None` means that the object does not exist.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// ConfigMaps by name.
    pub config_maps: BTreeMap<String, Option<ConfigMap>>,
    /// Secrets by name.
    pub secrets: BTreeMap<String, Option<Secret>>,
    /// Variables of Services.
    pub services: Vec<(String, String)>,
    /// Files of variables by volume and path, or why they cannot be read; `None` for one that is not there.
    pub files: BTreeMap<(String, String), Result<Option<String>, String>>,
}

/// Why an environment cannot be built; the text is what the container's waiting state shows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnvError {
    /// A ConfigMap does not exist.
    #[error("configmap \"{0}\" not found")]
    ConfigMap(String),
    /// A Secret does not exist.
    #[error("secret \"{0}\" not found")]
    Secret(String),
    /// An object has no such key.
    #[error("couldn't find key {key} in {kind} {namespace}/{name}")]
    Key {
        /// `ConfigMap` or `Secret`.
        kind: &'static str,
        /// Namespace of the object.
        namespace: String,
        /// Name of the object.
        name: String,
        /// The missing key.
        key: String,
    },
    /// A Secret's value is not text.
    #[error("secret \"{0}\" holds a value that is not valid UTF-8")]
    NotText(String),
    /// A file of variables cannot be used.
    #[error("couldn't read variable {key} from file {path} of volume {volume}: {why}")]
    File {
        /// The variable in the file.
        key: String,
        /// The file.
        path: String,
        /// The volume.
        volume: String,
        /// What is wrong.
        why: String,
    },
    /// A field or resource reference names nothing.
    #[error(transparent)]
    Field(#[from] FieldError),
}

/// Names of the ConfigMaps and Secrets that the environment needs.
pub fn references(container: &Container) -> (BTreeSet<String>, BTreeSet<String>) {
    let (mut maps, mut secrets) = (BTreeSet::new(), BTreeSet::new());
    for from in container.env_from.iter().flatten() {
        maps.extend(from.config_map_ref.iter().map(|r| r.name.clone()));
        secrets.extend(from.secret_ref.iter().map(|r| r.name.clone()));
    }
    for from in container.env.iter().flatten().filter_map(|e| e.value_from.as_ref()) {
        maps.extend(from.config_map_key_ref.iter().map(|r| r.name.clone()));
        secrets.extend(from.secret_key_ref.iter().map(|r| r.name.clone()));
    }
    (maps, secrets)
}

/// The variables in the order in which they are given; later definitions of a name replace earlier ones.
pub fn variables(
    pod: &Pod,
    container: &Container,
    facts: &NodeFacts,
    sources: &Sources,
) -> Result<Vec<(String, String)>, EnvError> {
    let mut out = Variables::default();
    for (key, value) in env_from(container, sources)? {
        out.set(key, value);
    }
    let services: BTreeMap<&str, &str> =
        sources.services.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    // References see the variables that `env` has defined so far, and the Services' ones.
    let mut defined: BTreeMap<String, String> = BTreeMap::new();
    for var in container.env.iter().flatten() {
        let Some(value) = value(pod, container, facts, sources, var, |name| {
            defined.get(name).map(String::as_str).or_else(|| services.get(name).copied())
        })?
        else {
            continue;
        };
        defined.insert(var.name.clone(), value.clone());
        out.set(var.name.clone(), value);
    }
    for (key, value) in &sources.services {
        out.set_default(key, value);
    }
    Ok(out.list)
}

/// Expands references in a command or in arguments.
pub fn expand_all(words: Option<&Vec<String>>, env: &[(String, String)]) -> Vec<String> {
    let by_name: BTreeMap<&str, &str> = env.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    words.into_iter().flatten().map(|w| expand(w, |name| by_name.get(name).copied())).collect()
}

#[derive(Default)]
struct Variables {
    list: Vec<(String, String)>,
}

impl Variables {
    fn set(&mut self, key: String, value: String) {
        match self.list.iter_mut().find(|(k, _)| *k == key) {
            Some(entry) => entry.1 = value,
            None => self.list.push((key, value)),
        }
    }

    fn set_default(&mut self, key: &str, value: &str) {
        if !self.list.iter().any(|(k, _)| k == key) {
            self.list.push((key.to_owned(), value.to_owned()));
        }
    }
}

fn env_from(container: &Container, sources: &Sources) -> Result<Vec<(String, String)>, EnvError> {
    let mut out = Vec::new();
    for from in container.env_from.iter().flatten() {
        let prefix = from.prefix.as_deref().unwrap_or_default();
        if let Some(r) = &from.config_map_ref {
            match sources.config_maps.get(&r.name).and_then(Option::as_ref) {
                Some(map) => {
                    let data = map.data.iter().flatten();
                    out.extend(data.map(|(k, v)| (format!("{prefix}{k}"), v.clone())));
                }
                None if r.optional == Some(true) => {}
                None => return Err(EnvError::ConfigMap(r.name.clone())),
            }
        }
        if let Some(r) = &from.secret_ref {
            match sources.secrets.get(&r.name).and_then(Option::as_ref) {
                Some(secret) => {
                    for (k, v) in secret.data.iter().flatten() {
                        out.push((format!("{prefix}{k}"), text(&r.name, &v.0)?));
                    }
                }
                None if r.optional == Some(true) => {}
                None => return Err(EnvError::Secret(r.name.clone())),
            }
        }
    }
    Ok(out)
}

/// Value of one variable; `None` when an optional reference names nothing.
fn value<'a>(
    pod: &Pod,
    container: &Container,
    facts: &NodeFacts,
    sources: &Sources,
    var: &EnvVar,
    lookup: impl Fn(&str) -> Option<&'a str>,
) -> Result<Option<String>, EnvError> {
    let Some(from) = &var.value_from else {
        return Ok(Some(expand(var.value.as_deref().unwrap_or_default(), lookup)));
    };
    let namespace = spec::namespace(pod).to_owned();
    if let Some(selector) = &from.field_ref {
        return Ok(Some(field(pod, facts, selector)?));
    }
    if let Some(selector) = &from.resource_field_ref {
        return Ok(Some(resource(pod, facts, Some(container), selector)?));
    }
    if let Some(r) = &from.config_map_key_ref {
        let optional = r.optional == Some(true);
        let Some(map) = sources.config_maps.get(&r.name).and_then(Option::as_ref) else {
            return if optional { Ok(None) } else { Err(EnvError::ConfigMap(r.name.clone())) };
        };
        return match map.data.as_ref().and_then(|d| d.get(&r.key)) {
            Some(value) => Ok(Some(value.clone())),
            None if optional => Ok(None),
            None => {
                let (name, key) = (r.name.clone(), r.key.clone());
                Err(EnvError::Key { kind: "ConfigMap", namespace, name, key })
            }
        };
    }
    if let Some(r) = &from.secret_key_ref {
        let optional = r.optional == Some(true);
        let Some(secret) = sources.secrets.get(&r.name).and_then(Option::as_ref) else {
            return if optional { Ok(None) } else { Err(EnvError::Secret(r.name.clone())) };
        };
        return match secret.data.as_ref().and_then(|d| d.get(&r.key)) {
            Some(value) => text(&r.name, &value.0).map(Some),
            None if optional => Ok(None),
            None => {
                let (name, key) = (r.name.clone(), r.key.clone());
                Err(EnvError::Key { kind: "Secret", namespace, name, key })
            }
        };
    }
    if let Some(r) = &from.file_key_ref {
        return file(sources, r);
    }
    Ok(Some(String::new()))
}

fn file(sources: &Sources, r: &FileKeySelector) -> Result<Option<String>, EnvError> {
    let failed = |why: String| {
        let (key, path, volume) = (r.key.clone(), r.path.clone(), r.volume_name.clone());
        Err(EnvError::File { key, path, volume, why })
    };
    let optional = r.optional == Some(true);
    let text = match sources.files.get(&(r.volume_name.clone(), r.path.clone())) {
        Some(Ok(Some(text))) => text,
        Some(Err(why)) => return failed(why.clone()),
        Some(Ok(None)) | None if optional => return Ok(None),
        Some(Ok(None)) | None => return failed("there is no such file".to_owned()),
    };
    match env_file::find(text, &r.key) {
        Ok(Some(value)) => Ok(Some(value)),
        Ok(None) if optional => Ok(None),
        Ok(None) => failed("it is not defined there".to_owned()),
        Err(why) => failed(why),
    }
}

fn text(name: &str, bytes: &[u8]) -> Result<String, EnvError> {
    String::from_utf8(bytes.to_vec()).map_err(|_| EnvError::NotText(name.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubelet::pods::fixture;
    use serde_json::{Value, json};

    fn sources() -> Sources {
        let map: ConfigMap = serde_json::from_value(json!({"data": {"k": "v", "l": "w"}})).unwrap();
        let secret: Secret = serde_json::from_value(json!({"data": {"p": "c2VjcmV0"}})).unwrap();
        Sources {
            config_maps: [("cm".to_owned(), Some(map)), ("gone".to_owned(), None)].into(),
            secrets: [("sec".to_owned(), Some(secret)), ("gone".to_owned(), None)].into(),
            services: vec![("KUBERNETES_SERVICE_HOST".into(), "10.43.0.1".into())],
            ..Sources::default()
        }
    }

    fn env(container: Value) -> Result<Vec<String>, EnvError> {
        let pod = fixture::pod(json!({"containers": []}));
        let container: Container = serde_json::from_value(container).unwrap();
        let facts = NodeFacts { node_name: "n1".into(), ..NodeFacts::default() };
        let got = variables(&pod, &container, &facts, &sources())?;
        Ok(got.into_iter().map(|(k, v)| format!("{k}={v}")).collect())
    }

    #[test]
    fn values_references_and_services_come_together() {
        let got = env(json!({"name": "a",
            "envFrom": [{"prefix": "CM_", "configMapRef": {"name": "cm"}}, {"secretRef": {"name": "sec"}}],
            "env": [
                {"name": "A", "value": "1"},
                {"name": "B", "value": "$(A)-$(KUBERNETES_SERVICE_HOST)-$(LATER)"},
                {"name": "LATER", "value": "x"},
                {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
                {"name": "K", "valueFrom": {"configMapKeyRef": {"name": "cm", "key": "k"}}},
                {"name": "p", "valueFrom": {"secretKeyRef": {"name": "sec", "key": "p"}}},
                {"name": "O", "valueFrom": {"configMapKeyRef": {"name": "gone", "key": "k", "optional": true}}}]}))
        .unwrap();
        assert_eq!(
            got,
            [
                "CM_k=v",
                "CM_l=w",
                "p=secret",
                "A=1",
                "B=1-10.43.0.1-$(LATER)",
                "LATER=x",
                "NODE=n1",
                "K=v",
                "KUBERNETES_SERVICE_HOST=10.43.0.1",
            ]
        );
    }

    #[test]
    fn the_containers_own_value_beats_a_services_one() {
        let got =
            env(json!({"name": "a", "env": [{"name": "KUBERNETES_SERVICE_HOST", "value": "own"}]})).unwrap();
        assert_eq!(got, ["KUBERNETES_SERVICE_HOST=own"]);
    }

    #[test]
    fn missing_objects_are_named() {
        for (container, text) in [
            (
                json!({"name": "a", "envFrom": [{"configMapRef": {"name": "gone"}}]}),
                "configmap \"gone\" not found",
            ),
            (
                json!({"name": "a", "env": [{"name": "X", "valueFrom": {"secretKeyRef": {"name": "gone", "key": "k"}}}]}),
                "secret \"gone\" not found",
            ),
            (
                json!({"name": "a", "env": [{"name": "X", "valueFrom": {"configMapKeyRef": {"name": "cm", "key": "z"}}}]}),
                "couldn't find key z in ConfigMap default/cm",
            ),
        ] {
            assert_eq!(env(container).unwrap_err().to_string(), text);
        }
    }

    #[test]
    fn arguments_expand_from_the_environment() {
        let env = [("A".to_owned(), "1".to_owned())];
        assert_eq!(expand_all(Some(&vec!["$(A)".into(), "$(B)".into()]), &env), ["1", "$(B)"]);
        assert!(expand_all(None, &env).is_empty());
    }

    #[test]
    fn variables_come_from_files_that_earlier_containers_left() {
        let container: Container = serde_json::from_value(serde_json::json!({"name": "a", "env": [
            {"name": "X", "valueFrom": {"fileKeyRef": {"volumeName": "v", "path": "f", "key": "A"}}},
            {"name": "Y", "valueFrom": {"fileKeyRef": {"volumeName": "v", "path": "g", "key": "A", "optional": true}}}]}))
        .unwrap();
        let mut sources = Sources::default();
        let pod = Pod::default();
        let missing = variables(&pod, &container, &NodeFacts::default(), &sources).unwrap_err();
        assert!(missing.to_string().ends_with("volume v: there is no such file"), "{missing}");
        sources.files.insert(("v".into(), "f".into()), Ok(Some("A='1'\n".into())));
        let got = variables(&pod, &container, &NodeFacts::default(), &sources).unwrap();
        assert_eq!(got, [("X".to_owned(), "1".to_owned())]);
    }
}
