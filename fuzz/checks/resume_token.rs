//! Forged resume tokens.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use upload_gateway_core::{
    gateway::TokenKey,
    upload::{FileMetadata, Snapshot, Trail},
};

use super::{Input, upload_of};

/// Only the text that was sealed opens, and only with the key that sealed it.
pub fn resume_token(bytes: &[u8]) {
    let mut input = Input(bytes);
    let (at, bits, id) = (input.number(), input.byte(), input.text());
    let id = id.replace('\0', "");
    let key = TokenKey::new(&id, &[7; 32]);
    assert_eq!(open(&key, &String::from_utf8_lossy(input.0)), None);
    assert_eq!(key.open(input.0), None);
    let headed = [&[1], id.as_bytes(), &[0], input.0].concat();
    assert_eq!(key.open(&headed), None);

    let file = FileMetadata {
        file_name: input.text(),
        ..FileMetadata::default()
    };
    let upload = upload_of(file, id.clone());
    let snapshot = Snapshot::of(&upload, &Trail::default());
    let token = key.seal(&snapshot);
    assert_eq!(open(&key, &token).as_ref(), Some(&snapshot));
    assert_eq!(open(&TokenKey::new(&id, &[8; 32]), &token), None);
    assert_eq!(open(&TokenKey::new(id + "x", &[7; 32]), &token), None);

    let place = |length: usize| usize::try_from(at).unwrap_or(usize::MAX) % length;
    let mut sealed = URL_SAFE_NO_PAD
        .decode(&token)
        .expect("it was encoded just now");
    let at = place(sealed.len());
    sealed[at] ^= bits.max(1);
    assert_eq!(key.open(&sealed), None);
    assert_eq!(key.open(&sealed[..at]), None);
    // No other spelling of the text opens either.
    let mut text = token.clone().into_bytes();
    let at = place(text.len());
    text[at] ^= bits.max(1);
    assert_eq!(open(&key, &String::from_utf8_lossy(&text)), None);
}

fn open(key: &TokenKey, token: &str) -> Option<Snapshot> {
    key.open(&URL_SAFE_NO_PAD.decode(token).ok()?)
}
