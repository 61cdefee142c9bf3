//! Keys that seal resume tokens: see [`SealKey`] for the format.

use crate::{
    seal::SealKey,
    upload::{Secret, Snapshot},
};

/// The version of the token format, including the snapshot. Tokens with other versions are rejected.
const VERSION: u8 = 1;

/// The purpose for which a key is derived from the secret of the deployment, and the id of that key in tokens.
const DERIVED_KEY: &str = "resume tokens";

/// A key that seals and opens resume tokens.
#[derive(Debug, Clone)]
pub struct TokenKey(SealKey);

// === impl TokenKey ===

impl TokenKey {
    /// A key with this id, which tokens contain in clear text. The id must not contain a zero byte.
    pub fn new(id: impl Into<String>, key: &[u8; 32]) -> Self {
        Self(SealKey::new(id, key))
    }

    /// The key that is derived from the secret of the deployment.
    pub(super) fn derived(secret: &Secret) -> Self {
        Self::new(DERIVED_KEY, &secret.derive(DERIVED_KEY))
    }

    /// Seals `snapshot` in a token.
    pub fn seal(&self, snapshot: &Snapshot) -> String {
        let text = serde_json::to_vec(snapshot).expect("plain values have a JSON form");
        self.0.seal(VERSION, b"", &text)
    }

    /// The snapshot in the bytes of a token that this key sealed. `None` for any other bytes.
    pub fn open(&self, token: &[u8]) -> Option<Snapshot> {
        let text = self.0.open(VERSION, b"", token)?;
        serde_json::from_slice(&text).ok()
    }
}
