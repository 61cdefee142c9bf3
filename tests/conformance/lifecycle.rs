//! The life of an upload: every event in every phase, by one table.

use proptest::{collection::vec, prelude::*};
use upload_gateway_core::upload::{
    ACTIVE_WINDOW, Applied, Claims, Event, FileMetadata, Lease, MIB, Object, Owner, PART_SIZE,
    Part, Parts, Phase, Plan, Rejected, StoreKind, StoreLimits, Timestamp, Upload, UploadId,
    WriterTag,
};

const PHASES: [Phase; 4] = [
    Phase::Open,
    Phase::Committing,
    Phase::Complete,
    Phase::Aborted,
];

/// What comes of an event in OPEN, COMMITTING, COMPLETE and ABORTED: a phase, `None` where it is refused.
type Row = [Option<Phase>; 4];

/// The table. A new event does not compile without its row.
fn row(event: &Event) -> Row {
    use Phase::{Aborted, Committing, Complete, Open};
    match event {
        Event::SessionStarted { .. } | Event::SessionReplaced { .. } | Event::WriterLeft => {
            [Some(Open), None, None, None]
        }
        Event::CommitStarted { .. } => [Some(Committing), Some(Committing), None, None],
        Event::CommitSuspended { .. } => [None, Some(Committing), None, None],
        Event::CommitReopened => [Some(Open), Some(Open), None, None],
        Event::Committed { .. } => [Some(Complete), Some(Complete), Some(Complete), None],
        Event::Refused => [Some(Aborted), Some(Aborted), None, Some(Aborted)],
        Event::Abandoned => [Some(Aborted), None, None, Some(Aborted)],
    }
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
        id: UploadId::generate(None),
        version: 1,
        phase: Phase::Open,
        file: FileMetadata {
            file_name: "a".into(),
            ..FileMetadata::default()
        },
        owner: Owner::default(),
        storage_id: "s".into(),
        store_kind: StoreKind::S3,
        object_key: "k".into(),
        plan: Plan::unknown(PART_SIZE, &limits()),
        fingerprint: None,
        session: None,
        writer: WriterTag::from_bits(1),
        lease: None,
        parts: Parts::default(),
        claims: Claims::default(),
        opaque_file_id: false,
        swept: false,
        object: None,
        created_at: Timestamp(0),
        updated_at: Timestamp(0),
        expires_at: Timestamp(0),
        ends_at: Timestamp::never(),
    };
    match phase {
        Phase::Open => {}
        Phase::Committing => drop(upload.apply(commit(10)).unwrap()),
        Phase::Complete => {
            upload.apply(commit(10)).unwrap();
            upload.apply(Event::Committed { object: object() }).unwrap();
        }
        Phase::Aborted => drop(upload.apply(Event::Abandoned).unwrap()),
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
    }
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
    }
}

#[test]
fn every_event_in_every_phase_does_what_the_table_says() {
    let events = [
        Event::SessionStarted {
            session: "x".into(),
        },
        Event::SessionReplaced {
            session: Some("x".into()),
        },
        Event::WriterLeft,
        // The lease of the commit under way has ended by then.
        commit(100),
        Event::CommitSuspended {
            lease: lease_until(100),
        },
        Event::CommitReopened,
        Event::Committed { object: object() },
        Event::Refused,
        Event::Abandoned,
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
                    // Repeated, it does nothing more.
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
fn one_commits_at_a_time_until_its_lease_ends() {
    let mut upload = upload(Phase::Open);
    upload.apply(commit(10)).unwrap();
    let held = upload.clone();
    assert_eq!(upload.apply(commit(15)), Err(Rejected(Phase::Committing)));
    assert_eq!(upload, held);
    assert_eq!(upload.apply(commit(20)), Ok(Applied::Changed));
}

#[test]
fn a_committer_that_gives_up_shortens_its_own_lease_and_no_other() {
    let mut upload = upload(Phase::Open);
    upload.apply(commit(10)).unwrap();
    let suspended = |lease| Event::CommitSuspended { lease };
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
fn a_session_that_holds_parts_is_not_replaced() {
    let mut upload = upload(Phase::Open);
    let event = |session: &str| Event::SessionReplaced {
        session: Some(session.into()),
    };
    upload.apply(event("one")).unwrap();
    upload.apply(event("other")).unwrap();
    upload.parts.insert(Part {
        number: 1,
        offset: 0,
        size: 7,
        md5: None,
        receipt: "r".into(),
        digest: None,
    });
    assert_eq!(upload.apply(event("one")), Err(Rejected(Phase::Open)));
    assert_eq!(upload.session.as_deref(), Some("other"));
}

#[test]
fn a_session_is_kept_for_good() {
    let mut upload = upload(Phase::Open);
    upload
        .apply(Event::SessionStarted {
            session: "one".into(),
        })
        .unwrap();
    assert_eq!(
        upload.apply(Event::SessionStarted {
            session: "other".into()
        }),
        Err(Rejected(Phase::Open))
    );
    assert_eq!(upload.session.as_deref(), Some("one"));
}

/// Any event; sessions, holders, times and objects are few, so that they meet again.
fn any_event() -> impl Strategy<Value = Event> {
    let session = || prop_oneof![Just("one".to_owned()), Just("other".to_owned())];
    let holder = (1u32..=2).prop_map(|bits| WriterTag::from_bits(bits).unwrap());
    prop_oneof![
        session().prop_map(|session| Event::SessionStarted { session }),
        prop::option::of(session()).prop_map(|session| Event::SessionReplaced { session }),
        (holder.clone(), 0u64..40).prop_map(|(holder, until)| Event::CommitSuspended {
            lease: Lease {
                holder,
                until: Timestamp(until),
            },
        }),
        (holder, 0u64..30).prop_map(|(holder, now)| Event::CommitStarted {
            lease: Lease {
                holder,
                until: Timestamp(now + 10),
            },
            now: Timestamp(now),
            file_size: 7,
        }),
        Just(Event::WriterLeft),
        Just(Event::CommitReopened),
        prop_oneof![Just("e"), Just("f")].prop_map(|etag| Event::Committed {
            object: Object {
                etag: etag.into(),
                ..object()
            },
        }),
        Just(Event::Refused),
        Just(Event::Abandoned),
    ]
}

proptest! {
    #[test]
    fn no_sequence_of_events_leads_astray(events in vec(any_event(), 0..40)) {
        let mut upload = upload(Phase::Open);
        for event in events {
            let before = upload.clone();
            let applied = upload.apply(event.clone());
            match applied {
                Ok(Applied::Changed) => prop_assert_ne!(&upload, &before),
                Ok(Applied::Same) | Err(_) => prop_assert_eq!(&upload, &before, "{:?}", event),
            }
            // The table holds whatever came before.
            if applied.is_ok() {
                let known = PHASES.into_iter().zip(row(&event));
                let expected = known.filter(|(phase, _)| *phase == before.phase);
                let expected: Vec<_> = expected.map(|(_, next)| next).collect();
                prop_assert_eq!(expected, [Some(upload.phase)]);
            }
            // What is over stays over, and the object it has stays its object.
            if !before.is_live() {
                prop_assert_eq!(upload.phase, before.phase);
                prop_assert_eq!(&upload.object, &before.object);
            }
            prop_assert_eq!(upload.object.is_some(), upload.phase == Phase::Complete);
            prop_assert_eq!(upload.lease.is_some(), upload.phase == Phase::Committing);
            // Nobody takes a commit from one whose lease has not ended.
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
fn an_upload_is_due_when_it_expires_or_its_committer_should_be_done() {
    let mut open = upload(Phase::Open);
    (open.expires_at, open.ends_at) = (Timestamp(50), Timestamp(90));
    assert_eq!(open.due_at(), Some(Timestamp(50)));
    open.expires_at = Timestamp(100);
    assert_eq!(open.due_at(), Some(Timestamp(90)));
    assert_eq!(open.given_up_at(), Timestamp(90));
    open.apply(commit(10)).unwrap();
    assert_eq!(open.due_at(), Some(open.lease.unwrap().until));
    assert_eq!(upload(Phase::Complete).due_at(), None);
    let mut aborted = upload(Phase::Aborted);
    assert_eq!(aborted.due_at(), Some(aborted.expires_at));
    aborted.swept = true;
    assert_eq!(aborted.due_at(), None);
}

#[test]
fn age_ends_an_upload_only_when_nobody_is_at_work_on_it() {
    let mut upload = upload(Phase::Open);
    upload.ends_at = Timestamp(0).plus(ACTIVE_WINDOW * 2);
    upload.updated_at = upload.ends_at;
    upload.expires_at = upload.ends_at.plus(ACTIVE_WINDOW * 9);
    let quiet = upload.updated_at.plus(ACTIVE_WINDOW);
    assert!(!upload.has_expired(Timestamp(quiet.0 - 1)));
    assert!(upload.has_expired(quiet));
    // Idleness ends it at once.
    upload.expires_at = upload.ends_at;
    assert!(upload.has_expired(upload.ends_at));
    upload.apply(commit(10)).unwrap();
    assert!(
        !upload.has_expired(Timestamp::never()),
        "it is no longer open"
    );
}
