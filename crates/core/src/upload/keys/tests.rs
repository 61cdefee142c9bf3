use super::*;

/// The 5th of March 2026.
const CREATED: Timestamp = Timestamp(1_772_668_800_000);

fn key(template: &KeyTemplate, prefix: &str, id: &UploadId, file_name: &str) -> String {
    let parts = KeyParts {
        tenant: "acme & sons",
        created_at: CREATED,
        id,
        file_name,
    };
    template.key(prefix, &parts)
}

#[test]
fn keys_are_short_ascii_and_keep_the_extension() {
    let id: UploadId = format!("uploads-{:016x}-{:032x}", 1, 2).parse().unwrap();
    let template = KeyTemplate::default();
    assert_eq!(
        key(&template, "/media/", &id, "später & mehr?.bin"),
        format!("media/{id}/sp_ter___mehr_.bin")
    );
    let long = key(&template, "", &id, &format!("{}.mp4", "é".repeat(300)));
    assert!(
        long.ends_with("__.mp4") && long.len() == UploadId::LENGTH + 1 + MAX_NAME_LENGTH,
        "{long}"
    );
    key(&template, "", &id, &".".repeat(300));
}

#[test]
fn a_template_places_keys() {
    let id = UploadId::generate(None);
    for (text, expected) in [
        (
            "{tenant}/{yyyy}/{mm}/{upload_id}/{name}",
            format!("in/acme___sons/2026/03/{id}/a.bin"),
        ),
        (
            "{yyyy}-{mm}-{dd}/{upload_id}-{name}",
            format!("in/2026-03-05/{id}-a.bin"),
        ),
        (
            "files/t-{tenant}.d/{upload_id}",
            format!("in/files/t-acme___sons.d/{id}"),
        ),
    ] {
        let template = KeyTemplate::parse(text).unwrap();
        assert_eq!(template.to_string(), text);
        let key = key(&template, "in", &id, "a.bin");
        assert_eq!(key, expected);
        assert!(key.starts_with(&template.prefix("in")), "{key}");
        assert_eq!(template.upload_of("in", &key), Some(id.clone()), "{key}");
        for other in [
            format!("{key}/x"),
            format!("x/{key}"),
            key.replacen("in/", "in/x", 1),
        ] {
            let found = template.upload_of("in", &other);
            // A longer tenant or file name is another key of the same template.
            assert!(found.is_none() || text.starts_with("{tenant}"), "{other}");
        }
    }
    let tenantless = KeyParts {
        tenant: "",
        created_at: CREATED,
        id: &id,
        file_name: "a",
    };
    let template = KeyTemplate::parse("{tenant}/{upload_id}").unwrap();
    assert_eq!(template.key("", &tenantless), format!("_/{id}"));
}

#[test]
fn the_keys_of_an_upload_have_a_common_prefix_unless_a_date_or_a_name_comes_before_its_id() {
    let id = UploadId::generate(None);
    for (text, expected) in [
        ("{upload_id}/{name}", Some(format!("in/{id}/"))),
        (
            "{tenant}/{upload_id}/x-{name}",
            Some(format!("in/a_b/{id}/x-")),
        ),
        ("{upload_id}-{yyyy}/{name}", Some(format!("in/{id}-"))),
        ("{upload_id}", Some(format!("in/{id}"))),
        ("{yyyy}/{upload_id}", None),
        ("{name}/{upload_id}", None),
    ] {
        let template = KeyTemplate::parse(text).unwrap();
        assert_eq!(template.prefix_of("in", "a.b", &id), expected, "{text}");
    }
}

#[test]
fn templates_that_could_share_or_hide_keys_are_refused() {
    for (text, expected) in [
        ("{tenant}/{name}", InvalidTemplate::NotUnique),
        ("{upload_id}/{upload_id}", InvalidTemplate::NotUnique),
        ("", InvalidTemplate::Malformed),
        ("{upload_id}/", InvalidTemplate::Malformed),
        ("/{upload_id}", InvalidTemplate::Malformed),
        ("../{upload_id}", InvalidTemplate::Malformed),
        ("a//{upload_id}", InvalidTemplate::Malformed),
        ("a b/{upload_id}", InvalidTemplate::Malformed),
        ("{upload_id", InvalidTemplate::Malformed),
        ("{upload_id}}", InvalidTemplate::Malformed),
        ("{id}/{upload_id}", InvalidTemplate::Unknown("id".into())),
        ("{tenant}-{name}/{upload_id}", InvalidTemplate::Ambiguous),
        ("{name}/{upload_id}/{name}", InvalidTemplate::Ambiguous),
        (".records/{upload_id}", InvalidTemplate::Reserved),
    ] {
        assert_eq!(KeyTemplate::parse(text), Err(expected), "{text}");
    }
    let long = format!("{}/{{upload_id}}", "a".repeat(MAX_TEMPLATE_LENGTH));
    assert_eq!(KeyTemplate::parse(&long), Err(InvalidTemplate::Malformed));
}

#[test]
fn the_upload_id_is_read_only_from_keys_of_the_same_prefix() {
    let id = UploadId::generate(None);
    let template = KeyTemplate::default();
    for prefix in ["", "media", "/in/media/"] {
        let key = key(&template, prefix, &id, "später.bin");
        assert!(key.starts_with(&template.prefix(prefix)), "{key}");
        assert_eq!(template.upload_of(prefix, &key), Some(id.clone()));
        for other in ["", "media", "/in/media/", "in", "medi", "m"] {
            let expected = (other == prefix).then(|| id.clone());
            assert_eq!(template.upload_of(other, &key), expected, "{other} {key}");
        }
    }
    for key in [
        format!("{id}"),
        format!("{id}/"),
        format!("{id}/a/b"),
        format!("/{id}/a"),
        format!("x{id}/a"),
        "uploads-1-2/a".into(),
    ] {
        assert_eq!(template.upload_of("", &key), None, "{key}");
    }
}
