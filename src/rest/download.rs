//! Downloads of complete uploads: a signed URL, or the bytes through the gateway.

use std::ops::Range;

use axum::{
    body::Body,
    extract::State,
    http::{
        HeaderMap, HeaderName, HeaderValue, Method, StatusCode,
        header::{
            ACCEPT_RANGES, CONTENT_DISPOSITION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE,
            CONTENT_TYPE, LOCATION, RANGE, X_CONTENT_TYPE_OPTIONS,
        },
    },
    response::{IntoResponse, Response},
};
use futures::TryStreamExt;
use http_range_header::{RangeUnsatisfiableError, parse_range_header};
use upload_gateway_core::{blobs::sign::ReadVerb, gateway::StoredFile};

use super::{
    api::{Api, BASE, CalledBy},
    conditions::Validators,
    failure::Failure,
    parameters::UrlParameters,
    request::{Id, Parameters},
    responses::{ParameterErrors, ServerErrors, UploadErrors},
};
use crate::{
    blobs::url::attachment,
    status::{HttpError, log},
};

/// Sign a URL that downloads a complete upload from the store
///
/// For HEAD the URL is signed for HEAD: stores bind the method, and clients follow the redirect with the same one.
#[utoipa::path(
    get,
    context_path = BASE,
    path = "/{id}/url",
    tag = "uploads",
    params(("id" = String, Path, description = "The upload id."), UrlParameters),
    responses(
        (
            status = 303,
            description = "The URL.",
            headers(("Location" = String, description = "The signed URL. A GET of it needs no headers."))
        ),
        ParameterErrors,
        UploadErrors,
        ServerErrors
    )
)]
pub(super) async fn url(
    State(api): State<Api>,
    CalledBy(caller): CalledBy,
    method: Method,
    Id(id): Id,
    Parameters(lifetime): Parameters<UrlParameters>,
) -> Result<Response, Failure> {
    let verb = match method {
        Method::HEAD => ReadVerb::Head,
        _ => ReadVerb::Get,
    };
    let signed = api
        .gateway
        .downloads
        .sign_download(&caller, &id, verb, lifetime)
        .await?;
    Ok((StatusCode::SEE_OTHER, [(LOCATION, signed.url)]).into_response())
}

/// Download a complete upload through the gateway
///
/// A `Range` header may have one byte range. With several ranges, the response has the whole file. HEAD ignores `Range`.
#[utoipa::path(
    get,
    context_path = BASE,
    path = "/{id}/download",
    tag = "uploads",
    params(
        ("id" = String, Path, description = "The upload id."),
        ("Range" = Option<String>, Header, description = "`bytes=a-b`"),
        ("If-Range" = Option<String>, Header, description = "An ETag or a Last-Modified. If it is not the file's, the response has the whole file."),
        ("If-Match" = Option<String>, Header, description = "ETags, or `*`. If none is the file's, the response is 412."),
        ("If-None-Match" = Option<String>, Header, description = "ETags, or `*`. If one is the file's, the response is 304."),
        ("If-Modified-Since" = Option<String>, Header, description = "A date. If the file is not newer, the response is 304. Ignored if If-None-Match is set."),
        ("If-Unmodified-Since" = Option<String>, Header, description = "A date. If the file is newer, the response is 412. Ignored if If-Match is set.")
    ),
    responses(
        (
            status = 200,
            description = "The file.",
            content_type = "application/octet-stream",
            headers(
                ("ETag" = String),
                ("Last-Modified" = String, description = "When the upload was created."),
                ("Accept-Ranges" = String),
                ("Content-Disposition" = String, description = "`attachment` with the file name (RFC 6266).")
            )
        ),
        (
            status = 206,
            description = "The range.",
            content_type = "application/octet-stream",
            headers(("ETag" = String), ("Last-Modified" = String), ("Content-Range" = String))
        ),
        (
            status = 304,
            description = "The caller has the file already, as If-None-Match or If-Modified-Since says.",
            headers(("ETag" = String), ("Last-Modified" = String))
        ),
        (
            status = 416,
            description = "The range is beyond the end of the file.",
            body = HttpError,
            headers(("Content-Range" = String, description = "`bytes */n`, with the size of the file."))
        ),
        UploadErrors,
        ServerErrors
    )
)]
pub(super) async fn download(
    State(api): State<Api>,
    CalledBy(caller): CalledBy,
    method: Method,
    Id(id): Id,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let file = api.gateway.downloads.find(&caller, &id).await?;
    let validators = Validators::new(&file.object, file.upload.created_at);
    if let Some(status) = validators.refusal(&headers) {
        return Ok(refuse(status, &file, &validators));
    }
    let is_ranged = method == Method::GET && validators.are_in_range(&headers);
    let chosen = match headers.get(RANGE).filter(|_| is_ranged) {
        Some(range) => choose(range, file.object.size),
        None => Chosen::Whole,
    };
    let range = match &chosen {
        Chosen::Whole => 0..file.object.size,
        Chosen::Part(range) => range.clone(),
        Chosen::Nothing => return Ok(no_such_range(file.object.size)),
    };
    let mut head = head(&file, &validators, &range);
    let status = match chosen {
        Chosen::Part(_) => {
            let (last, size) = (range.end - 1, file.object.size);
            let place = format!("bytes {}-{last}/{size}", range.start);
            head.extend(header_map([(CONTENT_RANGE, place)]));
            StatusCode::PARTIAL_CONTENT
        }
        Chosen::Whole | Chosen::Nothing => StatusCode::OK,
    };
    let body = match method {
        Method::HEAD => Body::empty(),
        _ => {
            let bytes = api.gateway.downloads.read(&file, range);
            // The status is already sent: the caller sees a connection that ends before Content-Length.
            Body::from_stream(bytes.await?.inspect_err(log))
        }
    };
    Ok((status, head, body).into_response())
}

/// The bytes of a file that a request selects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Chosen {
    Whole,
    Part(Range<u64>),
    /// The range is beyond the end of the file.
    Nothing,
}

/// The bytes of a file of `size` bytes that a `Range` header selects (RFC 9110, 14.2). A malformed header is ignored.
pub(super) fn choose(range: &HeaderValue, size: u64) -> Chosen {
    let Ok(Ok(ranges)) = range.to_str().map(parse_range_header) else {
        return Chosen::Whole;
    };
    match ranges.validate(size).as_deref() {
        Ok([range]) => Chosen::Part(*range.start()..range.end() + 1),
        Err(RangeUnsatisfiableError::Unsatisfiable) => Chosen::Nothing,
        Ok(_) | Err(_) => Chosen::Whole,
    }
}

/// The headers of a response with a range of the bytes of a file.
fn head(file: &StoredFile, validators: &Validators, range: &Range<u64>) -> HeaderMap {
    let metadata = &file.upload.file;
    let mut headers = header_map([
        (CONTENT_TYPE, metadata.file_mime.clone()),
        (CONTENT_DISPOSITION, attachment(&metadata.file_name)),
        (ACCEPT_RANGES, "bytes".into()),
        // A caller uploaded the bytes: a browser must not run them as a page of this server.
        (X_CONTENT_TYPE_OPTIONS, "nosniff".into()),
    ]);
    headers.extend(header_map(validators.headers()));
    if let Some(encoding) = metadata.placement.content_encoding.clone() {
        headers.extend(header_map([(CONTENT_ENCODING, encoding)]));
    }
    headers.insert(CONTENT_LENGTH, HeaderValue::from(range.end - range.start));
    headers
}

/// The response to a request whose conditions do not hold.
fn refuse(status: StatusCode, file: &StoredFile, validators: &Validators) -> Response {
    if status != StatusCode::NOT_MODIFIED {
        let message = "the file does not meet the conditions in the headers of the request";
        return Failure::Refused(status, message).into_response();
    }
    let mut headers = header_map(validators.headers());
    // Here it must be the size of the file, or not be set (RFC 9110, section 8.6). axum would set 0.
    headers.insert(CONTENT_LENGTH, HeaderValue::from(file.object.size));
    (status, headers).into_response()
}

fn no_such_range(size: u64) -> Response {
    let refused = Failure::Refused(
        StatusCode::RANGE_NOT_SATISFIABLE,
        "the range is beyond the end of the file",
    );
    ([(CONTENT_RANGE, format!("bytes */{size}"))], refused).into_response()
}

/// The headers whose text is valid.
fn header_map<const N: usize>(texts: [(HeaderName, String); N]) -> HeaderMap {
    let headers = texts.into_iter().filter_map(|(name, text)| {
        let value = HeaderValue::try_from(text).ok()?;
        Some((name, value))
    });
    headers.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_range_is_applied_and_malformed_ranges_are_ignored() {
        for (range, expected) in [
            ("bytes=2-5", Chosen::Part(2..6)),
            ("bytes=2-", Chosen::Part(2..10)),
            ("bytes=-3", Chosen::Part(7..10)),
            ("bytes=-30", Chosen::Part(0..10)),
            ("bytes=0-99", Chosen::Part(0..10)),
            ("bytes=0-1,4-5", Chosen::Whole),
            ("bytes=5-2", Chosen::Whole),
            ("items=0-1", Chosen::Whole),
            ("bytes=a-b", Chosen::Whole),
            ("bytes=10-", Chosen::Nothing),
            ("bytes=-0", Chosen::Nothing),
        ] {
            let chosen = choose(&HeaderValue::from_static(range), 10);
            assert_eq!(chosen, expected, "{range}");
        }
        let of_nothing = |range| choose(&HeaderValue::from_static(range), 0);
        assert_eq!(of_nothing("bytes=0-0"), Chosen::Nothing);
        assert_eq!(of_nothing("bytes=-1"), Chosen::Whole);
    }
}
