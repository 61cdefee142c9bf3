//! An upload as the fields of a Redis hash.
//!
//! `record` is the header as JSON. The fields beside it are the ones that scripts read and write; they take precedence
//! over the same values in `record`. Each part has a field `part:<number>` (JSON), each claim a field `claim:<number>`
//! (its MD5, or empty). `format` is the version of all of this, see [`FORMAT`].

use std::collections::HashMap;

use serde_json::Value;
use upload_gateway_core::{
    error::{Error, Result},
    state,
    upload::{Claim, Claims, Owner, Part, Parts, Phase, Timestamp, Upload, WriterTag},
};

use crate::unknown_format::UnknownFormat;

/// The version of a record: of its fields and of the parts and claims in them. A record with another one is refused,
/// here when it is read and by the scripts before they write.
pub(super) const FORMAT: &str = "1";

/// The code of the error with which scripts refuse a record in another format; its detail is `<format> <key>`, with `-`
/// for no format. See `format.lua`.
pub(super) const UNKNOWN_FORMAT: &str = "UNKNOWNFORMAT";

/// The fields of a hash, by name.
pub(super) type Fields = HashMap<String, String>;

/// Why a stored record cannot be read.
#[derive(Debug, thiserror::Error)]
enum Unreadable {
    #[error("field {0} is missing")]
    Missing(&'static str),
    #[error("field {0} is not a valid number")]
    Number(&'static str),
    #[error("a claim has an invalid number or MD5")]
    Claim,
    #[error("invalid JSON")]
    Json(#[from] serde_json::Error),
}

/// The header as JSON.
pub(super) fn header_json(upload: &Upload) -> Result<String> {
    to_json(upload)
}

/// One part as JSON.
pub(super) fn part_json(part: &Part) -> Result<String> {
    to_json(part)
}

/// The header's fields that an update replaces, besides `record` and `version`.
pub(super) fn header_fields(upload: &Upload) -> Vec<(&'static str, String)> {
    vec![
        ("phase", upload.phase.to_string()),
        ("writer", writer_text(upload.writer)),
        ("last_part", upload.part_count().unwrap_or(0).to_string()),
        ("updated_at", upload.updated_at.0.to_string()),
        ("expires_at", upload.expires_at.0.to_string()),
    ]
}

/// All fields of a new record.
pub(super) fn all_fields(upload: &Upload) -> Result<Vec<(String, String)>> {
    let mut fields: Vec<(String, String)> = vec![
        ("format".into(), FORMAT.into()),
        ("record".into(), header_json(upload)?),
        ("version".into(), upload.version.to_string()),
        ("owner".into(), owner_text(&upload.owner)),
        ("committed".into(), upload.parts.committed().to_string()),
    ];
    fields.extend(
        header_fields(upload)
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value)),
    );
    for part in upload.parts.iter() {
        fields.push((format!("part:{}", part.number), part_json(part)?));
    }
    for claim in upload.claims.iter() {
        fields.push((format!("claim:{}", claim.number), claim_text(&claim)));
    }
    Ok(fields)
}

/// The upload made of all fields of the hash at `key`; `None` if there are no fields.
pub(super) fn parse(key: &str, fields: &Fields) -> Result<Option<Upload>> {
    parse_with(key, fields, |fields| {
        Ok((Parts::from_iter(parts(fields)?), claims(fields)?))
    })
}

/// The upload made of a header, its last committed part and any other parts, all of the hash at `key`; without claims.
/// `None` if there are no fields.
pub(super) fn parse_summary(key: &str, fields: &Fields) -> Result<Option<Upload>> {
    parse_with(key, fields, |fields| {
        let committed = number(fields, "committed")?;
        let committed = u32::try_from(committed).map_err(|_| Unreadable::Number("committed"))?;
        let parts = Parts::summary(committed, parts(fields)?);
        Ok((parts, Claims::default()))
    })
}

/// The error that a script's refusal of a record stands for; `detail` is the one of [`UNKNOWN_FORMAT`].
pub(super) fn refusal(detail: &str) -> Error {
    let (format, key) = detail.split_once(' ').unwrap_or((detail, ""));
    unknown_format(key, Some(format).filter(|format| *format != "-"))
}

/// The phase of that name.
pub(super) fn parse_phase(name: &str) -> Result<Phase> {
    serde_json::from_value(Value::String(name.to_owned()))
        .map_err(|cause| Error::internal("redis holds a record with an invalid phase", cause))
}

/// A writer as scripts compare it; empty if there is none.
pub(super) fn writer_text(writer: Option<WriterTag>) -> String {
    writer.map(|tag| tag.to_string()).unwrap_or_default()
}

/// The inverse of [`writer_text`] for a writer; `None` for any other text.
pub(super) fn parse_writer(text: &str) -> Option<WriterTag> {
    WriterTag::from_bits(u32::from_str_radix(text, 16).ok()?)
}

/// An owner as scripts compare it.
pub(super) fn owner_text(owner: &Owner) -> String {
    // The length keeps ("a:b", "c") and ("a", "b:c") apart.
    let Owner { tenant, subject } = owner;
    format!("{}:{tenant}:{subject}", tenant.len())
}

/// A claim's MD5; empty if it has none.
pub(super) fn claim_text(claim: &Claim) -> String {
    claim.md5.map(|md5| md5.to_string()).unwrap_or_default()
}

/// When the server removes a record that expires at `expires_at`, in milliseconds since the Unix epoch.
pub(super) fn removal_time(expires_at: Timestamp) -> u64 {
    // Redis takes times as signed numbers.
    state::removal_time(expires_at).0.min(i64::MAX as u64)
}

fn parse_with(
    key: &str,
    fields: &Fields,
    parts_and_claims: impl Fn(&Fields) -> Result<(Parts, Claims), Unreadable>,
) -> Result<Option<Upload>> {
    if fields.is_empty() {
        return Ok(None);
    }
    let format = fields.get("format").map(String::as_str);
    if format != Some(FORMAT) {
        return Err(unknown_format(key, format));
    }
    let read = || -> Result<Upload, Unreadable> {
        let mut upload: Upload = serde_json::from_str(text(fields, "record")?)?;
        upload.version = number(fields, "version")?;
        upload.phase = serde_json::from_value(text(fields, "phase")?.into())?;
        upload.writer = match text(fields, "writer")? {
            "" => None,
            tag => Some(parse_writer(tag).ok_or(Unreadable::Number("writer"))?),
        };
        upload.updated_at = Timestamp(number(fields, "updated_at")?);
        upload.expires_at = Timestamp(number(fields, "expires_at")?);
        (upload.parts, upload.claims) = parts_and_claims(fields)?;
        Ok(upload)
    };
    read().map(Some).map_err(|cause| {
        Error::internal(format!("redis holds an unreadable record at {key}"), cause)
    })
}

fn parts(fields: &Fields) -> Result<Vec<Part>, Unreadable> {
    let parts = fields.iter().filter(|(name, _)| name.starts_with("part:"));
    parts
        .map(|(_, json)| Ok(serde_json::from_str(json)?))
        .collect()
}

fn claims(fields: &Fields) -> Result<Claims, Unreadable> {
    let mut claims = Claims::default();
    for (name, md5) in fields {
        if let Some(number) = name.strip_prefix("claim:") {
            let md5 = Some(md5).filter(|md5| !md5.is_empty());
            claims.insert(Claim {
                number: number.parse().map_err(|_| Unreadable::Claim)?,
                md5: md5
                    .map(|md5| md5.parse())
                    .transpose()
                    .map_err(|_| Unreadable::Claim)?,
            });
        }
    }
    Ok(claims)
}

fn text<'a>(fields: &'a Fields, name: &'static str) -> Result<&'a str, Unreadable> {
    fields
        .get(name)
        .map(String::as_str)
        .ok_or(Unreadable::Missing(name))
}

fn number(fields: &Fields, name: &'static str) -> Result<u64, Unreadable> {
    text(fields, name)?
        .parse()
        .map_err(|_| Unreadable::Number(name))
}

fn to_json(value: &impl serde::Serialize) -> Result<String> {
    serde_json::to_string(value).map_err(|cause| Error::internal("write a record as JSON", cause))
}

fn unknown_format(key: &str, found: Option<&str>) -> Error {
    UnknownFormat::new(format!("the upload record {key} in redis"), found, FORMAT).into()
}
