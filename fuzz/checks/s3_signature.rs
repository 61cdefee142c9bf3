//! S3's signatures, computed again from the request alone.

use std::{collections::BTreeMap, time::Duration};

use aws_credential_types::{Credentials, provider::SharedCredentialsProvider};
use hmac::{Hmac, KeyInit, Mac};
use percent_encoding::percent_decode_str;
use sha2::{Digest, Sha256};
use upload_gateway_core::upload::Timestamp;
use url::Url;

use super::{CachedCredentials, QuerySigner, Unsigned};
use crate::fuzzing::{Input, Wanted};

/// The base URLs of buckets: with a path, and with a host of their own.
const BASES: [&str; 3] = [
    "http://127.0.0.1:9000/media/",
    "https://media.s3.eu-central-1.amazonaws.com/",
    "https://[::1]:8443/a%20b/",
];

/// Every signature is the one that S3 computes, for the requested key.
pub fn s3_signature(bytes: &[u8]) {
    let mut input = Input(bytes);
    let base = BASES[usize::from(input.byte()) % BASES.len()];
    // Seconds until 2106.
    let now = Timestamp((input.number() >> 32) * 1000);
    let Some(wanted) = Wanted::read(&mut input) else {
        return;
    };
    let secret = input.text();
    let token = Some(input.text()).filter(|token| !token.is_empty());
    let credentials = Credentials::from_keys("AKIDEXAMPLE", secret.as_str(), token);
    let signer = QuerySigner {
        base: base.to_owned(),
        region: "eu-central-1".into(),
        credentials: CachedCredentials::new(SharedCredentialsProvider::new(credentials.clone())),
    };
    let request = wanted.request();
    let unsigned = Unsigned::new(&request, None);
    let lifetime = request.lifetime();
    assert!(lifetime <= Duration::from_secs(7 * 24 * 60 * 60));
    let url = signer
        .url(&unsigned, credentials, now, lifetime)
        .expect("what the gateway takes can be signed");

    let parsed = Url::parse(&url).expect("it is a URL");
    assert_eq!(parsed.as_str(), url, "it has one spelling");
    let base_path = Url::parse(base).expect("it is a URL").path().to_owned();
    let key = parsed.path().strip_prefix(&base_path).unwrap_or_default();
    let key = percent_decode_str(key).decode_utf8();
    assert_eq!(key.as_deref(), Ok(wanted.key()));
    let mut headers: BTreeMap<String, String> = unsigned
        .headers
        .iter()
        .map(|(name, value)| (name.to_lowercase(), value.clone()))
        .collect();
    headers.extend(
        unsigned
            .content_length
            .map(|length| ("content-length".to_owned(), length.to_string())),
    );
    let expected = signature(unsigned.verb, &parsed, headers, &secret);
    let found = parsed.query_pairs().last();
    let found = found.map(|(name, value)| (name.into_owned(), value.into_owned()));
    assert_eq!(found, Some(("X-Amz-Signature".to_owned(), expected)));
}

/// <https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-query-string-auth.html>
fn signature(verb: &str, url: &Url, mut headers: BTreeMap<String, String>, secret: &str) -> String {
    let host = url.host_str().unwrap_or_default();
    let port = url.port().map(|port| format!(":{port}"));
    headers.insert("host".into(), format!("{host}{}", port.unwrap_or_default()));
    let signed: Vec<&str> = headers.keys().map(String::as_str).collect();
    let signed = signed.join(";");
    let headers: String = headers
        .iter()
        .map(|(name, value)| {
            let words: Vec<_> = value.split(' ').filter(|word| !word.is_empty()).collect();
            format!("{name}:{}\n", words.join(" "))
        })
        .collect();
    let pairs: BTreeMap<String, String> = url.query_pairs().into_owned().collect();
    let query: Vec<String> = pairs
        .iter()
        .filter(|(name, _)| *name != "X-Amz-Signature")
        .map(|(name, value)| format!("{}={}", encoded(name), encoded(value)))
        .collect();
    assert_eq!(pairs["X-Amz-SignedHeaders"], signed);
    let canonical = format!(
        "{verb}\n{}\n{}\n{headers}\n{signed}\nUNSIGNED-PAYLOAD",
        url.path(),
        query.join("&")
    );
    let (_, scope) = pairs["X-Amz-Credential"]
        .split_once('/')
        .unwrap_or_default();
    let text = format!(
        "AWS4-HMAC-SHA256\n{}\n{scope}\n{}",
        pairs["X-Amz-Date"],
        hex(&Sha256::digest(canonical))
    );
    let key = scope
        .split('/')
        .fold(format!("AWS4{secret}").into_bytes(), |key, part| {
            code(&key, part)
        });
    hex(&code(&key, &text))
}

/// Percent-encodes everything but the unreserved characters of RFC 3986.
fn encoded(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                char::from(byte).to_string()
            }
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

fn code(key: &[u8], text: &str) -> Vec<u8> {
    let code = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of every length");
    code.chain_update(text).finalize().into_bytes().to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
