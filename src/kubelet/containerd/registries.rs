//! `registries.yaml`, in the form that k3s has: mirrors of registries, and how to talk to each registry.
//!
//! Where images come from becomes one `hosts.toml` per registry, which containerd reads at every pull; credentials
//! become part of containerd's own configuration, the only place that it takes them from.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;

/// The file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Registries {
    /// By the registry that images name; `*` stands for every registry.
    pub mirrors: BTreeMap<String, Mirror>,
    /// By host, with its port.
    pub configs: BTreeMap<String, Config>,
}

/// Where else the images of a registry are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Mirror {
    /// URLs, or hosts, in the order in which they are asked; the registry itself comes last.
    #[serde(alias = "endpoints")]
    pub endpoint: Vec<String>,
    /// Other names of images there, which stock containerd cannot do.
    pub rewrite: BTreeMap<String, String>,
}

/// How to talk to a registry.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Config {
    /// Who we are.
    pub auth: Option<Auth>,
    /// Whom we trust.
    pub tls: Option<Tls>,
}

/// Credentials.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Auth {
    username: String,
    password: String,
    auth: String,
    identity_token: String,
}

impl std::fmt::Debug for Auth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Auth").field("username", &self.username).finish_non_exhaustive()
    }
}

/// Certificates.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Tls {
    cert_file: Option<PathBuf>,
    key_file: Option<PathBuf>,
    ca_file: Option<PathBuf>,
    insecure_skip_verify: bool,
}

/// A file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RegistriesError {
    /// It cannot be read.
    #[error("read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is not what it should be.
    #[error("{}: {why}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// What follows from it cannot be written.
    #[error("write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl Registries {
    /// Reads the file; one that is not there says nothing.
    ///
    /// # Errors
    /// It cannot be read or understood.
    pub fn read(path: &Path) -> Result<Self, RegistriesError> {
        let text = match std::fs::read_to_string(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            other => other.map_err(|source| RegistriesError::Read { path: path.to_owned(), source })?,
        };
        if text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#')) {
            return Ok(Self::default());
        }
        serde_saphyr::from_str(&text).map_err(|error| RegistriesError::Content {
            path: path.to_owned(),
            why: error.to_string().lines().next().unwrap_or("it is not YAML").to_owned(),
        })
    }

    /// Makes the directory say what the file says; folders that others have put there stay.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn write(&self, directory: &Path) -> Result<(), RegistriesError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| RegistriesError::Write { path, source }
        };
        let wanted = self.hosts();
        for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
            let file = entry.path().join("hosts.toml");
            let ours = std::fs::read_to_string(&file).is_ok_and(|text| text.starts_with(MARK));
            if ours && !wanted.contains_key(&*entry.file_name().to_string_lossy()) {
                std::fs::remove_file(&file).map_err(failed(&file))?;
            }
        }
        for (folder, text) in wanted {
            let folder = directory.join(folder);
            std::fs::create_dir_all(&folder).map_err(failed(&folder))?;
            let (file, new) = (folder.join("hosts.toml"), folder.join("hosts.toml.new"));
            std::fs::write(&new, text).map_err(failed(&new))?;
            std::fs::rename(&new, &file).map_err(failed(&file))?;
        }
        Ok(())
    }

    /// Folder name to `hosts.toml`.
    fn hosts(&self) -> BTreeMap<String, String> {
        let names = self.mirrors.keys().chain(self.configs.keys());
        let mut out = BTreeMap::new();
        for name in names {
            let mirror = self.mirrors.get(name).cloned().unwrap_or_default();
            if !mirror.rewrite.is_empty() {
                tracing::warn!(registry = %name, "rewrite in registries.yaml needs a changed containerd and is left out");
            }
            let folder = if name == "*" { "_default".to_owned() } else { name.clone() };
            out.insert(folder, self.hosts_toml(name, &mirror));
        }
        out
    }

    fn hosts_toml(&self, name: &str, mirror: &Mirror) -> String {
        let mut text = format!("{MARK}\n");
        if name != "*" {
            let host = if name == "docker.io" { "registry-1.docker.io" } else { name };
            text.push_str(&format!("server = {}\n", quote(&format!("https://{host}"))));
            text.push_str(&self.tls(host, ""));
        }
        for endpoint in &mirror.endpoint {
            let url = match endpoint.contains("://") {
                true => endpoint.trim_end_matches('/').to_owned(),
                false => format!("https://{}", endpoint.trim_end_matches('/')),
            };
            text.push_str(&format!("\n[host.{}]\n  capabilities = [\"pull\", \"resolve\"]\n", quote(&url)));
            let rest = url.split_once("://").map_or("", |(_, rest)| rest);
            let (host, path) = rest.split_once('/').map_or((rest, ""), |(host, path)| (host, path));
            // A path is all of the API's place, as in k3s: `/v2` is part of it, or is meant.
            if !path.is_empty() && path != "v2" {
                text.push_str("  override_path = true\n");
            }
            text.push_str(&self.tls(host, "  "));
        }
        text
    }

    fn tls(&self, host: &str, indent: &str) -> String {
        let any = self.configs.get(host).or_else(|| self.configs.get("*"));
        let Some(tls) = any.and_then(|config| config.tls.as_ref()) else { return String::new() };
        let file = |path: &Path| quote(&path.to_string_lossy());
        let mut text = String::new();
        if let Some(ca) = &tls.ca_file {
            text.push_str(&format!("{indent}ca = [{}]\n", file(ca)));
        }
        if let (Some(cert), Some(key)) = (&tls.cert_file, &tls.key_file) {
            text.push_str(&format!("{indent}client = [[{}, {}]]\n", file(cert), file(key)));
        }
        if tls.insecure_skip_verify {
            text.push_str(&format!("{indent}skip_verify = true\n"));
        }
        text
    }

    /// The credentials as part of containerd's configuration, below the plugin's table of registries.
    pub fn credentials(&self, table: &str) -> String {
        let mut text = String::new();
        for (host, config) in &self.configs {
            let Some(auth) = &config.auth else { continue };
            let host = if host == "docker.io" { "registry-1.docker.io" } else { host };
            text.push_str(&format!("\n[{table}.registry.configs.{}.auth]\n", quote(host)));
            let fields = [
                ("username", &auth.username),
                ("password", &auth.password),
                ("auth", &auth.auth),
                ("identitytoken", &auth.identity_token),
            ];
            for (name, value) in fields.into_iter().filter(|(_, value)| !value.is_empty()) {
                text.push_str(&format!("  {name} = {}\n", quote(value)));
            }
        }
        text
    }
}

/// The first line of files of ours.
const MARK: &str = "# Written by kube-lite from registries.yaml; changes are lost.";

/// A TOML string. JSON's escapes are a subset of TOML's.
fn quote(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"
mirrors:
  docker.io:
    endpoint: ["https://mirror.example:5000", "http://plain:80/hub/v2"]
  "*":
    endpoint: [everything.example]
configs:
  "mirror.example:5000":
    auth: {username: jane, password: 'a"b'}
    tls: {ca_file: /ca.pem, cert_file: /c.pem, key_file: /k.pem}
  "own.example":
    tls: {insecure_skip_verify: true}
"#;

    fn registries(dir: &Path) -> Registries {
        let file = dir.join("registries.yaml");
        std::fs::write(&file, FILE).unwrap();
        Registries::read(&file).unwrap()
    }

    #[test]
    fn mirrors_are_asked_in_order_with_their_certificates() {
        let dir = tempfile::tempdir().unwrap();
        let hosts = registries(dir.path()).hosts();
        let docker = &hosts["docker.io"];
        assert!(docker.contains("server = \"https://registry-1.docker.io\"\n"), "{docker}");
        let mirror = "[host.\"https://mirror.example:5000\"]\n  capabilities = [\"pull\", \"resolve\"]\n  ca = [\"/ca.pem\"]\n  client = [[\"/c.pem\", \"/k.pem\"]]\n";
        let plain = "[host.\"http://plain:80/hub/v2\"]\n  capabilities = [\"pull\", \"resolve\"]\n  override_path = true\n";
        let (first, second) = (docker.find(mirror).unwrap(), docker.find(plain).unwrap());
        assert!(first < second, "{docker}");
        assert!(hosts["_default"].contains("[host.\"https://everything.example\"]"));
        assert!(!hosts["_default"].contains("server ="));
        assert!(hosts["own.example"].ends_with("server = \"https://own.example\"\nskip_verify = true\n"));
    }

    #[test]
    fn credentials_go_where_containerd_takes_them() {
        let dir = tempfile::tempdir().unwrap();
        let text = registries(dir.path()).credentials("plugins.x");
        let wanted = "\n[plugins.x.registry.configs.\"mirror.example:5000\".auth]\n  username = \"jane\"\n  password = \"a\\\"b\"\n";
        assert_eq!(text, wanted);
        assert!(!format!("{:?}", registries(dir.path())).contains("a\\\"b"));
    }

    #[test]
    fn the_directory_follows_the_file_and_keeps_what_is_not_ours() {
        let dir = tempfile::tempdir().unwrap();
        let certs = dir.path().join("certs.d");
        std::fs::create_dir_all(certs.join("by-hand")).unwrap();
        std::fs::write(certs.join("by-hand/hosts.toml"), "server = \"x\"\n").unwrap();
        registries(dir.path()).write(&certs).unwrap();
        assert!(certs.join("docker.io/hosts.toml").is_file());
        Registries::default().write(&certs).unwrap();
        assert!(!certs.join("docker.io/hosts.toml").exists());
        assert!(certs.join("by-hand/hosts.toml").is_file());
        assert_eq!(Registries::read(Path::new("/no/such")).unwrap(), Registries::default());
    }
}
