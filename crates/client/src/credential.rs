//! What a client presents to a gateway, and the connection that adds it to each call.

use std::{
    fs::read_to_string,
    future::Future,
    mem,
    path::{Path, PathBuf},
    pin::Pin,
    process::Stdio,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::AsyncReadExt,
    process::Command,
    sync::Mutex,
    time::{Instant, timeout},
};
use tonic::{
    Status,
    body::Body,
    codegen::{
        Service,
        http::{HeaderMap, HeaderName, HeaderValue, Request, Response, header::AUTHORIZATION},
    },
    transport::{Channel, Error},
};

/// How long a command may take to print a token.
const COMMAND_LIMIT: Duration = Duration::from_secs(30);

/// The largest token that is read from a command, in bytes. Servers refuse larger headers.
const MAX_TOKEN: u64 = 16 * 1024;

/// How long the token of a command is used again, unless the gateway refuses it before.
const TOKEN_AGE: Duration = Duration::from_secs(60);

/// A connection to a gateway that adds a credential to each call.
#[derive(Debug, Clone)]
pub(crate) struct Authenticated {
    channel: Channel,
    credential: Credential,
}

/// What is added to each call.
#[derive(Debug, Clone)]
pub(crate) enum Credential {
    Nothing,
    /// A file with a token.
    Token(Arc<Path>),
    /// A command that prints a token.
    Command(Arc<TokenCommand>),
    /// A file with an API key.
    ApiKey(Arc<Path>),
}

/// A header that presents a credential.
#[derive(Debug)]
struct Header {
    name: HeaderName,
    value: HeaderValue,
    /// Whether an earlier call presented the same token, and the next one can present another.
    is_reused: bool,
}

/// A program and its arguments, and the token that it printed last.
#[derive(Debug)]
pub(crate) struct TokenCommand {
    words: Vec<String>,
    /// Locked while the program runs, so that calls at the same time share its token. The value is not printed.
    token: Mutex<Option<(HeaderValue, Instant)>>,
}

// === impl Authenticated ===

impl Authenticated {
    pub(crate) fn new(channel: Channel, credential: Credential) -> Self {
        Self {
            channel,
            credential,
        }
    }
}

impl Service<Request<Body>> for Authenticated {
    type Response = Response<Body>;
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.channel.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        // The one that is ready makes this call.
        let next = self.channel.clone();
        let mut channel = mem::replace(&mut self.channel, next);
        let credential = self.credential.clone();
        Box::pin(async move {
            let header = match credential.header().await {
                Ok(header) => header,
                Err(status) => return Ok(status.into_http()),
            };
            let is_reused = header.as_ref().is_some_and(|header| header.is_reused);
            if let Some(Header { name, value, .. }) = header {
                request.headers_mut().insert(name, value);
            }
            let response = channel.call(request).await?;
            if !is_unauthenticated(response.headers()) {
                return Ok(response);
            }
            credential.forget().await;
            match is_reused {
                // The next try presents a new one.
                true => Ok(Status::unavailable("the token has expired meanwhile").into_http()),
                false => Ok(response),
            }
        })
    }
}

// === impl Credential ===

impl Credential {
    /// For a file with a token.
    pub(crate) fn token(path: &Path) -> Self {
        Self::Token(path.into())
    }

    /// For a program and its arguments.
    pub(crate) fn command(words: &[String]) -> Self {
        Self::Command(Arc::new(TokenCommand {
            words: words.to_vec(),
            token: Mutex::default(),
        }))
    }

    /// For a file with an API key.
    pub(crate) fn api_key(path: &Path) -> Self {
        Self::ApiKey(path.into())
    }

    /// The header of the next call.
    ///
    /// # Errors
    /// `UNAVAILABLE` if the credential cannot be read now: it may be back for the next try.
    async fn header(&self) -> Result<Option<Header>, Status> {
        let (name, (value, is_reused)) = match self {
            Self::Nothing => return Ok(None),
            Self::Token(path) => (AUTHORIZATION, (bearer(&read(path)?)?, false)),
            Self::Command(command) => (AUTHORIZATION, command.header().await?),
            Self::ApiKey(path) => {
                let value = sensitive(read(path)?.trim())?;
                (HeaderName::from_static("x-api-key"), (value, false))
            }
        };
        Ok(Some(Header {
            name,
            value,
            is_reused,
        }))
    }

    /// Runs the command for the next call again.
    async fn forget(&self) {
        if let Self::Command(command) = self {
            *command.token.lock().await = None;
        }
    }
}

// === impl TokenCommand ===

impl TokenCommand {
    /// The token of the last minute, or a new one, and whether it was used before.
    async fn header(&self) -> Result<(HeaderValue, bool), Status> {
        let mut token = self.token.lock().await;
        if let Some((value, since)) = &*token
            && since.elapsed() < TOKEN_AGE
        {
            return Ok((value.clone(), true));
        }
        let printed = timeout(COMMAND_LIMIT, self.run()).await;
        let printed = printed.unwrap_or_else(|late| Err(late.to_string()));
        let printed = printed.map_err(|problem| {
            let program = PathBuf::from(self.words.first().map_or("", String::as_str));
            let program = program.display();
            Status::unavailable(format!("the token command {program} failed: {problem}"))
        })?;
        let value = bearer(&printed)?;
        *token = Some((value.clone(), Instant::now()));
        Ok((value, false))
    }

    /// What the program prints. Its errors go to standard error.
    async fn run(&self) -> Result<String, String> {
        let (program, arguments) = self.words.split_first().ok_or("it is empty")?;
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null());
        command.stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().map_err(|error| error.to_string())?;
        let output = child.stdout.take().ok_or("it has no output")?;
        let mut text = String::new();
        let read = output.take(MAX_TOKEN + 1).read_to_string(&mut text).await;
        read.map_err(|error| error.to_string())?;
        if text.len() as u64 > MAX_TOKEN {
            return Err(format!("it printed more than {MAX_TOKEN} bytes"));
        }
        let status = child.wait().await.map_err(|error| error.to_string())?;
        match (status.success(), text.trim().is_empty()) {
            (false, _) => Err(status.to_string()),
            (true, true) => Err("it printed nothing".into()),
            (true, false) => Ok(text),
        }
    }
}

/// The content of a file with a credential.
fn read(path: &Path) -> Result<String, Status> {
    let text = read_to_string(path);
    text.map_err(|error| Status::unavailable(format!("cannot read {}: {error}", path.display())))
}

fn bearer(token: &str) -> Result<HeaderValue, Status> {
    sensitive(&format!("Bearer {}", token.trim()))
}

/// A header that is not printed.
fn sensitive(text: &str) -> Result<HeaderValue, Status> {
    let mut value = HeaderValue::from_str(text)
        .map_err(|_| Status::invalid_argument("the credential is no visible ASCII"))?;
    value.set_sensitive(true);
    Ok(value)
}

/// Whether a gateway refused the credential: such answers have no body, and the status in their headers.
fn is_unauthenticated(headers: &HeaderMap) -> bool {
    Status::from_header_map(headers)
        .is_some_and(|status| status.code() == tonic::Code::Unauthenticated)
}

#[cfg(test)]
mod tests {
    use std::{env, fs, process};

    use super::*;

    async fn sent(credential: &Credential) -> Result<String, Status> {
        let header = credential.header().await?.unwrap();
        Ok(header.value.to_str().unwrap().to_owned())
    }

    fn shell(script: &str) -> Credential {
        Credential::command(&["sh".into(), "-c".into(), script.into()])
    }

    #[tokio::test]
    async fn a_token_file_is_read_for_each_call() {
        let path = env::temp_dir().join(format!("upload-gateway-token-{}", process::id()));
        let credential = Credential::token(&path);
        let missing = sent(&credential).await.unwrap_err();
        assert_eq!(missing.code(), tonic::Code::Unavailable);
        for token in ["one", "two"] {
            fs::write(&path, format!("{token}\n")).unwrap();
            assert_eq!(sent(&credential).await.unwrap(), format!("Bearer {token}"));
        }
        fs::remove_file(path).unwrap();
    }

    #[tokio::test]
    async fn the_token_of_a_command_is_used_for_a_minute_or_until_it_is_refused() {
        // The id of the shell is another one each time.
        let credential = shell("echo $$");
        let first = sent(&credential).await.unwrap();
        let second = credential.header().await.unwrap().unwrap();
        assert_eq!(second.value, first);
        assert!(second.is_reused);
        credential.forget().await;
        let second = sent(&credential).await.unwrap();
        assert_ne!(second, first);
        tokio::time::pause();
        tokio::time::advance(TOKEN_AGE).await;
        tokio::time::resume();
        assert_ne!(sent(&credential).await.unwrap(), second);
    }

    #[tokio::test]
    async fn a_command_that_prints_no_token_is_an_error_that_names_it() {
        for (script, problem) in [
            ("exit 3", "exit status: 3"),
            ("true", "it printed nothing"),
            ("yes token", "it printed more than 16384 bytes"),
        ] {
            let status = sent(&shell(script)).await.unwrap_err();
            assert_eq!(status.code(), tonic::Code::Unavailable);
            let message = status.message();
            assert!(
                message.starts_with("the token command sh failed"),
                "{message}"
            );
            assert!(message.contains(problem), "{message}");
        }
        let missing = Credential::command(&["/nonexistent/program".into()]);
        let status = sent(&missing).await.unwrap_err();
        assert!(status.message().contains("/nonexistent/program failed"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_command_that_does_not_end_is_stopped() {
        let status = sent(&shell("exec sleep 1000")).await.unwrap_err();
        assert!(status.message().contains("failed: deadline"), "{status}");
    }
}
