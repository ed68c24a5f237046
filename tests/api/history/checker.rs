//! What a recorded history must fulfil.
//!
//! Every change has a revision, so that the order of all changes is known and need not be searched for. Each operation
//! is given a moment in that order: a write the revision that it was answered with, a read the earliest revision at
//! which its answer was true and that is not before what had ended when it began. The history is strictly serializable,
//! and with it linearizable for every key, exactly when all operations get a moment. Watches must show every change of
//! their span once and in order, changes must follow upon what their writers expected, and nothing may have happened
//! that nobody asked for or that was refused.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;

/// What was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    Read,
    /// A read that may be old (`resourceVersion=0`).
    ReadAny,
    List,
    Create {
        value: u64,
    },
    Update {
        value: u64,
        expected: u64,
    },
    /// An update to what is there already: it changes nothing and says so, which is as good as a read.
    Confirm {
        value: u64,
        expected: u64,
    },
    Delete {
        expected: u64,
    },
}

impl Kind {
    /// What is to be written, if anything.
    fn value(&self) -> Option<u64> {
        match self {
            Self::Create { value } | Self::Update { value, .. } => Some(*value),
            _ => None,
        }
    }
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Done {
    /// Written, as this version.
    Wrote(u64),
    /// Deleted; at which revision only watches tell.
    Deleted,
    Found {
        version: u64,
        value: u64,
    },
    /// 404.
    Absent,
    /// All keys with their versions and values at one revision.
    Listed {
        revision: u64,
        items: BTreeMap<u64, (u64, u64)>,
    },
    /// Pages of one list that showed two revisions.
    Torn(u64, u64),
    /// 409: it did not happen.
    Refused,
    /// It may have happened, or may happen later.
    Unknown,
}

/// One operation of one client. Moments are numbers that grow with time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    pub key: u64,
    pub kind: Kind,
    pub began: u64,
    pub ended: u64,
    pub done: Done,
}

/// How a watch called a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    Added,
    Modified,
    Deleted,
}

/// What a watch showed; a deletion shows the last value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub key: u64,
    pub revision: u64,
    pub change: Change,
    pub value: u64,
}

/// A watch, however often it was resumed: everything after `from` up to `until`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    pub from: u64,
    pub until: u64,
    pub seen: Vec<Seen>,
}

/// How a history is wrong.
#[derive(Debug, PartialEq, Eq)]
#[allow(dead_code, reason = "shown when a test fails")]
pub enum Violation {
    WatchOutOfOrder { before: u64, after: Seen },
    WatchesDisagree(Seen, Seen),
    WatchMissed { from: u64, until: u64, missed: Seen },
    WatchOfTheImpossible { seen: Seen, there: Option<(u64, u64)> },
    WatchNeverEnds,
    NobodyAskedFor(Seen),
    RefusedButDone(Operation, Seen),
    NotWhatWasExpected { operation: Operation, there: Option<(u64, u64)> },
    LostWrite(Operation),
    DeletedTwice(Operation),
    OrderAgainstTime { operation: Operation, already: u64 },
    StaleRead { operation: Operation, already: u64 },
    ReadOfNothingWritten(Operation),
    NoReasonToRefuse(Operation),
    WrongList(Operation),
    TornList(Operation),
}

/// Version and value of a key that exists.
type State = Option<(u64, u64)>;

/// The states of one key, each from the revision that began it.
type Timeline = BTreeMap<u64, State>;

/// Judges a history together with what watches of all of it showed; no key existed at `start`, and some watch began
/// there.
pub fn check(start: u64, history: &[Operation], watches: &[Segment]) -> Result<(), Violation> {
    let changes = merge(watches)?;
    let timelines = replay(start, &changes)?;
    let mut moments = effects(history, &changes, &timelines)?;
    acknowledged(history, &changes, &timelines, &mut moments)?;
    give_moments(history, &timelines, &moments)
}

/// All changes that any watch showed; every watch must have shown those of its span.
fn merge(watches: &[Segment]) -> Result<BTreeMap<u64, Seen>, Violation> {
    let mut changes: BTreeMap<u64, Seen> = BTreeMap::new();
    for watch in watches {
        let mut before = watch.from;
        for seen in &watch.seen {
            if seen.revision <= before {
                return Err(Violation::WatchOutOfOrder { before, after: seen.clone() });
            }
            before = seen.revision;
            if let Some(other) = changes.insert(seen.revision, seen.clone())
                && other != *seen
            {
                return Err(Violation::WatchesDisagree(other, seen.clone()));
            }
        }
    }
    for &Segment { from, until, ref seen } in watches {
        let shown: BTreeSet<u64> = seen.iter().map(|seen| seen.revision).collect();
        let span = (Bound::Excluded(from), Bound::Included(until));
        let missed = changes.range(span).find(|(revision, _)| !shown.contains(revision));
        if let Some((_, missed)) = missed {
            return Err(Violation::WatchMissed { from, until, missed: missed.clone() });
        }
    }
    Ok(changes)
}

/// Puts the changes together: each must be possible where it stands.
fn replay(start: u64, changes: &BTreeMap<u64, Seen>) -> Result<HashMap<u64, Timeline>, Violation> {
    let mut timelines: HashMap<u64, Timeline> = HashMap::new();
    for seen in changes.values() {
        let timeline = timelines.entry(seen.key).or_insert_with(|| BTreeMap::from([(start, None)]));
        let there = timeline.last_key_value().and_then(|(_, state)| *state);
        let possible = match (seen.change, there) {
            (Change::Added, None) | (Change::Modified, Some(_)) => true,
            (Change::Deleted, Some((_, value))) => value == seen.value,
            _ => false,
        };
        if !possible {
            return Err(Violation::WatchOfTheImpossible { seen: seen.clone(), there });
        }
        let state = (seen.change != Change::Deleted).then_some((seen.revision, seen.value));
        timeline.insert(seen.revision, state);
    }
    Ok(timelines)
}

/// The state of a key just before a revision.
fn before(timelines: &HashMap<u64, Timeline>, key: u64, revision: u64) -> State {
    let timeline = timelines.get(&key)?;
    timeline.range(..revision).next_back().and_then(|(_, state)| *state)
}

/// Finds for every change the operation that made it, which must have expected what was there. The result is the
/// revision of each operation that took effect, by its place in the history.
fn effects(
    history: &[Operation],
    changes: &BTreeMap<u64, Seen>,
    timelines: &HashMap<u64, Timeline>,
) -> Result<HashMap<usize, u64>, Violation> {
    let mut writers: HashMap<(u64, u64), usize> = HashMap::new();
    let mut deleters: HashMap<(u64, u64), Vec<usize>> = HashMap::new();
    for (place, operation) in history.iter().enumerate() {
        match operation.kind {
            Kind::Create { value } | Kind::Update { value, .. } => {
                writers.insert((operation.key, value), place);
            }
            Kind::Delete { expected } => deleters.entry((operation.key, expected)).or_default().push(place),
            Kind::Read | Kind::ReadAny | Kind::List | Kind::Confirm { .. } => {}
        }
    }
    let mut moments = HashMap::new();
    for (revision, seen) in changes {
        let there = before(timelines, seen.key, *revision);
        let nobody = || Violation::NobodyAskedFor(seen.clone());
        let place = if seen.change == Change::Deleted {
            let (version, _) = there.ok_or_else(nobody)?;
            let candidates = deleters.get(&(seen.key, version)).ok_or_else(nobody)?;
            // Of several that may have done it the first is always possible.
            let with = |done: &Done| {
                let those = candidates.iter().filter(|place| history[**place].done == *done);
                those.min_by_key(|place| history[**place].began)
            };
            *with(&Done::Deleted).or_else(|| with(&Done::Unknown)).ok_or_else(nobody)?
        } else {
            *writers.get(&(seen.key, seen.value)).ok_or_else(nobody)?
        };
        let operation = &history[place];
        if matches!(operation.done, Done::Refused | Done::Absent) {
            return Err(Violation::RefusedButDone(operation.clone(), seen.clone()));
        }
        let expected = match operation.kind {
            Kind::Update { expected, .. } | Kind::Delete { expected } => Some(expected),
            _ => None,
        };
        if there.map(|(version, _)| version) != expected {
            return Err(Violation::NotWhatWasExpected { operation: operation.clone(), there });
        }
        if moments.insert(place, *revision).is_some() {
            return Err(nobody());
        }
    }
    Ok(moments)
}

/// Every acknowledged write must show, as the version that it was told.
fn acknowledged(
    history: &[Operation],
    changes: &BTreeMap<u64, Seen>,
    timelines: &HashMap<u64, Timeline>,
    moments: &mut HashMap<usize, u64>,
) -> Result<(), Violation> {
    for (place, operation) in history.iter().enumerate() {
        match operation.done {
            Done::Wrote(version) if moments.get(&place) != Some(&version) => {
                return Err(Violation::LostWrite(operation.clone()));
            }
            Done::Deleted if !moments.contains_key(&place) => {
                let Kind::Delete { expected } = operation.kind else { continue };
                let timeline = timelines.get(&operation.key);
                let next = timeline.and_then(|t| t.range(expected + 1..).next());
                return Err(match next.and_then(|(revision, _)| changes.get(revision)) {
                    Some(Seen { change: Change::Deleted, .. }) => Violation::DeletedTwice(operation.clone()),
                    _ => Violation::LostWrite(operation.clone()),
                });
            }
            _ => {}
        }
    }
    Ok(())
}

/// Gives every operation its moment, in the order in which they began: the earliest that is possible, so that what
/// follows has all the room there is.
fn give_moments(
    history: &[Operation],
    timelines: &HashMap<u64, Timeline>,
    moments: &HashMap<usize, u64>,
) -> Result<(), Violation> {
    let mut order: Vec<usize> = (0..history.len()).collect();
    order.sort_by_key(|place| history[*place].began);
    let asked = history.iter().filter_map(|o| Some(((o.key, o.kind.value()?), o.began))).collect();
    // What has a moment already, by its end; and the latest moment of all that have ended.
    let mut ended: BTreeMap<u64, u64> = BTreeMap::new();
    let mut already = 0;
    for place in order {
        let operation = &history[place];
        while let Some(first) = ended.first_entry().filter(|first| *first.key() < operation.began) {
            already = already.max(first.remove());
        }
        let moment = moment_of(operation, moments.get(&place).copied(), already, timelines, &asked)?;
        // What may still happen later holds nobody to anything.
        if operation.done != Done::Unknown
            && let Some(moment) = moment
        {
            ended.insert(operation.ended, moment);
        }
    }
    Ok(())
}

fn moment_of(
    operation: &Operation,
    effect: Option<u64>,
    already: u64,
    timelines: &HashMap<u64, Timeline>,
    asked: &HashMap<(u64, u64), u64>,
) -> Result<Option<u64>, Violation> {
    if let Some(revision) = effect {
        if revision <= already {
            return Err(Violation::OrderAgainstTime { operation: operation.clone(), already });
        }
        return Ok(Some(revision));
    }
    let first = |wanted: &dyn Fn(State) -> bool| first_moment(timelines.get(&operation.key), already, wanted);
    let stale = || Violation::StaleRead { operation: operation.clone(), already };
    match (&operation.kind, &operation.done) {
        (_, Done::Torn(..)) => Err(Violation::TornList(operation.clone())),
        (Kind::ReadAny, Done::Found { version, value }) => {
            old_but_true(operation, (*version, *value), timelines, asked).map(|()| None)
        }
        (Kind::ReadAny, _) => Ok(None),
        (Kind::Read | Kind::Confirm { .. }, Done::Found { version, value }) => {
            let found = Some((*version, *value));
            let states = timelines.get(&operation.key);
            if states.and_then(|timeline| timeline.get(version)) != Some(&found) {
                return Err(Violation::ReadOfNothingWritten(operation.clone()));
            }
            first(&|state| state == found).ok_or_else(stale).map(Some)
        }
        (_, Done::Absent) => first(&|state| state.is_none()).ok_or_else(stale).map(Some),
        (Kind::Create { .. }, Done::Refused) => first(&|state| state.is_some())
            .ok_or_else(|| Violation::NoReasonToRefuse(operation.clone()))
            .map(Some),
        (
            Kind::Update { expected, .. } | Kind::Confirm { expected, .. } | Kind::Delete { expected },
            Done::Refused,
        ) => first(&|state| state.map(|(version, _)| version) != Some(*expected))
            .ok_or_else(|| Violation::NoReasonToRefuse(operation.clone()))
            .map(Some),
        (_, Done::Listed { revision, items }) => {
            if *revision < already {
                return Err(stale());
            }
            let states = timelines.iter().filter_map(|(key, timeline)| {
                let (_, state) = timeline.range(..=revision).next_back()?;
                Some((*key, (*state)?))
            });
            match states.collect::<BTreeMap<_, _>>() == *items {
                true => Ok(Some(*revision)),
                false => Err(Violation::WrongList(operation.clone())),
            }
        }
        _ => Ok(None),
    }
}

/// The first revision from `already` on at which the key was in a state that is wanted.
fn first_moment(timeline: Option<&Timeline>, already: u64, wanted: &dyn Fn(State) -> bool) -> Option<u64> {
    let Some(timeline) = timeline else { return wanted(None).then_some(already) };
    let now = timeline.range(..=already).next_back().map(|(_, state)| (already, *state));
    let later = timeline.range(already + 1..).map(|(revision, state)| (*revision, *state));
    now.into_iter().chain(later).find(|(_, state)| wanted(*state)).map(|(revision, _)| revision)
}

/// A read that may be old shows what was written, and not before it was asked for; `asked` says when that was, by key
/// and value.
fn old_but_true(
    read: &Operation,
    found: (u64, u64),
    timelines: &HashMap<u64, Timeline>,
    asked: &HashMap<(u64, u64), u64>,
) -> Result<(), Violation> {
    let state = timelines.get(&read.key).and_then(|timeline| timeline.get(&found.0));
    let later = asked.get(&(read.key, found.1)).is_none_or(|began| *began > read.ended);
    match state == Some(&Some(found)) && !later {
        true => Ok(()),
        false => Err(Violation::ReadOfNothingWritten(read.clone())),
    }
}

#[cfg(test)]
mod tests;
