//! Named gateways in a file of the user, and what is presented to them.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use etcetera::{BaseStrategy, choose_base_strategy};
use serde::Deserialize;

use super::error::CliError;
use crate::values::Endpoint;

/// The profile that is used if none is named.
pub(super) const DEFAULT_NAME: &str = "default";

/// The table of all profiles.
pub(super) const PROFILES: &str = "profile";

/// The key that names another profile than [`DEFAULT_NAME`].
pub(super) const DEFAULT_KEY: &str = "default_profile";

/// The keys whose values are paths. Relative ones are in the directory of the file.
pub(super) const PATHS: [&str; 5] = ["ca", "cert", "key", "token_file", "api_key_file"];

/// The file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Profiles {
    default_profile: Option<String>,
    #[serde(default, rename = "profile")]
    profiles: BTreeMap<String, Profile>,
}

/// A gateway. It has no secrets: they are in other files, or printed by a command.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Profile {
    /// The URL of the gateway.
    pub(super) server: Option<Endpoint>,
    /// A file with certificates of authorities.
    pub(super) ca: Option<PathBuf>,
    /// A file with a client certificate.
    pub(super) cert: Option<PathBuf>,
    /// A file with its private key.
    pub(super) key: Option<PathBuf>,
    /// A file with a token.
    pub(super) token_file: Option<PathBuf>,
    /// A program and its arguments that print a token.
    pub(super) token_command: Option<Vec<String>>,
    /// A file with an API key.
    pub(super) api_key_file: Option<PathBuf>,
    /// The storage of new uploads.
    pub(super) storage: Option<String>,
}

/// Where the file is: `upload-gateway/config.toml` in the user's directory for configuration.
pub(super) fn path() -> Result<PathBuf, CliError> {
    let directories = choose_base_strategy();
    let directories = directories.map_err(|error| CliError::failed(error.to_string()))?;
    Ok(directories.config_dir().join("upload-gateway/config.toml"))
}

/// The text of the file. Empty if it does not exist.
pub(super) fn text(path: &Path) -> Result<String, CliError> {
    match fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        text => {
            text.map_err(|error| CliError::input_output(format!("read {}", path.display()), error))
        }
    }
}

// === impl Profiles ===

impl Profiles {
    /// Those of the user.
    pub(super) fn read() -> Result<Self, CliError> {
        let path = path()?;
        Self::parse(&path, &text(&path)?)
    }

    /// Those of a file with this text.
    ///
    /// # Errors
    /// The first line that is invalid.
    pub(super) fn parse(path: &Path, text: &str) -> Result<Self, CliError> {
        let read: Result<Self, _> = toml::from_str(text);
        let mut profiles = read.map_err(|error| {
            let before = error.span().and_then(|span| text.get(..span.start));
            let line = before.unwrap_or_default().matches('\n').count() + 1;
            // The full message would repeat the line.
            let message = error.message();
            CliError::failed(format!("{} line {line}: {message}", path.display()))
        })?;
        let directory = path.parent().unwrap_or(Path::new(""));
        for (name, profile) in &mut profiles.profiles {
            profile.resolve(directory);
            profile.check().map_err(|problem| {
                CliError::failed(format!("{}: profile {name}: {problem}", path.display()))
            })?;
        }
        Ok(profiles)
    }

    /// The name of the profile that is used if none is named.
    pub(super) fn default_name(&self) -> &str {
        self.default_profile.as_deref().unwrap_or(DEFAULT_NAME)
    }

    /// All profiles by name.
    pub(super) fn all(&self) -> &BTreeMap<String, Profile> {
        &self.profiles
    }

    /// The profile with this name.
    pub(super) fn named(&self, name: &str) -> Result<Profile, CliError> {
        let known = || self.profiles.keys().map(String::as_str).collect::<Vec<_>>();
        self.profiles.get(name).cloned().ok_or_else(|| {
            let known = match known().join(", ") {
                known if known.is_empty() => "there are no profiles yet".to_owned(),
                known => format!("there are {known}"),
            };
            CliError::failed(format!(
                "no profile {name}: {known}; `upload-gateway config set --profile {name} server URL` makes it"
            ))
        })
    }

    /// The profile that is used if none is named. If it does not exist, an empty one.
    pub(super) fn default_profile(&self) -> Result<Profile, CliError> {
        match (&self.default_profile, self.profiles.get(DEFAULT_NAME)) {
            (Some(name), _) => self.named(name),
            (None, profile) => Ok(profile.cloned().unwrap_or_default()),
        }
    }
}

// === impl Profile ===

impl Profile {
    fn resolve(&mut self, directory: &Path) {
        let paths = [
            &mut self.ca,
            &mut self.cert,
            &mut self.key,
            &mut self.token_file,
            &mut self.api_key_file,
        ];
        for path in paths.into_iter().flatten() {
            *path = directory.join(&path);
        }
    }

    fn check(&self) -> Result<(), &'static str> {
        let credentials = [
            self.token_file.is_some(),
            self.token_command.is_some(),
            self.api_key_file.is_some(),
        ];
        if credentials.into_iter().filter(|is_set| *is_set).count() > 1 {
            return Err("only one of token_file, token_command and api_key_file can be set");
        }
        if self.cert.is_some() != self.key.is_some() {
            return Err("cert and key must be set together");
        }
        if self.token_command.as_ref().is_some_and(Vec::is_empty) {
            return Err("token_command must have a program");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: &str = "default_profile = 'work'\n[profile.work]\nserver = 'https://uploads.example:50051'\n\
        token_file = 'token'\nstorage = 'media'\n[profile.home]\nserver = 'http://127.0.0.1:50051'\nca = '/etc/ca.pem'\n";

    fn parse(text: &str) -> Result<Profiles, String> {
        let parsed = Profiles::parse(Path::new("/home/me/config.toml"), text);
        parsed.map_err(|error| error.to_string())
    }

    #[test]
    fn a_profile_is_named_or_the_default() {
        let profiles = parse(TWO).unwrap();
        let work = profiles.default_profile().unwrap();
        assert_eq!(work.storage.as_deref(), Some("media"));
        assert_eq!(work.token_file, Some("/home/me/token".into()));
        let home = profiles.named("home").unwrap();
        assert_eq!(home.ca, Some("/etc/ca.pem".into()));
        let unknown = profiles.named("other").unwrap_err().to_string();
        assert!(unknown.contains("there are home, work"), "{unknown}");
        let empty = parse("").unwrap().default_profile().unwrap();
        assert!(empty.server.is_none());
        assert!(
            parse("default_profile = 'x'")
                .unwrap()
                .default_profile()
                .is_err()
        );
    }

    #[test]
    fn a_broken_file_is_an_error_that_names_the_line_and_not_its_text() {
        for (text, problem) in [
            ("a = hunter2", "config.toml line 1: "),
            (
                "\n[profile.a]\ntoken = 'hunter2'",
                "line 3: unknown field `token`",
            ),
            (
                "[profile.a]\nserver = 'https://me:hunter2@host'",
                "line 2: expected a URL",
            ),
            ("[profile.a]\nca = 7", "line 2: invalid type"),
            ("[profile.a]\ncert = 'a'", "profile a: cert and key"),
            (
                "[profile.a]\ntoken_command = []",
                "profile a: token_command",
            ),
            (
                "[profile.a]\ntoken_file = 'a'\napi_key_file = 'b'",
                "profile a: only one of",
            ),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(problem), "{error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
}
