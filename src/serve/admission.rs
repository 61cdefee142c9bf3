//! Limits how many calls, lists, watches and downloads run at once in this process.
//!
//! A call has its place from its request until its response was read or dropped, because the response of a client that does
//! not read stays in memory.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    body::{Body, Bytes, HttpBody},
    extract::Request,
    http::{Extensions, Method},
    response::Response,
};
use hyper::body::{Frame, SizeHint};
use upload_gateway_core::{error::Error, gateway::Caller, upload::Owner};

use crate::{
    config::{Limits, PerOwner},
    connections::EndCall,
    rest,
    room::{Place, Room, Rules, SentBody},
};

/// Calls with places of their own, so that a full process still says that it is alive.
const HEALTH: [&str; 3] = ["/healthz", "/readyz", "/grpc.health.v1.Health/Check"];

/// How many of them run at a time.
const MAX_HEALTH: u32 = 256;

/// One in this many places is reserved for owners with few calls.
const RESERVE: u32 = 8;

/// The gRPC calls that return pages.
const LISTS: [&str; 2] = [
    "/uploadgateway.v1.UploadService/ListUploads",
    "/uploadgateway.v1.UploadService/ListParts",
];

/// The gRPC call that reads a file.
const DOWNLOAD: &str = "/uploadgateway.v1.UploadService/Download";

/// The gRPC call that follows an upload.
const WATCH: &str = "/uploadgateway.v1.UploadService/WatchUpload";

/// The places for the calls of a process.
#[derive(Debug, Clone)]
pub(super) struct Places {
    calls: Arc<Room>,
    health: Arc<Room>,
    lists: Arc<Room>,
    watches: Arc<Room>,
    downloads: Arc<Room>,
}

/// The body of a response, during which its call keeps its place.
struct Placed {
    body: Body,
    _place: Arc<Place>,
}

// === impl Places ===

impl Places {
    /// The places that the limits allow.
    pub(super) fn new(limits: &Limits) -> Self {
        let all = u32::MAX;
        let PerOwner {
            max_lists,
            max_watches,
            max_downloads,
            ..
        } = limits.per_owner;
        let room = |(what, limit), (total, per_owner): (u32, u32), wait| {
            Room::new(Rules {
                what,
                limit,
                total,
                per_owner,
                // Where owners have no limit.
                reserve: if per_owner == all { total / RESERVE } else { 0 },
                wait_limit: Duration::from_secs(wait),
                yields_after: Duration::from_secs(1),
                ends_after: None,
            })
        };
        Self {
            calls: room(("calls", Some("max_calls")), (limits.max_calls, all), 2),
            health: room(("health checks", None), (MAX_HEALTH, all), 2),
            lists: room(
                ("lists", Some("max_lists")),
                (limits.max_lists, max_lists),
                3,
            ),
            watches: room(
                ("watches", Some("max_watches")),
                (limits.max_watches, max_watches),
                0,
            ),
            downloads: Room::new(Rules {
                what: "downloads",
                limit: Some("max_downloads"),
                total: limits.max_downloads,
                per_owner: max_downloads,
                reserve: 0,
                wait_limit: Duration::from_secs(2),
                yields_after: Duration::from_secs(5),
                // A paused video is not an error.
                ends_after: Some(Duration::from_secs(5 * 60)),
            }),
        }
    }

    /// Runs `call` with its places, or refuses it. At a limit, a call whose client does nothing ends for a new one: one that
    /// has not sent its request, or does not read a list or a file.
    pub(super) async fn admitted<F: Future<Output = Response>>(
        &self,
        mut request: Request,
        refuse: fn(Error) -> Response,
        call: impl FnOnce(Request) -> F,
    ) -> Response {
        let (path, method) = (request.uri().path(), request.method());
        let (place, special) = match self.enter(path, method, request.extensions()).await {
            Ok(places) => places,
            Err(error) => return refuse(error),
        };
        if !request.body().is_end_stream() {
            place.wait_for_client();
        }
        // Weak: what is left of the request after the response must not keep the place.
        request.extensions_mut().insert(Arc::downgrade(&place));
        let response = call(request).await;
        response.map(|body| {
            let body = match special {
                Some(special) => Body::new(SentBody::new(body, special)),
                None => body,
            };
            Body::new(Placed {
                body,
                _place: place,
            })
        })
    }

    /// The place of a call, and its place among lists, watches or downloads.
    async fn enter(
        &self,
        path: &str,
        method: &Method,
        extensions: &Extensions,
    ) -> Result<(Arc<Place>, Option<Place>), Error> {
        let end = extensions.get().map(EndCall::token).unwrap_or_default();
        // A call without a caller is refused after it.
        let unknown = Owner::default();
        let caller = extensions.get::<Caller>();
        let owner = caller.map_or(&unknown, |caller| &caller.owner);
        let special = match path {
            WATCH => Some(&self.watches),
            _ if is_list(path, method) => Some(&self.lists),
            _ if is_download(path, method) => Some(&self.downloads),
            _ => None,
        };
        let special = special.map(|room| room.enter_for(owner, end.clone()));
        let special = special.transpose()?;
        let calls = match HEALTH.contains(&path) {
            true => &self.health,
            false => &self.calls,
        };
        let place = calls.enter_for(owner, end)?;
        place.take(1).await?;
        if let Some(special) = &special {
            special.take(1).await?;
        }
        Ok((Arc::new(place), special))
    }
}

fn is_list(path: &str, method: &Method) -> bool {
    let is_read = matches!(*method, Method::GET | Method::HEAD);
    LISTS.contains(&path) || is_read && path.trim_end_matches('/') == rest::BASE
}

fn is_download(path: &str, method: &Method) -> bool {
    let is_file = path.starts_with(rest::BASE) && path.ends_with("/download");
    path == DOWNLOAD || *method == Method::GET && is_file
}

// === impl Placed ===

impl HttpBody for Placed {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
