//! Rules for names and metadata of files.

use super::{Cached, FileMetadata, Md5, SINGLE_PUT_MAX};
use crate::{
    error::{All, Error, Result, each},
    escape::is_hidden,
};

/// The longest file name, in bytes.
pub const MAX_NAME_LENGTH: usize = 1024;

/// The largest number of tags of one file.
const MAX_TAGS: usize = 64;

/// The longest tag, media type or `file_id`, in bytes.
const MAX_LABEL_LENGTH: usize = 255;

/// Names that Windows reserves for devices, with any extension.
/// <https://learn.microsoft.com/windows/win32/fileio/naming-a-file>
const DEVICE_NAMES: [&str; 22] = [
    "CON", "PRN", "AUX", "NUL", "COM1", "COM2", "COM3", "COM4", "COM5", "COM6", "COM7", "COM8",
    "COM9", "LPT1", "LPT2", "LPT3", "LPT4", "LPT5", "LPT6", "LPT7", "LPT8", "LPT9",
];

/// Characters that PlaceOS rejects in names, in addition to control characters. It also rejects `..` inside of names.
const REFUSED_BY_PLACEOS: [char; 13] = [
    '<', '>', ':', '"', '/', '\\', '|', '?', '*', '#', '&', '%', '=',
];

/// Checks the metadata of a file: the name with [`check_name`], and the size and the characters of the other fields.
///
/// # Errors
/// `InvalidArgument` with the names of all invalid fields.
pub fn check(file: &FileMetadata) -> Result<()> {
    let tags = each(file.tags.iter().map(|tag| check_label("file.tags", tag)));
    let cached = file.cached.as_deref();
    let cached = |field, value: fn(&Cached) -> &Option<String>| {
        let value = cached.and_then(|cached| value(cached).as_deref());
        check_label(field, value.unwrap_or_default())
    };
    let cache = (
        cached("file.cache_etag", |cached| &cached.etag),
        cached("file.cache_modified", |cached| &cached.modified),
    );
    let placement = file.placement.check();
    let placement = placement.map_err(|error| error.within("file.placement"));
    let labels = (
        check_mime(&file.file_mime),
        check_file_id(file),
        check_text("file.file_path", &file.file_path, MAX_NAME_LENGTH),
    );
    let checked = (
        check_name(&file.file_name),
        labels.all(),
        (check_tag_count(file), placement, cache.all()).all(),
        tags,
    );
    checked.all().map(drop)
}

/// Checks a file whose bytes a stream sends: as [`check`], and the `file_id` is an MD5.
///
/// # Errors
/// `InvalidArgument` with the names of all invalid fields.
pub fn check_streamed(file: &FileMetadata) -> Result<()> {
    (check(file), check_md5(file)).all().map(drop)
}

/// Checks a file whose bytes the client sends to the store itself: as [`check`], and the size is set. For a single put the
/// `file_id` is an MD5; for a file in parts it may be any text.
///
/// # Errors
/// `InvalidArgument` with the names of all invalid fields.
pub fn check_signed(file: &FileMetadata) -> Result<()> {
    let message = "the size of the file is required for a direct upload";
    let size = file.file_size;
    let has_size = size.ok_or_else(|| Error::invalid("file.file_size", message));
    let md5 = match size {
        Some(size) if size <= SINGLE_PUT_MAX => check_md5(file),
        _ => Ok(()),
    };
    (check(file), has_size, md5).all().map(drop)
}

fn check_md5(file: &FileMetadata) -> Result<()> {
    let Some(file_id) = &file.file_id else {
        return Ok(());
    };
    let parsed = file_id.parse::<Md5>().map(drop);
    parsed.map_err(|error| Error::invalid("file.file_id", error.to_string()))
}

fn check_mime(mime: &str) -> Result<()> {
    check_label("file.file_mime", mime)?;
    if !mime.is_ascii() {
        return Err(Error::invalid(
            "file.file_mime",
            "must be ASCII: the media type becomes a header of the object",
        ));
    }
    Ok(())
}

fn check_file_id(file: &FileMetadata) -> Result<()> {
    let Some(file_id) = &file.file_id else {
        return Ok(());
    };
    let is_checkable = match file.file_digest.allows_md5() {
        true => Ok(()),
        false => Err(Error::invalid(
            "file.file_digest",
            "a file_id is an MD5, which this choice does not compute; leave out one of both",
        )),
    };
    let checked = (check_label("file.file_id", file_id), is_checkable);
    checked.all().map(drop)
}

fn check_tag_count(file: &FileMetadata) -> Result<()> {
    match file.tags.len() > MAX_TAGS {
        true => Err(Error::invalid(
            "file.tags",
            format!("at most {MAX_TAGS} tags"),
        )),
        false => Ok(()),
    }
}

/// Rejects names that are empty or longer than [`MAX_NAME_LENGTH`], are `.`, `..` or a device name, or contain a path
/// separator, a character that looks like one, or one that is [hidden](is_hidden). The error names the character.
///
/// # Errors
/// `InvalidArgument` on `file.file_name`.
pub fn check_name(name: &str) -> Result<()> {
    let refuse = |why: &str| Err(Error::invalid("file.file_name", why));
    if name.is_empty() {
        return refuse("must not be empty");
    }
    if name.len() > MAX_NAME_LENGTH {
        return refuse("longer than 1,024 bytes");
    }
    if let Some(why) = refused_character(name, is_separator) {
        return refuse(&why);
    }
    if matches!(name, "." | "..") {
        return refuse("refers to a directory");
    }
    let stem = name.split('.').next().unwrap_or_default().trim();
    if DEVICE_NAMES
        .iter()
        .any(|device| device.eq_ignore_ascii_case(stem))
    {
        return refuse("is a device name");
    }
    Ok(())
}

/// Rejects files with more than `max_count` tags, or with a tag of more than `max_size` bytes.
///
/// # Errors
/// `InvalidArgument` on `file.tags`.
pub fn check_tags(file: &FileMetadata, max_count: usize, max_size: usize) -> Result<()> {
    let refuse = |why: String| Err(Error::invalid("file.tags", why));
    if file.tags.len() > max_count {
        return refuse(format!("at most {max_count} tags"));
    }
    if file.tags.iter().any(|tag| tag.len() > max_size) {
        return refuse(format!("at most {max_size} bytes for each tag"));
    }
    Ok(())
}

/// The media type of the object: the given one, else that of the name's extension, else `binary/octet-stream`.
pub fn effective_mime(file: &FileMetadata) -> String {
    match file.file_mime.as_str() {
        "" => mime_guess::from_path(&file.file_name)
            .first_raw()
            .unwrap_or("binary/octet-stream")
            .to_owned(),
        given => given.to_owned(),
    }
}

/// Rejects files whose extension is not in `extensions`, or whose media type is not in `mimes`. Both lists are in lower
/// case; an empty list accepts all files. Parameters of the media type are ignored.
///
/// # Errors
/// `InvalidArgument` on `file.file_name` or `file.file_mime`. The entry `restriction` in the metadata lists what is
/// allowed for the first of them.
pub fn check_filters(file: &FileMetadata, extensions: &[String], mimes: &[String]) -> Result<()> {
    let refuse = |field, what: &str, allowed: &[String]| {
        Err(Error::invalid(field, what).with("restriction", allowed.join(",")))
    };
    let extension = file.file_name.rsplit_once('.').map_or("", |(_, last)| last);
    let by_extension = match takes(extensions, extension) {
        true => Ok(()),
        false => refuse("file.file_name", "File extension not allowed", extensions),
    };
    let mime = effective_mime(file);
    let by_mime = match takes(mimes, essence(&mime)) {
        true => Ok(()),
        false => refuse("file.file_mime", "File mimetype not allowed", mimes),
    };
    (by_extension, by_mime).all().map(drop)
}

/// Whether the filter is empty, or has the value, or its type as `type/*`.
fn takes(filter: &[String], value: &str) -> bool {
    filter.is_empty() || filter.iter().any(|taken| is_of(value, taken))
}

/// Whether the value is `taken`, or has its type as `type/*`.
fn is_of(value: &str, taken: &str) -> bool {
    match taken.strip_suffix("/*") {
        Some(kind) => value
            .split_once('/')
            .is_some_and(|(own, _)| own.eq_ignore_ascii_case(kind)),
        None => taken.eq_ignore_ascii_case(value),
    }
}

/// Whether a media type is `taken`, or has its type as `type/*`. Its parameters are ignored.
pub fn is_mime(mime: &str, taken: &str) -> bool {
    is_of(essence(mime), taken)
}

/// A media type without its parameters.
fn essence(mime: &str) -> &str {
    mime.split(';').next().unwrap_or_default().trim()
}

/// As [`check_name`], and also rejects what PlaceOS rejects, with the same message as PlaceOS.
///
/// # Errors
/// `InvalidArgument` on `file.file_name`.
pub fn check_placeos_name(name: &str) -> Result<()> {
    let checked = check_name(name);
    let has_length = (1..=MAX_NAME_LENGTH).contains(&name.len());
    let is_refused = name.contains(REFUSED_BY_PLACEOS) || name.contains("..");
    if is_refused || (has_length && checked.is_err()) {
        return Err(Error::invalid(
            "file.file_name",
            "filename contains unsupported characters or words",
        ));
    }
    checked
}

fn check_label(field: &'static str, text: &str) -> Result<()> {
    check_text(field, text, MAX_LABEL_LENGTH)
}

/// Rejects texts of more than `max` bytes, and the characters that names must not have, except separators.
fn check_text(field: &'static str, text: &str, max: usize) -> Result<()> {
    if text.len() > max {
        return Err(Error::invalid(field, format!("longer than {max} bytes")));
    }
    match refused_character(text, |_| false) {
        Some(why) => Err(Error::invalid(field, why)),
        None => Ok(()),
    }
}

/// Names the first character that is refused, and says why. `None`: there is no such character.
fn refused_character(text: &str, is_separator: impl Fn(char) -> bool) -> Option<String> {
    text.chars().find_map(|character| {
        let what = match character {
            _ if is_separator(character) => "a path separator, or looks like one",
            _ if character.is_control() => "a control character",
            _ if is_hidden(character) => "invisible, or changes the direction of the text",
            char::REPLACEMENT_CHARACTER => "the replacement for bytes that are not UTF-8",
            _ => return None,
        };
        let code = u32::from(character);
        Some(format!("contains U+{code:04X}, which is {what}"))
    })
}

/// `/`, `\` and the Unicode characters that look like them.
fn is_separator(character: char) -> bool {
    matches!(
        character,
        '/' | '\\'
            | '\u{2044}'
            | '\u{2215}'
            | '\u{29f8}'
            | '\u{29f9}'
            | '\u{fe68}'
            | '\u{ff0f}'
            | '\u{ff3c}'
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_names_are_accepted_in_every_language() {
        for name in [
            "a",
            "später & mehr?.bin",
            "图片.png",
            ".profile",
            "a*b:c|d.txt",
            "console.log",
            "x\u{301}.txt",
            "می\u{200c}خواهم.pdf",
            "\u{1f468}\u{200d}\u{1f469}\u{200d}\u{1f467}.jpg",
            "Screenshot 2025-03-18 at 4.09.02\u{202f}p.m..png",
            "wait...what.pdf",
            "...",
            "..a",
        ] {
            assert!(check_name(name).is_ok(), "{name}");
        }
    }

    #[test]
    fn names_with_paths_devices_or_control_characters_are_rejected() {
        let long = "x".repeat(1025);
        for name in [
            "",
            "a/b",
            "a\\b",
            "..",
            ".",
            "nul",
            "COM1.txt",
            "a\nb",
            "a\0",
            "a\u{ff0f}b",
            "a\u{202e}b",
            "a\u{fffd}b",
        ] {
            assert!(check_name(name).is_err(), "{name:?}");
        }
        assert!(check_name(&long).is_err());
        assert!(check_name(&long[..1024]).is_ok());
    }

    #[test]
    fn invisible_characters_are_rejected_by_name_in_all_texts() {
        for (character, named) in [
            ('\u{7}', "U+0007"),
            ('\u{61c}', "U+061C"),
            ('\u{180e}', "U+180E"),
            ('\u{200b}', "U+200B"),
            ('\u{200f}', "U+200F"),
            ('\u{2029}', "U+2029"),
            ('\u{2066}', "U+2066"),
            ('\u{feff}', "U+FEFF"),
            ('\u{e0001}', "U+E0001"),
            ('\u{e007f}', "U+E007F"),
        ] {
            let text = format!("a{character}b");
            let in_field = |field: &str| {
                let mut file = FileMetadata {
                    file_name: "a".into(),
                    ..FileMetadata::default()
                };
                match field {
                    "file.file_name" => file.file_name.clone_from(&text),
                    "file.file_path" => file.file_path.clone_from(&text),
                    "file.file_id" => file.file_id = Some(text.clone()),
                    _ => file.tags = vec![text.clone()],
                }
                file
            };
            for field in [
                "file.file_name",
                "file.file_path",
                "file.file_id",
                "file.tags",
            ] {
                let error = check(&in_field(field)).unwrap_err();
                let violation = &error.violations()[0];
                assert!(violation.description.contains(named), "{violation:?}");
                assert_eq!(violation.field, field);
            }
        }
        let error = check_name("a/b").unwrap_err().to_string();
        assert!(error.contains("U+002F"), "{error}");
    }

    #[test]
    fn the_placeos_check_rejects_more_names_with_the_message_of_placeos() {
        assert!(check_placeos_name("später.bin").is_ok());
        for name in [
            "a?b", "a&b", "a%b", "a=b", "a/b", "a..b", "nul", "a\nb", "<",
        ] {
            let error = check_placeos_name(name).unwrap_err();
            assert_eq!(
                error.violations()[0].description,
                "filename contains unsupported characters or words"
            );
        }
        let empty = check_placeos_name("").unwrap_err().to_string();
        assert!(empty.contains("must not be empty"), "{empty}");
    }

    #[test]
    fn a_filter_can_name_all_media_types_of_a_kind() {
        let file = |file_mime: &str| FileMetadata {
            file_name: "a".into(),
            file_mime: file_mime.into(),
            ..FileMetadata::default()
        };
        let filter = ["image/*".to_owned(), "application/pdf".to_owned()];
        for (mime, is_taken) in [
            ("image/png", true),
            ("IMAGE/SVG+XML; charset=utf-8", true),
            ("application/pdf", true),
            ("application/zip", false),
            ("imagery/png", false),
            ("image", false),
        ] {
            let checked = check_filters(&file(mime), &[], &filter);
            assert_eq!(checked.is_ok(), is_taken, "{mime}");
        }
    }

    #[test]
    fn tags_have_a_largest_number_and_size() {
        let tagged = |tags: &[&str]| FileMetadata {
            tags: tags.iter().map(|&tag| tag.to_owned()).collect(),
            ..FileMetadata::default()
        };
        // In bytes: ü has two.
        for (tags, is_accepted) in [
            (&[][..], true),
            (&["abcd", "\u{fc}\u{fc}"], true),
            (&["a", "b", "c"], false),
            (&["abc\u{fc}"], false),
        ] {
            let checked = check_tags(&tagged(tags), 2, 4);
            assert_eq!(checked.is_ok(), is_accepted, "{tags:?}");
        }
    }

    #[test]
    fn a_file_id_requires_the_file_digest() {
        let file = FileMetadata {
            file_name: "a".into(),
            file_id: Some("x".into()),
            file_digest: crate::upload::DigestChoice::Crc64Nvme,
            ..FileMetadata::default()
        };
        assert!(check(&file).is_err());
    }
}
