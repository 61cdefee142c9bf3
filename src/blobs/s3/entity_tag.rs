//! Entity tags (ETags) of objects and parts. Often they are MD5s.

use aws_sdk_s3::types::ServerSideEncryption;
use upload_gateway_core::{
    error::{Error, Result},
    upload::Md5,
};

/// The entity tag without its quotes.
///
/// # Errors
/// `Unavailable` if the response has none: it was cut off or did not come from S3, so the request is worth a retry.
pub(super) fn entity_tag(tag: Option<&str>, action: &str) -> Result<String> {
    match tag.map(|tag| tag.trim_matches('"')) {
        Some(tag) if !tag.is_empty() => Ok(tag.to_owned()),
        _ => Err(Error::store_unavailable(format!(
            "{action}: the response has no ETag"
        ))),
    }
}

/// The MD5 that an entity tag is, if it has the form of one.
pub(super) fn md5_of(etag: &str) -> Option<Md5> {
    // A valid MD5 of this length is in hexadecimal, not in base64.
    etag.parse().ok().filter(|_| etag.len() == 32)
}

/// Whether entity tags are not MD5s of the content: with every encryption except SSE-S3.
pub(super) fn is_opaque(encryption: Option<&ServerSideEncryption>) -> bool {
    encryption.is_some_and(|encryption| *encryption != ServerSideEncryption::Aes256)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_entity_tags_are_digests() {
        let md5 = Md5::of(b"part");
        assert_eq!(md5_of(&md5.to_hex()), Some(md5));
        assert_eq!(md5_of(&md5.to_hex().to_uppercase()), Some(md5));
        for etag in [
            "",
            &"+1".repeat(16),
            &format!("{}-2", md5.to_hex()),
            &"x".repeat(32),
            &"é".repeat(16),
        ] {
            assert_eq!(md5_of(etag), None, "{etag}");
        }
    }
}
