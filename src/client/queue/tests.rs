//! The promises of the work queue, on a paused clock.

use super::*;
use futures::FutureExt;

fn ready(queue: &Arc<WorkQueue<&'static str>>) -> Option<Work<&'static str>> {
    queue.next().now_or_never().flatten()
}

#[tokio::test(start_paused = true)]
async fn a_key_added_twice_is_handed_out_once() {
    let queue = WorkQueue::new("t");
    for key in ["a", "b", "a"] {
        queue.add(key);
    }
    let first = ready(&queue).unwrap();
    let second = ready(&queue).unwrap();
    assert_eq!((*first.key(), *second.key()), ("a", "b"));
    assert!(ready(&queue).is_none());
    drop((first, second));
    assert!(ready(&queue).is_none() && queue.is_idle());
}

#[tokio::test(start_paused = true)]
async fn a_key_in_work_becomes_ready_again_only_when_the_work_is_done() {
    let queue = WorkQueue::new("t");
    queue.add("a");
    let work = ready(&queue).unwrap();
    queue.add("a");
    queue.add("a");
    assert!(ready(&queue).is_none());
    drop(work);
    assert_eq!(*ready(&queue).unwrap().key(), "a");
    assert!(ready(&queue).is_none());
}

#[tokio::test(start_paused = true)]
async fn the_earliest_delay_counts() {
    let queue = WorkQueue::new("t");
    let start = Instant::now();
    queue.add_after("a", Duration::from_secs(60));
    queue.add_after("a", Duration::from_secs(5));
    queue.add_after("a", Duration::from_secs(30));
    assert_eq!(*queue.next().await.unwrap().key(), "a");
    assert_eq!(start.elapsed().as_secs(), 5);
    assert!(
        tokio::time::timeout(Duration::from_secs(120), queue.next()).await.is_err(),
        "merged delays fire once"
    );
}

#[tokio::test(start_paused = true)]
async fn adding_now_cancels_the_delay() {
    let queue = WorkQueue::new("t");
    queue.add_after("a", Duration::from_secs(5));
    queue.add("a");
    drop(ready(&queue).unwrap());
    assert!(tokio::time::timeout(Duration::from_secs(60), queue.next()).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_delay_added_during_the_work_is_kept() {
    let queue = WorkQueue::new("t");
    queue.add("a");
    let work = ready(&queue).unwrap();
    queue.add_after("a", Duration::from_secs(3));
    drop(work);
    let start = Instant::now();
    assert_eq!(*queue.next().await.unwrap().key(), "a");
    assert_eq!(start.elapsed().as_secs(), 3);
}

#[tokio::test(start_paused = true)]
async fn failures_double_the_delay_until_forgotten() {
    let queue = WorkQueue::new("t");
    for want in [5, 10, 20, 40] {
        assert_eq!(queue.add_rate_limited("a"), Duration::from_millis(want));
    }
    assert_eq!(queue.failures(&"a"), 4);
    queue.forget(&"a");
    assert_eq!(queue.add_rate_limited("a"), FIRST_RETRY);
}

#[tokio::test(start_paused = true)]
async fn delays_fire_in_order_of_time() {
    let queue = WorkQueue::new("t");
    for (key, seconds) in [("c", 3), ("a", 1), ("b", 2)] {
        queue.add_after(key, Duration::from_secs(seconds));
    }
    let mut seen = Vec::new();
    for _ in 0..3 {
        seen.push(*queue.next().await.unwrap().key());
    }
    assert_eq!(seen, ["a", "b", "c"]);
}

#[tokio::test(start_paused = true)]
async fn shutdown_ends_every_waiting_worker() {
    let queue = WorkQueue::<&str>::new("t");
    let workers: Vec<_> = (0..3)
        .map(|_| {
            let queue = queue.clone();
            tokio::spawn(async move { queue.next().await.is_none() })
        })
        .collect();
    tokio::task::yield_now().await;
    queue.add_after("late", Duration::from_secs(1));
    queue.shut_down();
    queue.add("ignored");
    for worker in workers {
        assert!(worker.await.unwrap());
    }
    assert!(queue.is_idle());
}

#[tokio::test(start_paused = true)]
async fn many_workers_share_many_keys_and_none_is_lost() {
    let queue = WorkQueue::new("t");
    let seen = Arc::new(Mutex::new(HashMap::<u32, u32>::new()));
    let workers: Vec<_> = (0..4)
        .map(|_| {
            let (queue, seen) = (queue.clone(), seen.clone());
            tokio::spawn(async move {
                while let Some(work) = queue.next().await {
                    *seen.lock().unwrap().entry(*work.key()).or_default() += 1;
                    tokio::task::yield_now().await;
                }
            })
        })
        .collect();
    for key in 0..500_u32 {
        queue.add(key);
        if key % 7 == 0 {
            tokio::task::yield_now().await;
        }
    }
    while !queue.is_idle() {
        tokio::task::yield_now().await;
    }
    queue.shut_down();
    for worker in workers {
        worker.await.unwrap();
    }
    let seen = seen.lock().unwrap();
    assert_eq!(seen.len(), 500);
    assert!(seen.values().all(|&count| count == 1));
}
