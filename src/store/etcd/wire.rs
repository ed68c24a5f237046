//! The messages of etcd's v3 API, generated from `proto/etcd.proto`, and how keys and ranges are put into them.

use std::sync::Arc;

use bytes::Bytes;

use crate::store::{Entry, Event, EventKind, Revision};

#[allow(missing_docs, clippy::all, reason = "generated code")]
pub(super) mod v3 {
    tonic::include_proto!("etcdserverpb");
}

use v3::compare::{CompareResult, CompareTarget, TargetUnion};
use v3::request_op::Request;

pub(super) fn bytes(key: &str) -> Bytes {
    Bytes::copy_from_slice(key.as_bytes())
}

/// The end of the range of all keys with this prefix; etcd takes a single zero byte for "no end".
pub(super) fn end_of(prefix: &[u8]) -> Bytes {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < 0xff {
            end.push(last + 1);
            return end.into();
        }
    }
    Bytes::from_static(b"\0")
}

/// True when the last change of `key` is `revision`; 0 stands for a key that does not exist.
pub(super) fn unchanged_since(key: &str, revision: u64) -> v3::Compare {
    v3::Compare {
        result: CompareResult::Equal.into(),
        target: CompareTarget::Mod.into(),
        key: bytes(key),
        target_union: Some(TargetUnion::ModRevision(revision as i64)),
    }
}

pub(super) fn get(key: &str) -> v3::RangeRequest {
    v3::RangeRequest { key: bytes(key), ..Default::default() }
}

pub(super) fn op(request: Request) -> v3::RequestOp {
    v3::RequestOp { request: Some(request) }
}

/// The revision that an answer tells.
pub(super) fn revision_of(header: Option<&v3::ResponseHeader>) -> Revision {
    Revision(header.map_or(0, |h| h.revision.max(0) as u64))
}

/// A pair as an entry; `None` for a key that is no text, which nothing here writes.
pub(super) fn entry_of(kv: v3::KeyValue) -> Option<Entry> {
    Some(Entry {
        key: Arc::from(std::str::from_utf8(&kv.key).ok()?),
        value: kv.value,
        create_revision: Revision(kv.create_revision as u64),
        mod_revision: Revision(kv.mod_revision as u64),
    })
}

/// A change; `None` for a key that is no text.
pub(super) fn event_of(event: v3::Event) -> Option<Event> {
    let deleted = event.r#type() == v3::event::EventType::Delete;
    let entry = entry_of(event.kv?)?;
    let kind = match deleted {
        true => EventKind::Delete,
        false => EventKind::Put { value: entry.value, create_revision: entry.create_revision },
    };
    let prev = event.prev_kv.map(|kv| kv.value);
    Some(Event { key: entry.key, kind, prev, revision: entry.mod_revision })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_prefix_is_the_next_bytes_of_its_length() {
        assert_eq!(end_of(b"/registry/"), &b"/registry0"[..]);
        assert_eq!(end_of(b"a\xff"), &b"b"[..]);
        assert_eq!(end_of(b""), &b"\0"[..]);
        assert_eq!(end_of(b"\xff\xff"), &b"\0"[..]);
    }
}
