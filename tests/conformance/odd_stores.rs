//! The servers that make odd stores of good ones: they do what they are there for, and nothing else.

use aws_sdk_s3::{
    Client,
    config::{Credentials, RequestChecksumCalculation},
    error::{ProvideErrorMetadata, SdkError},
    types::{ChecksumAlgorithm, CompletedMultipartUpload, CompletedPart},
};
use upload_gateway_core::upload::Crc64Nvme;

use crate::common::{
    self, S3Backend,
    layer::Protocol,
    odd_store::{Habit, OddStore},
};

const KEY: &str = "directory/key with spaces & ü";
const BODY: &[u8] = b"Hello World";
const RIGHT: &str = "ZZYyy35L4mE=";
const WRONG: &str = "AAAAAAAAAAA=";

/// A store behind a server that has a habit.
struct Odd {
    s3: S3Backend,
    store: OddStore,
    client: Client,
}

/// The result of a call, or the code of its error.
fn code<T, E: ProvideErrorMetadata + std::fmt::Debug>(
    answer: Result<T, SdkError<E>>,
) -> Result<T, String> {
    answer.map_err(|error| match error.code() {
        Some(code) => code.to_owned(),
        None => format!("{error:?}"),
    })
}

impl Odd {
    async fn start(habit: impl FnOnce(&S3Backend) -> Habit) -> Option<Self> {
        let s3 = common::s3().await?;
        let store = OddStore::start(&s3.endpoint, Protocol::S3, habit(&s3)).await;
        let client = s3.client().config().to_builder();
        let client = client
            .endpoint_url(&store.endpoint)
            .request_checksum_calculation(RequestChecksumCalculation::WhenRequired);
        let client = Client::from_conf(client.build());
        Some(Self { s3, store, client })
    }

    async fn put(&self, key: &str, crc: Option<&str>) -> Result<Option<String>, String> {
        let put = self.client.put_object().bucket(&self.s3.bucket).key(key);
        let put = put.set_checksum_crc64_nvme(crc.map(str::to_owned));
        let answer = put.body(BODY.to_vec().into()).send().await;
        code(answer).map(|answer| answer.checksum_crc64_nvme)
    }

    async fn create(&self, crc: bool) -> (String, Option<ChecksumAlgorithm>) {
        let create = self.client.create_multipart_upload();
        let create = create.bucket(&self.s3.bucket).key(KEY);
        let create = create.set_checksum_algorithm(crc.then_some(ChecksumAlgorithm::Crc64Nvme));
        let created = create.send().await.unwrap();
        (created.upload_id.unwrap(), created.checksum_algorithm)
    }

    async fn part(&self, id: &str, crc: Option<&str>) -> Result<String, String> {
        let part = self.client.upload_part().bucket(&self.s3.bucket).key(KEY);
        let part = part.upload_id(id).part_number(1);
        let part = part.set_checksum_crc64_nvme(crc.map(str::to_owned));
        let answer = part.body(BODY.to_vec().into()).send().await;
        code(answer).map(|answer| answer.e_tag.unwrap())
    }

    /// Completes with one part. Returns the CRC in the answer, and whether it has a type.
    async fn complete(
        &self,
        id: &str,
        etag: &str,
        crc: Option<&str>,
    ) -> Result<(Option<String>, bool), String> {
        let part = CompletedPart::builder().part_number(1).e_tag(etag);
        let part = part.set_checksum_crc64_nvme(crc.map(str::to_owned));
        let list = CompletedMultipartUpload::builder().parts(part.build());
        let complete = self.client.complete_multipart_upload();
        let complete = complete.bucket(&self.s3.bucket).key(KEY).upload_id(id);
        let answer = code(complete.multipart_upload(list.build()).send().await)?;
        Ok((answer.checksum_crc64_nvme, answer.checksum_type.is_some()))
    }

    /// Whether the store itself has the object.
    async fn has(&self, key: &str) -> bool {
        let head = self.s3.client().head_object();
        head.bucket(&self.s3.bucket).key(key).send().await.is_ok()
    }
}

#[tokio::test]
async fn minio_wants_the_checksum_of_each_part_or_of_none() {
    let Some(odd) = Odd::start(|_| Habit::MinIo).await else {
        return;
    };
    let mismatch = "XAmzContentChecksumMismatch";
    assert_eq!(odd.put(KEY, Some(WRONG)).await.unwrap_err(), mismatch);
    assert!(!odd.has(KEY).await);
    assert_eq!(
        odd.put("other", Some(RIGHT)).await.unwrap().as_deref(),
        Some(RIGHT)
    );

    let (id, algorithm) = odd.create(true).await;
    assert_eq!(algorithm, Some(ChecksumAlgorithm::Crc64Nvme));
    assert_eq!(odd.part(&id, None).await.unwrap_err(), "InvalidArgument");
    assert_eq!(odd.part(&id, Some(WRONG)).await.unwrap_err(), mismatch);
    let etag = odd.part(&id, Some(RIGHT)).await.unwrap();
    let bare = odd.complete(&id, &etag, None).await;
    assert_eq!(bare.unwrap_err(), "InvalidPart");
    let complete = odd.complete(&id, &etag, Some(RIGHT)).await;
    assert_eq!(complete.unwrap(), (Some(RIGHT.to_owned()), false));

    let (id, algorithm) = odd.create(false).await;
    assert_eq!(algorithm, None);
    let refused = odd.part(&id, Some(RIGHT)).await;
    assert_eq!(refused.unwrap_err(), "InvalidRequest");
    let etag = odd.part(&id, None).await.unwrap();
    let complete = odd.complete(&id, &etag, None).await;
    assert_eq!(complete.unwrap(), (None, false));
    assert_eq!(odd.store.refused(), 3);
}

#[tokio::test]
async fn wrong_checksums_that_are_dropped_do_not_reach_s3() {
    let keys = |s3: &S3Backend| {
        let keys = Credentials::from_keys(s3.access_key, s3.secret_key, None);
        Habit::DropsChecksums(Some(keys))
    };
    let Some(odd) = Odd::start(keys).await else {
        return;
    };
    odd.put(KEY, Some(WRONG)).await.unwrap();
    odd.put("plain", None).await.unwrap();
    assert!(odd.has(KEY).await && odd.has("plain").await);
    let (id, algorithm) = odd.create(true).await;
    assert_eq!(algorithm, None);
    let etag = odd.part(&id, Some(WRONG)).await.unwrap();
    odd.complete(&id, &etag, None).await.unwrap();
    // Not even the question reaches the store.
    let head = odd.client.head_object().bucket(&odd.s3.bucket).key(KEY);
    let head = head.checksum_mode(aws_sdk_s3::types::ChecksumMode::Enabled);
    assert_eq!(head.send().await.unwrap().checksum_crc64_nvme, None);

    // Content-MD5 is not a checksum of this kind.
    let put = odd.client.put_object().bucket(&odd.s3.bucket).key("md5");
    let put = put.checksum_crc64_nvme(RIGHT);
    let put = put.content_md5("AAAAAAAAAAAAAAAAAAAAAA==");
    let answer = put.body(BODY.to_vec().into()).send().await;
    assert_eq!(code(answer).unwrap_err(), "BadDigest");
}

#[tokio::test]
async fn wrong_checksums_that_are_dropped_do_not_reach_azure() {
    let Some(azure) = common::azure().await else {
        return;
    };
    let (server, _) = azure.endpoint.rsplit_once('/').unwrap();
    let odd = OddStore::start(server, Protocol::Azure, Habit::DropsChecksums(None)).await;
    let right = Crc64Nvme::of(BODY).to_azure();
    for (host, crc, status) in [
        (server, WRONG, 400),
        (server, &*right, 201),
        (&*odd.endpoint, WRONG, 201),
    ] {
        let blob = azure.client().blob_client("blob").url().to_string();
        let put = reqwest::Client::new().put(blob.replace(server, host));
        let put = put
            .header("x-ms-blob-type", "BlockBlob")
            .header("x-ms-content-crc64", crc);
        let answer = put.body(BODY).send().await.unwrap();
        assert_eq!(answer.status(), status, "{host} {crc}");
    }
}

#[tokio::test]
async fn puts_below_a_directory_are_denied_and_others_pass() {
    let denied = || Habit::DeniesPuts("directory".to_owned());
    let Some(odd) = Odd::start(|_| denied()).await else {
        return;
    };
    assert_eq!(odd.put(KEY, None).await.unwrap_err(), "AccessDenied");
    let (id, _) = odd.create(false).await;
    assert_eq!(odd.part(&id, None).await.unwrap_err(), "AccessDenied");
    assert!(!odd.has(KEY).await);
    odd.put("directory of another name", None).await.unwrap();
    odd.put("other/directory/key", None).await.unwrap();
    let delete = odd.client.delete_object().bucket(&odd.s3.bucket).key(KEY);
    delete.send().await.unwrap();
    assert_eq!(odd.store.refused(), 2);
}

#[tokio::test]
async fn objects_that_cannot_be_deleted_stay_and_uploads_can_be_aborted() {
    let Some(odd) = Odd::start(|_| Habit::DeniesDeletes).await else {
        return;
    };
    odd.put(KEY, None).await.unwrap();
    let delete = odd.client.delete_object().bucket(&odd.s3.bucket).key(KEY);
    let refused = code(delete.send().await);
    assert_eq!(refused.unwrap_err(), "AccessDenied");
    assert!(odd.has(KEY).await);
    let (id, _) = odd.create(false).await;
    let abort = odd.client.abort_multipart_upload();
    let abort = abort.bucket(&odd.s3.bucket).key(KEY).upload_id(id);
    abort.send().await.unwrap();
    assert_eq!(odd.store.refused(), 1);
}
