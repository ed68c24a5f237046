//! The keys of encryption at rest: a file in upstream's form, made, rotated and tidied up here.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::datastore;
use crate::config::{Datastore, DatastoreConfig};
use crate::pki::files;
use crate::store::encryption::{EncryptedStore, Keyring, sealed_with};
use crate::store::{Store, transfer};

/// Bytes of a key that is made here: AES-256.
const KEY_BYTES: usize = 32;

/// The keys by name, the first of which seals.
pub type Keys = Vec<(String, Vec<u8>)>;

/// The file of the keys.
fn file(server_dir: &Path) -> PathBuf {
    server_dir.join("cred/encryption-config.json")
}

/// What is encrypted when encryption is on.
fn prefixes() -> Vec<String> {
    vec!["/registry/secrets/".to_owned()]
}

/// Puts the keys in front of the server's store. Keys that are there are used, whatever the flags say; with `enabled`
/// a first one is made. Everything that is encrypted must open, and what is not sealed with the first key is sealed
/// anew.
///
/// # Errors
/// The file cannot be read, or a value does not open with its keys.
pub(super) async fn apply(
    store: Arc<dyn Store>,
    server_dir: &Path,
    enabled: bool,
) -> anyhow::Result<Arc<dyn Store>> {
    if enabled && !file(server_dir).exists() {
        save(server_dir, &vec![new_key()?])?;
    }
    let store = EncryptedStore::new(store, ring(server_dir)?);
    let count = store.reencrypt().await.with_context(|| {
        format!(
            "read the encrypted state: bring back the keys that it was written with, in {}",
            file(server_dir).display()
        )
    })?;
    if count > 0 {
        tracing::info!(count, "entries were encrypted anew");
    }
    Ok(store)
}

fn ring(server_dir: &Path) -> anyhow::Result<Keyring> {
    let keys = load(server_dir)?;
    Keyring::new(&keys, prefixes()).with_context(|| format!("use {}", file(server_dir).display()))
}

fn new_key() -> anyhow::Result<(String, Vec<u8>)> {
    let mut secret = vec![0; KEY_BYTES];
    aws_lc_rs::rand::fill(&mut secret).ok().context("make a random key")?;
    Ok((format!("aesgcmkey-{}", Timestamp::now().strftime("%Y-%m-%dT%H-%M-%S%.3f")), secret))
}

/// The keys of the file; none when there is no file.
///
/// # Errors
/// The file cannot be read, or has another form.
pub fn load(server_dir: &Path) -> anyhow::Result<Keys> {
    let path = file(server_dir);
    if !path.exists() {
        return Ok(Vec::new());
    }
    let what = || format!("read the encryption keys {}", path.display());
    let text = std::fs::read(&path).with_context(what)?;
    let document: Value = serde_json::from_slice(&text).with_context(what)?;
    let providers = document.pointer("/resources/0/providers").and_then(Value::as_array);
    let keys = providers
        .and_then(|all| all.iter().find_map(|provider| provider.pointer("/aesgcm/keys")?.as_array()))
        .context("it has no provider aesgcm with keys")
        .with_context(what)?;
    keys.iter()
        .map(|key| {
            let name = key["name"].as_str().context("a key has no name")?;
            let secret = STANDARD.decode(key["secret"].as_str().context("a key has no secret")?)?;
            Ok((name.to_owned(), secret))
        })
        .collect::<anyhow::Result<_>>()
        .with_context(what)
}

fn save(server_dir: &Path, keys: &Keys) -> anyhow::Result<()> {
    let path = file(server_dir);
    files::make_private_dir(&server_dir.join("cred"))?;
    let keys: Vec<_> = keys
        .iter()
        .map(|(name, secret)| json!({ "name": name, "secret": STANDARD.encode(secret) }))
        .collect();
    let document = json!({
        "kind": "EncryptionConfiguration",
        "apiVersion": "apiserver.config.k8s.io/v1",
        "resources": [{ "resources": ["secrets"], "providers": [{ "aesgcm": { "keys": keys } }, { "identity": {} }] }],
    });
    Ok(files::write_private(&path, &serde_json::to_vec_pretty(&document)?)?)
}

/// What `kube-lite secrets-encrypt status` shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// Names of the keys, the one that seals first; none when encryption is off.
    pub keys: Vec<String>,
    /// How many values each key sealed; the empty name stands for values that are not sealed.
    pub sealed: BTreeMap<String, usize>,
}

/// Looks at the keys and at what is stored; the server may be running.
///
/// # Errors
/// The keys or the datastore cannot be read.
pub async fn status(config: &DatastoreConfig, server_dir: &Path) -> anyhow::Result<Status> {
    let keys = load(server_dir)?.into_iter().map(|(name, _)| name).collect();
    let entries = match config.datastore(server_dir)? {
        Datastore::Sqlite(path) => {
            ensure!(path.exists(), "there is no datastore {}", path.display());
            crate::store::sqlite::SqliteStore::read_file(&path)?.0
        }
        etcd => transfer::entries_in(&datastore::open_for_tool(config, &etcd).await?).await?.0,
    };
    let mut sealed = BTreeMap::new();
    for entry in entries.iter().filter(|e| prefixes().iter().any(|prefix| e.key.starts_with(prefix))) {
        *sealed.entry(sealed_with(&entry.value).unwrap_or_default()).or_default() += 1;
    }
    Ok(Status { keys, sealed })
}

/// Adds a key that seals from the next start of the servers on; they seal everything anew then. The result is its name.
///
/// # Errors
/// Encryption is off, or the file cannot be written.
pub fn rotate(server_dir: &Path) -> anyhow::Result<String> {
    let mut keys = load(server_dir)?;
    ensure!(!keys.is_empty(), "encryption is off: start the server with --secrets-encryption first");
    let key = new_key()?;
    let name = key.0.clone();
    keys.insert(0, key);
    save(server_dir, &keys)?;
    Ok(name)
}

/// Seals everything with the first key while no server has the embedded datastore open, then forgets the other keys.
/// The result is how many values were sealed.
///
/// # Errors
/// Encryption is off, the datastore is in use, or a value does not open.
pub async fn reencrypt(config: &DatastoreConfig, server_dir: &Path) -> anyhow::Result<usize> {
    let keys = load(server_dir)?;
    let Some(first) = keys.first().cloned() else {
        bail!("encryption is off: start the server with --secrets-encryption first");
    };
    let store = datastore::open_for_tool(config, &config.datastore(server_dir)?).await?;
    let store = EncryptedStore::new(store, ring(server_dir)?);
    let count = store.reencrypt().await?;
    store.shutdown().await;
    save(server_dir, &vec![first])?;
    Ok(count)
}

#[cfg(test)]
mod tests;
