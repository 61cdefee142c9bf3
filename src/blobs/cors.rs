//! CORS rules of stores, for operators to paste.

use serde_json::Value;

/// A rule that lets pages send signed requests, as the store's tools take it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CorsRule {
    /// What takes the JSON.
    pub json_for: &'static str,
    /// The rule.
    pub json: Value,
}

/// How long browsers may cache the answer to a preflight request, in seconds.
pub(super) const MAX_AGE: u32 = 3600;
