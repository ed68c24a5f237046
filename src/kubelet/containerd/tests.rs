//! Supervision with a containerd that is a shell script, or in memory; the real one is in the host tests.

use super::*;
use crate::host::fake::FakeHost;
use crate::host::processes::Output;

fn fake() -> FakeHost {
    let fake = FakeHost::default();
    fake.processes.install("sh");
    fake.processes
        .answer("containerd", |_| Output { stdout: b"containerd x 1.6.20 y".into(), ..Output::default() });
    fake
}

async fn start(fake: &FakeHost, dir: &Path, stop: &CancellationToken) -> Result<Containerd, ContainerdError> {
    Containerd::start(ContainerdConfig::new(dir.join("agent"), dir.join("run")), &fake.host(), stop.clone())
        .await
}

/// Waits until a condition of the paused world holds.
async fn until(condition: impl Fn() -> bool) {
    let wait = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(300), wait).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn stopping_the_supervision_leaves_it_running_and_the_next_start_adopts_it() {
    let dir = tempfile::tempdir().unwrap();
    let fake = fake();
    let stop = CancellationToken::new();
    let first = start(&fake, dir.path(), &stop).await.unwrap();
    assert!(first.endpoint().ends_with("/run/containerd/containerd.sock"));
    let running = fake.processes.running();
    assert_eq!(running.len(), 1);
    stop.cancel();
    first.join().await;
    assert_eq!(fake.processes.running(), running);
    std::fs::remove_file(dir.path().join("run/containerd/containerd.pid")).unwrap();
    for _ in 0..2 {
        let stop = CancellationToken::new();
        let again = start(&fake, dir.path(), &stop).await.unwrap();
        assert_eq!(fake.processes.running(), running, "found by its command line, then by its pid file");
        stop.cancel();
        again.join().await;
    }
}

#[tokio::test(start_paused = true)]
async fn one_that_dies_is_started_again() {
    let dir = tempfile::tempdir().unwrap();
    let fake = fake();
    let stop = CancellationToken::new();
    let containerd = start(&fake, dir.path(), &stop).await.unwrap();
    for _ in 0..3 {
        let before = fake.processes.running();
        fake.processes.end(before[0].pid, 1);
        until(|| fake.processes.running().len() == 1 && fake.processes.running() != before).await;
    }
    stop.cancel();
    containerd.join().await;
}

#[tokio::test(start_paused = true)]
async fn one_that_never_serves_is_killed_and_started_again() {
    let dir = tempfile::tempdir().unwrap();
    let fake = fake();
    let stop = CancellationToken::new();
    let containerd = start(&fake, dir.path(), &stop).await.unwrap();
    let before = fake.processes.running();
    let begun = tokio::time::Instant::now();
    until(|| fake.processes.running() != before && fake.processes.running().len() == 1).await;
    assert!(begun.elapsed() >= SERVE_LIMIT);
    assert!(!*containerd.serving.borrow());
    stop.cancel();
    containerd.join().await;
}

#[tokio::test(start_paused = true)]
async fn a_changed_configuration_restarts_it() {
    let dir = tempfile::tempdir().unwrap();
    let fake = fake();
    let stop = CancellationToken::new();
    start(&fake, dir.path(), &stop).await.unwrap();
    stop.cancel();
    let before = fake.processes.running();
    let config = ContainerdConfig {
        snapshotter: Some("native".to_owned()),
        ..ContainerdConfig::new(dir.path().join("agent"), dir.path().join("run"))
    };
    let stop = CancellationToken::new();
    let containerd = Containerd::start(config, &fake.host(), stop.clone()).await.unwrap();
    assert_eq!(containerd.snapshotter(), "native");
    let after = fake.processes.running();
    assert_eq!(after.len(), 1);
    assert_ne!(after, before);
    stop.cancel();
    containerd.join().await;
}

#[tokio::test]
async fn a_missing_program_is_an_error_before_anything_is_started() {
    let dir = tempfile::tempdir().unwrap();
    let fake = FakeHost::default();
    let Err(error) = start(&fake, dir.path(), &CancellationToken::new()).await else { panic!("started") };
    assert_eq!(error.to_string(), "run containerd");
    assert!(fake.processes.ran().is_empty());
}

#[tokio::test]
async fn the_configuration_follows_what_the_machine_allows() {
    let dir = tempfile::tempdir().unwrap();
    let fake = fake();
    fake.processes.answer("sh", |_| Output { code: 1, ..Output::default() });
    let config = ContainerdConfig::new(dir.path().join("agent"), dir.path().join("run"));
    let settings = prepare(&config, &fake.host()).await.unwrap();
    assert!(settings.restrict_oom_score_adj);
    assert_eq!(settings.version, RuntimeVersion { major: 1, minor: 6 });
    assert_eq!(settings.snapshotter, "overlayfs");
}
