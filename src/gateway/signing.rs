//! Bytes straight to the store: the gateway signs, the client sends, and what the client says of it is only a claim.

use std::{ops::Range, time::Duration};

use bytes::Bytes;
use futures::stream::BoxStream;

use super::{Caller, Gateway};
use crate::{
    blobs::sign::SignedRequest,
    error::{Error, Result},
    upload::{Claim, FileMetadata, Md5, Residence, Upload, UploadId},
};

/// The most parts that one call signs.
pub const MAX_SIGNED_PARTS: usize = 100;

/// The longest time a download is signed for, and the usual one: a day.
pub const DOWNLOAD_LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);

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
    pub residence: Residence,
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

/// Bytes of a finished upload's object.
pub struct Download {
    /// The upload.
    pub upload: Upload,
    /// Which bytes they are.
    pub range: Range<u64>,
    /// The bytes.
    pub bytes: BoxStream<'static, Result<Bytes>>,
}

// === impl Gateway ===

impl Gateway {
    /// Tells which kind of store a file would go to; checks it as [`Gateway::create_signed`] does.
    ///
    /// # Errors
    /// `InvalidArgument` that names the field; `NotFound` where there is no such storage.
    pub fn residence(&self, file: &FileMetadata, storage_id: &str) -> Result<Residence> {
        Err(Error::fault("not there yet"))
    }

    /// Creates an upload whose bytes the client sends itself, or finds the one the same create made before, and signs its
    /// first step: `DirectUpload`, `ChunkedUpload`, or `Parts` when the store has some.
    ///
    /// # Errors
    /// `InvalidArgument` that names the field; `NotFound` where there is no such storage.
    pub async fn create_signed(
        &self,
        caller: &Caller,
        file: FileMetadata,
        storage_id: &str,
    ) -> Result<SignedStep> {
        Err(Error::fault("not there yet"))
    }

    /// Notes what a client reports, if the upload is OPEN, and returns the record; in any other phase it notes nothing.
    ///
    /// # Errors
    /// `NotFound`; `InvalidArgument` for a part outside the plan; `FailedPrecondition` for a session in place of one that
    /// has parts, and where the file's size is unknown.
    pub async fn report(&self, caller: &Caller, id: &UploadId, report: Report) -> Result<Upload> {
        Err(Error::fault("not there yet"))
    }

    /// [`Gateway::report`], then the signature of the next step; for [`Next::Nothing`] a step `Parts` that tells what is
    /// recorded and claimed.
    ///
    /// # Errors
    /// Those of the report and of the step; `FailedPrecondition` in another phase than OPEN.
    pub async fn sign_next(
        &self,
        caller: &Caller,
        id: &UploadId,
        report: Report,
        next: Next,
    ) -> Result<SignedStep> {
        Err(Error::fault("not there yet"))
    }

    /// Signs parts, at most [`MAX_SIGNED_PARTS`], and notes their MD5s as claims.
    ///
    /// # Errors
    /// `NotFound`; `InvalidArgument` for a part outside the plan; `FailedPrecondition` in another phase than OPEN, where
    /// the file's size is unknown, where the store wants a session and has none, and for other bytes of a part that a
    /// stream has sent.
    pub async fn sign_parts(
        &self,
        caller: &Caller,
        id: &UploadId,
        parts: &[PartToSign],
    ) -> Result<Vec<SignedStep>> {
        Err(Error::fault("not there yet"))
    }

    /// Signs the commit of all parts, after asking the store for them. Repeatable; the phase stays OPEN.
    ///
    /// # Errors
    /// `NotFound`; `FailedPrecondition`, `Incomplete`, that names the missing parts.
    pub async fn sign_finish(&self, caller: &Caller, id: &UploadId) -> Result<SignedStep> {
        Err(Error::fault("not there yet"))
    }

    /// Verifies the object that a client made and marks the upload COMPLETE. Repeatable.
    ///
    /// # Errors
    /// `NotFound`; `FailedPrecondition`, `Incomplete`, that names the missing parts when there is no object yet, and
    /// `PartReplaced` or `DataLoss` when it is not the upload's: then it is deleted and the upload is ABORTED.
    pub async fn complete_upload(&self, caller: &Caller, id: &UploadId) -> Result<Upload> {
        Err(Error::fault("not there yet"))
    }

    /// Signs a download of a finished upload, for [`DOWNLOAD_LIFETIME`] or less.
    ///
    /// # Errors
    /// `NotFound`; `FailedPrecondition` before the upload is COMPLETE.
    pub async fn sign_download(
        &self,
        caller: &Caller,
        id: &UploadId,
        lifetime: Duration,
    ) -> Result<SignedRequest> {
        Err(Error::fault("not there yet"))
    }

    /// Reads a finished upload's object, or the bytes of it that `range` chooses when it is told the object's size.
    ///
    /// # Errors
    /// `NotFound`; `FailedPrecondition` before the upload is COMPLETE.
    pub async fn download(
        &self,
        caller: &Caller,
        id: &UploadId,
        range: impl FnOnce(u64) -> Result<Range<u64>> + Send,
    ) -> Result<Download> {
        Err(Error::fault("not there yet"))
    }
}
