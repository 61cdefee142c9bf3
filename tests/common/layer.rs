//! A layer in front of a store that can lie: it forwards requests, unless a rule says otherwise, and keeps a log of all
//! calls.

pub(super) mod call;
mod stale;

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex},
};

use axum::{
    body::{Body, to_bytes},
    http::{HeaderValue, Request, Response, header, request::Parts as Head},
};
use bytes::Bytes;
use futures::stream;
use hyper::{
    body::{Body as _, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioIo},
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
    time::{Instant, sleep},
};

pub(crate) use self::call::{Call, Protocol, plain};
use super::{
    lie::{Delay, Extent, Lie, Rule, Shape},
    memory_azure::MemoryAzure,
};

/// The store behind the layer.
#[derive(Debug)]
pub(crate) enum Behind {
    /// A server, `http://127.0.0.1:PORT`, which gets whole requests.
    Server(String),
    /// A server that gets the bytes of a request as they arrive: it also sees requests that break off.
    Streamed(String),
    Memory(Arc<MemoryAzure>),
}

/// The layer of one store; it stops when dropped.
#[derive(Debug)]
pub(crate) struct Layer {
    /// The address for the gateway, `http://127.0.0.1:PORT`.
    pub(crate) endpoint: String,
    /// The address for clients with signed requests.
    pub(crate) public_endpoint: String,
    shared: Arc<Shared>,
    tasks: [JoinHandle<()>; 2],
}

/// A call that was made.
#[derive(Debug, Clone)]
pub(crate) struct Made {
    pub(crate) call: Call,
    /// How many calls of this name there were, with it, that had no fault; 0 if it had one.
    pub(crate) number: usize,
    pub(crate) at: Instant,
    /// The status of the store's answer, or 0 if the store did not get the request.
    pub(crate) truth: u16,
    pub(crate) lie: Option<Lie>,
    pub(crate) shape: Shape,
}

#[derive(Debug)]
struct Shared {
    protocol: Protocol,
    behind: Behind,
    http: Client<HttpConnector, Body>,
    state: Mutex<State>,
    /// The number of commits whose connection has ended, and that the store gets later.
    late: watch::Sender<usize>,
}

#[derive(Debug, Default)]
struct State {
    counts: HashMap<String, usize>,
    faults: Vec<Active>,
    lies: Vec<Active>,
    log: Vec<Made>,
    /// The keys of the objects that commits make later, and how late.
    late: HashMap<String, Delay>,
}

/// A rule, and what it has done.
#[derive(Debug)]
struct Active {
    rule: Rule,
    since: Option<Instant>,
    times: u32,
}

/// The connection ends without an answer.
#[derive(Debug)]
struct Dropped;

// === impl Layer ===

impl Layer {
    /// `faults` make the path what it is. `lies` apply to the calls that have no fault.
    pub(crate) async fn start(
        protocol: Protocol,
        behind: Behind,
        faults: Vec<Rule>,
        lies: Vec<Rule>,
    ) -> Self {
        let layer = Arc::new(Shared {
            protocol,
            behind,
            http: Client::builder(TokioExecutor::new()).build_http(),
            state: Mutex::new(State {
                faults: faults.into_iter().map(Active::from).collect(),
                lies: lies.into_iter().map(Active::from).collect(),
                ..State::default()
            }),
            late: watch::Sender::new(0),
        });
        let (listener, public) = (
            TcpListener::bind("127.0.0.1:0").await.unwrap(),
            TcpListener::bind("127.0.0.1:0").await.unwrap(),
        );
        let endpoint =
            |listener: &TcpListener| format!("http://{}", listener.local_addr().unwrap());
        Self {
            endpoint: endpoint(&listener),
            public_endpoint: endpoint(&public),
            tasks: [
                tokio::spawn(Arc::clone(&layer).serve(listener, false)),
                tokio::spawn(Arc::clone(&layer).serve(public, true)),
            ],
            shared: layer,
        }
    }

    /// Lies from now on about these, too.
    pub(crate) fn add(&self, lies: impl IntoIterator<Item = Rule>) {
        let mut state = self.shared.state.lock().unwrap();
        state.lies.extend(lies.into_iter().map(Active::from));
    }

    /// No longer lies about these.
    pub(crate) fn remove(&self, lies: &[Rule]) {
        let mut state = self.shared.state.lock().unwrap();
        state.lies.retain(|active| !lies.contains(&active.rule));
    }

    /// Waits until the store has every request that it gets late.
    pub(crate) async fn has_passed_all(&self) {
        // The layer itself keeps the channel open.
        let _ = self
            .shared
            .late
            .subscribe()
            .wait_for(|late| *late == 0)
            .await;
    }

    /// Only truthful answers from now on.
    pub(crate) fn be_truthful(&self) {
        self.shared.state.lock().unwrap().lies.clear();
    }

    /// All calls so far.
    pub(crate) fn log(&self) -> Vec<Made> {
        self.shared.state.lock().unwrap().log.clone()
    }
}

impl Drop for Layer {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

// === impl Shared ===

impl Shared {
    async fn serve(self: Arc<Self>, listener: TcpListener, signed: bool) {
        loop {
            let (stream, _) = listener
                .accept()
                .await
                .expect("there are free file descriptors");
            tokio::spawn(Arc::clone(&self).connection(stream, signed));
        }
    }

    async fn connection(self: Arc<Self>, stream: TcpStream, signed: bool) {
        let _ = stream.set_nodelay(true);
        let service = service_fn(|request| self.handle(request, signed));
        let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
        // A dropped answer ends it with an error.
        let _ = connection.await;
    }

    async fn handle(
        self: &Arc<Self>,
        request: Request<Incoming>,
        signed: bool,
    ) -> Result<Response<Body>, Dropped> {
        let (head, body) = request.into_parts();
        let call = self.protocol.call(&head, signed);
        let sends = !body.is_end_stream();
        let body = match self.behind {
            Behind::Streamed(_) => Body::new(body),
            _ => whole(Body::new(body)).await?,
        };
        let (index, lie) = self.begin(&call, sends);
        let truth = match lie {
            Some(Lie::Late(delay)) => return self.be_late(delay, &call, head, body).await,
            Some(lie) if !lie.reaches_store() => {
                bytes(body).await?;
                None
            }
            _ => Some(self.pass(&head, body).await?),
        };
        let stale = match (&truth, lie) {
            (Some(truth), Some(Lie::Stale)) => stale::before(call.plain_name(), truth),
            (Some(truth), Some(Lie::Older)) => call.finds(truth).then(|| stale::older(truth)),
            _ => None,
        };
        let lie = lie.filter(|lie| !lie.is_stale() || stale.is_some());
        self.end(index, truth.as_ref(), lie);
        match (lie, truth) {
            (None, Some(truth)) => Ok(truth.map(Body::from)),
            (Some(Lie::LostAnswer), _) => Err(Dropped),
            (Some(Lie::CutBody), Some(truth)) => Ok(cut(truth)),
            (Some(Lie::Stale | Lie::Older), _) => Ok(stale.unwrap_or_default().map(Body::from)),
            (Some(lie), _) => Ok(lie.answer(self.protocol).map(Body::from)),
            (None, None) => Err(Dropped),
        }
    }

    async fn be_late(
        self: &Arc<Self>,
        delay: Delay,
        call: &Call,
        head: Head,
        body: Body,
    ) -> Result<Response<Body>, Dropped> {
        let body = whole(body).await?;
        match delay {
            Delay::Work(time) => {
                sleep(time).await;
                Ok(self.pass(&head, body).await?.map(Body::from))
            }
            Delay::Answer(time) => {
                let truth = self.pass(&head, body).await?;
                sleep(time).await;
                Ok(truth.map(Body::from))
            }
            Delay::WorkAfterCut { cut, work } => {
                let known = self
                    .state
                    .lock()
                    .unwrap()
                    .late
                    .insert(call.key.clone(), delay);
                if known.is_none() {
                    self.late.send_modify(|late| *late += 1);
                    let (layer, key) = (Arc::clone(self), call.key.clone());
                    tokio::spawn(async move {
                        sleep(work).await;
                        let _ = layer.pass(&head, body).await;
                        layer.state.lock().unwrap().late.remove(&key);
                        layer.late.send_modify(|late| *late -= 1);
                    });
                }
                sleep(cut).await;
                Err(Dropped)
            }
        }
    }

    /// Counts and logs a call. Returns its place in the log, and the lie about it.
    fn begin(&self, call: &Call, sends: bool) -> (usize, Option<Lie>) {
        let mut state = self.state.lock().unwrap();
        let now = Instant::now();
        let (number, lie) = match first_match(&mut state.faults, call, usize::MAX, now) {
            Some(fault) => (0, Some(fault)),
            None => {
                let count = state.counts.entry(call.name.clone()).or_default();
                *count += 1;
                let number = *count;
                let works = state.late.get(&call.key).copied().map(Lie::Late);
                let works =
                    works.filter(|_| call.plain_name() == self.protocol.commit_and_head().0);
                let lie = works.or_else(|| first_match(&mut state.lies, call, number, now));
                (number, lie)
            }
        };
        state.log.push(Made {
            call: call.clone(),
            number,
            at: now,
            truth: 0,
            lie,
            shape: Shape {
                sends,
                returns: false,
                finds: false,
            },
        });
        (state.log.len() - 1, lie)
    }

    fn end(&self, index: usize, truth: Option<&Response<Bytes>>, lie: Option<Lie>) {
        let mut state = self.state.lock().unwrap();
        let made = &mut state.log[index];
        made.lie = lie;
        if let Some(truth) = truth {
            made.truth = truth.status().as_u16();
            made.shape.returns = !truth.body().is_empty();
            made.shape.finds = made.call.finds(truth);
        }
    }

    async fn pass(&self, head: &Head, body: Body) -> Result<Response<Bytes>, Dropped> {
        let server = match &self.behind {
            Behind::Memory(azure) => return Ok(azure.answer(head, &bytes(body).await?)),
            Behind::Server(server) | Behind::Streamed(server) => server,
        };
        let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
        let mut request = Request::new(body);
        *request.method_mut() = head.method.clone();
        *request.uri_mut() = format!("{server}{path}").parse().map_err(|_| Dropped)?;
        // The signature covers the host.
        *request.headers_mut() = head.headers.clone();
        let answer = self.http.request(request).await.map_err(|_| Dropped)?;
        let (status, mut headers) = (answer.status(), answer.headers().clone());
        headers.remove(header::TRANSFER_ENCODING);
        headers.remove(header::CONNECTION);
        let mut response = Response::new(bytes(Body::new(answer.into_body())).await?);
        (*response.status_mut(), *response.headers_mut()) = (status, headers);
        Ok(response)
    }
}

// === impl Active ===

impl From<Rule> for Active {
    fn from(rule: Rule) -> Self {
        Self {
            rule,
            since: None,
            times: 0,
        }
    }
}

impl Active {
    fn matches(&mut self, call: &Call, number: usize, now: Instant) -> Option<Lie> {
        if self.rule.call != call.name || number < self.rule.from {
            return None;
        }
        let since = *self.since.get_or_insert(now);
        let lasts = match self.rule.extent {
            Extent::Times(times) => self.times < times,
            Extent::For(time) => now < since + time,
            Extent::Forever => true,
        };
        self.times += u32::from(lasts);
        lasts.then_some(self.rule.lie)
    }
}

/// What the first rule that fits says.
fn first_match(rules: &mut [Active], call: &Call, number: usize, now: Instant) -> Option<Lie> {
    rules
        .iter_mut()
        .find_map(|rule| rule.matches(call, number, now))
}

async fn bytes(body: Body) -> Result<Bytes, Dropped> {
    to_bytes(body, usize::MAX).await.map_err(|_| Dropped)
}

/// A body that has arrived as a whole.
async fn whole(body: Body) -> Result<Body, Dropped> {
    Ok(Body::from(bytes(body).await?))
}

/// The answer with the length of the whole, and half of it.
fn cut(truth: Response<Bytes>) -> Response<Body> {
    let (mut head, body) = truth.into_parts();
    let length = HeaderValue::from(body.len());
    head.headers.insert(header::CONTENT_LENGTH, length);
    let half = body.slice(..body.len() / 2);
    let pieces = stream::iter([Ok(half), Err(Dropped)]);
    Response::from_parts(head, Body::from_stream(pieces))
}

// === impl Dropped ===

impl fmt::Display for Dropped {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("the connection is dropped")
    }
}

impl std::error::Error for Dropped {}
