//! What the page of metrics says, and how many series there are.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, SystemTime},
};

use axum::{
    Router,
    body::{Body, to_bytes},
    http::{HeaderName, Request, StatusCode},
    middleware::{Next, from_fn},
    response::Response,
    routing::any,
};
use futures::future::BoxFuture;
use tower::ServiceExt;
use upload_gateway_core::{
    call,
    decorate::{self, Around},
    error::{Error, Kind, Reason, Result},
    gateway::SweepReport,
    meter::{Done, Meter},
    observe::{Observe, Observer, PartToStore},
    upload::{Origin, Timestamp, Upload},
};

use super::{
    Expiries, Known, Load, MAX_TENANTS, MeasuredCall, Metrics, Now, Observed, gateway::TRANSITIONS,
};
use crate::{
    call_end::follow,
    certificates::Validity,
    grpc,
    rest::{BASE, Health, Readiness, StoreHealth},
};

const STORAGES: [&str; 10] = ["s0", "s1", "s2", "s3", "s4", "s5", "s6", "s7", "s8", "s9"];

/// The largest number of series, with [`STORAGES`].
const MAX_SERIES: usize = 6_000;

/// Each error has one of these kinds.
const KINDS: [Kind; 14] = [
    Kind::InvalidArgument,
    Kind::OutOfRange,
    Kind::NotFound,
    Kind::FailedPrecondition,
    Kind::Aborted,
    Kind::DataLoss,
    Kind::ResourceExhausted,
    Kind::Unavailable,
    Kind::DeadlineExceeded,
    Kind::PermissionDenied,
    Kind::Unauthenticated,
    Kind::Unimplemented,
    Kind::Cancelled,
    Kind::Internal,
];

/// How many methods are refused with each code: together more than there are reasons.
const REFUSALS: usize = 3;

/// The status of the response that a request asks for.
const STATUS: HeaderName = HeaderName::from_static("x-status");

fn metrics() -> Metrics {
    Metrics::new(Known {
        calls: grpc::call_paths().unwrap(),
        storages: STORAGES.into(),
        tenants: &["*".into()],
        sweep_interval: 300,
    })
}

/// The text of these metrics, with certificates, credentials and keys that expire.
fn text(metrics: &Metrics) -> String {
    let validity = Validity {
        begins_at: 0,
        expires_at: 1,
    };
    let expiries = Expiries {
        certificates: ["tls.pem", "clients.pem", "redis.pem", "ca.pem"]
            .map(|file| (file.to_owned(), validity))
            .into(),
        credentials: STORAGES
            .map(|storage| (storage.to_owned(), Timestamp(1)))
            .into(),
        issuer_keys: ["https://one.example", "https://two.example"]
            .map(|issuer| (issuer.to_owned(), SystemTime::UNIX_EPOCH))
            .into(),
    };
    let health = Health {
        readiness: Readiness::Ready,
        since: Timestamp(0),
        state: StoreHealth::unknown(Timestamp(0)),
        storages: STORAGES
            .map(|id| (id.to_owned(), StoreHealth::unknown(Timestamp(0))))
            .into(),
    };
    metrics.text(&Now {
        load: Load::default(),
        health: &health,
        expiries: &expiries,
    })
}

fn error(kind: Kind) -> Error {
    Error::new(kind, Reason::Internal, "no")
}

/// Answers with the status that the request asks for.
async fn answer(request: Request<Body>) -> Response {
    let status = request.headers()[STATUS].clone();
    let mut response = Response::new(Body::empty());
    if let Ok(status) = StatusCode::from_bytes(status.as_bytes()) {
        *response.status_mut() = status;
    }
    response.headers_mut().insert("grpc-status", status);
    response
}

/// Measures each call to `router`.
fn measured(
    router: Router,
    metrics: &Metrics,
    begin: fn(&Metrics, &Request<Body>) -> MeasuredCall,
) -> Router {
    let metrics = metrics.clone();
    router.layer(from_fn(move |request: Request<Body>, next: Next| {
        let call = begin(&metrics, &request);
        async { follow(next.run(request).await, call) }
    }))
}

fn grpc_calls(metrics: &Metrics) -> Router {
    measured(Router::new().fallback(answer), metrics, Metrics::grpc_call)
}

fn http_calls(router: Router, metrics: &Metrics) -> Router {
    measured(router, metrics, Metrics::http_call)
}

async fn send(router: &Router, method: &str, path: &str, status: &str) {
    let request = Request::builder().method(method).uri(path);
    let request = request.header(STATUS, status).body(Body::empty()).unwrap();
    let response = router.clone().oneshot(request).await.unwrap();
    to_bytes(response.into_body(), 1024).await.unwrap();
}

/// Every gRPC method, and every code with which calls are refused.
async fn call_grpc(metrics: &Metrics) {
    let router = grpc_calls(metrics);
    let methods: Vec<String> = grpc::call_paths().unwrap().into_iter().collect();
    for (number, method) in methods
        .iter()
        .chain([&"/made.up/Method".to_owned()])
        .enumerate()
    {
        send(&router, "POST", method, "0").await;
        send(&router, "POST", &format!("/made.up/{number}"), "12").await;
    }
    for code in 1..=16_usize {
        for place in 0..REFUSALS {
            let method = &methods[(code + place) % methods.len()];
            send(&router, "POST", method, &code.to_string()).await;
        }
    }
}

/// Every HTTP method and path, and every status.
async fn call_http(metrics: &Metrics) {
    let routes = [
        "",
        "/",
        "/new",
        "/openapi.json",
        "/{id}",
        "/{id}/edit",
        "/{id}/url",
        "/{id}/download",
    ];
    let mut router = Router::new();
    for path in routes {
        router = router.route(&format!("{BASE}{path}"), any(answer));
    }
    let router = router
        .route("/healthz", any(answer))
        .route("/readyz", any(answer))
        .fallback(answer);
    let router = http_calls(router, metrics);
    let calls = [
        ("GET", ""),
        ("HEAD", ""),
        ("POST", ""),
        ("OPTIONS", ""),
        ("GET", "/new"),
        ("GET", "/openapi.json"),
        ("PATCH", "/upload"),
        ("PUT", "/upload"),
        ("DELETE", "/upload"),
        ("GET", "/upload/edit"),
        ("GET", "/upload/url"),
        ("GET", "/upload/download"),
        ("HEAD", "/upload/download"),
    ];
    for (method, path) in calls {
        send(&router, method, &format!("{BASE}{path}"), "200").await;
    }
    for (method, path) in [
        ("GET", "/healthz"),
        ("GET", "/readyz"),
        ("MADEUP", "/made-up"),
    ] {
        send(&router, method, path, "200").await;
    }
    let statuses = [
        "206", "304", "400", "401", "403", "404", "405", "408", "409", "412", "413", "416", "421",
        "422", "429", "431", "499", "500", "501", "503", "504",
    ];
    for (number, status) in statuses.into_iter().enumerate() {
        for place in 0..REFUSALS {
            let (method, path) = calls[(number + place) % calls.len()];
            send(&router, method, &format!("{BASE}{path}"), status).await;
        }
    }
}

/// Every call to a store, and every kind of failure of each store.
async fn call_stores(metrics: &Metrics) {
    for name in decorate::calls() {
        let is_state = name.starts_with("state.");
        let observed: Vec<Observed> = match is_state {
            true => vec![Observed::state(metrics)],
            false => STORAGES.map(|id| Observed::storage(metrics, id)).into(),
        };
        for observed in observed {
            let done: Result<()> = observed.around(name, || async { Ok(()) }).await;
            done.unwrap();
            if ["state.get", "store.put_part"].contains(&name) {
                for kind in KINDS {
                    let failed: Result<()> =
                        observed.around(name, || async { Err(error(kind)) }).await;
                    failed.unwrap_err();
                }
            }
        }
    }
}

/// Everything that use cases note.
fn use_gateway(metrics: &Metrics) {
    let took = Duration::from_millis(1);
    metrics.note(Done::Hashed { took });
    metrics.note(Done::TookOver);
    metrics.note(Done::Committed {
        result: &Ok(()),
        took,
    });
    for kind in KINDS {
        let result = &Err(error(kind));
        metrics.note(Done::Committed { result, took });
    }
    for storage in STORAGES.map(Some).into_iter().chain([None]) {
        let throttled = error(Kind::Unavailable).congested();
        let refused = Error::for_operator("AccessDenied", "403");
        for failed in [
            &error(Kind::Unavailable),
            &throttled,
            &refused,
            &Error::state_full("oom"),
        ] {
            metrics.note(Done::Retried { storage, failed });
        }
    }
    for storage in STORAGES {
        metrics.note(Done::Stored { storage, size: 1 });
        metrics.note(Done::Read { storage, bytes: 1 });
    }
    let swept = Ok(Some(SweepReport::default()));
    metrics.note_sweep(&swept, took);
    metrics.note_sweep(&Err(error(Kind::Unavailable)), took);
}

/// Metrics after every call, every refusal, and everything else.
async fn full() -> Metrics {
    let metrics = metrics();
    call_grpc(&metrics).await;
    call_http(&metrics).await;
    call_stores(&metrics).await;
    use_gateway(&metrics);
    for tenant in 0..2 * MAX_TENANTS {
        for transition in TRANSITIONS {
            metrics.note_tenant(&format!("tenant-{tenant}"), transition, 1);
        }
    }
    metrics
}

#[tokio::test]
async fn ten_storages_have_at_most_6000_series() {
    let text = text(&full().await);
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let series = lines.filter_map(|line| Some(line.rsplit_once(' ')?.0));
    let series: BTreeSet<&str> = series.collect();
    println!("{} series, {} bytes", series.len(), text.len());
    assert!(
        series.len() > 4_000,
        "{}: not everything was called",
        series.len()
    );
    assert!(series.len() <= MAX_SERIES, "{} series", series.len());
}

#[tokio::test]
async fn ten_thousand_made_up_names_add_no_series() {
    let metrics = full().await;
    let before = text(&metrics).lines().count();
    let grpc = grpc_calls(&metrics);
    let http = http_calls(Router::new().fallback(answer), &metrics);
    for number in 0..10_000 {
        send(&grpc, "POST", &format!("/made.up/{number}"), "12").await;
        let method = format!("MADEUP{number}");
        send(&http, &method, &format!("/made-up/{number}"), "200").await;
        metrics.note_tenant(&format!("made-up-{number}"), TRANSITIONS[0], 1);
    }
    assert_eq!(text(&metrics).lines().count(), before);
}

/// Observes a call of the trace with this id.
#[derive(Debug)]
struct OfTrace(&'static str);

impl Observe for OfTrace {
    fn origin(&self) -> Origin {
        Origin(self.0.into())
    }

    fn trace_id(&self) -> String {
        self.0.into()
    }

    fn works_on(&self, _upload: &Upload) {}

    fn around_part<'a>(
        &'a self,
        _part: PartToStore,
        store: BoxFuture<'a, Result<()>>,
    ) -> BoxFuture<'a, Result<()>> {
        store
    }
}

#[tokio::test]
async fn each_bucket_of_calls_names_its_last_trace() {
    let metrics = metrics();
    let grpc = grpc_calls(&metrics);
    let http = http_calls(Router::new().fallback(answer), &metrics);
    let stores = [
        ("store.put_part", Observed::storage(&metrics, STORAGES[0])),
        ("state.get", Observed::state(&metrics)),
    ];
    let calls = async || {
        send(&grpc, "POST", "/made.up/Method", "0").await;
        send(&http, "GET", "/made-up", "200").await;
        for (name, store) in &stores {
            let done: Result<()> = store.around(name, || async { Ok(()) }).await;
            done.unwrap();
        }
    };
    calls().await;
    assert!(!text(&metrics).contains("trace_id"));
    for trace in ["7a", "7b"] {
        call::scope(Arc::new(Observer(Box::new(OfTrace(trace)))), calls()).await;
    }
    let text = text(&metrics);
    for family in [
        "rpc_server_call_duration_seconds_bucket",
        "http_server_request_duration_seconds_bucket",
        "upload_gateway_store_call_duration_seconds_bucket",
        "upload_gateway_state_call_duration_seconds_bucket",
    ] {
        let of_family = |line: &&str| line.starts_with(family) && line.contains('#');
        let named: Vec<&str> = text.lines().filter(of_family).collect();
        let is_last = named
            .iter()
            .any(|line| line.contains(" # {trace_id=\"7b\"} "));
        assert!(is_last, "{family}: {named:?}");
    }
}

/// The names of the labels of a series.
fn labels(series: &str) -> BTreeSet<&str> {
    let labels = series.split_once('{').map_or("", |(_, rest)| rest);
    let labels = labels.split("\",");
    labels
        .filter_map(|label| Some(label.split_once('=')?.0))
        .collect()
}

#[tokio::test]
async fn the_page_has_all_metrics_with_types_and_labels() {
    let text = text(&full().await);
    let mut measured = BTreeMap::new();
    for line in text.lines() {
        let Some((name, kind)) = line
            .strip_prefix("# TYPE ")
            .and_then(|rest| rest.split_once(' '))
        else {
            continue;
        };
        let suffix = match kind {
            "histogram" => "_count",
            "counter" => "_total",
            "info" => "_info",
            _ => "",
        };
        let series = format!("{name}{suffix}");
        let is_one = |line: &&str| {
            line.strip_prefix(&*series)
                .is_some_and(|rest| rest.starts_with(['{', ' ']))
        };
        let found = text
            .lines()
            .find(is_one)
            .unwrap_or_else(|| panic!("no {series}"));
        let shown = if kind == "counter" {
            series
        } else {
            name.to_owned()
        };
        measured.insert(shown, (kind, labels(found)));
    }
    let page = include_str!("../../docs/metrics.md");
    let rows = page.lines().filter(|line| line.starts_with("| `"));
    let documented = rows.map(|row| {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let labels = cells[3].split(", ").map(|label| label.trim_matches('`'));
        let labels = labels.filter(|label| !label.is_empty()).collect();
        (cells[1].trim_matches('`').to_owned(), (cells[2], labels))
    });
    assert_eq!(documented.collect::<BTreeMap<_, _>>(), measured);
}
