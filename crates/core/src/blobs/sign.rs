//! The port to signatures: requests that a client sends to the store itself, with no credentials of its own.
//!
//! What a signature binds is what the store checks. On S3: key, method, part number, every header in
//! [`SignedRequest::headers`] and the `Content-Length`. On Azure with an account key: blob, permission, time and protocol,
//! nothing else; with a user delegation key the query and the headers of a part too.

use std::{
    collections::BTreeMap,
    fmt::Debug,
    time::{Duration, SystemTime},
};

use async_trait::async_trait;

use super::{NewObject, Session};
use crate::{
    clock::Clock,
    error::{Error, Result},
    upload::{Md5, Timestamp},
};

/// The shortest time a signature is valid for: PlaceOS's five minutes.
pub const SHORTEST_LIFETIME: Duration = Duration::from_secs(300);

/// The longest time a signature is valid for: 7 days, S3's own limit.
/// <https://docs.aws.amazon.com/AmazonS3/latest/userguide/using-presigned-url.html>
pub const LONGEST_LIFETIME: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// The slowest sender in bytes a second, for whom a signature still lasts: 16 KiB/s, 5 MiB in 320 seconds.
const SLOWEST_SENDER: u64 = 16 * 1024;

/// The media type of a part's and a block list's body, which no object keeps.
pub const OPAQUE: &str = "binary/octet-stream";

/// Signs requests to one bucket or container.
#[async_trait]
pub trait Signer: Send + Sync + Debug {
    /// Signs one request, valid from now and no longer than the credentials are. If the store needs no such request, the
    /// URL is empty.
    ///
    /// # Errors
    /// `Unavailable` when credentials cannot be had for now.
    async fn sign(&self, request: &ToSign<'_>, clock: &dyn Clock) -> Result<SignedRequest>;
}

/// A request to be signed.
#[derive(Debug, Clone, Copy)]
pub enum ToSign<'a> {
    /// Put a whole object, `size` bytes. Only if there is none of its key, unless its MD5 is known (on Azure always): the
    /// same bytes may be put again.
    PutObject {
        /// The object; with `md5` only these bytes are taken.
        object: &'a NewObject,
        /// Its size in bytes.
        size: u64,
    },
    /// Begin a session for parts.
    Begin {
        /// The object that is to be made.
        object: &'a NewObject,
    },
    /// Put one part.
    PutPart {
        /// Where it goes. The id counts on stores that have sessions only.
        session: Session<'a>,
        /// Its number, from 1.
        number: u32,
        /// Its size in bytes.
        size: u64,
        /// Its MD5.
        md5: Md5,
    },
    /// List the parts that are there.
    ListParts {
        /// Of which session.
        session: Session<'a>,
    },
    /// Make the object of exactly these parts.
    Commit {
        /// Of which session.
        session: Session<'a>,
        /// The object.
        object: &'a NewObject,
        /// Number and receipt of each part, in order.
        parts: &'a [(u32, String)],
    },
    /// Download the object, under the name of the file and as its media type.
    Read {
        /// The object's key.
        key: &'a str,
        /// What the browser is to call it.
        file_name: &'a str,
        /// What it is to be taken for.
        mime: &'a str,
        /// How long.
        lifetime: Duration,
    },
}

/// A request that anybody may send while its signature is valid.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SignedRequest {
    /// The HTTP method.
    pub verb: &'static str,
    /// The URL, with the signature in its query. Empty: there is nothing to send.
    pub url: String,
    /// The headers to send with it. `Host` and `Content-Length`, which every client sends by itself, are not among them.
    pub headers: BTreeMap<&'static str, String>,
    /// The body to send with it, where it is not the client's own.
    pub body: Option<String>,
}

// === impl ToSign ===

impl ToSign<'_> {
    /// How long the signature lasts: as long as the slowest sender takes, within [`SHORTEST_LIFETIME`] and
    /// [`LONGEST_LIFETIME`].
    pub fn lifetime(&self) -> Duration {
        match self {
            Self::PutObject { size, .. } | Self::PutPart { size, .. } => sending_lifetime(*size),
            Self::Read { lifetime, .. } => (*lifetime).min(LONGEST_LIFETIME),
            Self::Begin { .. } | Self::ListParts { .. } | Self::Commit { .. } => SHORTEST_LIFETIME,
        }
    }

    /// As [`ToSign::lifetime`], and no longer than credentials that end at `expires_at`.
    pub fn lifetime_within(&self, now: Timestamp, expires_at: Timestamp) -> Result<Duration> {
        let left = Duration::from_millis(expires_at.0.saturating_sub(now.0));
        if left < Duration::from_secs(1) {
            return Err(Error::store_unavailable("the credentials have expired"));
        }
        Ok(self.lifetime().min(left))
    }
}

/// How long the signature of a request with a body of `size` bytes lasts.
pub fn sending_lifetime(size: u64) -> Duration {
    Duration::from_secs(size / SLOWEST_SENDER).clamp(SHORTEST_LIFETIME, LONGEST_LIFETIME)
}

/// A moment as the signing libraries want it.
pub fn system_time(now: Timestamp) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(now.0)
}
