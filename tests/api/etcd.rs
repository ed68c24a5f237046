//! Two whole servers on one real etcd: what is written through one is seen through the other, never too late.

use std::time::Duration;

use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use serde_json::json;

use crate::members::Members;
use crate::server::TestServer;

fn config_map(name: &str) -> ConfigMap {
    serde_json::from_value(json!({ "metadata": { "name": name }, "data": { "n": "0" } })).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_servers_on_one_etcd_serve_the_same_objects() {
    let etcd = Members::start(1).await;
    let (one, other) = (etcd.server().await, etcd.server().await);
    let write: Api<ConfigMap> = Api::namespaced(one.admin(), "default");
    let read: Api<ConfigMap> = Api::namespaced(other.admin(), "default");
    let before = read.list(&ListParams::default()).await.unwrap().metadata.resource_version.unwrap();
    let events = read.watch(&WatchParams::default(), &before).await.unwrap();
    for i in 0..20 {
        let name = format!("c{i}");
        write.create(&PostParams::default(), &config_map(&name)).await.unwrap();
        // Neither a read nor a list without resourceVersion is ever stale.
        read.get(&name).await.unwrap();
        let listed = read.list(&ListParams::default()).await.unwrap();
        assert!(listed.items.iter().any(|c| c.metadata.name.as_deref() == Some(&*name)));
    }
    let seen: Vec<_> = tokio::time::timeout(
        Duration::from_secs(30),
        events
            .try_filter_map(|event| async move {
                Ok(match event {
                    WatchEvent::Added(c) => c.metadata.name.filter(|name| name.starts_with('c')),
                    _ => None,
                })
            })
            .take(20)
            .try_collect::<Vec<_>>(),
    )
    .await
    .expect("the other server's watch delivers")
    .unwrap();
    assert_eq!(seen, (0..20).map(|i| format!("c{i}")).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn increments_through_two_servers_are_never_lost() {
    let etcd = Members::start(1).await;
    let (one, other) = (etcd.server().await, etcd.server().await);
    let api = |server: &TestServer| -> Api<ConfigMap> { Api::namespaced(server.admin(), "default") };
    api(&one).create(&PostParams::default(), &config_map("counter")).await.unwrap();
    let tasks = [api(&one), api(&other), api(&one), api(&other)].map(|api| {
        tokio::spawn(async move {
            for _ in 0..10 {
                loop {
                    let mut current = api.get("counter").await.unwrap();
                    let data = current.data.as_mut().unwrap();
                    let n: u32 = data["n"].parse().unwrap();
                    data.insert("n".to_owned(), (n + 1).to_string());
                    match api.replace("counter", &PostParams::default(), &current).await {
                        Ok(_) => break,
                        Err(kube::Error::Api(status)) if status.code == 409 => {}
                        Err(error) => panic!("{error}"),
                    }
                }
            }
        })
    });
    for task in tasks {
        task.await.unwrap();
    }
    // A patch goes on top of what the other server wrote last.
    let patch = Patch::Merge(json!({ "data": { "seen": "yes" } }));
    let patched = api(&other).patch("counter", &PatchParams::default(), &patch).await.unwrap();
    assert_eq!(patched.data.unwrap()["n"], "40");
}
