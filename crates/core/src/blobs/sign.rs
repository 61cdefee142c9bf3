//! The port for signing: requests that a client without credentials of its own sends to the store itself.
//!
//! A signature covers what the store checks. On S3: the key, the method, the part number, each header in
//! [`SignedRequest::headers`] and `Content-Length`. On Azure with an account key: only blob, permission, time and
//! protocol. On Azure with a user delegation key: also the query and the headers of a part.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    fmt::Debug,
    time::{Duration, SystemTime},
};

use async_trait::async_trait;

use super::{NewObject, Session};
use crate::{
    clock::Clock,
    error::{Error, Result},
    upload::{Md5, Part, Timestamp},
};

/// The shortest validity of a signature: five minutes, as in PlaceOS.
pub const SHORTEST_LIFETIME: Duration = Duration::from_secs(300);

/// The longest validity of a signature: 7 days, the limit of S3.
/// <https://docs.aws.amazon.com/AmazonS3/latest/userguide/using-presigned-url.html>
pub const LONGEST_LIFETIME: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// The slowest sender, in bytes per second, that can send its body before the signature expires: 16 KiB/s, which is 5
/// MiB in 320 seconds.
const SLOWEST_SENDER: u64 = 16 * 1024;

/// The media type of requests whose body type is not stored with the object: parts and block lists.
pub const OPAQUE: &str = "binary/octet-stream";

/// Signs requests to one bucket or container.
#[async_trait]
pub trait Signer: Send + Sync + Debug {
    /// Signs one request. It is valid from now, and no longer than the credentials are. If the store does not need the
    /// request, the URL is empty.
    ///
    /// # Errors
    /// `Unavailable` if there are no valid credentials at the moment.
    async fn sign(&self, request: &ToSign<'_>, clock: &dyn Clock) -> Result<SignedRequest>;
}

/// A request to sign.
#[derive(Debug, Clone, Copy)]
pub enum ToSign<'a> {
    /// Put a whole object of `size` bytes. The put fails if an object with its key exists. Exception: with an MD5 on S3,
    /// the same bytes may be put again.
    PutObject {
        /// The object. If `md5` is set, the store accepts only these bytes.
        object: &'a NewObject,
        /// The size in bytes.
        size: u64,
    },
    /// Create a session for parts.
    Begin {
        /// The object to make.
        object: &'a NewObject,
    },
    /// Put one part.
    PutPart {
        /// The session. Stores with implicit sessions ignore its id.
        session: Session<'a>,
        /// The number, from 1.
        number: u32,
        /// The cut to which the part belongs (see [`Upload::cut`](crate::upload::Upload::cut)). Only stores that do not
        /// bind the size of a part use it.
        cut: u8,
        /// The size in bytes; the planned one if the client chooses it.
        size: u64,
        /// The MD5.
        md5: Md5,
    },
    /// List the parts that the store has.
    ListParts {
        /// The session.
        session: Session<'a>,
    },
    /// Make the object of exactly these parts.
    Commit {
        /// The session.
        session: Session<'a>,
        /// The object.
        object: &'a NewObject,
        /// The parts, in order.
        parts: &'a [Part],
    },
    /// Download the object, or its headers, with this file name and media type.
    Read {
        /// What the response has.
        verb: ReadVerb,
        /// The object's key.
        key: &'a str,
        /// The file name that the browser gives the download.
        file_name: &'a str,
        /// The media type that the browser gets.
        mime: &'a str,
        /// How long the signature is valid, at most [`LONGEST_LIFETIME`].
        lifetime: Duration,
    },
}

/// The method of a signed download.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadVerb {
    /// The headers and the bytes.
    Get,
    /// The headers. S3 binds the method, so a URL for one is not valid for the other.
    Head,
}

/// A request that any client can send while the signature is valid.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SignedRequest {
    /// The HTTP method.
    pub verb: &'static str,
    /// The URL, with the signature in its query. Empty if there is nothing to send.
    pub url: String,
    /// The headers to send. `Host` and `Content-Length` are not among them: every client sends those anyway.
    pub headers: BTreeMap<Cow<'static, str>, String>,
    /// The body to send, or `None` if the client sends its own bytes.
    pub body: Option<String>,
}

// === impl ToSign ===

impl ToSign<'_> {
    /// How long the signature is valid: long enough for the slowest sender, within [`SHORTEST_LIFETIME`] and
    /// [`LONGEST_LIFETIME`].
    pub fn lifetime(&self) -> Duration {
        match self {
            Self::PutObject { size, .. } | Self::PutPart { size, .. } => sending_lifetime(*size),
            Self::Read { lifetime, .. } => (*lifetime).min(LONGEST_LIFETIME),
            Self::Begin { .. } | Self::ListParts { .. } | Self::Commit { .. } => SHORTEST_LIFETIME,
        }
    }

    /// As [`ToSign::lifetime`], but no longer than credentials that expire at `expires_at`.
    ///
    /// # Errors
    ///
    /// `Unavailable` if the credentials expire within a second.
    pub fn lifetime_within(&self, now: Timestamp, expires_at: Timestamp) -> Result<Duration> {
        let left = Duration::from_millis(expires_at.0.saturating_sub(now.0));
        if left < Duration::from_secs(1) {
            return Err(Error::store_unavailable("the credentials have expired"));
        }
        Ok(self.lifetime().min(left))
    }
}

// === impl ReadVerb ===

impl ReadVerb {
    /// The HTTP method.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
        }
    }
}

/// How long the signature of a request with a body of `size` bytes is valid.
pub fn sending_lifetime(size: u64) -> Duration {
    Duration::from_secs(size / SLOWEST_SENDER).clamp(SHORTEST_LIFETIME, LONGEST_LIFETIME)
}

/// A timestamp as [`SystemTime`], which the signing libraries take.
pub fn system_time(now: Timestamp) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(now.0)
}
