//! Finished files: a link to the store, or the bytes through the gateway.

use std::{ops::Range, time::Duration};

use axum::{
    body::Body,
    extract::State,
    http::{
        HeaderMap, HeaderValue, StatusCode,
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
    error::Error,
    gateway::{DOWNLOAD_LIFETIME, Download},
    upload::Object,
};

use super::{
    Api, BASE, caller,
    failure::Failure,
    openapi::{Fault, WrongParameter, WrongUpload},
    parameters::UrlParameters,
    request::{Id, Parameters},
    values::Number,
};
use crate::{
    blobs::url::attachment,
    status::{HttpError, log},
};

/// Get a link to a finished file in the store
#[utoipa::path(
    get,
    context_path = BASE,
    path = "/{id}/url",
    tag = "uploads",
    params(("id" = String, Path, description = "The upload."), UrlParameters),
    responses(
        (
            status = 303,
            description = "The link.",
            headers(("Location" = String, description = "The signed URL: a GET needs nothing else."))
        ),
        WrongParameter,
        WrongUpload,
        Fault
    )
)]
pub(super) async fn url(
    State(api): State<Api>,
    Id(id): Id,
    Parameters(parameters): Parameters<UrlParameters>,
) -> Result<Response, Failure> {
    let lifetime = match parameters.expiry {
        Some(Number(0)) => return Err(Error::invalid("expiry", "must be at least 1 minute").into()),
        Some(Number(minutes)) => Duration::from_secs(minutes.saturating_mul(60)),
        None => DOWNLOAD_LIFETIME,
    };
    let lifetime = lifetime.min(DOWNLOAD_LIFETIME);
    let signed = api
        .gateway
        .downloads
        .sign_download(&caller(), &id, lifetime)
        .await?;
    Ok((StatusCode::SEE_OTHER, [(LOCATION, signed.url)]).into_response())
}

/// Download a finished file through the gateway
///
/// One byte range is honoured; several are answered with the whole file.
#[utoipa::path(
    get,
    context_path = BASE,
    path = "/{id}/download",
    tag = "uploads",
    params(
        ("id" = String, Path, description = "The upload."),
        ("Range" = Option<String>, Header, description = "`bytes=a-b`"),
        ("If-Range" = Option<String>, Header, description = "The file's ETag: for any other the whole file comes.")
    ),
    responses(
        (
            status = 200,
            description = "The file.",
            content_type = "application/octet-stream",
            headers(
                ("ETag" = String),
                ("Accept-Ranges" = String),
                ("Content-Disposition" = String, description = "An attachment under the file's name (RFC 6266).")
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
            description = "The file has no such range.",
            body = HttpError,
            headers(("Content-Range" = String, description = "`bytes */n`"))
        ),
        WrongUpload,
        Fault
    )
)]
pub(super) async fn download(
    State(api): State<Api>,
    Id(id): Id,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let (caller, mut chosen) = (caller(), Chosen::Whole);
    let download = api.gateway.downloads.download(&caller, &id, |object| {
        chosen = choose(&headers, object);
        match &chosen {
            Chosen::Whole => Ok(0..object.size),
            Chosen::Part(range) => Ok(range.clone()),
            Chosen::Nothing(_) => Err(Error::invalid("range", "the file has no such bytes")),
        }
    });
    match (download.await, chosen) {
        (Ok(download), chosen) => Ok(send(download, &chosen)),
        (Err(_), Chosen::Nothing(size)) => Ok(no_such_range(size)),
        (Err(error), _) => Err(error.into()),
    }
}

/// What a request chooses of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Chosen {
    Whole,
    Part(Range<u64>),
    /// It wants what the file, of that many bytes, does not have.
    Nothing(u64),
}

/// The choice of the `Range` header (RFC 9110, 14.2). What cannot be read, or is meant for another content, counts as none.
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

fn send(download: Download, chosen: &Chosen) -> Response {
    let (range, file) = (download.range, &download.upload.file);
    let object = download.upload.object.as_ref();
    let length = range.end - range.start;
    let mut texts = vec![
        (CONTENT_TYPE, file.file_mime.clone()),
        (CONTENT_DISPOSITION, attachment(&file.file_name)),
        (ETAG, object.map(entity_tag).unwrap_or_default()),
        (ACCEPT_RANGES, "bytes".into()),
        // The bytes are a caller's: no browser is to take them for a page of this server.
        (X_CONTENT_TYPE_OPTIONS, "nosniff".into()),
    ];
    let status = match chosen {
        Chosen::Part(_) => {
            let size = object.map_or(range.end, |object| object.size);
            let place = format!("bytes {}-{}/{size}", range.start, range.end - 1);
            texts.push((CONTENT_RANGE, place));
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
    // Nobody can be told any more: the connection ends before the length that was promised.
    let bytes = download.bytes.inspect_err(log);
    (status, headers, Body::from_stream(bytes)).into_response()
}

fn no_such_range(size: u64) -> Response {
    let refused = Failure::Refused(
        StatusCode::RANGE_NOT_SATISFIABLE,
        "the file has no such range",
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
    fn one_range_is_honoured_and_what_cannot_be_read_is_ignored() {
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
    fn a_range_of_another_content_is_ignored() {
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
