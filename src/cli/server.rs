//! The gateway that a command calls.

use std::{fs, path::PathBuf};

use upload_gateway_client::{Client, ClientError, ConnectError, ConnectOptions};

use super::{
    error::CliError,
    profile::{Profile, Profiles},
};
use crate::{
    config::{PROFILE_VARIABLE, SERVER_VARIABLE},
    values::Endpoint,
};

/// The gateway of a `serve` on this machine.
const DEFAULT: &str = "http://127.0.0.1:50051";

/// The heading of these options in the help of commands.
pub(super) const HEADING: &str = "Connection";

/// The gateway that a command calls, and what is presented to it.
#[derive(Debug, clap::Args)]
pub(super) struct Server {
    /// The URL of the gateway [default: http://127.0.0.1:50051, or that of the profile]
    #[arg(long, help_heading = HEADING, value_name = "URL", env = SERVER_VARIABLE)]
    server: Option<String>,
    /// A profile of `upload-gateway config`; other options have precedence [default: the default profile, without --server]
    #[arg(long, help_heading = HEADING, value_name = "NAME", env = PROFILE_VARIABLE)]
    profile: Option<String>,
    /// A file with certificates of authorities, in PEM, besides those of the system
    #[arg(long, help_heading = HEADING, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// A file with a client certificate, in PEM
    #[arg(long, help_heading = HEADING, value_name = "FILE", requires = "key")]
    cert: Option<PathBuf>,
    /// A file with the private key of the client certificate, in PEM
    #[arg(long, help_heading = HEADING, value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
    /// A file with a token; it is read again for each try
    #[arg(long, help_heading = HEADING, value_name = "FILE", conflicts_with = "api_key_file")]
    token_file: Option<PathBuf>,
    /// A file with an API key; it is read again for each try
    #[arg(long, help_heading = HEADING, value_name = "FILE")]
    api_key_file: Option<PathBuf>,
}

// === impl Server ===

impl Server {
    /// A client of the gateway.
    ///
    /// # Errors
    /// What is wrong with the server at the address, if a gateway does not answer there.
    pub(super) async fn client(&self) -> Result<Client, CliError> {
        let client = self.connect()?;
        match client.check_connection().await {
            Ok(()) => Ok(client),
            Err(error) => Err(with_advice(error, "")),
        }
    }

    /// The same for a command that retries. If `waits`, a server may also start later.
    pub(super) async fn retrying_client(&self, waits: bool) -> Result<Client, CliError> {
        let client = self.connect()?;
        match client.check_connection().await {
            Ok(()) => Ok(client),
            Err(ClientError::Connect(ConnectError::NoServer { .. })) if waits => Ok(client),
            Err(error) => Err(with_advice(error, ", --wait waits for it")),
        }
    }

    /// The storage of new uploads, if the profile has one.
    pub(super) fn default_storage(&self) -> Result<Option<String>, CliError> {
        Ok(self.settings(Profiles::read)?.storage)
    }

    /// The storage that an option names, otherwise that of the profile. Empty: the default storage of the gateway.
    pub(super) fn storage(&self, named: &str) -> Result<String, CliError> {
        match named {
            "" => Ok(self.default_storage()?.unwrap_or_default()),
            named => Ok(named.to_owned()),
        }
    }

    /// The options that repeat this connection, as words of a command.
    pub(super) fn words(&self) -> Vec<String> {
        let names = [("--server", &self.server), ("--profile", &self.profile)];
        let names = names.into_iter().filter_map(|(option, name)| {
            let name = name.as_ref().filter(|name| *name != DEFAULT)?;
            Some([option.to_owned(), name.clone()])
        });
        let files = [
            ("--ca", &self.ca),
            ("--cert", &self.cert),
            ("--key", &self.key),
            ("--token-file", &self.token_file),
            ("--api-key-file", &self.api_key_file),
        ];
        let files = files.into_iter().filter_map(|(option, file)| {
            let file = file.as_ref()?.to_string_lossy();
            Some([option.to_owned(), file.into_owned()])
        });
        names.chain(files).flatten().collect()
    }

    fn connect(&self) -> Result<Client, CliError> {
        let settings = self.settings(Profiles::read)?;
        let options = ConnectOptions {
            authorities: read(settings.ca.as_ref())?,
            certificate: read(settings.cert.as_ref())?,
            key: read(settings.key.as_ref())?,
            token_file: settings.token_file,
            token_command: settings.token_command,
            api_key_file: settings.api_key_file,
        };
        let server = self.server.as_deref();
        let server = server.or(settings.server.as_ref().map(Endpoint::as_str));
        Ok(Client::connect_with(server.unwrap_or(DEFAULT), &options)?)
    }

    /// The options, and the profile in place of those that are not set. Its `server` is that of the profile.
    fn settings(
        &self,
        read: impl FnOnce() -> Result<Profiles, CliError>,
    ) -> Result<Profile, CliError> {
        let mut settings = match (&self.profile, &self.server) {
            (Some(name), _) => read()?.named(name)?,
            // A credential is not presented to another server than that of its profile, unless the caller wants it.
            (None, Some(_)) => Profile::default(),
            (None, None) => read()?.default_profile()?,
        };
        if self.ca.is_some() {
            settings.ca.clone_from(&self.ca);
        }
        if self.cert.is_some() {
            settings.cert.clone_from(&self.cert);
            settings.key.clone_from(&self.key);
        }
        if self.token_file.is_some() || self.api_key_file.is_some() {
            settings.token_file.clone_from(&self.token_file);
            settings.token_command = None;
            settings.api_key_file.clone_from(&self.api_key_file);
        }
        Ok(settings)
    }
}

fn read(path: Option<&PathBuf>) -> Result<Option<String>, CliError> {
    let Some(path) = path else { return Ok(None) };
    let text = fs::read_to_string(path);
    text.map(Some)
        .map_err(|error| CliError::input_output(format!("read {}", path.display()), error))
}

/// The error with the options that help.
fn with_advice(error: ClientError, hint: &'static str) -> CliError {
    match error {
        ClientError::Connect(ConnectError::NoServer { server, source }) => CliError::NoGateway {
            server,
            hint,
            source,
        },
        error => error.into(),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const FILE: &str = "default_profile = 'work'\n[profile.work]\nserver = 'https://work.example'\nstorage = 'media'\n\
        token_command = ['print-token']\nca = '/work.pem'\n[profile.home]\nserver = 'http://home.example'\n";

    fn server() -> Server {
        Server {
            server: None,
            profile: None,
            ca: None,
            cert: None,
            key: None,
            token_file: None,
            api_key_file: None,
        }
    }

    fn settings(server: &Server) -> Profile {
        let read = || Profiles::parse(Path::new("/config.toml"), FILE);
        server.settings(read).unwrap()
    }

    #[test]
    fn options_have_precedence_over_the_profile() {
        let work = settings(&server());
        assert_eq!(work.server.unwrap().as_str(), "https://work.example");
        assert_eq!(work.storage.as_deref(), Some("media"));
        let named = settings(&Server {
            profile: Some("home".into()),
            ..server()
        });
        assert_eq!(named.server.unwrap().as_str(), "http://home.example");
        let changed = settings(&Server {
            ca: Some("other.pem".into()),
            api_key_file: Some("key".into()),
            ..server()
        });
        assert_eq!(changed.ca, Some("other.pem".into()));
        assert_eq!(changed.token_command, None);
        assert_eq!(changed.api_key_file, Some("key".into()));
    }

    #[test]
    fn another_server_does_not_get_the_credential_of_the_default_profile() {
        let other = Server {
            server: Some("http://other.example".into()),
            ..server()
        };
        let settings_of_other = settings(&other);
        assert_eq!(settings_of_other.token_command, None);
        assert_eq!(settings_of_other.storage, None);
        let both = settings(&Server {
            profile: Some("work".into()),
            ..other
        });
        assert!(both.token_command.is_some());
    }

    #[test]
    fn the_words_repeat_the_connection() {
        let words = Server {
            server: Some(DEFAULT.into()),
            profile: Some("work".into()),
            token_file: Some("token".into()),
            ..server()
        };
        let expected = ["--profile", "work", "--token-file", "token"];
        assert_eq!(words.words(), expected);
    }
}
