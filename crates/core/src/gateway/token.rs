//! Resume tokens: sealed snapshots that senders keep in case the state store loses acknowledged writes.
//!
//! A token proves what was committed; it grants nothing: who may open an upload is decided as without it. It has no claims,
//! and does not say that an upload was aborted: if the state store lost that as well, the owner can resume the upload.

use std::sync::Arc;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

use super::{
    message::{Open, Target},
    records::Records,
    settings::Caller,
    storage::Storages,
    token_key::TokenKey,
};
use crate::{
    error::{Error, Reason, Result},
    upload::{FileMetadata, Md5, Snapshot, Trail, Upload},
};

/// Seals and opens the resume tokens of uploads.
#[derive(Debug)]
pub struct Tokens {
    /// The first seals, all open. If empty, a key is derived from the deployment's secret.
    keys: Vec<TokenKey>,
    records: Arc<Records>,
    storages: Storages,
}

// === impl Tokens ===

impl Tokens {
    pub(super) fn new(keys: Vec<TokenKey>, records: Arc<Records>, storages: Storages) -> Self {
        Self {
            keys,
            records,
            storages,
        }
    }

    /// The resume token of an upload's committed prefix. Empty once it is finished, and if its storage is not configured
    /// here.
    pub fn resume_token(&self, upload: &Upload) -> String {
        self.next_token(upload, &mut self.new_trail(upload))
    }

    /// The trail of no parts, for the upload's storage. Without that storage there are no tokens, and any trail will do.
    pub(super) fn new_trail(&self, upload: &Upload) -> Trail {
        let storage = self.storages.get(&upload.storage_id).ok();
        storage.map_or_else(Trail::default, |storage| {
            Trail::new(&storage.capabilities())
        })
    }

    /// As [`Tokens::resume_token`], at a constant cost for each part that `trail` does not know yet.
    pub(super) fn next_token(&self, upload: &Upload, trail: &mut Trail) -> String {
        match self.storages.get(&upload.storage_id) {
            Ok(storage) if upload.is_live() => {
                trail.follow(&upload.parts, |receipt| storage.store.writer(receipt));
                self.seal(&Snapshot::of(upload, trail))
            }
            _ => String::new(),
        }
    }

    /// The snapshot in the token of a stream's first message, if it has a token.
    ///
    /// # Errors
    /// `InvalidArgument`, `InvalidToken`: forged, expired, of another owner, or of another upload than is opened.
    pub(super) fn snapshot(&self, caller: &Caller, open: &Open) -> Result<Option<Snapshot>> {
        if open.resume_token.is_empty() {
            return Ok(None);
        }
        let snapshot = self
            .unseal(&open.resume_token)
            .filter(|snapshot| snapshot.owner == caller.owner)
            .ok_or_else(|| invalid_token("not a token of this gateway, or of another owner"))?;
        if snapshot.expires_at <= self.records.now() {
            return Err(invalid_token("it has expired"));
        }
        let is_named = match &open.target {
            Target::Upload(id) => *id == snapshot.id,
            Target::File { file, storage_id } => {
                let storage = self.storages.get(storage_id)?;
                !open.restart && storage.id == snapshot.storage_id && is_file_of(file, &snapshot)
            }
        };
        if !is_named {
            return Err(invalid_token("it is of another upload"));
        }
        Ok(Some(snapshot))
    }

    fn seal(&self, snapshot: &Snapshot) -> String {
        match self.keys.first() {
            Some(key) => key.seal(snapshot),
            None => TokenKey::derived(&self.records.secret()).seal(snapshot),
        }
    }

    fn unseal(&self, token: &str) -> Option<Snapshot> {
        let token = URL_SAFE_NO_PAD.decode(token).ok()?;
        if self.keys.is_empty() {
            return TokenKey::derived(&self.records.secret()).open(&token);
        }
        self.keys.iter().find_map(|key| key.open(&token))
    }
}

/// Whether a create of `file` is identical to the one that made the upload.
fn is_file_of(file: &FileMetadata, snapshot: &Snapshot) -> bool {
    let known = &snapshot.file;
    let md5 = |file: &FileMetadata| file.file_id.as_deref()?.parse::<Md5>().ok();
    file.file_size.is_some()
        && md5(file).is_some()
        && (&file.file_name, file.file_size, md5(file))
            == (&known.file_name, known.file_size, md5(known))
}

/// The refusal of a resume token.
pub(super) fn invalid_token(why: &str) -> Error {
    Error::invalid("open.resume_token", format!("{why}; open without it"))
        .because(Reason::InvalidToken)
}
