//! Limits how many calls, lists and watches run at once in this process.
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
    Router,
    body::{Body, Bytes, HttpBody},
    extract::{Request, State},
    http::Method,
    middleware::{Next, from_fn_with_state},
    response::Response,
};
use hyper::body::{Frame, SizeHint};
use upload_gateway_core::{error::Error, gateway::Caller};

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

/// The gRPC call that follows an upload.
const WATCH: &str = "/uploadgateway.v1.UploadService/WatchUpload";

/// The places for the calls of a process.
#[derive(Debug, Clone)]
pub(super) struct Places {
    calls: Arc<Room>,
    health: Arc<Room>,
    lists: Arc<Room>,
    watches: Arc<Room>,
}

/// What an edge limits its calls with.
#[derive(Clone)]
struct Admission {
    places: Places,
    refuse: fn(Error) -> Response,
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
        }
    }

    /// Gives each call to `router` its places, and refuses it without them. At a limit, a call whose client does nothing ends
    /// for a new one: one that has not sent its request, or does not read a list.
    pub(super) fn admit(&self, router: Router, refuse: fn(Error) -> Response) -> Router {
        let places = self.clone();
        router.layer(from_fn_with_state(Admission { places, refuse }, admit))
    }
}

async fn admit(State(admission): State<Admission>, mut request: Request, next: Next) -> Response {
    let path = request.uri().path();
    let Admission { places, refuse } = admission;
    let end = request.extensions().get().map(EndCall::token);
    let end = end.unwrap_or_default();
    let room = match path {
        WATCH => Some(&places.watches),
        _ if is_list(&request) => Some(&places.lists),
        _ => None,
    };
    // A call without a caller is refused after it.
    let owner = request
        .extensions()
        .get()
        .map(|caller: &Caller| &caller.owner);
    let owner = owner.cloned().unwrap_or_default();
    let entered = room.map(|room| room.enter_for(&owner, end.clone()));
    let special = match entered.transpose() {
        Ok(special) => special,
        Err(error) => return refuse(error),
    };
    let calls = match HEALTH.contains(&path) {
        true => &places.health,
        false => &places.calls,
    };
    let place = match calls.enter_for(&owner, end) {
        Ok(place) => Arc::new(place),
        Err(error) => return refuse(error),
    };
    if let Err(error) = place.take(1).await {
        return refuse(error);
    }
    if let Some(special) = &special
        && let Err(error) = special.take(1).await
    {
        return refuse(error);
    }
    if !request.body().is_end_stream() {
        place.wait_for_client();
    }
    // Weak: what is left of the request after the response must not keep the place.
    request.extensions_mut().insert(Arc::downgrade(&place));
    let response = next.run(request).await;
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

fn is_list(request: &Request) -> bool {
    let path = request.uri().path();
    let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
    LISTS.contains(&path) || is_read && path.trim_end_matches('/') == rest::BASE
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
