//! How PlaceOS's newer client recovers: after a failure, after a reload, in two tabs, and with parts of its own size.

use futures::future::join_all;
use proptest::prelude::*;
use serde_json::json;
use upload_gateway::config::{Config, PartDataForm, S3Profile, StoreConfig};

use super::{
    client::Http,
    common::{self, TestGateway, bytes, finish, open_known},
    newer_client::{NewerClient, described},
};

const MIB: usize = 1 << 20;

/// How many rounds of tabs there are on each store.
const ROUNDS: usize = 50;

/// Makes one test of each case for each store.
macro_rules! for_each_store {
    ($($case:ident),* $(,)?) => {
        mod embedded { $(
            #[tokio::test]
            async fn $case() {
                let gateway = super::TestGateway::with(super::as_map).await;
                super::$case(gateway).await;
            }
        )* }
        mod s3 { $(
            #[tokio::test]
            async fn $case() {
                let Some(s3) = super::common::s3().await else { return };
                let storage = vec![s3.storage(super::S3Profile::Compatible)];
                let gateway = super::TestGateway::with(|config| config.storage = storage).await;
                super::$case(gateway).await;
            }
        )* }
        mod azure { $(
            #[tokio::test]
            async fn $case() {
                let Some(azure) = super::common::azure().await else { return };
                let storage = vec![azure.storage()];
                let gateway = super::TestGateway::with(|config| config.storage = storage).await;
                super::$case(gateway).await;
            }
        )* }
    };
}

for_each_store!(
    every_size_arrives,
    a_failure_is_resumed_without_another_create,
    a_reload_continues_with_what_is_there,
    a_lost_answer_to_the_commit_is_a_success,
    tabs_with_the_same_file_have_a_winner,
);

fn as_map(config: &mut Config) {
    config.rest.part_data = PartDataForm::Map;
}

fn is_azure(gateway: &TestGateway) -> bool {
    gateway
        .config
        .storage
        .first()
        .is_some_and(|storage| matches!(storage.store, StoreConfig::Azure(_)))
}

/// The parts that the client cuts on this store.
fn own_size(gateway: &TestGateway) -> usize {
    if is_azure(gateway) { 2 * MIB } else { 5 * MIB }
}

async fn assert_whole(http: &Http, id: &str, file: &[u8]) {
    let through = http.get(&format!("/{id}/download")).await;
    assert_eq!(through.status, 200);
    assert!(through.body == file, "the object has other bytes");
}

async fn every_size_arrives(gateway: TestGateway) {
    let http = Http::of(&gateway);
    for size in [0, 1, 5_000_000] {
        let id = http.upload("small.bin", &bytes(size), &json!({})).await;
        assert_whole(&http, &id, &bytes(size)).await;
    }
    for size in [5_000_001, 5 * MIB, 5 * MIB + 1, 12 * MIB, 23_000_001] {
        let file = bytes(size);
        let mut client = NewerClient::create(&http, &file, own_size(&gateway)).await;
        client.run().await.unwrap();
        assert_whole(&http, client.id(), &file).await;
    }
}

async fn a_failure_is_resumed_without_another_create(gateway: TestGateway) {
    let (http, file) = (Http::of(&gateway), bytes(23_000_001));
    let mut client = NewerClient::create(&http, &file, own_size(&gateway)).await;
    client.send(2).await.unwrap();
    client.resume();
    client.run().await.unwrap();
    assert_whole(&http, client.id(), &file).await;
}

async fn a_reload_continues_with_what_is_there(gateway: TestGateway) {
    let (http, file) = (Http::of(&gateway), bytes(23_000_001));
    let mut client = NewerClient::create(&http, &file, own_size(&gateway)).await;
    client.send(3).await.unwrap();
    let id = client.id().to_owned();
    let mut client = NewerClient::create(&http, &file, own_size(&gateway)).await;
    assert_eq!((client.id(), client.done()), (&*id, &[1, 2, 3][..]));
    let found = http.call("POST", "", described(&file)).await.json();
    assert_eq!(found["part_size"], own_size(&gateway));
    client.run().await.unwrap();
    assert_whole(&http, &id, &file).await;
}

async fn a_lost_answer_to_the_commit_is_a_success(gateway: TestGateway) {
    let (http, file) = (Http::of(&gateway), bytes(12 * MIB));
    let mut client = NewerClient::create(&http, &file, own_size(&gateway)).await;
    client.run().await.unwrap();
    client.resume();
    client.finish().await.unwrap();
    assert_whole(&http, client.id(), &file).await;
}

/// Two and three tabs begin the same file at once. Each of them completes it, or is refused with a reason.
async fn tabs_with_the_same_file_have_a_winner(gateway: TestGateway) {
    let http = Http::of(&gateway);
    for round in 0..ROUNDS {
        let mut file = bytes(5_000_001 + round);
        file[0] = u8::try_from(round).unwrap();
        let tabs = (0..2 + round % 2).map(|_| async {
            let mut client = NewerClient::create(&http, &file, own_size(&gateway)).await;
            (client.id().to_owned(), client.run().await)
        });
        let ended = join_all(tabs).await;
        let winners = ended.iter().filter(|(_, ended)| ended.is_ok());
        assert!(winners.count() > 0, "round {round}: {ended:?}");
        for (id, ended) in &ended {
            match ended {
                Ok(()) => assert_whole(&http, id, &file).await,
                Err(refused) => {
                    assert!((400..500).contains(&refused.status), "{refused:?}");
                    assert!(!refused.body.is_empty(), "{refused:?}");
                }
            }
        }
    }
}

async fn azure() -> Option<TestGateway> {
    let storage = vec![common::azure().await?.storage()];
    Some(TestGateway::with(|config| config.storage = storage).await)
}

#[tokio::test]
async fn a_client_on_azure_cuts_parts_of_any_size() {
    let Some(gateway) = azure().await else { return };
    let (http, file) = (Http::of(&gateway), bytes(12 * MIB));
    for part_size in [MIB, 2 * MIB, 5 * MIB, 8 * MIB, 12 * MIB, 1_234_567] {
        let mut client = NewerClient::create(&http, &file, part_size).await;
        client.run().await.unwrap();
        assert_whole(&http, client.id(), &file).await;
    }
}

#[tokio::test]
async fn a_part_that_fits_two_plans_is_not_present() {
    let Some(gateway) = azure().await else { return };
    let (http, file) = (Http::of(&gateway), bytes(12 * MIB));
    // Of three parts of 2 MiB only the third arrives: it has the size of the last one after two of 5 MiB.
    let mut first = NewerClient::create(&http, &file, 2 * MIB).await;
    first.sign(1).await.unwrap();
    first.sign(2).await.unwrap();
    first.send_part(3).await.unwrap();
    let mut second = NewerClient::create(&http, &file, 5 * MIB).await;
    assert_eq!(second.done(), [0; 0]);
    let found = http.call("POST", "", described(&file)).await.json();
    assert_eq!(
        (&found["type"], &found["part_list"], &found["part_size"]),
        (&json!("parts"), &json!([]), &json!(5 * MIB))
    );
    second.send(2).await.unwrap();
    let refused = second.finish().await.unwrap_err();
    assert_eq!(refused.json()["missing_parts"], json!([3]), "{refused:?}");
    second.run().await.unwrap();
    assert_whole(&http, second.id(), &file).await;
}

#[tokio::test]
async fn a_finish_with_parts_of_two_sizes_names_what_does_not_fit() {
    let Some(gateway) = azure().await else { return };
    let (http, file) = (Http::of(&gateway), bytes(23_000_001));
    let mut first = NewerClient::create(&http, &file, 2 * MIB).await;
    first.send(3).await.unwrap();
    let mut second = NewerClient::create(&http, &file, 5 * MIB).await;
    assert_eq!(second.done(), [1, 2, 3]);
    let refused = second.run().await.unwrap_err();
    let refused = (refused.status, refused.json());
    assert_eq!(refused.1["reason"], "INCOMPLETE", "{refused:?}");
    assert_eq!(refused.1["missing_parts"], json!([1, 2, 3]), "{refused:?}");
    // What does not fit is sent again.
    let mut third = NewerClient::create(&http, &file, 5 * MIB).await;
    assert_eq!(third.done(), [0; 0]);
    third.run().await.unwrap();
    assert_whole(&http, third.id(), &file).await;
}

#[tokio::test]
async fn a_reported_part_is_no_present_part() {
    let Some(gateway) = azure().await else { return };
    let (http, file) = (Http::of(&gateway), bytes(12 * MIB));
    let mut client = NewerClient::create(&http, &file, 5 * MIB).await;
    client.send(1).await.unwrap();
    let path = format!("/{}", client.id());
    let report = json!({"part_list": [1, 2, 3], "part_update": true});
    assert_eq!(http.call("PATCH", &path, report.clone()).await.status, 200);
    let refused = http
        .call("PATCH", &path, json!({"part_list": [1, 2, 3]}))
        .await;
    assert_eq!(refused.json()["missing_parts"], json!([2, 3]));
}

#[test]
fn clients_that_are_killed_and_cut_differently_make_the_file_or_none() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let Some(gateway) = runtime.block_on(azure()) else {
        return;
    };
    let http = Http::of(&gateway);
    let size = prop_oneof![Just(5_000_001), Just(12 * MIB), Just(23_000_001)];
    let part_size = || {
        prop_oneof![
            Just(2 * MIB),
            Just(5 * MIB),
            Just(8 * MIB),
            Just(1_234_567),
            Just(3_000_000)
        ]
    };
    let clients = prop::collection::vec((part_size(), 0usize..5), 1..4);
    let config = ProptestConfig {
        cases: 12,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    proptest!(config, |(size in size, killed in clients, last in part_size(), salt: u64)| {
        let mut file = bytes(size);
        file[..8].copy_from_slice(&salt.to_be_bytes());
        runtime.block_on(async {
            let mut id = String::new();
            for (part_size, parts) in &killed {
                let mut client = NewerClient::create(&http, &file, *part_size).await;
                let _ = client.send(*parts).await;
                id = client.id().to_owned();
            }
            let mut client = NewerClient::create(&http, &file, last).await;
            if client.run().await.is_ok() {
                id = client.id().to_owned();
            }
            if gateway.get(&id).await.unwrap().object.is_some() {
                assert_whole(&http, &id, &file).await;
            }
        });
    });
}

/// A stream continues with the plan that the client's parts show, or begins if they show none.
#[tokio::test]
async fn a_stream_continues_what_a_client_on_azure_has_cut() {
    let Some(gateway) = azure().await else { return };
    let http = Http::of(&gateway);
    for (salt, parts, committed, part_size) in [
        (1, &[1, 2, 3][..], 6 * MIB, 2 * MIB),
        (2, &[3], 0, 5 * MIB),
        (3, &[], 0, 5 * MIB),
    ] {
        let mut file = bytes(12 * MIB + 7);
        file.truncate(12 * MIB);
        file[0] = salt;
        let mut client = NewerClient::create(&http, &file, 2 * MIB).await;
        for part in 1..=3 {
            match parts.contains(&part) {
                true => client.send_part(part).await.unwrap(),
                false => drop(client.sign(part).await.unwrap()),
            }
        }
        let mut stream = gateway.converse().await;
        stream.send(open_known(client.id())).await;
        let opened = stream.next().await.unwrap().upload.unwrap();
        assert_eq!(
            (opened.committed_size, opened.part_size),
            (
                i64::try_from(committed).unwrap(),
                i64::try_from(part_size).unwrap()
            )
        );
        stream
            .send_in_chunks(committed, &file[committed..], MIB)
            .await;
        stream.send(finish()).await;
        stream.end().await.unwrap();
        assert_whole(&http, client.id(), &file).await;
    }
}
