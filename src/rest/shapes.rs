//! What the calls answer.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use upload_gateway_core::{
    blobs::sign::SignedRequest,
    gateway::{KnownPart, SignedStep, StepType as Step},
    upload::{self, Phase, SINGLE_PUT_MAX, StoreKind, Upload},
};
use utoipa::ToSchema;

use super::PartDataForm;

/// Where a file would go.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ResidenceAnswer {
    pub(super) residence: Residence,
}

/// The kind of a store.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
pub(super) enum Residence {
    /// S3, or a store that speaks its protocol.
    AmazonS3,
    /// Azure Blob Storage.
    AzureStorage,
}

/// Who may download an upload, besides its owner.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Permissions {
    /// Any authenticated caller.
    #[default]
    None,
    /// Support and administrators.
    Support,
    /// Administrators.
    Admin,
}

/// The step that an upload begins or goes on with.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct FirstStep {
    /// `direct_upload`: put the whole file. `chunked_upload`: begin a session, if the URL is not empty, then send parts.
    /// `parts`: some parts are there already.
    #[serde(rename = "type")]
    kind: StepType,
    signature: Signature,
    /// The numbers of the parts that the store has; with `parts` only.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    part_list: Option<Vec<u32>>,
    /// Those parts and their MD5s; with `parts` only.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    part_data: Option<PartData>,
    upload_id: String,
    residence: Residence,
    /// The size in bytes of every part but the last.
    part_size: u64,
}

/// A step of an upload.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct NextStep {
    /// `part_upload`: put the part. `finish`: make the object of all parts.
    #[serde(rename = "type")]
    kind: StepType,
    signature: Signature,
    upload_id: String,
    /// The body to send; with `finish` only.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    body: Option<String>,
}

/// The step to go on with; `{"ok": true}` for a mere report.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub(super) enum UpdateAnswer {
    Next(NextStep),
    Noted(Done),
}

/// What a signed request is for.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum StepType {
    DirectUpload,
    ChunkedUpload,
    Parts,
    PartUpload,
    Finish,
}

/// A request to the store, to be sent as it is.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Signature {
    /// The HTTP method.
    verb: &'static str,
    /// The URL, the signature in its query. Empty: there is nothing to send.
    url: String,
    /// The headers to send with it.
    #[schema(value_type = BTreeMap<String, String>)]
    headers: BTreeMap<&'static str, String>,
}

/// Parts and their MD5s: an array, or an object by part number, as the gateway is configured.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub(super) enum PartData {
    Array(Vec<PartDatum>),
    Map(BTreeMap<String, PartDatum>),
}

/// A part and its MD5.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct PartDatum {
    /// The MD5 in base64, where it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    md5: Option<String>,
    /// The part's number.
    part: u32,
}

/// It is done.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Done {
    ok: bool,
}

/// An upload's record.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Record {
    id: String,
    /// When it was made, in seconds since 1970.
    created_at: u64,
    /// When it last changed, in seconds since 1970.
    updated_at: u64,
    storage_id: String,
    /// Who made it; empty without authentication.
    uploaded_by: String,
    file_name: String,
    /// The file's size in bytes, once it is known.
    file_size: Option<u64>,
    file_mime: String,
    file_path: String,
    /// The object's key in the bucket or container.
    object_key: String,
    /// The `file_id` it was created with; empty without one.
    file_md5: String,
    permissions: Permissions,
    public: bool,
    tags: Vec<String>,
    /// The store's session.
    resumable_id: Option<String>,
    /// Whether it is sent in parts.
    resumable: bool,
    /// Whether the object was verified in the store.
    upload_complete: bool,
    phase: PhaseName,
}

/// Where an upload stands in its life.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum PhaseName {
    /// Takes parts.
    Open,
    /// The store makes the object.
    Committing,
    /// The object was verified.
    Complete,
    /// Given up.
    Aborted,
}

// === impl Residence ===

impl From<StoreKind> for Residence {
    fn from(kind: StoreKind) -> Self {
        match kind {
            StoreKind::S3 => Self::AmazonS3,
            StoreKind::Azure => Self::AzureStorage,
        }
    }
}

// === impl Permissions ===

impl From<Permissions> for upload::Permissions {
    fn from(permissions: Permissions) -> Self {
        match permissions {
            Permissions::None => Self::None,
            Permissions::Support => Self::Support,
            Permissions::Admin => Self::Admin,
        }
    }
}

impl From<upload::Permissions> for Permissions {
    fn from(permissions: upload::Permissions) -> Self {
        match permissions {
            upload::Permissions::None => Self::None,
            upload::Permissions::Support => Self::Support,
            upload::Permissions::Admin => Self::Admin,
        }
    }
}

// === impl FirstStep ===

impl FirstStep {
    /// The step, with `part_data` in that form.
    pub(super) fn new(step: SignedStep, form: PartDataForm) -> Self {
        let has_parts = step.kind == Step::Parts;
        Self {
            kind: step.kind.into(),
            part_list: has_parts.then(|| step.parts.iter().map(|part| part.number).collect()),
            part_data: has_parts.then(|| PartData::new(&step.parts, form)),
            signature: step.request.into(),
            upload_id: step.upload_id.into(),
            residence: step.store_kind.into(),
            part_size: step.part_size,
        }
    }
}

// === impl NextStep ===

impl From<SignedStep> for NextStep {
    fn from(mut step: SignedStep) -> Self {
        Self {
            kind: step.kind.into(),
            body: step.request.body.take(),
            signature: step.request.into(),
            upload_id: step.upload_id.into(),
        }
    }
}

// === impl StepType ===

impl From<Step> for StepType {
    fn from(step: Step) -> Self {
        match step {
            Step::DirectUpload => Self::DirectUpload,
            Step::ChunkedUpload => Self::ChunkedUpload,
            Step::Parts => Self::Parts,
            Step::PartUpload => Self::PartUpload,
            Step::Finish => Self::Finish,
        }
    }
}

// === impl Signature ===

impl From<SignedRequest> for Signature {
    fn from(request: SignedRequest) -> Self {
        Self {
            verb: request.verb,
            url: request.url,
            headers: request.headers,
        }
    }
}

// === impl PartData ===

impl PartData {
    fn new(parts: &[KnownPart], form: PartDataForm) -> Self {
        let datum = |part: &KnownPart| PartDatum {
            md5: part.md5.map(|md5| md5.to_string()),
            part: part.number,
        };
        match form {
            PartDataForm::Array => Self::Array(parts.iter().map(datum).collect()),
            PartDataForm::Map => {
                let numbered = parts
                    .iter()
                    .map(|part| (part.number.to_string(), datum(part)));
                Self::Map(numbered.collect())
            }
        }
    }
}

// === impl Done ===

impl Done {
    /// It is done.
    pub(super) const OK: Self = Self { ok: true };
}

// === impl Record ===

impl From<Upload> for Record {
    fn from(upload: Upload) -> Self {
        let size = upload.file.file_size;
        let is_small = size.is_some_and(|size| size <= SINGLE_PUT_MAX);
        let file = upload.file;
        Self {
            id: upload.id.into(),
            created_at: upload.created_at.0 / 1000,
            updated_at: upload.updated_at.0 / 1000,
            storage_id: upload.storage_id,
            uploaded_by: upload.owner.subject,
            file_name: file.file_name,
            file_size: size,
            file_mime: file.file_mime,
            file_path: file.file_path,
            object_key: upload.object_key,
            file_md5: file.file_id.unwrap_or_default(),
            permissions: file.permissions.into(),
            public: file.public,
            tags: file.tags,
            resumable: upload.session.is_some() || !is_small,
            resumable_id: upload.session,
            upload_complete: upload.phase == Phase::Complete,
            phase: upload.phase.into(),
        }
    }
}

// === impl PhaseName ===

impl From<Phase> for PhaseName {
    fn from(phase: Phase) -> Self {
        match phase {
            Phase::Open => Self::Open,
            Phase::Committing => Self::Committing,
            Phase::Complete => Self::Complete,
            Phase::Aborted => Self::Aborted,
        }
    }
}
