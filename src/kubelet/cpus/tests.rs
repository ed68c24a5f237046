//! Who gets which processors, what survives a restart, what running containers are told.

use std::sync::Arc;

use serde_json::{Value, json};

use super::*;
use crate::cri::fake::FakeRuntime;
use crate::host::fake::FakeHost;
use crate::host::machine::Machine;
use crate::kubelet::observed::RunState;
use crate::kubelet::pods::fixture;
use crate::kubelet::pods::table::{Desired, Handle, Snapshot};

fn pod(uid: &str, cpus: &[(&str, &str)]) -> Pod {
    let containers: Vec<Value> = cpus
        .iter()
        .map(|(name, cpu)| json!({"name": name, "resources": {"limits": {"cpu": cpu, "memory": "1Gi"}}}))
        .collect();
    let mut pod = fixture::pod(json!({"containers": containers}));
    pod.metadata.uid = Some(uid.to_owned());
    pod
}

fn manager(root: &Path, reserved: i64) -> Result<CpuManager, CpuManagerError> {
    // Four processors, two to a core.
    let topology = FakeHost::default().machine.processors();
    CpuManager::new(CpuManagerConfig::default(), topology, reserved, root)
}

fn text(manager: &CpuManager, uid: &str, container: &str) -> (String, bool) {
    let (set, own) = manager.of(uid, container);
    (set.to_string(), own)
}

fn shown(set: &str, own: bool) -> (String, bool) {
    (set.to_owned(), own)
}

#[test]
fn whole_processors_of_guaranteed_pods_are_their_own() {
    let root = tempfile::tempdir().unwrap();
    let cpus = manager(root.path(), 500).unwrap();
    assert_eq!(text(&cpus, "u1", "a"), shown("0-3", false), "what is reserved is shared");
    cpus.admit(&pod("u1", &[("a", "2"), ("b", "500m")])).unwrap();
    assert_eq!(text(&cpus, "u1", "a"), shown("2-3", true), "a core before two halves");
    assert_eq!(text(&cpus, "u1", "b"), shown("0-1", false));
    let (reason, message) = cpus.admit(&pod("u2", &[("a", "1"), ("b", "1")])).unwrap_err();
    assert_eq!(reason, "UnexpectedAdmissionError");
    assert!(
        message.contains("not enough cpus available to satisfy request: requested=1, available=0"),
        "{message}"
    );
    assert_eq!(text(&cpus, "u2", "a"), shown("0-1", false), "nothing is kept of a pod that is turned away");
    cpus.take_back("u1");
    assert_eq!(text(&cpus, "u1", "a"), shown("0-3", false));
    let mut burstable = pod("u3", &[("a", "2")]);
    burstable.spec.as_mut().unwrap().containers[0].resources =
        serde_json::from_value(json!({"requests": {"cpu": "2"}})).unwrap();
    cpus.admit(&burstable).unwrap();
    assert_eq!(text(&cpus, "u3", "a"), shown("0-3", false));
}

#[test]
fn init_containers_leave_theirs_to_those_after_them() {
    let root = tempfile::tempdir().unwrap();
    let cpus = manager(root.path(), 1000).unwrap();
    let mut pod = pod("u1", &[("a", "2"), ("b", "1")]);
    let spec = pod.spec.as_mut().unwrap();
    spec.init_containers = serde_json::from_value(json!([
        {"name": "i", "resources": {"limits": {"cpu": "3", "memory": "1Gi"}}}]))
    .unwrap();
    cpus.admit(&pod).unwrap();
    assert_eq!(text(&cpus, "u1", "i"), shown("1-3", true));
    assert_eq!(text(&cpus, "u1", "a"), shown("2-3", true));
    assert_eq!(text(&cpus, "u1", "b"), shown("1", true));
}

#[test]
fn a_restarted_kubelet_takes_nothing_from_anybody() {
    let root = tempfile::tempdir().unwrap();
    let cpus = manager(root.path(), 1000).unwrap();
    for uid in ["u1", "gone"] {
        cpus.admit(&pod(uid, &[("a", "1")])).unwrap();
    }
    std::fs::create_dir_all(root.path().join("pods/u1")).unwrap();
    let before = text(&cpus, "u1", "a");
    let file: Value = serde_json::from_slice(&std::fs::read(root.path().join(FILE)).unwrap()).unwrap();
    assert_eq!((&file["policyName"], &file["entries"]["u1"]["a"]), (&json!("static"), &json!(before.0)));
    let again = manager(root.path(), 1000).unwrap();
    assert_eq!(text(&again, "u1", "a"), before);
    assert!(!text(&again, "gone", "a").1, "its directory is not there any more");
    again.admit(&pod("u1", &[("a", "1")])).unwrap();
    assert_eq!(text(&again, "u1", "a"), before, "once is enough");
    assert!(matches!(manager(root.path(), 4000), Err(CpuManagerError::Stale(_))));
}

#[test]
fn a_configuration_that_makes_no_sense_is_refused() {
    let root = tempfile::tempdir().unwrap();
    assert!(matches!(manager(root.path(), 0), Err(CpuManagerError::NothingReserved)));
    assert!(matches!(manager(root.path(), 5000), Err(CpuManagerError::TooMuchReserved(5, 4))));
    let topology = FakeHost::default().machine.processors();
    let with = |reserved: &str, full: bool, strict: bool| {
        let config = CpuManagerConfig {
            reserved: reserved.parse().unwrap(),
            full_cores_only: full,
            strict_reservation: strict,
        };
        CpuManager::new(config, topology.clone(), 0, root.path())
    };
    assert!(matches!(with("7", false, false), Err(CpuManagerError::NoSuchProcessor(..))));
    let whole = with("0-1", true, true).unwrap();
    assert_eq!(text(&whole, "u1", "a"), shown("2-3", false), "nobody runs on what is reserved");
    assert_eq!(whole.admit(&pod("u1", &[("a", "1")])).unwrap_err().0, "SMTAlignmentError");
    whole.admit(&pod("u1", &[("a", "2")])).unwrap();
}

#[tokio::test(start_paused = true)]
async fn running_containers_make_room() {
    let root = tempfile::tempdir().unwrap();
    let cpus = Arc::new(manager(root.path(), 1000).unwrap());
    let fake = FakeRuntime::new();
    let id = fixture::running_in(&fake).await;
    let mut observed = fixture::container("a", 0, RunState::Running);
    observed.id = id.clone();
    let snapshot = Snapshot {
        pod: Some(Arc::new(pod("shared", &[("a", "100m")]))),
        observed: Arc::new(fixture::observed(vec![observed])),
        active: true,
        ..Snapshot::default()
    };
    let table = Table::default();
    let (desired, _wanted) = watch::channel(Desired::default());
    let (_sender, snapshot) = watch::channel(snapshot);
    table.insert("shared", Arc::new(Handle { desired, wake: Default::default(), snapshot }));
    let runtime: Arc<dyn Runtime> = Arc::new(fake.clone());
    let stop = CancellationToken::new();
    let task = tokio::spawn(cpus.clone().run(runtime.clone(), table, stop.clone()));
    let set = || async {
        let status = runtime.container_status(&id, false).await.unwrap().status.unwrap();
        status.resources.and_then(|r| r.linux).map(|l| l.cpuset_cpus).unwrap_or_default()
    };
    for (give, want) in [(false, "0-3"), (true, "0-1")] {
        if give {
            cpus.admit(&pod("u1", &[("a", "2")])).unwrap();
        }
        while set().await != want {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    stop.cancel();
    task.await.unwrap();
    let told = fake.calls().iter().filter(|(call, _)| *call == "UpdateContainerResources").count();
    assert_eq!(told, 2, "only what changes is told");
}
