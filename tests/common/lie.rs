//! What a store, or what is in front of it, can answer although it is not true.

use std::{fmt, time::Duration};

use axum::http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use bytes::Bytes;

use super::layer::call::{Protocol, plain};

/// An answer that is not true, or no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Lie {
    /// 404 without a body.
    NotFound,
    /// The 404 page of an ingress.
    NotFoundPage,
    /// A 403 page of a proxy.
    ForbiddenPage,
    /// A 400 page of a proxy.
    BadRequestPage,
    /// A 503 page of a proxy.
    UnavailablePage,
    /// 307 to the same place.
    Redirect,
    /// A status with an error code of the store.
    Code(u16, &'static str),
    /// 200 with an error in the body, which CompleteMultipartUpload may answer.
    ErrorInBody,
    /// The store does the work, and the answer is 500.
    DoneButFailed,
    /// The answer breaks off in its middle.
    CutBody,
    /// The store does the work, and the connection ends before the answer.
    LostAnswer,
    /// The list before the last change.
    Stale,
    /// An object that was under the key before, with other bytes of the same size. That there was no object before is
    /// [`Lie::NotFound`] or [`Lie::Code`].
    Older,
    /// The true answer, but late, or no answer and the work late.
    Late(Delay),
}

/// How a slow store works. Meanwhile its other answers are true.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Delay {
    /// The store does the work after this time, unless the connection ends before, and answers.
    Work(Duration),
    /// The store does the work at once, and answers after this time.
    Answer(Duration),
    /// The connection ends after `cut`, as do those of the same request for this key until `work` is over: then the
    /// store does the work.
    WorkAfterCut { cut: Duration, work: Duration },
}

/// How long a call is lied about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Extent {
    Times(u32),
    For(Duration),
    Forever,
}

/// Lies about a call, from the n-th on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Rule {
    /// The name of the call.
    pub(crate) call: String,
    /// The first call of this name that is lied about, from 1.
    pub(crate) from: usize,
    pub(crate) lie: Lie,
    pub(crate) extent: Extent,
}

/// How a truthful answer looks to the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shape {
    /// The request carries bytes.
    pub(crate) sends: bool,
    /// The answer has a body.
    pub(crate) returns: bool,
    /// The answer is an object.
    pub(crate) finds: bool,
}

// === impl Lie ===

impl Lie {
    /// All lies about a call.
    pub(crate) fn about(protocol: Protocol, call: &str, shape: Shape) -> Vec<Self> {
        let name = plain(call);
        let mut lies = vec![
            Self::NotFound,
            Self::NotFoundPage,
            Self::ForbiddenPage,
            Self::BadRequestPage,
            Self::UnavailablePage,
            Self::Redirect,
            Self::DoneButFailed,
            Self::LostAnswer,
        ];
        // Without a body, the code of S3 is not seen.
        if protocol == Protocol::Azure || !name.starts_with("Head") {
            lies.push(Self::Code(404, absent(protocol, name)));
            lies.extend(
                codes(protocol, name, shape.sends)
                    .iter()
                    .map(|&(status, code)| Self::Code(status, code)),
            );
        } else {
            lies.extend([
                Self::Code(403, ""),
                Self::Code(500, ""),
                Self::Code(503, ""),
            ]);
        }
        if shape.returns {
            lies.push(Self::CutBody);
        }
        if matches!(
            name,
            "ListParts" | "ListObjectsV2" | "ListMultipartUploads" | "GetBlockList"
        ) {
            lies.push(Self::Stale);
        }
        if shape.finds {
            lies.push(Self::Older);
        }
        if name == "CompleteMultipartUpload" {
            lies.push(Self::ErrorInBody);
        }
        lies
    }

    /// Whether the answer is an earlier one of the store.
    pub(crate) fn is_stale(self) -> bool {
        matches!(self, Self::Stale | Self::Older)
    }

    /// Whether the store gets the request nevertheless.
    pub(crate) fn reaches_store(self) -> bool {
        matches!(
            self,
            Self::DoneButFailed
                | Self::CutBody
                | Self::LostAnswer
                | Self::Stale
                | Self::Older
                | Self::Late(_)
        )
    }

    /// The answer in place of the truthful one, for lies that have one of their own.
    pub(crate) fn answer(self, protocol: Protocol) -> Response<Bytes> {
        match self {
            Self::NotFound => response(404, "", ""),
            Self::NotFoundPage => page(404, "default backend - 404"),
            Self::ForbiddenPage => page(403, "Forbidden"),
            Self::BadRequestPage => page(400, "Bad Request"),
            Self::UnavailablePage => page(503, "Service Temporarily Unavailable"),
            Self::Redirect => {
                let mut redirect = response(307, "", "");
                let location = HeaderValue::from_static("http://127.0.0.1:9/");
                redirect.headers_mut().insert(header::LOCATION, location);
                redirect
            }
            Self::Code(status, code) => error(protocol, status, code),
            Self::ErrorInBody => error(protocol, 200, "InternalError"),
            Self::DoneButFailed
            | Self::CutBody
            | Self::LostAnswer
            | Self::Stale
            | Self::Older
            | Self::Late(_) => error(protocol, 500, "InternalError"),
        }
    }
}

impl fmt::Display for Lie {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(status, "") => write!(formatter, "{status}"),
            Self::Code(status, code) => write!(formatter, "{status} {code}"),
            Self::Late(delay) => delay.fmt(formatter),
            other => write!(formatter, "{other:?}"),
        }
    }
}

// === impl Delay ===

impl fmt::Display for Delay {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Work(time) => write!(formatter, "done after {time:?}"),
            Self::Answer(time) => write!(formatter, "answered after {time:?}"),
            Self::WorkAfterCut { cut, work } => {
                write!(formatter, "cut after {cut:?} and done after {work:?}")
            }
        }
    }
}

// === impl Extent ===

impl fmt::Display for Extent {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Times(1) => formatter.write_str("once"),
            Self::Times(2) => formatter.write_str("twice"),
            Self::Times(times) => write!(formatter, "{times} times"),
            Self::For(time) => write!(formatter, "for {time:?}"),
            Self::Forever => formatter.write_str("forever"),
        }
    }
}

// === impl Rule ===

impl fmt::Display for Rule {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            call,
            from,
            lie,
            extent,
        } = self;
        write!(formatter, "{call}#{from} {lie} {extent}")
    }
}

/// The code with which the store denies what the call names.
pub(crate) fn absent(protocol: Protocol, name: &str) -> &'static str {
    match (protocol, name) {
        (
            Protocol::S3,
            "UploadPart" | "ListParts" | "CompleteMultipartUpload" | "AbortMultipartUpload",
        ) => "NoSuchUpload",
        (Protocol::S3, "HeadObject" | "GetObject" | "DeleteObject") => "NoSuchKey",
        (Protocol::S3, _) => "NoSuchBucket",
        (Protocol::Azure, "GetBlobProperties" | "GetBlob" | "GetBlockList" | "DeleteBlob") => {
            "BlobNotFound"
        }
        (Protocol::Azure, _) => "ContainerNotFound",
    }
}

/// Statuses and codes that the store may answer with, beside [`absent`].
fn codes(protocol: Protocol, name: &str, sends: bool) -> Vec<(u16, &'static str)> {
    let mut codes: Vec<(u16, &'static str)> = match protocol {
        Protocol::S3 => vec![
            (403, "AccessDenied"),
            (403, "RequestTimeTooSkewed"),
            (400, "ExpiredToken"),
            (400, "RequestTimeout"),
            (500, "InternalError"),
            (503, "SlowDown"),
        ],
        Protocol::Azure => vec![
            (403, "AuthorizationFailure"),
            (403, "AuthenticationFailed"),
            (500, "OperationTimedOut"),
            (503, "ServerBusy"),
        ],
    };
    match (protocol, name) {
        (Protocol::S3, "UploadPart" | "PutObject") if sends => {
            codes.extend([(400, "IncompleteBody"), (400, "BadDigest")]);
        }
        (Protocol::S3, "CompleteMultipartUpload") => codes.extend([
            (400, "InvalidPart"),
            (400, "InvalidPartOrder"),
            (400, "EntityTooSmall"),
            (400, "MalformedXML"),
        ]),
        (Protocol::Azure, "PutBlob" | "PutBlock") => codes.push((400, "Md5Mismatch")),
        (Protocol::Azure, "PutBlockList") => codes.push((400, "InvalidBlockList")),
        _ => {}
    }
    codes
}

fn error(protocol: Protocol, status: u16, code: &'static str) -> Response<Bytes> {
    if code.is_empty() {
        return response(status, "", "");
    }
    let xml = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?><Error><Code>{code}</Code><Message>a lie</Message></Error>"
    );
    let mut answer = response(status, "application/xml", &xml);
    if protocol == Protocol::Azure {
        answer
            .headers_mut()
            .insert("x-ms-error-code", HeaderValue::from_static(code));
    }
    answer
}

fn page(status: u16, text: &str) -> Response<Bytes> {
    response(
        status,
        "text/html",
        &format!("<html><body><h1>{text}</h1></body></html>"),
    )
}

fn response(status: u16, content_type: &'static str, body: &str) -> Response<Bytes> {
    let mut headers = HeaderMap::new();
    if !content_type.is_empty() {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    }
    let mut response = Response::new(Bytes::copy_from_slice(body.as_bytes()));
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    *response.headers_mut() = headers;
    response
}
