//! A write of the older stream reaches the store only after the newer stream has written.

use tonic::{Code, Status};
use tonic_types::StatusExt;
use upload_gateway::config::{S3Profile, StorageConfig, StoreConfig};
use upload_gateway_client::proto::v1::Upload;

use super::{PART, assert_taken_over, begin, config, forwarded, take_over, through};
use crate::common::{
    self, Forwarder, RedisBackend, TestGateway, chunk, finish, open_known, reason,
};

/// The network holds the second part of an older stream back until the newer one has sent and recorded its own second
/// part, with other bytes; then the late write reaches the store. Returns how the newer stream ends, its bytes, and a
/// gateway to read the record from.
async fn write_late(
    redis: &RedisBackend,
    store: &Forwarder,
    behind: StorageConfig,
    direct: StorageConfig,
) -> (Result<Upload, Status>, Vec<u8>, TestGateway) {
    let here = TestGateway::over(config(redis, behind)).await;
    let there = TestGateway::over(config(redis, direct)).await;
    let (older_bytes, newer_bytes) = (vec![1; 2 * PART + 10], vec![2; 2 * PART + 10]);
    let (mut older, upload_id) = begin(&here, Some(older_bytes.len())).await;
    older.send_in_chunks(0, &newer_bytes[..PART], 1 << 20).await;
    older.committed(PART).await;
    let before = store.received();
    store.hold();
    older
        .send_in_chunks(PART, &older_bytes[PART..2 * PART], 1 << 20)
        .await;
    store.has_received(before + PART as u64).await;
    store.is_quiet().await;

    let mut newer = take_over(&there, &upload_id).await;
    assert_taken_over(&older.failure().await);
    newer
        .send_in_chunks(PART, &newer_bytes[PART..2 * PART], 1 << 20)
        .await;
    newer.committed(2 * PART).await;
    let answered = store.answered();
    store.release();
    store.has_answered(answered + 1).await;
    newer.send(chunk(2 * PART, &newer_bytes[2 * PART..])).await;
    newer.send(finish()).await;
    (newer.end().await, newer_bytes, there)
}

/// The late write replaces the part of the newer stream: the commit must not make an object of it.
#[tokio::test]
async fn on_s3_a_late_write_is_refused_at_the_commit() {
    let (Some(redis), Some(s3)) = (common::redis().await, common::s3().await) else {
        return;
    };
    let store = through(&s3).await;
    let direct = s3.storage(S3Profile::Compatible);
    let (ended, _, gateway) = write_late(&redis, &store, forwarded(&s3, &store), direct).await;
    let first = ended.unwrap_err();
    assert_eq!(first.code(), Code::Unavailable, "one observation");
    let info = first.get_details_error_info().unwrap();
    let upload_id = info.metadata["upload_id"].clone();
    let again = async || gateway.upload(vec![open_known(&upload_id)]).await;
    let status = common::refused_for_good(again).await;
    assert_eq!(
        reason(&status),
        (Code::FailedPrecondition, "PART_REPLACED".into())
    );
    let objects = s3.client().list_objects_v2().bucket(&s3.bucket);
    assert_eq!(objects.send().await.unwrap().key_count(), Some(0));
}

/// The late write has a block id of its own, which the commit does not contain.
#[tokio::test]
async fn on_azure_a_late_write_changes_nothing() {
    let (Some(redis), Some(azure)) = (common::redis().await, common::azure().await) else {
        return;
    };
    let server = azure.endpoint.split('/').nth(2).unwrap();
    let store = Forwarder::start([server.parse().unwrap()]).await;
    let direct = azure.storage();
    let mut behind = azure.storage();
    if let StoreConfig::Azure(azure) = &mut behind.store {
        let endpoint = format!("http://{}/{}", store.address, azure.account);
        azure.endpoint = Some(endpoint.parse().unwrap());
    }
    let (ended, bytes, gateway) = write_late(&redis, &store, behind, direct).await;
    let upload_id = ended.unwrap().upload_id;
    let url = format!(
        "{}/api/engine/v2/uploads/{upload_id}/download",
        gateway.http
    );
    let stored = reqwest::get(url).await.unwrap().bytes().await.unwrap();
    assert!(
        stored == bytes,
        "the object is not what the newer stream sent"
    );
}
