//! Credentials that the node itself has: from its `config.json`, and from the programs of a CredentialProviderConfig,
//! which are asked when an image is pulled that they are for.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::json;

use super::credentials::{self, Entry};
use crate::cri::v1;
use crate::host::processes::{Command, Processes, run};

/// How long a program may take, as upstream.
const LIMIT: Duration = Duration::from_secs(60);
const GROUP: &str = "credentialprovider.kubelet.k8s.io/";
/// Where the file may lie beside the kubelet's root.
const DIRECTORIES: [&str; 2] = ["/root/.docker", "/.docker"];

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ProvidersError {
    /// The file cannot be read.
    #[error("read {}", .0.display())]
    Read(PathBuf, #[source] std::io::Error),
    /// It is not what it should be.
    #[error("{}: {}", .0.display(), .1)]
    Content(PathBuf, String),
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Config {
    #[serde(default, rename = "apiVersion")]
    _api_version: String,
    kind: String,
    providers: Vec<Provider>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Provider {
    name: String,
    match_images: Vec<String>,
    default_cache_duration: String,
    api_version: String,
    #[serde(default)]
    args: Vec<String>,
    #[serde(default)]
    env: Vec<Variable>,
}

#[derive(Debug, Clone, Deserialize)]
struct Variable {
    name: String,
    value: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    kind: String,
    api_version: String,
    #[serde(default)]
    cache_key_type: String,
    cache_duration: Option<String>,
    #[serde(default)]
    auth: BTreeMap<String, Entry>,
}

/// What is known until a time.
type Cached = (Timestamp, BTreeMap<String, Entry>);

/// The node's own credentials.
pub struct NodeCredentials {
    root: PathBuf,
    providers: Vec<Provider>,
    programs: PathBuf,
    processes: Arc<dyn Processes>,
    cache: Mutex<HashMap<String, Cached>>,
}

impl NodeCredentials {
    /// Those of a kubelet with this root, and of the programs that the configuration names.
    ///
    /// # Errors
    /// The configuration cannot be read, or makes no sense.
    pub fn new(
        root: &Path,
        config: Option<&(PathBuf, PathBuf)>,
        processes: Arc<dyn Processes>,
    ) -> Result<Self, ProvidersError> {
        let (providers, programs) = match config {
            Some((file, programs)) => (read(file, programs)?, programs.clone()),
            None => (Vec::new(), PathBuf::new()),
        };
        Ok(Self { root: root.to_owned(), providers, programs, processes, cache: Mutex::default() })
    }

    /// What fits an image, best match first.
    pub async fn for_image(&self, image: &str, now: Timestamp) -> Vec<v1::AuthConfig> {
        let mut entries: Vec<(String, Entry)> = self.of_files();
        for provider in &self.providers {
            let fits = provider.match_images.iter().any(|pattern| credentials::fits(pattern, image));
            if fits {
                entries.extend(self.ask(provider, image, now).await);
            }
        }
        credentials::best(image, entries)
    }

    fn of_files(&self) -> Vec<(String, Entry)> {
        let directories = [self.root.clone()].into_iter().chain(DIRECTORIES.map(PathBuf::from));
        let texts = directories.filter_map(|directory| std::fs::read(directory.join("config.json")).ok());
        texts.flat_map(|text| credentials::of_config(&text)).collect()
    }

    async fn ask(&self, provider: &Provider, image: &str, now: Timestamp) -> Vec<(String, Entry)> {
        let repository = credentials::normalized(image);
        let registry = repository.split('/').next().unwrap_or_default().to_owned();
        let keys = [repository.clone(), registry.clone(), String::new()]
            .map(|key| format!("{} {key}", provider.name));
        if let Some(known) = keys.iter().find_map(|key| self.known(key, now)) {
            return known.into_iter().collect();
        }
        let answer = match self.run(provider, &repository).await {
            Ok(answer) => answer,
            Err(error) => {
                tracing::warn!(provider = %provider.name, image, error, "credential provider has nothing to say");
                return Vec::new();
            }
        };
        let [of_image, of_registry, global] = keys;
        let key = match answer.cache_key_type.as_str() {
            "Registry" => of_registry,
            "Global" => global,
            _ => of_image,
        };
        let lasts = answer.cache_duration.as_deref().unwrap_or(&provider.default_cache_duration);
        if let Some(until) =
            length(lasts).and_then(|lasts| now.checked_add(lasts).ok()).filter(|until| *until > now)
        {
            let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
            cache.retain(|_, (until, _)| *until > now);
            cache.insert(key, (until, answer.auth.clone()));
        }
        answer.auth.into_iter().collect()
    }

    fn known(&self, key: &str, now: Timestamp) -> Option<BTreeMap<String, Entry>> {
        let cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        cache.get(key).filter(|(until, _)| *until > now).map(|(_, auth)| auth.clone())
    }

    async fn run(&self, provider: &Provider, image: &str) -> Result<Answer, String> {
        let version = &provider.api_version;
        let request = json!({"kind": "CredentialProviderRequest", "apiVersion": version, "image": image});
        let mut command = Command::new(self.programs.join(&provider.name), provider.args.clone())
            .stdin(request.to_string().into_bytes());
        for Variable { name, value } in &provider.env {
            command = command.env(name, value.clone());
        }
        let output = run(self.processes.as_ref(), command, LIMIT).await.map_err(|error| error.to_string())?;
        let answer: Answer =
            serde_json::from_slice(&output.stdout).map_err(|_| "its answer is no JSON".to_owned())?;
        if answer.kind != "CredentialProviderResponse" || answer.api_version != *version {
            return Err(format!("it answers with {} {}", answer.api_version, answer.kind));
        }
        Ok(answer)
    }
}

fn read(file: &Path, programs: &Path) -> Result<Vec<Provider>, ProvidersError> {
    let text = std::fs::read_to_string(file).map_err(|error| ProvidersError::Read(file.to_owned(), error))?;
    let wrong = |why: String| ProvidersError::Content(file.to_owned(), why);
    let config: Config = serde_saphyr::from_str(&text)
        .map_err(|error| wrong(error.to_string().lines().next().unwrap_or_default().to_owned()))?;
    if config.kind != "CredentialProviderConfig" {
        return Err(wrong(format!("its kind is {:?}, not CredentialProviderConfig", config.kind)));
    }
    for provider in &config.providers {
        let name = &provider.name;
        if name.is_empty() || name.contains('/') || !programs.join(name).is_file() {
            return Err(wrong(format!(
                "plugin binary executable {} did not exist",
                programs.join(name).display()
            )));
        }
        if !["v1", "v1beta1", "v1alpha1"].iter().any(|v| provider.api_version == format!("{GROUP}{v}")) {
            return Err(wrong(format!("{name}: invalid apiVersion: {:?}", provider.api_version)));
        }
        if provider.match_images.is_empty() {
            return Err(wrong(format!("{name}: matchImages is required")));
        }
        if length(&provider.default_cache_duration).is_none() {
            return Err(wrong(format!("{name}: defaultCacheDuration is no length of time")));
        }
    }
    Ok(config.providers)
}

fn length(text: &str) -> Option<Duration> {
    let length: jiff::SignedDuration = text.parse().ok()?;
    Duration::try_from(length).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::fake::FakeProcesses;
    use crate::host::processes::Output;

    fn setup(
        config: &str,
    ) -> (tempfile::TempDir, Result<NodeCredentials, ProvidersError>, Arc<FakeProcesses>) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("helper"), "").unwrap();
        std::fs::write(dir.path().join("providers.yaml"), config).unwrap();
        let processes = Arc::new(FakeProcesses::default());
        let files = (dir.path().join("providers.yaml"), dir.path().to_owned());
        let made = NodeCredentials::new(dir.path(), Some(&files), processes.clone());
        (dir, made, processes)
    }

    const CONFIG: &str = "kind: CredentialProviderConfig\napiVersion: kubelet.config.k8s.io/v1\nproviders:\n\
        - {name: helper, matchImages: [\"*.cloud.example/team\"], defaultCacheDuration: 10m, args: [a], \
        apiVersion: credentialprovider.kubelet.k8s.io/v1, env: [{name: REGION, value: x}]}\n";

    #[tokio::test]
    async fn programs_are_asked_once_for_what_they_are_for() {
        let (_dir, made, processes) = setup(CONFIG);
        let node = made.unwrap();
        processes.answer("helper", |command| {
            assert_eq!((command.args.as_slice(), command.env[0].1.as_str()), (&["a".to_owned()][..], "x"));
            let request: serde_json::Value = serde_json::from_slice(&command.stdin).unwrap();
            assert_eq!(request["image"], "eu.cloud.example/team/web");
            let answer = json!({"kind": "CredentialProviderResponse", "apiVersion": request["apiVersion"],
                "cacheKeyType": "Registry", "auth": {"*.cloud.example": {"username": "u", "password": "p"}}});
            Output { stdout: answer.to_string().into_bytes(), ..Output::default() }
        });
        let now = Timestamp::from_second(1000).unwrap();
        let ask = async |image: &str, later: i64| -> Vec<String> {
            let at = now.checked_add(Duration::from_secs(later.unsigned_abs())).unwrap();
            node.for_image(image, at).await.into_iter().map(|auth| auth.username).collect()
        };
        assert_eq!(ask("eu.cloud.example/team/web:1", 0).await, ["u"]);
        assert_eq!(ask("eu.cloud.example/team/web:1", 599).await, ["u"]);
        assert!(ask("eu.cloud.example/other/web:1", 0).await.is_empty());
        assert!(ask("elsewhere.example/team/web:1", 0).await.is_empty());
        assert_eq!(processes.ran().len(), 1);
        assert_eq!(ask("eu.cloud.example/team/web:1", 600).await, ["u"]);
        assert_eq!(processes.ran().len(), 2, "what it said has expired");
    }

    #[tokio::test]
    async fn a_program_that_fails_does_not_keep_an_image_from_being_pulled() {
        let (dir, made, processes) = setup(CONFIG);
        let node = made.unwrap();
        let now = Timestamp::UNIX_EPOCH;
        assert!(node.for_image("eu.cloud.example/team/web", now).await.is_empty());
        processes.answer("helper", |_| Output { stdout: b"{}".to_vec(), ..Output::default() });
        assert!(node.for_image("eu.cloud.example/team/web", now).await.is_empty());
        // The node's own file counts beside the programs.
        let file = json!({"auths": {"eu.cloud.example": {"username": "n", "password": "p"}}});
        std::fs::write(dir.path().join("config.json"), file.to_string()).unwrap();
        assert_eq!(node.for_image("eu.cloud.example/team/web", now).await[0].username, "n");
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        for (from, to, want) in [
            ("kind: CredentialProviderConfig", "kind: Pod", "not CredentialProviderConfig"),
            ("name: helper", "name: nobody", "did not exist"),
            ("io/v1,", "io/v9,", "invalid apiVersion"),
            ("[\"*.cloud.example/team\"]", "[]", "matchImages is required"),
            ("10m", "soon", "no length of time"),
            ("args:", "arguments:", "arguments"),
        ] {
            let (_dir, made, _) = setup(&CONFIG.replace(from, to));
            let error = made.err().map(|error| error.to_string()).unwrap_or_default();
            assert!(error.contains(want), "{to}: {error}");
        }
    }
}
