//! Decides whether the object under an upload's key is the one that the upload made: the integrity rule of the gateway.
//!
//! [`verify`] is pure. Its callers send requests to the store, and decide what follows from the verdict.

use super::{
    Capabilities, CompositeMd5, Digests, Encryption, Integrity, Md5, Part, SINGLE_PUT_MAX, Shown,
    Snapshot, StoredObject, StoredPart, Upload, UploadId,
};

/// What the object must be.
#[derive(Debug, Clone, Copy)]
pub struct Expected<'a> {
    upload_id: &'a UploadId,
    size: ExpectedSize,
    /// Those of the whole object: promised by the sender, or computed from the bytes that were put.
    digests: Digests,
    /// Whether the object is [`Verdict::Unknown`] unless one of its digests is proven.
    needs_proof: bool,
    /// Whether the digests in the metadata are proof: the store has compared the bytes with them, or with the MD5 beside them.
    trusts_metadata: bool,
    /// How it must be encrypted.
    encryption: Option<&'a Encryption>,
    /// The record with the parts that the object is made of.
    parts: &'a Upload,
}

/// How large the object must be, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ExpectedSize {
    Exactly(u64),
    /// The size of the file is not known yet, but this many bytes were recorded.
    AtLeast(u64),
}

/// How an object relates to an upload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The upload made the object.
    Same,
    /// There is no object.
    Absent,
    /// The upload did not make the object.
    Different(Difference),
    /// The store reports too little to decide.
    Unknown,
}

/// Why an object was not made by an upload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Difference {
    /// Its metadata names another upload.
    Upload,
    /// It has this size instead, in bytes.
    Size(u64),
    /// It has a different MD5.
    Md5 {
        /// The MD5 that it must have.
        expected: Md5,
        /// The MD5 that the store reports.
        found: Md5,
    },
    /// It has a different CRC-64/NVME.
    Crc64Nvme,
    /// It is made of other parts.
    Parts,
    /// It is not encrypted as the storage demands.
    Encryption,
}

// === impl Expected ===

impl<'a> Expected<'a> {
    /// The object that a record must have become.
    pub fn of_record(upload: &'a Upload) -> Self {
        let size = upload.settled_size();
        Self {
            upload_id: &upload.id,
            size: size.map_or_else(
                || ExpectedSize::AtLeast(upload.committed_size()),
                ExpectedSize::Exactly,
            ),
            digests: Digests {
                md5: upload.promised_md5(),
                crc64nvme: size.and_then(|size| upload.parts.crc64nvme(size)),
            },
            needs_proof: false,
            trusts_metadata: true,
            encryption: None,
            parts: upload,
        }
    }

    /// The same object, which was put with this digest. A store that ignores CRC-64s has compared nothing with the metadata.
    #[must_use]
    pub fn put_with(self, integrity: Integrity) -> Self {
        Self {
            trusts_metadata: integrity == Integrity::Md5,
            ..self
        }
    }

    /// The same object, encrypted as the storage demands, if it does.
    #[must_use]
    pub fn encrypted(self, demand: Option<&'a Encryption>) -> Self {
        Self {
            encryption: demand,
            ..self
        }
    }

    /// The object that a lost record must have become. `record` was rebuilt from `snapshot`.
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

    /// The object that a single put of `size` bytes with these digests makes. An object that existed before the put has the
    /// same bytes only if a digest proves it: it then `needs_proof`.
    pub fn of_single_put(
        upload: &'a Upload,
        size: u64,
        digests: Digests,
        needs_proof: bool,
    ) -> Self {
        Self {
            size: ExpectedSize::Exactly(size),
            digests,
            needs_proof,
            ..Self::of_record(upload)
        }
    }
}

/// Compares the object that HEAD found under an upload's key, and the blocks that it is made of, with what the upload
/// must have made. `blocks` is `None` if the store has no block list, or if the caller did not request it.
///
/// The metadata that the gateway wrote decides first: the upload id, then the size and the MD5 that were known when it
/// was written. A client that commits on Azure can leave the metadata out; then size, blocks and digests decide. An
/// entity tag that equals the expected digest is proof; a different one means damage only if the store computes entity
/// tags from the bytes ([`StoredObject::has_digests`]).
pub fn verify(
    expected: &Expected<'_>,
    capabilities: &Capabilities,
    found: Option<&StoredObject>,
    blocks: Option<&[StoredPart]>,
) -> Verdict {
    let Some(found) = found else {
        return Verdict::Absent;
    };
    if found.upload_id().is_some() && !found.is_of(expected.upload_id) {
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
    if found.written_size().is_some_and(|size| size != found.size) {
        return Verdict::Different(Difference::Size(found.size));
    }
    let encryption = found.placement.encryption.as_ref();
    if expected
        .encryption
        .is_some_and(|demand| !demand.is_met_by(encryption))
    {
        return Verdict::Different(Difference::Encryption);
    }
    if is_put_whole(expected.parts, found, blocks) {
        verify_whole(expected, found)
    } else {
        verify_parts(expected, capabilities, found, blocks)
    }
}

/// Whether an object was put whole, as far as the store reports it. The store may have copied that of a copy whole, before a session
/// was created because that proved nothing.
pub fn is_put_whole(upload: &Upload, found: &StoredObject, blocks: Option<&[StoredPart]>) -> bool {
    let is_copy = upload.copy_of.is_some();
    let has_no_parts = match blocks {
        Some(blocks) => blocks.is_empty(),
        None => (upload.session.is_none() || is_copy) && found.composite.is_none(),
    };
    has_no_parts && (found.size <= SINGLE_PUT_MAX || is_copy)
}

/// Compares the digests of an object that was put whole: those in the metadata, and those that the store reports.
fn verify_whole(expected: &Expected<'_>, found: &StoredObject) -> Verdict {
    let digests = expected.digests;
    if digests == Digests::default() {
        return Verdict::Same;
    }
    let reported = Digests {
        md5: found
            .md5
            .filter(|reported| found.has_digests || Some(*reported) == digests.md5),
        crc64nvme: found.crc64nvme,
    };
    let known = written(found);
    for known in [known, reported] {
        if let Some(difference) = difference(digests, known) {
            return Verdict::Different(difference);
        }
    }
    let is_proven = match expected.trusts_metadata {
        true => digests.is_proven_by(&known.or(reported)),
        false => digests.is_proven_by(&reported),
    };
    // The gateway has not seen the bytes of what the store copies whole, and notes no MD5 with it.
    if !is_proven && expected.parts.copy_of.is_some() {
        return Verdict::Different(Difference::Parts);
    }
    if expected.needs_proof && !is_proven {
        return Verdict::Unknown;
    }
    Verdict::Same
}

/// The digests that the gateway wrote into the metadata.
fn written(found: &StoredObject) -> Digests {
    Digests {
        md5: found.written_md5(),
        crc64nvme: found.written_crc64nvme(),
    }
}

/// The digest in which `found` differs from `expected`, as far as both are known.
fn difference(expected: Digests, found: Digests) -> Option<Difference> {
    let md5s = expected.md5.zip(found.md5);
    let crc64s = expected.crc64nvme.zip(found.crc64nvme);
    let other_md5 = md5s.filter(|(one, two)| one != two);
    let is_other_crc64 = crc64s.is_some_and(|(one, two)| one != two);
    match other_md5 {
        Some((expected, found)) => Some(Difference::Md5 { expected, found }),
        None => is_other_crc64.then_some(Difference::Crc64Nvme),
    }
}

/// Compares the parts of an object, as far as the store reports them.
fn verify_parts(
    expected: &Expected<'_>,
    capabilities: &Capabilities,
    found: &StoredObject,
    blocks: Option<&[StoredPart]>,
) -> Verdict {
    let reported = Digests {
        md5: None,
        crc64nvme: found.crc64nvme,
    };
    for known in [written(found), reported] {
        if let Some(difference) = difference(expected.digests, known) {
            return Verdict::Different(difference);
        }
    }
    let upload = expected.parts;
    let fits = (!found.has_digests || composite_fits(upload, found.composite))
        && blocks.is_none_or(|blocks| blocks_fit(upload, blocks, capabilities));
    if fits {
        Verdict::Same
    } else {
        Verdict::Different(Difference::Parts)
    }
}

/// Whether the composite MD5 matches the recorded and claimed MD5s of all parts. True if the store reports none, or if one of them is unknown.
fn composite_fits(upload: &Upload, found: Option<CompositeMd5>) -> bool {
    let numbers = 1..=upload.object_part_count().unwrap_or(0);
    let md5 = |number| {
        let recorded = upload.parts.get(number).and_then(Part::probable_md5);
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

/// Whether an object is made of blocks that have the planned sizes and can belong to the upload: the recorded blocks,
/// and a client's own blocks if none is recorded under their number. Another stream's block is accepted, too: only
/// gateways know its name, so it was recorded once, and the state store may have lost what a gateway committed.
fn blocks_fit(upload: &Upload, blocks: &[StoredPart], capabilities: &Capabilities) -> bool {
    if upload.is_cut_by_client {
        return is_one_cut(upload, blocks);
    }
    let count = upload.object_part_count().map(|count| count as usize);
    let fits = |number: u32, block: &StoredPart| {
        let planned = upload.span(number).map_or(0, |span| span.size);
        // The last block of a file of unknown size can be shorter than planned.
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

/// Whether the blocks are all parts of a file that a client cut in one way. An earlier cut than the present one counts, too:
/// its commit may have been signed before the cut changed.
fn is_one_cut(upload: &Upload, blocks: &[StoredPart]) -> bool {
    let Some(file_size) = upload.file.file_size else {
        return false;
    };
    let cut = blocks.first().map_or(0, |block| block.cut);
    let is_own = |number: u32, block: &StoredPart| {
        let is_signed = cut < upload.cut || upload.claims.is_signed(number, cut);
        is_signed && block.number == Some(number) && block.writer.is_none() && block.cut == cut
    };
    let sizes: Vec<_> = (1..).zip(blocks.iter().map(|block| block.size)).collect();
    let Shown::Plan(plan) = upload.plan.shown_by(file_size, &sizes) else {
        return false;
    };
    plan.part_count(file_size).map(|count| count as usize) == Some(blocks.len())
        && (1..)
            .zip(blocks)
            .all(|(number, block)| is_own(number, block))
}

#[cfg(test)]
mod tests;
