//! Whether the object under an upload's key is the one that the upload made: the integrity rule of the gateway.
//!
//! [`verify`] is pure. Its callers look at the store and say what follows from the verdict.

use super::{
    Capabilities, CompositeMd5, Md5, SINGLE_PUT_MAX, Snapshot, StoredObject, StoredPart, Upload,
    UploadId,
};

/// What the object must be.
#[derive(Debug, Clone, Copy)]
pub struct Expected<'a> {
    upload_id: &'a UploadId,
    size: ExpectedSize,
    /// The MD5 of the whole object: promised by the sender, or computed of the bytes that were put.
    md5: Option<Md5>,
    /// The record with the parts that the object is made of.
    parts: &'a Upload,
}

/// How large the object must be, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ExpectedSize {
    Exactly(u64),
    /// The size of the file is not known yet; this much of it was recorded.
    AtLeast(u64),
}

/// How much evidence a caller asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strictness {
    /// The committer compared every part with the store's list just before, so the composite MD5 counts only if a part has
    /// no known MD5; the block list is not read, and neither is the MD5 of an object put whole, which was hashed on receipt.
    Commit,
    /// Another process or a client may have made the object: everything that the store reports must fit.
    Inspection,
    /// The parts of a lost record are not known: identity, size and a promised MD5 decide, whatever the object is made of.
    Rebuild,
    /// An object that was there before a single put: its bytes decide alone, and the store must report their MD5.
    SinglePut,
}

/// What an object is to an upload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The upload made it.
    Same,
    /// There is no object.
    Absent,
    /// The upload did not make it.
    Different(Difference),
    /// The store reports too little to decide.
    Unknown,
}

/// Why an object is not an upload's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Difference {
    /// Its metadata names another upload.
    Upload,
    /// It has this other size, in bytes.
    Size(u64),
    /// It has another MD5.
    Md5 {
        /// What it must be.
        expected: Md5,
        /// What the store reports.
        found: Md5,
    },
    /// It is made of other parts.
    Parts,
}

// === impl Expected ===

impl<'a> Expected<'a> {
    /// The object of a record.
    pub fn of_record(upload: &'a Upload) -> Self {
        let size = upload.settled_size();
        Self {
            upload_id: &upload.id,
            size: size.map_or_else(
                || ExpectedSize::AtLeast(upload.committed_size()),
                ExpectedSize::Exactly,
            ),
            md5: upload.promised_md5(),
            parts: upload,
        }
    }

    /// The object of a lost record, of which `record` was rebuilt from `snapshot`.
    pub fn of_snapshot(snapshot: &Snapshot, record: &'a Upload) -> Self {
        let size = record.file.file_size;
        Self {
            size: size.map_or_else(
                || ExpectedSize::AtLeast(snapshot.size()),
                ExpectedSize::Exactly,
            ),
            ..Self::of_record(record)
        }
    }

    /// The object of a single put of `size` bytes with this MD5.
    pub fn of_single_put(upload: &'a Upload, size: u64, md5: Md5) -> Self {
        Self {
            size: ExpectedSize::Exactly(size),
            md5: Some(md5),
            ..Self::of_record(upload)
        }
    }
}

/// Compares what HEAD found under an upload's key, and the blocks that it is made of if the store lists them, with what
/// the upload must have made. `blocks` is `None` if the store has no such list, or the caller did not ask for it.
pub fn verify(
    expected: &Expected<'_>,
    capabilities: &Capabilities,
    found: Option<&StoredObject>,
    blocks: Option<&[StoredPart]>,
    strictness: Strictness,
) -> Verdict {
    let Some(found) = found else {
        return Verdict::Absent;
    };
    if strictness != Strictness::SinglePut
        && found.upload_id().is_some()
        && !found.is_of(expected.upload_id)
    {
        return Verdict::Different(Difference::Upload);
    }
    match expected.size {
        ExpectedSize::Exactly(size) if found.size != size => {
            return Verdict::Different(Difference::Size(found.size));
        }
        ExpectedSize::AtLeast(_) if found.upload_id().is_none() => return Verdict::Unknown,
        ExpectedSize::AtLeast(size) if found.size < size => {
            return Verdict::Different(Difference::Size(found.size));
        }
        ExpectedSize::Exactly(_) | ExpectedSize::AtLeast(_) => {}
    }
    match strictness {
        Strictness::Commit => verify_unproven_parts(expected.parts, found),
        Strictness::Inspection => verify_content(expected, capabilities, found, blocks),
        Strictness::Rebuild => verify_md5(expected.md5, found.md5, Verdict::Same),
        Strictness::SinglePut => verify_md5(expected.md5, found.md5, Verdict::Unknown),
    }
}

/// Whether an object was put whole, as far as the store tells.
pub fn is_put_whole(found: &StoredObject, blocks: Option<&[StoredPart]>) -> bool {
    found.size <= SINGLE_PUT_MAX
        && found.composite.is_none()
        && blocks.is_none_or(<[StoredPart]>::is_empty)
}

fn verify_content(
    expected: &Expected<'_>,
    capabilities: &Capabilities,
    found: &StoredObject,
    blocks: Option<&[StoredPart]>,
) -> Verdict {
    if is_put_whole(found, blocks) {
        return verify_md5(expected.md5, found.md5, Verdict::Same);
    }
    let upload = expected.parts;
    let fits = composite_fits(upload, found.composite)
        && blocks.is_none_or(|blocks| blocks_fit(upload, blocks, capabilities));
    same_if(fits)
}

/// Only a part without an MD5 of its own, which a client put, needs the proof of the composite MD5.
fn verify_unproven_parts(upload: &Upload, found: &StoredObject) -> Verdict {
    let is_proven = upload.parts.iter_committed().all(|part| part.md5.is_some());
    same_if(is_proven || composite_fits(upload, found.composite))
}

fn same_if(fits: bool) -> Verdict {
    if fits {
        Verdict::Same
    } else {
        Verdict::Different(Difference::Parts)
    }
}

/// Compares two MD5s; `unproven` if one of them is not known.
fn verify_md5(expected: Option<Md5>, found: Option<Md5>, unproven: Verdict) -> Verdict {
    match (expected, found) {
        (Some(expected), Some(found)) if expected != found => {
            Verdict::Different(Difference::Md5 { expected, found })
        }
        (Some(_), Some(_)) => Verdict::Same,
        (None, _) | (_, None) => unproven,
    }
}

/// Whether the store made the object of parts with the known and claimed MD5s, as far as it reports a composite MD5 and
/// all of them are known.
fn composite_fits(upload: &Upload, found: Option<CompositeMd5>) -> bool {
    let numbers = 1..=upload.object_part_count().unwrap_or(0);
    let md5 = |number| {
        let recorded = upload.parts.get(number).and_then(|part| part.md5);
        recorded.or_else(|| upload.claims.md5(number))
    };
    let md5s: Option<Vec<Md5>> = numbers.map(md5).collect();
    match (found, md5s) {
        (Some(found), Some(md5s)) if upload.part_count().is_some() => {
            found == CompositeMd5::of(md5s)
        }
        (Some(_) | None, Some(_) | None) => true,
    }
}

/// Whether an object is made of blocks with the planned sizes that may be the upload's: the recorded ones, and the client's
/// own if none was recorded. Another stream's block was recorded once: only gateways know its name, and the state store may
/// have lost what a gateway has committed.
fn blocks_fit(upload: &Upload, blocks: &[StoredPart], capabilities: &Capabilities) -> bool {
    let count = upload.object_part_count().map(|count| count as usize);
    let fits = |number: u32, block: &StoredPart| {
        let planned = upload.span(number).map_or(0, |span| span.size);
        // A file of unknown size ends wherever its last block ends.
        let may_be_short = count.is_none() && number as usize == blocks.len();
        let is_numbered = block.number == Some(number);
        let is_streamed = capabilities.names_writers && block.writer.is_some();
        let is_known = match upload.parts.get(number) {
            Some(part) if block.receipt == part.receipt => true,
            Some(_) => is_numbered && is_streamed && upload.claims.is_empty(),
            None => is_numbered,
        };
        is_known && (block.size == planned || may_be_short && block.size < planned)
    };
    count.is_none_or(|count| blocks.len() == count)
        && (1..).zip(blocks).all(|(number, block)| fits(number, block))
}

#[cfg(test)]
mod tests;
