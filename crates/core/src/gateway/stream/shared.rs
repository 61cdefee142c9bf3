//! What all streams of a gateway share.

use std::sync::Arc;

use super::{budget::Budget, hash::Hasher, part::PartWriter};
use crate::gateway::{
    commit::Commits,
    drain::Drain,
    records::Records,
    recovery::{inspect::Inspector, session::Sessions},
    settings::Settings,
    token::Tokens,
};

/// The components that a stream works with.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) settings: Arc<Settings>,
    pub(super) records: Arc<Records>,
    pub(super) tokens: Arc<Tokens>,
    pub(super) sessions: Arc<Sessions>,
    pub(super) inspector: Arc<Inspector>,
    pub(super) commits: Arc<Commits>,
    pub(super) parts: PartWriter,
    pub(super) hasher: Hasher,
    pub(super) budget: Arc<Budget>,
    pub(super) drain: Arc<Drain>,
}
