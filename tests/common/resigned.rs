//! Signs a request to S3 again after its headers were changed.

use std::{collections::BTreeSet, time::SystemTime};

use aws_credential_types::Credentials;
use aws_sigv4::{
    http_request::{
        PercentEncodingMode, SignableBody, SignableRequest, SigningSettings,
        UriPathNormalizationMode, sign,
    },
    sign::v4,
};
use axum::http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{AUTHORIZATION, HOST},
    request::Parts as Head,
};

/// Names that S3 gives in the query and in the header with the signature.
const SIGNED_HEADERS: &str = "SignedHeaders=";

/// Replaces the signature in the header of a request by one of `credentials`, which covers the same headers as far as they
/// are still there. A request without it, such as one of Azure, or with a signature in its query, stays as it is.
pub(crate) fn sign_again(head: &mut Head, credentials: &Credentials) {
    let Some(before) = head.headers.remove(AUTHORIZATION) else {
        return;
    };
    let before = before.to_str().unwrap();
    let (_, names) = before.split_once(SIGNED_HEADERS).unwrap();
    let names: BTreeSet<_> = names.split(',').next().unwrap().split(';').collect();
    // AWS4-HMAC-SHA256 Credential=KEY/DATE/REGION/SERVICE/aws4_request
    let region = before.split('/').nth(2).unwrap();
    let signed = signature(head, &names, region, credentials);
    head.headers.extend(signed);
}

fn signature(
    head: &Head,
    names: &BTreeSet<&str>,
    region: &str,
    credentials: &Credentials,
) -> HeaderMap {
    let mut settings = SigningSettings::default();
    settings.percent_encoding_mode = PercentEncodingMode::Single;
    settings.uri_path_normalization_mode = UriPathNormalizationMode::Disabled;
    let identity = credentials.clone().into();
    let parameters = v4::SigningParams::builder()
        .identity(&identity)
        .region(region)
        .name("s3")
        .time(SystemTime::now())
        .settings(settings);
    let parameters = parameters.build().unwrap().into();
    let text = |name: &HeaderName| head.headers[name].to_str().unwrap();
    let headers = head.headers.keys().filter(|name| {
        let is_new = *name == "x-amz-date";
        names.contains(name.as_str()) && !is_new
    });
    let headers = headers.map(|name| (name.as_str(), text(name)));
    let payload = match text(&HeaderName::from_static("x-amz-content-sha256")) {
        "UNSIGNED-PAYLOAD" => SignableBody::UnsignedPayload,
        digest => SignableBody::Precomputed(digest.to_owned()),
    };
    let path = head.uri.path_and_query().unwrap();
    let url = format!("http://{}{path}", text(&HOST));
    let signable = SignableRequest::new(head.method.as_str(), &url, headers, payload).unwrap();
    let (signed, _) = sign(signable, &parameters).unwrap().into_parts();
    let (signed, _) = signed.into_parts();
    let signed = signed.into_iter().map(|header| {
        let value = HeaderValue::from_str(header.value()).unwrap();
        (HeaderName::from_static(header.name()), value)
    });
    signed.collect()
}
