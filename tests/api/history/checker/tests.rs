//! Histories written by hand, right ones and one for every way to be wrong.

use super::*;

fn operation(key: u64, kind: Kind, (began, ended): (u64, u64), done: Done) -> Operation {
    Operation { key, kind, began, ended, done }
}

fn seen(key: u64, revision: u64, change: Change, value: u64) -> Seen {
    Seen { key, revision, change, value }
}

/// Key 1: created as 11, updated as 13 and deleted as 14; key 2: created as 12. Nothing overlaps.
fn right() -> (Vec<Operation>, Vec<Segment>) {
    let found = |version, value| Done::Found { version, value };
    let history = vec![
        operation(1, Kind::Create { value: 100 }, (1, 2), Done::Wrote(11)),
        operation(1, Kind::Read, (3, 4), found(11, 100)),
        operation(2, Kind::Create { value: 200 }, (5, 6), Done::Wrote(12)),
        operation(1, Kind::Create { value: 101 }, (7, 8), Done::Refused),
        operation(1, Kind::Update { value: 102, expected: 11 }, (9, 10), Done::Wrote(13)),
        operation(1, Kind::Update { value: 103, expected: 11 }, (11, 12), Done::Refused),
        operation(
            0,
            Kind::List,
            (13, 14),
            Done::Listed { revision: 13, items: BTreeMap::from([(1, (13, 102)), (2, (12, 200))]) },
        ),
        operation(1, Kind::Delete { expected: 13 }, (15, 16), Done::Deleted),
        operation(1, Kind::Read, (17, 18), Done::Absent),
        operation(1, Kind::ReadAny, (19, 20), found(13, 102)),
        operation(2, Kind::Read, (21, 22), found(12, 200)),
        operation(1, Kind::Delete { expected: 13 }, (23, 24), Done::Absent),
    ];
    let all = vec![
        seen(1, 11, Change::Added, 100),
        seen(2, 12, Change::Added, 200),
        seen(1, 13, Change::Modified, 102),
        seen(1, 14, Change::Deleted, 102),
    ];
    let resumed = Segment { from: 12, until: 14, seen: all[2..].to_vec() };
    (history, vec![Segment { from: 10, until: 14, seen: all }, resumed])
}

/// The verdict after something was changed in the right history.
fn verdict(spoil: impl FnOnce(&mut Vec<Operation>, &mut Vec<Segment>)) -> Result<(), Violation> {
    let (mut history, mut watches) = right();
    spoil(&mut history, &mut watches);
    check(10, &history, &watches)
}

#[test]
fn a_right_history_passes() {
    verdict(|_, _| {}).unwrap();
}

#[test]
fn operations_that_overlap_may_take_effect_in_either_order() {
    // The read begins before the update ends: old and new are both right.
    for (version, value) in [(11, 100), (13, 102)] {
        verdict(|history, _| {
            history.truncate(5);
            let done = Done::Found { version, value };
            history.push(operation(1, Kind::Read, (9, 11), done));
            history.push(operation(1, Kind::Delete { expected: 13 }, (15, 16), Done::Deleted));
        })
        .unwrap();
    }
}

#[test]
fn what_is_unknown_may_have_happened_or_not() {
    verdict(|history, _| history[4].done = Done::Unknown).unwrap();
    verdict(|history, _| history[7].done = Done::Unknown).unwrap();
    verdict(|history, _| {
        let update = Kind::Update { value: 999, expected: 12 };
        history.push(operation(2, update, (30, 31), Done::Unknown));
    })
    .unwrap();
}

#[test]
fn of_two_unknown_deletions_the_first_may_have_happened() {
    verdict(|history, _| {
        let delete = |times| operation(1, Kind::Delete { expected: 13 }, times, Done::Unknown);
        history[7] = delete((15, 16));
        history.insert(0, delete((30, 31)));
    })
    .unwrap();
}

#[test]
fn a_lost_write_is_found() {
    let verdict = verdict(|history, _| {
        history.push(operation(3, Kind::Create { value: 300 }, (30, 31), Done::Wrote(15)));
    });
    assert!(matches!(verdict, Err(Violation::LostWrite(_))), "{verdict:?}");
    let lost = self::verdict(|_, watches| {
        watches.iter_mut().for_each(|watch| {
            watch.seen.pop();
        });
    });
    assert!(matches!(lost, Err(Violation::LostWrite(_))), "{lost:?}");
}

#[test]
fn a_stale_read_is_found() {
    for (place, done) in [
        // The version before the update that had ended.
        (8, Done::Found { version: 13, value: 102 }),
        // Absent, though nothing deletes it.
        (10, Done::Absent),
    ] {
        let verdict = verdict(|history, _| history[place].done = done);
        assert!(matches!(verdict, Err(Violation::StaleRead { .. })), "{verdict:?}");
    }
    let old = verdict(|history, _| {
        history[6].done =
            Done::Listed { revision: 12, items: BTreeMap::from([(1, (11, 100)), (2, (12, 200))]) }
    });
    assert!(matches!(old, Err(Violation::StaleRead { .. })), "{old:?}");
}

#[test]
fn an_update_that_changes_nothing_must_not_rest_on_an_old_state() {
    let confirm = Kind::Confirm { value: 100, expected: 11 };
    for (began, fine) in [(3, true), (17, false)] {
        let verdict = verdict(|history, _| {
            let done = Done::Found { version: 11, value: 100 };
            history.push(operation(1, confirm.clone(), (began, 18), done));
        });
        assert_eq!(verdict.is_ok(), fine, "{verdict:?}");
    }
}

#[test]
fn reads_that_go_back_in_time_are_found() {
    // Both overlap the update; the second began after the first had ended.
    let verdict = verdict(|history, _| {
        history[4].began = 9;
        history[4].ended = 16;
        history.truncate(5);
        let found = |version, value| Done::Found { version, value };
        history.push(operation(1, Kind::Read, (10, 11), found(13, 102)));
        history.push(operation(1, Kind::Read, (12, 13), found(11, 100)));
        history.push(operation(1, Kind::Delete { expected: 13 }, (17, 18), Done::Deleted));
    });
    assert!(matches!(verdict, Err(Violation::StaleRead { .. })), "{verdict:?}");
}

#[test]
fn a_read_of_what_is_written_later_is_found() {
    let verdict = verdict(|history, _| history[1].done = Done::Found { version: 13, value: 102 });
    assert!(matches!(verdict, Err(Violation::OrderAgainstTime { .. })), "{verdict:?}");
    let any = self::verdict(|history, _| {
        let done = Done::Found { version: 13, value: 102 };
        history.push(operation(1, Kind::ReadAny, (1, 3), done));
    });
    assert!(matches!(any, Err(Violation::ReadOfNothingWritten(_))), "{any:?}");
}

#[test]
fn revisions_against_time_are_found() {
    let verdict = verdict(|history, watches| {
        // Key 2 was created after key 1, but with a smaller revision.
        history[0] = operation(1, Kind::Create { value: 100 }, (1, 2), Done::Wrote(12));
        history[1].done = Done::Found { version: 12, value: 100 };
        history[2].done = Done::Wrote(11);
        history.truncate(3);
        let seen = vec![seen(2, 11, Change::Added, 200), seen(1, 12, Change::Added, 100)];
        *watches = vec![Segment { from: 10, until: 12, seen }];
    });
    assert!(matches!(verdict, Err(Violation::OrderAgainstTime { .. })), "{verdict:?}");
}

#[test]
fn a_blind_overwrite_is_found() {
    let verdict = verdict(|history, _| {
        history[4].kind = Kind::Update { value: 102, expected: 7 };
    });
    assert!(matches!(verdict, Err(Violation::NotWhatWasExpected { .. })), "{verdict:?}");
}

#[test]
fn what_was_refused_must_not_have_happened() {
    let verdict = verdict(|history, _| history[4].done = Done::Refused);
    assert!(matches!(verdict, Err(Violation::RefusedButDone(..))), "{verdict:?}");
    let deleted = self::verdict(|history, _| history[7].done = Done::Refused);
    assert!(matches!(deleted, Err(Violation::NobodyAskedFor(_))), "{deleted:?}");
}

#[test]
fn a_refusal_needs_a_reason() {
    let verdict = verdict(|history, _| {
        history.push(operation(1, Kind::Create { value: 104 }, (30, 31), Done::Refused));
    });
    assert!(matches!(verdict, Err(Violation::NoReasonToRefuse(_))), "{verdict:?}");
}

#[test]
fn two_clients_cannot_delete_one_version() {
    let verdict = verdict(|history, _| history[11].done = Done::Deleted);
    assert!(matches!(verdict, Err(Violation::DeletedTwice(_))), "{verdict:?}");
}

#[test]
fn an_update_in_two_halves_is_found() {
    // The update appears as a deletion and a creation.
    let verdict = verdict(|_, watches| {
        watches.truncate(1);
        let halves = [seen(1, 13, Change::Deleted, 100), seen(1, 14, Change::Added, 102)];
        watches[0].seen.splice(2..4, halves);
        watches[0].seen.push(seen(1, 15, Change::Deleted, 102));
    });
    assert!(matches!(verdict, Err(Violation::NobodyAskedFor(_))), "{verdict:?}");
}

#[test]
fn a_list_shows_all_of_one_revision() {
    let lists = [
        BTreeMap::from([(1, (13, 102))]),
        BTreeMap::from([(1, (11, 100)), (2, (12, 200))]),
        BTreeMap::from([(1, (13, 102)), (2, (12, 200)), (3, (9, 9))]),
    ];
    for items in lists {
        let verdict = verdict(|history, _| history[6].done = Done::Listed { revision: 13, items });
        assert!(matches!(verdict, Err(Violation::WrongList(_))), "{verdict:?}");
    }
    let torn = verdict(|history, _| history[6].done = Done::Torn(12, 13));
    assert!(matches!(torn, Err(Violation::TornList(_))), "{torn:?}");
}

#[test]
fn a_missing_event_is_found() {
    // By one of two watches.
    for place in 0..2 {
        let verdict = verdict(|_, watches| {
            watches[place].seen.remove(0);
        });
        assert!(
            matches!(verdict, Err(Violation::WatchMissed { .. } | Violation::WatchOfTheImpossible { .. })),
            "{verdict:?}"
        );
    }
    // By all of them.
    let verdict = verdict(|_, watches| {
        watches[0].seen.remove(2);
        watches[1].seen.remove(0);
    });
    assert!(verdict.is_err());
}

#[test]
fn an_event_out_of_order_is_found() {
    let verdict = verdict(|_, watches| watches[0].seen.swap(2, 3));
    assert!(matches!(verdict, Err(Violation::WatchOutOfOrder { .. })), "{verdict:?}");
}

#[test]
fn an_event_that_comes_twice_is_found() {
    let same = verdict(|_, watches| {
        let again = watches[0].seen[3].clone();
        watches[0].seen.push(again);
    });
    assert!(matches!(same, Err(Violation::WatchOutOfOrder { .. })), "{same:?}");
    let later = verdict(|_, watches| {
        let again = Seen { revision: 15, ..watches[0].seen[2].clone() };
        watches[0].seen.push(again);
    });
    assert!(matches!(later, Err(Violation::WatchOfTheImpossible { .. })), "{later:?}");
}

#[test]
fn watches_that_disagree_are_found() {
    let verdict = verdict(|_, watches| watches[1].seen[0].value = 7);
    assert!(matches!(verdict, Err(Violation::WatchesDisagree(..))), "{verdict:?}");
}
