//! Which parts of an upload the store has: the record, the claims and the store's list compared.

use std::collections::{BTreeMap, HashMap};

use super::{
    Capabilities, Checksum, Crc64Nvme, Integrity, Part, Plan, Shown, StoredPart, Upload,
    listed_crc64s,
};

/// The parts that are present: those of which the object can be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Present {
    /// How the file is split: the plan of the record, or the one that the parts of a client show.
    pub plan: Plan,
    /// The parts by number.
    pub parts: BTreeMap<u32, Part>,
    /// Whether the parts of clients can be of different cuts. Then none is present, and all are sent again in a new cut.
    pub is_mixed: bool,
    /// The numbers of the parts that have another size than most.
    pub misfits: Vec<u32>,
    /// Those that the store lists, in a session whose commit names them.
    crc64s: BTreeMap<u32, Crc64Nvme>,
}

// === impl Present ===

impl Present {
    /// Whether the object can be made of the parts.
    pub fn is_whole(&self, file_size: Option<u64>) -> bool {
        let count = file_size.and_then(|size| self.plan.part_count(size));
        count.is_some_and(|count| self.parts.len() == count as usize)
    }

    /// The parts in their order, as a commit names them.
    pub fn named(self) -> Vec<Part> {
        let crc64s = self.crc64s;
        let parts = self.parts.into_values();
        parts
            .map(|part| {
                let listed = crc64s.get(&part.number).copied();
                part.named(listed)
            })
            .collect()
    }

    /// Whether no part is present, and none contradicts another one.
    pub fn has_nothing(&self) -> bool {
        self.parts.is_empty() && !self.is_mixed
    }

    /// Removes the part that a client or a stream that continues must send again, and returns its number: the client before
    /// it added a single part, which could also be the last part of a file that is cut in another way. If so, another MD5
    /// shows it when it is signed again.
    pub fn take_unproven(&mut self, upload: &Upload) -> Option<u32> {
        let is_alone = upload.is_cut_by_client
            && upload.continued_with > 0
            && self.parts.len() == (upload.continued_with as usize).saturating_add(1);
        let last = self.parts.last_entry().filter(|_| is_alone)?;
        let (number, size) = (*last.key(), last.get().size);
        let file_size = upload.file.file_size.unwrap_or(0);
        let is_unproven = self.plan.shown_by(file_size, &[(number, size)]) == Shown::Nothing;
        is_unproven.then(|| {
            last.remove();
            number
        })
    }

    /// Compares the parts that the store lists with the record.
    ///
    /// A recorded part must be in the store with the recorded receipt (S3: ETag, Azure: block id) and size. A part that is
    /// not recorded must have the planned size, and a client must have put and claimed it: a stream may have put other
    /// parts under the same number that it did not record. If the client chooses the part size, the plan is the one that
    /// all of its parts show; without one, no part is present.
    pub fn new(upload: &Upload, capabilities: &Capabilities, listed: &[StoredPart]) -> Self {
        let claimed: BTreeMap<u32, &StoredPart> = listed
            .iter()
            .filter_map(|part| Some((part.number?, part)))
            .filter(|(number, part)| is_claimed(upload, capabilities, *number, part))
            .filter(|(number, _)| upload.unproven != Some(*number))
            .collect();
        let mut present = Self {
            plan: upload.plan.clone(),
            parts: BTreeMap::new(),
            is_mixed: false,
            misfits: Vec::new(),
            crc64s: match upload.session_integrity() {
                Integrity::Md5 => BTreeMap::new(),
                Integrity::Crc64Nvme => listed_crc64s(listed),
            },
        };
        if upload.is_cut_by_client {
            let sizes: Vec<_> = claimed
                .iter()
                .map(|(number, part)| (*number, part.size))
                .collect();
            present.is_mixed = skips_a_part(upload, &sizes);
            let file_size = upload.file.file_size.unwrap_or(0);
            match upload.plan.shown_by(file_size, &sizes) {
                Shown::Plan(plan) if !present.is_mixed => present.plan = plan,
                Shown::Contradiction(misfits) => {
                    (present.is_mixed, present.misfits) = (true, misfits);
                    return present;
                }
                Shown::Plan(_) | Shown::Nothing => return present,
            }
        }
        present.parts = if upload.is_cut_by_client {
            parts(&upload.planned(&present.plan), &claimed, listed)
        } else {
            parts(upload, &claimed, listed)
        };
        present
    }
}

/// Whether a part before the last one was never signed in this cut. Clients sign in order: one that skips a part was shown
/// it in an earlier cut.
fn skips_a_part(upload: &Upload, sizes: &[(u32, u64)]) -> bool {
    let last = sizes.last().map_or(0, |(number, _)| *number);
    (1..last).any(|number| !upload.claims.is_signed(number, upload.cut))
}

/// Whether a client put the part with a request that the gateway signed for it, as far as the store shows it.
fn is_claimed(
    upload: &Upload,
    capabilities: &Capabilities,
    number: u32,
    part: &StoredPart,
) -> bool {
    if capabilities.lists_part_digests {
        return part.writer.is_none() && upload.claims.contains(number);
    }
    part.writer.is_none() && part.cut == upload.cut && upload.claims.is_signed(number, part.cut)
}

fn parts(
    upload: &Upload,
    claimed: &BTreeMap<u32, &StoredPart>,
    listed: &[StoredPart],
) -> BTreeMap<u32, Part> {
    let sizes: HashMap<&str, u64> = listed
        .iter()
        .map(|part| (part.receipt.as_str(), part.size))
        .collect();
    let integrity = upload.session_integrity();
    let parts = (1..=upload.part_count().unwrap_or(0)).filter_map(|number| {
        if let Some(part) = upload.parts.get(number) {
            let is_there = sizes.get(part.receipt.as_str()) == Some(&part.size);
            return is_there.then(|| (number, part.clone()));
        }
        let (span, found) = (upload.span(number)?, claimed.get(&number)?);
        let part = Part {
            number,
            offset: span.offset,
            size: span.size,
            checksum: client_checksum(upload, integrity, found),
            receipt: found.receipt.clone(),
            digest: None,
        };
        (found.size == span.size).then_some((number, part))
    });
    parts.collect()
}

/// The checksum of a part that a client put: the CRC-64 in a session whose commit names it, else the MD5, which the ETag proves. Not
/// known if the ETag is not the claimed MD5: a stream may have put other bytes, and the claim shows it when the object is compared.
fn client_checksum(upload: &Upload, integrity: Integrity, found: &StoredPart) -> Option<Checksum> {
    let claimed = upload.claims.md5(found.number?);
    if claimed.is_some() && found.md5 != claimed {
        return None;
    }
    match (integrity, found.crc64nvme) {
        (Integrity::Crc64Nvme, Some(crc64)) => Some(crc64.into()),
        _ => claimed.map(Checksum::Md5),
    }
}

#[cfg(test)]
mod tests;
