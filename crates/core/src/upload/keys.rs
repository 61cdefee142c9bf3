//! The keys of objects: which one an upload has, and which upload a key is of.

use super::UploadId;

/// The longest file name in an object key, in characters.
const MAX_KEY_NAME_LENGTH: usize = 100;

/// The key of an upload's object: `<prefix>/<upload id>/<sanitised name>`.
pub fn object_key(prefix: &str, id: &UploadId, file_name: &str) -> String {
    let name = sanitise(file_name);
    match prefix.trim_matches('/') {
        "" => format!("{id}/{name}"),
        prefix => format!("{prefix}/{id}/{name}"),
    }
}

/// The common prefix of all keys that [`object_key`] makes with `prefix`.
pub fn object_key_prefix(prefix: &str) -> String {
    match prefix.trim_matches('/') {
        "" => UploadId::PREFIX.to_owned(),
        prefix => format!("{prefix}/{}", UploadId::PREFIX),
    }
}

/// The upload for which [`object_key`] made `key` with this prefix. `None` for any other key.
pub fn upload_of_key(prefix: &str, key: &str) -> Option<UploadId> {
    let rest = match prefix.trim_matches('/') {
        "" => key,
        prefix => key.strip_prefix(prefix)?.strip_prefix('/')?,
    };
    let (id, name) = rest.split_once('/')?;
    let is_name = !name.is_empty() && !name.contains('/');
    id.parse().ok().filter(|_| is_name)
}

/// The name with every character replaced except ASCII letters, digits, `_`, `.` and `-`. A name that is too long is
/// cut, but keeps its extension.
fn sanitise(name: &str) -> String {
    let safe =
        |character: char| character.is_ascii_alphanumeric() || matches!(character, '_' | '.' | '-');
    let ascii: String = name
        .chars()
        .map(|character| if safe(character) { character } else { '_' })
        .collect();
    if ascii.len() <= MAX_KEY_NAME_LENGTH {
        return ascii;
    }
    let extension = ascii.rfind('.').map_or("", |dot| &ascii[dot..]);
    let extension = if extension.len() < MAX_KEY_NAME_LENGTH {
        extension
    } else {
        ""
    };
    format!(
        "{}{extension}",
        &ascii[..MAX_KEY_NAME_LENGTH - extension.len()]
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_short_ascii_and_keep_the_extension() {
        let id: UploadId = format!("uploads-{:016x}-{:032x}", 1, 2).parse().unwrap();
        assert_eq!(
            object_key("/media/", &id, "später & mehr?.bin"),
            format!("media/{id}/sp_ter___mehr_.bin")
        );
        let key = object_key("", &id, &format!("{}.mp4", "é".repeat(300)));
        assert!(
            key.ends_with("__.mp4") && key.len() == id.as_str().len() + 1 + MAX_KEY_NAME_LENGTH,
            "{key}"
        );
        object_key("", &id, &".".repeat(300));
    }

    #[test]
    fn the_upload_id_is_read_only_from_keys_of_the_same_prefix() {
        let id = UploadId::generate(None);
        for prefix in ["", "media", "/in/media/"] {
            let key = object_key(prefix, &id, "später.bin");
            assert!(key.starts_with(&object_key_prefix(prefix)), "{key}");
            assert_eq!(upload_of_key(prefix, &key), Some(id.clone()));
            for other in ["", "media", "/in/media/", "in", "medi", "m"] {
                let expected = (other == prefix).then(|| id.clone());
                assert_eq!(upload_of_key(other, &key), expected, "{other} {key}");
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
            assert_eq!(upload_of_key("", &key), None, "{key}");
        }
    }
}
