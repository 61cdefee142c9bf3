//! `SigningService`: bytes straight to the store.

use tonic::{Request, Response, Status};

use crate::{
    error::{Error, Kind, Reason},
    proto::v1::{
        CompleteUploadRequest, CreateUploadRequest, GetResidenceRequest, GetResidenceResponse,
        SignDownloadRequest, SignDownloadResponse, SignFinishRequest, SignPartRequest,
        SignPartsRequest, SignPartsResponse, SignedStep, UpdateUploadRequest, Upload,
        signing_service_server::SigningService,
    },
    status::grpc_status,
};

/// Serves `SigningService`. Its calls are declared and not offered: each answers UNIMPLEMENTED.
#[derive(Debug, Clone, Copy, Default)]
pub struct SigningApi;

fn not_offered<T>() -> Result<Response<T>, Status> {
    let error = Error::new(
        Kind::Unimplemented,
        Reason::NotOffered,
        "this gateway does not sign requests",
    );
    Err(grpc_status(&error))
}

#[tonic::async_trait]
impl SigningService for SigningApi {
    async fn get_residence(
        &self,
        _request: Request<GetResidenceRequest>,
    ) -> Result<Response<GetResidenceResponse>, Status> {
        not_offered()
    }

    async fn create_upload(
        &self,
        _request: Request<CreateUploadRequest>,
    ) -> Result<Response<SignedStep>, Status> {
        not_offered()
    }

    async fn update_upload(
        &self,
        _request: Request<UpdateUploadRequest>,
    ) -> Result<Response<SignedStep>, Status> {
        not_offered()
    }

    async fn sign_part(
        &self,
        _request: Request<SignPartRequest>,
    ) -> Result<Response<SignedStep>, Status> {
        not_offered()
    }

    async fn sign_parts(
        &self,
        _request: Request<SignPartsRequest>,
    ) -> Result<Response<SignPartsResponse>, Status> {
        not_offered()
    }

    async fn sign_finish(
        &self,
        _request: Request<SignFinishRequest>,
    ) -> Result<Response<SignedStep>, Status> {
        not_offered()
    }

    async fn complete_upload(
        &self,
        _request: Request<CompleteUploadRequest>,
    ) -> Result<Response<Upload>, Status> {
        not_offered()
    }

    async fn sign_download(
        &self,
        _request: Request<SignDownloadRequest>,
    ) -> Result<Response<SignDownloadResponse>, Status> {
        not_offered()
    }
}
