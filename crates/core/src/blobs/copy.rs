//! The port to copies that a store makes by itself, of an object that it or another store of its service has.

use std::{
    fmt::{self, Debug},
    ops::Range,
    time::Duration,
};

use async_trait::async_trait;

use super::{NewObject, Session};
use crate::{
    clock::Clock,
    error::{Error, Kind, Reason, Result},
    upload::{Md5, WriterTag},
};

/// How long other stores can read a [`CopySource`] whose address is signed.
pub const COPY_LIFETIME: Duration = Duration::from_secs(5 * 60);

/// Copies that a store makes by itself. By default a store makes none.
#[async_trait]
pub trait CopyStore: Send + Sync + Debug {
    /// The service that the store belongs to. Stores of one service can be tried to copy from each other. `None`: this store
    /// cannot.
    fn copy_service(&self) -> Option<&str> {
        None
    }

    /// How the stores of the service read the object under `key`, as long as it has this ETag, without quotes.
    ///
    /// # Errors
    /// `Unavailable` if what signs the address is unavailable.
    async fn copy_source(&self, key: &str, etag: &str, clock: &dyn Clock) -> Result<CopySource> {
        let (_, _, _) = (key, etag, clock);
        Err(cannot_copy("the store signs no source of copies"))
    }

    /// Makes an object of all bytes of the source, in place of one with its key. Nothing is copied but the bytes.
    ///
    /// # Errors
    /// `Unimplemented` if the store does not copy this source, or may not read it: the same request never succeeds. `DataLoss` with
    /// `ObjectChanged` if the source has another ETag.
    async fn copy_object(&self, object: &NewObject, source: &CopySource) -> Result<()> {
        let (_, _) = (object, source);
        Err(cannot_copy("the store copies no objects"))
    }

    /// Makes one part of a range of the source. A part that is made again replaces the earlier one.
    ///
    /// # Errors
    /// As [`CopyStore::copy_object`]. `FailedPrecondition` with `SessionLost` if the store does not know the session. `DataLoss`
    /// with `ChecksumMismatch` if the bytes do not have the given MD5.
    async fn copy_part(
        &self,
        session: &Session<'_>,
        part: &PartCopy,
        source: &CopySource,
    ) -> Result<Copied> {
        let (_, _, _) = (session, part, source);
        Err(cannot_copy("the store copies no parts"))
    }
}

/// An object that stores of its service read by themselves. `Debug` does not print the address, which may be signed.
#[derive(Clone, PartialEq, Eq)]
pub struct CopySource {
    /// Where it is, in the form that requests of the service name it in.
    pub address: String,
    /// The ETag that it must have, without quotes.
    pub etag: String,
}

/// A part to make of a range of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartCopy {
    /// The number, from 1.
    pub number: u32,
    /// The tag of the stream that asks for the part, as in [`NewPart`](super::NewPart).
    pub writer: WriterTag,
    /// The bytes of the object, not empty.
    pub range: Range<u64>,
    /// Whether these are all bytes of the object.
    pub is_whole: bool,
    /// The MD5 of these bytes, if the caller has read them.
    pub md5: Option<Md5>,
}

/// A part that was copied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copied {
    /// By which the commit names the part.
    pub receipt: String,
    /// The MD5 of the part, if the store computed it from the bytes, or compared it with them.
    pub md5: Option<Md5>,
}

// === impl CopySource ===

impl Debug for CopySource {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("CopySource")
            .field("etag", &self.etag)
            .finish_non_exhaustive()
    }
}

/// The error for a copy that the store does not make. The gateway copies the bytes instead.
pub fn cannot_copy(why: impl Into<String>) -> Error {
    Error::new(Kind::Unimplemented, Reason::NotOffered, why)
}
