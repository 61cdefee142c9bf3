//! The lifecycle of an upload: every event in every phase, in one table.

mod due;

use proptest::{collection::vec, prelude::*};
use upload_gateway_core::upload::{
    ACTIVE_WINDOW, AbortReason, Applied, Cleanup, Crc64Nvme, Denial, Denied, Event, FileMetadata,
    Integrity, Lease, MIB, Md5, Object, PART_SIZE, Part, Phase, Plan, Rejected, StoreKind,
    StoreLimits, Timestamp, Upload, UploadId, WriterTag,
};

const PHASES: [Phase; 5] = [
    Phase::Open,
    Phase::Committing,
    Phase::Complete,
    Phase::Aborted,
    Phase::Deleting,
];

/// The phase after an event in OPEN, COMMITTING, COMPLETE, ABORTED and DELETING; `None` if the event is rejected.
type Row = [Option<Phase>; 5];

/// The table. A new event does not compile without a row.
fn row(event: &Event) -> Row {
    use Phase::{Aborted, Committing, Complete, Deleting, Open};
    match event {
        Event::SessionStarted { .. }
        | Event::SessionForgotten
        | Event::Recut { .. }
        | Event::Continued { .. }
        | Event::PlanFixed { .. }
        | Event::WriterLeft => [Some(Open), None, None, None, None],
        Event::CommitStarted { .. } => [Some(Committing), Some(Committing), None, None, None],
        Event::CommitSuspended { .. } | Event::LeaseRenewed { .. } => {
            [None, Some(Committing), None, None, None]
        }
        Event::CommitSigned | Event::Superseded => [Some(Open), None, None, None, None],
        Event::Denied(_) | Event::Undenied => [Some(Open), Some(Committing), None, None, None],
        Event::CommitReopened => [Some(Open), Some(Open), None, None, None],
        Event::Committed { .. } => [Some(Complete), Some(Complete), Some(Complete), None, None],
        // While a committer has the lease, the upload cannot be abandoned.
        Event::Refused(_) | Event::Abandoned { .. } => {
            [Some(Aborted), Some(Aborted), None, Some(Aborted), None]
        }
        Event::Deleted | Event::Moved { .. } => [None, None, Some(Deleting), None, Some(Deleting)],
        Event::MoveStarted { .. } | Event::ObjectChanged { .. } | Event::KeptUntil { .. } => {
            [None, None, Some(Complete), None, None]
        }
        // The sweeper's, of a file that has expired.
        Event::FileExpired { .. } => [None, None, Some(Deleting), None, Some(Deleting)],
        Event::Amended => [Some(Open), Some(Committing), None, None, None],
        Event::Kept { .. } => [Some(Open), Some(Committing), Some(Complete), None, None],
    }
}

fn other() -> UploadId {
    format!("uploads-{:016x}-{:032x}", 1, 2).parse().unwrap()
}

fn limits() -> StoreLimits {
    StoreLimits {
        max_parts: 10_000,
        max_part_size: 64 * MIB,
        max_object_size: 1 << 40,
        equal_parts: false,
    }
}

fn upload(phase: Phase) -> Upload {
    let mut upload = Upload {
        file: FileMetadata {
            file_name: "a".into(),
            ..FileMetadata::default()
        },
        storage_id: "s".into(),
        object_key: "k".into(),
        writer: WriterTag::from_bits(1),
        ..Upload::begun(
            UploadId::generate(None),
            StoreKind::S3,
            Plan::unknown(PART_SIZE, &limits()),
            Timestamp(0),
        )
    };
    match phase {
        Phase::Open => {}
        Phase::Committing => drop(upload.apply(commit(10)).unwrap()),
        Phase::Complete => {
            upload.apply(commit(10)).unwrap();
            upload
                .apply(Event::Committed {
                    object: object(),
                    at: Timestamp(0),
                })
                .unwrap();
        }
        Phase::Aborted => drop(upload.apply(abandoned(0)).unwrap()),
        Phase::Deleting => {
            upload
                .apply(Event::Committed {
                    object: object(),
                    at: Timestamp(0),
                })
                .unwrap();
            upload.apply(Event::Deleted).unwrap();
        }
    }
    assert_eq!(upload.phase, phase);
    upload
}

/// A commit that begins at `now` milliseconds, for ten of them.
fn commit(now: u64) -> Event {
    Event::CommitStarted {
        lease: lease_until(now + 10),
        now: Timestamp(now),
        file_size: 7,
        runs_until: Timestamp(now + 20),
    }
}

/// The committer stops, and its lease becomes this one.
fn suspended(lease: Lease) -> Event {
    Event::CommitSuspended {
        lease,
        runs_until: None,
        is_acknowledged: false,
    }
}

/// The owner deletes the upload at `now` milliseconds.
fn abandoned(now: u64) -> Event {
    Event::Abandoned {
        reason: AbortReason::Deleted,
        now: Timestamp(now),
    }
}

/// The file is kept for another time.
fn kept(expire_after: Option<u64>) -> Event {
    let now = Timestamp(40);
    Event::Kept { expire_after, now }
}

/// The store denies the session.
fn denied() -> Event {
    Event::Denied(Denial {
        denied: Denied::Session,
        settles_at: Timestamp(30),
    })
}

fn lease_until(until: u64) -> Lease {
    Lease {
        holder: WriterTag::random(),
        until: Timestamp(until),
    }
}

fn object() -> Object {
    Object {
        bucket: "b".into(),
        key: "k".into(),
        etag: "e".into(),
        size: 7,
        md5: None,
        crc64nvme: None,
    }
}

#[test]
fn every_event_in_every_phase_does_what_the_table_says() {
    let events = [
        Event::SessionStarted {
            session: "x".into(),
            integrity: Integrity::Md5,
        },
        Event::SessionForgotten,
        Event::Recut { cut: 0 },
        Event::Continued {
            with: 1,
            unproven: Some(2),
        },
        Event::PlanFixed { shown: None },
        Event::WriterLeft,
        // By then the lease of the running commit has expired.
        commit(100),
        suspended(lease_until(100)),
        Event::CommitSigned,
        denied(),
        Event::Undenied,
        Event::Superseded,
        Event::CommitReopened,
        Event::Committed {
            object: object(),
            at: Timestamp(0),
        },
        Event::Refused(AbortReason::SessionLost),
        abandoned(100),
        Event::Deleted,
        Event::MoveStarted { to: other() },
        Event::ObjectChanged { at: Timestamp(5) },
        Event::Amended,
        Event::KeptUntil { at: None },
        Event::Moved {
            to: other(),
            expires: None,
        },
        kept(Some(7)),
        kept(None),
    ];
    for event in events {
        for (phase, expected) in PHASES.into_iter().zip(row(&event)) {
            let before = upload(phase);
            let mut after = before.clone();
            let result = after.apply(event.clone());
            match expected {
                None => {
                    assert_eq!(result, Err(Rejected(phase)), "{event:?}");
                    assert_eq!(
                        after, before,
                        "{event:?} was refused in {phase} and changed the record"
                    );
                }
                Some(expected) => {
                    let applied = result.unwrap();
                    assert_eq!(after.phase, expected, "{event:?} in {phase}");
                    assert_eq!(
                        applied == Applied::Same,
                        after == before,
                        "{event:?} in {phase}"
                    );
                    // Repeating it changes nothing.
                    let once = after.clone();
                    assert_eq!(
                        after.apply(event.clone()),
                        Ok(Applied::Same),
                        "{event:?} in {phase}"
                    );
                    assert_eq!(after, once);
                }
            }
        }
    }
}

#[test]
fn one_committer_at_a_time_holds_the_lease() {
    let mut upload = upload(Phase::Open);
    upload.apply(commit(10)).unwrap();
    let held = upload.clone();
    assert_eq!(upload.apply(commit(15)), Err(Rejected(Phase::Committing)));
    assert_eq!(upload, held);
    assert_eq!(upload.apply(commit(20)), Ok(Applied::Changed));
}

#[test]
fn a_committer_that_stops_shortens_only_its_own_lease() {
    let mut upload = upload(Phase::Open);
    upload.apply(commit(10)).unwrap();
    let held = upload.lease.unwrap();
    for lease in [
        lease_until(12),
        Lease {
            until: Timestamp(25),
            ..held
        },
    ] {
        assert_eq!(upload.apply(suspended(lease)), Ok(Applied::Same));
        assert_eq!(upload.lease, Some(held));
    }
    let until = Timestamp(12);
    let shorter = suspended(Lease { until, ..held });
    assert_eq!(upload.apply(shorter), Ok(Applied::Changed));
    assert_eq!(upload.apply(commit(11)), Err(Rejected(Phase::Committing)));
    assert_eq!(upload.apply(commit(12)), Ok(Applied::Changed));
}

#[test]
fn a_session_that_holds_parts_is_not_forgotten() {
    let mut upload = upload(Phase::Open);
    let begun = |session: &str| Event::SessionStarted {
        session: session.into(),
        integrity: Integrity::Md5,
    };
    upload.apply(begun("one")).unwrap();
    upload.apply(Event::SessionForgotten).unwrap();
    upload.apply(begun("other")).unwrap();
    upload.parts.insert(Part {
        number: 1,
        offset: 0,
        size: 7,
        checksum: None,
        receipt: "r".into(),
        digest: None,
    });
    let forgotten = upload.apply(Event::SessionForgotten);
    assert_eq!(forgotten, Err(Rejected(Phase::Open)));
    assert_eq!(upload.session.as_deref(), Some("other"));
}

#[test]
fn a_session_is_not_replaced_by_another() {
    let mut upload = upload(Phase::Open);
    upload
        .apply(Event::SessionStarted {
            session: "one".into(),
            integrity: Integrity::Md5,
        })
        .unwrap();
    assert_eq!(
        upload.apply(Event::SessionStarted {
            session: "other".into(),
            integrity: Integrity::Md5,
        }),
        Err(Rejected(Phase::Open))
    );
    assert_eq!(upload.session.as_deref(), Some("one"));
}

/// Two callers that commit or inspect the same parts record the same object.
#[test]
fn an_object_is_recorded_once_whatever_its_etag() {
    let md5 = |bytes: &[u8]| Some(Md5::of(bytes));
    let committed = |object| Event::Committed {
        object,
        at: Timestamp(0),
    };
    let mut upload = upload(Phase::Committing);
    let object = Object {
        md5: md5(b"a"),
        ..object()
    };
    upload.apply(committed(object.clone())).unwrap();
    for (etag, md5, size, expected) in [
        ("other", object.md5, object.size, Ok(Applied::Same)),
        ("e", None, object.size, Ok(Applied::Same)),
        ("e", md5(b"b"), object.size, Err(Rejected(Phase::Complete))),
        ("e", None, 8, Err(Rejected(Phase::Complete))),
    ] {
        let again = Object {
            etag: etag.into(),
            md5,
            size,
            ..object.clone()
        };
        assert_eq!(
            upload.apply(committed(again)),
            expected,
            "{etag} {md5:?} {size}"
        );
        assert_eq!(upload.object.as_ref(), Some(&object));
    }
}

/// Any event. There are few sessions, holders, times and objects, so that they recur.
fn any_event() -> impl Strategy<Value = Event> {
    let session = || prop_oneof![Just("one".to_owned()), Just("other".to_owned())];
    let holder = (1u32..=2).prop_map(|bits| WriterTag::from_bits(bits).unwrap());
    prop_oneof![
        session().prop_map(|session| Event::SessionStarted {
            session,
            integrity: Integrity::Md5
        }),
        Just(Event::SessionForgotten),
        (0u8..3).prop_map(|cut| Event::Recut { cut }),
        (0u32..3, prop::option::of(1u32..3))
            .prop_map(|(with, unproven)| Event::Continued { with, unproven }),
        Just(Event::PlanFixed { shown: None }),
        (holder.clone(), 0u64..40).prop_map(|(holder, until)| suspended(Lease {
            holder,
            until: Timestamp(until),
        })),
        (holder.clone(), 0u64..40).prop_map(|(holder, until)| Event::LeaseRenewed {
            lease: Lease {
                holder,
                until: Timestamp(until),
            },
            runs_until: Timestamp(until),
        }),
        (holder, 0u64..30).prop_map(|(holder, now)| Event::CommitStarted {
            lease: Lease {
                holder,
                until: Timestamp(now + 10),
            },
            now: Timestamp(now),
            file_size: 7,
            runs_until: Timestamp(now + 20),
        }),
        Just(Event::WriterLeft),
        Just(Event::CommitReopened),
        prop_oneof![Just("e"), Just("f")].prop_map(|etag| Event::Committed {
            object: Object {
                etag: etag.into(),
                ..object()
            },
            at: Timestamp(0),
        }),
        Just(Event::CommitSigned),
        Just(denied()),
        Just(Event::Undenied),
        Just(Event::Superseded),
        Just(Event::Refused(AbortReason::PartReplaced)),
        (0u64..40).prop_map(abandoned),
        Just(Event::Deleted),
        Just(Event::MoveStarted { to: other() }),
        Just(Event::ObjectChanged { at: Timestamp(5) }),
        Just(Event::Amended),
        Just(Event::Moved {
            to: other(),
            expires: None
        }),
        prop::option::of(1_u64..3).prop_map(kept),
    ]
}

proptest! {
    #[test]
    fn every_sequence_of_events_keeps_the_invariants(events in vec(any_event(), 0..40)) {
        let mut upload = upload(Phase::Open);
        for event in events {
            let before = upload.clone();
            let applied = upload.apply(event.clone());
            match applied {
                Ok(Applied::Changed) => prop_assert_ne!(&upload, &before),
                Ok(Applied::Same) | Err(_) => prop_assert_eq!(&upload, &before, "{:?}", event),
            }
            // The table holds, whatever the events before.
            if applied.is_ok() {
                let known = PHASES.into_iter().zip(row(&event));
                let expected = known.filter(|(phase, _)| *phase == before.phase);
                let expected: Vec<_> = expected.map(|(_, next)| next).collect();
                prop_assert_eq!(expected, [Some(upload.phase)]);
            }
            // An upload that has ended never resumes, and its object stays the same.
            if !before.is_live() {
                let deletes = matches!(event, Event::Deleted | Event::Moved { .. });
                let is_deleted = deletes && before.phase == Phase::Complete;
                prop_assert!(upload.phase == before.phase || is_deleted);
                prop_assert_eq!(&upload.object, &before.object);
            }
            let had_object = matches!(upload.phase, Phase::Complete | Phase::Deleting);
            prop_assert_eq!(upload.object.is_some(), had_object);
            prop_assert_eq!(upload.lease.is_some(), upload.phase == Phase::Committing);
            // The lease of a commit is not taken over before it has expired.
            if let (Some(held), Event::CommitStarted { lease, now, .. }) = (before.lease, event)
                && held.holder != lease.holder
                && held.until > now
            {
                prop_assert_eq!(upload.lease, Some(held));
            }
        }
    }
}

#[test]
fn the_integrity_of_a_session_is_fixed_when_it_begins() {
    let mut upload = upload(Phase::Open);
    let begun = |integrity| Event::SessionStarted {
        session: "one".into(),
        integrity,
    };
    upload.apply(begun(Integrity::Crc64Nvme)).unwrap();
    assert_eq!(upload.apply(begun(Integrity::Md5)), Ok(Applied::Same));
    assert_eq!(upload.session_integrity(), Integrity::Crc64Nvme);
    upload.apply(Event::SessionForgotten).unwrap();
    assert_eq!(upload.session_integrity(), Integrity::Md5);
}

#[test]
fn a_part_shows_the_integrity_that_a_release_before_has_dropped() {
    let mut upload = upload(Phase::Open);
    let part = |number, checksum| Part {
        number,
        offset: 0,
        size: 7,
        checksum: Some(checksum),
        receipt: "r".into(),
        digest: None,
    };
    upload.parts.insert(part(1, Md5::of(b"a").into()));
    assert_eq!(upload.session_integrity(), Integrity::Md5);
    upload.parts.insert(part(2, Crc64Nvme(1).into()));
    upload.parts.insert(part(3, Md5::of(b"b").into()));
    assert_eq!(upload.session_integrity(), Integrity::Crc64Nvme);
}
