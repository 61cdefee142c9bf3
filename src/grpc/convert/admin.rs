//! The messages of `AdminService`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prost_types::Timestamp;
use upload_gateway_client::proto::v1::{SetLogFilterResponse, UploadStop, UploadStops};
use upload_gateway_core::{gateway::Stop, upload};

use super::time as wire_time;

/// The time of a request. A time that is not set, or before the epoch, is the epoch.
pub(in crate::grpc) fn time(time: Option<Timestamp>) -> upload::Timestamp {
    let time = time.and_then(|time| SystemTime::try_from(time).ok());
    let since = time.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    upload::Timestamp(0).plus(since.unwrap_or_default())
}

/// All stops.
pub(in crate::grpc) fn stops(stops: Vec<Stop>) -> UploadStops {
    let stops = stops.into_iter().map(|stop| UploadStop {
        tenant: stop.scope.tenant,
        storage_id: stop.scope.storage_id,
        reason: stop.reason,
        stopped_by: stop.stopped_by,
        since: Some(wire_time(stop.since)),
        until: Some(wire_time(stop.until)),
    });
    UploadStops {
        stops: stops.collect(),
    }
}

/// The filter that applies now. `left`: how long the filter applies; `None`: it is that of the configuration.
pub(in crate::grpc) fn log_filter(
    filter: impl ToString,
    left: Option<Duration>,
) -> SetLogFilterResponse {
    SetLogFilterResponse {
        filter: filter.to_string(),
        until: left.map(|left| (SystemTime::now() + left).into()),
    }
}
