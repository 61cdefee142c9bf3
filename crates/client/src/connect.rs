//! Finds out why a gateway cannot be called, with connections of its own and one call that changes nothing.

use std::{error::Error, future::poll_fn, io, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tonic::{
    body::Body,
    client::GrpcService,
    codegen::http::{Request, header::CONTENT_TYPE},
    transport::{Channel, Endpoint},
};

/// How long the whole check may take.
const TIME_LIMIT: Duration = Duration::from_secs(8);

/// How long a server may take to answer the first bytes of a connection. Two such answers fit into [`TIME_LIMIT`].
const ANSWER_LIMIT: Duration = Duration::from_secs(3);

/// What an HTTP/2 client sends first: the preface of RFC 9113, section 3.4, and an empty SETTINGS frame.
const HTTP2: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// A request that every HTTP/1.1 server answers, also one that closes the connection after [`HTTP2`].
const HTTP1: &[u8] = b"HEAD / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

/// Why no gateway can be called at an address.
///
/// # Examples
/// ```
/// use upload_gateway_client::ConnectError;
///
/// let error = ConnectError::HttpPort { server: "http://127.0.0.1:8080".into() };
/// assert!(error.to_string().starts_with("http://127.0.0.1:8080 is an HTTP port"));
/// ```
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// No server accepts connections at the address, or it does not answer in time.
    #[error("no gateway answers at {server}")]
    NoServer {
        /// The URL.
        server: String,
        /// The cause.
        source: io::Error,
    },
    /// The server speaks HTTP, but not gRPC.
    #[error(
        "{server} is an HTTP port, not a gRPC port; `serve` prints the address of its gRPC port"
    )]
    HttpPort {
        /// The URL.
        server: String,
    },
    /// The URL begins with `https://`, but the server does not use TLS.
    #[error("the server at {server} does not use TLS; the URL must begin with http://")]
    NoTls {
        /// The URL.
        server: String,
    },
    /// The URL begins with `http://`, but the server requires TLS.
    #[error("the server at {server} requires TLS; the URL must begin with https://")]
    NeedsTls {
        /// The URL.
        server: String,
    },
    /// The root certificates of the operating system do not lead to the server's certificate, or it is not valid.
    #[error(
        "the certificate of {server} is not trusted; SSL_CERT_FILE can name the authority to trust"
    )]
    UntrustedCertificate {
        /// The URL.
        server: String,
        /// What is wrong with it.
        source: rustls::Error,
    },
    /// TLS failed for another reason.
    #[error("TLS with {server} failed")]
    Tls {
        /// The URL.
        server: String,
        /// The cause.
        source: tonic::transport::Error,
    },
    /// The server speaks another protocol.
    #[error("the server at {server} does not speak gRPC")]
    NotGrpc {
        /// The URL.
        server: String,
    },
}

/// What a server's first bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    Http1,
    Http2,
    TlsAlert,
    Other,
}

/// Connects to the server of `endpoint`, whose scheme is `http` or `https`, within 8 seconds.
///
/// # Errors
/// What is wrong with the server.
pub(crate) async fn check(endpoint: &Endpoint) -> Result<(), ConnectError> {
    let server = endpoint.uri().to_string();
    let server = server.trim_end_matches('/');
    let check = async {
        match endpoint.uri().scheme_str() {
            Some("https") => check_tls(endpoint, server).await,
            _ => check_plain(endpoint, server).await,
        }
    };
    timeout(TIME_LIMIT, check)
        .await
        .unwrap_or_else(|late| Err(no_server(server, late.into())))
}

async fn check_plain(endpoint: &Endpoint, server: &str) -> Result<(), ConnectError> {
    let server = server.to_owned();
    match ask_all(endpoint).await {
        Ok(Answer::Http2) => match endpoint.connect().await {
            Ok(channel) => check_grpc(channel, server).await,
            // It was lost just now, which the first call reports.
            Err(_) => Ok(()),
        },
        Ok(Answer::Http1) => Err(ConnectError::HttpPort { server }),
        Ok(Answer::TlsAlert) => Err(ConnectError::NeedsTls { server }),
        Ok(Answer::Other) => Err(ConnectError::NotGrpc { server }),
        Err(source) => Err(no_server(server, source)),
    }
}

async fn check_tls(endpoint: &Endpoint, server: &str) -> Result<(), ConnectError> {
    let connected = connect(endpoint).await;
    connected.map_err(|source| no_server(server, source))?;
    let server = server.to_owned();
    let failure = match endpoint.connect().await {
        Ok(channel) => return check_grpc(channel, server).await,
        Err(failure) => failure,
    };
    if let Some(source @ rustls::Error::InvalidCertificate(_)) = tls_error(&failure) {
        let source = source.clone();
        return Err(ConnectError::UntrustedCertificate { server, source });
    }
    match ask_all(endpoint).await {
        Ok(Answer::Http1 | Answer::Http2) => Err(ConnectError::NoTls { server }),
        _ => Err(ConnectError::Tls {
            server,
            source: failure,
        }),
    }
}

/// Calls GetLimits. An answer that is not of gRPC comes from an HTTP server; a proxy without a gateway answers with 5xx.
async fn check_grpc(mut channel: Channel, server: String) -> Result<(), ConnectError> {
    // An empty message in its frame.
    let request = Request::post("/uploadgateway.v1.UploadService/GetLimits")
        .header(CONTENT_TYPE, "application/grpc")
        .header("te", "trailers")
        .body(Body::new("\0".repeat(5)))
        .expect("constants are valid");
    let answer = async {
        poll_fn(|context| GrpcService::<Body>::poll_ready(&mut channel, context)).await?;
        GrpcService::call(&mut channel, request).await
    };
    let Ok(Ok(response)) = timeout(ANSWER_LIMIT, answer).await else {
        return Ok(());
    };
    let media_type = response.headers().get(CONTENT_TYPE);
    let is_grpc = media_type.is_some_and(|name| name.as_bytes().starts_with(b"application/grpc"));
    if is_grpc || response.status().is_server_error() {
        return Ok(());
    }
    Err(ConnectError::HttpPort { server })
}

/// Asks for HTTP/2, and then for HTTP/1.1 if the server closes the connection without a known answer.
async fn ask_all(endpoint: &Endpoint) -> io::Result<Answer> {
    match ask(connect(endpoint).await?, HTTP2).await {
        Answer::Other => Ok(ask(connect(endpoint).await?, HTTP1).await),
        answer => Ok(answer),
    }
}

async fn connect(endpoint: &Endpoint) -> io::Result<TcpStream> {
    let uri = endpoint.uri();
    let host = uri.host().unwrap_or_default();
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let default = if uri.scheme_str() == Some("https") {
        443
    } else {
        80
    };
    TcpStream::connect((host, uri.port_u16().unwrap_or(default))).await
}

/// Sends `request` and reads the beginning of the answer.
async fn ask(mut stream: TcpStream, request: &[u8]) -> Answer {
    let mut head = [0; 5];
    let answer = async {
        stream.write_all(request).await?;
        stream.read_exact(&mut head).await
    };
    match timeout(ANSWER_LIMIT, answer).await {
        Ok(Ok(_)) => classify(head),
        _ => Answer::Other,
    }
}

fn classify(head: [u8; 5]) -> Answer {
    match head {
        [b'H', b'T', b'T', b'P', b'/'] => Answer::Http1,
        // A frame of type SETTINGS, with which every HTTP/2 server begins.
        [.., 4, _] => Answer::Http2,
        // A record of type alert, of any version of TLS.
        [21, 3, ..] => Answer::TlsAlert,
        _ => Answer::Other,
    }
}

/// The error of the TLS library among the causes.
fn tls_error<'a>(mut error: &'a (dyn Error + 'static)) -> Option<&'a rustls::Error> {
    loop {
        // The source of an I/O error is the source of the error that it contains.
        let contained = error
            .downcast_ref::<io::Error>()
            .and_then(io::Error::get_ref);
        let found = contained.and_then(|error| error.downcast_ref());
        if let Some(found) = found.or_else(|| error.downcast_ref()) {
            return Some(found);
        }
        error = match contained {
            Some(contained) => contained,
            None => error.source()?,
        };
    }
}

fn no_server(server: impl Into<String>, source: io::Error) -> ConnectError {
    ConnectError::NoServer {
        server: server.into(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_bytes_of_a_server_name_its_protocol() {
        for (head, answer) in [
            (*b"HTTP/", Answer::Http1),
            ([0, 0, 18, 4, 0], Answer::Http2),
            ([21, 3, 3, 0, 2], Answer::TlsAlert),
            (*b"220 m", Answer::Other),
        ] {
            assert_eq!(classify(head), answer);
        }
    }
}
