use super::*;

fn map<const N: usize>(entries: [(&str, &str); N]) -> BTreeMap<String, String> {
    let entries = entries.into_iter();
    entries
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

fn with_metadata(metadata: BTreeMap<String, String>) -> Placement {
    Placement {
        metadata,
        ..Placement::default()
    }
}

fn with_tags(object_tags: BTreeMap<String, String>) -> Placement {
    Placement {
        object_tags,
        ..Placement::default()
    }
}

fn kms(id: &str) -> Encryption {
    Encryption::SseKms {
        key_id: Some(id.to_owned()),
        bucket_key: false,
    }
}

/// The only invalid field, and what is wrong with it.
fn violation(placement: &Placement) -> (String, String) {
    let error = placement.check().unwrap_err();
    assert_eq!(error.kind(), Kind::InvalidArgument);
    let [violation] = error.violations() else {
        panic!("one field is invalid: {error}");
    };
    (violation.field.to_string(), violation.description.clone())
}

#[test]
fn metadata_that_every_store_keeps_is_accepted() {
    let longest = "k".repeat(63);
    with_metadata(map([("project", "a/b; c=\"d\""), (&longest, "~")]))
        .check()
        .unwrap();
    let most: BTreeMap<_, _> = (0..MAX_METADATA)
        .map(|number| (format!("k{number:02}"), "v".repeat(61)))
        .collect();
    with_metadata(most).check().unwrap();
}

#[test]
fn invalid_metadata_names_the_key_and_the_limit() {
    let long = "k".repeat(64);
    for (entry, named) in [
        (("uploadid", "x"), "`uploadid` is the gateway's own"),
        (("uploadsize", "x"), "`uploadsize`"),
        (("uploadmd5", "x"), "`uploadmd5`"),
        (("uploadrecord", "x"), "`uploadrecord`"),
        (("UPLOADID", "x"), "`UPLOADID`"),
        (("upload-id", "x"), "`upload-id`"),
        (("a_b", "x"), "`a_b`"),
        (("1a", "x"), "`1a`"),
        (("", "x"), "``"),
        (("ä", "x"), "`ä`"),
        ((&long, "x"), "63"),
        (("a", ""), "`a` must not be empty"),
        (("a", " x"), "`a`"),
        (("a", "x\n"), "`a`"),
        (("a", "ä"), "`a`"),
        (("a", "\u{7f}"), "`a`"),
    ] {
        let (field, problem) = violation(&with_metadata(map([entry])));
        assert_eq!(field, "metadata");
        assert!(problem.contains(named), "{problem}");
    }
    let (_, problem) = violation(&with_metadata(map([("key", "x"), ("KEY", "y")])));
    assert!(problem.contains("`KEY`"), "{problem}");
    let many = (0..=MAX_METADATA).map(|number| (format!("k{number}"), "v".to_owned()));
    let (_, problem) = violation(&with_metadata(many.collect()));
    assert!(problem.contains("16"), "{problem}");
    let (_, problem) = violation(&with_metadata(map([("k", &*"v".repeat(1024))])));
    assert!(problem.contains("1024"), "{problem}");
}

#[test]
fn tags_that_one_store_refuses_are_refused() {
    with_tags(map([("Cost Center", "a+b-c./d:e=f_"), ("empty", "")]))
        .check()
        .unwrap();
    let (long_key, long_value) = ("k".repeat(129), "v".repeat(257));
    for (entry, named) in [
        (("", "x"), "128"),
        ((&*long_key, "x"), "128"),
        (("a", &*long_value), "256"),
        (("a@b", "x"), "`a@b`"),
        (("a", "x&y"), "`a`"),
        (("ä", "x"), "`ä`"),
        (("AWS:x", "x"), "AWS"),
    ] {
        let (field, problem) = violation(&with_tags(map([entry])));
        assert_eq!(field, "object_tags");
        assert!(problem.contains(named), "{problem}");
    }
    let many = (0..=MAX_OBJECT_TAGS).map(|number| (format!("k{number}"), String::new()));
    let (_, problem) = violation(&with_tags(many.collect()));
    assert!(problem.contains("10"), "{problem}");
}

#[test]
fn one_error_names_all_fields_that_fit_no_header() {
    let error = Placement {
        metadata: map([("A", "x")]),
        cache_control: Some("no-store\r\nx: y".into()),
        content_disposition: Some("x".repeat(256)),
        storage_class: Some(String::new()),
        encryption: Some(Encryption::Scope("a b c".into())),
        ..Placement::default()
    }
    .check()
    .unwrap_err();
    let fields: Vec<_> = error.violations().iter().map(|one| &*one.field).collect();
    assert_eq!(
        fields,
        [
            "metadata",
            "cache_control",
            "content_disposition",
            "storage_class",
            "encryption"
        ]
    );
    let chunked = Placement {
        content_encoding: Some("gzip, AWS-chunked".into()),
        ..Placement::default()
    };
    assert_eq!(violation(&chunked).0, "content_encoding");
    let key = Placement {
        encryption: Some(kms("two words")),
        ..Placement::default()
    };
    assert_eq!(violation(&key).0, "encryption");
}

#[test]
fn a_caller_adds_to_the_defaults_of_a_storage() {
    let default = Placement {
        metadata: map([("a", "storage"), ("b", "storage")]),
        object_tags: map([("team", "media")]),
        cache_control: Some("private".into()),
        encryption: Some(Encryption::SseS3),
        ..Placement::default()
    };
    let asked = Placement {
        metadata: map([("b", "caller")]),
        cache_control: Some("no-store".into()),
        storage_class: Some("STANDARD_IA".into()),
        ..Placement::default()
    };
    let both = asked.or(&default);
    assert_eq!(both.metadata, map([("a", "storage"), ("b", "caller")]));
    assert_eq!(both.object_tags, default.object_tags);
    assert_eq!(both.cache_control.as_deref(), Some("no-store"));
    assert_eq!(both.storage_class.as_deref(), Some("STANDARD_IA"));
    assert_eq!(both.encryption, Some(Encryption::SseS3));
    assert_eq!(Placement::default().or(&default), default);
}

#[test]
fn what_a_store_lacks_is_not_supported() {
    let scope = Encryption::Scope("scope".into());
    let asked = |field: &str| match field {
        "object_tags" => with_tags(map([("a", "b")])),
        "storage_class" => Placement {
            storage_class: Some("STANDARD_IA".into()),
            ..Placement::default()
        },
        "scope" => Placement {
            encryption: Some(scope.clone()),
            ..Placement::default()
        },
        _ => Placement {
            encryption: Some(kms("id")),
            ..Placement::default()
        },
    };
    let all = Features {
        object_tags: true,
        storage_classes: &["STANDARD", "STANDARD_IA"],
        server_side_encryption: true,
        encryption_scopes: true,
    };
    for field in ["object_tags", "storage_class", "scope", "kms"] {
        let error = asked(field).check_supported(&Features::NONE).unwrap_err();
        assert_eq!(
            (error.kind(), error.reason()),
            (Kind::FailedPrecondition, Reason::NotSupported)
        );
        assert!(error.metadata().contains_key("feature"), "{error}");
        asked(field).check_supported(&all).unwrap();
    }
    Placement::default()
        .check_supported(&Features::NONE)
        .unwrap();
}

#[test]
fn only_the_demanded_encryption_meets_a_demand() {
    let arn = kms("arn:aws:kms:eu-central-1:111122223333:key/1234-abcd");
    let any = Encryption::SseKms {
        key_id: None,
        bucket_key: true,
    };
    for (demanded, found, is_met) in [
        (&any, Some(&arn), true),
        (&kms("1234-abcd"), Some(&arn), true),
        (&arn, Some(&arn), true),
        (&kms("abcd"), Some(&arn), false),
        (&kms("other"), Some(&arn), false),
        (&kms("1234-abcd"), Some(&any), false),
        (&any, Some(&Encryption::SseS3), false),
        (&any, None, false),
        (&Encryption::SseS3, Some(&Encryption::SseS3), true),
        (&Encryption::SseS3, Some(&arn), false),
        (&Encryption::SseS3, None, false),
        (
            &Encryption::Scope("one".into()),
            Some(&Encryption::Scope("two".into())),
            false,
        ),
    ] {
        assert_eq!(demanded.is_met_by(found), is_met, "{demanded:?} {found:?}");
    }
    assert!(!kms("alias/files").can_be_proven());
    assert!(arn.can_be_proven());
}
