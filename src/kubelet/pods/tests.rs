//! Whole pods over a runtime in memory: what the API shows and what the runtime holds.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::harness::{Harness, condition};
use crate::cri::fake::{Behaviour, FakeRuntime};
use crate::cri::{CriError, Runtime};
use crate::host::Host;
use crate::host::clock::Clock;
use crate::host::fake::FakeHost;

/// The wall clock of a test whose tokio clock is paused, and by how many seconds somebody has set it.
struct Paused(Instant, Arc<AtomicI64>);

impl Clock for Paused {
    fn now(&self) -> Timestamp {
        // The fake runtime's clock starts here as well.
        let start = Timestamp::constant(1_767_225_600, 0);
        let passed = SignedDuration::try_from(self.0.elapsed()).unwrap();
        start.checked_add(passed).unwrap() + SignedDuration::from_secs(self.1.load(Ordering::SeqCst))
    }
}

fn host() -> Host {
    host_set_by(Arc::default())
}

fn host_set_by(seconds: Arc<AtomicI64>) -> Host {
    Host { clock: Arc::new(Paused(Instant::now(), seconds)), ..FakeHost::default().host() }
}

fn setup() -> (FakeRuntime, Harness) {
    let runtime = FakeRuntime::new();
    runtime.add_image("img:1");
    let harness = Harness::new(Arc::new(runtime.clone()), host());
    (runtime, harness)
}

fn plain() -> Value {
    json!({"containers": [{"name": "a", "image": "img:1"}]})
}

fn count(runtime: &FakeRuntime, operation: &str) -> usize {
    runtime.calls().iter().filter(|(op, _)| *op == operation).count()
}

fn first(pod: &Value) -> &Value {
    &pod["status"]["containerStatuses"][0]
}

#[tokio::test(start_paused = true)]
async fn a_plain_pod_runs_and_is_deleted_without_a_trace() {
    let (runtime, harness) = setup();
    harness.create("web", plain());
    let pod = harness.ready("web").await;
    assert_eq!(pod["status"]["phase"], "Running");
    assert!(pod["status"]["podIP"].is_string());
    let id = runtime.container_named("a").unwrap();
    let config = runtime.container_config(&id).unwrap();
    assert!(config.mounts.iter().any(|m| m.container_path == "/etc/hosts"));
    harness.delete("web", 5);
    harness.gone("web").await;
    let rt: Arc<dyn Runtime> = Arc::new(runtime.clone());
    let root = harness.root.clone();
    assert!(!root.join("pods/uid-web").exists());
    while !rt.list_pod_sandboxes(None).await.unwrap().is_empty() {
        tokio::time::advance(Duration::from_millis(10)).await;
        tokio::task::yield_now().await;
    }
    harness.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_crash_restarts_at_once_and_then_backs_off() {
    let (runtime, harness) = setup();
    runtime.script("a", [Behaviour::Exit(1), Behaviour::Exit(1)]);
    harness.create("web", plain());
    let pod = harness
        .wait("web", "it backs off", |p| first(p)["state"]["waiting"]["reason"] == "CrashLoopBackOff")
        .await;
    assert_eq!(first(&pod)["restartCount"], 1);
    assert_eq!(first(&pod)["lastState"]["terminated"]["exitCode"], 1);
    let told = harness.told("BackOff").await;
    assert_eq!(told, "Back-off restarting failed container a in pod web_default(uid-web)");
    let pod = harness.ready("web").await;
    assert_eq!(first(&pod)["restartCount"], 2);
    harness.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_restarted_kubelet_adopts_what_runs() {
    let (runtime, mut harness) = setup();
    harness.create("web", plain());
    let before = harness.ready("web").await;
    runtime.clear_calls();
    harness.restart().await;
    harness.create("other", plain());
    harness.ready("other").await;
    let after = harness.ready("web").await;
    assert_eq!(first(&before)["containerID"], first(&after)["containerID"]);
    assert_eq!(condition(&after, "Ready"), "True");
    assert_eq!(
        (count(&runtime, "RunPodSandbox"), count(&runtime, "CreateContainer")),
        (1, 1),
        "only the other's"
    );
    harness.end().await;
}

#[tokio::test(start_paused = true)]
async fn pods_that_vanished_while_the_kubelet_was_away_are_removed() {
    let (runtime, mut harness) = setup();
    harness.create("web", plain());
    harness.ready("web").await;
    let id = runtime.container_named("a").unwrap();
    harness.forget("web");
    harness.restart().await;
    let rt: Arc<dyn Runtime> = Arc::new(runtime.clone());
    while rt.container_status(&id, false).await.is_ok() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    harness.end().await;
}

#[tokio::test(start_paused = true)]
async fn what_the_runtime_finds_again_of_a_pod_that_is_gone_is_removed() {
    let (runtime, harness) = setup();
    harness.create("web", plain());
    harness.ready("web").await;
    let labels = [(crate::kubelet::labels::POD_UID, "uid-gone")];
    let id = crate::kubelet::pods::fixture::running_with(&runtime, &labels).await;
    let rt: Arc<dyn Runtime> = Arc::new(runtime.clone());
    let gone = async {
        while rt.container_status(&id, false).await.is_ok() {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(150), gone).await.unwrap();
    harness.ready("web").await;
    harness.end().await;
}

#[tokio::test(start_paused = true)]
async fn jobs_succeed_or_fail_and_keep_their_end() {
    for (code, phase) in [(0, "Succeeded"), (3, "Failed")] {
        let (runtime, harness) = setup();
        runtime.script("a", [Behaviour::Exit(code)]);
        harness.create(
            "job",
            json!({"restartPolicy": "Never", "containers": [{"name": "a", "image": "img:1"}]}),
        );
        let pod = harness.wait("job", "it ends", |p| p["status"]["phase"] == phase).await;
        assert_eq!(first(&pod)["state"]["terminated"]["exitCode"], code);
        assert_eq!(count(&runtime, "StartContainer"), 1);
        harness.end().await;
    }
}

#[tokio::test(start_paused = true)]
async fn init_containers_run_before_the_others() {
    let (runtime, harness) = setup();
    runtime.script("i", [Behaviour::Exit(0)]);
    harness.create(
        "web",
        json!({"initContainers": [{"name": "i", "image": "img:1"}], "containers": [{"name": "a", "image": "img:1"}]}),
    );
    let pod = harness.ready("web").await;
    assert_eq!(pod["status"]["initContainerStatuses"][0]["state"]["terminated"]["reason"], "Completed");
    assert_eq!(count(&runtime, "CreateContainer"), 2);
    harness.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_missing_image_shows_and_recovers() {
    let (runtime, harness) = setup();
    harness.create("web", json!({"containers": [{"name": "a", "image": "later:1"}]}));
    harness.wait("web", "pull fails", |p| first(p)["state"]["waiting"]["reason"] == "ImagePullBackOff").await;
    runtime.add_pullable("later:1");
    harness.ready("web").await;
    harness.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_set_holds_nothing_back_and_ends_nothing_early() {
    for seconds in [7200, -7200] {
        let (runtime, set) = (FakeRuntime::new(), Arc::new(AtomicI64::new(0)));
        runtime.add_image("img:1");
        let harness = Harness::new(Arc::new(runtime.clone()), host_set_by(set.clone()));
        runtime.script("a", vec![Behaviour::Exit(1); 3]);
        harness.create("crashing", plain());
        harness.create("pulling", json!({"containers": [{"name": "b", "image": "later:1"}]}));
        let waits = |reason: &'static str| move |p: &Value| first(p)["state"]["waiting"]["reason"] == reason;
        harness.wait("crashing", "it backs off", waits("CrashLoopBackOff")).await;
        harness.wait("pulling", "it backs off", waits("ImagePullBackOff")).await;
        set.store(seconds, Ordering::SeqCst);
        runtime.add_pullable("later:1");
        let asked = Instant::now();
        harness.ready("pulling").await;
        harness.wait("crashing", "it is tried again", |p| first(p)["restartCount"].as_i64() >= Some(2)).await;
        assert!(asked.elapsed() < Duration::from_secs(20), "{:?}", asked.elapsed());
        harness.end().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_missing_config_map_holds_the_start_back() {
    let (_runtime, harness) = setup();
    harness.create(
        "web",
        json!({"containers": [{"name": "a", "image": "img:1",
            "envFrom": [{"configMapRef": {"name": "cm"}}]}]}),
    );
    let pod = harness
        .wait("web", "it waits", |p| first(p)["state"]["waiting"]["reason"] == "CreateContainerConfigError")
        .await;
    assert_eq!(first(&pod)["state"]["waiting"]["message"], "configmap \"cm\" not found");
    harness.create_object("configmaps", "cm", json!({"data": {"K": "v"}}));
    harness.ready("web").await;
    harness.end().await;
}

#[tokio::test(start_paused = true)]
async fn config_map_volumes_become_files() {
    let (_runtime, harness) = setup();
    harness.create_object("configmaps", "cm", json!({"data": {"key": "value"}}));
    harness.create(
        "web",
        json!({"volumes": [{"name": "v", "configMap": {"name": "cm"}}, {"name": "e", "emptyDir": {}}],
            "containers": [{"name": "a", "image": "img:1",
                "volumeMounts": [{"name": "v", "mountPath": "/c"}, {"name": "e", "mountPath": "/e"}]}]}),
    );
    harness.ready("web").await;
    let file = harness.root.join("pods/uid-web/volumes/kubernetes.io~configmap/v/key");
    assert_eq!(std::fs::read_to_string(file).unwrap(), "value");
    harness.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_dead_sandbox_is_replaced() {
    let (runtime, harness) = setup();
    harness.create("web", plain());
    harness.ready("web").await;
    let rt: Arc<dyn Runtime> = Arc::new(runtime.clone());
    let sandbox = rt.list_pod_sandboxes(None).await.unwrap().remove(0).id;
    runtime.kill_sandbox(&sandbox);
    let pod = harness
        .wait("web", "it runs again", |p| first(p)["restartCount"] == 1 && condition(p, "Ready") == "True")
        .await;
    assert_eq!(pod["status"]["phase"], "Running");
    assert_eq!(count(&runtime, "RunPodSandbox"), 2);
    harness.told("SandboxChanged").await;
    harness.end().await;
}

#[tokio::test(start_paused = true)]
async fn probes_gate_readiness_and_restart_the_unhealthy() {
    let (runtime, harness) = setup();
    let healthy = Arc::new(std::sync::atomic::AtomicBool::new(true));
    let shared = healthy.clone();
    runtime.on_exec(move |_, command| {
        let ok = command[0] == "ready" || shared.load(std::sync::atomic::Ordering::SeqCst);
        Ok(crate::cri::v1::ExecSyncResponse { exit_code: i32::from(!ok), ..Default::default() })
    });
    harness.create(
        "web",
        json!({"containers": [{"name": "a", "image": "img:1",
            "readinessProbe": {"exec": {"command": ["ready"]}, "initialDelaySeconds": 3},
            "livenessProbe": {"exec": {"command": ["live"]}, "periodSeconds": 1, "failureThreshold": 2}}]}),
    );
    harness
        .wait("web", "it runs unready", |p| {
            p["status"]["phase"] == "Running" && condition(p, "Ready") == "False"
        })
        .await;
    harness.ready("web").await;
    healthy.store(false, std::sync::atomic::Ordering::SeqCst);
    harness.wait("web", "it is restarted", |p| first(p)["restartCount"] == 1).await;
    healthy.store(true, std::sync::atomic::Ordering::SeqCst);
    harness.ready("web").await;
    harness.end().await;
}

/// `[sig-node] Probing container should have monotonically increasing restart count`.
#[tokio::test(start_paused = true)]
async fn the_restart_count_of_an_unhealthy_container_only_grows() {
    let (runtime, harness) = setup();
    runtime.on_exec(|_, _| Ok(crate::cri::v1::ExecSyncResponse { exit_code: 1, ..Default::default() }));
    let probe = json!({"exec": {"command": ["live"]}, "initialDelaySeconds": 5, "periodSeconds": 3, "failureThreshold": 1});
    harness.create("web", json!({"containers": [{"name": "a", "image": "img:1", "livenessProbe": probe}]}));
    let (mut last, mut looks) = (0, 0);
    while last < 5 {
        tokio::time::sleep(Duration::from_secs(5)).await;
        let pod = harness.wait("web", "it has a status", |p| first(p)["restartCount"].is_i64()).await;
        let now = first(&pod)["restartCount"].as_i64().unwrap();
        looks += 1;
        assert!(
            (last..=last + 1).contains(&now) && looks < 100,
            "{now} restarts after {last}, at look {looks}"
        );
        last = now;
    }
    harness.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_start_asks_the_runtime_for_nothing_twice() {
    let runtime = FakeRuntime::new();
    runtime.set_events_supported(false);
    runtime.add_image("img:1");
    let harness = Harness::new(Arc::new(runtime.clone()), host());
    harness.create("first", plain());
    harness.ready("first").await;
    runtime.clear_calls();
    harness.create("web", plain());
    harness.ready("web").await;
    // One look before anything is done, and at most one of the relist, which looks at all pods at once.
    assert!(count(&runtime, "ListPodSandbox") <= 2 && count(&runtime, "ListContainers") <= 2);
    let once = ["RunPodSandbox", "PodSandboxStatus", "CreateContainer", "StartContainer", "ContainerStatus"];
    for operation in once {
        assert_eq!(count(&runtime, operation), 1, "{operation}");
    }
    assert!(runtime.calls().len() <= 11, "{:?}", runtime.calls());
    harness.end().await;
}

fn hooked(seconds: u64) -> Value {
    let hook = json!({"postStart": {"sleep": {"seconds": seconds}}});
    let probe = json!({"exec": {"command": ["live"]}, "periodSeconds": 1, "failureThreshold": 1});
    json!({"containers": [
        {"name": "a", "image": "img:1", "lifecycle": hook, "livenessProbe": probe},
        {"name": "b", "image": "img:1"}]})
}

#[tokio::test(start_paused = true)]
async fn nothing_of_a_start_shows_and_nothing_is_probed_before_the_hook_has_ended() {
    let (runtime, harness) = setup();
    let begun = Instant::now();
    runtime.on_exec(move |_, _| {
        let code = i32::from(begun.elapsed() < Duration::from_secs(30));
        Ok(crate::cri::v1::ExecSyncResponse { exit_code: code, ..Default::default() })
    });
    harness.create("web", hooked(30));
    while runtime.container_named("a").is_none() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    tokio::time::sleep(Duration::from_secs(20)).await;
    let pod = harness.wait("web", "it has an address", |p| p["status"]["podIP"].is_string()).await;
    for status in pod["status"]["containerStatuses"].as_array().unwrap() {
        assert_eq!(status["state"], json!({"waiting": {"reason": "ContainerCreating"}}));
    }
    assert_eq!((&pod["status"]["phase"], runtime.container_named("b")), (&json!("Pending"), None));
    let pod = harness.ready("web").await;
    assert!(begun.elapsed() >= Duration::from_secs(30));
    assert_eq!(first(&pod)["restartCount"], 0);
    harness.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_container_whose_hook_fails_says_so_and_starts_again_or_not() {
    for (policy, reason) in [("Always", "CrashLoopBackOff"), ("Never", "")] {
        let (runtime, harness) = setup();
        runtime.on_exec(|_, _| {
            let (stdout, stderr) = (b"half".to_vec(), b"no".to_vec());
            Ok(crate::cri::v1::ExecSyncResponse { exit_code: 3, stdout, stderr })
        });
        // Ending it takes a while, so that every state is there to be seen.
        let hook = json!({"postStart": {"exec": {"command": ["greet", "all"]}}, "preStop": {"sleep": {"seconds": 2}}});
        harness.create("web", json!({"restartPolicy": policy,
            "containers": [{"name": "a", "image": "img:1", "lifecycle": hook}, {"name": "b", "image": "img:1"}]}));
        if policy == "Always" {
            let waits =
                |reason: &'static str| move |p: &Value| first(p)["state"]["waiting"]["reason"] == reason;
            let pod = harness.wait("web", "the hook fails", waits("PostStartHookError")).await;
            assert_eq!(
                first(&pod)["state"]["waiting"]["message"],
                "Exec lifecycle hook ([greet all]) for Container \"a\" in Pod \"web_default(uid-web)\" failed - \
                 error: command 'greet all' exited with 3: no, message: \"halfno\""
            );
            assert!(first(&pod)["lastState"]["terminated"]["exitCode"].is_i64());
            harness.wait("web", "it backs off", waits(reason)).await;
        } else {
            let ended = |p: &Value| first(p)["state"]["terminated"].is_object();
            let pod = harness.wait("web", "it ends", ended).await;
            assert!(pod["status"]["containerStatuses"][1]["state"]["running"].is_object(), "{pod}");
        }
        harness.end().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_deadline_fails_the_pod() {
    let (_runtime, harness) = setup();
    harness.create(
        "web",
        json!({"activeDeadlineSeconds": 7, "terminationGracePeriodSeconds": 1,
            "containers": [{"name": "a", "image": "img:1"}]}),
    );
    harness.ready("web").await;
    let pod = harness.wait("web", "it fails", |p| p["status"]["phase"] == "Failed").await;
    assert_eq!(pod["status"]["reason"], "DeadlineExceeded");
    harness.end().await;
}

#[tokio::test(start_paused = true)]
async fn resources_change_in_place_and_survive_a_restart_of_the_kubelet() {
    let (runtime, mut harness) = setup();
    let sized =
        |cpu: &str, memory: &str| json!({"requests": {"cpu": cpu, "memory": memory}, "limits": {"cpu": cpu}});
    harness.create(
        "web",
        json!({"containers": [{"name": "a", "image": "img:1", "resources": sized("1", "10Mi")}]}),
    );
    let before = harness.ready("web").await;
    assert_eq!(first(&before)["resources"], sized("1", "10Mi"));
    for (round, cpu) in ["2", "500m"].into_iter().enumerate() {
        if round == 1 {
            harness.restart().await;
        }
        runtime.fail_next(
            "UpdateContainerResources",
            CriError::rpc("UpdateContainerResources", tonic::Code::Unknown, "busy"),
        );
        harness.edit("web", |pod| pod["spec"]["containers"][0]["resources"] = sized(cpu, "20Mi"));
        let failing = harness
            .wait("web", "the runtime refuses", |p| condition(p, "PodResizeInProgress") == "True")
            .await;
        assert_ne!(first(&failing)["resources"], sized(cpu, "20Mi"), "not yet");
        let after = harness
            .wait("web", "it has the new size", |p| {
                first(p)["resources"] == sized(cpu, "20Mi") && condition(p, "PodResizeInProgress").is_empty()
            })
            .await;
        assert_eq!(first(&after)["containerID"], first(&before)["containerID"]);
        let id = runtime.container_named("a").unwrap();
        let rt: Arc<dyn Runtime> = Arc::new(runtime.clone());
        let status = rt.container_status(&id, false).await.unwrap().status.unwrap();
        let applied = status.resources.unwrap().linux.unwrap();
        assert_eq!(applied.cpu_quota, if round == 0 { 200_000 } else { 50_000 });
    }
    harness.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_policy_of_restart_resizes_by_a_new_start() {
    let (runtime, harness) = setup();
    let spec = |cpu: &str| {
        json!({"name": "a", "image": "img:1", "resources": {"requests": {"cpu": cpu}},
            "resizePolicy": [{"resourceName": "cpu", "restartPolicy": "RestartContainer"}]})
    };
    harness.create("web", json!({"containers": [spec("1")]}));
    harness.ready("web").await;
    harness.edit("web", |pod| pod["spec"]["containers"][0] = spec("2"));
    let after = harness
        .wait("web", "it has the new size", |p| {
            first(p)["resources"]["requests"]["cpu"] == "2" && condition(p, "PodResizeInProgress").is_empty()
        })
        .await;
    assert_eq!(first(&after)["restartCount"], 1);
    assert_eq!(count(&runtime, "UpdateContainerResources"), 0);
    harness.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_static_pod_runs_without_the_api_and_shows_in_its_mirror() {
    let (runtime, harness) = setup();
    let manifest = json!({"metadata": {"name": "web-n1", "namespace": "default", "uid": "hash",
            "annotations": {"kubernetes.io/config.source": "file", "kubernetes.io/config.hash": "hash"}},
        "spec": plain()});
    harness.set_static(vec![manifest.clone()]);
    while runtime.container_named("a").is_none() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let mut mirror = manifest;
    mirror["metadata"]["uid"] = json!("api-uid");
    mirror["metadata"]["annotations"]["kubernetes.io/config.mirror"] = json!("hash");
    harness.put(mirror);
    let shown = harness.ready("web-n1").await;
    assert_eq!((&shown["metadata"]["uid"], count(&runtime, "RunPodSandbox")), (&json!("api-uid"), 1));
    harness.forget("web-n1");
    let id = runtime.container_named("a").unwrap();
    harness.set_static(Vec::new());
    let rt: Arc<dyn Runtime> = Arc::new(runtime.clone());
    while rt.container_status(&id, false).await.is_ok() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    harness.end().await;
}

#[tokio::test(start_paused = true)]
async fn an_evicted_pod_fails_and_says_why() {
    let (_runtime, harness) = setup();
    harness.create("web", plain());
    harness.ready("web").await;
    harness.evict("uid-web", "The node was low on resource: memory. ");
    let pod = harness.wait("web", "it fails", |p| p["status"]["phase"] == "Failed").await;
    assert_eq!(pod["status"]["reason"], "Evicted");
    assert_eq!(pod["status"]["message"], "The node was low on resource: memory. ");
    assert_eq!(condition(&pod, "DisruptionTarget"), "True");
    harness.end().await;
}

#[test]
fn a_pod_that_nothing_happens_to_keeps_no_room_for_what_might() {
    use crate::kubelet::containers::field_ref::NodeFacts;
    fn of2<A, B, F>(_: impl Fn(A, B) -> F) -> usize {
        std::mem::size_of::<F>()
    }
    fn of5<A, B, C, D, E, F>(_: impl Fn(A, B, C, D, E) -> F) -> usize {
        std::mem::size_of::<F>()
    }
    fn of6<A, B, C, D, E, G, F>(_: impl Fn(A, B, C, D, E, G) -> F) -> usize {
        std::mem::size_of::<F>()
    }
    let worker = of2(super::run::Worker::run);
    let fresh = of5(crate::kubelet::volumes::fresh::keep_fresh as fn(_, _, _, fn() -> NodeFacts, _) -> _);
    let probe = of6(crate::kubelet::probes::run::run);
    assert!(worker <= 4 << 10, "{worker} bytes");
    assert!(fresh <= 4 << 10, "{fresh} bytes");
    assert!(probe <= 4 << 10, "{probe} bytes");
}
