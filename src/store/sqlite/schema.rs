//! The file: its lock, its tables, how connections are set up, and copies of it.
//!
//! `entries` holds what is there now. `log` holds one row for each change with what it replaced (nothing for a
//! creation), so that any revision down to the oldest row can be put together from `entries` backwards, and so that a
//! change costs its new value once and what its old value differed in (`packed`). The newest row of `log` is never removed: it tells the
//! revision of the store.
//!
//! What an update changes stands at the end of a row of `entries`: of a value that does not fit into one page, the first
//! page, which holds the beginnings of several rows, is then not written.

use std::fs::{DirBuilder, File, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use rusqlite::{Connection, OpenFlags, OptionalExtension};

use super::SqliteOptions;
use super::errors::io;
use crate::store::{Revision, StoreError};

/// Format of the tables below, kept in `user_version`.
const FORMAT: i64 = 2;
/// The format without `old_size`, in which every old value is whole.
const WHOLE_VALUES: i64 = 1;
/// Marks the file as ours, kept in `application_id`: "kblt".
const APPLICATION: i64 = 0x6b62_6c74;
/// Bytes of a page of a new file. An object of 1 KB fills one page and a part of another, so that a change of it writes
/// little more than itself; with larger pages its neighbours are written as well.
const PAGE_BYTES: i64 = 1024;

const TABLES: &str = "
    CREATE TABLE entries (
        create_revision INTEGER PRIMARY KEY,
        key TEXT NOT NULL UNIQUE,
        value BLOB NOT NULL,
        mod_revision INTEGER NOT NULL,
        expires INTEGER
    );
    CREATE INDEX entries_expires ON entries (expires) WHERE expires IS NOT NULL;
    CREATE TABLE log (
        revision INTEGER PRIMARY KEY,
        key TEXT NOT NULL,
        old_create INTEGER,
        old_mod INTEGER,
        old_value BLOB,
        old_size INTEGER
    );
    CREATE TABLE meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
    INSERT INTO meta VALUES ('compacted', 1);
";

/// The writing connection with what must live as long as it.
pub(super) struct Opened {
    pub(super) connection: Connection,
    pub(super) lock: Flock<File>,
    /// Bytes of a page of this file.
    pub(super) page_bytes: u64,
}

/// Locks, opens, checks and where needed creates the file.
pub(super) fn open(path: &Path, options: &SqliteOptions) -> Result<Opened, StoreError> {
    prepare_files(path)?;
    let lock = lock(path)?;
    let connection = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    let format: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let application: i64 = connection.pragma_query_value(None, "application_id", |row| row.get(0))?;
    let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    match (application, format, tables) {
        (0, 0, 0) => create(&connection)?,
        (APPLICATION, FORMAT, _) => check(&connection)?,
        (APPLICATION, WHOLE_VALUES, _) => {
            check(&connection)?;
            add_sizes(&connection)?;
        }
        (APPLICATION, found, _) => return Err(StoreError::Format { found, supported: FORMAT }),
        _ => return Err(StoreError::Corrupt { detail: "the file belongs to another program".into() }),
    }
    // A restored copy is not in this mode.
    enter_wal(&connection)?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "wal_autocheckpoint", 0)?;
    connection.pragma_update(None, "journal_size_limit", 64 << 20)?;
    let page_bytes: i64 = connection.pragma_query_value(None, "page_size", |row| row.get(0))?;
    if let Some(bytes) = options.max_file_bytes {
        connection.pragma_update(None, "max_page_count", bytes as i64 / page_bytes)?;
    }
    tune(&connection, 4096)?;
    Ok(Opened { connection, lock, page_bytes: page_bytes as u64 })
}

/// A connection that only reads. The file must be open for writing already.
pub(super) fn open_reader(path: &Path) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    tune(&connection, 1024)?;
    Ok(connection)
}

/// A copy that nothing writes to, checked for damage.
pub(super) fn open_copy(path: &Path) -> Result<Connection, StoreError> {
    let flags =
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_URI;
    // Immutable: no files may appear beside a snapshot.
    let uri = format!("file:{}?immutable=1", percent(path)?);
    let connection = Connection::open_with_flags(uri, flags)?;
    let format: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let application: i64 = connection.pragma_query_value(None, "application_id", |row| row.get(0))?;
    match (application, format) {
        (APPLICATION, FORMAT | WHOLE_VALUES) => check(&connection)?,
        (APPLICATION, found) => return Err(StoreError::Format { found, supported: FORMAT }),
        _ => return Err(StoreError::Corrupt { detail: "the file belongs to another program".into() }),
    }
    Ok(connection)
}

/// A path as it stands in a URI.
fn percent(path: &Path) -> Result<String, StoreError> {
    let text = path
        .to_str()
        .ok_or_else(|| io(std::io::Error::new(std::io::ErrorKind::InvalidInput, "the path is not UTF-8")))?;
    Ok(text.replace('%', "%25").replace('?', "%3f").replace('#', "%23"))
}

fn tune(connection: &Connection, cache_kib: i64) -> Result<(), StoreError> {
    connection.pragma_update(None, "cache_size", -cache_kib)?;
    connection.pragma_update(None, "mmap_size", 0)?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    connection.busy_timeout(std::time::Duration::from_secs(5))?;
    connection.set_prepared_statement_cache_capacity(24);
    Ok(())
}

fn create(connection: &Connection) -> Result<(), StoreError> {
    connection.pragma_update(None, "page_size", PAGE_BYTES)?;
    // Free pages can be given back to the file system; to be said before there are tables.
    connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    enter_wal(connection)?;
    let tx = connection.unchecked_transaction()?;
    tx.execute_batch(TABLES)?;
    tx.pragma_update(None, "application_id", APPLICATION)?;
    tx.pragma_update(None, "user_version", FORMAT)?;
    Ok(tx.commit()?)
}

/// Makes a file of the format before into one of this.
fn add_sizes(connection: &Connection) -> Result<(), StoreError> {
    let tx = connection.unchecked_transaction()?;
    tx.execute_batch("ALTER TABLE log ADD COLUMN old_size INTEGER")?;
    tx.pragma_update(None, "user_version", FORMAT)?;
    Ok(tx.commit()?)
}

fn enter_wal(connection: &Connection) -> Result<(), StoreError> {
    let mode: String = connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))?;
    if mode != "wal" {
        let detail = format!("the file system does not allow write-ahead logging, but journal mode {mode}");
        return Err(io(std::io::Error::other(detail)));
    }
    Ok(())
}

/// Looks for damage: structure of every page, and that no revision is beyond the log.
fn check(connection: &Connection) -> Result<(), StoreError> {
    let verdict: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    if verdict != "ok" {
        return Err(StoreError::Corrupt { detail: verdict });
    }
    let current = current_revision(connection)?;
    let newest: Option<i64> =
        connection.query_row("SELECT max(mod_revision) FROM entries", [], |row| row.get(0))?;
    match newest {
        Some(newest) if newest as u64 > current.0 => Err(StoreError::Corrupt {
            detail: format!("revision {newest} is beyond the log, which ends at {current}"),
        }),
        _ => Ok(()),
    }
}

/// The revision of the latest change, as the connection or its transaction sees it.
pub(super) fn current_revision(connection: &Connection) -> Result<Revision, StoreError> {
    let newest: Option<i64> =
        connection.prepare_cached("SELECT max(revision) FROM log")?.query_row([], |row| row.get(0))?;
    Ok(Revision(newest.map_or(1, |r| r as u64)))
}

/// The oldest revision that can be read, as the connection or its transaction sees it.
pub(super) fn oldest_revision(connection: &Connection) -> Result<Revision, StoreError> {
    let first: Option<i64> =
        connection.prepare_cached("SELECT min(revision) FROM log")?.query_row([], |row| row.get(0))?;
    let compacted: Option<i64> = connection
        .prepare_cached("SELECT value FROM meta WHERE name = 'compacted'")?
        .query_row([], |row| row.get(0))
        .optional()?;
    let from_log = first.map_or(1, |r| r as u64 - 1);
    Ok(Revision(from_log.max(compacted.unwrap_or(1) as u64)))
}

/// Writes a compact copy to `path`, which must not exist; it appears there complete and flushed, or not at all.
pub(super) fn copy_to(connection: &mut Connection, path: &Path) -> Result<Revision, StoreError> {
    if path.exists() {
        return Err(io(std::io::ErrorKind::AlreadyExists.into()));
    }
    let partial = with_suffix(path, ".partial");
    OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&partial).map_err(io)?;
    let Some(target) = partial.to_str() else {
        return Err(io(std::io::Error::new(std::io::ErrorKind::InvalidInput, "the path is not UTF-8")));
    };
    connection.execute("VACUUM INTO ?1", [target])?;
    let copy = Connection::open_with_flags(&partial, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    let revision = current_revision(&copy)?;
    drop(copy);
    File::open(&partial).and_then(|f| f.sync_all()).map_err(io)?;
    std::fs::rename(&partial, path).map_err(io)?;
    sync_folder(path)?;
    Ok(revision)
}

fn prepare_files(path: &Path) -> Result<(), StoreError> {
    if let Some(folder) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(io)?;
    }
    if !path.exists() {
        // SQLite gives its other files the mode of this one.
        OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path).map_err(io)?;
        sync_folder(path)?;
    }
    Ok(())
}

fn sync_folder(path: &Path) -> Result<(), StoreError> {
    match path.parent() {
        Some(folder) if folder.as_os_str().is_empty() => Ok(()),
        Some(folder) => File::open(folder).and_then(|f| f.sync_all()).map_err(io),
        None => Ok(()),
    }
}

/// A lock file beside the database: a lock on the database file itself would fight with SQLite's own.
fn lock(path: &Path) -> Result<Flock<File>, StoreError> {
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(with_suffix(path, ".lock"))
        .map_err(io)?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| match errno {
        nix::errno::Errno::EWOULDBLOCK => StoreError::InUse { path: path.to_owned() },
        other => io(other.into()),
    })
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}
