//! Leader election against a small model of the API, on a paused clock.

use super::*;
use crate::client::fake::{FakeApi, Status, eventually};
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::SeqCst},
};

fn lease(holder: &str, seconds: i32) -> Lease {
    let spec = LeaseSpec {
        holder_identity: Some(holder.into()),
        lease_duration_seconds: Some(seconds),
        ..LeaseSpec::default()
    };
    Lease { spec: Some(spec), ..Lease::default() }
}

#[tokio::test(start_paused = true)]
async fn the_step_follows_from_the_lease_and_its_age_alone() {
    let since = Instant::now();
    for (observed, age, want) in [
        (None, 0, Step::Create),
        (Some(lease("", 15)), 0, Step::Take),
        (Some(Lease::default()), 0, Step::Take),
        (Some(lease("me", 15)), 100, Step::Renew),
        (Some(lease("other", 15)), 14, Step::Wait),
        (Some(lease("other", 15)), 15, Step::Take),
        (Some(lease("other", 1)), 1, Step::Take),
    ] {
        let text = format!("{observed:?} after {age} s");
        let observed = observed.map(|lease| Observed { lease, since });
        assert_eq!(decide(observed.as_ref(), "me", since + Duration::from_secs(age)), want, "{text}");
    }
}

struct Candidate {
    active: Arc<AtomicUsize>,
    starts: Arc<AtomicUsize>,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

fn candidate(api: &Arc<FakeApi>, identity: &str) -> Candidate {
    let (active, starts) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let stop = CancellationToken::new();
    let election = LeaderElection::new(api.client(), "kube-system", "test", identity);
    let (a, s, token) = (active.clone(), starts.clone(), stop.clone());
    let task = tokio::spawn(async move {
        let work = |stop: CancellationToken| {
            let (active, starts) = (a.clone(), s.clone());
            async move {
                starts.fetch_add(1, SeqCst);
                active.store(1, SeqCst);
                stop.cancelled().await;
                active.store(0, SeqCst);
            }
        };
        election.run(token, work).await;
    });
    Candidate { active, starts, stop, task }
}

impl Candidate {
    fn leads(&self) -> bool {
        self.active.load(SeqCst) == 1
    }
}

fn spec(api: &FakeApi) -> LeaseSpec {
    api.get::<Lease>("kube-system", "test").unwrap().spec.unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_clean_stop_hands_over_at_once() {
    let api = FakeApi::new();
    let first = candidate(&api, "one");
    eventually("the first leads", || first.leads()).await;
    let second = candidate(&api, "two");
    tokio::time::sleep(Duration::from_secs(121)).await;
    assert!(first.leads() && !second.leads(), "a renewed lease is kept");
    first.stop.cancel();
    first.task.await.unwrap();
    let released = Instant::now();
    assert_eq!(spec(&api).holder_identity, None);
    eventually("the second leads", || second.leads()).await;
    assert!(released.elapsed() <= Duration::from_secs(3), "{:?}", released.elapsed());
    assert_eq!(spec(&api).lease_transitions, Some(1));
}

#[tokio::test(start_paused = true)]
async fn a_dead_holder_is_replaced_after_the_lease_duration() {
    let api = FakeApi::new();
    let first = candidate(&api, "one");
    eventually("the first leads", || first.leads()).await;
    first.task.abort();
    let died = Instant::now();
    let second = candidate(&api, "two");
    eventually("the second leads", || second.leads()).await;
    let waited = died.elapsed().as_secs();
    assert!((15..=18).contains(&waited), "{waited}");
}

#[tokio::test(start_paused = true)]
async fn a_restarted_holder_goes_on_without_waiting() {
    let api = FakeApi::new();
    let first = candidate(&api, "one");
    eventually("the first leads", || first.leads()).await;
    first.task.abort();
    let again = candidate(&api, "one");
    let start = Instant::now();
    eventually("it leads again", || again.leads()).await;
    assert!(start.elapsed() < Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn work_stops_before_others_may_take_over_when_renewing_fails() {
    let api = FakeApi::new();
    let first = candidate(&api, "one");
    eventually("the first leads", || first.leads()).await;
    api.fail("PUT", "/leases/test", 6, Status::new(500, "InternalError"));
    let cut = Instant::now();
    eventually("the first stops", || !first.leads()).await;
    let lasted = cut.elapsed().as_secs();
    assert!((8..15).contains(&lasted), "{lasted}");
    eventually("it leads again when the server is back", || first.starts.load(SeqCst) == 2).await;
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_does_not_lose_the_lease() {
    let api = FakeApi::new();
    let first = candidate(&api, "one");
    eventually("the first leads", || first.leads()).await;
    // The renewal is written but the answer is lost, so the next one conflicts with our own write.
    api.lose_answer("PUT", "/leases/test", 1, Status::new(500, "InternalError"));
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(first.leads() && first.starts.load(SeqCst) == 1);
}

#[tokio::test(start_paused = true)]
async fn of_two_candidates_only_one_starts() {
    let api = FakeApi::new();
    let (one, two) = (candidate(&api, "one"), candidate(&api, "two"));
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert_eq!(one.starts.load(SeqCst) + two.starts.load(SeqCst), 1);
    assert!(!one.stop.is_cancelled() && !two.stop.is_cancelled());
}
