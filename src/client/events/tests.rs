//! What the recorder writes.

use super::*;
use crate::client::fake::{FakeApi, Status, eventually};
use k8s_openapi::api::core::v1::Pod;

fn source() -> EventSource {
    EventSource { component: Some("kubelet".into()), host: Some("n1".into()) }
}

fn occurrence(second: i64, name: &str, message: &str) -> Occurrence {
    Occurrence {
        regarding: ObjectReference {
            kind: Some("Pod".into()),
            namespace: Some("default".into()),
            name: Some(name.into()),
            uid: Some(format!("uid-{name}")),
            ..ObjectReference::default()
        },
        event_type: EventType::Warning,
        reason: "BackOff".into(),
        message: message.into(),
        at: Timestamp::from_second(second).unwrap(),
    }
}

#[test]
fn a_repetition_raises_the_count_of_the_first_event() {
    let mut correlator = Correlator::new(source());
    let first = correlator.record(occurrence(100, "web", "back-off")).unwrap();
    assert!(!first.patch);
    let again = correlator.record(occurrence(107, "web", "back-off")).unwrap();
    assert!(again.patch);
    assert_eq!(again.event.metadata.name, first.event.metadata.name);
    assert_eq!(again.event.count, Some(2));
    assert_eq!(again.event.first_timestamp, first.event.first_timestamp);
    assert_eq!(again.event.last_timestamp.unwrap().0.as_second(), 107);
    let other = correlator.record(occurrence(108, "db", "back-off")).unwrap();
    assert!(!other.patch && other.event.metadata.name != first.event.metadata.name);
}

#[test]
fn a_new_event_says_who_what_and_where() {
    let event = Correlator::new(source()).record(occurrence(100, "web", "back-off")).unwrap().event;
    let name = event.metadata.name.unwrap();
    let (object, hex) = name.split_once('.').unwrap();
    assert_eq!(object, "web");
    assert!(hex.len() == 16 && hex.bytes().all(|b| b.is_ascii_hexdigit()), "{hex}");
    assert_eq!(event.metadata.namespace.as_deref(), Some("default"));
    assert_eq!((event.type_.as_deref(), event.reason.as_deref()), (Some("Warning"), Some("BackOff")));
    assert_eq!(event.source, Some(source()));
    assert_eq!(event.reporting_component.as_deref(), Some("kubelet"));
    assert_eq!(event.reporting_instance.as_deref(), Some("n1"));
}

#[test]
fn many_different_messages_are_grouped() {
    let mut correlator = Correlator::new(source());
    for i in 0..10 {
        assert!(!correlator.record(occurrence(100 + i, "web", &format!("message {i}"))).unwrap().patch);
    }
    let grouped = correlator.record(occurrence(120, "web", "message 10")).unwrap();
    assert!(!grouped.patch);
    assert_eq!(grouped.event.message.as_deref(), Some("(combined from similar events): message 10"));
    let next = correlator.record(occurrence(121, "web", "message 11")).unwrap();
    assert!(next.patch);
    assert_eq!(next.event.metadata.name, grouped.event.metadata.name);
    assert_eq!(next.event.message.as_deref(), Some("(combined from similar events): message 11"));
    let known = correlator.record(occurrence(122, "web", "message 3")).unwrap();
    assert_eq!(known.event.message.as_deref(), Some("message 3"));
    let later = correlator.record(occurrence(2000, "web", "message 12")).unwrap();
    assert_eq!(later.event.message.as_deref(), Some("message 12"), "after a quiet time messages count anew");
}

#[test]
fn one_object_may_send_a_burst_and_then_one_event_in_five_minutes() {
    let mut correlator = Correlator::new(source());
    let passed = |correlator: &mut Correlator, second: i64, name: &str| {
        (0..40).filter(|_| correlator.record(occurrence(second, name, "back-off")).is_some()).count()
    };
    assert_eq!(passed(&mut correlator, 0, "web"), 25);
    assert_eq!(passed(&mut correlator, 0, "db"), 25, "each object has its own allowance");
    assert_eq!(passed(&mut correlator, 299, "web"), 0);
    assert_eq!(passed(&mut correlator, 300, "web"), 1);
    assert_eq!(passed(&mut correlator, 1_000_000, "web"), 25);
}

#[test]
fn only_a_bounded_number_of_events_is_remembered() {
    let mut correlator = Correlator::new(source());
    for i in 0..3000 {
        correlator.record(occurrence(100, &format!("pod-{i}"), "back-off"));
    }
    assert!(correlator.record(occurrence(101, "pod-2999", "back-off")).unwrap().patch);
    assert!(!correlator.record(occurrence(101, "pod-0", "back-off")).unwrap().patch);
}

fn pod() -> Pod {
    let metadata = ObjectMeta {
        name: Some("web".into()),
        namespace: Some("default".into()),
        uid: Some("u1".into()),
        ..ObjectMeta::default()
    };
    Pod { metadata, ..Pod::default() }
}

fn start(api: &Arc<FakeApi>) -> Recorder {
    Recorder::start(api.client(), "kubelet", "n1", &TaskTracker::new(), CancellationToken::new())
}

#[tokio::test(start_paused = true)]
async fn events_arrive_and_count_up_even_when_the_server_fails_for_a_while() {
    let api = FakeApi::new();
    let recorder = start(&api);
    api.fail("POST", "/events", 2, Status::new(503, "ServiceUnavailable"));
    recorder.event(&pod(), EventType::Normal, "Started", "Started container web");
    recorder.event(&pod(), EventType::Normal, "Started", "Started container web");
    eventually("the event has count 2", || {
        api.list::<Event>().first().is_some_and(|event| event.count == Some(2))
    })
    .await;
    let events = api.list::<Event>();
    assert_eq!(events.len(), 1);
    assert_eq!(events[0].involved_object.kind.as_deref(), Some("Pod"));
    assert_eq!(events[0].involved_object.uid.as_deref(), Some("u1"));
}

#[tokio::test(start_paused = true)]
async fn an_event_that_expired_is_made_again() {
    let api = FakeApi::new();
    let recorder = start(&api);
    recorder.event(&pod(), EventType::Normal, "Pulled", "m");
    eventually("first", || api.list::<Event>().len() == 1).await;
    let name = api.list::<Event>()[0].metadata.name.clone().unwrap();
    api.delete::<Event>("default", &name);
    recorder.event(&pod(), EventType::Normal, "Pulled", "m");
    eventually("again", || api.list::<Event>().first().is_some_and(|event| event.count == Some(2))).await;
}

#[tokio::test(start_paused = true)]
async fn a_refused_event_is_given_up() {
    let api = FakeApi::new();
    let recorder = start(&api);
    api.fail("POST", "/events", 1, Status::new(403, "Forbidden"));
    recorder.event(&pod(), EventType::Normal, "One", "m");
    recorder.event(&pod(), EventType::Normal, "Two", "m");
    eventually("the second arrives", || api.list::<Event>().len() == 1).await;
    recorder.event(&pod(), EventType::Normal, "One", "m");
    eventually("the first is new again", || api.list::<Event>().len() == 2).await;
}

#[tokio::test]
async fn a_full_queue_drops_and_counts() {
    let recorder = Recorder::discard();
    recorder.event(&pod(), EventType::Normal, "Started", "m");
    assert_eq!(recorder.dropped(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_is_queued_is_written_after_the_stop() {
    let (api, tasks, stop) = (FakeApi::new(), TaskTracker::new(), CancellationToken::new());
    let recorder = Recorder::start(api.client(), "kubelet", "n1", &tasks, stop.clone());
    for name in ["Started", "Killing", "Pulled"] {
        recorder.event(&pod(), EventType::Normal, name, format!("{name} container web"));
    }
    stop.cancel();
    tasks.close();
    tasks.wait().await;
    assert_eq!(api.list::<Event>().len(), 3);
}
