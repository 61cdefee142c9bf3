//! `AdminService`: operators change how running gateways behave.

use std::{sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};
use upload_gateway_client::proto::v1::{
    AllowUploadsRequest, DrainRequest, DrainResponse, ListUploadStopsRequest, SetLogFilterRequest,
    SetLogFilterResponse, StopUploadsRequest, UploadStops,
};
use upload_gateway_core::{
    error::{Error, Kind, Reason, Result},
    gateway::{Gateway, StopScope},
};

use super::{
    call::{caller, respond},
    convert,
};
use crate::{
    proto::v1::admin_service_server::AdminService,
    telemetry::{InvalidFilter, LogFilter},
};

/// How long a log filter applies if the request does not say it.
const DEFAULT_FILTER_TIME: Duration = Duration::from_secs(600);

/// The longest time for which a log filter applies.
const MAX_FILTER_TIME: Duration = Duration::from_secs(3600);

/// The longest log filter, in bytes.
const MAX_FILTER: usize = 1024;

/// Serves `AdminService`.
#[derive(Debug)]
pub struct AdminApi {
    gateway: Arc<Gateway>,
    /// `None`: the process does not write the log.
    log: Option<LogFilter>,
    /// Begins the shutdown when it is cancelled.
    shutdown: CancellationToken,
}

// === impl AdminApi ===

impl AdminApi {
    /// Serves `gateway`. `log` is the filter of this process, and `shutdown` begins to shut it down.
    pub(crate) fn new(
        gateway: Arc<Gateway>,
        log: Option<LogFilter>,
        shutdown: CancellationToken,
    ) -> Self {
        Self {
            gateway,
            log,
            shutdown,
        }
    }

    fn set_filter(&self, request: &SetLogFilterRequest) -> Result<SetLogFilterResponse> {
        let Some(log) = &self.log else {
            let message = "this process does not write the log";
            return Err(Error::new(Kind::Unimplemented, Reason::NotOffered, message));
        };
        if request.filter.is_empty() {
            return Ok(convert::admin::log_filter(log.reset(), None));
        }
        let time = match u64::try_from(request.seconds) {
            Ok(0) => DEFAULT_FILTER_TIME,
            Ok(seconds) if seconds <= MAX_FILTER_TIME.as_secs() => Duration::from_secs(seconds),
            _ => return Err(Error::invalid("seconds", "must be between 0 and 3600")),
        };
        if request.filter.len() > MAX_FILTER {
            return Err(Error::invalid("filter", "must have at most 1,024 bytes"));
        }
        match log.set(&request.filter, time) {
            Ok(()) => Ok(convert::admin::log_filter(&request.filter, Some(time))),
            Err(InvalidFilter(problem)) => Err(Error::invalid("filter", problem)),
        }
    }
}

#[tonic::async_trait]
impl AdminService for AdminApi {
    async fn stop_uploads(
        &self,
        request: Request<StopUploadsRequest>,
    ) -> Result<Response<UploadStops>, Status> {
        let caller = caller(&request)?;
        let StopUploadsRequest {
            tenant,
            storage_id,
            reason,
            until,
        } = request.into_inner();
        let scope = StopScope { tenant, storage_id };
        let until = convert::admin::time(until);
        let stops = self.gateway.stops.stop(&caller, scope, reason, until).await;
        respond(stops.map(convert::admin::stops))
    }

    async fn allow_uploads(
        &self,
        request: Request<AllowUploadsRequest>,
    ) -> Result<Response<UploadStops>, Status> {
        let caller = caller(&request)?;
        let AllowUploadsRequest { tenant, storage_id } = request.into_inner();
        let scope = StopScope { tenant, storage_id };
        let stops = self.gateway.stops.allow(&caller, &scope).await;
        respond(stops.map(convert::admin::stops))
    }

    async fn list_upload_stops(
        &self,
        request: Request<ListUploadStopsRequest>,
    ) -> Result<Response<UploadStops>, Status> {
        let stops = self.gateway.stops.list(&caller(&request)?).await;
        respond(stops.map(convert::admin::stops))
    }

    async fn set_log_filter(
        &self,
        request: Request<SetLogFilterRequest>,
    ) -> Result<Response<SetLogFilterResponse>, Status> {
        const ACTION: &str = "set_log_filter";
        let caller = caller(&request)?;
        let set = caller.may_operate(ACTION).and_then(|()| {
            let set = self.set_filter(request.get_ref());
            caller.operated(ACTION, &set);
            set
        });
        respond(set)
    }

    async fn drain(
        &self,
        request: Request<DrainRequest>,
    ) -> Result<Response<DrainResponse>, Status> {
        const ACTION: &str = "drain";
        let caller = caller(&request)?;
        let drained = caller.may_operate(ACTION).map(|()| {
            caller.operated(ACTION, &Ok(()));
            self.shutdown.cancel();
            DrainResponse {}
        });
        respond(drained)
    }
}
