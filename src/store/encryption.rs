//! Encryption at rest: values of chosen keys are sealed on their way into another store, and opened on the way out.
//!
//! The form is that of upstream's `aesgcm` provider: `k8s:enc:aesgcm:v1:NAME:`, a nonce of 12 bytes, the ciphertext
//! with its tag; the key of the entry is authenticated with it, so that a value under another key does not open.
//! Values without the mark are taken as they are, so that encryption can be switched on for a cluster that exists.
//! A sealed value that cannot be opened is an error, never handed out.

use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use async_trait::async_trait;
use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use bytes::Bytes;
use futures::StreamExt as _;

use super::{
    Batch, Entry, Event, EventKind, ListOptions, ListPage, Revision, Store, StoreError, Usage, WatchStream,
};

/// What sealed values begin with, whoever sealed them.
const SEALED: &[u8] = b"k8s:enc:";
/// What those begin with that are opened here; the key's name and a colon follow.
const MARK: &[u8] = b"k8s:enc:aesgcm:v1:";

/// A key that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("encryption key {name:?} {reason}")]
pub struct BadKey {
    /// The key's name.
    pub name: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

/// The keys, the first of which seals, and what is sealed.
#[derive(Default)]
pub struct Keyring {
    keys: Vec<Key>,
    prefixes: Vec<String>,
}

struct Key {
    name: String,
    key: LessSafeKey,
}

impl std::fmt::Debug for Keyring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keyring").field("prefixes", &self.prefixes).finish_non_exhaustive()
    }
}

impl Keyring {
    /// Keys by name (16 or 32 bytes each) for entries below `prefixes`.
    ///
    /// # Errors
    /// A key of another length, or a name that cannot stand in the mark.
    pub fn new(keys: &[(String, Vec<u8>)], prefixes: Vec<String>) -> Result<Self, BadKey> {
        let key = |(name, secret): &(String, Vec<u8>)| {
            let bad = |reason| BadKey { name: name.clone(), reason };
            if name.is_empty() || name.contains(':') {
                return Err(bad("has a name that is empty or has a colon"));
            }
            let algorithm = match secret.len() {
                16 => &AES_128_GCM,
                32 => &AES_256_GCM,
                _ => return Err(bad("has neither 16 nor 32 bytes")),
            };
            let key = UnboundKey::new(algorithm, secret).map_err(|_| bad("cannot be used"))?;
            Ok(Key { name: name.clone(), key: LessSafeKey::new(key) })
        };
        Ok(Self { keys: keys.iter().map(key).collect::<Result<_, _>>()?, prefixes })
    }

    /// The name of the key that seals; `None` when nothing is sealed.
    pub fn primary(&self) -> Option<&str> {
        self.keys.first().map(|key| key.name.as_str())
    }

    /// The names of all keys, the one that seals first.
    pub fn names(&self) -> Vec<String> {
        self.keys.iter().map(|key| key.name.clone()).collect()
    }

    /// What is sealed.
    pub fn prefixes(&self) -> &[String] {
        &self.prefixes
    }

    fn applies(&self, key: &str) -> bool {
        self.prefixes.iter().any(|prefix| key.starts_with(prefix))
    }

    pub(crate) fn seal(&self, key: &str, value: Bytes) -> Result<Bytes, StoreError> {
        let Some(primary) = self.keys.first().filter(|_| self.applies(key)) else { return Ok(value) };
        let failed = || unreadable(key, "it cannot be sealed".to_owned());
        let mut nonce = [0; NONCE_LEN];
        aws_lc_rs::rand::fill(&mut nonce).map_err(|_| failed())?;
        let mut sealed =
            Vec::with_capacity(MARK.len() + primary.name.len() + 1 + NONCE_LEN + value.len() + 16);
        sealed.extend_from_slice(MARK);
        sealed.extend_from_slice(primary.name.as_bytes());
        sealed.push(b':');
        sealed.extend_from_slice(&nonce);
        let begin = sealed.len();
        sealed.extend_from_slice(&value);
        let nonce = Nonce::assume_unique_for_key(nonce);
        let tag = primary
            .key
            .seal_in_place_separate_tag(nonce, Aad::from(key.as_bytes()), &mut sealed[begin..])
            .map_err(|_| failed())?;
        sealed.extend_from_slice(tag.as_ref());
        Ok(sealed.into())
    }

    pub(crate) fn open(&self, key: &str, value: Bytes) -> Result<Bytes, StoreError> {
        if !value.starts_with(SEALED) {
            return Ok(value);
        }
        let Some((name, sealed)) = split(&value) else {
            return Err(unreadable(key, "it is encrypted in a way that kube-lite does not know".to_owned()));
        };
        let Some(found) = self.keys.iter().find(|key| key.name.as_bytes() == name) else {
            let name = String::from_utf8_lossy(name);
            return Err(unreadable(key, format!("it is encrypted with key {name:?}, which is not there")));
        };
        let wrong = || {
            let name = &found.name;
            unreadable(
                key,
                format!("key {name:?} does not decrypt it: the key is another one, or the value was changed"),
            )
        };
        let (nonce, sealed) = sealed.split_at_checked(NONCE_LEN).ok_or_else(wrong)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| wrong())?;
        let mut opened = sealed.to_vec();
        let length = found
            .key
            .open_in_place(nonce, Aad::from(key.as_bytes()), &mut opened)
            .map_err(|_| wrong())?
            .len();
        opened.truncate(length);
        Ok(opened.into())
    }

    fn open_entry(&self, mut entry: Entry) -> Result<Entry, StoreError> {
        entry.value = self.open(&entry.key, entry.value)?;
        Ok(entry)
    }

    fn open_event(&self, event: Event) -> Result<Event, StoreError> {
        let Event { key, kind, prev, revision } = event;
        let kind = match kind {
            EventKind::Put { value, create_revision } => {
                EventKind::Put { value: self.open(&key, value)?, create_revision }
            }
            EventKind::Delete => EventKind::Delete,
        };
        let prev = prev.map(|prev| self.open(&key, prev)).transpose()?;
        Ok(Event { key, kind, prev, revision })
    }
}

/// The name of the key, and what it sealed.
fn split(value: &[u8]) -> Option<(&[u8], &[u8])> {
    let rest = value.strip_prefix(MARK)?;
    let colon = rest.iter().position(|byte| *byte == b':')?;
    Some((&rest[..colon], &rest[colon + 1..]))
}

/// The name of the key that a stored value is sealed with; empty for one that is sealed in another way, `None` for one
/// that is not sealed.
pub fn sealed_with(value: &[u8]) -> Option<String> {
    let name =
        || split(value).map_or_else(String::new, |(name, _)| String::from_utf8_lossy(name).into_owned());
    value.starts_with(SEALED).then(name)
}

fn unreadable(key: &str, detail: String) -> StoreError {
    StoreError::Unreadable { key: key.into(), detail }
}

/// Where keys come from that another server has begun to use.
#[async_trait]
pub trait KeySource: Send + Sync + 'static {
    /// All keys as they are now; an error is for the log.
    async fn keyring(&self) -> Result<Keyring, String>;
}

/// A [`Store`] whose values are sealed in another one.
pub struct EncryptedStore {
    inner: Arc<dyn Store>,
    keys: Arc<Keys>,
}

/// The keys of a store, which change while it is in use.
struct Keys {
    ring: RwLock<Arc<Keyring>>,
    source: Option<Arc<dyn KeySource>>,
}

impl Keys {
    fn ring(&self) -> Arc<Keyring> {
        self.ring.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn replace(&self, ring: Keyring) {
        *self.ring.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(ring);
    }

    /// Opens something; when that fails, once more with the keys that the source has now.
    async fn open<T, U>(
        &self,
        sealed: T,
        open: impl Fn(&Keyring, T) -> Result<U, StoreError> + Send,
    ) -> Result<U, StoreError>
    where
        T: Clone + Send,
    {
        let ring = self.ring();
        let Some(source) = &self.source else { return open(&ring, sealed) };
        match open(&ring, sealed.clone()) {
            Err(StoreError::Unreadable { key, detail }) => match source.keyring().await {
                Ok(ring) => {
                    self.replace(ring);
                    open(&self.ring(), sealed)
                }
                Err(error) => {
                    tracing::warn!(%error, "keys of encryption cannot be read");
                    Err(StoreError::Unreadable { key, detail })
                }
            },
            opened => opened,
        }
    }
}

impl std::fmt::Debug for EncryptedStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EncryptedStore").field("ring", &self.keys.ring()).finish_non_exhaustive()
    }
}

impl EncryptedStore {
    /// Seals what goes into `inner`.
    pub fn new(inner: Arc<dyn Store>, ring: Keyring) -> Arc<Self> {
        Self::build(inner, ring, None)
    }

    /// [`Self::new`], which asks `source` for keys when it meets a value that it cannot open.
    pub fn with_source(inner: Arc<dyn Store>, ring: Keyring, source: Arc<dyn KeySource>) -> Arc<Self> {
        Self::build(inner, ring, Some(source))
    }

    fn build(inner: Arc<dyn Store>, ring: Keyring, source: Option<Arc<dyn KeySource>>) -> Arc<Self> {
        let ring = RwLock::new(Arc::new(ring));
        Arc::new(Self { inner, keys: Arc::new(Keys { ring, source }) })
    }

    /// Errors hand out what is stored, too.
    async fn open_error(&self, error: StoreError) -> StoreError {
        match error {
            StoreError::Conflict { key, current: Some(entry) } => {
                match self.keys.open(entry, Keyring::open_entry).await {
                    Ok(entry) => StoreError::Conflict { key, current: Some(entry) },
                    Err(error) => error,
                }
            }
            other => other,
        }
    }

    /// The names of the keys in use, the one that seals first.
    pub fn key_names(&self) -> Vec<String> {
        self.keys.ring().names()
    }

    /// Uses other keys from now on. They must open whatever is stored.
    pub fn replace_keys(&self, ring: Keyring) {
        self.keys.replace(ring);
    }

    /// Opens every sealed value once, and seals those anew that are not sealed with the first key; the result is how
    /// many. What others change meanwhile is sealed by them.
    ///
    /// # Errors
    /// A value that cannot be opened, or what the store failed with; what has been done stays.
    pub async fn reencrypt(&self) -> Result<usize, StoreError> {
        let mut count = 0;
        let ring = self.keys.ring();
        for prefix in &ring.prefixes {
            let mut options = ListOptions { limit: Some(500), ..ListOptions::default() };
            loop {
                let page = self.inner.list(prefix, &options).await?;
                options.start_after = page.entries.last().map(|e| e.key.to_string());
                for entry in page.entries {
                    let value = ring.open(&entry.key, entry.value.clone())?;
                    if sealed_with(&entry.value).as_deref() == ring.primary() {
                        continue;
                    }
                    match self.update(&entry.key, value, entry.mod_revision, None).await {
                        Ok(_) => count += 1,
                        Err(StoreError::Conflict { .. } | StoreError::NotFound { .. }) => {}
                        Err(error) => return Err(error),
                    }
                }
                if !page.more {
                    break;
                }
            }
        }
        Ok(count)
    }
}

#[async_trait]
impl Store for EncryptedStore {
    async fn get(&self, key: &str, at: Option<Revision>) -> Result<Option<Entry>, StoreError> {
        let Some(entry) = self.inner.get(key, at).await? else { return Ok(None) };
        self.keys.open(entry, Keyring::open_entry).await.map(Some)
    }

    async fn list(&self, prefix: &str, options: &ListOptions) -> Result<ListPage, StoreError> {
        let mut page = self.inner.list(prefix, options).await?;
        let open = |ring: &Keyring, entries: Vec<Entry>| {
            entries.into_iter().map(|entry| ring.open_entry(entry)).collect::<Result<Vec<_>, _>>()
        };
        page.entries = self.keys.open(page.entries, open).await?;
        Ok(page)
    }

    async fn create(&self, key: &str, value: Bytes, ttl: Option<Duration>) -> Result<Revision, StoreError> {
        self.inner.create(key, self.keys.ring().seal(key, value)?, ttl).await
    }

    async fn update(
        &self,
        key: &str,
        value: Bytes,
        expected: Revision,
        ttl: Option<Duration>,
    ) -> Result<Revision, StoreError> {
        let sealed = self.keys.ring().seal(key, value)?;
        match self.inner.update(key, sealed, expected, ttl).await {
            Err(error) => Err(self.open_error(error).await),
            done => done,
        }
    }

    async fn delete(&self, key: &str, expected: Revision) -> Result<Revision, StoreError> {
        match self.inner.delete(key, expected).await {
            Err(error) => Err(self.open_error(error).await),
            done => done,
        }
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<WatchStream, StoreError> {
        let keys = self.keys.clone();
        let inner = self.inner.watch(prefix, after).await?;
        let opened = inner.then(move |item| {
            let keys = keys.clone();
            async move {
                let Batch { revision, events } = item?;
                let open = |ring: &Keyring, events: Vec<Event>| {
                    events.into_iter().map(|event| ring.open_event(event)).collect::<Result<Vec<_>, _>>()
                };
                Ok(Batch { revision, events: keys.open(events, open).await? })
            }
        });
        Ok(WatchStream::new(opened))
    }

    async fn current_revision(&self) -> Result<Revision, StoreError> {
        self.inner.current_revision().await
    }

    async fn compact(&self, revision: Revision) -> Result<(), StoreError> {
        self.inner.compact(revision).await
    }

    async fn snapshot(&self, path: &Path) -> Result<Revision, StoreError> {
        self.inner.snapshot(path).await
    }

    async fn health(&self) -> Result<(), StoreError> {
        self.inner.health().await
    }

    fn known_health(&self) -> Result<(), StoreError> {
        self.inner.known_health()
    }

    async fn usage(&self) -> Result<Usage, StoreError> {
        self.inner.usage().await
    }

    fn is_shared(&self) -> bool {
        self.inner.is_shared()
    }

    async fn shutdown(&self) {
        self.inner.shutdown().await;
    }
}

#[cfg(test)]
mod tests;
