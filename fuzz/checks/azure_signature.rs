//! Azure's signatures, computed again from the URL alone.

use std::{collections::HashMap, sync::Arc};

use base64::{Engine, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use percent_encoding::percent_decode_str;
use sha2::Sha256;
use upload_gateway_core::upload::Timestamp;
use url::Url;

use super::{AccountKey, BlobSigner, CachedKey, DelegationKey, SigningKey, Unsigned, Usable};
use crate::fuzzing::{Input, Wanted};

const ACCOUNT: &str = "account";

/// Every signature with an account key is the one that Azure computes, for the requested blob; one with a user delegation
/// key has the form of a signature, for that blob.
pub fn azure_signature(bytes: &[u8]) {
    let mut input = Input(bytes);
    // Seconds until 2106.
    let now = Timestamp((input.number() >> 32) * 1000);
    let Some(wanted) = Wanted::read(&mut input) else {
        return;
    };
    let delegation = DelegationKey {
        signed_oid: "11111111-2222-3333-4444-555555555555".into(),
        signed_tid: "66666666-7777-8888-9999-000000000000".into(),
        signed_start: "2026-11-23T00:00:00Z".into(),
        signed_expiry: "2026-11-24T00:00:00Z".into(),
        signed_service: "b".into(),
        signed_version: "2026-02-06".into(),
        value: STANDARD.encode(input.0),
    };
    let secret = STANDARD.encode(input.0).into();
    let account = AccountKey::new(ACCOUNT, &secret).expect("the key is base64");
    let cached = CachedKey::new(ACCOUNT, &secret, None).expect("the key is base64");
    let signer = BlobSigner {
        account: ACCOUNT.into(),
        container: "media".into(),
        public_url: Url::parse("http://127.0.0.1:10000/account/media").expect("it is a URL"),
        key: SigningKey::Account(Arc::new(cached)),
    };
    let request = wanted.request();
    let unsigned = Unsigned::new(&request);
    if unsigned.key.is_empty() {
        return;
    }
    let lifetime = request.lifetime();
    let url = signer.url(&unsigned, &Usable::Account(account), now, lifetime);
    let pairs = parsed(&url.expect("an account's key signs everything"), &wanted);
    assert_eq!(pairs["sig"], signature(&pairs, wanted.key(), input.0));
    for (name, value) in &unsigned.query {
        assert_eq!(&pairs[*name], value);
    }

    let usable = Usable::Delegation(Arc::new(delegation));
    if let Ok(url) = signer.url(&unsigned, &usable, now, lifetime) {
        let pairs = parsed(&url, &wanted);
        let code = STANDARD.decode(&pairs["sig"]);
        assert_eq!(code.map(|code| code.len()), Ok(32));
    }
}

/// The query of a URL, which must name the requested blob.
fn parsed(url: &str, wanted: &Wanted) -> HashMap<String, String> {
    let url = Url::parse(url).expect("it is a URL");
    let blob = url.path().strip_prefix("/account/media/");
    let blob = percent_decode_str(blob.unwrap_or_default()).decode_utf8();
    assert_eq!(blob.as_deref(), Ok(wanted.key()));
    let pairs: Vec<_> = url.query_pairs().into_owned().collect();
    let all: HashMap<String, String> = pairs.iter().cloned().collect();
    assert_eq!(all.len(), pairs.len(), "a parameter occurs twice");
    all
}

/// <https://learn.microsoft.com/rest/api/storageservices/create-service-sas>
fn signature(pairs: &HashMap<String, String>, blob: &str, key: &[u8]) -> String {
    let said = |name: &str| pairs.get(name).map_or("", String::as_str);
    let text = format!(
        "{}\n{}\n{}\n/blob/{ACCOUNT}/media/{blob}\n{}\n{}\n{}\n{}\n{}\n{}\n{}\n{}\n{}\n{}\n{}\n{}",
        said("sp"),
        said("st"),
        said("se"),
        said("si"),
        said("sip"),
        said("spr"),
        said("sv"),
        said("sr"),
        said("snapshot"),
        said("ses"),
        said("rscc"),
        said("rscd"),
        said("rsce"),
        said("rscl"),
        said("rsct"),
    );
    let code = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of every length");
    STANDARD.encode(code.chain_update(text).finalize().into_bytes())
}
