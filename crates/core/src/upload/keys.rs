//! The keys of objects: which one an upload has, and which upload a key is of.

use std::fmt;

use time::OffsetDateTime;

use super::{Timestamp, UploadId};

/// The longest file name, and the longest tenant, in an object key, in characters.
const MAX_NAME_LENGTH: usize = 100;

/// The longest template, in bytes.
const MAX_TEMPLATE_LENGTH: usize = 200;

/// The name, below the prefix of a storage, below which side objects are.
pub const SIDE_OBJECTS: &str = ".records";

/// How the keys of a storage are made, below its prefix: text with placeholders, `{tenant}/{yyyy}/{mm}/{upload_id}/{name}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyTemplate {
    /// The names between the slashes of a key.
    names: Vec<Vec<Piece>>,
}

/// What a key has of its upload.
#[derive(Debug, Clone, Copy)]
pub struct KeyParts<'a> {
    /// The tenant of its owner.
    pub tenant: &'a str,
    /// When it was created.
    pub created_at: Timestamp,
    /// Its id.
    pub id: &'a UploadId,
    /// The name of its file.
    pub file_name: &'a str,
}

/// A piece of a name in a key.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    /// This text.
    Text(String),
    /// The tenant of the owner, sanitised; `_` without one.
    Tenant,
    /// The year of the creation, in UTC.
    Year,
    /// The month, from 01.
    Month,
    /// The day of the month, from 01.
    Day,
    /// The upload id.
    Id,
    /// The name of the file, sanitised.
    Name,
}

/// The placeholders.
const PLACEHOLDERS: [(&str, Piece); 6] = [
    ("tenant", Piece::Tenant),
    ("yyyy", Piece::Year),
    ("mm", Piece::Month),
    ("dd", Piece::Day),
    ("upload_id", Piece::Id),
    ("name", Piece::Name),
];

/// Why a text is not a template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTemplate {
    /// Two uploads could have the same key.
    #[error("must contain {{upload_id}} once: no two uploads may have the same key")]
    NotUnique,
    /// A placeholder is not known.
    #[error(
        "{{{0}}} is not one of {{tenant}}, {{yyyy}}, {{mm}}, {{dd}}, {{upload_id}} and {{name}}"
    )]
    Unknown(String),
    /// Two pieces of any length cannot be distinguished in a key.
    #[error("{{tenant}} and {{name}} must stand between different slashes, each once")]
    Ambiguous,
    /// Keys could be those of side objects.
    #[error("must not begin with {SIDE_OBJECTS}/, which has what the gateway keeps of records")]
    Reserved,
    /// A key would be empty, relative, too long, or have other characters.
    #[error(
        "must be names separated by `/`, of ASCII letters, digits, `_`, `.`, `-` and placeholders, without `.` and `..`, of at \
         most {MAX_TEMPLATE_LENGTH} bytes"
    )]
    Malformed,
}

// === impl KeyTemplate ===

impl Default for KeyTemplate {
    /// `{upload_id}/{name}`.
    fn default() -> Self {
        Self {
            names: vec![vec![Piece::Id], vec![Piece::Name]],
        }
    }
}

impl fmt::Display for KeyTemplate {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, name) in self.names.iter().enumerate() {
            formatter.write_str(if index > 0 { "/" } else { "" })?;
            for piece in name {
                let known = PLACEHOLDERS.iter().find(|(_, known)| known == piece);
                match (known, piece) {
                    (Some((placeholder, _)), _) => write!(formatter, "{{{placeholder}}}")?,
                    (None, Piece::Text(text)) => formatter.write_str(text)?,
                    (None, _) => {}
                }
            }
        }
        Ok(())
    }
}

impl KeyTemplate {
    /// Reads a template.
    ///
    /// # Errors
    /// Which rule it breaks.
    ///
    /// # Examples
    /// ```
    /// use upload_gateway_core::upload::keys::KeyTemplate;
    ///
    /// assert!(KeyTemplate::parse("{tenant}/{yyyy}/{mm}/{upload_id}/{name}").is_ok());
    /// assert!(KeyTemplate::parse("{tenant}/{name}").is_err());
    /// ```
    pub fn parse(text: &str) -> Result<Self, InvalidTemplate> {
        if text.len() > MAX_TEMPLATE_LENGTH {
            return Err(InvalidTemplate::Malformed);
        }
        let names = text.split('/').map(name).collect::<Result<Vec<_>, _>>()?;
        if names.first() == Some(&vec![Piece::Text(SIDE_OBJECTS.into())]) {
            return Err(InvalidTemplate::Reserved);
        }
        let count = |wanted: &Piece| {
            names
                .iter()
                .flatten()
                .filter(|&piece| piece == wanted)
                .count()
        };
        if count(&Piece::Id) != 1 {
            return Err(InvalidTemplate::NotUnique);
        }
        let is_long = |piece: &&Piece| matches!(piece, Piece::Tenant | Piece::Name);
        let longs = names.iter().map(|name| name.iter().filter(is_long).count());
        if longs.max().unwrap_or(0) > 1 || count(&Piece::Tenant) > 1 || count(&Piece::Name) > 1 {
            return Err(InvalidTemplate::Ambiguous);
        }
        Ok(Self { names })
    }

    /// The key of an upload's object below `prefix`.
    pub fn key(&self, prefix: &str, parts: &KeyParts<'_>) -> String {
        let names = self.names.iter().map(|name| {
            let pieces = name.iter().map(|piece| piece.text(parts));
            pieces.collect::<String>()
        });
        let prefix = Some(prefix.trim_matches('/')).filter(|prefix| !prefix.is_empty());
        let names = prefix.map(str::to_owned).into_iter().chain(names);
        names.collect::<Vec<_>>().join("/")
    }

    /// The common prefix of all keys below `prefix`.
    pub fn prefix(&self, prefix: &str) -> String {
        let mut common = match prefix.trim_matches('/') {
            "" => String::new(),
            prefix => format!("{prefix}/"),
        };
        for (index, name) in self.names.iter().enumerate() {
            if index > 0 {
                common.push('/');
            }
            for piece in name {
                match piece {
                    Piece::Text(text) => common.push_str(text),
                    Piece::Id => return common + UploadId::PREFIX,
                    _ => return common,
                }
            }
        }
        common
    }

    /// The longest common prefix of all keys that an upload of this tenant with this id can have. `None` if the keys depend on more
    /// before the id.
    pub fn prefix_of(&self, prefix: &str, tenant: &str, id: &UploadId) -> Option<String> {
        let parts = KeyParts {
            tenant,
            created_at: Timestamp(0),
            id,
            file_name: "",
        };
        let mut common = match prefix.trim_matches('/') {
            "" => String::new(),
            prefix => format!("{prefix}/"),
        };
        let mut has_id = false;
        for (index, name) in self.names.iter().enumerate() {
            if index > 0 {
                common.push('/');
            }
            for piece in name {
                if matches!(piece, Piece::Year | Piece::Month | Piece::Day | Piece::Name) {
                    return has_id.then_some(common);
                }
                has_id |= *piece == Piece::Id;
                common.push_str(&piece.text(&parts));
            }
        }
        Some(common)
    }

    /// The upload whose key this is, below `prefix`. `None` for a key that [`KeyTemplate::key`] does not make.
    pub fn upload_of(&self, prefix: &str, key: &str) -> Option<UploadId> {
        let rest = match prefix.trim_matches('/') {
            "" => key,
            prefix => key.strip_prefix(prefix)?.strip_prefix('/')?,
        };
        let mut names = rest.split('/');
        let mut found = None;
        for pieces in &self.names {
            found = found.or(id_in(pieces, names.next()?)?);
        }
        found.filter(|_| names.next().is_none())
    }
}

/// The key of an upload's object below `prefix`, by the default template.
pub fn object_key(prefix: &str, id: &UploadId, file_name: &str) -> String {
    let parts = KeyParts {
        tenant: "",
        created_at: Timestamp(0),
        id,
        file_name,
    };
    KeyTemplate::default().key(prefix, &parts)
}

/// The pieces of one name of a template.
fn name(text: &str) -> Result<Vec<Piece>, InvalidTemplate> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let (plain, after) = rest
            .split_once('{')
            .map_or((rest, None), |(plain, after)| (plain, Some(after)));
        if !plain.chars().all(is_safe) {
            return Err(InvalidTemplate::Malformed);
        }
        if !plain.is_empty() {
            pieces.push(Piece::Text(plain.to_owned()));
        }
        let Some(after) = after else { break };
        let (placeholder, after) = after.split_once('}').ok_or(InvalidTemplate::Malformed)?;
        let known = PLACEHOLDERS.iter().find(|(known, _)| *known == placeholder);
        let (_, piece) = known.ok_or_else(|| InvalidTemplate::Unknown(placeholder.to_owned()))?;
        pieces.push(piece.clone());
        rest = after;
    }
    let is_relative = matches!(text, "" | "." | "..");
    if is_relative {
        Err(InvalidTemplate::Malformed)
    } else {
        Ok(pieces)
    }
}

/// The upload id in a name that has these pieces. `None`: it does not have them.
#[expect(
    clippy::option_option,
    reason = "a name without an id can have the pieces, too"
)]
fn id_in(pieces: &[Piece], name: &str) -> Option<Option<UploadId>> {
    let is_long = |piece: &Piece| matches!(piece, Piece::Tenant | Piece::Name);
    let (mut rest, mut found) = (name, None);
    let long = pieces.iter().position(is_long).unwrap_or(pieces.len());
    let (before, after) = pieces.split_at(long);
    for piece in before {
        let (own, left) = rest.split_at_checked(piece.length())?;
        found = found.or(piece.read(own)?);
        rest = left;
    }
    for piece in after.iter().skip(1).rev() {
        let (left, own) = rest.split_at_checked(rest.len().checked_sub(piece.length())?)?;
        found = found.or(piece.read(own)?);
        rest = left;
    }
    let is_filled = !rest.is_empty() && rest.chars().all(is_safe);
    (is_filled || after.is_empty() && rest.is_empty()).then_some(found)
}

// === impl Piece ===

impl Piece {
    fn text(&self, parts: &KeyParts<'_>) -> String {
        let date = || {
            let seconds = i64::try_from(parts.created_at.0 / 1_000).unwrap_or(i64::MAX);
            OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH)
        };
        match self {
            Self::Text(text) => text.clone(),
            Self::Tenant if parts.tenant.is_empty() => "_".into(),
            Self::Tenant => sanitise(parts.tenant).replace('.', "_"),
            Self::Year => format!("{:04}", date().year()),
            Self::Month => format!("{:02}", u8::from(date().month())),
            Self::Day => format!("{:02}", date().day()),
            Self::Id => parts.id.to_string(),
            Self::Name => sanitise(parts.file_name),
        }
    }

    /// How long its text is, in bytes, if that is fixed.
    fn length(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Year => 4,
            Self::Month | Self::Day => 2,
            Self::Id => UploadId::LENGTH,
            Self::Tenant | Self::Name => 0,
        }
    }

    /// Reads its text. `None`: this is another one.
    #[expect(clippy::option_option, reason = "only one piece is an id")]
    fn read(&self, text: &str) -> Option<Option<UploadId>> {
        let is_number = || text.bytes().all(|byte| byte.is_ascii_digit());
        match self {
            Self::Text(known) => (known == text).then_some(None),
            Self::Year | Self::Month | Self::Day => is_number().then_some(None),
            Self::Id => text.parse().ok().map(Some),
            Self::Tenant | Self::Name => Some(None),
        }
    }
}

fn is_safe(character: char) -> bool {
    character.is_ascii_alphanumeric() || matches!(character, '_' | '.' | '-')
}

/// The name with every character replaced except ASCII letters, digits, `_`, `.` and `-`. A name that is too long is
/// cut, but keeps its extension.
fn sanitise(name: &str) -> String {
    let ascii: String = name
        .chars()
        .map(|character| if is_safe(character) { character } else { '_' })
        .collect();
    if ascii.len() <= MAX_NAME_LENGTH {
        return ascii;
    }
    let extension = ascii.rfind('.').map_or("", |dot| &ascii[dot..]);
    let extension = if extension.len() < MAX_NAME_LENGTH {
        extension
    } else {
        ""
    };
    format!("{}{extension}", &ascii[..MAX_NAME_LENGTH - extension.len()])
}

#[cfg(test)]
mod tests {
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
}
