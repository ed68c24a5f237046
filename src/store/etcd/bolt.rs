//! Reads the file that etcd's snapshot is: a bbolt database whose bucket `key` has every kept revision of every key.
//!
//! Only what is needed for that: pages, branches, leaves, buckets within leaves. Numbers are little-endian, as bbolt
//! writes them on every machine that etcd runs on. A file that does not hold together is an error, never a panic.

use std::collections::BTreeMap;

use bytes::Bytes;
use prost::Message as _;

use super::wire::{entry_of, v3};
use crate::store::{Entry, Revision, StoreError};

/// Is given the flags, key and value of an element; `None` says that the file is damaged.
type Visit<'v> = dyn FnMut(u32, &[u8], Bytes) -> Option<()> + 'v;

const MAGIC: u32 = 0xED0C_DAED;
const PAGE_HEADER: usize = 16;
const BRANCH: u16 = 0x01;
const LEAF: u16 = 0x02;
const BUCKET: u32 = 0x01;
/// Deeper trees than this do not occur.
const DEEPEST: usize = 32;

/// Whether the bytes begin like a bbolt database.
pub(crate) fn is_bolt(bytes: &[u8]) -> bool {
    u32_at(bytes, PAGE_HEADER) == Some(MAGIC)
}

/// The newest value of every key, and the revision of the newest change.
pub(crate) fn entries(file: Bytes) -> Result<(Vec<Entry>, Revision), StoreError> {
    let bolt = Bolt::open(file).ok_or_else(damaged)?;
    let mut newest: BTreeMap<Bytes, v3::KeyValue> = BTreeMap::new();
    let mut current = Revision(1);
    bolt.each_of(b"key", &mut |revision, value| {
        // Eight bytes of the revision, a separator, eight of the order within it, and a mark for a deletion.
        let main = u64::from_be_bytes(revision.get(..8)?.try_into().ok()?);
        current = current.max(Revision(main));
        let kv = v3::KeyValue::decode(value).ok()?;
        match revision.len() {
            17 => newest.insert(kv.key.clone(), kv),
            _ => newest.remove(&kv.key),
        };
        Some(())
    })
    .ok_or_else(damaged)?;
    Ok((newest.into_values().filter_map(entry_of).collect(), current))
}

fn damaged() -> StoreError {
    StoreError::Corrupt { detail: "the file is no whole snapshot of etcd".to_owned() }
}

struct Bolt {
    file: Bytes,
    page_size: usize,
    /// The page of the bucket of buckets.
    root: u64,
}

impl Bolt {
    fn open(file: Bytes) -> Option<Self> {
        let page_size = u32_at(&file, PAGE_HEADER + 8)? as usize;
        if !(512..=1 << 20).contains(&page_size) {
            return None;
        }
        // Two pages take turns in describing the database; the one with the higher transaction counts.
        let meta = |page: usize| {
            let at = page * page_size + PAGE_HEADER;
            let valid = u32_at(&file, at)? == MAGIC;
            valid.then(|| Some((u64_at(&file, at + 48)?, u64_at(&file, at + 16)?)))?
        };
        let (_, root) = [meta(0), meta(1)].into_iter().flatten().max()?;
        Some(Self { file, page_size, root })
    }

    /// Calls `visit` with each pair of a bucket, in order; `None` when the file is damaged or `visit` says so.
    fn each_of(&self, bucket: &[u8], visit: &mut dyn FnMut(&[u8], Bytes) -> Option<()>) -> Option<()> {
        let mut found = None;
        self.walk(self.page(self.root)?, DEEPEST, &mut |flags, name, value| {
            if flags & BUCKET != 0 && name == bucket {
                found = Some(value);
            }
            Some(())
        })?;
        let header = found?;
        // A small bucket stands in the leaf itself, behind its header.
        let page = match u64_at(&header, 0)? {
            0 => header.slice(16..),
            root => self.page(root)?,
        };
        self.walk(page, DEEPEST, &mut |_, key, value| visit(key, value))
    }

    /// A page with its overflow.
    fn page(&self, id: u64) -> Option<Bytes> {
        let from = usize::try_from(id).ok()?.checked_mul(self.page_size)?;
        let overflow = u32_at(&self.file, from.checked_add(12)?)? as usize;
        let to = from.checked_add((overflow + 1).checked_mul(self.page_size)?)?;
        (to <= self.file.len()).then(|| self.file.slice(from..to))
    }

    fn walk(&self, page: Bytes, depth: usize, visit: &mut Visit<'_>) -> Option<()> {
        let flags = u16_at(&page, 8)?;
        let count = u16_at(&page, 10)? as usize;
        for i in 0..count {
            let at = PAGE_HEADER + i * 16;
            if flags & BRANCH != 0 {
                let child = self.page(u64_at(&page, at + 8)?)?;
                self.walk(child, depth.checked_sub(1)?, visit)?;
            } else if flags & LEAF != 0 {
                let kind = u32_at(&page, at)?;
                let key_from = at.checked_add(u32_at(&page, at + 4)? as usize)?;
                let value_from = key_from.checked_add(u32_at(&page, at + 8)? as usize)?;
                let end = value_from.checked_add(u32_at(&page, at + 12)? as usize)?;
                if end > page.len() {
                    return None;
                }
                visit(kind, &page[key_from..value_from], page.slice(value_from..end))?;
            } else {
                return None;
            }
        }
        Some(())
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at.checked_add(2)?)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at.checked_add(8)?)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn damaged_files_are_errors(mut bytes in proptest::collection::vec(any::<u8>(), 0..4096)) {
            if bytes.len() > 32 {
                bytes[PAGE_HEADER..PAGE_HEADER + 4].copy_from_slice(&MAGIC.to_le_bytes());
                bytes[PAGE_HEADER + 8..PAGE_HEADER + 12].copy_from_slice(&512_u32.to_le_bytes());
            }
            // No panic and no endless loop; whether it holds together is chance.
            entries(bytes.into()).ok();
        }
    }
}
