//! How objects are stored: the headers that ask for it, and what the description of an object says about it.
//!
//! The headers belong to the requests that name the object, PutObject and CreateMultipartUpload, not to its parts. Tags need
//! the permission `s3:PutObjectTagging`.

use aws_sdk_s3::{
    operation::head_object::HeadObjectOutput,
    types::{ServerSideEncryption, StorageClass},
};
use aws_smithy_runtime_api::{client::orchestrator::HttpRequest, http::HttpError};
use upload_gateway_core::upload::{Encryption, Features, Placement};

use crate::blobs::url::tags;

/// What S3 supports. A store with its protocol that lacks some of it refuses the request.
/// <https://docs.aws.amazon.com/AmazonS3/latest/userguide/storage-class-intro.html>
pub(super) const FEATURES: Features = Features {
    object_tags: true,
    storage_classes: &[
        "STANDARD",
        "STANDARD_IA",
        "ONEZONE_IA",
        "INTELLIGENT_TIERING",
        "GLACIER_IR",
        "GLACIER",
        "DEEP_ARCHIVE",
        "REDUCED_REDUNDANCY",
    ],
    server_side_encryption: true,
    encryption_scopes: false,
};

/// The headers that ask for a placement, without those of the metadata.
pub(super) fn headers(placement: &Placement) -> Vec<(&'static str, String)> {
    let (encryption, key_id, bucket_key) = match &placement.encryption {
        Some(Encryption::SseS3) => (Some("AES256"), None, None),
        Some(Encryption::SseKms { key_id, bucket_key }) => (
            Some("aws:kms"),
            key_id.clone(),
            Some(bucket_key.to_string()),
        ),
        Some(Encryption::Scope(_)) | None => (None, None, None),
    };
    let headers = [
        ("cache-control", placement.cache_control.clone()),
        ("content-disposition", placement.content_disposition.clone()),
        ("content-encoding", placement.content_encoding.clone()),
        ("x-amz-tagging", tags(&placement.object_tags)),
        ("x-amz-storage-class", placement.storage_class.clone()),
        (
            "x-amz-server-side-encryption",
            encryption.map(str::to_owned),
        ),
        ("x-amz-server-side-encryption-aws-kms-key-id", key_id),
        (
            "x-amz-server-side-encryption-bucket-key-enabled",
            bucket_key,
        ),
    ];
    headers
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)))
        .collect()
}

/// Adds the headers to a request of the SDK, before it is signed.
pub(super) fn with_headers(
    placement: &Placement,
) -> impl Fn(HttpRequest) -> Result<HttpRequest, HttpError> + Send + Sync + 'static {
    let headers = headers(placement);
    move |mut request| {
        for (name, value) in &headers {
            request.headers_mut().try_insert(*name, value.clone())?;
        }
        Ok(request)
    }
}

/// How the store says that it keeps an object.
pub(super) fn placement(found: &HeadObjectOutput) -> Placement {
    let encryption = match found.server_side_encryption() {
        Some(ServerSideEncryption::Aes256) => Some(Encryption::SseS3),
        Some(ServerSideEncryption::AwsKms | ServerSideEncryption::AwsKmsDsse) => {
            Some(Encryption::SseKms {
                key_id: found.ssekms_key_id().map(str::to_owned),
                bucket_key: found.bucket_key_enabled().unwrap_or_default(),
            })
        }
        _ => None,
    };
    let text = |value: Option<&str>| value.map(str::to_owned);
    Placement {
        cache_control: text(found.cache_control()),
        content_disposition: text(found.content_disposition()),
        content_encoding: text(found.content_encoding()),
        storage_class: text(found.storage_class().map(StorageClass::as_str)),
        encryption,
        ..Placement::default()
    }
}

/// Whether an object must be restored before it can be read.
pub(super) fn is_archived(found: &HeadObjectOutput) -> bool {
    let is_archive = matches!(
        found.storage_class(),
        Some(StorageClass::Glacier | StorageClass::DeepArchive)
    );
    let is_restored = found
        .restore()
        .is_some_and(|state| state.contains("ongoing-request=\"false\""));
    (is_archive && !is_restored) || found.archive_status().is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_asked_for_becomes_a_header() {
        assert_eq!(headers(&Placement::default()), []);
        let placement = Placement {
            object_tags: [
                ("Cost Center".into(), "a/b".into()),
                ("z".into(), String::new()),
            ]
            .into(),
            encryption: Some(Encryption::SseKms {
                key_id: Some("id".into()),
                bucket_key: true,
            }),
            ..Placement::default()
        };
        let text = |name: &'static str, value: &str| (name, value.to_owned());
        assert_eq!(
            headers(&placement),
            [
                text("x-amz-tagging", "Cost%20Center=a%2Fb&z="),
                text("x-amz-server-side-encryption", "aws:kms"),
                text("x-amz-server-side-encryption-aws-kms-key-id", "id"),
                text("x-amz-server-side-encryption-bucket-key-enabled", "true"),
            ]
        );
    }

    #[test]
    fn an_object_is_archived_until_it_is_restored() {
        let object = |class, restore: Option<&str>| {
            HeadObjectOutput::builder()
                .storage_class(class)
                .set_restore(restore.map(str::to_owned))
                .build()
        };
        let ongoing = Some("ongoing-request=\"true\"");
        let restored =
            Some("ongoing-request=\"false\", expiry-date=\"Fri, 21 Dec 2029 00:00:00 GMT\"");
        for (object, expected) in [
            (object(StorageClass::Glacier, None), true),
            (object(StorageClass::DeepArchive, ongoing), true),
            (object(StorageClass::Glacier, restored), false),
            (object(StorageClass::GlacierIr, None), false),
            (object(StorageClass::Standard, None), false),
            (HeadObjectOutput::builder().build(), false),
        ] {
            assert_eq!(is_archived(&object), expected, "{object:?}");
        }
    }
}
