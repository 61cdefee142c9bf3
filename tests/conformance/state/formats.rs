//! Stored data of an unknown format version: every adapter refuses it with an error that names both versions, and leaves it
//! as it is.

use std::{collections::BTreeMap, fmt::Display};

use ::redb::{Database, ReadableDatabase, ReadableTable, TableDefinition, TableHandle};
use redis::{AsyncCommands, aio::ConnectionLike, cluster::ClusterClient};
use tempfile::TempDir;
use upload_gateway::state::{
    redb::{OpenError, Redb},
    redis::{Redis, RedisConfig, RedisMode},
};
use upload_gateway_core::{
    error::{Error, Kind},
    state::{ListQuery, PartStore, Predecessor, StateStore},
    upload::{Upload, UploadId},
};

use super::{common, config, fresh_cluster, fresh_redis, samples::*};

const REDB_FORMAT: TableDefinition<'_, (), &str> = TableDefinition::new("format");
const REDB_RECORDS: TableDefinition<'_, &str, &str> = TableDefinition::new("records");

#[tokio::test]
async fn redis_refuses_a_record_of_an_unknown_format_and_keeps_it() {
    let Some((store, backend)) = fresh_redis().await else {
        return;
    };
    let client = redis::Client::open(&*backend.url).unwrap();
    let connection = client.get_multiplexed_async_connection().await.unwrap();
    is_refused_and_kept(&store, "upload-gateway:", connection).await;
}

#[tokio::test]
async fn a_cluster_refuses_a_record_of_an_unknown_format_and_keeps_it() {
    let Some((_, cluster)) = fresh_cluster().await else {
        return;
    };
    let config = RedisConfig {
        mode: RedisMode::Cluster,
        key_prefix: format!("{:x}:", rand::random::<u64>()),
        ..config(cluster.urls.clone())
    };
    let store = Redis::connect(&config).await.unwrap();
    let client = ClusterClient::new(cluster.urls.clone()).unwrap();
    let connection = client.get_async_connection().await.unwrap();
    is_refused_and_kept(&store, &config.key_prefix, connection).await;
}

#[tokio::test]
async fn redis_refuses_a_record_of_an_unknown_format_when_it_waits_for_replicas() {
    let Some(backend) = common::redis().await else {
        return;
    };
    let store = Redis::connect(&config([backend.url.clone()]))
        .await
        .unwrap();
    let upload = upload(&owner());
    create(&store, &upload).await;
    let client = redis::Client::open(&*backend.url).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    set_format(
        &mut connection,
        &key("upload-gateway:", &upload.id),
        Some("5"),
    )
    .await;
    let waiting = RedisConfig {
        wait_replicas: 1,
        ..config([backend.url.clone()])
    };
    let store = Redis::connect(&waiting).await.unwrap();
    let parts = [part(1)];
    let recorded = store.record_parts(&upload.id, writer(1), 0, &parts, times());
    names_both_versions(&recorded.await.unwrap_err(), "format 4");
}

#[tokio::test]
async fn redis_refuses_keys_of_an_unknown_format_at_the_start_and_keeps_them() {
    let Some((store, backend)) = fresh_redis().await else {
        return;
    };
    let upload = upload(&owner());
    create(&store, &upload).await;
    let client = redis::Client::open(&*backend.url).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let format = "upload-gateway:format";
    assert_eq!(connection.get::<_, String>(format).await.unwrap(), "3");
    let () = connection.set(format, "4").await.unwrap();
    let refused = Redis::connect(&config([backend.url.clone()])).await;
    let refused = refused.unwrap_err();
    let cause = std::error::Error::source(&refused).unwrap();
    names_both_versions(cause.downcast_ref::<Error>().unwrap(), "format 4");
    assert!(cause.to_string().contains(format), "{cause}");
    assert_eq!(connection.get::<_, String>(format).await.unwrap(), "4");
    let () = connection.set(format, "3").await.unwrap();
    let again = Redis::connect(&config([backend.url.clone()]))
        .await
        .unwrap();
    assert_eq!(get(&again, &upload.id).await, upload);
}

#[tokio::test]
async fn a_state_file_of_an_unknown_format_is_refused_and_kept() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("state.redb");
    let store = Redb::open(&path).await.unwrap();
    let upload = upload(&owner());
    create(&store, &upload).await;
    drop(store);
    let rows = || {
        let database = Database::open(&path).unwrap();
        let rows = database.begin_read().unwrap();
        let rows = rows.open_table(REDB_RECORDS).unwrap();
        let rows = rows
            .iter()
            .unwrap()
            .map(|row| row.unwrap().1.value().to_owned());
        rows.collect::<Vec<_>>()
    };
    let before = rows();
    assert_eq!(before.len(), 1);
    for (format, found) in [(Some("9"), "format 9"), (None, "no format version")] {
        edit(&path, format);
        let refused = Redb::open(&path).await.unwrap_err();
        assert!(matches!(refused, OpenError::Unusable { .. }), "{refused:?}");
        let cause = std::error::Error::source(&refused).unwrap();
        is_clear(cause, found);
        assert!(cause.to_string().contains("state.redb"), "{cause}");
        assert_eq!(rows(), before);
        assert_eq!(
            tables(&path).contains(&"format".to_owned()),
            format.is_some()
        );
    }
    edit(&path, Some("4"));
    let store = Redb::open(&path).await.unwrap();
    assert_eq!(get(&store, &upload.id).await, upload);
}

/// An upgrade mixes releases: those that know a field of the header and those that do not.
#[test]
fn a_header_is_read_with_fields_that_this_release_does_not_know_and_without_an_origin() {
    let upload = upload(&owner());
    let mut header = serde_json::to_value(&upload).unwrap();
    assert!(header["origin"].is_string());
    header["of_a_later_release"] = 1.into();
    header.as_object_mut().unwrap().remove("origin");
    let without: Upload = serde_json::from_value(header).unwrap();
    let upload = Upload {
        origin: None,
        ..upload
    };
    assert_eq!(without, upload);
    let written = serde_json::to_value(&without).unwrap();
    assert!(written.get("origin").is_none(), "{written}");
}

/// Sets the format of a state file, or removes the table that holds it.
fn edit(path: &std::path::Path, format: Option<&str>) {
    let database = Database::open(path).unwrap();
    let transaction = database.begin_write().unwrap();
    match format {
        Some(format) => {
            let mut table = transaction.open_table(REDB_FORMAT).unwrap();
            table.insert((), format).unwrap();
        }
        None => {
            transaction.delete_table(REDB_FORMAT).unwrap();
        }
    }
    transaction.commit().unwrap();
}

fn tables(path: &std::path::Path) -> Vec<String> {
    let database = Database::open(path).unwrap();
    let transaction = database.begin_read().unwrap();
    let tables = transaction.list_tables().unwrap();
    tables.map(|table| table.name().to_owned()).collect()
}

fn key(prefix: &str, id: &UploadId) -> String {
    format!("{prefix}upload:{{{}}}:{id}", id.tag())
}

/// Sets the format of a record, or removes it.
async fn set_format(
    connection: &mut (impl ConnectionLike + Send + Sync),
    key: &str,
    format: Option<&str>,
) {
    let () = match format {
        Some(format) => connection.hset(key, "format", format).await.unwrap(),
        None => connection.hdel(key, "format").await.unwrap(),
    };
}

/// Tries every call on a record of an unknown format, and on one without a format.
async fn is_refused_and_kept(
    store: &dyn StateStore,
    prefix: &str,
    mut connection: impl ConnectionLike + Send + Sync,
) {
    let upload = sized(findable(&owner(), "a"), 5);
    create(store, &upload).await;
    record(store, &upload.id, [1, 3]).await;
    let stored = get(store, &upload.id).await;
    let key = key(prefix, &upload.id);
    for (format, found) in [(Some("5"), "format 5"), (None, "no format version")] {
        set_format(&mut connection, &key, format).await;
        let before = everything(&mut connection, prefix, &upload).await;
        for error in refusals(store, &upload).await {
            names_both_versions(&error, found);
            assert!(error.to_string().contains(&key), "{error}");
        }
        // The sweeper gets the id, and the error when it reads the record.
        let due = store.due(upload.expires_at, None, 10).await.unwrap();
        assert_eq!(due.uploads, std::slice::from_ref(&upload.id));
        assert_eq!(everything(&mut connection, prefix, &upload).await, before);
    }
    set_format(&mut connection, &key, Some("4")).await;
    assert_eq!(get(store, &upload.id).await, stored);
}

/// The error of every call that reads or writes the record.
async fn refusals(store: &dyn StateStore, upload: &Upload) -> Vec<Error> {
    let id = &upload.id;
    let twin = Upload {
        id: UploadId::generate(upload.fingerprint.as_ref()),
        ..upload.clone()
    };
    let all = ListQuery {
        listing: upload.owner.clone().into(),
        after: None,
        skip: 0,
        limit: 10,
    };
    let taken = store.take_over(id, writer(2), Predecessor::Any, times());
    let (parts, claims) = ([part(2)], [claim(4)]);
    let recorded = store.record_parts(id, writer(1), 0, &parts, times());
    let claimed = store.claim(id, &upload.owner, &claims, times());
    vec![
        store.create(upload, u64::MAX).await.unwrap_err(),
        store.create(&twin, u64::MAX).await.unwrap_err(),
        store.get(id).await.unwrap_err(),
        taken.await.unwrap_err(),
        recorded.await.unwrap_err(),
        claimed.await.unwrap_err(),
        store.update(upload, upload.writer).await.unwrap_err(),
        store
            .update_untouched(upload, upload.updated_at)
            .await
            .unwrap_err(),
        store.list(&all).await.unwrap_err(),
    ]
}

/// The record, its keys' expiry, and the indexes that name it.
async fn everything(
    connection: &mut (impl ConnectionLike + Send + Sync),
    prefix: &str,
    upload: &Upload,
) -> (
    BTreeMap<String, String>,
    Vec<i64>,
    Vec<String>,
    BTreeMap<String, String>,
) {
    let owner = &upload.owner;
    let listing = format!(
        "{prefix}owner:{}:{}:{}",
        owner.tenant.len(),
        owner.tenant,
        owner.subject
    );
    let fingerprints = format!("{prefix}fingerprints:{{{}}}", upload.id.tag());
    let (key, due) = (key(prefix, &upload.id), format!("{prefix}due"));
    let mut ends = Vec::new();
    for key in [&key, &fingerprints, &listing, &due] {
        ends.push(connection.pexpire_time(key).await.unwrap());
    }
    let mut members: Vec<String> = connection.zrange(&listing, 0, -1).await.unwrap();
    members.extend(
        connection
            .zrange::<_, Vec<String>>(&due, 0, -1)
            .await
            .unwrap(),
    );
    (
        connection.hgetall(&key).await.unwrap(),
        ends,
        members,
        connection.hgetall(&fingerprints).await.unwrap(),
    )
}

fn names_both_versions(error: &Error, found: &str) {
    assert_eq!(error.kind(), Kind::Internal, "{error}");
    is_clear(error, found);
}

fn is_clear(error: impl Display, found: &str) {
    let message = error.to_string();
    for words in [
        found,
        "this build reads only format ",
        "run a release that reads it",
    ] {
        assert!(message.contains(words), "{message}");
    }
}
