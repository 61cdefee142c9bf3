//! Keys of resume tokens.
//!
//! A token is the base64url of a version, the id of its key and a zero, all authenticated, a random nonce, and the snapshot
//! under XChaCha20-Poly1305.

use std::fmt;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use chacha20poly1305::{
    KeyInit, XChaCha20Poly1305, XNonce,
    aead::{Aead, Payload},
};

use crate::upload::{Secret, Snapshot};

/// The version of tokens and of the snapshots in them. Tokens of other versions are refused.
const VERSION: u8 = 1;

/// The size of a nonce in bytes: large enough for random nonces to be unique.
const NONCE_LENGTH: usize = 24;

/// The purpose of the key that is derived from the deployment's secret, and its id in tokens.
const DERIVED_KEY: &str = "resume tokens";

/// A key that seals and opens resume tokens.
#[derive(Clone)]
pub struct TokenKey {
    id: String,
    cipher: XChaCha20Poly1305,
}

// === impl TokenKey ===

impl TokenKey {
    /// The key with this id, which its tokens carry in clear text. The id contains no zero byte.
    pub fn new(id: impl Into<String>, key: &[u8; 32]) -> Self {
        Self {
            id: id.into(),
            cipher: XChaCha20Poly1305::new(key.into()),
        }
    }

    /// The key that is derived from the deployment's secret.
    pub(super) fn derived(secret: &Secret) -> Self {
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn unsealed_bytes_are_refused(bytes: Vec<u8>, id in "[a-z]{0,8}") {
            let key = TokenKey::new(&id, &[7; 32]);
            prop_assert_eq!(key.open(&bytes), None);
            let headed = [&[VERSION], id.as_bytes(), &[0], &bytes].concat();
            prop_assert_eq!(key.open(&headed), None);
        }
    }

    #[test]
    fn a_key_is_never_printed() {
        let shown = format!("{:?}", TokenKey::new("id", &[7; 32]));
        assert_eq!(shown, "TokenKey(id, [redacted])");
    }
}
