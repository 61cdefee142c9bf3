//! Listing of open sessions.

use std::collections::BTreeSet;

use futures::{StreamExt, stream};
use upload_gateway_core::blobs::{NewObject, OpenSession, Session};

use super::subject::Subject;

/// A day, in milliseconds: no store takes this long to answer.
const DAY: u64 = 24 * 60 * 60 * 1000;

/// All sessions of keys that begin with `prefix`; empty if the store has no sessions.
async fn listed(subject: &Subject, prefix: &str) -> Vec<OpenSession> {
    let mut sessions = Vec::new();
    let mut after: Option<String> = None;
    loop {
        let page = subject.store.list_sessions(prefix, after.as_deref()).await;
        let Some(page) = page.unwrap() else {
            assert!(!subject.sessions, "the store has sessions");
            return Vec::new();
        };
        for session in &page.sessions {
            let age = page.now.0.abs_diff(session.initiated_at.0);
            assert!(age < DAY, "{session:?} at {:?}", page.now);
        }
        sessions.extend(page.sessions);
        after = page.next;
        if after.is_none() {
            return sessions;
        }
    }
}

async fn begin(subject: &Subject, key: String) -> (String, String) {
    let object = NewObject {
        size: None,
        key,
        ..subject.object()
    };
    let id = subject.store.begin(&object).await.unwrap().id;
    (object.key, id)
}

fn names(sessions: Vec<OpenSession>) -> BTreeSet<(String, String)> {
    let names = sessions
        .into_iter()
        .map(|session| (session.key, session.id));
    names.collect()
}

pub(crate) async fn open_sessions_are_listed_until_they_end(subject: &Subject) {
    let mut expected = BTreeSet::new();
    for key in ["swept/a/b", "swept/a/b", "swept/c"] {
        expected.insert(begin(subject, key.into()).await);
    }
    begin(subject, "other/d".into()).await;
    if !subject.sessions {
        assert!(listed(subject, "swept/").await.is_empty());
        return;
    }
    assert_eq!(names(listed(subject, "swept/").await), expected);
    assert_eq!(listed(subject, "swept/a").await.len(), 2);
    assert_eq!(listed(subject, "").await.len(), 4);
    assert!(listed(subject, "swept/x").await.is_empty());

    let (key, id) = expected.pop_first().unwrap();
    let aborted = Session {
        key: &key,
        id: &id,
        scope: None,
    };
    subject.store.abort(&aborted).await.unwrap();
    let (key, id) = expected.pop_first().unwrap();
    let session = Session {
        key: &key,
        id: &id,
        scope: None,
    };
    let part = subject.put(&session, 1, b"part").await;
    let object = NewObject {
        size: None,
        key: key.clone(),
        ..subject.object()
    };
    subject
        .store
        .commit(&session, &object, &[part])
        .await
        .unwrap();
    assert_eq!(names(listed(subject, "swept/").await), expected);
}

pub(crate) async fn more_sessions_than_one_page_are_listed(subject: &Subject) {
    if !subject.sessions {
        return;
    }
    // A page has at most 1,000.
    let begun = (0..1_003).map(|number| begin(subject, format!("swept/{number}")));
    let begun: BTreeSet<_> = stream::iter(begun).buffer_unordered(32).collect().await;
    let sessions = listed(subject, "swept/").await;
    assert_eq!(sessions.len(), 1_003, "none is listed twice");
    assert!(names(sessions) == begun);
}
