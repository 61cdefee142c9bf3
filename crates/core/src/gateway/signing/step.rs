//! What clients report of the parts they send themselves, and what they are answered.

use crate::{
    blobs::sign::SignedRequest,
    upload::{Claim, Md5, Part, StoreKind, UploadId},
};

/// One signed step of an upload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedStep {
    /// What it does.
    pub kind: StepType,
    /// The request to send, if its URL is not empty.
    pub request: SignedRequest,
    /// Which upload.
    pub upload_id: UploadId,
    /// The kind of store it goes to.
    pub store_kind: StoreKind,
    /// The size in bytes of every part but the last.
    pub part_size: u64,
    /// The parts that are there, in [`StepType::Parts`] alone.
    pub parts: Vec<KnownPart>,
}

/// What a signed request is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StepType {
    /// Puts the whole file.
    DirectUpload,
    /// Begins a session for parts.
    ChunkedUpload,
    /// Lists the parts the store has.
    Parts,
    /// Puts one part.
    PartUpload,
    /// Makes the object of the parts.
    Finish,
}

/// A part as a client is told of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KnownPart {
    /// Its number, from 1.
    pub number: u32,
    /// Where it begins in the file, in bytes.
    pub offset: u64,
    /// Its size in bytes.
    pub size: u64,
    /// Its MD5, known or claimed.
    pub md5: Option<Md5>,
}

/// A part to be signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartToSign {
    /// Its number, from 1.
    pub number: u32,
    /// Its MD5.
    pub md5: Md5,
}

/// What a client reports.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// The store's session, once the client has begun it.
    pub resumable_id: Option<String>,
    /// Parts that were sent or are being sent.
    pub claims: Vec<Claim>,
}

/// The step that a client wants signed after its report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// A part.
    Part(PartToSign),
    /// The commit.
    Finish,
    /// None: it only reports.
    Nothing,
}

// === impl PartToSign ===

impl From<PartToSign> for Claim {
    fn from(part: PartToSign) -> Self {
        Self {
            number: part.number,
            md5: Some(part.md5),
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
            md5: part.md5,
        }
    }
}
