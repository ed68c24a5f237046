//! Shutdowns over a runtime and a logind in memory.

use serde_json::json;

use super::*;
use crate::cri::fake::FakeRuntime;
use crate::host::Host;
use crate::host::fake::{FakeHost, FakeLogind};
use crate::kubelet::pods::fixture;
use crate::kubelet::pods::harness::{Harness, condition};

fn period(priority: i32, seconds: u64) -> ShutdownPeriod {
    ShutdownPeriod { priority, grace: Duration::from_secs(seconds) }
}

#[test]
fn pods_belong_to_the_period_below_their_priority() {
    let pod = |priority: Option<i32>| Arc::new(fixture::pod(json!({"priority": priority, "containers": []})));
    let pods = [Some(-5), None, Some(99), Some(100), Some(2_000_000_000)].map(pod).to_vec();
    let got: Vec<_> = grouped(&[period(2_000_000_000, 10), period(0, 20), period(100, 30)], pods)
        .into_iter()
        .map(|(period, pods)| (period.priority, pods.len()))
        .collect();
    assert_eq!(got, [(0, 3), (100, 1), (2_000_000_000, 1)]);
    let lonely = grouped(&[period(5, 1), period(9, 1)], vec![pod(None)]);
    assert_eq!(
        (lonely.len(), lonely[0].0.priority),
        (1, 5),
        "nobody is left out, and nobody is waited for in vain"
    );
}

struct Node {
    runtime: FakeRuntime,
    logind: Arc<FakeLogind>,
    harness: Harness,
    shutting_down: watch::Receiver<bool>,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

fn node(absent: bool) -> Node {
    let runtime = FakeRuntime::new();
    runtime.add_image("img:1");
    let logind = Arc::new(FakeLogind::default());
    if absent {
        logind.set_absent();
    }
    let host = Host { logind: logind.clone(), ..FakeHost::default().host() };
    let dir = tempfile::tempdir().unwrap();
    let mut config = fixture::config();
    config.root_dir = dir.path().join("kubelet");
    config.log_dir = dir.path().join("logs");
    config.shutdown = vec![period(0, 20), period(1000, 10)];
    let harness = Harness::with(Arc::new(runtime.clone()), host, config, Some(dir));
    let (ctx, table) = harness.parts();
    let (sender, shutting_down) = watch::channel(false);
    let stop = CancellationToken::new();
    let task = tokio::spawn(run(ctx, table, sender, stop.clone()));
    Node { runtime, logind, harness, shutting_down, stop, task }
}

async fn until(what: impl Fn() -> bool) {
    while !what() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_waits_for_the_pods_in_order_of_priority() {
    let mut node = node(false);
    let spec = |priority: i32| {
        json!({"priority": priority, "terminationGracePeriodSeconds": 5,
            "containers": [{"name": format!("c{priority}"), "image": "img:1"}]})
    };
    node.harness.create("high", spec(5000));
    node.harness.create("low", spec(0));
    node.harness.ready("high").await;
    node.harness.ready("low").await;
    until(|| node.logind.is_heard()).await;
    assert_eq!(node.logind.locks(), 1);
    node.runtime.clear_calls();
    node.logind.say(true);
    node.shutting_down.wait_for(|now| *now).await.unwrap();
    for name in ["low", "high"] {
        let pod = node.harness.wait(name, "it fails", |p| p["status"]["phase"] == "Failed").await;
        assert_eq!((&pod["status"]["reason"], &pod["status"]["message"]), (&json!(REASON), &json!(MESSAGE)));
        assert_eq!(condition(&pod, "DisruptionTarget"), "True");
    }
    until(|| node.logind.locks() == 0).await;
    let stopped: Vec<_> = node
        .runtime
        .calls()
        .into_iter()
        .filter(|(call, _)| *call == "StopContainer")
        .map(|(_, id)| id)
        .collect();
    let names = ["c0", "c5000"].map(|name| node.runtime.container_named(name).unwrap());
    assert_eq!(stopped, names);
    node.logind.say(false);
    until(|| node.logind.locks() == 1).await;
    assert!(!*node.shutting_down.borrow(), "a shutdown that was cancelled");
    node.stop.cancel();
    node.task.await.unwrap();
    assert_eq!(node.logind.locks(), 0);
    node.harness.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_machine_without_logind_runs_pods_all_the_same() {
    let node = node(true);
    node.harness.create("web", json!({"containers": [{"name": "a", "image": "img:1"}]}));
    node.harness.ready("web").await;
    assert!(!*node.shutting_down.borrow());
    node.stop.cancel();
    node.task.await.unwrap();
    node.harness.end().await;
}
