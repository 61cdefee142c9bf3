//! The messages of requests, before they are decoded: their frames, their sizes, and the memory that they take.
//!
//! A request of a unary call is received here, within a size and a time. The messages of an upload stream are passed on as
//! they arrive; their bytes take memory from the budget for file bytes.

mod frames;
mod reader;
mod stream;
mod unary;

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use axum::{
    Router,
    extract::{Request, State},
    http::HeaderValue,
    middleware::{Next, from_fn_with_state},
    response::Response,
};
use upload_gateway_core::{
    error::{Error, Kind, Reason},
    gateway::Gateway,
};

pub(super) use self::{
    frames::PREFIX,
    reader::{Read, Reader},
    stream::{Refused, StreamBody, Uploading},
};
use crate::{
    auth,
    room::{Place, Room, Rules},
    status::grpc_status,
};

/// The memory of all requests of unary calls, in bytes.
const ROOM: Rules = Rules {
    what: "bytes of requests",
    limit: None,
    total: 16 * 1024 * 1024,
    per_owner: u32::MAX,
    reserve: 0,
    wait_limit: Duration::from_secs(5),
    yields_after: Duration::from_secs(1),
    ends_after: None,
};

/// The largest request in bytes: the longest metadata and tags need less than a quarter of it.
const MAX_REQUEST: u64 = 64 * 1024;

/// The largest report in bytes: 50,000 parts with their MD5s need less than half of it.
const MAX_REPORT: u64 = 4 * 1024 * 1024;

/// The largest message of a reflection stream in bytes. Its memory is part of that of its call.
const MAX_QUESTION: u64 = 16 * 1024;

/// Calls that last as long as their client wants. At the limit of calls they end for others.
const FOLLOWS: [&str; 3] = [
    "/grpc.health.v1.Health/Watch",
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
];

/// The header that names the compressions that the receiver understands.
const ACCEPT_ENCODING: &str = "grpc-accept-encoding";

/// What requests are received with.
#[derive(Debug, Clone)]
struct Reception {
    gateway: Arc<Gateway>,
    room: Arc<Room>,
}

/// How the messages of a call are received.
enum Call {
    /// One message of up to this number of bytes.
    Unary(u64),
    /// A stream of file bytes.
    Upload,
    /// A stream of questions.
    Reflection,
}

/// Receives the requests of `services` within limits.
pub fn with_message_limits(services: Router, gateway: &Arc<Gateway>) -> Router {
    let reception = Reception {
        gateway: Arc::clone(gateway),
        room: Room::new(ROOM),
    };
    services.layer(from_fn_with_state(reception, receive))
}

async fn receive(State(reception): State<Reception>, mut request: Request, next: Next) -> Response {
    let encoding = request.headers().get("grpc-encoding");
    if encoding.is_some_and(|encoding| encoding != "identity") {
        return refuse(&compressed(Kind::Unimplemented));
    }
    if FOLLOWS.contains(&request.uri().path()) {
        // It stays a call whose client does nothing.
        request.extensions_mut().remove::<Weak<Place>>();
    }
    match Call::of(request.uri().path()) {
        Call::Unary(max) => match unary::received(&reception.room, request, max).await {
            Ok((request, _room)) => next.run(request).await,
            Err(error) => refuse(&error),
        },
        Call::Upload => {
            let max = reception.gateway.settings.max_message_size;
            let caller = match auth::caller(request.extensions()) {
                Ok(caller) => caller,
                Err(error) => return refuse(&error),
            };
            let memory = reception.gateway.streams.memory(&caller);
            next.run(stream::uploading(request, max, memory)).await
        }
        Call::Reflection => next.run(stream::checked(request, MAX_QUESTION)).await,
    }
}

/// The response to a request that was not received.
fn refuse(error: &Error) -> Response {
    let mut response = grpc_status(error).into_http();
    let headers = response.headers_mut();
    headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    response
}

fn compressed(kind: Kind) -> Error {
    let message = "a message is compressed; send it with grpc-encoding identity";
    Error::new(kind, Reason::InvalidSequence, message)
}

fn too_large(max: u64) -> Error {
    let message = format!("the request is larger than {max} bytes");
    Error::new(Kind::ResourceExhausted, Reason::MessageTooLarge, message)
        .with("max_message_size", max)
}

// === impl Call ===

impl Call {
    fn of(path: &str) -> Self {
        match path {
            "/uploadgateway.v1.UploadService/Upload"
            | "/uploadgateway.v1.UploadService/UploadWithProgress" => Self::Upload,
            "/uploadgateway.v1.SigningService/UpdateUpload" => Self::Unary(MAX_REPORT),
            "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
            | "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo" => Self::Reflection,
            _ => Self::Unary(MAX_REQUEST),
        }
    }
}
