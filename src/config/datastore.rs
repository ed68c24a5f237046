//! Where the cluster's state is kept, as k3s calls it.

use std::path::{Path, PathBuf};

use clap::Args;

use super::ConfigError;

/// The flags that choose the datastore.
#[derive(Args, Debug, Clone)]
pub struct DatastoreConfig {
    /// Where the cluster's state is kept: sqlite:///path/to/state.db, or the URLs of etcd's members
    /// (https://a:2379,https://b:2379) [default: SQLite in server/db]
    #[arg(long, env = "KUBE_LITE_DATASTORE_ENDPOINT", value_name = "DSN")]
    pub datastore_endpoint: Option<String>,

    /// File with the authorities that etcd's certificates are checked with [default: the host's]
    #[arg(long, env = "KUBE_LITE_DATASTORE_CAFILE", value_name = "FILE")]
    pub datastore_cafile: Option<PathBuf>,

    /// File with the certificate that etcd is shown
    #[arg(long, env = "KUBE_LITE_DATASTORE_CERTFILE", value_name = "FILE", requires = "datastore_keyfile")]
    pub datastore_certfile: Option<PathBuf>,

    /// File with the private key of that certificate
    #[arg(long, env = "KUBE_LITE_DATASTORE_KEYFILE", value_name = "FILE", requires = "datastore_certfile")]
    pub datastore_keyfile: Option<PathBuf>,

    /// Most bytes that the embedded datastore may have; at this size history is given up, then writes are refused
    #[arg(long, env = "KUBE_LITE_DATASTORE_QUOTA_BACKEND_BYTES", default_value_t = QUOTA_BYTES, value_name = "BYTES")]
    pub datastore_quota_backend_bytes: u64,
}

/// As much as etcd recommends at most.
const QUOTA_BYTES: u64 = 8 << 30;
/// Less than this is no database.
const QUOTA_LEAST: u64 = 16 << 20;

/// A datastore.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Datastore {
    /// The embedded one, in this file.
    Sqlite(PathBuf),
    /// etcd, by the URLs of its members.
    Etcd(Vec<String>),
}

impl DatastoreConfig {
    /// What the flags say; the embedded datastore in `server_dir` when they say nothing.
    ///
    /// # Errors
    /// An endpoint that is neither SQLite's nor etcd's.
    pub fn datastore(&self, server_dir: &Path) -> Result<Datastore, ConfigError> {
        let quota = self.datastore_quota_backend_bytes;
        if quota < QUOTA_LEAST {
            let rule = format!("it must be {QUOTA_LEAST} or more");
            return Err(ConfigError::value("datastore-quota-backend-bytes", &quota.to_string(), rule));
        }
        match self.datastore_endpoint.as_deref() {
            None => Ok(Datastore::Sqlite(server_dir.join("db/state.db"))),
            Some(dsn) => parse("datastore-endpoint", dsn, server_dir),
        }
    }
}

/// Reads one datastore, from the flag of that name: `sqlite` alone is the one in `server_dir`.
///
/// # Errors
/// It is neither SQLite nor a list of etcd's URLs.
pub fn parse(flag: &str, dsn: &str, server_dir: &Path) -> Result<Datastore, ConfigError> {
    match dsn.strip_prefix("sqlite://") {
        Some("") => return Ok(Datastore::Sqlite(server_dir.join("db/state.db"))),
        Some(path) => return Ok(Datastore::Sqlite(path.into())),
        None if dsn == "sqlite" => return Ok(Datastore::Sqlite(server_dir.join("db/state.db"))),
        None => {}
    }
    let members: Vec<_> = dsn.split(',').map(|url| url.trim().trim_end_matches('/').to_owned()).collect();
    let is_member = |url: &String| {
        let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
        rest.is_some_and(|authority| !authority.is_empty() && !authority.contains('/'))
    };
    if members.iter().all(is_member) {
        return Ok(Datastore::Etcd(members));
    }
    let rule = "only sqlite:// and etcd (https://HOST:2379, several with commas between) are supported; leave the \
                flag out to keep the state in the data directory";
    Err(ConfigError::value(flag, dsn, rule.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_a_file_or_a_list_of_members() {
        let of = |dsn: &str| parse("datastore-endpoint", dsn, Path::new("/d"));
        let etcd = |urls: &[&str]| Datastore::Etcd(urls.iter().map(|&u| u.to_owned()).collect());
        let cases = [
            ("sqlite://", Datastore::Sqlite("/d/db/state.db".into())),
            ("sqlite", Datastore::Sqlite("/d/db/state.db".into())),
            ("sqlite:///x/y.db", Datastore::Sqlite("/x/y.db".into())),
            ("http://a:1", etcd(&["http://a:1"])),
            ("https://a:2379, https://[::1]:2379/", etcd(&["https://a:2379", "https://[::1]:2379"])),
        ];
        for (dsn, expected) in cases {
            assert_eq!(of(dsn).unwrap(), expected, "{dsn}");
        }
        for dsn in ["", "mysql://x", "https://", "http://a:1,b:2", "https://a/b", "etcd"] {
            assert!(of(dsn).is_err(), "{dsn}");
        }
    }
}
