//! The CORS rule that a storage account needs.

use serde_json::json;

use crate::blobs::cors::{CorsRule, MAX_AGE};

/// What signed requests use.
const METHODS: [&str; 3] = ["GET", "HEAD", "PUT"];

/// The rule for pages of these origins. It exposes `ETag`, as on S3.
pub(super) fn rule(origins: &[&str]) -> CorsRule {
    let json = json!({"properties": {"cors": {"corsRules": [{
        "allowedOrigins": origins,
        "allowedMethods": METHODS,
        "allowedHeaders": ["*"],
        "exposedHeaders": ["ETag"],
        "maxAgeInSeconds": MAX_AGE,
    }]}}});
    CorsRule {
        json_for: "Set Service Properties of the blob service in Resource Manager",
        json,
    }
}
