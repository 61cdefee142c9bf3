//! What every record has at the beginning.

use super::{
    Claims, Cleanup, Evidence, FileMetadata, Integrity, Owner, Parts, Phase, Plan, StoreKind,
    Timestamp, Upload, UploadId,
};

// === impl Upload ===

impl Upload {
    /// An OPEN upload, begun at `at`, of which nothing else is known: without a file, an owner, a storage and a key. It has expired,
    /// and has no maximum age. Callers set what they know.
    pub fn begun(id: UploadId, store_kind: StoreKind, plan: Plan, at: Timestamp) -> Self {
        Self {
            id,
            version: 1,
            phase: Phase::Open,
            file: FileMetadata::default(),
            owner: Owner::default(),
            storage_id: String::new(),
            store_kind,
            object_key: String::new(),
            plan,
            is_cut_by_client: false,
            cut: 0,
            continued_with: 0,
            unproven: None,
            fingerprint: None,
            session: None,
            integrity: Integrity::default(),
            writer: None,
            attempts: 1,
            lease: None,
            parts: Parts::default(),
            claims: Claims::default(),
            opaque_file_id: false,
            object: None,
            created_at: at,
            updated_at: at,
            expires_at: at,
            ends_at: Timestamp::never(),
            evidence: Evidence::default(),
            is_superseded: false,
            abort_reason: None,
            cleanup: Cleanup::default(),
            kept_until: None,
            file_expires_at: None,
            is_amended: false,
            object_changed_at: None,
            copy_of: None,
            moves_to: None,
            origin: None,
        }
    }
}
