//! Ownership by creating, updating and patching.

use serde_json::Value;

use super::compare::{Comparison, compare};
use super::entries::{Entries, Entry, Operation};
use super::{Options, put_entries, strip, take_entries};

/// Records in `new` that the writer owns what it changes with respect to `old` (to what the kind always has, for a create), and that
/// others no longer own it.
///
/// A client that sends no `managedFields` changes none; one that sends a list with one empty entry drops them all,
/// and from then on the object is not tracked until somebody applies to it.
pub fn track_update(old: Option<&Value>, new: &mut Value, options: &Options<'_>) {
    let sent = take_entries(new);
    let known = known_entries(old, sent.as_ref(), options);
    if old.is_some() && known.is_none() {
        return;
    }
    let comparison = compare_without_entries(old.unwrap_or(options.initial), new, options);
    let kept = match (&known, old) {
        (Some(Known::Stored(stored)), Some(_)) if comparison.is_same() => Some((*stored).clone()),
        _ => None,
    };
    if let Some(stored) = kept {
        return put_entries(new, stored);
    }
    let mut entries = match known {
        Some(Known::Stored(stored)) => {
            stored.as_array().and_then(|list| Entries::parse(list)).unwrap_or_default()
        }
        Some(Known::Sent(entries)) => entries,
        None => Entries::default(),
    };
    release(&mut entries, &comparison);
    let mut written = comparison.written();
    strip(&mut written, options);
    if !written.is_empty() {
        let entry = Entry::new(options, Operation::Update, written);
        match entries.find(&entry) {
            Some(i) => {
                entries.0[i].fields.union(entry.fields);
                entries.0[i].time = entry.time;
            }
            None => entries.0.push(entry),
        }
    }
    entries.cap_updaters();
    put_entries(new, entries.into_json());
}

/// The entries that a request starts from.
enum Known<'a> {
    Stored(&'a Value),
    Sent(Entries),
}

/// `None` when the object is not tracked.
fn known_entries<'a>(
    old: Option<&'a Value>,
    sent: Option<&Value>,
    options: &Options<'_>,
) -> Option<Known<'a>> {
    let stored = old.and_then(|old| crate::api::meta::get(old, "managedFields"));
    let sent = sent.filter(|_| options.subresource.is_empty()).and_then(Value::as_array);
    if let Some(list) = sent.filter(|list| !list.is_empty()) {
        if is_reset(list) {
            return None;
        }
        // What the client read and sends back as it is needs no parsing.
        if stored.and_then(Value::as_array) != Some(list)
            && let Some(sent) = Entries::parse(list)
        {
            return Some(Known::Sent(sent));
        }
    }
    stored.filter(|list| list.as_array().is_some_and(|list| !list.is_empty())).map(Known::Stored)
}

/// A list with one entry that says nothing.
fn is_reset(list: &[Value]) -> bool {
    matches!(list, [Value::Object(entry)] if entry.values().all(|value| value.is_null() || value == ""))
}

/// Compares without regard to `managedFields`, which `new` no longer has.
pub(super) fn compare_without_entries(old: &Value, new: &Value, options: &Options<'_>) -> Comparison {
    let mut comparison = compare(old, new, options.schema);
    for set in [&mut comparison.added, &mut comparison.modified, &mut comparison.removed] {
        set.remove_below(&["metadata", "managedFields"]);
        set.remove_member(&["metadata", "resourceVersion"]);
        set.remove_member(&["metadata", "generation"]);
    }
    comparison
}

/// Takes from every owner what was changed or removed.
fn release(entries: &mut Entries, comparison: &Comparison) {
    for entry in &mut entries.0 {
        entry.fields.subtract(&comparison.added);
        entry.fields.subtract(&comparison.modified);
        entry.fields.subtract(&comparison.removed);
    }
}
