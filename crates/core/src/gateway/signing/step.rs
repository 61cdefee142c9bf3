//! The steps of a direct upload, and what clients report about the parts that they send.

use crate::{
    blobs::sign::SignedRequest,
    upload::{Claim, Crc64Nvme, Md5, Part, StoreKind, UploadId},
};

/// One signed step of an upload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedStep {
    /// What the request does.
    pub kind: StepType,
    /// The request to send. If its URL is empty, there is nothing to send.
    pub request: SignedRequest,
    /// The upload.
    pub upload_id: UploadId,
    /// The kind of the store that the request goes to.
    pub store_kind: StoreKind,
    /// The size in bytes of every part except the last one.
    pub part_size: u64,
    /// The parts that the store has. Only set in [`StepType::Parts`].
    pub parts: Vec<KnownPart>,
}

/// What a signed request is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StepType {
    /// Puts the whole file.
    DirectUpload,
    /// Creates a session for parts.
    ChunkedUpload,
    /// Lists the parts that the store has.
    Parts,
    /// Puts one part.
    PartUpload,
    /// Makes the object of the parts.
    Finish,
}

/// A part as it is shown to a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KnownPart {
    /// The number, from 1.
    pub number: u32,
    /// The position of its first byte in the file, in bytes.
    pub offset: u64,
    /// The size in bytes.
    pub size: u64,
    /// The MD5: known, or claimed by the client.
    pub md5: Option<Md5>,
    /// The CRC-64/NVME, if the store compared it.
    pub crc64nvme: Option<Crc64Nvme>,
}

/// A part for which a request is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartToSign {
    /// The number, from 1.
    pub number: u32,
    /// The MD5 of the part.
    pub md5: Md5,
}

/// What a client reports.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// The id of the store's session, once the client has created one.
    pub resumable_id: Option<String>,
    /// Parts that were sent or are being sent.
    pub claims: Vec<Claim>,
}

/// The step to sign after a client's report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// The request that puts a part.
    Part(PartToSign),
    /// The request that commits the parts.
    Finish,
    /// Nothing: the client only reports.
    Nothing,
}

// === impl PartToSign ===

impl From<PartToSign> for Claim {
    fn from(part: PartToSign) -> Self {
        Self {
            number: part.number,
            md5: Some(part.md5),
            signed_for: Some(0),
        }
    }
}

// === impl KnownPart ===

impl From<&Part> for KnownPart {
    fn from(part: &Part) -> Self {
        Self {
            number: part.number,
            offset: part.offset,
            size: part.size,
            md5: part.md5(),
            crc64nvme: part.crc64nvme(),
        }
    }
}
