//! Why a gateway does not start, or stops by itself.

use std::error::Error;

/// Why a gateway does not start, or stops by itself.
pub type ServeError = Box<dyn Error + Send + Sync>;
