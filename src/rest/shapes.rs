//! The responses of the calls.

use std::{borrow::Cow, collections::BTreeMap};

use serde::{Deserialize, Serialize, Serializer};
use upload_gateway_core::{
    blobs::sign::SignedRequest,
    gateway::{KnownPart, SignedStep, StepType as Step},
    upload::{self, Phase, SINGLE_PUT_MAX, StoreKind, Upload},
};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{ObjectBuilder, RefOr, Schema, Type},
};

use super::{PartDataForm, placement::Placement};

/// The kind of the store that would take a file.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ResidenceAnswer {
    pub(super) residence: Residence,
}

/// The kind of a store, by the name that PlaceOS clients know.
#[derive(Debug, Clone, Copy)]
pub(super) struct Residence(StoreKind);

/// The role that a caller needs to download a file. The owner needs none.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Permissions {
    /// No role.
    #[default]
    None,
    /// Support or administrator.
    Support,
    /// Administrator.
    Admin,
}

/// The first or the next step of an upload.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct FirstStep {
    /// `direct_upload`: put the whole file. `chunked_upload`: start a session if the URL is not empty, then put the parts.
    /// `parts`: the store already has parts; put the others.
    #[serde(rename = "type")]
    kind: StepType,
    signature: Signature,
    /// The numbers of the parts that the store has. Only with type `parts`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    part_list: Option<Vec<u32>>,
    /// The same parts, with their MD5s. Only with type `parts`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    part_data: Option<PartData>,
    upload_id: String,
    residence: Residence,
    /// The size in bytes of every part except the last one. On Azure a client may choose another one until the store has
    /// parts that show it.
    part_size: u64,
}

/// The request of one step.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct NextStep {
    /// `part_upload`: put the part. `finish`: make the object of the parts.
    #[serde(rename = "type")]
    kind: StepType,
    signature: Signature,
    upload_id: String,
    /// The body to send. Only with type `finish`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    body: Option<String>,
}

/// The next step. `{"ok": true}` if nothing was to be signed.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub(super) enum UpdateAnswer {
    Next(NextStep),
    Reported(Done),
}

/// The purpose of a signed request.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum StepType {
    DirectUpload,
    ChunkedUpload,
    Parts,
    PartUpload,
    Finish,
}

/// A signed request to the store. Send it without changes.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Signature {
    /// The HTTP method.
    verb: &'static str,
    /// The URL. Its query has the signature. Empty: there is no request to send.
    url: String,
    /// The headers to send.
    #[schema(value_type = BTreeMap<String, String>)]
    headers: BTreeMap<Cow<'static, str>, String>,
}

/// Parts and their MD5s: an array, or an object by part number, as configured.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub(super) enum PartData {
    Array(Vec<PartDatum>),
    Map(BTreeMap<String, PartDatum>),
}

/// A part and its MD5.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct PartDatum {
    /// The MD5 in base64. Not set if it is unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    md5: Option<String>,
    /// The number.
    part: u32,
}

/// Success.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Done {
    ok: bool,
}

/// The record of an upload.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Record {
    id: String,
    /// The time of the create, in seconds since 1970.
    created_at: u64,
    /// The time of the last change, in seconds since 1970.
    updated_at: u64,
    storage_id: String,
    /// The owner. Empty without authentication.
    uploaded_by: String,
    file_name: String,
    /// The size of the file in bytes. Null if it is not known yet.
    file_size: Option<u64>,
    file_mime: String,
    file_path: String,
    /// The key of the object in the bucket or container.
    object_key: String,
    /// The `file_id` of the create. Empty if it was not set.
    file_md5: String,
    permissions: Permissions,
    public: bool,
    tags: Vec<String>,
    /// How the object is stored. Not set if nothing was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    placement: Option<Placement>,
    /// The `cache_etag` of the create.
    cache_etag: Option<String>,
    /// The `cache_modified` of the create, as text.
    cache_modified: Option<String>,
    /// The id of the store's session (S3: UploadId).
    resumable_id: Option<String>,
    /// Whether the file is sent in parts.
    resumable: bool,
    /// Whether the phase is `complete`.
    upload_complete: bool,
    phase: PhaseName,
}

/// The phase of an upload.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum PhaseName {
    /// The upload accepts parts.
    Open,
    /// The store makes the object of the parts.
    Committing,
    /// The object was verified in the store.
    Complete,
    /// The upload was aborted, has expired, or was refused by a check.
    Aborted,
    /// The upload was complete, and its file is deleted.
    Deleting,
}

// === impl Residence ===

impl From<StoreKind> for Residence {
    fn from(kind: StoreKind) -> Self {
        Self(kind)
    }
}

impl Serialize for Residence {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0.residence())
    }
}

impl PartialSchema for Residence {
    fn schema() -> RefOr<Schema> {
        let names = StoreKind::ALL.iter().map(|kind| kind.residence());
        ObjectBuilder::new()
            .schema_type(Type::String)
            .description(Some("The kind of a store."))
            .enum_values(Some(names))
            .into()
    }
}

impl ToSchema for Residence {}

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
    /// The step, with `part_data` in this form.
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
    /// `{"ok": true}`.
    pub(super) const OK: Self = Self { ok: true };
}

// === impl Record ===

impl From<Upload> for Record {
    fn from(upload: Upload) -> Self {
        let size = upload.file.file_size;
        let is_small = size.is_some_and(|size| size <= SINGLE_PUT_MAX);
        let file = upload.file;
        let cached = file.cached.map(|cached| *cached).unwrap_or_default();
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
            placement: Some(*file.placement)
                .filter(|placement| !placement.is_default())
                .map(Into::into),
            cache_etag: cached.etag,
            cache_modified: cached.modified,
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
            Phase::Deleting => Self::Deleting,
        }
    }
}

impl From<PhaseName> for Phase {
    fn from(name: PhaseName) -> Self {
        match name {
            PhaseName::Open => Self::Open,
            PhaseName::Committing => Self::Committing,
            PhaseName::Complete => Self::Complete,
            PhaseName::Aborted => Self::Aborted,
            PhaseName::Deleting => Self::Deleting,
        }
    }
}
