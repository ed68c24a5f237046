//! What all servers of a cluster must have in common, as one sealed value: certificate authorities, the key that signs
//! service accounts' tokens, and the keys of encryption at rest.
//!
//! As k3s does it, the value is kept in the datastore, encrypted with the token, under a name made from the token's
//! hash: whoever has the datastore alone learns nothing from it, and a server with the token needs nothing else.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::path::Path;

use anyhow::{Context, bail};
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::{digest, pbkdf2};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;

use crate::pki::files;

/// All bundles are below this; there is one for each token.
pub(super) const PREFIX: &str = "/bootstrap/";
/// The file of the keys of encryption at rest.
pub(super) const ENCRYPTION: &str = "cred/encryption-config.json";
/// What is shared, below the server's directory. Certificates of the server itself are its own.
const FILES: &[&str] = &[
    "tls/server-ca.crt",
    "tls/server-ca.key",
    "tls/client-ca.crt",
    "tls/client-ca.key",
    "tls/request-header-ca.crt",
    "tls/request-header-ca.key",
    "tls/service.key",
    ENCRYPTION,
];
/// Form of the sealed value.
const VERSION: &str = "v1";
const ITERATIONS: NonZeroU32 = NonZeroU32::new(100_000).expect("not zero");
const SALT_BYTES: usize = 16;

/// The files by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Bundle(pub(super) BTreeMap<String, String>);

/// Where the bundle of this token is.
pub(super) fn key_of(token: &str) -> String {
    let hash = digest::digest(&digest::SHA256, token.as_bytes());
    let hex: String = hash.as_ref().iter().take(6).map(|byte| format!("{byte:02x}")).collect();
    format!("{PREFIX}{hex}")
}

impl Bundle {
    /// What is there in the server's directory.
    pub(super) fn read(server_dir: &Path) -> anyhow::Result<Self> {
        let mut bundle = BTreeMap::new();
        for name in FILES {
            if let Some(content) = files::read_private(&server_dir.join(name))? {
                bundle.insert((*name).to_owned(), content);
            }
        }
        Ok(Self(bundle))
    }

    /// Writes the files that are not there as they should be.
    pub(super) fn write(&self, server_dir: &Path) -> anyhow::Result<()> {
        for (name, content) in &self.0 {
            // Names come from a sealed value, but a path is a path.
            if !FILES.contains(&name.as_str()) {
                continue;
            }
            let path = server_dir.join(name);
            if let Some(folder) = path.parent() {
                files::make_private_dir(folder)?;
            }
            if files::read_private(&path)?.as_ref() != Some(content) {
                files::write_private(&path, content.as_bytes())?;
            }
        }
        Ok(())
    }

    /// The names of the files that are another content here and there.
    pub(super) fn differences(&self, other: &Self) -> Vec<&str> {
        let differs = |(name, content): &(&String, &String)| {
            other.0.get(*name).is_some_and(|there| there.trim() != content.trim())
        };
        self.0.iter().filter(differs).map(|(name, _)| name.as_str()).collect()
    }

    pub(super) fn seal(&self, token: &str) -> anyhow::Result<Bytes> {
        let mut salt = [0; SALT_BYTES];
        let mut nonce = [0; NONCE_LEN];
        aws_lc_rs::rand::fill(&mut salt).ok().context("make a random salt")?;
        aws_lc_rs::rand::fill(&mut nonce).ok().context("make a random nonce")?;
        let mut sealed = serde_json::to_vec(&self.0)?;
        let tag = sealing_key(token, &salt)?
            .seal_in_place_separate_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(key_of(token)),
                &mut sealed,
            )
            .ok()
            .context("seal what servers share")?;
        let whole = [&nonce[..], &sealed, tag.as_ref()].concat();
        Ok(format!("{VERSION}:{}:{}", BASE64.encode(salt), BASE64.encode(whole)).into())
    }

    /// Opens what [`Self::seal`] made.
    pub(super) fn open(token: &str, sealed: &[u8]) -> anyhow::Result<Self> {
        let text = std::str::from_utf8(sealed)?;
        let Some((VERSION, rest)) = text.split_once(':') else {
            bail!("it has a form that this kube-lite does not know: start the newest version of the servers");
        };
        let (salt, whole) = rest.split_once(':').context("it is cut short")?;
        let mut whole = BASE64.decode(whole)?;
        if whole.len() < NONCE_LEN {
            bail!("it is cut short");
        }
        let mut sealed = whole.split_off(NONCE_LEN);
        let nonce = Nonce::try_assume_unique_for_key(&whole).ok().context("it has no nonce")?;
        let opened = sealing_key(token, &BASE64.decode(salt)?)?
            .open_in_place(nonce, Aad::from(key_of(token)), &mut sealed)
            .ok()
            .context("the token does not open it: it has been changed")?;
        Ok(Self(serde_json::from_slice(opened)?))
    }
}

fn sealing_key(token: &str, salt: &[u8]) -> anyhow::Result<LessSafeKey> {
    let mut key = [0; 32];
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, ITERATIONS, salt, token.as_bytes(), &mut key);
    Ok(LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &key).ok().context("make a key from the token")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bundle() -> Bundle {
        Bundle(BTreeMap::from([("tls/service.key".to_owned(), "PRIVATE".to_owned())]))
    }

    #[test]
    fn only_the_token_opens_what_it_sealed() {
        let sealed = bundle().seal("token").unwrap();
        assert!(!String::from_utf8_lossy(&sealed).contains("PRIVATE"));
        assert_eq!(Bundle::open("token", &sealed).unwrap(), bundle());
        assert!(Bundle::open("other", &sealed).is_err());
        assert_ne!(bundle().seal("token").unwrap(), sealed, "salt and nonce are new each time");
        for spoiled in ["", "v2:a:b", "v1:", "v1::", "v1:AAAA:AAAA", "v1:!:!"] {
            assert!(Bundle::open("token", spoiled.as_bytes()).is_err(), "{spoiled}");
        }
        let mut changed = sealed.to_vec();
        let last = changed.len() - 6;
        changed[last] ^= 1;
        assert!(Bundle::open("token", &changed).is_err());
    }

    #[test]
    fn files_are_read_and_written_with_nothing_else() {
        let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::fs::create_dir(one.path().join("tls")).unwrap();
        for (name, content) in [("tls/service.key", "k"), ("tls/serving-kube-apiserver.crt", "own")] {
            std::fs::write(one.path().join(name), content).unwrap();
        }
        let mut read = Bundle::read(one.path()).unwrap();
        assert_eq!(read.0.keys().collect::<Vec<_>>(), ["tls/service.key"]);
        read.0.insert("../outside".to_owned(), "x".to_owned());
        read.write(other.path()).unwrap();
        assert_eq!(std::fs::read_to_string(other.path().join("tls/service.key")).unwrap(), "k");
        assert!(!other.path().parent().unwrap().join("outside").exists());
        std::fs::write(other.path().join("tls/service.key"), "another").unwrap();
        assert_eq!(read.differences(&Bundle::read(other.path()).unwrap()), ["tls/service.key"]);
    }
}
