//! How a server comes to what it shares with the other servers of its cluster: from the datastore if they were there
//! before, otherwise it makes it and leaves it there.
//!
//! Two servers that begin on an empty datastore at the same time settle it by the datastore: the first one to write
//! wins, the other takes over what it finds (same token) or gives up (another token).

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, bail};
use tracing::{info, warn};

use super::bundle::{Bundle, ENCRYPTION, PREFIX, key_of};
use super::encryption;
use crate::pki::token::{self, JoinSecrets, JoinToken};
use crate::pki::{ClusterPki, files};
use crate::store::{Entry, ListOptions, Store, StoreError};

/// What a server is told about itself.
pub(super) struct Own<'a> {
    /// Where its files are.
    pub(super) directory: &'a Path,
    /// `--token` and `--agent-token`.
    pub(super) token: Option<&'a str>,
    pub(super) agent_token: Option<&'a str>,
    /// Names of its serving certificate.
    pub(super) names: &'a [String],
    /// `--secrets-encryption`.
    pub(super) encrypt: bool,
}

/// Certificates and tokens, in common with every other server on this datastore.
///
/// # Errors
/// The datastore belongs to a cluster with another token, or the files here are those of another cluster.
pub(super) async fn settle(
    store: &Arc<dyn Store>,
    own: &Own<'_>,
) -> anyhow::Result<(ClusterPki, JoinSecrets)> {
    let known = own.known_token()?;
    let found = all(store).await?;
    if let Some(token) = &known
        && let Some(entry) = found.iter().find(|entry| *entry.key == key_of(token))
    {
        own.take_over(store, token, entry).await?;
        return own.load();
    }
    let began_here = own.directory.join("tls/server-ca.key").exists();
    match (found.is_empty(), store.is_shared(), began_here) {
        (true, ..) => {}
        (false, true, _) => bail!(
            "the datastore belongs to a cluster with another token: give this server the token of its servers, which \
             is in server/token there (--token)"
        ),
        (false, false, true) => info!("the token is a new one, what belongs to it is sealed anew"),
        (false, false, false) => warn!(
            "the state comes from a cluster with another token: new certificate authorities are made, every node has \
             to join again; give --token of that cluster to keep them"
        ),
    }
    own.leave(store, &found, began_here).await
}

/// What is there, whatever the tokens.
async fn all(store: &Arc<dyn Store>) -> Result<Vec<Entry>, StoreError> {
    Ok(store.list(PREFIX, &ListOptions::default()).await?.entries)
}

impl Own<'_> {
    fn load(&self) -> anyhow::Result<(ClusterPki, JoinSecrets)> {
        let pki = ClusterPki::load_or_create(&self.directory.join("tls"), self.names)?;
        let ca = pki.server_ca().cert_pem();
        let secrets = token::load_or_create(self.directory, ca, self.token, self.agent_token)?;
        encryption::prepare(self.directory, self.encrypt)?;
        Ok((pki, secrets))
    }

    /// The secret of the token that was given or is on file.
    fn known_token(&self) -> anyhow::Result<Option<String>> {
        let given = match self.token {
            Some(text) => Some(text.to_owned()),
            None => files::read_private(&self.directory.join("token"))?,
        };
        let token = given.map(|text| JoinToken::parse(&text)).transpose().context("--token")?;
        Ok(token.map(|token| token.password().to_owned()))
    }

    /// Puts the files of the cluster here. What is here already must be the same, but for keys of encryption.
    async fn take_over(&self, store: &Arc<dyn Store>, token: &str, entry: &Entry) -> anyhow::Result<()> {
        let opened = Bundle::open(token, &entry.value);
        let mut theirs = opened.with_context(|| format!("read what servers share ({})", entry.key))?;
        let ours = Bundle::read(self.directory)?;
        let mut differences = ours.differences(&theirs);
        differences.retain(|name| *name != ENCRYPTION);
        if !differences.is_empty() {
            bail!(
                "{} in {} are not those of the cluster in the datastore: remove them to join it, or name another \
                 datastore",
                differences.join(", "),
                self.directory.display()
            );
        }
        let keys = encryption::merge(
            ours.0.get(ENCRYPTION).map(String::as_str),
            theirs.0.get(ENCRYPTION).map(String::as_str),
        )?;
        let changed = keys.is_some() && keys.as_ref() != theirs.0.get(ENCRYPTION);
        if let Some(keys) = keys {
            theirs.0.insert(ENCRYPTION.to_owned(), keys);
        }
        theirs.write(self.directory)?;
        let begins = self.encrypt && !theirs.0.contains_key(ENCRYPTION);
        if changed || begins {
            encryption::prepare(self.directory, self.encrypt)?;
            publish(store, self.directory, token).await?;
        }
        Ok(())
    }

    /// Makes what is missing and leaves it in the datastore for other servers.
    async fn leave(
        &self,
        store: &Arc<dyn Store>,
        found: &[Entry],
        began_here: bool,
    ) -> anyhow::Result<(ClusterPki, JoinSecrets)> {
        let (pki, secrets) = self.load()?;
        let token = secrets.server_password().to_owned();
        let key = key_of(&token);
        let sealed = Bundle::read(self.directory)?.seal(&token)?;
        match store.create(&key, sealed, None).await {
            Ok(_) => {}
            Err(StoreError::Exists { .. }) => {
                // Another server was faster. What was made here a moment ago nobody has seen.
                let entry = store.get(&key, None).await?.context("what another server left is gone")?;
                if !began_here {
                    std::fs::remove_dir_all(self.directory.join("tls")).context("begin anew")?;
                    std::fs::remove_file(self.directory.join("token")).ok();
                    std::fs::remove_file(self.directory.join(ENCRYPTION)).ok();
                }
                self.take_over(store, &token, &entry).await?;
                return self.load();
            }
            Err(error) => return Err(error).context("write what servers share"),
        }
        if !store.is_shared() {
            for old in found {
                store.delete(&old.key, old.mod_revision).await.context("remove what an old token sealed")?;
            }
            return Ok((pki, secrets));
        }
        // Another server may have begun with a token of its own.
        let first = all(store).await?.into_iter().min_by_key(|entry| entry.create_revision);
        if first.is_some_and(|first| *first.key != key) {
            if let Some(entry) = store.get(&key, None).await? {
                store.delete(&key, entry.mod_revision).await.ok();
            }
            bail!(
                "another server began a cluster in this datastore at the same time: remove {} here and start again \
                 with the token in server/token there (--token)",
                self.directory.display()
            );
        }
        Ok((pki, secrets))
    }
}

/// Brings the keys of encryption that other servers share into the file here.
///
/// # Errors
/// The datastore fails, or what is there cannot be opened.
pub(super) async fn fetch_keys(store: &Arc<dyn Store>, directory: &Path) -> anyhow::Result<()> {
    let Some(token) = files::read_private(&directory.join("token"))? else { return Ok(()) };
    let token = JoinToken::parse(&token)?;
    let Some(entry) = store.get(&key_of(token.password()), None).await? else { return Ok(()) };
    let theirs = Bundle::open(token.password(), &entry.value)?;
    let ours = files::read_private(&directory.join(ENCRYPTION))?;
    let merged = encryption::merge(ours.as_deref(), theirs.0.get(ENCRYPTION).map(String::as_str))?;
    if let Some(keys) = merged.filter(|keys| Some(keys) != ours.as_ref()) {
        files::make_private_dir(&directory.join("cred"))?;
        files::write_private(&directory.join(ENCRYPTION), keys.as_bytes())?;
    }
    Ok(())
}

/// Replaces what is kept in the datastore by the files here, if servers have left something there.
///
/// # Errors
/// As of [`publish`].
pub(super) async fn publish_own(store: &Arc<dyn Store>, directory: &Path) -> anyhow::Result<()> {
    match files::read_private(&directory.join("token"))? {
        Some(token) => publish(store, directory, JoinToken::parse(&token)?.password()).await,
        None => Ok(()),
    }
}

/// Replaces what is kept in the datastore by the files here.
///
/// # Errors
/// The datastore fails, or the files cannot be read.
pub(super) async fn publish(store: &Arc<dyn Store>, directory: &Path, token: &str) -> anyhow::Result<()> {
    let (key, sealed) = (key_of(token), Bundle::read(directory)?.seal(token)?);
    loop {
        let written = match store.get(&key, None).await? {
            Some(entry) => store.update(&key, sealed.clone(), entry.mod_revision, None).await,
            None => store.create(&key, sealed.clone(), None).await,
        };
        match written {
            Ok(_) => return Ok(()),
            Err(StoreError::Conflict { .. } | StoreError::Exists { .. } | StoreError::NotFound { .. }) => {}
            Err(error) => return Err(error).context("write what servers share"),
        }
    }
}

#[cfg(test)]
mod tests;
