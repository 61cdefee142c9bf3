//! The public keys of an issuer: a JSON Web Key Set (RFC 7517).

use std::collections::HashMap;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde_json::{Map, Value};

/// The largest number of keys in a set.
const MAX_KEYS: usize = 100;

/// The smallest RSA key, in bits (RFC 7518, section 3.3).
const MIN_RSA_BITS: usize = 2048;

/// The keys of an issuer, by id.
#[derive(Debug, Default)]
pub(super) struct KeySet {
    by_id: HashMap<String, Key>,
    /// Those without an id.
    unnamed: Vec<Key>,
}

/// A key, and the one algorithm that it is for: a token cannot choose another one.
#[derive(Debug, Clone)]
pub(super) struct Key {
    pub(super) algorithm: Algorithm,
    pub(super) key: DecodingKey,
}

// === impl KeySet ===

impl KeySet {
    /// The usable keys of a JSON document, and why the others are not used.
    ///
    /// # Errors
    /// It is no key set, has too many keys, or none that can be used.
    pub(super) fn parse(json: &[u8]) -> Result<(Self, Vec<String>), String> {
        let set: Value =
            serde_json::from_slice(json).map_err(|error| format!("no JSON: {error}"))?;
        let keys = set.get("keys").and_then(Value::as_array);
        let keys = keys.ok_or("no key set: it has no list `keys`")?;
        if keys.len() > MAX_KEYS {
            return Err(format!("the key set has more than {MAX_KEYS} keys"));
        }
        let (mut parsed, mut ignored) = (Self::default(), Vec::new());
        for value in keys {
            let id = value.get("kid").and_then(Value::as_str);
            match value
                .as_object()
                .ok_or("no object".into())
                .and_then(Key::parse)
            {
                Ok(key) => parsed.add(id, key, &mut ignored),
                Err(problem) => ignored.push(format!("{}: {problem}", id.unwrap_or("without id"))),
            }
        }
        match parsed.len() {
            0 => Err(format!("no key can be used: {}", ignored.join(", "))),
            _ => Ok((parsed, ignored)),
        }
    }

    /// A set of one key without an id.
    pub(super) fn of(key: Key) -> Self {
        Self {
            unnamed: vec![key],
            ..Self::default()
        }
    }

    /// The key with this id. A token without an id means the only key.
    pub(super) fn find(&self, id: Option<&str>) -> Option<&Key> {
        match id {
            Some(id) => self.by_id.get(id),
            None if self.len() == 1 => self.by_id.values().chain(&self.unnamed).next(),
            None => None,
        }
    }

    /// Whether there is no key.
    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn len(&self) -> usize {
        self.by_id.len() + self.unnamed.len()
    }

    fn add(&mut self, id: Option<&str>, key: Key, ignored: &mut Vec<String>) {
        match id {
            None => self.unnamed.push(key),
            Some(id) if self.by_id.contains_key(id) => {
                ignored.push(format!("{id}: another key has the same id"));
            }
            Some(id) => {
                self.by_id.insert(id.to_owned(), key);
            }
        }
    }
}

// === impl Key ===

impl Key {
    /// A secret of at least 32 bytes, for HS256.
    pub(super) fn secret(secret: &str) -> Self {
        Self {
            algorithm: Algorithm::HS256,
            key: DecodingKey::from_secret(secret.as_bytes()),
        }
    }

    fn parse(jwk: &Map<String, Value>) -> Result<Self, String> {
        let text = |name: &str| jwk.get(name).and_then(Value::as_str);
        let bytes = |name: &str| {
            let encoded = text(name).ok_or_else(|| format!("`{name}` is missing"))?;
            let decoded = URL_SAFE_NO_PAD.decode(encoded.trim_end_matches('='));
            decoded.map_err(|_| format!("`{name}` is not base64url"))
        };
        if text("use").is_some_and(|used| used != "sig") {
            return Err("it is not for signatures".into());
        }
        let (algorithm, names, key) = match (text("kty"), text("crv")) {
            (Some("RSA"), _) => {
                let (modulus, exponent) = (bytes("n")?, bytes("e")?);
                if bits(&modulus) < MIN_RSA_BITS {
                    return Err(format!("an RSA key needs at least {MIN_RSA_BITS} bits"));
                }
                let key = DecodingKey::from_rsa_raw_components(&modulus, &exponent);
                (Algorithm::RS256, &["RS256"][..], key)
            }
            (Some("EC"), Some("P-256")) => {
                let point = [vec![4], coordinate(bytes("x")?)?, coordinate(bytes("y")?)?];
                let key = DecodingKey::from_ec_der(&point.concat());
                (Algorithm::ES256, &["ES256"][..], key)
            }
            (Some("OKP"), Some("Ed25519")) => {
                let key = DecodingKey::from_ed_der(&coordinate(bytes("x")?)?);
                // RFC 9864 has a second name.
                (Algorithm::EdDSA, &["EdDSA", "Ed25519"][..], key)
            }
            _ => return Err("its type is not RSA, P-256 or Ed25519".into()),
        };
        match text("alg") {
            Some(other) if !names.contains(&other) => {
                Err("its algorithm is not RS256, ES256 or EdDSA".into())
            }
            _ => Ok(Self { algorithm, key }),
        }
    }
}

fn bits(number: &[u8]) -> usize {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    let first = number.get(zeros).map_or(0, |byte| byte.leading_zeros());
    (number.len() - zeros) * 8 - first as usize
}

fn coordinate(bytes: Vec<u8>) -> Result<Vec<u8>, String> {
    match bytes.len() {
        32 => Ok(bytes),
        _ => Err("a coordinate must have 32 bytes".into()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn rsa(size: usize) -> Value {
        json!({ "kty": "RSA", "n": URL_SAFE_NO_PAD.encode(vec![0xff; size]), "e": "AQAB" })
    }

    fn with(mut key: Value, name: &str, value: &str) -> Value {
        key[name] = value.into();
        key
    }

    fn point(kty: &str, crv: &str) -> Value {
        let number = URL_SAFE_NO_PAD.encode([7; 32]);
        json!({ "kty": kty, "crv": crv, "x": number, "y": number })
    }

    fn parse(keys: &[Value]) -> Result<(KeySet, Vec<String>), String> {
        KeySet::parse(json!({ "keys": keys }).to_string().as_bytes())
    }

    #[test]
    fn the_algorithm_comes_from_the_key() {
        for (key, algorithm) in [
            (rsa(256), Algorithm::RS256),
            (with(rsa(256), "alg", "RS256"), Algorithm::RS256),
            (with(rsa(256), "use", "sig"), Algorithm::RS256),
            (point("EC", "P-256"), Algorithm::ES256),
            (point("OKP", "Ed25519"), Algorithm::EdDSA),
            (
                with(point("OKP", "Ed25519"), "alg", "Ed25519"),
                Algorithm::EdDSA,
            ),
        ] {
            let (set, ignored) = parse(&[key]).unwrap();
            assert_eq!(set.find(None).unwrap().algorithm, algorithm);
            assert!(ignored.is_empty());
        }
    }

    #[test]
    fn keys_that_cannot_be_used_are_ignored_by_name() {
        let good = with(rsa(256), "kid", "good");
        for bad in [
            rsa(255),
            with(rsa(256), "use", "enc"),
            with(rsa(256), "alg", "RS512"),
            with(rsa(256), "alg", "HS256"),
            with(point("EC", "P-256"), "alg", "RS256"),
            point("EC", "P-384"),
            point("OKP", "Ed448"),
            json!({ "kty": "oct", "k": "AAAA" }),
            json!({ "kty": "RSA", "n": "%", "e": "AQAB" }),
            json!("text"),
        ] {
            let (set, ignored) = parse(&[good.clone(), bad.clone()]).unwrap();
            assert_eq!((set.len(), ignored.len()), (1, 1), "{bad}");
            assert!(parse(&[bad]).is_err());
        }
        let twice = [good.clone(), with(point("EC", "P-256"), "kid", "good")];
        let (set, ignored) = parse(&twice).unwrap();
        assert_eq!(set.find(Some("good")).unwrap().algorithm, Algorithm::RS256);
        assert_eq!(ignored, ["good: another key has the same id"]);
    }

    #[test]
    fn a_token_without_an_id_means_the_only_key() {
        let [one, two] = ["one", "two"].map(|id| with(rsa(256), "kid", id));
        let (set, _) = parse(&[one.clone(), two]).unwrap();
        assert!(set.find(None).is_none() && set.find(Some("three")).is_none());
        assert!(set.find(Some("one")).is_some());
        assert!(parse(&[one]).unwrap().0.find(None).is_some());
    }

    #[test]
    fn other_documents_are_refused() {
        let many = vec![rsa(256); MAX_KEYS + 1];
        assert!(parse(&many).is_err());
        for other in [
            &b"<html>"[..],
            b"",
            b"{}",
            b"[]",
            b"{\"keys\":[]}",
            b"{\"keys\":7}",
        ] {
            assert!(KeySet::parse(other).is_err());
        }
    }
}
