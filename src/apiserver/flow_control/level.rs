//! One priority level: its seats, and the queues in which requests wait for them.
//!
//! The queues of a level take turns: each request is given a number when it would start if its queue alone were served,
//! and the lowest number goes first. A flow always waits in the shortest of the few queues that are dealt to it, so that
//! a flow that fills its queues leaves others theirs.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use k8s_openapi::api::flowcontrol::v1::PriorityLevelConfiguration;
use tokio::sync::oneshot;

/// What a level is like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) name: String,
    pub(super) uid: String,
    /// Whether requests are never held back.
    exempt: bool,
    pub(super) shares: u32,
    /// Seats that belong to the level.
    pub(super) nominal: u32,
    /// Percentage of the seats that others may use while the level does not.
    lendable: u32,
    /// Percentage of the level's seats that it may borrow; `None` is as many as there are.
    borrowing: Option<u32>,
    /// Queues, those dealt to a flow, and the length of each; `None` turns requests away at once.
    queues: Option<(usize, usize, usize)>,
}

fn count(number: Option<i32>, default: u32) -> u32 {
    number.map_or(default, |number| u32::try_from(number).unwrap_or(0))
}

impl Shape {
    /// As an object says.
    pub(super) fn of(object: &PriorityLevelConfiguration) -> Self {
        let name = object.metadata.name.clone().unwrap_or_default();
        let uid = object.metadata.uid.clone().unwrap_or_default();
        let spec = object.spec.clone().unwrap_or_default();
        let Some(limited) = spec.limited.filter(|_| spec.type_ != "Exempt") else {
            let shares = count(spec.exempt.and_then(|exempt| exempt.nominal_concurrency_shares), 0);
            return Self { uid, shares, ..Self::exempt(&name) };
        };
        let response = limited.limit_response.unwrap_or_default();
        let queues = response.queuing.filter(|_| response.type_ == "Queue").map(|queuing| {
            let size = |number: Option<i32>, default: u32| count(number, default).max(1) as usize;
            (size(queuing.queues, 64), size(queuing.hand_size, 8), size(queuing.queue_length_limit, 50))
        });
        Self {
            name,
            uid,
            exempt: false,
            shares: count(limited.nominal_concurrency_shares, 30),
            nominal: 0,
            lendable: count(limited.lendable_percent, 0).min(100),
            borrowing: limited.borrowing_limit_percent.map(|percent| count(Some(percent), 0)),
            queues,
        }
    }

    /// The level that holds nothing back.
    pub(super) fn exempt(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            uid: String::new(),
            exempt: true,
            shares: 0,
            nominal: 0,
            lendable: 0,
            borrowing: None,
            queues: None,
        }
    }

    /// The level of what belongs nowhere else.
    pub(super) fn catch_all(name: &str) -> Self {
        Self { exempt: false, shares: 5, ..Self::exempt(name) }
    }

    /// Seats that nobody else uses.
    fn guaranteed(&self) -> u32 {
        (self.nominal - self.nominal * self.lendable / 100).max(1)
    }

    /// Seats that the level may use when others leave theirs.
    fn most(&self, total: u32) -> u32 {
        match self.borrowing {
            Some(percent) => self.nominal.max(1) + self.nominal * percent / 100,
            None => total.max(1),
        }
    }
}

/// Seats in use over all levels.
#[derive(Clone)]
pub(super) struct Server {
    total: u32,
    used: Arc<AtomicU32>,
}

impl Server {
    pub(super) fn new(total: u32) -> Self {
        Self { total, used: Arc::default() }
    }
}

/// Why a request is turned away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The level does not queue and has no seat.
    NoSeat,
    /// Every queue of the flow is full.
    QueueFull,
    /// It has waited long enough.
    TimeOut,
}

impl Refusal {
    /// The name in metrics.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::NoSeat => "concurrency-limit",
            Self::QueueFull => "queue-full",
            Self::TimeOut => "time-out",
        }
    }
}

/// One level.
pub(super) struct Level {
    shape: Shape,
    server: Server,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    used: u32,
    /// The number of the request that started last.
    clock: u64,
    queues: Vec<Queue>,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Waiting>,
    /// The number that the queue's next request gets, if that is not in the past.
    next: u64,
}

struct Waiting {
    number: u64,
    seats: u32,
    call: oneshot::Sender<Seats>,
}

/// Seats that a request holds; dropping them lets others in.
pub(in crate::apiserver) struct Seats {
    held: Option<(Arc<Level>, u32)>,
}

impl Drop for Seats {
    fn drop(&mut self) {
        if let Some((level, seats)) = self.held.take() {
            level.leave(seats);
        }
    }
}

impl Level {
    pub(super) fn new(shape: Shape, server: Server) -> Self {
        let queues = shape.queues.map_or(0, |(queues, ..)| queues);
        let inner = Inner { queues: (0..queues).map(|_| Queue::default()).collect(), ..Inner::default() };
        Self { shape, server, inner: Mutex::new(inner) }
    }

    /// A level that holds nothing back.
    pub(super) fn exempt(name: &str) -> Self {
        Self::new(Shape::exempt(name), Server::new(1))
    }

    pub(super) fn name(&self) -> &str {
        &self.shape.name
    }

    pub(super) fn uid(&self) -> &str {
        &self.shape.uid
    }

    pub(super) fn shape(&self) -> &Shape {
        &self.shape
    }

    pub(super) fn server(&self) -> Server {
        self.server.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether `seats` more fit: the level's own always, those of others while they are idle. A request that wants more
    /// than the whole level has goes when nobody else is in.
    fn fits(&self, used: u32, seats: u32) -> bool {
        if used == 0 || used + seats <= self.shape.guaranteed() {
            return true;
        }
        let all = self.server.used.load(Ordering::Relaxed);
        used + seats <= self.shape.most(self.server.total) && all + seats <= self.server.total
    }

    fn take(self: &Arc<Self>, inner: &mut Inner, seats: u32) -> Seats {
        inner.used += seats;
        self.server.used.fetch_add(seats, Ordering::Relaxed);
        Seats { held: Some((self.clone(), seats)) }
    }

    /// Takes seats, or waits for them for at most `patience`.
    pub(super) async fn enter(
        self: &Arc<Self>,
        seats: u32,
        flow: u64,
        patience: Duration,
    ) -> Result<Seats, Refusal> {
        if self.shape.exempt {
            return Ok(Seats { held: None });
        }
        let turn = {
            let mut inner = self.lock();
            let nobody_waits = inner.queues.iter().all(|queue| queue.waiting.is_empty());
            if nobody_waits && self.fits(inner.used, seats) {
                return Ok(self.take(&mut inner, seats));
            }
            let Some((_, hand, longest)) = self.shape.queues else { return Err(Refusal::NoSeat) };
            let queue = shortest(&inner.queues, hand, flow).ok_or(Refusal::NoSeat)?;
            let clock = inner.clock;
            let queue = &mut inner.queues[queue];
            queue.waiting.retain(|waiting| !waiting.call.is_closed());
            if queue.waiting.len() >= longest {
                return Err(Refusal::QueueFull);
            }
            let number = queue.next.max(clock);
            queue.next = number + u64::from(seats);
            let (call, turn) = oneshot::channel();
            queue.waiting.push_back(Waiting { number, seats, call });
            turn
        };
        match tokio::time::timeout(patience, turn).await {
            Ok(Ok(seats)) => Ok(seats),
            Ok(Err(_)) | Err(_) => Err(Refusal::TimeOut),
        }
    }

    fn leave(self: &Arc<Self>, seats: u32) {
        let mut called = Vec::new();
        {
            let mut inner = self.lock();
            inner.used -= seats;
            self.server.used.fetch_sub(seats, Ordering::Relaxed);
            while let Some(at) = self.next(&mut inner) {
                let Some(waiting) = inner.queues[at].waiting.pop_front() else { break };
                inner.clock = waiting.number;
                let seats = self.take(&mut inner, waiting.seats);
                called.push((waiting.call, seats));
            }
        }
        // Outside of the lock: seats that nobody takes any more are given back at once.
        for (call, seats) in called {
            drop(call.send(seats));
        }
    }

    /// The queue whose turn it is, if its request fits now.
    fn next(&self, inner: &mut Inner) -> Option<usize> {
        for queue in &mut inner.queues {
            while queue.waiting.front().is_some_and(|waiting| waiting.call.is_closed()) {
                queue.waiting.pop_front();
            }
        }
        let heads = inner.queues.iter().enumerate();
        let first = heads.filter_map(|(i, queue)| Some((queue.waiting.front()?, i)));
        let (waiting, at) = first.min_by_key(|(waiting, i)| (waiting.number, *i))?;
        self.fits(inner.used, waiting.seats).then_some(at)
    }
}

/// The shortest of the queues that are dealt to a flow.
fn shortest(queues: &[Queue], hand: usize, flow: u64) -> Option<usize> {
    deal(queues.len(), hand, flow).into_iter().min_by_key(|at| queues[*at].waiting.len())
}

/// Deals `hand` different cards of a deck; the same flow always gets the same.
fn deal(deck: usize, hand: usize, flow: u64) -> Vec<usize> {
    let mut rest = flow;
    let mut cards: Vec<usize> = (0..deck).collect();
    let mut dealt = Vec::new();
    for _ in 0..hand.min(deck) {
        let left = cards.len() as u64;
        let pick = usize::try_from(rest % left).unwrap_or(0);
        rest = (rest / left) ^ rest.rotate_left(29);
        dealt.push(cards.swap_remove(pick));
    }
    dealt
}

#[cfg(test)]
mod tests {
    use super::*;

    fn level(nominal: u32, queues: Option<(usize, usize, usize)>) -> Arc<Level> {
        let shape = Shape { nominal, queues, borrowing: Some(0), ..Shape::catch_all("l") };
        Arc::new(Level::new(shape, Server::new(100)))
    }

    const SHORT: Duration = Duration::from_millis(50);

    #[tokio::test(start_paused = true)]
    async fn seats_are_limited_and_come_back() {
        let level = level(2, None);
        let first = level.enter(1, 0, SHORT).await.ok().unwrap();
        let _second = level.enter(1, 0, SHORT).await.ok().unwrap();
        assert_eq!(level.enter(1, 0, SHORT).await.err(), Some(Refusal::NoSeat));
        drop(first);
        assert!(level.enter(1, 0, SHORT).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_is_called_or_gives_up() {
        let level = level(1, Some((4, 2, 1)));
        let first = level.enter(1, 0, SHORT).await.ok().unwrap();
        let waits = tokio::spawn({
            let level = level.clone();
            async move { level.enter(1, 7, Duration::from_secs(10)).await.is_ok() }
        });
        tokio::task::yield_now().await;
        assert_eq!(level.enter(1, 7, SHORT).await.err(), Some(Refusal::TimeOut));
        drop(first);
        assert!(waits.await.unwrap());
        assert_eq!(level.lock().used, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_queue_refuses() {
        let level = level(1, Some((1, 1, 1)));
        let _first = level.enter(1, 0, SHORT).await.ok().unwrap();
        let waits = level.enter(1, 0, SHORT);
        tokio::pin!(waits);
        assert!(futures::poll!(&mut waits).is_pending());
        assert_eq!(level.enter(1, 0, SHORT).await.err(), Some(Refusal::QueueFull));
    }

    #[tokio::test(start_paused = true)]
    async fn queues_take_turns_however_long_they_are() {
        let level = level(1, Some((2, 1, 50)));
        let hold = level.enter(1, 0, SHORT).await.ok().unwrap();
        let (noisy, quiet) = (0, 1);
        assert_ne!(deal(2, 1, noisy), deal(2, 1, quiet));
        let (sender, mut order) = tokio::sync::mpsc::channel(64);
        for (name, flow, requests) in [("noisy", noisy, 10), ("quiet", quiet, 1)] {
            for _ in 0..requests {
                let (level, sender) = (level.clone(), sender.clone());
                tokio::spawn(async move {
                    let seats = level.enter(1, flow, Duration::from_secs(60)).await;
                    assert!(seats.is_ok());
                    sender.send(name).await.unwrap();
                });
                tokio::task::yield_now().await;
            }
        }
        drop((hold, sender));
        let mut names = Vec::new();
        while let Some(name) = order.recv().await {
            names.push(name);
        }
        let at = names.iter().position(|name| *name == "quiet").unwrap();
        assert!(at <= 1, "{names:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn idle_seats_of_others_are_borrowed_but_not_the_last() {
        let server = Server::new(4);
        let shape = |name: &str, lendable| Shape { nominal: 2, lendable, ..Shape::catch_all(name) };
        let a = Arc::new(Level::new(shape("a", 0), server.clone()));
        let b = Arc::new(Level::new(shape("b", 100), server));
        let mut held = Vec::new();
        for _ in 0..4 {
            held.push(a.enter(1, 0, SHORT).await.ok().unwrap());
        }
        assert!(a.enter(1, 0, SHORT).await.is_err(), "all seats are taken");
        assert!(b.enter(1, 0, SHORT).await.is_ok(), "a level without anybody in it lets one in");
    }

    #[test]
    fn a_flow_is_dealt_the_same_different_queues() {
        let hand = deal(128, 6, 0x1234_5678_9abc_def0);
        assert_eq!(hand, deal(128, 6, 0x1234_5678_9abc_def0));
        let mut unique = hand.clone();
        unique.sort_unstable();
        unique.dedup();
        assert_eq!(unique.len(), 6);
        assert_ne!(hand, deal(128, 6, 7));
    }
}
