//! Filters that indexes answer, alone and together.

use upload_gateway_core::{
    error::Kind,
    gateway::{Caller, Roles, Scope, Search, Start},
    state::Created,
    upload::Phase,
};

use super::{Subject, names};
use crate::state::samples::{self, create, get};

/// The names on all pages.
async fn all_names(subject: &Subject, search: &Search, limit: usize) -> Vec<String> {
    let (mut listed, mut next) = (Vec::new(), Some(Start::default()));
    while let Some(start) = next {
        let found = subject.list(search, start, limit).await;
        assert!(found.uploads.len() <= limit);
        assert_eq!(found.first, listed.len() as u64);
        listed.extend(names(&found));
        next = found.next;
    }
    listed
}

pub(super) async fn names_are_found_by_their_beginning(subject: &Subject) {
    for (age, (name, storage_id)) in [
        ("Report 2.pdf", "media"),
        ("REPORT 1.pdf", "archive"),
        ("a report", "media"),
        ("report 3 \u{fc}.pdf", "media"),
        ("repo", "media"),
    ]
    .into_iter()
    .enumerate()
    {
        let mut upload = subject.upload(name, age as u64);
        upload.storage_id = storage_id.into();
        create(&*subject.state, &upload).await;
    }
    let search = |prefix: &str, storage_id: Option<&str>| Search {
        name_prefix: Some(prefix.into()),
        storage_id: storage_id.map(str::to_owned),
        ..Search::default()
    };
    for (search, expected) in [
        (
            search("rePORt", None),
            &["REPORT 1.pdf", "Report 2.pdf", "report 3 \u{fc}.pdf"][..],
        ),
        (search("report 3 u\u{308}", None), &["report 3 \u{fc}.pdf"]),
        (
            search("report", Some("media")),
            &["Report 2.pdf", "report 3 \u{fc}.pdf"],
        ),
        (search("x", None), &[]),
    ] {
        let (found, total) = subject.find(&search, 10, 0).await;
        assert_eq!(found, expected, "{search:?}");
        assert_eq!(total, expected.len() as u64, "{search:?}");
        for limit in [1, 2] {
            let found = all_names(subject, &search, limit).await;
            assert_eq!(found, expected, "{search:?} in pages of {limit}");
        }
    }
}

pub(super) async fn media_types_and_times_are_filters(subject: &Subject) {
    let mut uploads = Vec::new();
    for (age, mime) in ["image/png", "Image/JPEG", "video/mp4; codecs=avc1"]
        .into_iter()
        .enumerate()
    {
        let mut upload = subject.upload(mime, age as u64);
        upload.file.file_mime = mime.into();
        create(&*subject.state, &upload).await;
        uploads.push(upload);
    }
    let of = |mime: &str| Search {
        file_mime: Some(mime.into()),
        ..Search::default()
    };
    let between = |from: Option<usize>, before: Option<usize>| Search {
        created: Created {
            from: from.map(|at| uploads[at].created_at),
            before: before.map(|at| uploads[at].created_at),
        },
        ..Search::default()
    };
    let both = Search {
        file_mime: Some("image/*".into()),
        ..between(Some(1), None)
    };
    let named = Search {
        name_prefix: Some("i".into()),
        ..between(None, Some(0))
    };
    for (search, expected) in [
        (of("image/*"), &[0, 1][..]),
        (of("image/jpeg"), &[1]),
        (of("video/mp4"), &[2]),
        (of("text/*"), &[]),
        (between(Some(1), None), &[0, 1]),
        (between(None, Some(0)), &[1, 2]),
        (between(Some(2), Some(1)), &[2]),
        (both, &[0, 1]),
        (named, &[1]),
    ] {
        let expected: Vec<_> = expected
            .iter()
            .map(|at| uploads[*at].file.file_name.clone())
            .collect();
        let (found, total) = subject.find(&search, 10, 0).await;
        assert_eq!(found, expected, "{search:?}");
        assert_eq!(total, expected.len() as u64, "{search:?}");
        assert_eq!(all_names(subject, &search, 1).await, expected, "{search:?}");
    }
}

pub(super) async fn one_indexed_filter_has_the_exact_total(subject: &Subject) {
    let mut phases = Vec::new();
    for age in 0..12 {
        let mut upload = subject.upload("a", age);
        upload.storage_id = ["media", "archive"][usize::from(age % 4 == 0)].into();
        create(&*subject.state, &upload).await;
        if age % 3 == 0 {
            upload = get(&*subject.state, &upload.id).await;
            upload.phase = Phase::Aborted;
            subject.state.update(&upload, upload.writer).await.unwrap();
        }
        phases.push(upload.phase);
    }
    let all = Search::default();
    for (search, total) in [
        (all.clone(), Some(12)),
        (
            Search {
                phase: Some(Phase::Aborted),
                ..all.clone()
            },
            Some(4),
        ),
        (
            Search {
                phase: Some(Phase::Complete),
                ..all.clone()
            },
            Some(0),
        ),
        (
            Search {
                storage_id: Some("archive".into()),
                ..all.clone()
            },
            Some(3),
        ),
        (
            Search {
                tags: vec!["a".into()],
                ..all.clone()
            },
            Some(12),
        ),
        (
            Search {
                name_prefix: Some("A".into()),
                ..all.clone()
            },
            Some(12),
        ),
        (
            Search {
                tags: vec!["a".into(), "b".into()],
                ..all.clone()
            },
            None,
        ),
    ] {
        let records = &subject.gateway.records;
        let count = records.count_uploads(&subject.caller, &search).await;
        assert_eq!(count.unwrap(), total, "{search:?}");
        let found = all_names(subject, &search, 2).await;
        assert_eq!(found.len() as u64, total.unwrap_or(12), "{search:?}");
    }
}

pub(super) async fn support_searches_the_uploads_of_others(subject: &Subject) {
    let other = samples::owner();
    create(&*subject.state, &super::named(&other, "theirs.txt", 0)).await;
    create(&*subject.state, &subject.upload("mine.txt", 1)).await;
    let support = Caller {
        roles: Roles {
            support: true,
            ..Roles::default()
        },
        ..subject.caller.clone()
    };
    let tenant = subject.caller.owner.tenant.clone();
    let search = |scope: Scope| Search {
        scope,
        file_name: Some(".txt".into()),
        storage_id: Some("media".into()),
        ..Search::default()
    };
    let of_other = search(Scope::Owner {
        tenant: String::new(),
        subject: other.subject.clone(),
    });
    let of_all = search(Scope::Tenant { tenant });
    let records = &subject.gateway.records;
    let list = async |caller, search| {
        records
            .list_uploads(caller, search, Start::default(), 10)
            .await
    };
    let found = list(&support, &of_other).await.unwrap();
    assert_eq!(names(&found), ["theirs.txt"]);
    let found = list(&support, &of_all).await.unwrap();
    assert_eq!(names(&found), ["theirs.txt", "mine.txt"]);
    let refused = list(&subject.caller, &of_all).await.unwrap_err();
    assert_eq!(refused.kind(), Kind::PermissionDenied);
}

pub(super) async fn a_position_of_another_order_is_refused(subject: &Subject) {
    for age in 0..3 {
        create(&*subject.state, &subject.upload("a", age)).await;
    }
    let everything = Search::default();
    let named = Search {
        name_prefix: Some("a".into()),
        ..Search::default()
    };
    for (one, other) in [(&everything, &named), (&named, &everything)] {
        let next = subject.list(one, Start::default(), 1).await.next.unwrap();
        let records = &subject.gateway.records;
        let refused = records.list_uploads(&subject.caller, other, next, 1).await;
        let refused = refused.unwrap_err();
        assert_eq!(refused.kind(), Kind::InvalidArgument);
        assert_eq!(refused.violations()[0].field, "page_token");
    }
}

pub(super) async fn a_page_that_does_not_fit_continues_in_the_order_of_names(subject: &Subject) {
    for name in ["c", "a", "d", "b"] {
        create(&*subject.state, &subject.upload(name, 0)).await;
    }
    let search = Search {
        name_prefix: Some(String::new()),
        ..Search::default()
    };
    let mut found = subject.list(&search, Start::default(), 4).await;
    found.fit([600_000; 4]);
    assert_eq!(names(&found), ["a"]);
    let rest = subject.list(&search, found.next.unwrap(), 4).await;
    assert_eq!(names(&rest), ["b", "c", "d"]);
}
