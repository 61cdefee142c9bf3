//! File names, and the keys and headers made of them.

use axum::http::HeaderValue;
use percent_encoding::percent_decode_str;
use upload_gateway_core::{
    escape::is_hidden,
    upload::{FileMetadata, UploadId, keys, policy},
};

use super::Input;
use crate::blobs::url::attachment;

/// An accepted name cannot escape its prefix, and its key and header have the documented form.
pub fn file_name(bytes: &[u8]) {
    let mut input = Input(bytes);
    let (file_name, prefix, file_mime) = (input.text(), input.text(), input.text());
    header(&file_name);
    let file = FileMetadata {
        file_name,
        file_mime,
        ..FileMetadata::default()
    };
    let _ = policy::check_filters(&file, &["bin".into()], &["text/plain".into()]);
    let name = &file.file_name;
    let is_taken = policy::check_name(name).is_ok();
    if policy::check_placeos_name(name).is_ok() {
        assert!(is_taken, "PlaceOS's rules only add to the others");
        assert!(!name.contains(".."), "{name}");
    }
    if is_taken {
        is_harmless(name);
        key(&prefix, name);
    }
}

fn is_harmless(name: &str) {
    assert!((1..=1024).contains(&name.len()));
    assert!(!name.contains(['/', '\\']) && !matches!(name, "." | ".."));
    assert!(!name.chars().any(is_hidden));
    let stem = name.split('.').next().unwrap_or_default();
    let stem = stem.trim().to_ascii_lowercase();
    assert!(!["con", "prn", "aux", "nul", "com1", "lpt9"].contains(&&*stem));
}

fn key(prefix: &str, name: &str) {
    let id = UploadId::generate(None);
    let key = keys::object_key(prefix, &id, name);
    let template = keys::KeyTemplate::default();
    assert_eq!(template.upload_of(prefix, &key), Some(id.clone()));
    assert!(key.starts_with(&template.prefix(prefix)));
    let (folder, last) = key.rsplit_once('/').unwrap_or_default();
    assert!(folder.ends_with(id.as_str()));
    assert!((1..=100).contains(&last.len()) && last != "." && last != "..");
    let is_plain = |character: char| character.is_ascii_alphanumeric() || "_.-".contains(character);
    assert!(last.chars().all(is_plain), "{last}");
}

fn header(name: &str) {
    let header = attachment(name);
    assert!(HeaderValue::try_from(&header).is_ok(), "{header}");
    let (plain, encoded) = header.split_once("; filename*=UTF-8''").unwrap_or_default();
    let decoded = percent_decode_str(encoded).decode_utf8();
    assert_eq!(decoded.as_deref(), Ok(name));
    let quoted = plain.strip_prefix("attachment; filename=\"");
    let quoted = quoted.and_then(|rest| rest.strip_suffix('"'));
    assert!(quoted.is_some_and(|text| !text.contains(['"', '\\'])));
}
