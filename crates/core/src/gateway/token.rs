//! Resume tokens: sealed snapshots that senders keep for the day the state store loses what it acknowledged.
//!
//! A token is the base64url of a version, the id of its key and a zero, all authenticated, a random nonce, and the
//! snapshot under XChaCha20-Poly1305. It is a proof of what was, never a permission: who may open an upload is decided
//! as without it.
//!
//! It knows neither of claims nor that an upload was given up: after both the record and the word of it are lost, its owner
//! may bring back what lies in the store.

use std::fmt;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use chacha20poly1305::{
    KeyInit, XChaCha20Poly1305, XNonce,
    aead::{Aead, Payload},
};

use super::{Caller, Gateway, Open, Target};
use crate::{
    error::{Error, Reason, Result},
    upload::{FileMetadata, Md5, Secret, Snapshot, Trail, Upload},
};

/// The form of tokens and of the snapshots in them. Others are not read.
const VERSION: u8 = 1;

/// Bytes of a nonce: enough that random ones do not meet.
const NONCE_LENGTH: usize = 24;

/// What the key that is made of the deployment's secret is for, and what it is called in tokens.
const DERIVED_KEY: &str = "resume tokens";

/// A key that seals and opens resume tokens.
#[derive(Clone)]
pub struct TokenKey {
    id: String,
    cipher: XChaCha20Poly1305,
}

// === impl TokenKey ===

impl TokenKey {
    /// The key of that id, which stands in its tokens in clear and holds no zero.
    pub fn new(id: impl Into<String>, key: &[u8; 32]) -> Self {
        Self {
            id: id.into(),
            cipher: XChaCha20Poly1305::new(key.into()),
        }
    }

    fn derived(secret: &Secret) -> Self {
        Self::new(DERIVED_KEY, &secret.derive(DERIVED_KEY))
    }

    /// The token of `snapshot`, sealed.
    pub fn seal(&self, snapshot: &Snapshot) -> String {
        let header = [&[VERSION], self.id.as_bytes(), &[0]].concat();
        let nonce: [u8; NONCE_LENGTH] = rand::random();
        let text = serde_json::to_vec(snapshot).expect("plain values have a JSON form");
        let payload = Payload {
            msg: &text,
            aad: &header,
        };
        let sealed = self
            .cipher
            .encrypt(&XNonce::from(nonce), payload)
            .expect("a snapshot is shorter than 256 GiB");
        URL_SAFE_NO_PAD.encode([&header, &nonce[..], &sealed].concat())
    }

    /// The snapshot in a token that this key sealed; `None` for any other bytes.
    pub fn open(&self, token: &[u8]) -> Option<Snapshot> {
        let header_length = token.iter().position(|&byte| byte == 0)? + 1;
        let (header, rest) = token.split_at(header_length);
        if *header != [&[VERSION], self.id.as_bytes(), &[0]].concat() {
            return None;
        }
        let (nonce, sealed) = rest.split_first_chunk::<NONCE_LENGTH>()?;
        let payload = Payload {
            msg: sealed,
            aad: header,
        };
        let text = self.cipher.decrypt(&XNonce::from(*nonce), payload).ok()?;
        serde_json::from_slice(&text).ok()
    }
}

impl fmt::Debug for TokenKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "TokenKey({}, [redacted])", self.id)
    }
}

// === impl Gateway ===

impl Gateway {
    /// The resume token of an upload's committed prefix. Empty once it is finished, and where its storage is not
    /// configured here.
    pub fn resume_token(&self, upload: &Upload) -> String {
        self.next_token(upload, &mut self.new_trail(upload))
    }

    /// The trail of no parts, for the upload's storage. Without that storage there are no tokens, and any trail will do.
    pub(super) fn new_trail(&self, upload: &Upload) -> Trail {
        let storage = self.storages.get(&upload.storage_id).ok();
        storage.map_or_else(Trail::default, |storage| {
            Trail::new(&storage.store.capabilities())
        })
    }

    /// As [`Gateway::resume_token`], at a constant cost for each part that `trail` does not know yet.
    pub(super) fn next_token(&self, upload: &Upload, trail: &mut Trail) -> String {
        match self.storages.get(&upload.storage_id) {
            Ok(storage) if upload.is_live() => {
                trail.follow(&upload.parts, |receipt| storage.store.writer(receipt));
                self.seal(&Snapshot::of(upload, trail))
            }
            _ => String::new(),
        }
    }

    /// The snapshot in the token of a stream's first message, if it has one.
    ///
    /// # Errors
    /// `InvalidArgument`, `InvalidToken`: forged, expired, of somebody else's upload or of another one than is opened.
    pub(super) fn snapshot(&self, caller: &Caller, open: &Open) -> Result<Option<Snapshot>> {
        if open.resume_token.is_empty() {
            return Ok(None);
        }
        let snapshot = self
            .unseal(&open.resume_token)
            .filter(|snapshot| snapshot.owner == caller.owner)
            .ok_or_else(|| invalid_token("not a token of this gateway, or of somebody else's"))?;
        if snapshot.expires_at <= self.clock.now() {
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
        match self.settings.token_keys.first() {
            Some(key) => key.seal(snapshot),
            None => TokenKey::derived(&self.secret()).seal(snapshot),
        }
    }

    fn unseal(&self, token: &str) -> Option<Snapshot> {
        let token = URL_SAFE_NO_PAD.decode(token).ok()?;
        let keys = &self.settings.token_keys;
        if keys.is_empty() {
            return TokenKey::derived(&self.secret()).open(&token);
        }
        keys.iter().find_map(|key| key.open(&token))
    }
}

/// Whether the create of `file` is the one that made the upload.
fn is_file_of(file: &FileMetadata, snapshot: &Snapshot) -> bool {
    let known = &snapshot.file;
    let md5 = |file: &FileMetadata| file.file_id.as_deref()?.parse::<Md5>().ok();
    file.file_size.is_some()
        && md5(file).is_some()
        && (&file.file_name, file.file_size, md5(file))
            == (&known.file_name, known.file_size, md5(known))
}

/// The refusal of a token.
pub(super) fn invalid_token(why: &str) -> Error {
    Error::invalid("open.resume_token", format!("{why}; open without it"))
        .because(Reason::InvalidToken)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn bytes_that_nobody_sealed_are_refused(bytes: Vec<u8>, id in "[a-z]{0,8}") {
            let key = TokenKey::new(&id, &[7; 32]);
            prop_assert_eq!(key.open(&bytes), None);
            let headed = [&[VERSION], id.as_bytes(), &[0], &bytes].concat();
            prop_assert_eq!(key.open(&headed), None);
        }
    }

    #[test]
    fn a_key_keeps_itself_to_itself() {
        let shown = format!("{:?}", TokenKey::new("id", &[7; 32]));
        assert_eq!(shown, "TokenKey(id, [redacted])");
    }
}
