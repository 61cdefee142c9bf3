//! Parts and claims as fixed-width slots, which both state stores keep.
//!
//! | bytes of a part | content |
//! |---|---|
//! | 0 | flags; 0: there is no part |
//! | 1–8 | the size, big endian. The offset follows from the plan |
//! | 9–24 | the checksum: an MD5 (with a flag), or a CRC-64/NVME of 8 bytes, zeros and a 1, which releases before read as no checksum, or zeros |
//! | 25–40 | the receipt: an MD5 in hexadecimal digits (S3) as its 16 bytes, a block id (Azure) as its 6 bytes, any other text as its MD5. The text is then kept beside the slots |
//!
//! | bytes of a claim | content |
//! |---|---|
//! | 0 | 0: no claim, 1: a claim without an MD5, 2: a reported one, 3: one for which a request was signed |
//! | 1–16 | the MD5, or zeros |
//! | 17 | the cut for which the request was signed |
//!
//! Equal slots mean equal parts. The format version of the record covers the slots.

use base64::{Engine, engine::general_purpose::STANDARD};
use upload_gateway_core::{
    error::{Error, Result},
    upload::{Checksum, Claim, Crc64Nvme, DigestState, MAX_PART_NUMBER, Md5, Part, Plan},
};

/// The length of the slot of a part.
pub(super) const PART_SLOT: usize = 41;

/// The length of the slot of a claim.
pub(super) const CLAIM_SLOT: usize = 18;

/// The longest receipt, in bytes. ETags of known stores have at most 70 bytes.
pub(super) const MAX_RECEIPT: usize = 1_024;

const IS_PRESENT: u8 = 1;
/// Scripts of the Redis adapter know this flag, the next two, and [`CRC64_MARK`].
pub(super) const HAS_MD5: u8 = 2;
/// The receipt is kept beside the slots.
pub(super) const HAS_LONG_RECEIPT: u8 = 4;
/// The receipt is a block id.
pub(super) const HAS_BLOCK_ID: u8 = 8;

/// The position of the byte that is 1 if the checksum is a CRC-64.
pub(super) const CRC64_MARK: usize = 24;

/// Scripts know it, too.
pub(super) const BARE_CLAIM: u8 = 1;
const REPORTED_CLAIM: u8 = 2;
/// Scripts know it, too.
pub(super) const SIGNED_CLAIM: u8 = 3;

/// The length of a block id, before base64.
const BLOCK_ID: usize = 6;

/// The slot of a part.
pub(super) type PartSlot = [u8; PART_SLOT];

/// The slot of a claim.
pub(super) type ClaimSlot = [u8; CLAIM_SLOT];

/// Why a slot cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum InvalidSlot {
    #[error("part {0} has invalid bytes")]
    Part(u32),
    #[error("part {0} is not in the plan")]
    Number(u32),
    #[error("the receipt of part {0} is missing")]
    Receipt(u32),
    #[error("claim {0} has invalid bytes")]
    Claim(u32),
}

/// The store named a part with a receipt that is too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the store returned a receipt (ETag) of {0} bytes for a part; at most {MAX_RECEIPT} are supported"
)]
struct ReceiptTooLong(usize);

/// The slot of a part, and its receipt if that is kept beside it.
///
/// # Errors
/// `StoreUnavailable` if the receipt is longer than [`MAX_RECEIPT`]; `Internal` if no plan has the number.
pub(super) fn write_part(part: &Part) -> Result<(PartSlot, Option<&str>)> {
    if !(1..=MAX_PART_NUMBER).contains(&part.number) {
        return Err(Error::fault("record a part: no plan has its number"));
    }
    let receipt = part.receipt.as_str();
    if receipt.len() > MAX_RECEIPT {
        return Err(Error::store_unavailable(ReceiptTooLong(receipt.len())));
    }
    let mut flags = IS_PRESENT;
    let mut name = [0; 16];
    let mut beside = None;
    if let Some(md5) = hexadecimal(receipt) {
        name = md5.0;
    } else if let Some(id) = block_id(receipt) {
        flags |= HAS_BLOCK_ID;
        name[..BLOCK_ID].copy_from_slice(&id);
    } else {
        flags |= HAS_LONG_RECEIPT;
        name = Md5::of(receipt.as_bytes()).0;
        beside = Some(receipt);
    }
    let mut slot = [0; PART_SLOT];
    match part.checksum {
        Some(Checksum::Md5(md5)) => {
            flags |= HAS_MD5;
            slot[9..25].copy_from_slice(&md5.0);
        }
        Some(Checksum::Crc64Nvme(crc64)) => {
            slot[9..17].copy_from_slice(&crc64.0.to_be_bytes());
            slot[CRC64_MARK] = 1;
        }
        None => {}
    }
    slot[0] = flags;
    slot[1..9].copy_from_slice(&part.size.to_be_bytes());
    slot[25..].copy_from_slice(&name);
    Ok((slot, beside))
}

/// The part in a slot; `None` if the slot is empty. `beside` returns the receipt that is kept beside it.
///
/// # Errors
/// The bytes are invalid, the receipt is missing, or the plan does not have the part.
pub(super) fn read_part(
    plan: &Plan,
    number: u32,
    slot: &[u8],
    beside: impl FnOnce() -> Option<String>,
    digest: Option<DigestState>,
) -> Result<Option<Part>, InvalidSlot> {
    let slot: &PartSlot = slot.try_into().map_err(|_| InvalidSlot::Part(number))?;
    let flags = slot[0];
    if flags == 0 {
        return Ok(None);
    }
    let (size, name) = (&slot[1..9], &slot[25..]);
    let invalid = |_| InvalidSlot::Part(number);
    let name: [u8; 16] = name.try_into().map_err(invalid)?;
    let receipt = match flags & !HAS_MD5 {
        IS_PRESENT => Md5(name).to_hex(),
        block if block == IS_PRESENT | HAS_BLOCK_ID => STANDARD.encode(&name[..BLOCK_ID]),
        long if long == IS_PRESENT | HAS_LONG_RECEIPT => {
            beside().ok_or(InvalidSlot::Receipt(number))?
        }
        _ => return Err(InvalidSlot::Part(number)),
    };
    let span = plan.span(number).ok_or(InvalidSlot::Number(number))?;
    Ok(Some(Part {
        number,
        offset: span.offset,
        size: u64::from_be_bytes(size.try_into().map_err(invalid)?),
        checksum: checksum(slot),
        receipt,
        digest,
    }))
}

/// Whether the slot has a part whose receipt is kept beside it.
pub(super) fn has_long_receipt(slot: &[u8]) -> bool {
    slot.first()
        .is_some_and(|flags| flags & HAS_LONG_RECEIPT != 0)
}

/// The checksum of the part in a slot.
pub(super) fn checksum(slot: &PartSlot) -> Option<Checksum> {
    let (bytes, _) = slot[9..].split_first_chunk::<16>()?;
    if slot[0] & HAS_MD5 != 0 {
        return Some(Md5(*bytes).into());
    }
    let (crc64, _) = bytes.split_first_chunk()?;
    (slot[CRC64_MARK] == 1).then(|| Crc64Nvme(u64::from_be_bytes(*crc64)).into())
}

/// The slot of a claim.
pub(super) fn write_claim(claim: &Claim) -> ClaimSlot {
    let mut slot = [0; CLAIM_SLOT];
    slot[0] = match (claim.signed_for, claim.md5) {
        (Some(_), _) => SIGNED_CLAIM,
        (None, Some(_)) => REPORTED_CLAIM,
        (None, None) => BARE_CLAIM,
    };
    slot[1..17].copy_from_slice(&claim.md5.map_or([0; 16], |md5| md5.0));
    slot[17] = claim.signed_for.unwrap_or(0);
    slot
}

/// The claim in a slot; `None` if the slot is empty.
///
/// # Errors
/// The bytes are invalid.
pub(super) fn read_claim(number: u32, slot: &[u8]) -> Result<Option<Claim>, InvalidSlot> {
    let invalid = InvalidSlot::Claim(number);
    let slot: &ClaimSlot = slot.try_into().map_err(|_| invalid)?;
    let md5 = Md5(slot[1..17].try_into().map_err(|_| invalid)?);
    let (md5, signed_for) = match slot[0] {
        0 => return Ok(None),
        BARE_CLAIM => (None, None),
        REPORTED_CLAIM => (Some(md5), None),
        SIGNED_CLAIM => (Some(md5), Some(slot[17])),
        _ => return Err(invalid),
    };
    Ok(Some(Claim {
        number,
        md5,
        signed_for,
    }))
}

/// The MD5 whose lower-case hexadecimal form is `receipt`.
fn hexadecimal(receipt: &str) -> Option<Md5> {
    if receipt.len() != 32 {
        return None;
    }
    receipt
        .parse()
        .ok()
        .filter(|md5: &Md5| md5.to_hex() == receipt)
}

/// The bytes whose base64 is `receipt`, if they are as many as a block id has.
fn block_id(receipt: &str) -> Option<[u8; BLOCK_ID]> {
    if receipt.len() != BLOCK_ID / 3 * 4 {
        return None;
    }
    STANDARD.decode(receipt).ok()?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use upload_gateway_core::upload::{PART_SIZE, StoreLimits};

    use super::*;

    fn plan() -> Plan {
        let limits = StoreLimits {
            max_parts: 10_000,
            max_part_size: 64 << 20,
            max_object_size: u64::MAX,
            equal_parts: false,
        };
        Plan::unknown(PART_SIZE, &limits)
    }

    fn part(number: u32, receipt: &str, checksum: Option<Checksum>) -> Part {
        Part {
            number,
            offset: plan().span(number).unwrap().offset,
            size: 7,
            checksum,
            receipt: receipt.into(),
            digest: None,
        }
    }

    #[test]
    fn every_receipt_reads_back_equal() {
        let md5 = Md5::of(b"a");
        let longest = "é\"-".repeat(256);
        for (receipt, is_beside) in [
            (md5.to_hex(), false),
            (STANDARD.encode(b"000001"), false),
            (md5.to_hex().to_uppercase(), true),
            (format!("{}-2", md5.to_hex()), true),
            ("000001==".into(), true),
            ("0000000".into(), true),
            (String::new(), true),
            ("a".into(), true),
            (longest, true),
        ] {
            for checksum in [Some(md5.into()), Some(Crc64Nvme(7).into()), None] {
                let part = part(2_000, &receipt, checksum);
                let (slot, beside) = write_part(&part).unwrap();
                assert_eq!(
                    (beside.is_some(), has_long_receipt(&slot)),
                    (is_beside, is_beside)
                );
                let beside = || Some(receipt.clone());
                let read = read_part(&plan(), 2_000, &slot, beside, None);
                assert_eq!(read, Ok(Some(part)), "{receipt}");
            }
        }
    }

    #[test]
    fn releases_before_read_a_crc64_as_no_checksum() {
        let (slot, _) = write_part(&part(1, "0000", Some(Crc64Nvme(u64::MAX).into()))).unwrap();
        assert_eq!(slot[0] & HAS_MD5, 0);
        let (slot, _) = write_part(&part(1, "0000", Some(Md5([1; 16]).into()))).unwrap();
        assert_eq!(checksum(&slot), Some(Md5([1; 16]).into()));
    }

    #[test]
    fn different_receipts_have_different_slots() {
        let slot = |receipt: &str| write_part(&part(1, receipt, None)).unwrap().0;
        assert_ne!(slot("a"), slot("b"));
        assert_ne!(slot("AAAAAAAA"), slot(&"0".repeat(32)));
    }

    #[test]
    fn a_receipt_that_is_too_long_is_an_error_of_the_store() {
        let receipt = "x".repeat(MAX_RECEIPT + 1);
        let error = write_part(&part(1, &receipt, None)).unwrap_err();
        assert_eq!(
            error.reason(),
            upload_gateway_core::error::Reason::StoreUnavailable
        );
    }

    #[test]
    fn invalid_slots_are_rejected() {
        let (slot, _) = write_part(&part(1, "a", None)).unwrap();
        let read = |number, slot: &[u8]| read_part(&plan(), number, slot, || None, None);
        assert_eq!(read(1, &slot), Err(InvalidSlot::Receipt(1)));
        assert_eq!(read(1, &slot[1..]), Err(InvalidSlot::Part(1)));
        assert_eq!(read(1, &[0xff; PART_SLOT]), Err(InvalidSlot::Part(1)));
        let (slot, _) = write_part(&part(1, &"0".repeat(32), None)).unwrap();
        assert_eq!(read(10_001, &slot), Err(InvalidSlot::Number(10_001)));
        assert_eq!(read(1, &[0; PART_SLOT]), Ok(None));
        assert_eq!(read_claim(1, &[4; CLAIM_SLOT]), Err(InvalidSlot::Claim(1)));
        assert_eq!(read_claim(1, &[]), Err(InvalidSlot::Claim(1)));
    }
}
