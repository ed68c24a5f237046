//! Servers of one cluster, before and after each other, over a datastore that they have in common.

use super::*;
use crate::store::sqlite::{SqliteOptions, SqliteStore};

struct Host {
    directory: tempfile::TempDir,
    token: Option<&'static str>,
    encrypt: bool,
}

fn host(token: Option<&'static str>) -> Host {
    Host { directory: tempfile::tempdir().unwrap(), token, encrypt: false }
}

impl Host {
    async fn start(&self, store: &Arc<dyn Store>) -> anyhow::Result<(ClusterPki, JoinSecrets)> {
        let own = Own {
            directory: self.directory.path(),
            token: self.token,
            agent_token: None,
            names: &["127.0.0.1".to_owned()],
            encrypt: self.encrypt,
        };
        settle(store, &own).await
    }

    fn keys(&self) -> Vec<String> {
        encryption::load(self.directory.path()).unwrap().into_iter().map(|(name, _)| name).collect()
    }
}

fn datastore() -> (Arc<dyn Store>, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&folder.path().join("state.db"), SqliteOptions::default()).unwrap();
    (store, folder)
}

fn authorities(pki: &ClusterPki) -> [String; 4] {
    let authorities =
        [pki.server_ca(), pki.client_ca(), pki.request_header_ca()].map(|ca| ca.cert_pem().to_owned());
    let [server, client, header] = authorities;
    [server, client, header, pki.service_key().key_id().to_owned()]
}

#[tokio::test]
async fn a_host_with_the_token_gets_what_the_first_one_made() {
    let (store, _folder) = datastore();
    let first = host(None);
    let (pki, secrets) = first.start(&store).await.unwrap();
    let token: &'static str = Box::leak(secrets.server_password().to_owned().into_boxed_str());
    let second = host(Some(token));
    let (other, _) = second.start(&store).await.unwrap();
    assert_eq!(authorities(&pki), authorities(&other));
    assert_ne!(pki.apiserver_serving().key_pem, other.apiserver_serving().key_pem, "its own certificate");
    // Both find at the next start what they had.
    for host in [&first, &second] {
        assert_eq!(authorities(&host.start(&store).await.unwrap().0), authorities(&pki));
    }
    let kept = store.list("/bootstrap/", &ListOptions::default()).await.unwrap().entries;
    assert_eq!(kept.len(), 1);
    assert!(!String::from_utf8_lossy(&kept[0].value).contains("PRIVATE KEY"));
}

#[tokio::test]
async fn a_host_of_another_cluster_is_refused() {
    let (store, _folder) = datastore();
    host(Some("secret")).start(&store).await.unwrap();
    let (elsewhere, _other_folder) = datastore();
    let stranger = host(Some("secret"));
    stranger.start(&elsewhere).await.unwrap();
    let error = stranger.start(&store).await.unwrap_err().to_string();
    assert!(error.contains("tls/server-ca.crt") && error.contains("remove them to join"), "{error}");
}

#[tokio::test]
async fn the_token_of_an_embedded_datastore_can_be_replaced() {
    let (store, _folder) = datastore();
    let mut first = host(Some("old"));
    let (before, _) = first.start(&store).await.unwrap();
    first.token = Some("new");
    let (after, _) = first.start(&store).await.unwrap();
    assert_eq!(authorities(&before), authorities(&after));
    let kept = store.list("/bootstrap/", &ListOptions::default()).await.unwrap().entries;
    assert_eq!(kept.iter().map(|e| e.key.to_string()).collect::<Vec<_>>(), [key_of("new")]);
}

#[tokio::test]
async fn keys_of_encryption_reach_the_other_servers() {
    let (store, _folder) = datastore();
    let (mut first, second) = (host(Some("secret")), host(Some("secret")));
    first.start(&store).await.unwrap();
    second.start(&store).await.unwrap();
    assert!(first.keys().is_empty() && second.keys().is_empty());
    first.encrypt = true;
    first.start(&store).await.unwrap();
    let one = first.keys();
    assert_eq!(one.len(), 1);
    second.start(&store).await.unwrap();
    assert_eq!(second.keys(), one);
    // Rotated on one host, known on the other after both have started again.
    encryption::rotate(second.directory.path()).unwrap();
    let rotated = second.keys();
    assert_eq!((rotated.len(), &rotated[1]), (2, &one[0]));
    second.start(&store).await.unwrap();
    first.start(&store).await.unwrap();
    assert_eq!(first.keys(), rotated);
    // Rotated on both at once: nobody loses a key.
    encryption::rotate(first.directory.path()).unwrap();
    encryption::rotate(second.directory.path()).unwrap();
    first.start(&store).await.unwrap();
    second.start(&store).await.unwrap();
    first.start(&store).await.unwrap();
    assert_eq!(first.keys().len(), 4);
    assert_eq!(first.keys(), second.keys());
}

#[tokio::test]
async fn what_was_changed_in_the_datastore_is_not_believed() {
    let (store, _folder) = datastore();
    host(Some("secret")).start(&store).await.unwrap();
    let entry = store.get(&key_of("secret"), None).await.unwrap().unwrap();
    let mut changed = entry.value.to_vec();
    let last = changed.len() - 6;
    changed[last] = if changed[last] == b'A' { b'B' } else { b'A' };
    store.update(&entry.key, changed.into(), entry.mod_revision, None).await.unwrap();
    let error = format!("{:#}", host(Some("secret")).start(&store).await.unwrap_err());
    assert!(error.contains("it has been changed"), "{error}");
}
