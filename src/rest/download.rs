//! Downloads of complete uploads: a signed URL, or the bytes through the gateway.

use std::{ops::Range, time::Duration};

use axum::{
    Extension,
    body::Body,
    extract::State,
    http::{
        HeaderMap, HeaderValue, Method, StatusCode,
        header::{
            ACCEPT_RANGES, CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG,
            IF_RANGE, LOCATION, RANGE, X_CONTENT_TYPE_OPTIONS,
        },
    },
    response::{IntoResponse, Response},
};
use futures::TryStreamExt;
use http_range_header::{RangeUnsatisfiableError, parse_range_header};
use upload_gateway_core::{
    blobs::sign::ReadVerb,
    error::Error,
    gateway::{DOWNLOAD_LIFETIME, Download},
    upload::Object,
};

use super::{
    api::{Api, BASE, caller},
    failure::Failure,
    parameters::UrlParameters,
    request::{Id, Parameters},
    responses::{ParameterErrors, ServerErrors, UploadErrors},
    values::Number,
};
use crate::{
    blobs::url::attachment,
    connections::EndCall,
    room::{Place, Rules, SentBody},
    status::{HttpError, log},
};

/// The rules for `max` downloads at a time.
pub(super) fn room(max: u32) -> Rules {
    Rules {
        what: "downloads",
        limit: Some("max_downloads"),
        total: max.into(),
        wait_limit: Duration::from_secs(2),
        yields_after: Duration::from_secs(5),
        // A paused video is not an error.
        ends_after: Some(Duration::from_secs(5 * 60)),
    }
}

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
    method: Method,
    Id(id): Id,
    Parameters(parameters): Parameters<UrlParameters>,
) -> Result<Response, Failure> {
    let lifetime = match parameters.expiry {
        Some(Number(0)) => return Err(Error::invalid("expiry", "must be at least 1 minute").into()),
        Some(Number(minutes)) => Duration::from_secs(minutes.saturating_mul(60)),
        None => DOWNLOAD_LIFETIME,
    };
    let lifetime = lifetime.min(DOWNLOAD_LIFETIME);
    let verb = match method {
        Method::HEAD => ReadVerb::Head,
        _ => ReadVerb::Get,
    };
    let signed = api
        .gateway
        .downloads
        .sign_download(&caller(), &id, verb, lifetime)
        .await?;
    Ok((StatusCode::SEE_OTHER, [(LOCATION, signed.url)]).into_response())
}

/// Download a complete upload through the gateway
///
/// A `Range` header may have one byte range. With several ranges, the response has the whole file.
#[utoipa::path(
    get,
    context_path = BASE,
    path = "/{id}/download",
    tag = "uploads",
    params(
        ("id" = String, Path, description = "The upload id."),
        ("Range" = Option<String>, Header, description = "`bytes=a-b`"),
        ("If-Range" = Option<String>, Header, description = "An ETag. If it is not the file's, the response has the whole file.")
    ),
    responses(
        (
            status = 200,
            description = "The file.",
            content_type = "application/octet-stream",
            headers(
                ("ETag" = String),
                ("Accept-Ranges" = String),
                ("Content-Disposition" = String, description = "`attachment` with the file name (RFC 6266).")
            )
        ),
        (
            status = 206,
            description = "The range.",
            content_type = "application/octet-stream",
            headers(("ETag" = String), ("Content-Range" = String))
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
    Id(id): Id,
    end: Option<Extension<EndCall>>,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let end = end.map(|Extension(end)| end.token());
    let place = api.downloads.enter(end.unwrap_or_default());
    place.take(1).await?;
    let (caller, mut chosen) = (caller(), Chosen::Whole);
    let download = api.gateway.downloads.download(&caller, &id, |object| {
        chosen = choose(&headers, object);
        match &chosen {
            Chosen::Whole => Ok(0..object.size),
            Chosen::Part(range) => Ok(range.clone()),
            Chosen::Nothing(_) => Err(Error::invalid("range", "beyond the end of the file")),
        }
    });
    match (download.await, chosen) {
        (Ok(download), chosen) => Ok(send(download, &chosen, place)),
        (Err(_), Chosen::Nothing(size)) => Ok(no_such_range(size)),
        (Err(error), _) => Err(error.into()),
    }
}

/// The bytes of a file that a request selects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Chosen {
    Whole,
    Part(Range<u64>),
    /// The range is beyond the end of the file, which has this size.
    Nothing(u64),
}

/// The bytes that the `Range` header selects (RFC 9110, 14.2). A header that is malformed or for another content is ignored.
pub(super) fn choose(headers: &HeaderMap, object: &Object) -> Chosen {
    let wanted = headers.get(RANGE).and_then(|value| value.to_str().ok());
    let is_same = |value: &HeaderValue| value.as_bytes() == entity_tag(object).as_bytes();
    if !headers.get(IF_RANGE).is_none_or(is_same) {
        return Chosen::Whole;
    }
    let Some(Ok(ranges)) = wanted.map(parse_range_header) else {
        return Chosen::Whole;
    };
    match ranges.validate(object.size).as_deref() {
        Ok([range]) => Chosen::Part(*range.start()..range.end() + 1),
        Err(RangeUnsatisfiableError::Unsatisfiable) => Chosen::Nothing(object.size),
        Ok(_) | Err(_) => Chosen::Whole,
    }
}

fn send(download: Download, chosen: &Chosen, place: Place) -> Response {
    let (range, file) = (download.range, &download.upload.file);
    let object = download.upload.object.as_ref();
    let length = range.end - range.start;
    let mut texts = vec![
        (CONTENT_TYPE, file.file_mime.clone()),
        (CONTENT_DISPOSITION, attachment(&file.file_name)),
        (ETAG, object.map(entity_tag).unwrap_or_default()),
        (ACCEPT_RANGES, "bytes".into()),
        // A caller uploaded the bytes: a browser must not run them as a page of this server.
        (X_CONTENT_TYPE_OPTIONS, "nosniff".into()),
    ];
    let status = match chosen {
        Chosen::Part(_) => {
            let size = object.map_or(range.end, |object| object.size);
            let position = format!("bytes {}-{}/{size}", range.start, range.end - 1);
            texts.push((CONTENT_RANGE, position));
            StatusCode::PARTIAL_CONTENT
        }
        Chosen::Whole | Chosen::Nothing(_) => StatusCode::OK,
    };
    let mut headers = HeaderMap::from_iter([(CONTENT_LENGTH, HeaderValue::from(length))]);
    for (name, text) in texts {
        if let Ok(value) = HeaderValue::try_from(text) {
            headers.insert(name, value);
        }
    }
    // The status is already sent: the caller sees a connection that ends before Content-Length.
    let bytes = download.bytes.inspect_err(log);
    let body = SentBody::new(Body::from_stream(bytes), place);
    (status, headers, Body::new(body)).into_response()
}

fn no_such_range(size: u64) -> Response {
    let refused = Failure::Refused(
        StatusCode::RANGE_NOT_SATISFIABLE,
        "the range is beyond the end of the file",
    );
    ([(CONTENT_RANGE, format!("bytes */{size}"))], refused).into_response()
}

fn entity_tag(object: &Object) -> String {
    format!("\"{}\"", object.etag)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(headers: &[(axum::http::HeaderName, &'static str)], size: u64) -> Chosen {
        let object = Object {
            bucket: String::new(),
            key: String::new(),
            etag: "abc".into(),
            size,
            md5: None,
        };
        let headers = headers
            .iter()
            .map(|(name, value)| (name.clone(), HeaderValue::from_static(value)));
        choose(&headers.collect(), &object)
    }

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
            ("bytes=10-", Chosen::Nothing(10)),
            ("bytes=-0", Chosen::Nothing(10)),
        ] {
            assert_eq!(chosen(&[(RANGE, range)], 10), expected, "{range}");
        }
        assert_eq!(chosen(&[], 10), Chosen::Whole);
        assert_eq!(chosen(&[(RANGE, "bytes=0-0")], 0), Chosen::Nothing(0));
        assert_eq!(chosen(&[(RANGE, "bytes=-1")], 0), Chosen::Whole);
    }

    #[test]
    fn a_range_for_another_content_is_ignored() {
        for (tag, expected) in [
            ("\"abc\"", Chosen::Part(0..1)),
            ("\"other\"", Chosen::Whole),
            ("Mon, 23 Nov 2026 16:00:00 GMT", Chosen::Whole),
        ] {
            assert_eq!(
                chosen(&[(RANGE, "bytes=0-0"), (IF_RANGE, tag)], 10),
                expected
            );
        }
    }
}
