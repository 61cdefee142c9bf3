//! An upload as the fields of a Redis hash.
//!
//! `record` is the header as JSON; the fields beside it are what scripts read and write, and win over it. Each part
//! has a field of its own, `part:<number>`, and so has each claim: `claim:<number>` is its MD5, or empty.

use std::collections::HashMap;

use serde_json::Value;
use upload_gateway_core::{
    error::{Error, Result},
    state,
    upload::{Claim, Claims, Owner, Part, Parts, Phase, Timestamp, Upload, WriterTag},
};

/// The fields of a hash, by name.
pub(super) type Fields = HashMap<String, String>;

/// What cannot be read in a stored record.
#[derive(Debug, thiserror::Error)]
enum Unreadable {
    #[error("field {0} is missing")]
    Missing(&'static str),
    #[error("field {0} is no number")]
    Number(&'static str),
    #[error("a claim's number or MD5 is none")]
    Claim,
    #[error("the JSON does not fit")]
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

/// The upload of all its fields, or none of no fields.
pub(super) fn parse(fields: &Fields) -> Result<Option<Upload>> {
    parse_with(fields, |fields| {
        Ok((Parts::from_iter(parts(fields)?), claims(fields)?))
    })
}

/// The upload of its header, its last committed part and perhaps some others, or none of no fields.
pub(super) fn parse_summary(fields: &Fields) -> Result<Option<Upload>> {
    parse_with(fields, |fields| {
        let committed = number(fields, "committed")?;
        let committed = u32::try_from(committed).map_err(|_| Unreadable::Number("committed"))?;
        let parts = Parts::summary(committed, parts(fields)?);
        Ok((parts, Claims::default()))
    })
}

/// The phase of that name.
pub(super) fn parse_phase(name: &str) -> Result<Phase> {
    serde_json::from_value(Value::String(name.to_owned())).map_err(unreadable)
}

/// A writer as scripts compare it; empty where there is none.
pub(super) fn writer_text(writer: Option<WriterTag>) -> String {
    writer.map(|tag| tag.to_string()).unwrap_or_default()
}

/// The writer of that text.
pub(super) fn parse_writer(text: &str) -> Option<WriterTag> {
    WriterTag::from_bits(u32::from_str_radix(text, 16).ok()?)
}

/// An owner as scripts compare it.
pub(super) fn owner_text(owner: &Owner) -> String {
    // The length keeps ("a:b", "c") and ("a", "b:c") apart.
    let Owner { tenant, subject } = owner;
    format!("{}:{tenant}:{subject}", tenant.len())
}

/// A claim's MD5; empty where there is none.
pub(super) fn claim_text(claim: &Claim) -> String {
    claim.md5.map(|md5| md5.to_string()).unwrap_or_default()
}

/// When the server removes what is given up at `expires_at`, in milliseconds since the Unix epoch.
pub(super) fn removal_time(expires_at: Timestamp) -> u64 {
    // The largest time Redis takes is signed.
    state::removal_time(expires_at).0.min(i64::MAX as u64)
}

fn parse_with(
    fields: &Fields,
    parts_and_claims: impl Fn(&Fields) -> Result<(Parts, Claims), Unreadable>,
) -> Result<Option<Upload>> {
    if fields.is_empty() {
        return Ok(None);
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
    read().map(Some).map_err(unreadable)
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
    serde_json::to_string(value)
        .map_err(|cause| Error::internal("a record cannot be written as JSON", cause))
}

fn unreadable(cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::internal("redis holds a record that cannot be read", cause)
}
