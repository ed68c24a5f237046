//! Join tokens: the secret that lets a host become a node, with the hash that pins the cluster's authority.
//!
//! The form is that of k3s: `K10<sha256 of the CA's PEM, hex>::<user>:<password>`. A bare password is accepted from an
//! operator, but then the joining host cannot check that it talks to the right server.

use std::fmt;
use std::path::Path;

use super::files::{self, FileError};

const PREFIX: &str = "K10";
/// User of tokens made by a server.
pub const SERVER_USER: &str = "server";
/// User that joining agents present, whatever the user of the token file says.
pub const NODE_USER: &str = "node";

/// Why a join token is refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum TokenError {
    /// The text is of no known form.
    #[error(
        "the token is malformed: use the content of the server's token file, K10<hash>::<user>:<password>"
    )]
    Malformed,
    /// The token pins another certificate authority.
    #[error(
        "the token belongs to another cluster: its hash is {expected}, but the server's certificate authority has {actual}; \
         copy the token file of the server again"
    )]
    AnotherAuthority {
        /// Hash in the token.
        expected: String,
        /// Hash of the certificate presented.
        actual: String,
    },
}

/// Why the token files cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TokenFileError {
    /// A token file holds something else.
    #[error("token in {place}")]
    Token {
        /// Where the token stands.
        place: String,
        /// The cause.
        #[source]
        source: TokenError,
    },
    /// A token file cannot be read or written.
    #[error("join token")]
    File(#[from] FileError),
}

/// A parsed join token.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    ca_hash: Option<String>,
    user: String,
    password: String,
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinToken")
            .field("ca_hash", &self.ca_hash)
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

impl JoinToken {
    /// A token for the cluster whose server authority is `ca_pem`.
    pub fn new(ca_pem: &str, user: &str, password: &str) -> Self {
        Self { ca_hash: Some(ca_hash(ca_pem)), user: user.to_owned(), password: password.to_owned() }
    }

    /// Parses the full form, or a bare password.
    pub fn parse(text: &str) -> Result<Self, TokenError> {
        let text = text.trim();
        let printable = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_graphic());
        let Some(rest) = text.strip_prefix(PREFIX).filter(|rest| rest.contains("::")) else {
            if !printable(text) || text.contains("::") {
                return Err(TokenError::Malformed);
            }
            return Ok(Self { ca_hash: None, user: NODE_USER.to_owned(), password: text.to_owned() });
        };
        let (hash, credentials) = rest.split_once("::").ok_or(TokenError::Malformed)?;
        let (user, password) = credentials.split_once(':').ok_or(TokenError::Malformed)?;
        let hash_ok = hash.len() == 64 && hash.bytes().all(|b| b.is_ascii_hexdigit());
        if !hash_ok || !printable(user) || !printable(password) {
            return Err(TokenError::Malformed);
        }
        Ok(Self {
            ca_hash: Some(hash.to_ascii_lowercase()),
            user: user.to_owned(),
            password: password.to_owned(),
        })
    }

    /// Whether the token pins an authority; without, [`Self::verify_ca`] accepts any.
    pub fn pins_authority(&self) -> bool {
        self.ca_hash.is_some()
    }

    /// The user named in the token.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// The secret.
    pub fn password(&self) -> &str {
        &self.password
    }

    /// Checks that `ca_pem`, as served by `/cacerts`, is the authority the token pins.
    pub fn verify_ca(&self, ca_pem: &str) -> Result<(), TokenError> {
        match &self.ca_hash {
            Some(expected) if *expected != ca_hash(ca_pem) => {
                Err(TokenError::AnotherAuthority { expected: expected.clone(), actual: ca_hash(ca_pem) })
            }
            _ => Ok(()),
        }
    }

    /// The full form; a bare password when no authority is pinned.
    pub fn format(&self) -> String {
        match &self.ca_hash {
            Some(hash) => format!("{PREFIX}{hash}::{}:{}", self.user, self.password),
            None => self.password.clone(),
        }
    }
}

/// SHA-256 of the PEM as stored, in hex.
pub fn ca_hash(ca_pem: &str) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, ca_pem.as_bytes());
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The secrets that a server accepts from joining hosts.
#[derive(Clone)]
pub struct JoinSecrets {
    server: String,
    agent: String,
}

impl fmt::Debug for JoinSecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinSecrets").finish_non_exhaustive()
    }
}

impl JoinSecrets {
    /// Secrets from bare passwords.
    pub fn new(server: &str, agent: &str) -> Self {
        Self { server: server.to_owned(), agent: agent.to_owned() }
    }

    /// Whether `password` lets `user` join as a node. Takes as long for a wrong password as for the right one.
    pub fn admits_node(&self, user: &str, password: &str) -> bool {
        let same = |secret: &str| {
            aws_lc_rs::constant_time::verify_slices_are_equal(secret.as_bytes(), password.as_bytes()).is_ok()
        };
        let (server, agent) = (same(&self.server), same(&self.agent));
        match user {
            NODE_USER => server | agent,
            SERVER_USER => server,
            _ => false,
        }
    }

    /// The secret of the server token.
    pub fn server_password(&self) -> &str {
        &self.server
    }

    /// The secret of the agent token.
    pub fn agent_password(&self) -> &str {
        &self.agent
    }
}

/// Settles the server's tokens and writes `token`, `node-token` and `agent-token` in `server_dir` (0600).
///
/// A configured token wins over the one on file; without both, a random one is made. The agent token is the server
/// token unless configured.
pub fn load_or_create(
    server_dir: &Path,
    ca_pem: &str,
    configured: Option<&str>,
    configured_agent: Option<&str>,
) -> Result<JoinSecrets, TokenFileError> {
    files::make_private_dir(server_dir)?;
    let read = |place: String, text: &str| {
        let token = JoinToken::parse(text).and_then(|token| token.verify_ca(ca_pem).map(|()| token));
        token.map_err(|source| TokenFileError::Token { place, source })
    };
    let path = server_dir.join("token");
    let server = match (configured, files::read_private(&path)?) {
        (Some(text), _) => read("--token".to_owned(), text)?.password,
        (None, Some(text)) => read(path.display().to_string(), &text)?.password,
        (None, None) => random_password(),
    };
    let agent = match configured_agent {
        Some(text) => read("--agent-token".to_owned(), text)?.password,
        None => server.clone(),
    };
    let full = JoinToken::new(ca_pem, SERVER_USER, &server).format() + "\n";
    let full_agent = JoinToken::new(ca_pem, NODE_USER, &agent).format() + "\n";
    for (file, content) in [("token", &full), ("node-token", &full), ("agent-token", &full_agent)] {
        let path = server_dir.join(file);
        if files::read_private(&path)?.as_deref() != Some(content.as_str()) {
            files::write_private(&path, content.as_bytes())?;
        }
    }
    Ok(JoinSecrets { server, agent })
}

/// 32 hexadecimal digits from the system's random generator.
pub fn random_password() -> String {
    rand::random::<[u8; 16]>().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CA: &str = "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n";

    #[test]
    fn token_round_trips_and_pins_the_authority() {
        let token = JoinToken::new(CA, SERVER_USER, "s3cret:with:colons");
        let parsed = JoinToken::parse(&format!(" {}\n", token.format())).unwrap();
        assert_eq!(parsed, token);
        assert_eq!(parsed.password(), "s3cret:with:colons");
        parsed.verify_ca(CA).unwrap();
        assert!(matches!(parsed.verify_ca("other"), Err(TokenError::AnotherAuthority { .. })));
    }

    #[test]
    fn malformed_tokens_are_refused() {
        let hash = "0".repeat(64);
        for text in [
            "",
            "two words",
            "K10abc::server:pw",
            &format!("K10{hash}::server"),
            &format!("K10{hash}::server:"),
            &format!("K10{hash}:::pw"),
            &format!("K10{}::server:pw", "g".repeat(64)),
            "x::y:z",
        ] {
            assert_eq!(JoinToken::parse(text).err(), Some(TokenError::Malformed), "{text:?}");
        }
    }

    #[test]
    fn bare_password_pins_nothing() {
        let token = JoinToken::parse("hunter2").unwrap();
        assert!(!token.pins_authority());
        token.verify_ca("anything").unwrap();
        assert_eq!((token.user(), token.password()), (NODE_USER, "hunter2"));
    }

    #[test]
    fn debug_output_hides_the_secret() {
        assert!(!format!("{:?}", JoinToken::new(CA, "server", "hunter2")).contains("hunter2"));
        assert!(!format!("{:?}", JoinSecrets::new("hunter2", "hunter2")).contains("hunter2"));
    }

    #[test]
    fn nodes_join_with_either_secret_and_servers_with_their_own() {
        let secrets = JoinSecrets::new("s", "a");
        let admitted = [("node", "s"), ("node", "a"), ("server", "s")];
        for user in ["node", "server", "root", ""] {
            for password in ["s", "a", "", "x"] {
                assert_eq!(
                    secrets.admits_node(user, password),
                    admitted.contains(&(user, password)),
                    "{user}:{password}"
                );
            }
        }
    }

    #[test]
    fn token_files_survive_a_restart_and_follow_the_configuration() {
        let dir = tempfile::tempdir().unwrap();
        let first = load_or_create(dir.path(), CA, None, None).unwrap();
        let second = load_or_create(dir.path(), CA, None, None).unwrap();
        assert_eq!(first.server_password(), second.server_password());
        let text = std::fs::read_to_string(dir.path().join("node-token")).unwrap();
        assert_eq!(JoinToken::parse(&text).unwrap().password(), first.server_password());

        let third = load_or_create(dir.path(), CA, Some("new"), Some("agents")).unwrap();
        assert_eq!((third.server_password(), third.agent_password()), ("new", "agents"));
        let text = std::fs::read_to_string(dir.path().join("agent-token")).unwrap();
        assert_eq!(JoinToken::parse(&text).unwrap().password(), "agents");
    }

    #[test]
    fn token_of_another_cluster_is_refused_with_its_place() {
        let dir = tempfile::tempdir().unwrap();
        let foreign = JoinToken::new("other", SERVER_USER, "pw").format();
        let error = load_or_create(dir.path(), CA, Some(&foreign), None).unwrap_err();
        assert_eq!(error.to_string(), "token in --token");
    }
}
