//! API keys: random secrets with a public id. The gateway knows only their SHA-256: a slow hash would let clients with a
//! wrong key keep its processors busy, and protects nothing where the secret is random.

use std::{collections::HashMap, path::PathBuf};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use upload_gateway_core::gateway::Caller;

use super::{
    principal::{Role, principal},
    rejection::Rejection,
};
use crate::{
    reload::Reloaded,
    values::{self, InvalidKey},
};

/// The longest id, in bytes.
const MAX_ID_LENGTH: usize = 64;

/// How many random bytes a key has.
const SECRET_SIZE: usize = 32;

/// How many keys one id can have at a time, while one replaces another.
const MAX_DIGESTS: usize = 4;

/// One API key: a table `[[api_key]]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApiKeyConfig {
    /// The public part, with which every key of this table begins: letters, digits, `-` and `_`.
    pub id: String,
    /// The SHA-256 of the key, in hexadecimal. Several, with spaces between them, while one key replaces another.
    #[serde(default)]
    pub sha256: Option<String>,
    /// A file that contains `sha256`. It is read again when it changes.
    #[serde(default)]
    pub sha256_file: Option<PathBuf>,
    /// The tenant of the principal. Not for operators.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub tenant: String,
    /// The subject of the principal.
    pub subject: String,
    /// The roles of the principal.
    #[serde(default, deserialize_with = "values::list")]
    pub roles: Vec<Role>,
}

/// The API keys of a gateway, by id.
#[derive(Debug)]
pub(super) struct ApiKeys(HashMap<String, ApiKey>);

#[derive(Debug)]
struct ApiKey {
    digests: Reloaded<Vec<[u8; 32]>>,
    caller: Caller,
}

/// A new key with this id, and its digest in hexadecimal.
///
/// # Errors
/// The id is invalid.
pub fn generate(id: &str) -> Result<(String, String), InvalidKey> {
    check_id(id)?;
    let secret: [u8; SECRET_SIZE] = rand::random();
    let key = format!("{id}.{}", URL_SAFE_NO_PAD.encode(secret));
    let digest = digest(&key);
    let hexadecimal = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok((key, hexadecimal))
}

fn digest(key: &str) -> [u8; 32] {
    Sha256::digest(key.as_bytes()).into()
}

fn check_id(id: &str) -> Result<(), InvalidKey> {
    let is_valid = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    match id.bytes().all(is_valid) && (1..=MAX_ID_LENGTH).contains(&id.len()) {
        true => Ok(()),
        false => Err(InvalidKey::new(
            "id",
            "must be 1 to 64 letters, digits, `-` or `_`",
        )),
    }
}

/// The digests in a text.
fn digests(text: &str) -> Result<Vec<[u8; 32]>, String> {
    let digests: Option<Vec<_>> = text.split_whitespace().map(parse_digest).collect();
    match digests {
        Some(digests) if (1..=MAX_DIGESTS).contains(&digests.len()) => Ok(digests),
        _ => Err("expected 1 to 4 SHA-256 digests of 64 hexadecimal digits".into()),
    }
}

fn parse_digest(text: &str) -> Option<[u8; 32]> {
    let is_hexadecimal = text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let byte = |at: usize| u8::from_str_radix(text.get(2 * at..2 * at + 2)?, 16).ok();
    let bytes: Option<Vec<u8>> = (0..32).map(byte).collect();
    bytes?.try_into().ok().filter(|_| is_hexadecimal)
}

// === impl ApiKeyConfig ===

impl ApiKeyConfig {
    /// The table as TOML.
    pub(crate) fn to_toml(&self) -> String {
        let table = toml::to_string(self).expect("text and lists have a TOML form");
        format!("[[api_key]]\n{table}")
    }

    /// Refuses what cannot work.
    ///
    /// # Errors
    /// The first key that is invalid.
    pub(crate) fn validate(&self) -> Result<(), InvalidKey> {
        check_id(&self.id)?;
        let text = self.sha256.as_deref().unwrap_or_default();
        digests(text).map_err(|problem| InvalidKey::new("sha256", problem))?;
        principal(&self.tenant, &self.subject, &self.roles)
            .map(drop)
            .map_err(|problem| InvalidKey::new("subject", problem))
    }
}

// === impl ApiKeys ===

impl ApiKeys {
    /// The keys of these tables, which are valid. Must be called in a runtime.
    ///
    /// # Errors
    /// Says which file cannot be used.
    pub(super) fn new(tables: &[ApiKeyConfig]) -> Result<Self, String> {
        let keys = tables.iter().map(|table| {
            let digests = match &table.sha256_file {
                Some(path) => Reloaded::read("API keys", vec![path.clone()], |contents| {
                    digests(&String::from_utf8_lossy(&contents.concat()))
                })?,
                None => Reloaded::fixed(digests(table.sha256.as_deref().unwrap_or_default())?),
            };
            let caller = principal(&table.tenant, &table.subject, &table.roles)?;
            Ok((table.id.clone(), ApiKey { digests, caller }))
        });
        keys.collect::<Result<_, String>>().map(Self)
    }

    /// The principal of a key.
    ///
    /// # Errors
    /// `Invalid` for an unknown id or another secret.
    pub(super) fn verify(&self, key: &str) -> Result<Caller, Rejection> {
        let id = key.split('.').next().unwrap_or_default();
        let known = self.0.get(id);
        let known = known.ok_or_else(|| Rejection::invalid("no API key has this id"))?;
        let digest = digest(key);
        let matches = known.digests.latest().iter().fold(0, |matches, known| {
            matches | known.as_slice().ct_eq(digest.as_slice()).unwrap_u8()
        });
        match matches {
            1 => Ok(known.caller.clone()),
            _ => Err(Rejection::invalid(
                "the secret of the API key is another one",
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn table(id: &str, sha256: &str) -> ApiKeyConfig {
        ApiKeyConfig {
            id: id.into(),
            sha256: Some(sha256.into()),
            sha256_file: None,
            tenant: "acme".into(),
            subject: "signage".into(),
            roles: vec![Role::User],
        }
    }

    #[test]
    fn a_key_stands_for_its_principal() {
        let (key, sha256) = generate("signage").unwrap();
        let (other, _) = generate("signage").unwrap();
        let keys = ApiKeys::new(&[table("signage", &sha256)]).unwrap();
        assert_eq!(keys.verify(&key).unwrap().owner.subject, "signage");
        for wrong in [
            &other,
            "signage",
            "signage.",
            "",
            "other.x",
            &key[..key.len() - 1],
        ] {
            assert!(
                matches!(keys.verify(wrong), Err(Rejection::Invalid(_))),
                "{wrong}"
            );
        }
    }

    #[test]
    fn a_digest_is_that_of_other_tools() {
        // printf %s id.secret | sha256sum
        let sha256 = "d424b0a2f7a1cfca1968600c075700a2fd460d13fd82faae048d6e33b2f19723";
        assert_eq!(parse_digest(sha256), Some(digest("id.secret")));
    }

    #[test]
    fn invalid_tables_are_refused_by_key() {
        let digest = "0".repeat(64);
        for (id, sha256, key) in [
            ("", &*digest, "id"),
            ("a.b", &digest, "id"),
            (&"x".repeat(65), &digest, "id"),
            ("a", "", "sha256"),
            ("a", &digest[1..], "sha256"),
            ("a", &format!("+{}", &digest[1..]), "sha256"),
            ("a", &[&*digest; 5].join(" "), "sha256"),
        ] {
            assert_eq!(
                table(id, sha256).validate().unwrap_err().key,
                key,
                "{id} {sha256}"
            );
        }
        assert!(
            table("a", &format!("{digest}\n{digest}\n"))
                .validate()
                .is_ok()
        );
        let without_subject = ApiKeyConfig {
            subject: String::new(),
            ..table("a", &digest)
        };
        assert_eq!(without_subject.validate().unwrap_err().key, "subject");
    }

    #[tokio::test(start_paused = true)]
    async fn a_rotated_key_is_accepted_and_the_old_one_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("digest");
        let [(old, old_digest), (new, new_digest)] = [(); 2].map(|()| generate("a").unwrap());
        std::fs::write(&path, &old_digest).unwrap();
        let table = ApiKeyConfig {
            sha256_file: Some(path.clone()),
            ..table("a", &old_digest)
        };
        let keys = ApiKeys::new(&[table]).unwrap();
        let accepted = |old_counts, new_counts| {
            keys.verify(&old).is_ok() == old_counts && keys.verify(&new).is_ok() == new_counts
        };
        assert!(accepted(true, false));
        for (content, expected) in [
            (format!("{old_digest}\n{new_digest}\n"), (true, true)),
            (new_digest, (false, true)),
        ] {
            std::fs::write(&path, content).unwrap();
            while !accepted(expected.0, expected.1) {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}
