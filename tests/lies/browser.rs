//! A client that sends bytes straight to the store, with requests that the gateway signs. When the store refuses one, it
//! gets a new signature and sends it again, as browsers do.

use std::{fmt, time::Duration};

use tokio::time::sleep;
use tonic::{
    Status,
    transport::{Channel, Endpoint},
};
use tonic_types::StatusExt as _;
use upload_gateway_client::proto::v1::{
    CompleteUploadRequest, CreateUploadRequest, FileMetadata, Part, SignFinishRequest,
    SignPartRequest, Signature, SignedStep, UpdateUploadRequest, Upload,
    signing_service_client::SigningServiceClient,
};
use upload_gateway_core::upload::Md5;

use crate::{
    failed::Failed,
    world::{PART, World, reason},
};

/// The pause after a refused request.
const PAUSE: Duration = Duration::from_millis(50);

/// The codes of stores that have the object already.
const EXISTS: [&str; 3] = [
    "PreconditionFailed",
    "BlobAlreadyExists",
    "AuthorizationPermissionMismatch",
];

/// A client of the gateway and of the store, with one file.
pub(crate) struct Browser<'a> {
    world: &'a World,
    signing: SigningServiceClient<Channel>,
    http: reqwest::Client,
    file: FileMetadata,
    data: &'static [u8],
}

/// A refused request; all is empty if there is no answer.
#[derive(Debug, Default)]
struct Refused {
    status: u16,
    code: String,
}

// === impl Refused ===

impl fmt::Display for Refused {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {}", self.status, self.code)
    }
}

// === impl Browser ===

impl<'a> Browser<'a> {
    pub(crate) async fn new(world: &'a World, file: FileMetadata, data: &'static [u8]) -> Self {
        let channel = Endpoint::new(world.gateway().grpc.clone()).unwrap();
        let redirect = reqwest::redirect::Policy::none();
        Self {
            world,
            signing: SigningServiceClient::new(channel.connect().await.unwrap()),
            http: reqwest::Client::builder()
                .redirect(redirect)
                .build()
                .unwrap(),
            file,
            data,
        }
    }

    pub(crate) async fn create(&self) -> Result<SignedStep, Failed> {
        let request = || {
            let (mut signing, file) = (self.signing.clone(), Some(self.file.clone()));
            async move { signing.create_upload(CreateUploadRequest { file }).await }
        };
        let step = self.world.call("CreateUpload", request).await?;
        Ok(step.into_inner())
    }

    /// Puts the whole file; it may be that no answer arrives. Returns the upload's id.
    pub(crate) async fn put_whole(&self) -> Result<String, Failed> {
        let step = self.create().await?;
        loop {
            let signature = step.signature.as_ref().unwrap();
            let sent = self.send(signature, self.data.to_vec()).await;
            match sent {
                Ok(_) => return Ok(step.upload_id),
                // The first one arrived.
                Err(Refused { code, .. }) if EXISTS.contains(&code.as_str()) => {
                    return Ok(step.upload_id);
                }
                Err(refused) => self.pause(&format!("signed put: {refused}")).await?,
            }
        }
    }

    /// Puts the whole file and completes the upload.
    pub(crate) async fn upload_whole(&self) -> Result<Upload, Failed> {
        loop {
            let id = self.put_whole().await?;
            if let Some(upload) = self.complete(&id).await? {
                return Ok(upload);
            }
            self.pause("CompleteUpload: INCOMPLETE").await?;
        }
    }

    /// Completes an upload whose file was put whole.
    pub(crate) async fn complete_created(&self, id: &str) -> Result<Upload, Failed> {
        loop {
            if let Some(upload) = self.complete(id).await? {
                return Ok(upload);
            }
            self.pause("CompleteUpload: INCOMPLETE").await?;
        }
    }

    /// Begins the session, and puts the first `count` parts. Returns the upload's id.
    pub(crate) async fn put_parts(&self, count: i32) -> Result<String, Failed> {
        let step = self.create().await?;
        let id = step.upload_id.clone();
        let session = self.begin(&step).await?;
        self.report(&id, &session, &[]).await?;
        for part in 1..=count {
            self.put_part(&id, part).await?;
        }
        let parts: Vec<i32> = (1..=count).collect();
        self.report(&id, &session, &parts).await?;
        Ok(id)
    }

    /// Commits, without reporting it.
    pub(crate) async fn commit(&self, id: &str) -> Result<(), Failed> {
        loop {
            let request = SignFinishRequest {
                upload_id: id.to_owned(),
            };
            let signed = self.signing.clone().sign_finish(request).await;
            let step = match signed {
                Ok(step) => step.into_inner(),
                Err(status) => match reason(&status).as_str() {
                    // The commit before has succeeded.
                    "WRONG_PHASE" => return Ok(()),
                    "INCOMPLETE" => {
                        self.put_missing(id, &status).await?;
                        continue;
                    }
                    _ => {
                        self.world.wait_after("SignFinish", &status).await?;
                        continue;
                    }
                },
            };
            let body = step.body.clone().unwrap_or_default().into_bytes();
            match self.send(step.signature.as_ref().unwrap(), body).await {
                Ok(answer) if !answer.contains("<Error>") => return Ok(()),
                // The gateway looks for the object.
                _ if self.complete(id).await?.is_some() => return Ok(()),
                _ => self.pause("signed commit").await?,
            }
        }
    }

    /// Commits and completes.
    pub(crate) async fn finish(&self, id: &str) -> Result<Upload, Failed> {
        loop {
            self.commit(id).await?;
            if let Some(upload) = self.complete(id).await? {
                return Ok(upload);
            }
            self.pause("CompleteUpload: INCOMPLETE").await?;
        }
    }

    /// `None`: the gateway does not see the object.
    async fn complete(&self, id: &str) -> Result<Option<Upload>, Failed> {
        let request = || {
            let (mut signing, upload_id) = (self.signing.clone(), id.to_owned());
            async move {
                signing
                    .complete_upload(CompleteUploadRequest { upload_id })
                    .await
            }
        };
        match self.world.call("CompleteUpload", request).await {
            Ok(upload) => Ok(Some(upload.into_inner())),
            Err(Failed::Final { reason, .. }) if reason == "INCOMPLETE" => Ok(None),
            Err(failed) => Err(failed),
        }
    }

    /// Starts the store's session. A store without sessions accepts any name.
    async fn begin(&self, step: &SignedStep) -> Result<String, Failed> {
        let signature = step.signature.as_ref().unwrap();
        if signature.url.is_empty() {
            return Ok("a-name".into());
        }
        loop {
            if let Ok(answer) = self.send(signature, Vec::new()).await
                && let Some((_, rest)) = answer.split_once("<UploadId>")
                && let Some((id, _)) = rest.split_once("</UploadId>")
            {
                return Ok(id.to_owned());
            }
            self.pause("signed create of a session").await?;
        }
    }

    async fn report(&self, id: &str, session: &str, parts: &[i32]) -> Result<(), Failed> {
        let request = || {
            let mut signing = self.signing.clone();
            let request = UpdateUploadRequest {
                upload_id: id.into(),
                resumable_id: session.into(),
                part_list: parts.to_vec(),
                part_data: parts.iter().map(|part| self.claim(*part)).collect(),
                next: None,
            };
            async move { signing.update_upload(request).await }
        };
        self.world.call("UpdateUpload", request).await.map(drop)
    }

    async fn put_missing(&self, id: &str, status: &Status) -> Result<(), Failed> {
        let info = status.get_details_error_info();
        let missing = info.and_then(|info| info.metadata.get("missing_parts").cloned());
        let missing = missing.unwrap_or_default();
        let missing: Vec<i32> = missing
            .split(',')
            .filter_map(|part| part.parse().ok())
            .collect();
        self.pause("SignFinish: INCOMPLETE").await?;
        for part in missing {
            self.put_part(id, part).await?;
        }
        Ok(())
    }

    async fn put_part(&self, id: &str, part: i32) -> Result<(), Failed> {
        loop {
            let request = || {
                let mut signing = self.signing.clone();
                let request = SignPartRequest {
                    upload_id: id.to_owned(),
                    part,
                    file_id: self.claim(part).md5,
                };
                async move { signing.sign_part(request).await }
            };
            let step = self.world.call("SignPart", request).await?.into_inner();
            let body = self.bytes_of(part).to_vec();
            match self.send(step.signature.as_ref().unwrap(), body).await {
                Ok(_) => return Ok(()),
                Err(refused) => self.pause(&format!("signed part: {refused}")).await?,
            }
        }
    }

    /// The body of a successful answer.
    async fn send(&self, signature: &Signature, body: Vec<u8>) -> Result<String, Refused> {
        let method = signature.verb.parse::<reqwest::Method>().unwrap();
        let mut request = self.http.request(method, &signature.url);
        if body.is_empty() {
            // reqwest sends no Content-Length for an empty body.
            request = request.header("Content-Length", 0);
        }
        for (name, value) in &signature.headers {
            request = request.header(name, value);
        }
        let sent = async {
            let answer = request.body(body).send().await?;
            Ok::<_, reqwest::Error>((answer.status(), answer.text().await?))
        };
        let (status, text) = sent.await.map_err(|_| Refused::default())?;
        if status.is_success() {
            return Ok(text);
        }
        let code = text.split_once("<Code>");
        let code = code.and_then(|(_, rest)| Some(rest.split_once('<')?.0));
        Err(Refused {
            status: status.as_u16(),
            code: code.unwrap_or_default().into(),
        })
    }

    async fn pause(&self, last: &str) -> Result<(), Failed> {
        self.world.check_time(last)?;
        sleep(PAUSE).await;
        Ok(())
    }

    fn bytes_of(&self, part: i32) -> &'static [u8] {
        let index = usize::try_from(part - 1).unwrap();
        self.data.chunks(PART).nth(index).unwrap()
    }

    fn claim(&self, part: i32) -> Part {
        Part {
            part,
            md5: Md5::of(self.bytes_of(part)).to_string(),
            ..Part::default()
        }
    }
}
