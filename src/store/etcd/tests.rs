//! Tests of etcd as the store, against real etcd: the contract, and what happens when members go.

mod cluster;
mod failures;

use std::sync::Arc;
use std::time::Duration;

use cluster::Cluster;

use super::{EtcdOptions, EtcdStore};
use crate::store::Store;

/// Options for members that have just been started.
fn options(cluster: &Cluster) -> EtcdOptions {
    EtcdOptions { request_timeout: Duration::from_secs(30), ..EtcdOptions::new(cluster.endpoints()) }
}

async fn store_on(cluster: &Cluster) -> Arc<EtcdStore> {
    EtcdStore::connect(options(cluster)).await.unwrap()
}

async fn fresh(members: usize) -> (Arc<dyn Store>, Cluster) {
    let cluster = Cluster::start(members);
    let store: Arc<dyn Store> = store_on(&cluster).await;
    (store, cluster)
}

mod one_member {
    use super::*;
    use crate::store::contract::contract_tests;

    async fn fresh() -> (Arc<dyn Store>, Cluster) {
        super::fresh(1).await
    }

    contract_tests!(fresh);
}

mod three_members {
    use super::*;
    use crate::store::contract::contract_tests;

    async fn fresh() -> (Arc<dyn Store>, Cluster) {
        super::fresh(3).await
    }

    contract_tests!(fresh);
}
