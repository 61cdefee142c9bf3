//! What a store says of itself and of a bucket or container, for the diagnosis of a set-up.

use std::{fmt::Debug, time::Duration};

use async_trait::async_trait;

use crate::seen::Seen;

/// Looks at one bucket or container. Nothing is changed.
#[async_trait]
pub trait Inspect: Debug + Send + Sync {
    /// The URL of the store's endpoint.
    fn endpoint(&self) -> String;

    /// How the store refuses the bucket, by a request whose answer has a body: that of HEAD has none, and so no code. `None` if it
    /// does not refuse it.
    async fn refusal(&self) -> Option<Refusal>;

    /// The identity of the credentials, in words.
    async fn identity(&self) -> Seen<String>;

    /// After how long the store removes the parts of uploads below this prefix that did not end. `None`: never.
    async fn incomplete_lifetime(&self, prefix: &str) -> Seen<Option<Duration>>;

    /// Whether the store keeps the bytes of deleted objects as versions.
    async fn keeps_versions(&self) -> Seen<bool>;

    /// How the store protects objects from deletion, in words. `None`: it does not.
    async fn lock(&self) -> Seen<Option<String>>;
}

/// An answer with which a store refuses a bucket.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Refusal {
    /// The error code; without one, the status.
    pub code: String,
    /// What the store says for people.
    pub message: Option<String>,
    /// The region of the bucket.
    pub region: Option<String>,
    /// The host that has the bucket.
    pub endpoint: Option<String>,
}
