//! Old values as the log holds them: whole, or as what they differ in from the value that replaced them.
//!
//! An update of a Kubernetes object changes little of it: a version, a time, a condition. The old value is then an LZ4
//! block whose dictionary is the new value, often a tenth of its size, and what is written to disk for an update is
//! little more than the new value. Whoever wants the old value needs the new one first, and so on up to the present;
//! about every sixteenth old value is whole, so that such a walk is short.

use std::sync::Arc;

use bytes::Bytes;
use lz4_flex::block::{compress_with_dict, decompress_with_dict};
use rusqlite::Connection;

use super::commit::find;
use crate::store::{Entry, Revision, StoreError};

/// Bytes that must be saved for the trouble of a walk.
const WORTH: usize = 64;
/// Bytes over which a dictionary does not reach: longer values stay whole.
const REACH: usize = 64 << 10;

/// What there is to write for `old`, which a change at `revision` replaced by `new`; `None` if it is better left whole.
pub(super) fn pack(old: &[u8], new: &[u8], revision: Revision) -> Option<Vec<u8>> {
    if is_whole(revision) || old.len() > REACH || new.len() > REACH {
        return None;
    }
    let packed = compress_with_dict(old, new);
    (packed.len() + WORTH <= old.len()).then_some(packed)
}

/// One revision in sixteen, in no pattern that the writes of a key could follow.
fn is_whole(revision: Revision) -> bool {
    revision.0.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 60 == 0
}

/// What a change replaced, as a row of the log says it.
#[derive(Debug, Clone)]
pub(super) struct Replaced {
    entry: Option<Entry>,
    /// Bytes of the value, if the entry's is packed.
    size: Option<usize>,
}

impl Replaced {
    /// Reads `old_create, old_mod, old_value, old_size`.
    pub(super) fn read(row: &rusqlite::Row<'_>, key: &Arc<str>) -> rusqlite::Result<Self> {
        let Some(create) = row.get::<_, Option<i64>>(0)? else { return Ok(Self { entry: None, size: None }) };
        let entry = Entry {
            key: key.clone(),
            value: Bytes::copy_from_slice(row.get_ref(2)?.as_blob()?),
            create_revision: Revision(create as u64),
            mod_revision: Revision(row.get::<_, i64>(1)? as u64),
        };
        Ok(Self { entry: Some(entry), size: row.get::<_, Option<i64>>(3)?.map(|size| size as usize) })
    }

    /// Whether nothing else is needed to know the value.
    pub(super) fn is_whole(&self) -> bool {
        self.size.is_none()
    }

    /// What was there before the change, given what the change wrote.
    fn unpack(self, written: Option<&Entry>) -> Result<Option<Entry>, StoreError> {
        let (mut entry, size) = match (self.entry, self.size) {
            (Some(entry), Some(size)) => (entry, size),
            (entry, _) => return Ok(entry),
        };
        let (key, revision) = (entry.key.clone(), entry.mod_revision);
        let damaged = || StoreError::Corrupt {
            detail: format!("the log's value of {key} at revision {revision} cannot be read"),
        };
        let written = written.filter(|_| size <= REACH).ok_or_else(damaged)?;
        let value = decompress_with_dict(&entry.value, size, &written.value).map_err(|_| damaged())?;
        if value.len() != size {
            return Err(damaged());
        }
        entry.value = value.into();
        Ok(Some(entry))
    }
}

/// Changes of one key one after the other, from one on until nothing further is needed to know what it replaced.
#[derive(Debug, Default)]
pub(super) struct Chain(Vec<Replaced>);

impl Chain {
    /// Whether what the first change replaced can be told without a further change or the present entry.
    pub(super) fn is_complete(&self) -> bool {
        self.0.last().is_some_and(Replaced::is_whole)
    }

    /// Adds the next change of the key, unless it is not needed.
    pub(super) fn add(&mut self, next: Replaced) {
        if !self.is_complete() {
            self.0.push(next);
        }
    }

    /// What the first change replaced; the present entry if there is no change.
    pub(super) fn first(self, tx: &Connection, key: &Arc<str>) -> Result<Option<Entry>, StoreError> {
        let mut state = if self.is_complete() { None } else { find(tx, key)? };
        for change in self.0.into_iter().rev() {
            state = change.unpack(state.as_ref())?;
        }
        Ok(state)
    }

    /// What `first` wrote and what it replaced, if these are the changes of the key after it.
    pub(super) fn both(
        self,
        first: Replaced,
        tx: &Connection,
        key: &Arc<str>,
    ) -> Result<(Option<Entry>, Option<Entry>), StoreError> {
        let written = self.first(tx, key)?;
        let old = first.unpack(written.as_ref())?;
        Ok((written, old))
    }
}
