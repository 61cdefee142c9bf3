//! An upload as the values of its keys in Redis.
//!
//! The hash has the header: `record` is the header as JSON, and the fields beside it are the ones that scripts read and
//! write; they take precedence over the same values in `record`. A field `digest:<number>` has the state of the file's
//! digest at the end of a part. Parts and claims are strings of slots (`slot.rs`), in the order of their numbers. A hash
//! has the receipts that a slot has no room for. `format` is the version of all of this, see [`FORMAT`].
//!
//! The record of a COMPLETE upload is made compact some time later ([`compact`]): it has few fields, and its header is in
//! pieces, `r1`, `r2`, …, which scripts join.

mod compact;

use std::{collections::HashMap, str::FromStr};

use serde_json::Value;
use upload_gateway_core::{
    error::{Error, Result},
    state,
    upload::{Claims, DigestState, Owner, Part, Parts, Phase, Plan, Timestamp, Upload, WriterTag},
};

use crate::{
    state::slot::{self, CLAIM_SLOT, InvalidSlot, PART_SLOT},
    unknown_format::UnknownFormat,
};

/// The version of a record: of its fields and of the parts and claims in them. A record with another one is refused,
/// here when it is read and by the scripts before they write.
pub(super) const FORMAT: &str = "4";

/// The code of the error with which scripts refuse a record in another format; its detail is `<format> <key>`, with `-`
/// for no format. See `prelude.lua`.
pub(super) const UNKNOWN_FORMAT: &str = "UNKNOWNFORMAT";

pub(super) use self::compact::{PIECE, json as compact_json};

/// The fields of a compact record beside its header: those that scripts compare.
pub(super) const COMPACT_FIELDS: [&str; 5] = ["format", "version", "phase", "owner", "writer"];

/// The fields of a hash, by name.
pub(super) type Fields = HashMap<String, String>;

/// The receipts that are kept beside the slots of their parts, by part number.
pub(super) type Receipts = HashMap<u32, String>;

/// The values of the keys of a record.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Stored {
    pub(super) fields: Fields,
    /// The slots of parts and claims, from number 1.
    pub(super) parts: Vec<u8>,
    pub(super) receipts: Receipts,
    pub(super) claims: Vec<u8>,
}

/// A header, and the slots of some parts with their receipts.
pub(super) type Summary = (Fields, Vec<u8>, Receipts);

/// Why a stored record cannot be read.
#[derive(Debug, thiserror::Error)]
enum Unreadable {
    #[error("field {0} is missing")]
    Missing(&'static str),
    #[error("field {0} is not a valid number")]
    Number(&'static str),
    #[error("a digest state is invalid")]
    Digest,
    #[error("invalid JSON")]
    Json(#[from] serde_json::Error),
    #[error(transparent)]
    Slot(#[from] InvalidSlot),
}

/// The header as JSON.
pub(super) fn header_json(upload: &Upload) -> Result<String> {
    to_json(upload)
}

/// The header's fields that an update replaces, besides `record` and `version`.
pub(super) fn header_fields(upload: &Upload) -> Vec<(&'static str, String)> {
    vec![
        ("phase", upload.phase.to_string()),
        ("writer", writer_text(upload.writer)),
        ("attempts", upload.attempts.to_string()),
        ("last_part", upload.last_part().to_string()),
        (
            "is_cut_by_client",
            u8::from(upload.is_cut_by_client).to_string(),
        ),
        ("cut", upload.cut.to_string()),
        ("unproven", upload.unproven.unwrap_or(0).to_string()),
        ("updated_at", upload.updated_at.0.to_string()),
        ("expires_at", upload.expires_at.0.to_string()),
    ]
}

/// The arguments of the script for one part: its number, slot, receipt if it is kept beside the slot, and digest state.
///
/// # Errors
/// See [`slot::write_part`].
pub(super) fn part_arguments(part: &Part) -> Result<[Vec<u8>; 4]> {
    let (slot, receipt) = slot::write_part(part)?;
    let digest = part.digest.clone().map(String::from).unwrap_or_default();
    Ok([
        part.number.to_string().into(),
        slot.into(),
        receipt.unwrap_or_default().into(),
        digest.into(),
    ])
}

// === impl Stored ===

impl Stored {
    /// A new record.
    ///
    /// # Errors
    /// See [`slot::write_part`].
    pub(super) fn new(upload: &Upload) -> Result<Self> {
        let mut stored = Self::default();
        let fields = [
            ("format", FORMAT.into()),
            ("record", header_json(upload)?),
            ("version", upload.version.to_string()),
            ("owner", owner_text(&upload.owner)),
            ("committed", upload.parts.committed().to_string()),
            ("rewritten", upload.parts.rewritten().to_string()),
        ];
        for (name, value) in fields.into_iter().chain(header_fields(upload)) {
            stored.fields.insert(name.to_owned(), value);
        }
        for part in upload.parts.iter() {
            let (slot, receipt) = slot::write_part(part)?;
            put(&mut stored.parts, part.number, &slot);
            if let Some(receipt) = receipt {
                stored.receipts.insert(part.number, receipt.to_owned());
            }
            if let Some(digest) = &part.digest {
                let field = format!("digest:{}", part.number);
                stored.fields.insert(field, digest.clone().into());
            }
        }
        for claim in upload.claims.iter() {
            put(&mut stored.claims, claim.number, &slot::write_claim(&claim));
        }
        Ok(stored)
    }

    /// The upload, if the hash at `key` has fields.
    ///
    /// # Errors
    /// `Internal` if the record cannot be read or has another format.
    pub(super) fn read(&self, key: &str) -> Result<Option<Upload>> {
        let Some(header) = read_header(key, &self.fields)? else {
            return Ok(None);
        };
        let read = || {
            let slots = (1..).zip(self.parts.chunks(PART_SLOT));
            let parts = read_parts(&header.plan, &self.fields, &self.receipts, slots)?;
            let claims = (1..).zip(self.claims.chunks(CLAIM_SLOT));
            let claims = claims
                .filter_map(|(number, slot)| slot::read_claim(number, slot).transpose())
                .collect::<Result<Claims, InvalidSlot>>()?;
            let rewritten = number_or(&self.fields, "rewritten", 0)?;
            Ok((Parts::from_iter(parts).with_rewritten(rewritten), claims))
        };
        let (parts, claims) = read().map_err(|cause| unreadable(key, cause))?;
        Ok(Some(Upload {
            parts,
            claims,
            ..header
        }))
    }
}

/// The upload made of a header, and of the parts with these numbers: the numbers of the slots, in their order. Without
/// claims. `None` if the hash at `key` has no fields.
///
/// # Errors
/// `Internal` if the record cannot be read or has another format.
pub(super) fn read_summary(
    key: &str,
    (fields, slots, receipts): &Summary,
    numbers: impl IntoIterator<Item = u32>,
) -> Result<Option<Upload>> {
    let Some(header) = read_header(key, fields)? else {
        return Ok(None);
    };
    let read = || {
        let committed = committed(fields)?;
        let numbers = numbers.into_iter().chain([committed]);
        let slots = numbers.zip(slots.chunks(PART_SLOT));
        let parts = read_parts(&header.plan, fields, receipts, slots)?;
        let rewritten = number_or(fields, "rewritten", 0)?;
        Ok(Parts::summary(committed, parts).with_rewritten(rewritten))
    };
    let parts = read().map_err(|cause| unreadable(key, cause))?;
    Ok(Some(Upload { parts, ..header }))
}

/// The committed parts in slots from number `first`. `None` if the hash at `key` has no fields.
///
/// # Errors
/// `Internal` if the record cannot be read or has another format.
pub(super) fn read_committed(
    key: &str,
    fields: &Fields,
    first: u32,
    slots: &[u8],
    receipts: &Receipts,
) -> Result<Option<Vec<Part>>> {
    let Some(header) = read_header(key, fields)? else {
        return Ok(None);
    };
    let read = || {
        let numbers = first..=committed(fields)?;
        let slots = numbers.zip(slots.chunks(PART_SLOT));
        read_parts(&header.plan, fields, receipts, slots)
    };
    read().map(Some).map_err(|cause| unreadable(key, cause))
}

/// The parts in slots, each with its number.
fn read_parts<'a>(
    plan: &Plan,
    fields: &Fields,
    receipts: &Receipts,
    slots: impl Iterator<Item = (u32, &'a [u8])>,
) -> Result<Vec<Part>, Unreadable> {
    let mut parts = Vec::new();
    for (number, slot) in slots {
        let digest = fields.get(&format!("digest:{number}")).cloned();
        let digest = digest
            .map(DigestState::try_from)
            .transpose()
            .map_err(|_| Unreadable::Digest)?;
        let receipt = || receipts.get(&number).cloned();
        parts.extend(slot::read_part(plan, number, slot, receipt, digest)?);
    }
    Ok(parts)
}

/// Puts the slot of a number into a list of slots.
fn put(slots: &mut Vec<u8>, number: u32, slot: &[u8]) {
    let begin = (number as usize).saturating_sub(1) * slot.len();
    slots.resize(slots.len().max(begin + slot.len()), 0);
    slots[begin..begin + slot.len()].copy_from_slice(slot);
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

/// The inverse of [`owner_text`]; `None` for any other text.
pub(super) fn parse_owner(text: &str) -> Option<Owner> {
    let (length, rest) = text.split_once(':')?;
    let (tenant, subject) = rest.split_at_checked(length.parse().ok()?)?;
    Some(Owner {
        tenant: tenant.to_owned(),
        subject: subject.strip_prefix(':')?.to_owned(),
    })
}

/// A number that is larger for older uploads, in 16 hexadecimal digits, so that the newest comes first.
pub(super) fn age(created_at: Timestamp) -> String {
    format!("{:016x}", u64::MAX - created_at.0)
}

/// The time at which the server removes what is kept for ever: the largest number that Lua holds exactly, in the year 287,396.
pub(super) const NEVER: u64 = (1 << 53) - 1;

/// When the server removes a record, in milliseconds since the Unix epoch.
pub(super) fn removal_time(upload: &Upload) -> u64 {
    state::removed_at(upload).0.min(NEVER)
}

/// When the server removes the record of a live upload that expires at `expires_at`.
pub(super) fn live_removal_time(expires_at: Timestamp) -> u64 {
    state::removal_time(expires_at).0.min(NEVER)
}

/// The upload without parts and claims; `None` if there are no fields.
fn read_header(key: &str, fields: &Fields) -> Result<Option<Upload>> {
    if fields.is_empty() {
        return Ok(None);
    }
    let format = fields.get("format").map(String::as_str);
    if format != Some(FORMAT) {
        return Err(unknown_format(key, format));
    }
    let read = || -> Result<Upload, Unreadable> {
        let mut upload: Upload = match fields.contains_key("r1") {
            true => compact::read(key, fields)?,
            false => serde_json::from_str(text(fields, "record")?)?,
        };
        upload.version = number(fields, "version")?;
        upload.phase = serde_json::from_value(text(fields, "phase")?.into())?;
        upload.writer = match text(fields, "writer")? {
            "" => None,
            tag => Some(parse_writer(tag).ok_or(Unreadable::Number("writer"))?),
        };
        upload.attempts = number_or(fields, "attempts", upload.attempts)?;
        upload.cut = number_or(fields, "cut", upload.cut)?;
        let unproven = number_or(fields, "unproven", upload.unproven.unwrap_or(0))?;
        upload.unproven = Some(unproven).filter(|number| *number > 0);
        upload.updated_at = Timestamp(number_or(fields, "updated_at", upload.updated_at.0)?);
        upload.expires_at = Timestamp(number_or(fields, "expires_at", upload.expires_at.0)?);
        Ok(upload)
    };
    read().map(Some).map_err(|cause| unreadable(key, cause))
}

fn unreadable(key: &str, cause: Unreadable) -> Error {
    Error::internal(format!("redis holds an unreadable record at {key}"), cause)
}

/// The number of committed parts.
fn committed(fields: &Fields) -> Result<u32, Unreadable> {
    number_or(fields, "committed", 0)
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

/// The number in a field, or `known` in a compact record, which does not have the field.
fn number_or<N: FromStr>(fields: &Fields, name: &'static str, known: N) -> Result<N, Unreadable> {
    match fields.get(name) {
        Some(text) => text.parse().map_err(|_| Unreadable::Number(name)),
        None if fields.contains_key("r1") => Ok(known),
        None => Err(Unreadable::Missing(name)),
    }
}

fn to_json(value: &impl serde::Serialize) -> Result<String> {
    serde_json::to_string(value).map_err(unwritable)
}

fn unwritable(cause: serde_json::Error) -> Error {
    Error::internal("write a record as JSON", cause)
}

fn unknown_format(key: &str, found: Option<&str>) -> Error {
    UnknownFormat::new(format!("the upload record {key} in redis"), found, FORMAT).into()
}
