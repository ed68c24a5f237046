//! The writing thread: group commit, expiry, trimming of the log, giving pages back.
//!
//! Checkpoints are made by a thread of their own (`checkpoint`), so that no write waits for them.
//!
//! Order within a group: commit (durable), publish the revision, hand the batch to the watches, answer the writers.
//! So whoever has an answer, or sees a revision, finds the change in every read and on its way in every watch.

use std::fs::File;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::fcntl::Flock;
use rusqlite::{Connection, TransactionBehavior};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tracing::{error, warn};

use super::SqliteOptions;
use super::checkpoint::Checkpointer;
use super::commit::{self, Op, Outcome};
use super::errors::io;
use super::feed::{Feed, Watcher};
use super::schema::{self, Opened};
use crate::store::{Batch, Event, EventKind, Revision, StoreError};

/// Commands that may wait; further senders wait for room.
const QUEUE: usize = 1024;
/// Most writes, and about the most bytes, that share a transaction.
const GROUP_OPS: usize = 256;
const GROUP_BYTES: usize = 8 << 20;
/// Bytes written to the WAL after which they are moved into the database: pages that changed several times until then
/// are moved once.
const CHECKPOINT_BYTES: u64 = 40 << 20;
/// Bytes of the WAL after which the writer itself moves the rest, so that a WAL that is written to all the time begins
/// anew. Most of it has been moved by then.
const WAL_BYTES_MOST: u64 = 2 * CHECKPOINT_BYTES;
/// Bytes that have changed after which the size of the file is looked at.
const LOOK_BYTES: u64 = 4 << 20;
/// Free bytes of the file are given back when there are more than this, and more than a quarter of the file; and so
/// many at once.
const FREE_BYTES: u64 = 4 << 20;
const VACUUM_BYTES: u64 = 2 << 20;
/// How often a failing database is tried when nobody writes.
const PROBE: Duration = Duration::from_secs(2);
/// Entries expire in groups at most this often, so that many of them do not mean many wake-ups.
const EXPIRY_PAUSE_MS: i64 = 1000;
/// The log is trimmed in steps of this many revisions.
const TRIM_STEP: u64 = 256;

type Reply<T> = oneshot::Sender<Result<T, StoreError>>;

/// What the thread is asked to do. The permit is the command's place in the queue.
pub(super) enum Command {
    Write { op: Op, reply: Reply<Revision>, permit: OwnedSemaphorePermit },
    Watch { watcher: Watcher, reply: oneshot::Sender<Revision>, permit: OwnedSemaphorePermit },
    Compact { revision: Revision, reply: Reply<()>, permit: OwnedSemaphorePermit },
    Close,
}

/// What the thread shares with everybody.
#[derive(Default)]
struct Shared {
    current: AtomicU64,
    oldest: AtomicU64,
    /// Why the last write failed, while it is the last.
    failure: Mutex<Option<StoreError>>,
    /// Pages of the file, and those of them that are free.
    pages: AtomicU64,
    free_pages: AtomicU64,
    page_bytes: AtomicU64,
}

/// Handle of the thread.
pub(super) struct Writer {
    commands: Sender<Command>,
    permits: Arc<Semaphore>,
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Writer {
    pub(super) fn start(path: &Path, opened: Opened, options: &SqliteOptions) -> Result<Self, StoreError> {
        let (commands, receiver) = channel();
        let shared = Arc::new(Shared::default());
        let checkpointer = Checkpointer::start(path)?;
        let thread = Thread::new(opened, options, (receiver, checkpointer), shared.clone())?;
        let thread = std::thread::Builder::new()
            .name("store-writer".into())
            .spawn(move || thread.run())
            .map_err(io)?;
        let permits = Arc::new(Semaphore::new(QUEUE));
        Ok(Self { commands, permits, shared, thread: Mutex::new(Some(thread)) })
    }

    pub(super) fn current(&self) -> Revision {
        Revision(self.shared.current.load(Ordering::Acquire))
    }

    pub(super) fn oldest(&self) -> Revision {
        Revision(self.shared.oldest.load(Ordering::Acquire))
    }

    pub(super) fn health(&self) -> Result<(), StoreError> {
        let failure = self.shared.failure.lock().unwrap_or_else(PoisonError::into_inner);
        failure.clone().map_or(Ok(()), Err)
    }

    /// Pages of the file that are in use, and all of them, as of a moment ago.
    pub(super) fn pages(&self) -> (u64, u64) {
        let all = self.shared.pages.load(Ordering::Relaxed);
        (all.saturating_sub(self.shared.free_pages.load(Ordering::Relaxed)), all)
    }

    /// Bytes of a page of the file.
    pub(super) fn page_bytes(&self) -> u64 {
        self.shared.page_bytes.load(Ordering::Relaxed)
    }

    /// Queues a command, waiting for room.
    pub(super) async fn send(
        &self,
        command: impl FnOnce(OwnedSemaphorePermit) -> Command,
    ) -> Result<(), StoreError> {
        let permit = self.permits.clone().acquire_owned().await.map_err(|_| StoreError::Closed)?;
        self.commands.send(command(permit)).map_err(|_| StoreError::Closed)
    }

    /// Lets the thread finish what is queued, and waits for it.
    pub(super) fn close(&self) {
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            self.permits.close();
            // A thread that is gone already has nothing left to finish.
            self.commands.send(Command::Close).ok();
            if thread.join().is_err() {
                error!("store writer ended by a panic");
            }
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.close();
    }
}

struct Thread {
    connection: Connection,
    receiver: Receiver<Command>,
    shared: Arc<Shared>,
    feed: Feed,
    current: Revision,
    next_expiry: Option<i64>,
    last_expiry: i64,
    log: LogSize,
    limits: LogSize,
    /// Bytes written to the WAL since the last look at the size, since the last checkpoint was asked for, and since the
    /// WAL began anew.
    wal_look: u64,
    wal_bytes: u64,
    wal_bytes_all: u64,
    page_bytes: u64,
    checkpointer: Checkpointer,
    failing: bool,
    _lock: Flock<File>,
}

/// How much the log holds, or may hold.
#[derive(Debug, Clone, Copy, Default)]
struct LogSize {
    revisions: u64,
    bytes: u64,
}

/// The queued work that one pass takes up.
#[derive(Default)]
struct Group {
    writes: Vec<(Op, Reply<Revision>, OwnedSemaphorePermit)>,
    bytes: usize,
    others: Vec<Command>,
    close: bool,
}

impl Group {
    fn add(&mut self, command: Command) {
        match command {
            Command::Write { op, reply, permit } => {
                self.bytes += op.weight();
                self.writes.push((op, reply, permit));
            }
            Command::Close => self.close = true,
            other => self.others.push(other),
        }
    }

    fn is_full(&self) -> bool {
        self.close || self.writes.len() >= GROUP_OPS || self.bytes >= GROUP_BYTES
    }
}

impl Thread {
    fn new(
        opened: Opened,
        options: &SqliteOptions,
        (receiver, checkpointer): (Receiver<Command>, Checkpointer),
        shared: Arc<Shared>,
    ) -> Result<Self, StoreError> {
        let Opened { connection, lock, page_bytes } = opened;
        shared.page_bytes.store(page_bytes, Ordering::Relaxed);
        let current = schema::current_revision(&connection)?;
        shared.current.store(current.0, Ordering::Release);
        shared.oldest.store(schema::oldest_revision(&connection)?.0, Ordering::Release);
        let log = connection.query_row(
            "SELECT count(*), coalesce(sum(length(old_value)), 0) FROM log",
            [],
            |row| {
                Ok(LogSize { revisions: row.get::<_, i64>(0)? as u64, bytes: row.get::<_, i64>(1)? as u64 })
            },
        )?;
        let thread = Self {
            next_expiry: commit::next_expiry(&connection)?,
            last_expiry: 0,
            limits: LogSize { revisions: options.log_revisions.max(1), bytes: options.log_bytes },
            log,
            current,
            connection,
            receiver,
            shared,
            feed: Feed::default(),
            wal_look: 0,
            wal_bytes: 0,
            wal_bytes_all: 0,
            page_bytes,
            checkpointer,
            failing: false,
            _lock: lock,
        };
        thread.count_pages()?;
        Ok(thread)
    }

    fn run(mut self) {
        loop {
            let mut group = Group::default();
            match self.wait() {
                Ok(command) => group.add(command),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            while !group.is_full() {
                match self.receiver.try_recv() {
                    Ok(command) => group.add(command),
                    Err(_) => break,
                }
            }
            let close = group.close;
            self.work(group);
            if close {
                self.checkpointer.stop();
                return self.run_checkpoint("TRUNCATE");
            }
        }
    }

    /// The next command; a timeout when entries are due to expire, or a failing database should be tried again.
    fn wait(&self) -> Result<Command, RecvTimeoutError> {
        let until_due = self.next_expiry.map(|due| {
            let due = due.max(self.last_expiry + EXPIRY_PAUSE_MS);
            Duration::from_millis(due.saturating_sub(commit::now_ms()).max(0) as u64)
        });
        match (until_due, self.failing) {
            (None, false) => self.receiver.recv().map_err(|_| RecvTimeoutError::Disconnected),
            (None, true) => self.receiver.recv_timeout(PROBE),
            (Some(due), false) => self.receiver.recv_timeout(due),
            (Some(due), true) => self.receiver.recv_timeout(due.min(PROBE)),
        }
    }

    fn work(&mut self, group: Group) {
        let (mut ops, mut replies) = (Vec::new(), Vec::new());
        for (op, reply, permit) in group.writes {
            ops.push(op);
            replies.push((reply, permit));
        }
        let writes = !ops.is_empty();
        let mut result = match ops.is_empty() && self.failing {
            true => self.probe().and_then(|()| self.commit(ops)),
            false => self.commit_with_room(ops),
        };
        if let Err(error) = &mut result {
            warn!(error = error as &dyn std::error::Error, writes = replies.len(), "group of writes failed");
        }
        if writes || self.failing || result.is_err() {
            self.failing = result.is_err();
            self.note(result.as_ref().err());
        }
        match result {
            Ok(outcomes) => {
                for ((reply, _permit), outcome) in replies.into_iter().zip(outcomes) {
                    // Whoever does not wait for the answer any more does not get it.
                    reply.send(outcome).ok();
                }
            }
            Err(error) => {
                for (reply, _permit) in replies {
                    reply.send(Err(error.clone())).ok();
                }
            }
        }
        for command in group.others {
            self.other(command);
        }
        self.checkpoint();
    }

    fn note(&self, failure: Option<&StoreError>) {
        *self.shared.failure.lock().unwrap_or_else(PoisonError::into_inner) = failure.cloned();
    }

    /// Commits; when there is no room, gives up the log of the past for it and tries once more.
    fn commit_with_room(&mut self, ops: Vec<Op>) -> Result<Vec<Result<Revision, StoreError>>, StoreError> {
        match self.commit(ops.clone()) {
            Err(StoreError::Full { source }) if self.log.revisions > 1 => {
                warn!("no room for a write, forgetting the past revisions to make some");
                match self.compact(self.current) {
                    Ok(()) => self.commit(ops),
                    Err(_) => Err(StoreError::Full { source }),
                }
            }
            other => other,
        }
    }

    /// Whether the database can be written, tried without changing what it says.
    fn probe(&mut self) -> Result<(), StoreError> {
        let tx = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        tx.execute("UPDATE meta SET value = value WHERE name = 'compacted'", [])?;
        Ok(tx.commit()?)
    }

    /// One transaction for all of `ops` and for what has expired. On an error nothing of it has happened.
    fn commit(&mut self, ops: Vec<Op>) -> Result<Vec<Result<Revision, StoreError>>, StoreError> {
        let now = commit::now_ms();
        let expiring =
            self.next_expiry.is_some_and(|due| due <= now) && now - self.last_expiry >= EXPIRY_PAUSE_MS;
        if ops.is_empty() && !expiring {
            return Ok(Vec::new());
        }
        if expiring {
            // Before anything can fail: a full disk must not make this a busy loop.
            self.last_expiry = now;
        }
        let earliest = ops.iter().filter_map(|op| op.ttl).min().map(|ttl| now + ttl.as_millis() as i64);
        let tx = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut events = Vec::with_capacity(ops.len());
        let mut next = Revision(self.current.0 + 1);
        let mut outcomes = Vec::with_capacity(ops.len());
        for op in ops {
            outcomes.push(match commit::apply(&tx, op, next)? {
                Outcome::Refused(error) => Err(error),
                Outcome::Done(event) => {
                    events.push(event);
                    next.0 += 1;
                    Ok(Revision(next.0 - 1))
                }
            });
        }
        if expiring {
            events.extend(commit::expire(&tx, now, next, GROUP_OPS)?);
        }
        let mut log = self.log;
        log.revisions += events.len() as u64;
        log.bytes += events.iter().map(old_len).sum::<u64>();
        let trimmed = trim(&tx, &mut log, self.limits)?;
        let next_expiry =
            if expiring { commit::next_expiry(&tx)? } else { earlier(self.next_expiry, earliest) };
        tx.commit()?;
        (self.log, self.next_expiry) = (log, next_expiry);
        if let Some(oldest) = trimmed {
            self.shared.oldest.fetch_max(oldest.0, Ordering::AcqRel);
        }
        self.publish(events);
        Ok(outcomes)
    }

    fn publish(&mut self, events: Vec<Event>) {
        let Some(last) = events.last() else { return };
        let revision = last.revision;
        let bytes = events.iter().map(|event| pages_of(event, self.page_bytes) * self.page_bytes).sum();
        self.wrote(bytes);
        self.current = revision;
        self.shared.current.store(revision.0, Ordering::Release);
        self.feed.publish(&Batch { revision, events });
    }

    fn other(&mut self, command: Command) {
        match command {
            Command::Watch { watcher, reply, permit: _permit } => {
                self.feed.add(watcher);
                reply.send(self.current).ok();
            }
            Command::Compact { revision, reply, permit: _permit } => {
                let result = self.compact(revision);
                reply.send(result).ok();
            }
            Command::Write { .. } | Command::Close => {}
        }
    }

    fn compact(&mut self, revision: Revision) -> Result<(), StoreError> {
        let revision = revision.min(self.current);
        if revision.0 <= self.shared.oldest.load(Ordering::Acquire) {
            return Ok(());
        }
        let tx = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        tx.execute("UPDATE meta SET value = ?1 WHERE name = 'compacted'", [revision.0 as i64])?;
        let mut log = self.log;
        forget(&tx, &mut log, revision.min(Revision(self.current.0 - 1)))?;
        tx.commit()?;
        self.log = log;
        self.shared.oldest.fetch_max(revision.0, Ordering::AcqRel);
        Ok(())
    }

    fn wrote(&mut self, bytes: u64) {
        self.wal_look += bytes;
        self.wal_bytes += bytes;
        self.wal_bytes_all += bytes;
    }

    /// Has the WAL moved into the database now and then, and pages given back that are not needed.
    fn checkpoint(&mut self) {
        if self.wal_look < LOOK_BYTES {
            return;
        }
        self.wal_look = 0;
        if let Err(error) = self.give_back_pages() {
            warn!(%error, "giving back free pages of the database failed");
        }
        if self.wal_bytes < CHECKPOINT_BYTES {
            return;
        }
        self.wal_bytes = 0;
        if self.wal_bytes_all >= WAL_BYTES_MOST {
            self.wal_bytes_all = 0;
            self.run_checkpoint("PASSIVE");
        } else {
            self.checkpointer.ask();
        }
    }

    /// Makes the file smaller, a little at a time, when much of it is free.
    fn give_back_pages(&mut self) -> Result<(), StoreError> {
        let (pages, free) = self.count_pages()?;
        if free * self.page_bytes > FREE_BYTES && free > pages / 4 {
            let step = VACUUM_BYTES / self.page_bytes;
            {
                // Each row that is asked for gives back one page.
                let mut vacuum = self.connection.prepare(&format!("PRAGMA incremental_vacuum({step})"))?;
                let mut steps = vacuum.query([])?;
                while steps.next()?.is_some() {}
            }
            self.wrote(VACUUM_BYTES);
        }
        Ok(())
    }

    fn count_pages(&self) -> Result<(u64, u64), StoreError> {
        let count = |pragma| self.connection.pragma_query_value(None, pragma, |row| row.get::<_, i64>(0));
        let (pages, free) = (count("page_count")?.max(0) as u64, count("freelist_count")?.max(0) as u64);
        self.shared.pages.store(pages, Ordering::Relaxed);
        self.shared.free_pages.store(free, Ordering::Relaxed);
        Ok((pages, free))
    }

    fn run_checkpoint(&self, mode: &str) {
        let pragma = format!("PRAGMA wal_checkpoint({mode})");
        let result = self.connection.query_row(&pragma, [], |row| row.get::<_, i64>(0));
        if let Err(error) = result {
            warn!(%error, mode, "checkpoint failed");
        }
    }
}

impl Op {
    fn weight(&self) -> usize {
        self.key.len()
            + match &self.change {
                commit::Change::Create(value) | commit::Change::Update { value, .. } => value.len(),
                commit::Change::Delete { .. } => 0,
            }
    }
}

fn old_len(event: &Event) -> u64 {
    event.prev.as_ref().map_or(0, |old| old.len() as u64)
}

/// Roughly how many pages a change adds to the WAL: its entry, its share of the log and of the index.
fn pages_of(event: &Event, page_bytes: u64) -> u64 {
    let new = match &event.kind {
        EventKind::Put { value, .. } => value.len() as u64,
        EventKind::Delete => 0,
    };
    3 + (old_len(event) + new) / page_bytes
}

fn earlier(a: Option<i64>, b: Option<i64>) -> Option<i64> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

/// Brings the log within its limits; the result is the oldest revision that is left to read, if it changed.
fn trim(tx: &Connection, log: &mut LogSize, limits: LogSize) -> Result<Option<Revision>, StoreError> {
    let mut oldest = None;
    while log.revisions > 1 && (log.revisions >= limits.revisions + TRIM_STEP || log.bytes > limits.bytes) {
        let step = TRIM_STEP.min(log.revisions - 1);
        let last: i64 = tx
            .prepare_cached("SELECT revision FROM log ORDER BY revision LIMIT 1 OFFSET ?1")?
            .query_row([step as i64 - 1], |row| row.get(0))?;
        let last = Revision(last as u64);
        forget(tx, log, last)?;
        oldest = Some(last);
    }
    Ok(oldest)
}

/// Removes the log up to and including `last`.
fn forget(tx: &Connection, log: &mut LogSize, last: Revision) -> Result<(), StoreError> {
    let bytes: i64 = tx
        .prepare_cached("SELECT coalesce(sum(length(old_value)), 0) FROM log WHERE revision <= ?1")?
        .query_row([last.0 as i64], |row| row.get(0))?;
    let rows = tx.prepare_cached("DELETE FROM log WHERE revision <= ?1")?.execute([last.0 as i64])?;
    log.revisions -= rows as u64;
    log.bytes -= bytes as u64;
    Ok(())
}
