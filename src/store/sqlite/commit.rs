//! One change within the transaction of its group: check, then write entry and log.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension, params};

use super::packed::pack;
use crate::store::{Entry, Event, EventKind, Revision, StoreError};

/// What a writer asks for.
#[derive(Debug, Clone)]
pub(super) enum Change {
    Create(Bytes),
    Update { value: Bytes, expected: Revision },
    Delete { expected: Revision },
}

/// One write.
#[derive(Debug, Clone)]
pub(super) struct Op {
    pub(super) key: Arc<str>,
    pub(super) change: Change,
    pub(super) ttl: Option<Duration>,
}

/// How a write ended within its group.
pub(super) enum Outcome {
    /// Written, and durable if the group commits.
    Done(Event),
    /// Refused; it left no trace.
    Refused(StoreError),
}

/// Milliseconds since 1970, the unit of `expires`.
pub(super) fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as i64)
}

/// Does `op` as `revision`. An error is the database's and spoils the whole group.
pub(super) fn apply(connection: &Connection, op: Op, revision: Revision) -> Result<Outcome, StoreError> {
    let current = find(connection, &op.key)?;
    let key = op.key;
    let expires = op.ttl.map(|ttl| now_ms().saturating_add(ttl.as_millis() as i64));
    match (op.change, current) {
        (Change::Create(_), Some(_)) => Ok(Outcome::Refused(StoreError::Exists { key })),
        (Change::Create(value), None) => {
            insert(connection, &key, &value, expires, revision)?;
            log(connection, revision, &key, None, None)?;
            let kind = EventKind::Put { value, create_revision: revision };
            Ok(Outcome::Done(Event { key, kind, prev: None, revision }))
        }
        (_, None) => Ok(Outcome::Refused(StoreError::NotFound { key })),
        (Change::Update { expected, .. } | Change::Delete { expected }, Some(found))
            if found.mod_revision != expected =>
        {
            Ok(Outcome::Refused(StoreError::Conflict { key, current: Some(found) }))
        }
        (Change::Update { value, .. }, Some(old)) => {
            let create_revision = old.create_revision;
            connection
                .prepare_cached(
                    "UPDATE entries SET mod_revision = ?2, expires = ?3, value = ?4 WHERE create_revision = ?1",
                )?
                .execute(params![create_revision.0 as i64, revision.0 as i64, expires, &value[..]])?;
            log(connection, revision, &key, Some(&old), Some(&value))?;
            let kind = EventKind::Put { value, create_revision };
            Ok(Outcome::Done(Event { key, kind, prev: Some(old.value), revision }))
        }
        (Change::Delete { .. }, Some(old)) => {
            remove(connection, &old, revision)?;
            Ok(Outcome::Done(Event { key, kind: EventKind::Delete, prev: Some(old.value), revision }))
        }
    }
}

/// Removes up to `limit` entries whose time has come, as the revisions from `first` on.
pub(super) fn expire(
    connection: &Connection,
    now: i64,
    first: Revision,
    limit: usize,
) -> Result<Vec<Event>, StoreError> {
    let due: Vec<Entry> = connection
        .prepare_cached(
            "SELECT key, create_revision, mod_revision, value FROM entries
             WHERE expires IS NOT NULL AND expires <= ?1 ORDER BY expires LIMIT ?2",
        )?
        .query_map(params![now, limit as i64], entry_of)?
        .collect::<Result<_, _>>()?;
    let mut events = Vec::with_capacity(due.len());
    for (i, old) in due.into_iter().enumerate() {
        let revision = Revision(first.0 + i as u64);
        remove(connection, &old, revision)?;
        events.push(Event { key: old.key, kind: EventKind::Delete, prev: Some(old.value), revision });
    }
    Ok(events)
}

/// When the next entry expires.
pub(super) fn next_expiry(connection: &Connection) -> Result<Option<i64>, StoreError> {
    let mut find = connection.prepare_cached("SELECT min(expires) FROM entries WHERE expires IS NOT NULL")?;
    Ok(find.query_row([], |row| row.get(0))?)
}

/// Reads `key, create_revision, mod_revision, value`.
pub(super) fn entry_of(row: &rusqlite::Row<'_>) -> rusqlite::Result<Entry> {
    Ok(Entry {
        key: Arc::from(row.get_ref(0)?.as_str()?),
        create_revision: Revision(row.get::<_, i64>(1)? as u64),
        mod_revision: Revision(row.get::<_, i64>(2)? as u64),
        value: Bytes::copy_from_slice(row.get_ref(3)?.as_blob()?),
    })
}

/// The entry under `key` now.
pub(super) fn find(connection: &Connection, key: &str) -> Result<Option<Entry>, StoreError> {
    let mut find = connection
        .prepare_cached("SELECT key, create_revision, mod_revision, value FROM entries WHERE key = ?1")?;
    Ok(find.query_row([key], entry_of).optional()?)
}

fn insert(
    connection: &Connection,
    key: &str,
    value: &[u8],
    expires: Option<i64>,
    revision: Revision,
) -> Result<(), StoreError> {
    connection
        .prepare_cached(
            "INSERT INTO entries (create_revision, key, mod_revision, expires, value) VALUES (?1, ?2, ?1, ?3, ?4)",
        )?
        .execute(params![revision.0 as i64, key, expires, value])?;
    Ok(())
}

fn remove(connection: &Connection, old: &Entry, revision: Revision) -> Result<(), StoreError> {
    connection
        .prepare_cached("DELETE FROM entries WHERE create_revision = ?1")?
        .execute([old.create_revision.0 as i64])?;
    log(connection, revision, &old.key, Some(old), None)
}

/// Notes what a change replaced, and by what.
fn log(
    connection: &Connection,
    revision: Revision,
    key: &str,
    old: Option<&Entry>,
    new: Option<&[u8]>,
) -> Result<(), StoreError> {
    let packed = old.zip(new).and_then(|(old, new)| pack(&old.value, new, revision));
    connection
        .prepare_cached(
            "INSERT INTO log (revision, key, old_create, old_mod, old_value, old_size)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )?
        .execute(params![
            revision.0 as i64,
            key,
            old.map(|o| o.create_revision.0 as i64),
            old.map(|o| o.mod_revision.0 as i64),
            packed.as_deref().or(old.map(|o| &o.value[..])),
            packed.as_ref().and(old).map(|o| o.value.len() as i64),
        ])?;
    Ok(())
}
