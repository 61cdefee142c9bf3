//! Resume tokens: sealed snapshots that senders keep, in case the state store loses acknowledged writes.
//!
//! A token proves what was committed. It grants nothing: the same callers may open an upload with and without a token.
//! It contains no claims and does not record an abort: if the state store lost the abort as well, the owner can resume
//! the upload.

mod trails;

use std::sync::Arc;

use self::trails::Trails;
use super::{
    caller::Caller,
    message::{Open, Target},
    records::Records,
    storage::Storages,
    token_key::TokenKey,
};
use crate::{
    error::{Error, Reason, Result},
    seal,
    upload::{FileMetadata, Md5, Parts, Snapshot, Trail, Upload},
};

/// How many parts one read returns.
const PARTS_PER_READ: u32 = 1_000;

/// Seals and opens the resume tokens of uploads.
#[derive(Debug)]
pub struct Tokens {
    /// The first key seals, all keys open. If empty, a key is derived from the secret of the deployment.
    keys: Vec<TokenKey>,
    records: Arc<Records>,
    storages: Storages,
    trails: Trails,
}

// === impl Tokens ===

impl Tokens {
    pub(super) fn new(keys: Vec<TokenKey>, records: Arc<Records>, storages: Storages) -> Self {
        Self {
            keys,
            records,
            storages,
            trails: Trails::default(),
        }
    }

    /// The resume token of an upload's committed prefix, of which a summary is enough. Reads only the parts that this
    /// process has not read yet for an earlier token. Empty if the upload is finished, or if its storage is not
    /// configured.
    ///
    /// # Errors
    /// Those of the state store.
    pub async fn resume_token(&self, summary: &Upload) -> Result<String> {
        let storage = match self.storages.get(&summary.storage_id) {
            Ok(storage) if summary.is_live() => storage,
            _ => return Ok(String::new()),
        };
        let known = self.trails.of(&summary.id);
        // Callers that ask for the same token wait for the first one.
        let mut known = known.lock().await;
        let committed = summary.parts.committed();
        let mut trail = match known.get(summary.writer, &summary.parts) {
            Some(trail) => trail.clone(),
            None => Trail::new(&storage.capabilities()),
        };
        loop {
            let before = trail.parts();
            let limit = PARTS_PER_READ.min(committed.saturating_sub(before));
            if limit == 0 {
                break;
            }
            let parts = self.records.committed_parts(&summary.id, before, limit);
            let parts = Parts::summary(committed, parts.await?);
            trail.follow(&parts, |receipt| storage.store.writer(receipt));
            if trail.parts() == before {
                // The trail is full, or the parts have been dropped since.
                break;
            }
        }
        let token = self.seal(&Snapshot::of(summary, &trail))?;
        known.set(summary.writer, &summary.parts, trail);
        Ok(token)
    }

    /// The trail of an empty prefix, for the upload's storage. If the storage is not configured there are no tokens, so
    /// any trail will do.
    pub(super) fn new_trail(&self, upload: &Upload) -> Trail {
        let storage = self.storages.get(&upload.storage_id).ok();
        storage.map_or_else(Trail::default, |storage| {
            Trail::new(&storage.capabilities())
        })
    }

    /// The resume token of an upload with all its parts, in constant time for each part that is not in `trail` yet.
    /// Empty as that of [`Tokens::resume_token`].
    ///
    /// # Errors
    /// `Unavailable` if the state store was not reached yet.
    pub(super) fn next_token(&self, upload: &Upload, trail: &mut Trail) -> Result<String> {
        match self.storages.get(&upload.storage_id) {
            Ok(storage) if upload.is_live() => {
                trail.follow(&upload.parts, |receipt| storage.store.writer(receipt));
                self.seal(&Snapshot::of(upload, trail))
            }
            _ => Ok(String::new()),
        }
    }

    /// The snapshot in the resume token of a stream's first message, if it has a token.
    ///
    /// # Errors
    /// `InvalidArgument` with `InvalidToken` if the token is forged, expired, of another owner, or of another upload
    /// than the one that is opened; `Unavailable` if the state store was not reached yet.
    pub(super) fn snapshot(&self, caller: &Caller, open: &Open) -> Result<Option<Snapshot>> {
        if open.resume_token.is_empty() {
            return Ok(None);
        }
        let snapshot = self
            .unseal(&open.resume_token)?
            .filter(|snapshot| snapshot.owner == caller.owner)
            .ok_or_else(|| invalid_token("the token is invalid or belongs to another owner"))?;
        if snapshot.expires_at <= self.records.now() {
            return Err(invalid_token("the token has expired"));
        }
        let is_opened = match &open.target {
            Target::Upload(id) => *id == snapshot.id,
            Target::Copy { .. } => false,
            Target::File { file, storage_id } => {
                let storage = self.storages.for_caller(caller, storage_id)?;
                !open.restart && storage.id == snapshot.storage_id && is_file_of(file, &snapshot)
            }
        };
        if !is_opened {
            return Err(invalid_token("the token belongs to another upload"));
        }
        Ok(Some(snapshot))
    }

    fn seal(&self, snapshot: &Snapshot) -> Result<String> {
        Ok(match self.keys.first() {
            Some(key) => key.seal(snapshot),
            None => self.derived_key()?.seal(snapshot),
        })
    }

    fn unseal(&self, token: &str) -> Result<Option<Snapshot>> {
        let Some(token) = seal::decode(token) else {
            return Ok(None);
        };
        if self.keys.is_empty() {
            return Ok(self.derived_key()?.open(&token));
        }
        Ok(self.keys.iter().find_map(|key| key.open(&token)))
    }

    fn derived_key(&self) -> Result<TokenKey> {
        Ok(TokenKey::derived(&self.records.secret()?))
    }
}

/// Whether `file` describes the same file as the create that made the upload.
fn is_file_of(file: &FileMetadata, snapshot: &Snapshot) -> bool {
    let known = &snapshot.file;
    let md5 = |file: &FileMetadata| file.file_id.as_deref()?.parse::<Md5>().ok();
    file.file_size.is_some()
        && md5(file).is_some()
        && (&file.file_name, file.file_size, md5(file))
            == (&known.file_name, known.file_size, md5(known))
}

/// The error for a rejected resume token.
pub(super) fn invalid_token(why: &str) -> Error {
    Error::invalid("open.resume_token", format!("{why}; open without it"))
        .because(Reason::InvalidToken)
}
