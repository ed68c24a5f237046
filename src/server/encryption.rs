//! The keys of encryption at rest: a file in upstream's form, made, rotated and tidied up here.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::{datastore, sharing};
use crate::config::{Datastore, DatastoreConfig};
use crate::kubelet::images::import::watch::Changes;
use crate::pki::files;
use crate::store::encryption::{EncryptedStore, KeySource, Keyring, sealed_with};
use crate::store::{Store, StoreError, transfer};

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
/// anew. A value that another server sealed with a key of its own is opened with what servers share.
///
/// # Errors
/// The file cannot be read, or a value does not open with its keys.
pub(super) async fn apply(
    store: Arc<dyn Store>,
    server_dir: &Path,
    enabled: bool,
) -> anyhow::Result<Arc<EncryptedStore>> {
    prepare(server_dir, enabled)?;
    let shared = Arc::new(Shared { store: store.clone(), server_dir: server_dir.to_owned() });
    let store = EncryptedStore::with_source(store, ring(server_dir)?, shared);
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

/// The keys that servers share, for a value that the keys here do not open.
struct Shared {
    store: Arc<dyn Store>,
    server_dir: PathBuf,
}

#[async_trait]
impl KeySource for Shared {
    async fn keyring(&self) -> Result<Keyring, String> {
        let fetched = async {
            sharing::fetch_keys(&self.store, &self.server_dir).await?;
            ring(&self.server_dir)
        };
        fetched.await.map_err(|error| format!("{error:#}"))
    }
}

/// Follows the file of the keys until `stop`: other keys in it are shared with the other servers, used, and everything
/// is sealed anew with the first of them.
pub(super) async fn follow(
    store: Arc<EncryptedStore>,
    raw: Arc<dyn Store>,
    server_dir: PathBuf,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let directory = server_dir.join("cred");
    files::make_private_dir(&directory)?;
    let mut changes = Changes::of(&directory).with_context(|| format!("watch {}", directory.display()))?;
    loop {
        match use_changed(&store, &raw, &server_dir).await {
            Ok(None) => {}
            Ok(Some(count)) => {
                tracing::info!(count, "entries were encrypted anew with the keys that changed")
            }
            Err(error) => tracing::error!(error = format!("{error:#}"), "keys that changed cannot be used"),
        }
        match stop.run_until_cancelled(changes.next()).await {
            Some(changed) => changed.with_context(|| format!("watch {}", directory.display()))?,
            None => return Ok(()),
        }
    }
}

/// Uses the keys of the file if they are not those in use; the result is how many values were sealed anew.
async fn use_changed(
    store: &EncryptedStore,
    raw: &Arc<dyn Store>,
    server_dir: &Path,
) -> anyhow::Result<Option<usize>> {
    let keys: Vec<String> = load(server_dir)?.into_iter().map(|(name, _)| name).collect();
    if keys.is_empty() || keys == store.key_names() {
        return Ok(None);
    }
    // Other servers must be able to find a key before anything is sealed with it.
    sharing::publish_own(raw, server_dir).await?;
    store.replace_keys(ring(server_dir)?);
    Ok(Some(store.reencrypt().await?))
}

/// Makes a first key when encryption is wanted and there is none.
///
/// # Errors
/// The file cannot be written.
pub(super) fn prepare(server_dir: &Path, enabled: bool) -> anyhow::Result<()> {
    if enabled && !file(server_dir).exists() {
        save(server_dir, &vec![new_key()?])?;
    }
    Ok(())
}

/// The keys of two files together. The one whose first key the other one does not have is newer; with the same first
/// key theirs count, as older keys have been forgotten there. When both were rotated nobody loses a key, and ours come
/// first.
///
/// # Errors
/// One of them is no such file, or a name stands for two keys.
pub(super) fn merge(ours: Option<&str>, theirs: Option<&str>) -> anyhow::Result<Option<String>> {
    let (Some(ours), Some(theirs)) = (ours, theirs) else {
        return Ok(ours.or(theirs).map(str::to_owned));
    };
    let what = || "read the encryption keys that servers share";
    let (mine, other) =
        (parse(ours.as_bytes()).with_context(what)?, parse(theirs.as_bytes()).with_context(what)?);
    for (name, secret) in &mine {
        let same = other.iter().find(|(other, _)| other == name).is_none_or(|(_, there)| there == secret);
        ensure!(same, "encryption key {name:?} is another one on another server: bring back the right one");
    }
    let first_of = |keys: &Keys| keys.first().map(|(name, _)| name.clone());
    let has = |keys: &Keys, name: Option<String>| keys.iter().any(|(n, _)| Some(n) == name.as_ref());
    Ok(Some(match (has(&other, first_of(&mine)), has(&mine, first_of(&other))) {
        (true, _) => theirs.to_owned(),
        (false, true) => ours.to_owned(),
        (false, false) => {
            let more: Keys =
                other.into_iter().filter(|(name, _)| !mine.iter().any(|(n, _)| n == name)).collect();
            String::from_utf8(document(&[mine, more].concat())?)?
        }
    }))
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
    parse(&std::fs::read(&path).with_context(what)?).with_context(what)
}

/// The keys of the file's content.
fn parse(text: &[u8]) -> anyhow::Result<Keys> {
    let document: Value = serde_json::from_slice(text)?;
    let providers = document.pointer("/resources/0/providers").and_then(Value::as_array);
    let keys = providers
        .and_then(|all| all.iter().find_map(|provider| provider.pointer("/aesgcm/keys")?.as_array()))
        .context("it has no provider aesgcm with keys")?;
    keys.iter()
        .map(|key| {
            let name = key["name"].as_str().context("a key has no name")?;
            let secret = STANDARD.decode(key["secret"].as_str().context("a key has no secret")?)?;
            Ok((name.to_owned(), secret))
        })
        .collect()
}

fn save(server_dir: &Path, keys: &Keys) -> anyhow::Result<()> {
    files::make_private_dir(&server_dir.join("cred"))?;
    Ok(files::write_private(&file(server_dir), &document(keys)?)?)
}

/// The file's content.
fn document(keys: &Keys) -> anyhow::Result<Vec<u8>> {
    let keys: Vec<_> = keys
        .iter()
        .map(|(name, secret)| json!({ "name": name, "secret": STANDARD.encode(secret) }))
        .collect();
    let document = json!({
        "kind": "EncryptionConfiguration",
        "apiVersion": "apiserver.config.k8s.io/v1",
        "resources": [{ "resources": ["secrets"], "providers": [{ "aesgcm": { "keys": keys } }, { "identity": {} }] }],
    });
    Ok(serde_json::to_vec_pretty(&document)?)
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

/// Adds a key that seals from now on: a running server notices and seals everything anew, another one at its next
/// start. The result is the key's name.
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

/// Forgets all keys but the first, after everything is sealed with it: by this call, or by the server that has the
/// embedded datastore open, which is waited for. The result is how many values this call sealed.
///
/// # Errors
/// Encryption is off, a value does not open, or the server does not seal what it should within a minute.
pub async fn reencrypt(config: &DatastoreConfig, server_dir: &Path) -> anyhow::Result<usize> {
    let keys = load(server_dir)?;
    let Some(first) = keys.first().cloned() else {
        bail!("encryption is off: start the server with --secrets-encryption first");
    };
    let raw = match datastore::open_for_tool(config, &config.datastore(server_dir)?).await {
        Ok(raw) => raw,
        Err(error) if is_in_use(&error) => {
            sealed_by_server(config, server_dir, &first.0).await?;
            // The server notices that the others are gone, and tells other servers.
            save(server_dir, &vec![first])?;
            return Ok(0);
        }
        Err(error) => return Err(error),
    };
    let store = EncryptedStore::new(raw.clone(), ring(server_dir)?);
    let count = store.reencrypt().await?;
    save(server_dir, &vec![first])?;
    sharing::publish_own(&raw, server_dir).await?;
    store.shutdown().await;
    Ok(count)
}

fn is_in_use(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| matches!(cause.downcast_ref(), Some(StoreError::InUse { .. })))
}

/// Waits until the running server has sealed everything with this key.
async fn sealed_by_server(config: &DatastoreConfig, server_dir: &Path, key: &str) -> anyhow::Result<()> {
    for _ in 0..240 {
        if status(config, server_dir).await?.sealed.keys().all(|sealer| sealer == key) {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    bail!("the server has not encrypted everything with {key} yet: look at its log, then try again")
}

#[cfg(test)]
mod tests;
