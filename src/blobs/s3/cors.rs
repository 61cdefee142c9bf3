//! The CORS rule that a bucket needs.

use serde_json::json;

use crate::blobs::cors::{CorsRule, MAX_AGE};

/// What signed requests use: POST creates and completes multipart uploads.
const METHODS: [&str; 4] = ["GET", "HEAD", "POST", "PUT"];

/// The rule for pages of these origins. It exposes `ETag`, as clients that build the commit themselves need it.
pub(super) fn rule(origins: &[&str]) -> CorsRule {
    let json = json!({"CORSRules": [{
        "AllowedOrigins": origins,
        "AllowedMethods": METHODS,
        "AllowedHeaders": ["*"],
        "ExposeHeaders": ["ETag"],
        "MaxAgeSeconds": MAX_AGE,
    }]});
    CorsRule {
        json_for: "aws s3api put-bucket-cors --bucket BUCKET --cors-configuration",
        json,
    }
}
