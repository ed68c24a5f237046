//! Reads, now and at old revisions, and replays of past changes.
//!
//! The log says what each change replaced. The state of a key at revision R is what the first change after R replaced,
//! or the current entry if there was none; the value that a change wrote is found the same way, with R its revision.
//! Where the log says only in what it differs (`packed`), the walk goes on towards the present.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::Arc;

use rusqlite::{Connection, params};
use tokio::sync::mpsc;

use super::commit::{entry_of, find};
use super::feed::Past;
use super::packed::{Chain, Replaced};
use super::readers::Readers;
use super::schema::{current_revision, oldest_revision};
use crate::store::{Batch, Entry, Event, EventKind, ListOptions, ListPage, Revision, StoreError};

/// Changes in one batch of a replay, and batches that may wait for a slow consumer.
const REPLAY_EVENTS: usize = 256;
const REPLAY_BATCHES: usize = 4;

/// The entry under `key` now or at `at`.
pub(super) fn get(
    tx: &Connection,
    key: &Arc<str>,
    at: Option<Revision>,
) -> Result<Option<Entry>, StoreError> {
    let Some(at) = at else { return find(tx, key) };
    still_kept(tx, at)?;
    let mut walk = tx.prepare_cached(
        "SELECT old_create, old_mod, old_value, old_size FROM log WHERE revision > ?1 AND key = ?2
         ORDER BY revision",
    )?;
    let mut rows = walk.query(params![at.0 as i64, &**key])?;
    let mut chain = Chain::default();
    while !chain.is_complete()
        && let Some(row) = rows.next()?
    {
        chain.add(Replaced::read(row, key)?);
    }
    chain.first(tx, key)
}

/// The entries under `prefix` as `options` asks.
pub(super) fn list(tx: &Connection, prefix: &str, options: &ListOptions) -> Result<ListPage, StoreError> {
    let now = current_revision(tx)?;
    let revision = options.revision.unwrap_or(now);
    if revision > now {
        return Err(StoreError::TooNew { requested: revision, current: now });
    }
    let range = Range::new(prefix, options.start_after.as_deref());
    let replaced = if revision < now { replaced_since(tx, &range, revision)? } else { BTreeMap::new() };
    let limit = options.limit.unwrap_or(usize::MAX);
    let mut entries = Vec::new();
    let mut more = false;
    let mut walk = tx.prepare_cached(
        "SELECT key, create_revision, mod_revision, value FROM entries
         WHERE key >= ?1 AND key < ?2 ORDER BY key",
    )?;
    let mut rows = walk.query([&range.from, &range.to])?;
    let mut old = replaced.iter().peekable();
    // Both sides are in key order: merge them, the log wins.
    let mut next = rows.next()?.map(entry_of).transpose()?;
    loop {
        let take_old = match (old.peek(), &next) {
            (None, None) => break,
            (Some(_), None) => true,
            (None, Some(_)) => false,
            (Some((key, _)), Some(entry)) => **key <= entry.key,
        };
        let entry = if take_old {
            let (key, entry) = old.next().map_or((None, None), |(k, e)| (Some(k), e.clone()));
            if next.as_ref().map(|n| &n.key) == key {
                next = rows.next()?.map(entry_of).transpose()?;
            }
            entry
        } else {
            let entry = next.take();
            next = rows.next()?.map(entry_of).transpose()?;
            entry
        };
        let Some(entry) = entry else { continue };
        if entries.len() == limit {
            more = true;
            break;
        }
        entries.push(entry);
    }
    let remaining = match (more, entries.last()) {
        (true, Some(last)) => Some(count_after(tx, prefix, &last.key, &replaced)?),
        _ => None,
    };
    Ok(ListPage { entries, revision, more, remaining })
}

/// How many entries of a list follow `last`.
fn count_after(
    tx: &Connection,
    prefix: &str,
    last: &Arc<str>,
    replaced: &BTreeMap<Arc<str>, Option<Entry>>,
) -> Result<u64, StoreError> {
    let range = Range::new(prefix, Some(last));
    let now: i64 = tx
        .prepare_cached("SELECT count(*) FROM entries WHERE key >= ?1 AND key < ?2")?
        .query_row([&range.from, &range.to], |row| row.get(0))?;
    let mut count = now;
    let mut exists = tx.prepare_cached("SELECT 1 FROM entries WHERE key = ?1")?;
    for (key, old) in replaced.range::<Arc<str>, _>((Bound::Excluded(last), Bound::Unbounded)) {
        count += i64::from(old.is_some()) - i64::from(exists.exists([&**key])?);
    }
    Ok(count as u64)
}

/// What the keys of a range were at `at`, for those that changed since.
fn replaced_since(
    tx: &Connection,
    range: &Range,
    at: Revision,
) -> Result<BTreeMap<Arc<str>, Option<Entry>>, StoreError> {
    still_kept(tx, at)?;
    let mut found: BTreeMap<Arc<str>, Chain> = BTreeMap::new();
    let mut walk = tx.prepare_cached(
        "SELECT old_create, old_mod, old_value, old_size, key FROM log
         WHERE revision > ?1 AND key >= ?2 AND key < ?3 ORDER BY revision",
    )?;
    let mut rows = walk.query(params![at.0 as i64, range.from, range.to])?;
    while let Some(row) = rows.next()? {
        let key: Arc<str> = Arc::from(row.get_ref(4)?.as_str().map_err(rusqlite::Error::from)?);
        let old = Replaced::read(row, &key)?;
        found.entry(key).or_default().add(old);
    }
    let first = |(key, chain): (Arc<str>, Chain)| {
        let old = chain.first(tx, &key)?;
        Ok((key, old))
    };
    found.into_iter().map(first).collect()
}

/// Hands out the changes under `prefix` after `after` up to `until`, from a blocking thread.
pub(super) fn replay(readers: &Arc<Readers>, prefix: &str, after: Revision, until: Revision) -> Past {
    let (sender, batches) = mpsc::channel(REPLAY_BATCHES);
    let (readers, prefix) = (Arc::clone(readers), prefix.to_owned());
    // Ends by itself: with the last batch, or as soon as the consumer is gone.
    tokio::spawn(async move {
        let failures = sender.clone();
        let result = readers.read(move |tx| send_past(tx, &prefix, after, until, &sender)).await;
        if let Err(error) = result {
            failures.send(Err(error)).await.ok();
        }
    });
    Past { batches, reached: after, until }
}

fn send_past(
    tx: &Connection,
    prefix: &str,
    after: Revision,
    until: Revision,
    sender: &mpsc::Sender<Result<Batch, StoreError>>,
) -> Result<(), StoreError> {
    still_kept(tx, after)?;
    let changes = changes_since(tx, prefix, after)?;
    let mut events = Vec::new();
    for change in changes.iter().take_while(|c| c.revision <= until) {
        events.push(event_of(tx, change, &changes)?);
        if events.len() == REPLAY_EVENTS {
            let revision = events.last().map_or(after, |e: &Event| e.revision);
            if sender.blocking_send(Ok(Batch { revision, events: std::mem::take(&mut events) })).is_err() {
                return Ok(());
            }
        }
    }
    // The end is always told, so that a consumer can tell it from an accident.
    sender.blocking_send(Ok(Batch { revision: until, events })).ok();
    Ok(())
}

/// A change with the revision of the next change of the same key.
struct Change {
    revision: Revision,
    key: Arc<str>,
    next: Option<Revision>,
}

fn changes_since(tx: &Connection, prefix: &str, after: Revision) -> Result<Vec<Change>, StoreError> {
    let range = Range::new(prefix, None);
    let mut walk = tx.prepare_cached(
        "SELECT revision, key FROM log WHERE revision > ?1 AND key >= ?2 AND key < ?3 ORDER BY revision DESC",
    )?;
    let mut rows = walk.query(params![after.0 as i64, range.from, range.to])?;
    let mut later: HashMap<Arc<str>, Revision> = HashMap::new();
    let mut changes = Vec::new();
    while let Some(row) = rows.next()? {
        let revision = Revision(row.get::<_, i64>(0)? as u64);
        let key: Arc<str> = Arc::from(row.get_ref(1)?.as_str().map_err(rusqlite::Error::from)?);
        let next = later.insert(key.clone(), revision);
        changes.push(Change { revision, key, next });
    }
    changes.reverse();
    Ok(changes)
}

/// `changes` are in the order of their revisions and have all later ones of the same key.
fn event_of(tx: &Connection, change: &Change, changes: &[Change]) -> Result<Event, StoreError> {
    let Change { revision, key, next } = change;
    let (mut next, mut later) = (*next, Chain::default());
    while !later.is_complete()
        && let Some(revision) = next
    {
        later.add(replaced_by(tx, revision, key)?);
        let at = changes.binary_search_by_key(&revision, |change| change.revision);
        next = at.ok().and_then(|at| changes[at].next);
    }
    let (written, old) = later.both(replaced_by(tx, *revision, key)?, tx, key)?;
    let kind = match written {
        Some(entry) => EventKind::Put { value: entry.value, create_revision: entry.create_revision },
        None => EventKind::Delete,
    };
    Ok(Event { key: key.clone(), kind, prev: old.map(|old| old.value), revision: *revision })
}

fn replaced_by(tx: &Connection, revision: Revision, key: &Arc<str>) -> Result<Replaced, StoreError> {
    let mut one =
        tx.prepare_cached("SELECT old_create, old_mod, old_value, old_size FROM log WHERE revision = ?1")?;
    Ok(one.query_row([revision.0 as i64], |row| Replaced::read(row, key))?)
}

fn still_kept(tx: &Connection, at: Revision) -> Result<(), StoreError> {
    let oldest = oldest_revision(tx)?;
    if at < oldest { Err(StoreError::Compacted { oldest }) } else { Ok(()) }
}

/// Keys from `from` on that are less than `to`.
struct Range {
    from: String,
    to: String,
}

impl Range {
    fn new(prefix: &str, start_after: Option<&str>) -> Self {
        let from = match start_after {
            // The least string that is greater.
            Some(after) if after >= prefix => format!("{after}\0"),
            _ => prefix.to_owned(),
        };
        Self { from, to: end_of(prefix) }
    }
}

/// The least string that is greater than every string with this prefix.
fn end_of(prefix: &str) -> String {
    let mut chars: Vec<char> = prefix.chars().collect();
    while let Some(last) = chars.pop() {
        if let Some(next) = (last as u32 + 1..=char::MAX as u32).find_map(char::from_u32) {
            chars.push(next);
            return chars.into_iter().collect();
        }
    }
    // No such string: one that no key reaches.
    char::MAX.to_string().repeat(8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_prefix_is_the_next_string_of_its_length() {
        assert_eq!(end_of("/registry/"), "/registry0");
        assert_eq!(end_of("a\u{10ffff}"), "b");
        assert!(end_of("").as_str() > "zzz\u{ffff}");
    }

    #[test]
    fn a_start_before_the_prefix_starts_at_the_prefix() {
        assert_eq!(Range::new("/b/", Some("/a/x")).from, "/b/");
        assert_eq!(Range::new("/b/", Some("/b/x")).from, "/b/x\0");
    }
}
