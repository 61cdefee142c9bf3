//! `UploadService`: streams of file bytes, and the calls on records.

mod incoming;

use std::{sync::Arc, time::Duration};

use futures::{Stream, StreamExt, stream, stream::Empty};
use tokio::time::{Instant, timeout, timeout_at};
use tonic::{Request, Response, Status, Streaming};
use upload_gateway_client::proto::v1::{
    CopyUploadRequest, DeleteUploadRequest, DownloadRequest, DownloadResponse, GetLimitsRequest,
    GetServerInfoRequest, GetUploadRequest, KeepUploadRequest, Limits, ListPartsRequest,
    ListPartsResponse, ListStoragesRequest, ListStoragesResponse, ListUploadsRequest,
    ListUploadsResponse, MoveUploadRequest, ServerInfo, Upload, UploadProgress, UploadRequest,
    UploadResponse, WatchUploadRequest,
};
use upload_gateway_core::{
    call,
    error::{All, Error, Result},
    faults,
    gateway::{Action, Caller, CopyTo, Gateway, Message},
    upload,
};

use self::incoming::Incoming;
use super::{
    call::{caller, respond},
    convert, deadline,
    messages::Uploading,
    progress::{self, ProgressMessages, Receiving},
};
use crate::{
    connections::LeaveConnection, proto::v1::upload_service_server::UploadService,
    status::grpc_status,
};

/// How long messages are discarded after the response, so that the client reads the response before the connection ends.
const DISCARD_TIMEOUT: Duration = Duration::from_secs(5);

/// The package of the API.
const API: &str = "uploadgateway.v1";

/// Serves `UploadService`.
#[derive(Debug, Clone)]
pub struct UploadApi {
    gateway: Arc<Gateway>,
    features: Vec<&'static str>,
}

// === impl UploadApi ===

impl UploadApi {
    /// Serves `gateway`, which has these features.
    pub fn new(gateway: Arc<Gateway>, features: Vec<&'static str>) -> Self {
        Self { gateway, features }
    }

    /// Receives in a task of its own: if the client disconnects, complete parts are still committed.
    fn receive(&self, mut request: Request<Streaming<UploadRequest>>) -> Result<Receiving, Status> {
        let caller = caller(&request)?;
        let gateway = Arc::clone(&self.gateway);
        let uploading = Uploading::taken(request.extensions_mut());
        let no_body = || Error::fault("receive a stream: its body was not carried");
        let uploading = uploading.ok_or_else(|| grpc_status(&no_body()))?;
        let memory = Arc::clone(&uploading.memory);
        let deadline = deadline::of(request.metadata().as_ref());
        let connection = request.extensions().get::<LeaveConnection>();
        let moves_on = connection.map_or_else(Default::default, LeaveConnection::token);
        let (observer, finished, receiving) = progress::observe(moves_on);
        tokio::spawn(call::propagate(async move {
            let messages = until(deadline, Incoming::of(uploading));
            let mut messages = faults::cut(messages.fuse().boxed());
            let result = gateway
                .streams
                .receive(&caller, memory, &mut messages, observer)
                .await;
            if let Err(Err(error)) = finished.send(result) {
                tracing::debug!(%error, "the client disconnected before its stream failed");
            }
            discard(&mut messages).await;
        }));
        Ok(receiving)
    }

    /// Copies or moves in a task of its own. It ends after the current part if the client disconnects.
    fn copy<C>(
        &self,
        request: &Request<impl Sized>,
        storage_id: &str,
        copy: impl FnOnce(Arc<Gateway>, Caller, CopyTo) -> C,
    ) -> Result<ProgressMessages, Status>
    where
        C: Future<Output = Result<upload::Upload>> + Send + 'static,
    {
        let connection = request.extensions().get::<LeaveConnection>();
        let moves_on = connection.map_or_else(Default::default, LeaveConnection::token);
        let (observer, finished, receiving) = progress::observe(moves_on);
        let to = CopyTo {
            storage_id: storage_id.to_owned(),
            observer,
            cancelled: receiving.cancelled(),
        };
        let copied = copy(Arc::clone(&self.gateway), caller(request)?, to);
        tokio::spawn(call::propagate(async move {
            // The client may have disconnected.
            let _ = finished.send(copied.await);
        }));
        Ok(progress::messages(receiving))
    }
}

/// The messages up to the deadline. Elsewhere it applies only until the response headers are sent.
fn until(
    deadline: Option<Instant>,
    messages: impl Stream<Item = Result<Message>> + Unpin,
) -> impl Stream<Item = Result<Message>> {
    stream::unfold(messages, move |mut messages| async move {
        let next = match deadline {
            Some(deadline) => timeout_at(deadline, messages.next()).await,
            None => Ok(messages.next().await),
        };
        let message = next.unwrap_or_else(|_| Some(Err(deadline::exceeded())))?;
        Some((message, messages))
    })
}

async fn discard(messages: &mut (impl Stream<Item = Result<Message>> + Unpin)) {
    let all = async { while let Some(Ok(_)) = messages.next().await {} };
    // A client that still sends has had time to read the response.
    let _ = timeout(DISCARD_TIMEOUT, all).await;
}

#[tonic::async_trait]
impl UploadService for UploadApi {
    async fn upload(
        &self,
        request: Request<Streaming<UploadRequest>>,
    ) -> Result<Response<UploadResponse>, Status> {
        let result = self.receive(request)?.ended().await;
        respond(result.map(|upload| UploadResponse {
            upload: Some(convert::upload(&upload)),
        }))
    }

    type UploadWithProgressStream = ProgressMessages;

    async fn upload_with_progress(
        &self,
        request: Request<Streaming<UploadRequest>>,
    ) -> Result<Response<Self::UploadWithProgressStream>, Status> {
        let receiving = self.receive(request)?;
        Ok(Response::new(progress::messages(receiving)))
    }

    async fn get_upload(
        &self,
        request: Request<GetUploadRequest>,
    ) -> Result<Response<Upload>, Status> {
        let caller = caller(&request)?;
        let found = async {
            let id = convert::upload_id("upload_id", &request.get_ref().upload_id)?;
            let upload = self
                .gateway
                .records
                .get_summary(&caller, Action::Read, &id)
                .await?;
            let token = self.gateway.tokens.resume_token(&upload).await?;
            Ok(convert::upload_with_token(&upload, &token))
        };
        respond(found.await)
    }

    type DownloadStream = Empty<Result<DownloadResponse, Status>>;

    async fn download(
        &self,
        _request: Request<DownloadRequest>,
    ) -> Result<Response<Self::DownloadStream>, Status> {
        Err(Status::unimplemented("served by with_downloads"))
    }

    async fn list_uploads(
        &self,
        request: Request<ListUploadsRequest>,
    ) -> Result<Response<ListUploadsResponse>, Status> {
        let caller = caller(&request)?;
        let page = async {
            let (search, start, limit) = convert::listing::search(request.into_inner())?;
            self.gateway
                .records
                .list_uploads(&caller, &search, start, limit)
                .await
        };
        respond(page.await.map(convert::upload_page))
    }

    async fn list_parts(
        &self,
        request: Request<ListPartsRequest>,
    ) -> Result<Response<ListPartsResponse>, Status> {
        let caller = caller(&request)?;
        let page = async {
            let request = request.get_ref();
            let (id, limit, after) = (
                convert::upload_id("upload_id", &request.upload_id),
                convert::page_size(request.page_size),
                convert::part_cursor(&request.page_token),
            )
                .all()?;
            let limit = u32::try_from(limit).unwrap_or(u32::MAX);
            let records = &self.gateway.records;
            let page = records.list_parts(&caller, &id, after, limit).await?;
            Ok(convert::part_page(&page))
        };
        respond(page.await)
    }

    async fn delete_upload(
        &self,
        request: Request<DeleteUploadRequest>,
    ) -> Result<Response<Upload>, Status> {
        let caller = caller(&request)?;
        let deleted = async {
            let id = convert::upload_id("upload_id", &request.get_ref().upload_id)?;
            self.gateway.delete_upload(&caller, &id).await
        };
        respond(deleted.await.map(|upload| convert::upload(&upload)))
    }

    async fn keep_upload(
        &self,
        request: Request<KeepUploadRequest>,
    ) -> Result<Response<Upload>, Status> {
        let caller = caller(&request)?;
        let kept = async {
            let request = request.get_ref();
            let (id, expire_after) = (
                convert::upload_id("upload_id", &request.upload_id),
                convert::expire_after("expire_after", request.expire_after.as_ref()),
            )
                .all()?;
            self.gateway.keep_upload(&caller, &id, expire_after).await
        };
        respond(kept.await.map(|upload| convert::upload(&upload)))
    }

    async fn list_storages(
        &self,
        request: Request<ListStoragesRequest>,
    ) -> Result<Response<ListStoragesResponse>, Status> {
        let caller = caller(&request)?;
        let default = self.gateway.storages.for_caller(&caller, "").ok();
        let default = default.as_ref().map(|storage| storage.id.as_str());
        let storages = self.gateway.storages_of(&caller);
        Ok(Response::new(convert::storages::storages(
            &storages, default,
        )))
    }

    async fn get_server_info(
        &self,
        request: Request<GetServerInfoRequest>,
    ) -> Result<Response<ServerInfo>, Status> {
        caller(&request)?;
        Ok(Response::new(ServerInfo {
            version: env!("CARGO_PKG_VERSION").into(),
            commit: option_env!("UPLOAD_GATEWAY_COMMIT")
                .unwrap_or_default()
                .into(),
            api_versions: vec![API.into()],
            features: self.features.iter().copied().map(str::to_owned).collect(),
        }))
    }

    async fn get_limits(
        &self,
        request: Request<GetLimitsRequest>,
    ) -> Result<Response<Limits>, Status> {
        let caller = caller(&request)?;
        let limits = self.gateway.limits(&caller, &request.get_ref().storage_id);
        respond(
            limits.map(|limits| convert::storages::limits(limits, &self.gateway.settings, &caller)),
        )
    }

    type CopyUploadStream = ProgressMessages;

    async fn copy_upload(
        &self,
        request: Request<CopyUploadRequest>,
    ) -> Result<Response<Self::CopyUploadStream>, Status> {
        let asked = request.get_ref();
        let id = convert::upload_id("upload_id", &asked.upload_id);
        let id = id.map_err(|error| grpc_status(&error))?;
        let copied = self.copy(
            &request,
            &asked.storage_id,
            |gateway, caller, to| async move { gateway.copy_upload(&caller, &id, to).await },
        );
        copied.map(Response::new)
    }

    type MoveUploadStream = ProgressMessages;

    async fn move_upload(
        &self,
        request: Request<MoveUploadRequest>,
    ) -> Result<Response<Self::MoveUploadStream>, Status> {
        let asked = request.get_ref();
        let id = convert::upload_id("upload_id", &asked.upload_id);
        let id = id.map_err(|error| grpc_status(&error))?;
        let moved = self.copy(
            &request,
            &asked.storage_id,
            |gateway, caller, to| async move { gateway.move_upload(&caller, &id, to).await },
        );
        moved.map(Response::new)
    }

    type WatchUploadStream = ProgressMessages;

    async fn watch_upload(
        &self,
        request: Request<WatchUploadRequest>,
    ) -> Result<Response<Self::WatchUploadStream>, Status> {
        let caller = caller(&request)?;
        let gateway = Arc::clone(&self.gateway);
        let found = async {
            let id = convert::upload_id("upload_id", &request.get_ref().upload_id)?;
            let records = &gateway.records;
            records.get_summary(&caller, Action::Read, &id).await
        };
        let found = found.await.map_err(|error| grpc_status(&error))?;
        if found.is_live() {
            return Ok(Response::new(watch(gateway, caller, found.id).boxed()));
        }
        // A record that was rebuilt may not be stored.
        let last = watched(&gateway, &found).await;
        let last = last.map_err(|error| grpc_status(&error));
        Ok(Response::new(stream::iter([last]).boxed()))
    }
}

/// The record, then its changes, up to the end of the upload.
fn watch(
    gateway: Arc<Gateway>,
    caller: Caller,
    id: upload::UploadId,
) -> impl Stream<Item = Result<UploadProgress, Status>> {
    let records = gateway.records.watch(&id);
    let begin = Some((records, None::<Arc<upload::Upload>>));
    stream::unfold(begin, move |watching| {
        let (gateway, caller, id) = (Arc::clone(&gateway), caller.clone(), id.clone());
        async move {
            let (mut records, seen) = watching?;
            let next = async {
                loop {
                    let found = records.next().await?;
                    let upload = found
                        .filter(|upload| caller.may_read(upload))
                        .ok_or_else(|| Error::upload_not_found(&id))?;
                    if seen.as_ref() == Some(&upload) {
                        continue;
                    }
                    let mut progress = watched(&gateway, &upload).await?;
                    if seen.is_some() && upload.is_live() {
                        progress.upload = None;
                    }
                    return Ok((progress, upload));
                }
            };
            Some(match next.await {
                Ok((progress, upload)) if upload.is_live() => {
                    (Ok(progress), Some((records, Some(upload))))
                }
                Ok((progress, _)) => (Ok(progress), None),
                Err(error) => (Err(grpc_status(&error)), None),
            })
        }
    })
}

/// A progress message with the record.
async fn watched(gateway: &Gateway, upload: &upload::Upload) -> Result<UploadProgress> {
    let token = gateway.tokens.resume_token(upload).await?;
    let committed_size = upload.committed_size();
    Ok(convert::progress_with_upload(
        upload,
        committed_size,
        &token,
    ))
}
