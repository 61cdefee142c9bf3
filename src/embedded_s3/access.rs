//! Who may call: requests signed with one key, on one bucket.

use hyper::header::HeaderName;
use s3s::access::{S3Access, S3AccessContext};
use s3s::auth::{S3Auth, SecretKey};
use s3s::path::S3Path;
use s3s::{S3Result, s3_error};
use url::form_urlencoded;

/// Allows requests signed with one key, on one bucket.
#[derive(Clone)]
pub(super) struct Keys {
    pub(super) bucket: String,
    pub(super) access_key_id: String,
    pub(super) secret_access_key: SecretKey,
}

#[async_trait::async_trait]
impl S3Auth for Keys {
    async fn get_secret_key(&self, access_key: &str) -> S3Result<SecretKey> {
        if access_key != self.access_key_id {
            return Err(s3_error!(InvalidAccessKeyId));
        }
        Ok(self.secret_access_key.clone())
    }
}

#[async_trait::async_trait]
impl S3Access for Keys {
    async fn check(&self, context: &mut S3AccessContext<'_>) -> S3Result<()> {
        if context.credentials().is_none() {
            return Err(s3_error!(AccessDenied, "a signature is required"));
        }
        if has_unsigned_header(context) {
            return Err(s3_error!(AccessDenied, "sign all headers x-amz-…"));
        }
        match context.s3_path() {
            S3Path::Bucket { bucket } | S3Path::Object { bucket, .. }
                if **bucket != *self.bucket =>
            {
                Err(s3_error!(NoSuchBucket))
            }
            _ => Ok(()),
        }
    }
}

/// Whether a request with a signed URL has a header of S3 that the signature does not cover. It could make another request of it,
/// such as a copy of an object that its sender may not read. S3 refuses it, too.
fn has_unsigned_header(context: &S3AccessContext<'_>) -> bool {
    let query = context.uri().query().unwrap_or_default();
    let mut pairs = form_urlencoded::parse(query.as_bytes());
    let Some((_, signed)) = pairs.find(|(name, _)| name == "X-Amz-SignedHeaders") else {
        return false;
    };
    let is_signed = |name: &str| signed.split(';').any(|signed| signed == name);
    let mut names = context.headers().keys().map(HeaderName::as_str);
    names.any(|name| name.starts_with("x-amz-") && !is_signed(name))
}
