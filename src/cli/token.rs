//! `token`: makes a token for development, and the table that lets the gateway accept it.

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::json;

use super::{error::CliError, output, principal::Principal};
use crate::private_files;

/// The issuer of tokens for development.
const ISSUER: &str = "upload-gateway-development";

/// Their audience.
const AUDIENCE: &str = "upload-gateway";

#[derive(Debug, clap::Args)]
#[command(after_help = "\
For development: a program that can read the secret can make tokens of every principal.
The token is printed to standard output, and the table for the configuration to standard error.

    upload-gateway token --secret-file secret --tenant acme --subject signage 2>> config.toml > token")]
pub(super) struct Arguments {
    /// A file with the secret that signs tokens; it is made if it does not exist
    #[arg(long, value_name = "FILE")]
    secret_file: PathBuf,
    #[command(flatten)]
    principal: Principal,
    /// How long the token is valid
    #[arg(long, value_name = "N", default_value_t = 60)]
    minutes: u32,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), CliError> {
    let path = &arguments.secret_file;
    let failed = |error| CliError::input_output(format!("read or make {}", path.display()), error);
    let secret = secret(path).map_err(failed)?;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let expires = now.unwrap_or_default() + Duration::from_secs(60 * u64::from(arguments.minutes));
    let claims = json!({
        "iss": ISSUER,
        "aud": AUDIENCE,
        "tenant": arguments.principal.tenant,
        "sub": arguments.principal.subject,
        "roles": arguments.principal.roles,
        "exp": expires.as_secs(),
    });
    let key = EncodingKey::from_secret(secret.as_bytes());
    let token = encode(&Header::new(Algorithm::HS256), &claims, &key);
    let token = token.map_err(|error| CliError::failed(error.to_string()))?;
    for line in table(path) {
        output::log(line);
    }
    output::data(token)
}

/// The lines of the table that accepts the tokens.
fn table(secret: &Path) -> [String; 7] {
    let file = secret.canonicalize().unwrap_or_else(|_| secret.to_owned());
    let file = toml::Value::from(file.to_string_lossy().into_owned());
    [
        "[[issuer]]".into(),
        format!("issuer = \"{ISSUER}\""),
        format!("audiences = [\"{AUDIENCE}\"]"),
        format!("hs256_secret_file = {file}"),
        "tenant = \"/tenant\"".into(),
        "subject = \"/sub\"".into(),
        "roles = \"/roles\"".into(),
    ]
}

/// The secret in a file, which is made if it does not exist.
fn secret(path: &Path) -> io::Result<String> {
    match private_files::create_new(path) {
        Ok(mut file) => {
            let secret = URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>());
            file.write_all(secret.as_bytes())?;
            Ok(secret)
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(fs::read_to_string(path)?
            .trim_end_matches(['\r', '\n'])
            .to_owned()),
        Err(error) => Err(error),
    }
}
