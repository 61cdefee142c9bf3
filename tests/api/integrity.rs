//! Which digest stores get: those that compare CRC-64s, and those that ignore them, demand them or refuse the question.

use aws_sdk_s3::config::Credentials;
use upload_gateway::config::{S3Profile, StorageConfig};
use upload_gateway_client::proto::v1::{ListPartsRequest, Part, Phase, Upload};
use upload_gateway_core::{
    gateway::IntegrityChoice,
    upload::{Crc64Nvme, Md5},
};

use crate::common::{
    self, AzureBackend, Conversation, S3Backend, TestGateway, bytes, chunk, finish,
    layer::Protocol,
    odd_store::{Habit, OddStore},
    open, open_file, open_known, reason,
    signing_client::{Client, file, part_of},
};

/// The size in bytes of a part.
const PART: usize = 5 << 20;

/// Storages below this directory keep their questions in it.
const QUESTIONS: &str = "kept/here/.records";

fn s3_at(s3: &S3Backend, endpoint: &str) -> StorageConfig {
    let mut front = s3.clone();
    endpoint.clone_into(&mut front.endpoint);
    front.storage(S3Profile::Compatible)
}

fn azure_at(azure: &AzureBackend, endpoint: &str) -> StorageConfig {
    let mut front = azure.clone();
    front.endpoint = format!("{endpoint}/{}", azure.account);
    front.storage()
}

fn dropping(s3: &S3Backend) -> Habit {
    let keys = Credentials::from_keys(s3.access_key, s3.secret_key, None);
    Habit::DropsChecksums(Some(keys))
}

/// Over a storage that is asked, also if all others get MD5s.
async fn over(storage: StorageConfig) -> TestGateway {
    with_integrity(IntegrityChoice::Auto, storage).await
}

async fn with_integrity(integrity: IntegrityChoice, mut storage: StorageConfig) -> TestGateway {
    storage.options.integrity = integrity;
    TestGateway::with(|config| {
        config.storage = vec![storage];
        config.faults.enabled = true;
        config.faults.allow_in_this_environment = true;
    })
    .await
}

/// Uploads a file of two parts, and returns it with its first part.
async fn upload(gateway: &TestGateway) -> (Upload, Part) {
    let sent = bytes(PART + 9);
    let mut stream = gateway.converse().await;
    stream.send(open("film.mp4", Some(sent.len()))).await;
    let id = stream.next().await.unwrap().upload_id;
    stream.send_in_chunks(0, &sent[..PART], 1 << 20).await;
    stream.committed(PART).await;
    let request = ListPartsRequest {
        upload_id: id,
        ..ListPartsRequest::default()
    };
    let parts = gateway.client().await.list_parts(request).await;
    let part = parts.unwrap().into_inner().parts.remove(0);
    stream.send(chunk(PART, &sent[PART..])).await;
    stream.send(finish()).await;
    let upload = stream.end().await.unwrap();
    assert_eq!(upload.phase(), Phase::Complete);
    assert_eq!(
        upload.object.as_ref().unwrap().md5,
        Md5::of(&sent).to_string()
    );
    (upload, part)
}

/// Checks that the store has compared the part by its CRC-64, or by its MD5.
fn assert_digest(part: &Part, is_crc64: bool) {
    let sent = &bytes(PART + 9)[..PART];
    let expected = match is_crc64 {
        true => (String::new(), Some(Crc64Nvme::of(sent).0)),
        false => (Md5::of(sent).to_string(), None),
    };
    assert_eq!((part.md5.clone(), part.crc64nvme), expected);
}

/// The keys in a bucket whose names begin like those of questions.
async fn questions(s3: &S3Backend) -> usize {
    let listed = s3.client().list_objects_v2().bucket(&s3.bucket);
    let listed = listed.prefix(QUESTIONS).send().await.unwrap();
    listed.contents().len()
}

#[tokio::test]
async fn a_store_that_compares_crc64s_gets_them() {
    let (Some(s3), Some(azure)) = (common::s3().await, common::azure().await) else {
        return;
    };
    for storage in [s3.storage(S3Profile::Compatible), azure.storage()] {
        let gateway = over(storage).await;
        let (upload, part) = upload(&gateway).await;
        assert_digest(&part, true);
        let crc64 = Crc64Nvme::of(&bytes(PART + 9));
        assert_eq!(upload.object.unwrap().crc64nvme, Some(crc64.0));
    }
    assert_eq!(questions(&s3).await, 0, "nothing was stored");
}

#[tokio::test]
async fn a_store_that_ignores_crc64s_gets_md5s_and_keeps_nothing() {
    let (Some(s3), Some(azure)) = (common::s3().await, common::azure().await) else {
        return;
    };
    let front = OddStore::start(&s3.endpoint, Protocol::S3, dropping(&s3)).await;
    let gateway = over(s3_at(&s3, &front.endpoint)).await;
    assert_digest(&upload(&gateway).await.1, false);
    assert_eq!(questions(&s3).await, 0);

    let (host, _) = azure.endpoint.rsplit_once('/').unwrap();
    let dropping = Habit::DropsChecksums(None);
    let front = OddStore::start(host, Protocol::Azure, dropping).await;
    let gateway = over(azure_at(&azure, &front.endpoint)).await;
    assert_digest(&upload(&gateway).await.1, false);
}

/// The operator says that the store compares CRC-64s, but it ignores them.
#[tokio::test]
async fn nothing_counts_as_compared_in_a_store_that_ignores_crc64s_by_mistake() {
    let Some(s3) = common::s3().await else { return };
    let front = OddStore::start(&s3.endpoint, Protocol::S3, dropping(&s3)).await;
    let storage = s3_at(&s3, &front.endpoint);
    let gateway = with_integrity(IntegrityChoice::Crc64Nvme, storage).await;
    // The session names no algorithm, so its parts have MD5s.
    assert_digest(&upload(&gateway).await.1, false);
    // The store answers a small file with its MD5.
    let small = gateway.upload(vec![open("a.txt", Some(3)), chunk(0, b"abc"), finish()]);
    let small = small.await.unwrap();
    assert_eq!(small.object.unwrap().md5, Md5::of(b"abc").to_string());
}

#[tokio::test]
async fn the_answer_of_a_store_is_kept_and_not_asked_for_again() {
    let (Some(s3), Some(redis)) = (common::s3().await, common::redis().await) else {
        return;
    };
    let front = OddStore::start(&s3.endpoint, Protocol::S3, dropping(&s3)).await;
    for endpoint in [&front.endpoint, &s3.endpoint] {
        let gateway = TestGateway::with(|config| {
            config.storage = vec![s3_at(&s3, endpoint)];
            config.redis_url = Some(redis.url.parse().unwrap());
        });
        let gateway = gateway.await;
        // The second one does not ask the store itself, which compares CRC-64s.
        assert_digest(&upload(&gateway).await.1, false);
    }
}

#[tokio::test]
async fn a_store_that_denies_the_question_gets_md5s() {
    let Some(s3) = common::s3().await else { return };
    let denying = Habit::DeniesPuts(QUESTIONS.into());
    let front = OddStore::start(&s3.endpoint, Protocol::S3, denying).await;
    let gateway = over(s3_at(&s3, &front.endpoint)).await;
    assert_digest(&upload(&gateway).await.1, false);
    let refused = front.refused();
    assert!(refused > 0);
    upload(&gateway).await;
    assert_eq!(front.refused(), refused, "it is asked again after an hour");
}

#[tokio::test]
async fn a_store_that_cannot_delete_keeps_the_question_and_gets_md5s() {
    let Some(s3) = common::s3().await else { return };
    let keeping = OddStore::start(&s3.endpoint, Protocol::S3, Habit::DeniesDeletes).await;
    let front = OddStore::start(&keeping.endpoint, Protocol::S3, dropping(&s3)).await;
    let gateway = over(s3_at(&s3, &front.endpoint)).await;
    assert_digest(&upload(&gateway).await.1, false);
    assert_eq!(questions(&s3).await, 1);
}

async fn minio() -> Option<(S3Backend, OddStore, TestGateway)> {
    let s3 = common::s3().await?;
    let front = OddStore::start(&s3.endpoint, Protocol::S3, Habit::MinIo).await;
    let gateway = over(s3_at(&s3, &front.endpoint)).await;
    Some((s3, front, gateway))
}

#[tokio::test]
async fn a_store_that_demands_checksums_gets_streams_and_signed_parts() {
    let Some((_s3, _front, gateway)) = minio().await else {
        return;
    };
    let (upload, part) = upload(&gateway).await;
    assert_digest(&part, true);
    assert!(upload.object.unwrap().crc64nvme.is_some());

    // What a client began has MD5s, also the parts of a stream that continues it.
    let sent = bytes(2 * PART + 9);
    let mut client = Client::of(&gateway).await;
    let step = client.create(file("film.mp4", &sent)).await.unwrap();
    client.begin(&step).await;
    client.put_part(&step.upload_id, 1, &sent).await;
    let mut stream = gateway.converse().await;
    stream.send(open_known(&step.upload_id)).await;
    stream.next().await.unwrap();
    stream
        .send_in_chunks(PART, &sent[PART..2 * PART], 1 << 20)
        .await;
    stream.committed(2 * PART).await;
    drop(stream);
    client.put_part(&step.upload_id, 3, &sent).await;
    let upload = client.finish(&step.upload_id).await;
    assert_eq!(upload.phase(), Phase::Complete);
}

#[tokio::test]
async fn a_client_continues_a_stream_without_parts_in_a_new_session() {
    let Some((_s3, _front, gateway)) = minio().await else {
        return;
    };
    let sent = bytes(2 * PART);
    let described = file("film.mp4", &sent);
    // The part takes long, so there is only the session.
    let fault = Some("store.put_part:delay=60000ms");
    let stream = Conversation::begin_with(gateway.client().await, fault).await;
    let mut stream = stream.unwrap();
    stream.send(open_file(described.clone())).await;
    let id = stream.next().await.unwrap().upload_id;
    stream.send_in_chunks(0, &sent[..PART], 1 << 20).await;
    let session = async || gateway.get(&id).await.unwrap().resumable_id;
    common::until("the session begins", async || !session().await.is_empty()).await;
    let begun = session().await;

    let mut client = Client::of(&gateway).await;
    let step = client.create(described).await.unwrap();
    assert_eq!(step.upload_id, id);
    for part in [1, 2] {
        client.put_part(&id, part, &sent).await;
    }
    assert_ne!(session().await, begun);
    let upload = client.finish(&id).await;
    assert_eq!(upload.phase(), Phase::Complete);
    drop(stream);
}

#[tokio::test]
async fn only_a_stream_continues_the_parts_of_a_stream() {
    let Some((_s3, _front, gateway)) = minio().await else {
        return;
    };
    let sent = bytes(2 * PART);
    let described = file("film.mp4", &sent);
    let mut stream = gateway.converse().await;
    stream.send(open_file(described.clone())).await;
    let id = stream.next().await.unwrap().upload_id;
    stream.send_in_chunks(0, &sent[..PART], 1 << 20).await;
    stream.committed(PART).await;

    let mut client = Client::of(&gateway).await;
    let signed = client.sign_part(&id, 2, part_of(&sent, 2)).await;
    let created = client.create(described).await;
    for refused in [signed.map(drop), created.map(drop)] {
        assert_eq!(reason(&refused.unwrap_err()).1, "NOT_SUPPORTED");
    }
    stream.send_in_chunks(PART, &sent[PART..], 1 << 20).await;
    stream.send(finish()).await;
    assert_eq!(stream.end().await.unwrap().phase(), Phase::Complete);
}
