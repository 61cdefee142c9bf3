//! A state store that fails as its caller asks.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;

use super::inject::inject;
use crate::{
    error::Result,
    state::{
        Creation, Due, DuePage, ListPage, ListQuery, PartRecord, Predecessor, StateStore,
        TakeoverWatch, Times, Update,
    },
    upload::{Claim, Owner, Part, Secret, Timestamp, Upload, UploadId, WriterTag},
};

/// Stands before a state store.
#[derive(Debug)]
pub struct FaultyState {
    inner: Arc<dyn StateStore>,
}

// === impl FaultyState ===

impl FaultyState {
    /// Before `inner`.
    pub fn new(inner: Arc<dyn StateStore>) -> Self {
        Self { inner }
    }
}

decorated! {
    "state": StateStore for FaultyState as CALLS
    async fn create(upload: &Upload) -> Creation;
    async fn get(id: &UploadId) -> Option<Upload>;
    async fn take_over(id: &UploadId, writer: WriterTag, from: Predecessor, times: Times) -> Option<Upload>;
    async fn record_parts(id: &UploadId, writer: WriterTag, version: u64, parts: &[Part], times: Times) -> PartRecord;
    async fn claim(id: &UploadId, owner: &Owner, claims: &[Claim], times: Times) -> Option<Upload>;
    async fn update(upload: &Upload, writer: Option<WriterTag>) -> Update;
    async fn update_untouched(upload: &Upload, seen: Timestamp) -> Update;
    async fn due(before: Timestamp, after: Option<&Due>, limit: usize) -> DuePage;
    async fn lease(name: &str, holder: &str, lasts: Duration) -> bool;
    async fn release(name: &str, holder: &str) -> ();
    async fn list(query: &ListQuery) -> ListPage;
    async fn count(owner: &Owner) -> u64;
    async fn secret(offered: &Secret) -> Secret;
    async fn check() -> ();
    as it is {
        fn watch_takeovers(&self, id: &UploadId) -> TakeoverWatch {
            self.inner.watch_takeovers(id)
        }
    }
}
