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
        let (common, next) = self.begin(prefix, |piece| match piece {
            Piece::Text(text) => Some(text.clone()),
            _ => None,
        });
        match next {
            Some(Piece::Id) => common + UploadId::PREFIX,
            _ => common,
        }
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
        let mut has_id = false;
        let (common, _) = self.begin(prefix, |piece| match piece {
            Piece::Year | Piece::Month | Piece::Day | Piece::Name => None,
            Piece::Text(_) | Piece::Tenant | Piece::Id => {
                has_id |= *piece == Piece::Id;
                Some(piece.text(&parts))
            }
        });
        has_id.then_some(common)
    }

    /// A key below `prefix` up to the first piece without a `text`, and that piece.
    fn begin(
        &self,
        prefix: &str,
        mut text: impl FnMut(&Piece) -> Option<String>,
    ) -> (String, Option<&Piece>) {
        let mut key = directory(prefix);
        for (index, name) in self.names.iter().enumerate() {
            if index > 0 {
                key.push('/');
            }
            for piece in name {
                match text(piece) {
                    Some(text) => key.push_str(&text),
                    None => return (key, Some(piece)),
                }
            }
        }
        (key, None)
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

/// What all keys below the prefix of a storage begin with: the prefix with one slash after it, or nothing.
pub fn directory(prefix: &str) -> String {
    match prefix.trim_matches('/') {
        "" => String::new(),
        prefix => format!("{prefix}/"),
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
mod tests;
