//! Signed requests: AWS Signature Version 4 in the query, over all headers and without the body.
//!
//! <https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-query-string-auth.html>

#[cfg(any(test, fuzzing))]
#[doc(hidden)]
#[path = "../../../fuzz/checks/s3_signature.rs"]
pub mod fuzzing;

use std::{borrow::Cow, collections::BTreeMap, fmt::Write as _, time::Duration};

use aws_credential_types::Credentials;
use aws_sdk_s3::{
    Client,
    config::{Builder, Region},
    presigning::PresigningConfig,
    types::ObjectCannedAcl,
};
use aws_sigv4::{
    http_request::{
        PercentEncodingMode, SignableBody, SignableRequest, SignatureLocation, SigningSettings,
        UriPathNormalizationMode, sign,
    },
    sign::v4,
};
use upload_gateway_core::{
    blobs::{
        NewObject,
        sign::{OPAQUE, SHORTEST_LIFETIME, SignedRequest, ToSign, system_time},
    },
    error::{Error, Result},
    upload::{Integrity, Part, Timestamp},
};

use super::{credentials::CachedCredentials, fault::fault, placement};
use crate::blobs::url::{Query, attachment, path};

/// Signs requests to a bucket.
#[derive(Debug)]
pub(super) struct QuerySigner {
    /// The URL of the bucket for clients; the key is appended to it.
    base: String,
    region: String,
    credentials: CachedCredentials,
}

/// A request to sign: its query and all its headers.
struct Unsigned<'a> {
    verb: &'static str,
    key: &'a str,
    query: Query,
    headers: BTreeMap<Cow<'static, str>, String>,
    /// Also signed, but not one of the headers for the client: browsers do not allow scripts to set it.
    content_length: Option<u64>,
    body: Option<String>,
}

// === impl QuerySigner ===

impl QuerySigner {
    /// A signer for the bucket, with the URL that a client with this configuration uses. Sends no request and does not
    /// ask for credentials.
    pub(super) async fn new(
        bucket: &str,
        config: Builder,
        region: Region,
        credentials: CachedCredentials,
    ) -> Result<Self> {
        // Only the URL of the presigned request is used.
        let unused = Credentials::from_keys("unused", "unused", None);
        let client = Client::from_conf(config.credentials_provider(unused).build());
        let presigning = PresigningConfig::expires_in(SHORTEST_LIFETIME)
            .map_err(|error| Error::internal("find the bucket's URL", error))?;
        let request = client.get_object().bucket(bucket).key("k");
        let request = request
            .presigned(presigning)
            .await
            .map_err(|error| fault("find the bucket's URL", error))?;
        let url = request.uri().split('?').next().unwrap_or_default();
        let base = url.strip_suffix('k').unwrap_or(url).to_owned();
        Ok(Self {
            base,
            region: region.to_string(),
            credentials,
        })
    }

    /// See [`Signer::sign`](upload_gateway_core::blobs::sign::Signer::sign). New objects get `acl`; fetching
    /// credentials takes at most `timeout`.
    pub(super) async fn sign(
        &self,
        request: &ToSign<'_>,
        acl: Option<&ObjectCannedAcl>,
        now: Timestamp,
        timeout: Duration,
    ) -> Result<SignedRequest> {
        let credentials = tokio::time::timeout(timeout, self.credentials.get(now))
            .await
            .map_err(Error::store_unavailable)??;
        let lifetime = request.lifetime_within(now, credentials.expires_at)?;
        let unsigned = Unsigned::new(request, acl);
        let url = self.url(&unsigned, credentials.value, now, lifetime)?;
        Ok(SignedRequest {
            verb: unsigned.verb,
            url,
            headers: unsigned.headers,
            body: unsigned.body,
        })
    }

    /// The signed URL, with its query in the order of AWS's own libraries.
    fn url(
        &self,
        unsigned: &Unsigned<'_>,
        credentials: Credentials,
        now: Timestamp,
        lifetime: Duration,
    ) -> Result<String> {
        let mut settings = SigningSettings::default();
        settings.percent_encoding_mode = PercentEncodingMode::Single;
        settings.uri_path_normalization_mode = UriPathNormalizationMode::Disabled;
        settings.signature_location = SignatureLocation::QueryParams;
        settings.expires_in = Some(lifetime);
        let identity = credentials.into();
        let parameters = v4::SigningParams::builder()
            .identity(&identity)
            .region(&self.region)
            .name("s3")
            .time(system_time(now))
            .settings(settings)
            .build()
            .map_err(|error| Error::internal("sign a request", error))?
            .into();

        let content_length = unsigned.content_length.map(|length| length.to_string());
        let headers = unsigned.headers.iter();
        let headers = headers
            .map(|(name, value)| (name.as_ref(), value.as_str()))
            .chain(
                content_length
                    .iter()
                    .map(|length| ("Content-Length", &**length)),
            );
        let url = format!("{}{}", self.base, path(unsigned.key));
        let signable = SignableRequest::new(
            unsigned.verb,
            format!("{url}?{}", unsigned.query.as_str()),
            headers,
            SignableBody::UnsignedPayload,
        )
        .map_err(|error| Error::internal("sign a request", error))?;
        let (instructions, signature) = sign(signable, &parameters)
            .map_err(|error| Error::internal("sign a request", error))?
            .into_parts();

        let mut query = unsigned.query.clone();
        for (name, value) in instructions.params() {
            if *name != "X-Amz-Signature" {
                query.push(name, value);
            }
        }
        query.push("X-Amz-Signature", &signature);
        Ok(format!("{url}?{}", query.as_str()))
    }
}

// === impl Unsigned ===

impl<'a> Unsigned<'a> {
    fn new(request: &ToSign<'a>, acl: Option<&ObjectCannedAcl>) -> Self {
        match request {
            ToSign::PutObject { object, size } => {
                let mut headers = headers(object, acl);
                match object.md5 {
                    Some(md5) => headers.insert("Content-MD5".into(), md5.to_string()),
                    None => headers.insert("If-None-Match".into(), "*".to_owned()),
                };
                Self {
                    headers,
                    content_length: Some(*size),
                    ..Self::plain("PUT", &object.key, [])
                }
            }
            ToSign::Begin { object } => Self {
                headers: headers(object, acl),
                ..Self::plain("POST", &object.key, [("uploads", "")])
            },
            ToSign::PutPart {
                session,
                number,
                size,
                md5,
                ..
            } => {
                let number = number.to_string();
                let query = [("partNumber", number.as_str()), ("uploadId", session.id)];
                Self {
                    headers: BTreeMap::from([
                        ("Content-MD5".into(), md5.to_string()),
                        ("Content-Type".into(), OPAQUE.to_owned()),
                    ]),
                    content_length: Some(*size),
                    ..Self::plain("PUT", session.key, query)
                }
            }
            ToSign::ListParts { session } => {
                Self::plain("GET", session.key, [("uploadId", session.id)])
            }
            ToSign::Commit {
                session,
                object,
                parts,
            } => Self {
                headers: BTreeMap::from([(
                    "Content-Type".into(),
                    "application/xml; charset=UTF-8".to_owned(),
                )]),
                body: Some(complete_multipart_upload(parts, object.integrity)),
                ..Self::plain("POST", session.key, [("uploadId", session.id)])
            },
            ToSign::Read {
                verb,
                key,
                file_name,
                mime,
                ..
            } => {
                let disposition = attachment(file_name);
                let query = [
                    ("response-content-disposition", disposition.as_str()),
                    ("response-content-type", mime),
                ];
                Self::plain(verb.as_str(), key, query)
            }
        }
    }

    fn plain<const N: usize>(verb: &'static str, key: &'a str, query: [(&str, &str); N]) -> Self {
        Self {
            verb,
            key,
            query: query.into_iter().collect(),
            headers: BTreeMap::new(),
            content_length: None,
            body: None,
        }
    }
}

/// The headers whose values are stored with an object.
fn headers(
    object: &NewObject,
    acl: Option<&ObjectCannedAcl>,
) -> BTreeMap<Cow<'static, str>, String> {
    let mut headers = BTreeMap::from([("Content-Type".into(), object.mime.clone())]);
    let placed = placement::headers(&object.placement);
    headers.extend(placed.into_iter().map(|(name, value)| (name.into(), value)));
    let metadata = object.metadata();
    headers.extend(metadata.map(|(key, value)| (format!("x-amz-meta-{key}").into(), value)));
    if let Some(acl) = acl {
        headers.insert("x-amz-acl".into(), acl.to_string());
    }
    headers
}

/// The body of a commit. A session with CRC-64s needs that of each part.
fn complete_multipart_upload(parts: &[Part], integrity: Integrity) -> String {
    let mut body = String::from(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
         <CompleteMultipartUpload xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">",
    );
    for part in parts {
        let Part {
            number, receipt, ..
        } = part;
        let etag = receipt.replace('&', "&amp;").replace('<', "&lt;");
        write!(
            body,
            "<Part><PartNumber>{number}</PartNumber><ETag>\"{etag}\"</ETag>"
        )
        .expect("writing to a string cannot fail");
        if let (Integrity::Crc64Nvme, Some(crc64)) = (integrity, part.crc64nvme()) {
            write!(body, "<ChecksumCRC64NVME>{crc64}</ChecksumCRC64NVME>")
                .expect("writing to a string cannot fail");
        }
        body.push_str("</Part>");
    }
    body.push_str("</CompleteMultipartUpload>\n");
    body
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use aws_credential_types::provider::SharedCredentialsProvider;
    use upload_gateway_core::{
        blobs::sign::{ReadVerb, Signer},
        error::Kind,
    };
    use url::Url;

    use super::*;
    use crate::blobs::s3::{Profile, S3Config, S3Store};

    /// 2025-11-26, 02:05:20.
    const NOW: Timestamp = Timestamp(1_764_122_720_000);

    /// A store whose credentials are valid for `life` and cannot be renewed.
    async fn store(life: Duration) -> S3Store {
        let config = S3Config {
            region: Some("eu-central-1".into()),
            access_key_id: Some("other".into()),
            secret_access_key: Some("other".into()),
            ..S3Config::new("media")
        };
        let mut store = S3Store::connect(config).await.unwrap();
        let credentials = Credentials::new(
            "key",
            "hush",
            Some("session/token".into()),
            Some(UNIX_EPOCH + Duration::from_millis(NOW.0) + life),
            "test",
        );
        store.signer.credentials =
            CachedCredentials::new(SharedCredentialsProvider::new(credentials));
        store
    }

    fn read() -> ToSign<'static> {
        ToSign::Read {
            verb: ReadVerb::Get,
            key: "a b.txt",
            file_name: "a b.txt",
            mime: "text/plain",
            lifetime: Duration::from_secs(3_600),
        }
    }

    #[tokio::test]
    async fn no_signature_outlives_the_credentials() {
        let short = store(Duration::from_secs(70)).await;
        let signed = short.sign(&read(), &NOW).await.unwrap();
        assert!(signed.url.contains("&X-Amz-Expires=70&"), "{}", signed.url);
        let signed = store(Duration::from_secs(86_400)).await;
        let signed = signed.sign(&read(), &NOW).await.unwrap();
        assert!(
            signed.url.contains("&X-Amz-Expires=3600&"),
            "{}",
            signed.url
        );

        let after = NOW.plus(Duration::from_secs(70));
        let error = short.sign(&read(), &after).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Unavailable);
    }

    #[tokio::test]
    async fn temporary_credentials_sign_as_the_sdk_does() {
        let store = store(Duration::from_secs(86_400)).await;
        let signed = store.sign(&read(), &NOW).await.unwrap();
        let presigning = PresigningConfig::builder()
            .start_time(system_time(NOW))
            .expires_in(Duration::from_secs(3_600))
            .build();
        let config = store.client.config().to_builder();
        let provider = store.signer.credentials.clone();
        let config = config.credentials_provider(provider);
        // The SDK adds a parameter of its own and signs it.
        let request = Client::from_conf(config.build())
            .get_object()
            .bucket("media")
            .key("a b.txt");
        let theirs = request.presigned(presigning.unwrap()).await.unwrap();
        let pairs = |url: &str| -> BTreeMap<String, String> {
            Url::parse(url)
                .unwrap()
                .query_pairs()
                .into_owned()
                .collect()
        };
        let (own, theirs) = (pairs(&signed.url), pairs(theirs.uri()));
        assert_eq!(own["X-Amz-Security-Token"], "session/token");
        for (name, value) in theirs {
            if name != "x-id" && name != "X-Amz-Signature" {
                assert_eq!(own[&name], value, "{name}");
            }
        }
    }

    #[tokio::test]
    async fn a_bucket_in_the_host_name_keeps_the_path_of_the_endpoint() {
        for (endpoint, url) in [
            ("https://s3.example", "https://media.s3.example/a%20b.txt?"),
            (
                "https://s3.example/v1/",
                "https://media.s3.example/v1/a%20b.txt?",
            ),
        ] {
            let config = S3Config {
                endpoint: Some(endpoint.parse().unwrap()),
                profile: Some(Profile::Aws),
                access_key_id: Some("key".into()),
                secret_access_key: Some("secret".into()),
                ..S3Config::new("media")
            };
            let store = S3Store::connect(config).await.unwrap();
            let signed = store.sign(&read(), &NOW).await.unwrap();
            assert!(signed.url.starts_with(url), "{}", signed.url);
        }
    }

    #[tokio::test]
    async fn credentials_are_not_printed() {
        let store = store(Duration::from_secs(86_400)).await;
        store.sign(&read(), &NOW).await.unwrap();
        let printed = format!("{store:?}");
        assert!(!printed.contains("hush"), "{printed}");
        assert!(!printed.contains("session/token"), "{printed}");
    }

    #[test]
    fn entity_tags_are_escaped() {
        let part = Part {
            number: 1,
            offset: 0,
            size: 1,
            checksum: None,
            receipt: "a<b&c".into(),
            digest: None,
        };
        let body = complete_multipart_upload(&[part], Integrity::Md5);
        assert!(body.contains("<ETag>\"a&lt;b&amp;c\"</ETag>"), "{body}");
    }
}
