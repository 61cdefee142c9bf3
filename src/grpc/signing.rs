//! `SigningService`: clients send bytes straight to the store.

use std::sync::Arc;

use tonic::{Request, Response, Status};
use upload_gateway_client::proto::v1::{
    CompleteUploadRequest, CreateUploadRequest, GetResidenceRequest, GetResidenceResponse,
    SignDownloadRequest, SignDownloadResponse, SignFinishRequest, SignPartRequest,
    SignPartsRequest, SignPartsResponse, SignedStep, UpdateUploadRequest, Upload,
};
use upload_gateway_core::{blobs::sign::ReadVerb, error::All, gateway::Gateway};

use super::{
    call::{caller, respond},
    convert,
};
use crate::proto::v1::signing_service_server::SigningService;

/// Serves `SigningService`.
#[derive(Debug, Clone)]
pub struct SigningApi {
    gateway: Arc<Gateway>,
}

// === impl SigningApi ===

impl SigningApi {
    /// Serves `gateway`.
    pub fn new(gateway: Arc<Gateway>) -> Self {
        Self { gateway }
    }
}

#[tonic::async_trait]
impl SigningService for SigningApi {
    async fn get_residence(
        &self,
        request: Request<GetResidenceRequest>,
    ) -> Result<Response<GetResidenceResponse>, Status> {
        let caller = caller(&request)?;
        let found =
            convert::signing::file_to_check(request.into_inner()).and_then(|(file, storage_id)| {
                self.gateway.signing.residence(&caller, file, &storage_id)
            });
        respond(found.map(convert::signing::residence_response))
    }

    async fn create_upload(
        &self,
        request: Request<CreateUploadRequest>,
    ) -> Result<Response<SignedStep>, Status> {
        let caller = caller(&request)?;
        let step = async {
            let (file, storage_id) = convert::signing::file_to_create(request.into_inner())?;
            self.gateway
                .signing
                .create_signed(&caller, file, &storage_id)
                .await
        };
        respond(step.await.map(convert::signing::step))
    }

    async fn update_upload(
        &self,
        request: Request<UpdateUploadRequest>,
    ) -> Result<Response<SignedStep>, Status> {
        let caller = caller(&request)?;
        let step = async {
            let (id, report, next) = convert::signing::report(request.into_inner())?;
            self.gateway
                .signing
                .sign_next(&caller, &id, report, next)
                .await
        };
        respond(step.await.map(convert::signing::step))
    }

    async fn sign_part(
        &self,
        request: Request<SignPartRequest>,
    ) -> Result<Response<SignedStep>, Status> {
        let caller = caller(&request)?;
        let step = async {
            let request = request.get_ref();
            let (id, part) = (
                convert::upload_id("upload_id", &request.upload_id),
                convert::signing::part_to_sign(request.part, &request.file_id),
            )
                .all()?;
            self.gateway.signing.sign_part(&caller, &id, part).await
        };
        respond(step.await.map(convert::signing::step))
    }

    async fn sign_parts(
        &self,
        request: Request<SignPartsRequest>,
    ) -> Result<Response<SignPartsResponse>, Status> {
        let caller = caller(&request)?;
        let steps = async {
            let request = request.get_ref();
            let (id, parts) = (
                convert::upload_id("upload_id", &request.upload_id),
                convert::signing::parts_to_sign(&request.parts),
            )
                .all()?;
            self.gateway.signing.sign_parts(&caller, &id, &parts).await
        };
        respond(steps.await.map(|steps| SignPartsResponse {
            steps: steps.into_iter().map(convert::signing::step).collect(),
        }))
    }

    async fn sign_finish(
        &self,
        request: Request<SignFinishRequest>,
    ) -> Result<Response<SignedStep>, Status> {
        let caller = caller(&request)?;
        let step = async {
            let id = convert::upload_id("upload_id", &request.get_ref().upload_id)?;
            self.gateway.signing.sign_finish(&caller, &id).await
        };
        respond(step.await.map(convert::signing::step))
    }

    async fn complete_upload(
        &self,
        request: Request<CompleteUploadRequest>,
    ) -> Result<Response<Upload>, Status> {
        let caller = caller(&request)?;
        let completed = async {
            let id = convert::upload_id("upload_id", &request.get_ref().upload_id)?;
            self.gateway.signing.complete_upload(&caller, &id).await
        };
        respond(completed.await.map(|upload| convert::upload(&upload)))
    }

    async fn sign_download(
        &self,
        request: Request<SignDownloadRequest>,
    ) -> Result<Response<SignDownloadResponse>, Status> {
        let caller = caller(&request)?;
        let signed = async {
            let request = request.get_ref();
            let (id, lifetime) = (
                convert::upload_id("upload_id", &request.upload_id),
                convert::signing::download_lifetime(request.expiry_minutes),
            )
                .all()?;
            self.gateway
                .downloads
                .sign_download(&caller, &id, ReadVerb::Get, lifetime)
                .await
        };
        respond(signed.await.map(|signed| SignDownloadResponse {
            signature: Some(convert::signing::signature(signed)),
        }))
    }
}
