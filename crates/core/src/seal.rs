//! Keys that seal texts: only a holder of the key can make or read a sealed text.
//!
//! A sealed text is base64url of: a version byte, the id of the key, a zero byte, a random nonce, and the text encrypted with
//! XChaCha20-Poly1305. The bytes before the nonce, and what the text is bound to, are authenticated.

use std::fmt;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use chacha20poly1305::{
    KeyInit, XChaCha20Poly1305, XNonce,
    aead::{Aead, Payload},
};

/// The size of a nonce, in bytes: large enough that random nonces do not repeat.
const NONCE_LENGTH: usize = 24;

/// The size of an authentication tag, in bytes.
const TAG_LENGTH: usize = 16;

/// A key that seals and opens texts.
#[derive(Clone)]
pub struct SealKey {
    id: String,
    cipher: XChaCha20Poly1305,
}

// === impl SealKey ===

impl SealKey {
    /// A key with this id, which sealed texts contain in clear text. The id must not contain a zero byte.
    pub fn new(id: impl Into<String>, key: &[u8; 32]) -> Self {
        Self {
            id: id.into(),
            cipher: XChaCha20Poly1305::new(key.into()),
        }
    }

    /// The id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Seals `text`, of a format with this version. It can be opened only with the same `bound`.
    pub fn seal(&self, version: u8, bound: &[u8], text: &[u8]) -> String {
        let header = self.header(version);
        let nonce: [u8; NONCE_LENGTH] = rand::random();
        let payload = Payload {
            msg: text,
            aad: &[&header, bound].concat(),
        };
        let sealed = self
            .cipher
            .encrypt(&XNonce::from(nonce), payload)
            .expect("a text is shorter than 256 GiB");
        URL_SAFE_NO_PAD.encode([&header, &nonce[..], &sealed].concat())
    }

    /// The text that this key sealed with this version and `bound`, from the [decoded](decode) bytes. `None` for any other
    /// bytes.
    pub fn open(&self, version: u8, bound: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
        let header = self.header(version);
        let rest = sealed.strip_prefix(&header[..])?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE_LENGTH>()?;
        let payload = Payload {
            msg: sealed,
            aad: &[&header, bound].concat(),
        };
        self.cipher.decrypt(&XNonce::from(*nonce), payload).ok()
    }

    /// The largest text whose sealed form has at most `length` characters, in bytes.
    pub fn largest_text(&self, length: usize) -> usize {
        let around = self.header(0).len() + NONCE_LENGTH + TAG_LENGTH;
        (length * 3 / 4).saturating_sub(around)
    }

    fn header(&self, version: u8) -> Vec<u8> {
        [&[version], self.id.as_bytes(), &[0]].concat()
    }
}

impl fmt::Debug for SealKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "SealKey({}, [redacted])", self.id)
    }
}

/// The bytes of a sealed text. `None` if it is not base64url.
pub fn decode(sealed: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(sealed).ok()
}

/// The id of the key that a sealed text names. It is not authenticated.
pub fn key_id(sealed: &[u8]) -> Option<&str> {
    let length = sealed.iter().position(|&byte| byte == 0)?;
    std::str::from_utf8(sealed.get(1..length)?).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn bytes_that_were_not_sealed_are_rejected(bytes: Vec<u8>, id in "[a-z]{0,8}") {
            let key = SealKey::new(&id, &[7; 32]);
            prop_assert_eq!(key.open(1, b"", &bytes), None);
            let headed = [&[1], id.as_bytes(), &[0], &bytes].concat();
            prop_assert_eq!(key.open(1, b"", &headed), None);
        }

        #[test]
        fn a_sealed_text_is_as_long_as_computed(text: Vec<u8>, length in 100_usize..2_000) {
            let key = SealKey::new("id", &[7; 32]);
            let sealed = key.seal(1, b"", &text);
            prop_assert_eq!(sealed.len() <= length, text.len() <= key.largest_text(length));
        }
    }

    #[test]
    fn a_text_opens_only_with_its_key_version_and_what_it_is_bound_to() {
        let key = SealKey::new("id", &[7; 32]);
        let sealed = decode(&key.seal(1, b"here", b"text")).unwrap();
        assert_eq!(key_id(&sealed), Some("id"));
        assert_eq!(key.open(1, b"here", &sealed).as_deref(), Some(&b"text"[..]));
        assert_eq!(key.open(2, b"here", &sealed), None);
        assert_eq!(key.open(1, b"there", &sealed), None);
        assert_eq!(SealKey::new("id", &[8; 32]).open(1, b"here", &sealed), None);
        assert_eq!(SealKey::new("di", &[7; 32]).open(1, b"here", &sealed), None);
    }

    #[test]
    fn a_key_is_never_printed() {
        let shown = format!("{:?}", SealKey::new("id", &[7; 32]));
        assert_eq!(shown, "SealKey(id, [redacted])");
    }
}
