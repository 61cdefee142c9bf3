//! Settings of other services, which may not be visible.

/// A setting, or why it could not be seen.
pub type Seen<T> = Result<T, Unseen>;

/// Why a setting could not be seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unseen {
    /// The answer of the service, in words.
    pub why: String,
    /// What would let it be seen, if something would.
    pub permission: Option<&'static str>,
}

// === impl Unseen ===

impl Unseen {
    /// It is visible with no permission.
    pub fn never(why: impl Into<String>) -> Self {
        Self {
            why: why.into(),
            permission: None,
        }
    }

    /// It may be visible with a permission.
    pub fn without(permission: &'static str, why: impl Into<String>) -> Self {
        Self {
            why: why.into(),
            permission: Some(permission),
        }
    }
}
