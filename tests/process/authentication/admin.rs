//! `AdminService`: operators stop new uploads on all replicas, change the log, and drain a replica.

use std::time::{Duration, SystemTime};

use upload_gateway_client::proto::v1::{
    AllowUploadsRequest, CreateUploadRequest, DrainRequest, DrainResponse, FileMetadata,
    ListUploadStopsRequest, SetLogFilterRequest, SetLogFilterResponse, SignedStep,
    StopUploadsRequest, UploadStops,
};

use super::guarded::Guarded;
use crate::common;

const STOP: &str = "AdminService/StopUploads";
const ALLOW: &str = "AdminService/AllowUploads";
const FILTER: &str = "AdminService/SetLogFilter";

/// Within this time a stop applies on every replica.
const EVERYWHERE: Duration = Duration::from_secs(5);

fn stop(tenant: &str, lasts: Duration) -> StopUploadsRequest {
    StopUploadsRequest {
        tenant: tenant.into(),
        reason: "the bucket moves".into(),
        until: Some((SystemTime::now() + lasts).into()),
        ..StopUploadsRequest::default()
    }
}

/// A create that is found again while its upload is open.
async fn create(gateway: &Guarded, principal: &str, name: &str) -> Result<String, String> {
    let file = FileMetadata {
        file_name: name.into(),
        file_size: Some(1),
        file_id: "1B2M2Y8AsgTpgAmY7PhCfg==".into(),
        ..FileMetadata::default()
    };
    let request = CreateUploadRequest { file: Some(file) };
    let created: Result<SignedStep, _> = gateway
        .ask("SigningService/CreateUpload", principal, &request)
        .await;
    created.map(|step| step.upload_id)
}

/// Waits until a create has this result, and returns how long it took.
async fn until_create(gateway: &Guarded, principal: &str, is_stopped: bool) -> Duration {
    let begun = SystemTime::now();
    let mut number = 0;
    common::until("creates have the expected result", async || {
        number += 1;
        let created = create(gateway, principal, &format!("{number}.bin")).await;
        created == Err("UPLOADS_STOPPED".into()) && is_stopped || created.is_ok() && !is_stopped
    })
    .await;
    begun.elapsed().unwrap()
}

#[tokio::test]
async fn a_stop_of_one_tenant_applies_on_every_replica_until_it_ends() {
    let Some(redis) = common::redis().await else {
        return;
    };
    let keys = redis.toml();
    let (Some(first), Some(other)) = (Guarded::start_on(&keys, ""), Guarded::start_on(&keys, ""))
    else {
        return;
    };
    let open = create(&other, "owner", "open.bin").await.unwrap();
    let hour = Duration::from_secs(3600);
    let stops: UploadStops = first.ask(STOP, "operator", &stop("a", hour)).await.unwrap();
    assert_eq!(stops.stops.len(), 1);
    assert_eq!(stops.stops[0].reason, "the bucket moves");
    assert_eq!(stops.stops[0].stopped_by, "ops");
    assert!(create(&first, "owner", "new.bin").await.is_err(), "at once");
    assert!(until_create(&other, "owner", true).await < EVERYWHERE);
    // An identical create continues an open upload, and other tenants are not stopped.
    assert_eq!(create(&other, "owner", "open.bin").await, Ok(open));
    for gateway in [&first, &other] {
        create(gateway, "other-tenant", "new.bin").await.unwrap();
    }
    let listed: UploadStops = other
        .ask(
            "AdminService/ListUploadStops",
            "operator",
            &ListUploadStopsRequest {},
        )
        .await
        .unwrap();
    assert_eq!(listed, stops);
    // The stop of another scope stays.
    let none = AllowUploadsRequest::default();
    let kept: UploadStops = first.ask(ALLOW, "operator", &none).await.unwrap();
    assert_eq!(kept, stops);
    let tenant = "a".to_owned();
    let request = AllowUploadsRequest {
        tenant,
        ..AllowUploadsRequest::default()
    };
    let left: UploadStops = first.ask(ALLOW, "operator", &request).await.unwrap();
    assert!(left.stops.is_empty());
    assert!(until_create(&other, "owner", false).await < EVERYWHERE);
    // A stop also ends by itself.
    let brief = stop("", Duration::from_secs(4));
    let _: UploadStops = other.ask(STOP, "operator", &brief).await.unwrap();
    until_create(&first, "other-tenant", true).await;
    until_create(&first, "other-tenant", false).await;
    let log = first.server.log();
    assert!(log.contains("stop_uploads"), "the audit log has it");
}

#[tokio::test]
async fn invalid_stops_are_refused() {
    let Some(gateway) = Guarded::start() else {
        return;
    };
    let hour = Duration::from_secs(3600);
    let valid = stop("a", hour);
    for invalid in [
        StopUploadsRequest::default(),
        stop("a", 8 * 24 * hour),
        StopUploadsRequest {
            until: Some((SystemTime::now() - hour).into()),
            ..valid.clone()
        },
        StopUploadsRequest {
            reason: " ".into(),
            ..valid.clone()
        },
        StopUploadsRequest {
            reason: "a\nb".into(),
            ..valid.clone()
        },
        StopUploadsRequest {
            tenant: "a".repeat(257),
            ..valid.clone()
        },
        StopUploadsRequest {
            until: Some(prost_types::Timestamp {
                seconds: i64::MAX,
                nanos: i32::MIN,
            }),
            ..valid.clone()
        },
    ] {
        let refused: Result<UploadStops, _> = gateway.ask(STOP, "operator", &invalid).await;
        assert_eq!(refused, Err("INVALID_FIELD".into()), "{invalid:?}");
    }
    for number in 0..100 {
        let stop = stop(&format!("tenant-{number}"), hour);
        let _: UploadStops = gateway.ask(STOP, "operator", &stop).await.unwrap();
    }
    let many: Result<UploadStops, _> = gateway.ask(STOP, "operator", &valid).await;
    assert_eq!(many, Err("OVERLOADED".into()));
}

#[tokio::test]
async fn a_log_filter_applies_for_its_time() {
    let Some(gateway) = Guarded::start() else {
        return;
    };
    let set = async |filter: &str, seconds| {
        let filter = filter.to_owned();
        let request = SetLogFilterRequest { filter, seconds };
        let set: Result<SetLogFilterResponse, _> = gateway.ask(FILTER, "operator", &request).await;
        set
    };
    for (filter, seconds) in [("loud", 1), ("trace", 1), ("warn", 3601), ("warn", -1)] {
        let refused = set(filter, seconds).await;
        assert_eq!(refused, Err("INVALID_FIELD".into()), "{filter} {seconds}");
    }
    let refusals = || gateway.server.log().matches("a call failed").count();
    let fail = async || {
        let unknown = create(&gateway, "operator", "a.bin").await;
        assert_eq!(unknown, Err("ROLE_MISSING".into()));
    };
    assert_eq!(set("off", 2).await.unwrap().filter, "off");
    let before = refusals();
    fail().await;
    assert_eq!(refusals(), before, "nothing is logged");
    common::until("the filter of the configuration is back", async || {
        fail().await;
        refusals() > before
    })
    .await;
    assert!(set("off", 0).await.unwrap().until.is_some());
    let configured = set("", 0).await.unwrap();
    assert_eq!((&*configured.filter, configured.until), ("debug", None));
    let before = refusals();
    fail().await;
    assert!(refusals() > before);
}

#[tokio::test]
async fn an_operator_drains_a_replica() {
    let Some(mut gateway) = Guarded::start() else {
        return;
    };
    let drained: Result<DrainResponse, _> = gateway
        .ask("AdminService/Drain", "operator", &DrainRequest {})
        .await;
    assert!(drained.is_ok());
    assert_eq!(gateway.server.wait().code(), Some(0));
}
