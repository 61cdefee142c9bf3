//! A client that sends bytes directly to the store.

use std::collections::HashMap;

use reqwest::Method;
use tonic::{
    Request, Status,
    metadata::AsciiMetadataValue,
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Channel, Endpoint},
};
use upload_gateway_client::proto::v1::{
    CompleteUploadRequest, CreateUploadRequest, FileMetadata, Part, PartRef, SignFinishRequest,
    SignPartRequest, Signature, SignedStep, StepType, UpdateUploadRequest, Upload,
    signing_service_client::SigningServiceClient, update_upload_request::Next,
};
use upload_gateway_core::upload::Md5;

use super::TestGateway;

pub(crate) const PART: usize = 5 * 1024 * 1024;

/// A client of the gateway and of the store.
#[derive(Clone)]
pub(crate) struct Client {
    pub(crate) signing: SigningServiceClient<InterceptedService<Channel, Faults>>,
    http: reqwest::Client,
}

/// The fault header of every call.
#[derive(Clone)]
pub(crate) struct Faults(Option<AsciiMetadataValue>);

impl Interceptor for Faults {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(faults) = &self.0 {
            let metadata = request.metadata_mut();
            metadata.insert("x-upload-gateway-fault", faults.clone());
        }
        Ok(request)
    }
}

impl Client {
    pub(crate) async fn of(gateway: &TestGateway) -> Self {
        Self::with_faults(gateway, Faults(None)).await
    }

    /// A client that sends `faults` with every call.
    #[allow(
        dead_code,
        reason = "not every program that has this client asks for faults"
    )]
    pub(crate) async fn asking_for(gateway: &TestGateway, faults: &str) -> Self {
        Self::with_faults(gateway, Faults(Some(faults.parse().unwrap()))).await
    }

    async fn with_faults(gateway: &TestGateway, faults: Faults) -> Self {
        let channel = Endpoint::new(gateway.grpc.clone()).unwrap();
        let channel = channel.connect().await.unwrap();
        Self {
            signing: SigningServiceClient::with_interceptor(channel, faults),
            http: reqwest::Client::new(),
        }
    }

    pub(crate) async fn create(&mut self, file: FileMetadata) -> Result<SignedStep, Status> {
        let request = CreateUploadRequest { file: Some(file) };
        let step = self.signing.create_upload(request).await?;
        Ok(step.into_inner())
    }

    /// Sends a signed request; the answer's status and body.
    pub(crate) async fn send(&self, signature: &Signature, body: Vec<u8>) -> (u16, String) {
        let method: Method = signature.verb.parse().unwrap();
        let mut request = self.http.request(method, &signature.url);
        if body.is_empty() && signature.verb != "GET" {
            // reqwest sends no Content-Length for an empty body.
            request = request.header("Content-Length", 0);
        }
        let mut request = request.body(body);
        for (name, value) in &signature.headers {
            request = request.header(name, value);
        }
        let answer = request.send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    }

    /// Sends a signed request that must succeed.
    pub(crate) async fn deliver(&self, step: &SignedStep, body: Vec<u8>) -> String {
        let signature = step.signature.as_ref().unwrap();
        let (status, answer) = self.send(signature, body).await;
        assert!(
            (200..300).contains(&status),
            "{} {}: {status} {answer}",
            signature.verb,
            signature.url
        );
        answer
    }

    /// Begins the store's session, if it has sessions, and reports it; on Azure any name is accepted.
    pub(crate) async fn begin(&mut self, step: &SignedStep) -> String {
        assert_eq!(step.r#type(), StepType::ChunkedUpload);
        let session = if step.signature.as_ref().unwrap().url.is_empty() {
            "any text".replace(' ', "-")
        } else {
            let answer = self.deliver(step, Vec::new()).await;
            let (_, rest) = answer.split_once("<UploadId>").unwrap();
            rest.split_once("</UploadId>").unwrap().0.to_owned()
        };
        self.report(&step.upload_id, &session, &[], None)
            .await
            .unwrap();
        session
    }

    pub(crate) async fn report(
        &mut self,
        upload_id: &str,
        resumable_id: &str,
        parts: &[(i32, Md5)],
        next: Option<Next>,
    ) -> Result<SignedStep, Status> {
        let request = UpdateUploadRequest {
            upload_id: upload_id.into(),
            resumable_id: resumable_id.into(),
            part_list: parts.iter().map(|(part, _)| *part).collect(),
            part_data: parts.iter().map(|(part, md5)| data(*part, *md5)).collect(),
            next,
        };
        Ok(self.signing.update_upload(request).await?.into_inner())
    }

    pub(crate) async fn sign_part(
        &mut self,
        upload_id: &str,
        part: i32,
        bytes: &[u8],
    ) -> Result<SignedStep, Status> {
        let request = SignPartRequest {
            upload_id: upload_id.into(),
            part,
            file_id: Md5::of(bytes).to_string(),
        };
        Ok(self.signing.sign_part(request).await?.into_inner())
    }

    /// Signs and sends one part of `file`.
    pub(crate) async fn put_part(&mut self, upload_id: &str, part: i32, file: &[u8]) {
        let bytes = part_of(file, part);
        let step = self.sign_part(upload_id, part, bytes).await.unwrap();
        assert_eq!(step.r#type(), StepType::PartUpload);
        self.deliver(&step, bytes.to_vec()).await;
    }

    /// Creates an upload and puts every part of `bytes`. Returns the id.
    pub(crate) async fn put_parts(&mut self, name: &str, bytes: &[u8]) -> String {
        let step = self.create(file(name, bytes)).await.unwrap();
        self.begin(&step).await;
        for part in (1..).take(bytes.len().div_ceil(PART)) {
            self.put_part(&step.upload_id, part, bytes).await;
        }
        step.upload_id
    }

    pub(crate) async fn sign_finish(&mut self, upload_id: &str) -> Result<SignedStep, Status> {
        let request = SignFinishRequest {
            upload_id: upload_id.into(),
        };
        Ok(self.signing.sign_finish(request).await?.into_inner())
    }

    pub(crate) async fn complete(&mut self, upload_id: &str) -> Result<Upload, Status> {
        let request = CompleteUploadRequest {
            upload_id: upload_id.into(),
        };
        Ok(self.signing.complete_upload(request).await?.into_inner())
    }

    /// Signs the finish, sends it, and completes the upload.
    pub(crate) async fn finish(&mut self, upload_id: &str) -> Upload {
        self.commit(upload_id).await;
        self.complete(upload_id).await.unwrap()
    }

    /// Signs the finish and sends it.
    pub(crate) async fn commit(&mut self, upload_id: &str) {
        let step = self.sign_finish(upload_id).await.unwrap();
        assert_eq!(step.r#type(), StepType::Finish);
        let body = step.body.clone().unwrap();
        let answer = self.deliver(&step, body.into_bytes()).await;
        assert!(!answer.contains("<Error>"), "{answer}");
    }
}

pub(crate) fn data(part: i32, md5: Md5) -> Part {
    Part {
        part,
        md5: md5.to_string(),
        ..Part::default()
    }
}

pub(crate) fn next_part(part: i32, bytes: &[u8]) -> Option<Next> {
    Some(Next::Part(PartRef {
        part,
        file_id: Md5::of(bytes).to_string(),
    }))
}

/// The bytes of one part, of the size that the gateway dictates.
pub(crate) fn part_of(file: &[u8], part: i32) -> &[u8] {
    file.chunks(PART)
        .nth(usize::try_from(part - 1).unwrap())
        .unwrap()
}

/// A file as PlaceOS clients describe it.
pub(crate) fn file(name: &str, bytes: &[u8]) -> FileMetadata {
    FileMetadata {
        file_name: name.into(),
        file_size: Some(i64::try_from(bytes.len()).unwrap()),
        file_id: Md5::of(bytes).to_string(),
        ..FileMetadata::default()
    }
}

/// The headers of a step.
pub(crate) fn headers(step: &SignedStep) -> &HashMap<String, String> {
    &step.signature.as_ref().unwrap().headers
}
