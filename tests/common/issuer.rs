//! An issuer of tokens and a certificate, for measurements: tests of authentication have tokens of PyJWT.

use std::{
    fs,
    path::PathBuf,
    time::{SystemTime, UNIX_EPOCH},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData};
use serde_json::json;
use tempfile::TempDir;

/// An issuer, and a certificate for 127.0.0.1 that is its own authority.
pub struct Issuer {
    files: TempDir,
    key: EncodingKey,
    /// The certificate in PEM.
    pub authority: String,
}

impl Issuer {
    /// A new one.
    pub fn new() -> Self {
        let files = TempDir::with_prefix("upload-gateway-issuer.").unwrap();
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        // An uncompressed point: 4, x, y.
        let point = key.der_bytes();
        let [x, y] = [&point[1..33], &point[33..]].map(|half| URL_SAFE_NO_PAD.encode(half));
        let jwk = json!({ "kty": "EC", "crv": "P-256", "kid": "issuer", "x": x, "y": y });
        let keys = json!({ "keys": [jwk] }).to_string();
        fs::write(files.path().join("jwks.json"), keys).unwrap();
        let certified = rcgen::generate_simple_self_signed(vec!["127.0.0.1".into()]).unwrap();
        let authority = certified.cert.pem();
        fs::write(files.path().join("tls.crt"), &authority).unwrap();
        let private = certified.signing_key.serialize_pem();
        fs::write(files.path().join("tls.key"), private).unwrap();
        Self {
            key: EncodingKey::from_ec_der(&key.serialize_der()),
            authority,
            files,
        }
    }

    /// A token of a subject, valid for an hour.
    pub fn token(&self, subject: &str) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let header = Header {
            kid: Some("issuer".into()),
            ..Header::new(Algorithm::ES256)
        };
        let expires_at = now.as_secs() + 3_600;
        let claims =
            json!({ "iss": "issuer", "aud": "uploads", "sub": subject, "exp": expires_at });
        encode(&header, &claims, &self.key).unwrap()
    }

    /// A file with a token of a subject.
    pub fn token_file(&self, subject: &str) -> PathBuf {
        let path = self.files.path().join(format!("token-{subject}"));
        fs::write(&path, self.token(subject)).unwrap();
        path
    }

    /// The configuration of a gateway that accepts its tokens: a key, and a table.
    pub fn authentication(&self) -> String {
        format!(
            "auth = \"required\"\n[[issuer]]\nissuer = \"issuer\"\naudiences = [\"uploads\"]\n\
             tenant_is = \"acme\"\njwks_file = {:?}\n",
            self.files.path().join("jwks.json")
        )
    }

    /// The table of a gateway with its certificate.
    pub fn encryption(&self) -> String {
        let path = |name: &str| self.files.path().join(name);
        let (certificate, key) = (path("tls.crt"), path("tls.key"));
        format!("[tls]\ncert_file = {certificate:?}\nkey_file = {key:?}\n")
    }
}
