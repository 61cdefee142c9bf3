//! The content of a resume token: enough of a record to rebuild its committed prefix from what the store has.
//!
//! Its text has about 900 bytes, whatever the number of parts: a [`Trail`] identifies them, and adding a part to it
//! takes constant time.

mod trail;

use serde::{Deserialize, Serialize};

pub use self::trail::Trail;
use super::{
    Checksum, Crc64Nvme, DigestState, Evidence, FileMetadata, Fingerprint, Integrity, Md5, Owner,
    Part, Plan, StoreKind, Timestamp, Upload, UploadId, WriterTag,
};

/// The committed prefix of a record at one moment. The fields are those of [`Upload`]; their names in JSON are single
/// letters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Snapshot {
    /// The upload.
    #[serde(rename = "i")]
    pub id: UploadId,
    /// The version of the record. A rebuilt record continues from it, so that its versions are not taken for older
    /// ones.
    #[serde(rename = "v")]
    pub version: u64,
    /// The owner, who alone may use the token.
    #[serde(rename = "o")]
    pub owner: Owner,
    /// When the token expires.
    #[serde(rename = "e")]
    pub expires_at: Timestamp,
    /// The storage that has the parts.
    #[serde(rename = "s")]
    pub storage_id: String,
    /// The kind of that storage.
    #[serde(rename = "r")]
    pub store_kind: StoreKind,
    /// The id of the store's session, if one was created.
    #[serde(rename = "n")]
    pub session: Option<String>,
    /// The file.
    #[serde(rename = "f")]
    pub file: FileMetadata,
    /// How the file is split into parts.
    #[serde(rename = "p")]
    pub plan: Plan,
    /// The cut to which the parts of clients belong; see [`Upload::cut`].
    #[serde(rename = "u", default)]
    pub cut: u8,
    #[serde(rename = "k")]
    object_key: String,
    #[serde(rename = "x")]
    fingerprint: Option<Fingerprint>,
    #[serde(rename = "q")]
    opaque_file_id: bool,
    #[serde(rename = "c")]
    created_at: Timestamp,
    #[serde(rename = "l")]
    ends_at: Timestamp,
    #[serde(rename = "t")]
    trail: Trail,
    /// The digest of the whole file up to the end of the trail, if the upload has one.
    #[serde(rename = "d")]
    digest: Option<DigestState>,
}

/// A part as a store lists it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listed<'a> {
    /// The name of the part in a commit.
    pub receipt: &'a str,
    /// The size in bytes.
    pub size: u64,
    /// The receipt, parsed as an MD5. On some stores that is the MD5 of the part.
    pub md5: Option<Md5>,
    /// The CRC-64/NVME that the store lists.
    pub crc64nvme: Option<Crc64Nvme>,
}

// === impl Snapshot ===

impl Snapshot {
    /// The snapshot of `upload`, up to the end of `trail`.
    pub fn of(upload: &Upload, trail: &Trail) -> Self {
        let last = upload.parts.get(trail.parts());
        // What digest the parts of a session have, the parts show.
        let is_named = upload.integrity == Integrity::Md5 || last.is_some();
        Self {
            id: upload.id.clone(),
            version: upload.version,
            owner: upload.owner.clone(),
            expires_at: upload.expires_at,
            storage_id: upload.storage_id.clone(),
            store_kind: upload.store_kind,
            session: upload.session.clone().filter(|_| is_named),
            file: upload.file.clone(),
            plan: upload.plan.clone(),
            cut: upload.cut,
            object_key: upload.object_key.clone(),
            fingerprint: upload.fingerprint.clone(),
            opaque_file_id: upload.opaque_file_id,
            created_at: upload.created_at,
            ends_at: upload.ends_at,
            trail: trail.clone(),
            digest: last.and_then(|part| part.digest.clone()),
        }
    }

    /// The record, OPEN and without parts.
    pub fn record(&self, now: Timestamp, expires_at: Timestamp) -> Upload {
        Upload {
            version: self.version,
            file: self.file.clone(),
            owner: self.owner.clone(),
            storage_id: self.storage_id.clone(),
            object_key: self.object_key.clone(),
            cut: self.cut,
            fingerprint: self.fingerprint.clone(),
            session: self.session.clone(),
            opaque_file_id: self.opaque_file_id,
            updated_at: now,
            expires_at,
            ends_at: self.ends_at,
            // The lost record may have been COMMITTING.
            evidence: Evidence {
                is_commit_sent: true,
                ..Evidence::default()
            },
            ..Upload::begun(
                self.id.clone(),
                self.store_kind,
                self.plan.clone(),
                self.created_at,
            )
        }
    }

    /// The end of the committed prefix, in bytes.
    pub fn size(&self) -> u64 {
        self.trail.size()
    }

    /// The state of the MD5 after the first [`Snapshot::size`] bytes of the file, if it is known.
    pub fn digest(&self) -> Option<&DigestState> {
        self.digest.as_ref()
    }

    /// The parts of the prefix among those that the store has. `find` returns the part that the store lists under a
    /// number, and from this writer if the names of parts contain writers. Returns all parts; or, if there is no digest
    /// of the whole file that must match them, the parts before the first missing one; or no parts.
    pub fn parts_among<'a>(
        &self,
        find: impl Fn(u32, Option<WriterTag>) -> Option<Listed<'a>>,
    ) -> Vec<Part> {
        let writers = self.trail.writers();
        let found = (1..=self.trail.parts()).zip(writers);
        let found = found.map_while(|(number, writer)| self.part(number, find(number, writer)?));
        let mut parts: Vec<Part> = found.collect();
        let is_whole = parts.len() == self.trail.parts() as usize;
        // The digest is only known at the end of the prefix.
        let is_kept = (is_whole || self.digest.is_none()) && self.trail.matches(&parts);
        if !is_kept {
            return Vec::new();
        }
        if is_whole && let Some(last) = parts.last_mut() {
            last.digest.clone_from(&self.digest);
        }
        parts
    }

    /// The part that is listed under a number, if it has the planned size.
    fn part(&self, number: u32, listed: Listed<'_>) -> Option<Part> {
        let span = self.plan.span(number)?;
        let size = span.size.min(self.trail.size().checked_sub(span.offset)?);
        (listed.size == size).then(|| Part {
            number,
            offset: span.offset,
            size,
            checksum: match listed.md5.filter(|_| self.trail.has_md5s()) {
                Some(md5) => Some(md5.into()),
                None => listed.crc64nvme.map(Checksum::Crc64Nvme),
            },
            receipt: listed.receipt.to_owned(),
            digest: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::upload::{
        Capabilities, DigestChoice, Features, FileDigest, MIB, PART_SIZE, StoreLimits, keys,
    };

    const LIMITS: StoreLimits = StoreLimits {
        max_parts: 10_000,
        max_part_size: 64 * MIB,
        max_object_size: u64::MAX,
        equal_parts: false,
    };

    /// An upload of unknown size on a store of this kind, with parts by these writers and a digest of the file.
    fn upload(store_kind: StoreKind, writers: &[u32]) -> Upload {
        let id = UploadId::generate(None);
        let plan = Plan::unknown(PART_SIZE, &LIMITS);
        let part = |(number, &bits): (u32, &u32)| {
            let (span, md5) = (plan.span(number).unwrap(), Md5::of(&number.to_be_bytes()));
            Part {
                number,
                offset: span.offset,
                size: span.size,
                checksum: Some(md5.into()),
                receipt: match store_kind {
                    StoreKind::S3 => md5.to_hex(),
                    StoreKind::Azure => format!("{number} by {bits}"),
                },
                digest: Some(FileDigest::begin(DigestChoice::Md5).unwrap().state()),
            }
        };
        Upload {
            version: 3,
            file: FileMetadata {
                file_name: "später & mehr?.bin".into(),
                file_mime: "application/octet-stream".into(),
                file_id: Some(Md5::of(b"").to_string()),
                ..FileMetadata::default()
            },
            owner: Owner {
                tenant: "acme".into(),
                subject: "service-accounts/renderer".into(),
            },
            storage_id: "media".into(),
            object_key: keys::object_key("incoming/media", &id, "sp_ter___mehr_.bin"),
            parts: (1..).zip(writers).map(part).collect(),
            // As long as the ids of AWS.
            session: Some("s".repeat(128)),
            expires_at: Timestamp(1_700_086_400_000),
            ends_at: Timestamp(9),
            ..Upload::begun(id, store_kind, plan, Timestamp(1_700_000_000_000))
        }
    }

    fn capabilities(kind: StoreKind) -> Capabilities {
        let is_s3 = kind == StoreKind::S3;
        Capabilities {
            creates_sessions: is_s3,
            one_part_per_number: is_s3,
            lists_part_digests: is_s3,
            names_writers: !is_s3,
            binds_part_size: is_s3,
            computes_object_md5: is_s3,
            binds_placement: is_s3,
            features: Features::NONE,
        }
    }

    fn writer_of(receipt: &str) -> Option<WriterTag> {
        let (_, bits) = receipt.split_once(" by ")?;
        WriterTag::from_bits(bits.parse().unwrap())
    }

    fn snapshot(upload: &Upload) -> Snapshot {
        let mut trail = Trail::new(&capabilities(upload.store_kind));
        trail.follow(&upload.parts, writer_of);
        Snapshot::of(upload, &trail)
    }

    /// The part that a store lists which has exactly the parts of `upload`.
    fn listed(upload: &Upload, number: u32, writer: Option<WriterTag>) -> Option<Listed<'_>> {
        let part = upload.parts.get(number)?;
        (writer_of(&part.receipt) == writer).then_some(Listed {
            receipt: &part.receipt,
            size: part.size,
            md5: part.md5().filter(|md5| md5.to_hex() == part.receipt),
            crc64nvme: None,
        })
    }

    proptest! {
        #[test]
        fn a_snapshot_is_read_back_and_finds_its_parts(
            writers in prop::collection::vec(0u32..3, 0..40),
            azure: bool,
        ) {
            let store_kind = if azure { StoreKind::Azure } else { StoreKind::S3 };
            let upload = upload(store_kind, &writers);
            let snapshot = snapshot(&upload);
            let text = serde_json::to_vec(&snapshot).unwrap();
            prop_assert_eq!(&serde_json::from_slice::<Snapshot>(&text).unwrap(), &snapshot);
            prop_assert_eq!(snapshot.size(), upload.committed_size());
            let parts = snapshot.parts_among(|number, writer| listed(&upload, number, writer));
            prop_assert_eq!(parts.len(), writers.len());
            for (found, part) in parts.iter().zip(upload.parts.iter()) {
                prop_assert_eq!(&found.receipt, &part.receipt);
                prop_assert_eq!(found.checksum, part.checksum.filter(|_| !azure));
            }
            let digest = |part: Option<&Part>| part.and_then(|part| part.digest.clone());
            prop_assert_eq!(digest(parts.last()), digest(upload.parts.last_committed()));
            let record = snapshot.record(upload.updated_at, upload.expires_at);
            prop_assert!(record.evidence.is_commit_sent, "it may have been lost in a commit");
            let (parts, evidence) = (upload.parts.clone(), upload.evidence);
            prop_assert_eq!(Upload { parts, evidence, ..record }, upload);
        }

        #[test]
        fn a_trail_is_the_same_part_by_part_and_all_at_once(writers in prop::collection::vec(0u32..3, 1..40)) {
            for store_kind in [StoreKind::S3, StoreKind::Azure] {
                let whole = upload(store_kind, &writers);
                let mut trail = Trail::new(&capabilities(store_kind));
                for count in 1..=writers.len() {
                    let parts = whole.parts.iter().take(count).cloned().collect();
                    trail.follow(&parts, writer_of);
                }
                prop_assert_eq!(trail, snapshot(&whole).trail);
            }
        }
    }

    #[test]
    fn parts_that_the_store_lost_are_not_rebuilt() {
        for store_kind in [StoreKind::S3, StoreKind::Azure] {
            let upload = upload(store_kind, &[7, 7, 8, 8]);
            let snapshot = snapshot(&upload);
            let without = |missing: u32| {
                let find =
                    |number, writer| listed(&upload, number, writer).filter(|_| number != missing);
                snapshot.parts_among(find).len()
            };
            // With a part missing, the digest at the end of the others is unknown.
            assert_eq!(without(4), 0, "{store_kind:?}");
            assert_eq!(without(1), 0, "{store_kind:?}");
            let resized = snapshot.parts_among(|number, writer| {
                let found = listed(&upload, number, writer)?;
                let size = found.size - u64::from(number == 2);
                Some(Listed { size, ..found })
            });
            assert_eq!(resized, []);
        }
    }

    #[test]
    fn a_shorter_prefix_is_kept_if_there_is_no_file_digest() {
        let mut upload = upload(StoreKind::Azure, &[7, 7, 8]);
        let undigested = upload.parts.iter().map(|part| Part {
            digest: None,
            ..part.clone()
        });
        upload.parts = undigested.collect();
        let find = |number, writer| listed(&upload, number, writer).filter(|_| number < 3);
        assert_eq!(snapshot(&upload).parts_among(find).len(), 2);
    }

    #[test]
    fn a_replaced_part_breaks_the_chain() {
        let upload = upload(StoreKind::S3, &[0; 3]);
        let other = Md5::of(b"other bytes").to_hex();
        let replaced = snapshot(&upload).parts_among(|number, writer| {
            let found = listed(&upload, number, writer)?;
            Some(if number == 2 {
                Listed {
                    receipt: &other,
                    ..found
                }
            } else {
                found
            })
        });
        assert_eq!(replaced, []);
    }

    #[test]
    fn receipts_that_are_not_md5s_are_not_used_as_md5s() {
        let mut upload = upload(StoreKind::S3, &[0; 2]);
        let encrypted = upload.parts.iter().map(|part| Part {
            receipt: Md5::of(part.receipt.as_bytes()).to_hex(),
            ..part.clone()
        });
        upload.parts = encrypted.collect();
        let find = |number, _| {
            let part = upload.parts.get(number)?;
            let md5 = part.receipt.parse().ok();
            Some(Listed {
                receipt: &part.receipt,
                size: part.size,
                md5,
                crc64nvme: None,
            })
        };
        let parts = snapshot(&upload).parts_among(find);
        assert_eq!(parts.len(), 2);
        assert!(parts.iter().all(|part| part.checksum.is_none()));
    }

    #[test]
    fn the_text_stays_short_with_many_parts_and_takeovers() {
        let many: Vec<u32> = (1..=5_000).collect();
        let s3 = snapshot(&upload(StoreKind::S3, &many));
        assert_eq!(s3.trail.parts(), 5_000);
        assert!(serde_json::to_vec(&s3).unwrap().len() < 1_100);
        let azure = snapshot(&upload(StoreKind::Azure, &many));
        assert_eq!(azure.trail.parts(), 256, "each part has its own writer");
        assert_eq!(azure.size(), 256 * PART_SIZE);
        assert!(serde_json::to_vec(&azure).unwrap().len() < 8_192);
    }
}
