//! Which call created an upload.

use serde::{Deserialize, Serialize};

/// Names the call that created an upload, so that an [observer](crate::observe) can link later calls to it. The domain does
/// not read it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Origin(pub String);
