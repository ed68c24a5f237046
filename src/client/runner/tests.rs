//! The runner on a paused clock.

use super::*;
use crate::client::fake::eventually;
use k8s_openapi::{
    api::{apps::v1::ReplicaSet, core::v1::Pod},
    apimachinery::pkg::apis::meta::v1::OwnerReference,
};
use kube::{api::ObjectMeta, core::Status};
use std::sync::{
    Mutex,
    atomic::{AtomicUsize, Ordering},
};
use tokio::time::Instant;

#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("made to fail")]
    Made,
    #[error("write")]
    Api(#[source] kube::Error),
}

fn pod(name: &str, owner: Option<(&str, &str, &str)>) -> Pod {
    let owners = owner.map(|(api_version, kind, name)| {
        vec![OwnerReference {
            api_version: api_version.into(),
            kind: kind.into(),
            name: name.into(),
            uid: format!("uid-{name}"),
            controller: Some(true),
            ..OwnerReference::default()
        }]
    });
    let metadata = ObjectMeta {
        namespace: Some("a".into()),
        name: Some(name.into()),
        owner_references: owners,
        ..ObjectMeta::default()
    };
    Pod { metadata, ..Pod::default() }
}

/// Runs a controller of pods and records the keys it was called with.
struct Harness {
    seen: Arc<Mutex<Vec<String>>>,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl Harness {
    fn start<F, Fut>(controller: Controller, reconcile: F) -> Self
    where
        F: Fn(usize) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Next, Failure>> + Send + 'static,
    {
        let (seen, stop) = (Arc::new(Mutex::new(Vec::<String>::new())), CancellationToken::new());
        let record = seen.clone();
        let task = tokio::spawn(controller.run(
            move |key| {
                let call = {
                    let mut seen = record.lock().unwrap();
                    seen.push(key.to_string());
                    seen.len()
                };
                reconcile(call)
            },
            stop.clone(),
        ));
        Self { seen, stop, task }
    }

    fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }
}

#[tokio::test(start_paused = true)]
async fn work_starts_when_all_informers_have_synced() {
    let (pods, writer) = Informer::<Pod>::detached();
    let (sets, set_writer) = Informer::<ReplicaSet>::detached();
    writer.apply(pod("p", None));
    let harness =
        Harness::start(Controller::new("t").for_each(&pods).after(&sets), |_| async { Ok(Next::Done) });
    writer.replace(vec![pod("p", None)], 1);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(harness.seen().is_empty());
    set_writer.replace(vec![], 1);
    eventually("the pod is reconciled", || harness.seen() == ["a/p"]).await;
}

#[tokio::test(start_paused = true)]
async fn changes_of_owned_objects_reach_the_old_and_the_new_owner() {
    let (pods, writer) = Informer::<Pod>::detached();
    writer.replace(vec![], 1);
    let controller = Controller::new("t").owned_by::<ReplicaSet, _>(&pods);
    let harness = Harness::start(controller, |_| async { Ok(Next::Done) });
    writer.apply(pod("p", Some(("apps/v1", "ReplicaSet", "one"))));
    eventually("first owner", || harness.seen() == ["a/one"]).await;
    writer.apply(pod("p", Some(("apps/v1beta9", "ReplicaSet", "two"))));
    eventually("both owners", || harness.seen().len() == 3).await;
    assert_eq!(harness.seen()[1..], ["a/one", "a/two"]);
    writer.apply(pod("p", Some(("other.io/v1", "ReplicaSet", "three"))));
    writer.apply(pod("q", Some(("apps/v1", "StatefulSet", "four"))));
    writer.apply(pod("r", None));
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(harness.seen()[3..], ["a/two"], "other kinds and groups are not ours");
}

#[tokio::test(start_paused = true)]
async fn a_failed_key_is_tried_again_later_and_a_good_one_is_not() {
    let (pods, writer) = Informer::<Pod>::detached();
    writer.replace(vec![pod("p", None)], 1);
    let harness = Harness::start(Controller::new("t").for_each(&pods), |call| async move {
        match call {
            1 => Err(Failure::Made),
            2 => Err(Failure::Api(kube::Error::Api(Box::new(Status { code: 409, ..Status::default() })))),
            3 => panic!("contained"),
            _ => Ok(Next::Done),
        }
    });
    eventually("four calls", || harness.seen().len() == 4).await;
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert_eq!(harness.seen().len(), 4);
}

#[tokio::test(start_paused = true)]
async fn another_look_comes_after_the_time_asked_for() {
    let (pods, writer) = Informer::<Pod>::detached();
    writer.replace(vec![pod("p", None)], 1);
    let start = Instant::now();
    let harness = Harness::start(Controller::new("t").for_each(&pods), |call| async move {
        Ok(if call == 1 { Next::After(Duration::from_secs(40)) } else { Next::Done })
    });
    eventually("the second look", || harness.seen().len() == 2).await;
    assert!(start.elapsed() >= Duration::from_secs(40));
}

#[tokio::test(start_paused = true)]
async fn workers_share_the_keys_but_never_one_key() {
    let (pods, writer) = Informer::<Pod>::detached();
    writer.replace((0..20).map(|i| pod(&format!("p{i}"), None)).collect(), 1);
    let (busy, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let counters = (busy.clone(), most.clone());
    let harness = Harness::start(Controller::new("t").workers(4).for_each(&pods), move |_| {
        let (busy, most) = counters.clone();
        async move {
            let now = busy.fetch_add(1, Ordering::SeqCst) + 1;
            most.fetch_max(now, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_secs(1)).await;
            busy.fetch_sub(1, Ordering::SeqCst);
            Ok(Next::Done)
        }
    });
    eventually("all are reconciled", || harness.seen().len() == 20 && busy.load(Ordering::SeqCst) == 0).await;
    assert_eq!(most.load(Ordering::SeqCst), 4);
    let mut keys = harness.seen();
    keys.sort();
    keys.dedup();
    assert_eq!(keys.len(), 20);
}

#[tokio::test(start_paused = true)]
async fn stop_ends_the_run_even_in_the_middle_of_a_reconcile() {
    let (pods, writer) = Informer::<Pod>::detached();
    writer.replace(vec![pod("p", None)], 1);
    let harness = Harness::start(Controller::new("t").for_each(&pods), |_| std::future::pending());
    eventually("the reconcile has begun", || harness.seen().len() == 1).await;
    harness.stop.cancel();
    harness.task.await.unwrap();
    writer.apply(pod("q", None));
    assert_eq!(harness.seen.lock().unwrap().len(), 1);
}
