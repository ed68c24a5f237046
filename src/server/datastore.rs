//! Opens the datastore that the configuration names, and owns what keeps it in order.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context;

use crate::agent::parts::Parts;
use crate::config::{Datastore, DatastoreConfig, ServerConfig};
use crate::pki::files;
use crate::store::Store;
use crate::store::etcd::{EtcdOptions, EtcdStore};
use crate::store::sqlite::{SqliteOptions, SqliteStore};

/// Opens the server's datastore; its maintenance is one of the server's parts.
pub(super) async fn open(config: &ServerConfig, parts: &Parts) -> anyhow::Result<Arc<dyn Store>> {
    match config.datastore()? {
        Datastore::Sqlite(path) => Ok(open_sqlite(&config.datastore, &path)?),
        Datastore::Etcd(endpoints) => {
            let store = connect(&config.datastore, endpoints).await?;
            let (maintained, stop) = (store.clone(), parts.stop().clone());
            parts.spawn("datastore maintenance", async move {
                maintained.maintain(stop).await;
                Ok(())
            });
            Ok(store)
        }
    }
}

fn open_sqlite(config: &DatastoreConfig, path: &Path) -> anyhow::Result<Arc<SqliteStore>> {
    if let Some(directory) = path.parent() {
        files::make_private_dir(directory)?;
    }
    let options = SqliteOptions {
        max_file_bytes: Some(config.datastore_quota_backend_bytes),
        ..SqliteOptions::default()
    };
    SqliteStore::open(path, options).with_context(|| format!("open the cluster's state {}", path.display()))
}

/// Opens a datastore for a tool, without anything that runs on its own.
pub(super) async fn open_for_tool(
    config: &DatastoreConfig,
    datastore: &Datastore,
) -> anyhow::Result<Arc<dyn Store>> {
    Ok(match datastore {
        Datastore::Sqlite(path) => open_sqlite(config, path)?,
        Datastore::Etcd(endpoints) => connect(config, endpoints.clone()).await?,
    })
}

async fn connect(config: &DatastoreConfig, endpoints: Vec<String>) -> anyhow::Result<Arc<EtcdStore>> {
    let names = endpoints.join(",");
    let options = EtcdOptions {
        ca_file: config.datastore_cafile.clone(),
        cert_file: config.datastore_certfile.clone(),
        key_file: config.datastore_keyfile.clone(),
        ..EtcdOptions::new(endpoints)
    };
    EtcdStore::connect(options)
        .await
        .with_context(|| format!("connect to etcd at {names} (--datastore-endpoint)"))
}
