//! When an upload or its file is due.

use super::*;

#[test]
fn an_upload_is_due_when_it_expires_or_its_lease_ends() {
    let mut open = upload(Phase::Open);
    (open.expires_at, open.ends_at) = (Timestamp(50), Timestamp(90));
    assert_eq!(open.due_at(), Some(Timestamp(50)));
    open.expires_at = Timestamp(100);
    assert_eq!(open.due_at(), Some(Timestamp(90)));
    assert_eq!(open.expiry(), Timestamp(90));
    open.apply(commit(10)).unwrap();
    assert_eq!(open.due_at(), Some(open.lease.unwrap().until));
    assert_eq!(upload(Phase::Complete).due_at(), None);
    assert_eq!(upload(Phase::Deleting).due_at(), Some(Timestamp(0)));
    let mut aborted = upload(Phase::Aborted);
    assert_eq!(aborted.due_at(), Some(aborted.expires_at));
    aborted.cleanup = Cleanup::Done;
    assert_eq!(aborted.due_at(), None);
}

#[test]
fn a_file_expires_at_a_time_after_its_completion() {
    let mut complete = upload(Phase::Complete);
    assert_eq!((complete.due_at(), complete.expires()), (None, None));
    assert_eq!(complete.apply(kept(Some(7))), Ok(Applied::Changed));
    assert_eq!(complete.due_at(), Some(Timestamp(7_040)));
    assert_eq!(complete.expires(), complete.due_at());
    let expired = |by| Event::FileExpired { by: Timestamp(by) };
    let refused = Err(Rejected(Phase::Complete));
    assert_eq!(complete.apply(expired(7_039)), refused);
    let mut deleted = complete.clone();
    assert_eq!(deleted.apply(expired(7_040)), Ok(Applied::Changed));
    assert_eq!(deleted.phase, Phase::Deleting);
    // A caller keeps the file after the sweeper has read the record.
    complete.apply(kept(None)).unwrap();
    assert_eq!(complete.due_at(), None);
    assert_eq!(complete.apply(expired(7_040)), refused);
    // Before completion only the length of the time is known.
    let mut open = upload(Phase::Open);
    let due_at = open.due_at();
    open.apply(kept(Some(7))).unwrap();
    assert_eq!((open.file.expire_after, open.due_at()), (Some(7), due_at));
}

#[test]
fn a_denial_makes_an_upload_due_when_it_settles() {
    let mut open = upload(Phase::Open);
    (open.expires_at, open.ends_at) = (Timestamp(50), Timestamp(90));
    open.apply(denied()).unwrap();
    assert_eq!(open.due_at(), Some(Timestamp(30)));
    open.apply(Event::Undenied).unwrap();
    assert_eq!(open.due_at(), Some(Timestamp(50)));
    open.apply(Event::Refused(AbortReason::SessionLost))
        .unwrap();
    assert_eq!(open.abort_reason, Some(AbortReason::SessionLost));
    assert_eq!(open.due_at(), Some(Timestamp(0)), "the sweeper cleans up");
}

#[test]
fn a_denial_keeps_the_time_of_the_first_observation() {
    let mut upload = upload(Phase::Open);
    upload.apply(denied()).unwrap();
    let later = Denial {
        denied: Denied::Session,
        settles_at: Timestamp(60),
    };
    assert_eq!(upload.apply(Event::Denied(later)), Ok(Applied::Same));
    let denial = upload.evidence.denial.unwrap();
    assert_eq!(denial.settles_at, Timestamp(30));
}

#[test]
fn an_upload_is_abandoned_only_when_no_committer_has_the_lease() {
    let mut upload = upload(Phase::Open);
    upload.apply(commit(10)).unwrap();
    assert_eq!(
        upload.apply(abandoned(19)),
        Err(Rejected(Phase::Committing))
    );
    assert_eq!(upload.apply(abandoned(20)), Ok(Applied::Changed));
}

#[test]
fn age_ends_an_upload_only_if_it_is_not_active() {
    let mut upload = upload(Phase::Open);
    upload.ends_at = Timestamp(0).plus(ACTIVE_WINDOW * 2);
    upload.updated_at = upload.ends_at;
    upload.expires_at = upload.ends_at.plus(ACTIVE_WINDOW * 9);
    let quiet = upload.updated_at.plus(ACTIVE_WINDOW);
    assert!(!upload.has_expired(Timestamp(quiet.0 - 1)));
    assert!(upload.has_expired(quiet));
    // Expiry by idleness ends it at once.
    upload.expires_at = upload.ends_at;
    assert!(upload.has_expired(upload.ends_at));
    upload.apply(commit(10)).unwrap();
    assert!(
        !upload.has_expired(Timestamp::never()),
        "it is no longer open"
    );
}
