//! The records of COMPLETE uploads in Redis: small, and kept for ever.

use std::time::Duration;

use upload_gateway::state::redis::Redis;
use upload_gateway_core::{
    state::{PartRecord, PartStore, RecordStore, ScheduleStore, StateStore, Update},
    upload::{Cached, Cleanup, DigestChoice, FileMetadata, Owner, Phase, Timestamp, Upload},
};

use super::{
    common, config,
    ended::{complete, complete_of},
    fresh_redis,
    redis_full::used_memory,
    redis_only::ask,
    samples::{claim, get, owner, part, placement, times, writer},
};

/// What the record of a COMPLETE upload may take, in bytes, beside its name, tags and path.
const MAX_RECORD: usize = 700;

/// What it may take with its entries in listings and their indexes, of short names and with two tags.
const MAX_FILE: u64 = 2_800;

/// How many files are measured together.
const FILES: u64 = 1_000;

/// Compaction happens an hour after the upload became COMPLETE.
const LATER: Duration = Duration::from_secs(60 * 60);

fn key(upload: &Upload) -> String {
    let tag = upload.id.tag();
    format!("upload-gateway:upload:{{{tag}}}:{}", upload.id)
}

/// Makes the record compact, as the sweeper does. It forgets what only a live upload needs.
async fn compact(store: &dyn StateStore, upload: &mut Upload) {
    let before = upload.updated_at.plus(LATER);
    let page = store.due(before, None, 9).await.unwrap();
    assert!(page.uploads.is_empty());
    (upload.fingerprint, upload.origin) = (None, None);
    (upload.expires_at, upload.ends_at) = (upload.updated_at, Timestamp::never());
}

#[tokio::test]
async fn a_complete_record_becomes_small_and_stays() {
    let Some((store, backend)) = fresh_redis().await else {
        return;
    };
    let mut upload = complete(&store).await;
    let usage = redis::cmd("MEMORY")
        .arg(("USAGE", key(&upload), "SAMPLES", 0))
        .to_owned();
    let usage = async || ask::<usize>(&backend.url, &usage).await;
    let before = usage().await;
    compact(&store, &mut upload).await;
    let (after, texts) = (
        usage().await,
        upload.file.file_name.len() + 2 * "film.mp4".len(),
    );
    let all: Vec<String> = ask(&backend.url, redis::cmd("HGETALL").arg(key(&upload))).await;
    println!("{all:#?}");
    let enc: String = ask(
        &backend.url,
        redis::cmd("OBJECT").arg(("ENCODING", key(&upload))),
    )
    .await;
    println!("{enc}");
    println!("{before} bytes before, {after} after, of which names and tags {texts}");
    assert!(after - texts <= MAX_RECORD, "{after} bytes");
    let ttl: i64 = ask(&backend.url, redis::cmd("PTTL").arg(key(&upload))).await;
    assert_eq!(ttl, -1);
    // Nothing more is to be done for it.
    let due: u64 = ask(&backend.url, redis::cmd("ZCARD").arg("upload-gateway:due")).await;
    assert_eq!(due, 0);
}

/// What a file takes with its entries in the listings of its owner and its tenant.
#[tokio::test]
async fn a_thousand_files_take_little_memory() {
    let Some((_server, url)) = common::private_redis(&[]) else {
        return;
    };
    let store = Redis::connect(&config([url.clone()])).await.unwrap();
    let owner = owner();
    let mut last = complete_of(&store, &owner).await;
    compact(&store, &mut last).await;
    let before = used_memory(&url).await;
    for _ in 0..FILES {
        last = complete_of(&store, &owner).await;
    }
    let before_last = last.updated_at.plus(LATER);
    let mut after = None;
    loop {
        let page = store.due(before_last, after.as_ref(), 100).await.unwrap();
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    let each = used_memory(&url).await.saturating_sub(before) / FILES;
    println!("{each} bytes for each file");
    assert!(each <= MAX_FILE, "{each} bytes for each file");
}

#[tokio::test]
async fn a_compact_record_reads_as_before() {
    let Some((store, _backend)) = fresh_redis().await else {
        return;
    };
    let mut upload = complete(&store).await;
    compact(&store, &mut upload).await;
    assert_eq!(get(&store, &upload.id).await, upload);
    let summary = store.summary(&upload.id).await.unwrap();
    assert_eq!(summary, Some(upload.clone()));
    let parts = store.committed_parts(&upload.id, 0, 9).await.unwrap();
    assert_eq!(parts, Some(Vec::new()));
}

#[tokio::test]
async fn late_writes_change_no_compact_record() {
    let Some((store, _backend)) = fresh_redis().await else {
        return;
    };
    let mut upload = complete(&store).await;
    compact(&store, &mut upload).await;
    let record = |by| store.record_parts(&upload.id, writer(by), 0, &[], times());
    let phase = Phase::Complete;
    assert_eq!(record(1).await.unwrap(), PartRecord::NotOpen(phase));
    assert_eq!(record(2).await.unwrap(), PartRecord::TakenOver);
    let claims = [claim(1)];
    let claimed = store.claim(&upload.id, &upload.owner, &claims, times());
    assert_eq!(claimed.await.unwrap(), Some(upload.clone()));
    let stranger = Owner::default();
    let claimed = store.claim(&upload.id, &stranger, &claims, times());
    assert_eq!(claimed.await.unwrap(), None);
    let parts = [part(1)];
    let recorded = store.record_parts(&upload.id, writer(1), 0, &parts, times());
    assert_eq!(recorded.await.unwrap(), PartRecord::NotOpen(phase));
    assert_eq!(get(&store, &upload.id).await, upload);
}

#[tokio::test]
async fn a_compact_record_can_be_updated_and_given() {
    let Some((store, _backend)) = fresh_redis().await else {
        return;
    };
    let mut upload = complete(&store).await;
    compact(&store, &mut upload).await;
    let heir = Owner {
        tenant: "heirs".into(),
        subject: "one".into(),
    };
    let given = store.give(&upload, &heir).await.unwrap();
    assert_eq!(given, Update::Updated(3));
    (upload.owner, upload.fingerprint, upload.version) = (heir, None, 3);
    assert_eq!(get(&store, &upload.id).await, upload);
    compact(&store, &mut upload).await;
    assert_eq!(get(&store, &upload.id).await, upload);

    (upload.phase, upload.cleanup) = (Phase::Deleting, Cleanup::Now);
    for _ in 0..2 {
        // Also if the answer to the first call was lost.
        let updated = store.update(&upload, upload.writer).await.unwrap();
        assert_eq!(updated, Update::Updated(4));
    }
    upload.version = 4;
    assert_eq!(get(&store, &upload.id).await, upload);
}

#[tokio::test]
async fn a_compact_record_keeps_every_field() {
    let Some((store, _backend)) = fresh_redis().await else {
        return;
    };
    let mut upload = complete(&store).await;
    upload.file = FileMetadata {
        file_name: "名前 😀.bin".repeat(9),
        file_id: Some("x".into()),
        public: true,
        file_path: "a/b".into(),
        file_digest: DigestChoice::Crc64Nvme,
        placement: placement(),
        cached: Some(Box::new(Cached {
            etag: Some("e".into()),
            modified: Some("1700000000".into()),
        })),
        ..upload.file
    };
    upload.attempts = 7;
    if let Some(object) = &mut upload.object {
        (object.md5, object.size) = (None, 8);
    }
    upload.kept_until = Some(upload.updated_at.plus(10 * LATER));
    upload.file.expire_after = Some(5 * LATER.as_secs());
    upload.file_expires_at = Some(upload.updated_at.plus(5 * LATER));
    store.update(&upload, upload.writer).await.unwrap();
    upload.version += 1;
    compact(&store, &mut upload).await;
    assert_eq!(get(&store, &upload.id).await, upload);
}
