//! Listing and searching the uploads of a caller, over each state store.

mod filters;

use std::{sync::Arc, time::Duration};

use futures::{StreamExt, TryStreamExt, stream};
use tempfile::TempDir;
use upload_gateway::{
    config::Config,
    serve::{Backends, connect},
    state::redis::{Redis, RedisConfig},
};
use upload_gateway_core::{
    clock::Clock,
    error::Kind,
    gateway::{
        Caller, EdgeLimits, Found, Gateway, MAX_SKIPPED, OwnerLimits, SEARCHED_UPLOADS, Scope,
        Search, Settings, Start,
    },
    state::StateStore,
    upload::{FileMetadata, MIB, Owner, Phase, Timestamp, Upload},
};

use self::filters::{
    a_page_that_does_not_fit_continues_in_the_order_of_names,
    a_position_of_another_order_is_refused, media_types_and_times_are_filters,
    names_are_found_by_their_beginning, one_indexed_filter_has_the_exact_total,
    support_searches_the_uploads_of_others,
};
use crate::{
    common,
    state::samples::{self, create, now, upload},
};

/// The number of concurrent creations, if there are many.
const CREATIONS: usize = 64;

/// The system's clock.
#[derive(Debug)]
struct Now;

impl Clock for Now {
    fn now(&self) -> Timestamp {
        now()
    }
}

/// A gateway over a state store and the embedded S3.
struct Subject {
    gateway: Gateway,
    state: Arc<dyn StateStore>,
    caller: Caller,
    backends: Backends,
    _directory: TempDir,
    _redis: Option<common::RedisBackend>,
}

impl Subject {
    async fn on_redb() -> Option<Self> {
        Some(Self::over(None, None).await)
    }

    async fn on_redis() -> Option<Self> {
        let redis = common::redis().await?;
        let config = RedisConfig {
            url: redis.url.parse().unwrap(),
            ..RedisConfig::default()
        };
        let state = Redis::connect(&config).await.unwrap();
        Some(Self::over(Some(Arc::new(state)), Some(redis)).await)
    }

    /// On `state`, or on the embedded state store.
    async fn over(state: Option<Arc<dyn StateStore>>, redis: Option<common::RedisBackend>) -> Self {
        let directory = TempDir::new().unwrap();
        let config = Config {
            data_dir: directory.path().join("data"),
            ..Config::default()
        };
        let backends = connect(&config).await.unwrap();
        let state = state.unwrap_or_else(|| Arc::clone(&backends.state));
        let (storages, clock) = (backends.storages.clone(), Arc::new(Now));
        let gateway = Gateway::new(Arc::clone(&state), storages, settings(), clock);
        Self {
            gateway: gateway.await.unwrap(),
            state,
            caller: Caller {
                owner: samples::owner(),
                ..Caller::default()
            },
            backends,
            _directory: directory,
            _redis: redis,
        }
    }

    /// An upload of the caller, `age` minutes old.
    fn upload(&self, file_name: &str, age: u64) -> Upload {
        named(&self.caller.owner, file_name, age)
    }

    async fn list(&self, search: &Search, start: Start, limit: usize) -> Found {
        let records = &self.gateway.records;
        let found = records.list_uploads(&self.caller, search, start, limit);
        found.await.unwrap()
    }

    /// The names on one page, and the number of all matches.
    async fn find(&self, search: &Search, limit: usize, offset: usize) -> (Vec<String>, u64) {
        let found = self.list(search, skipping(offset), limit).await;
        let records = &self.gateway.records;
        let count = records.count_uploads(&self.caller, search).await.unwrap();
        let total = count.or(found.total).expect("few uploads are counted");
        (names(&found), total)
    }

    async fn stop(self) {
        self.backends.stop().await;
    }
}

fn skipping(skip: usize) -> Start {
    Start {
        skip,
        ..Start::default()
    }
}

fn names(found: &Found) -> Vec<String> {
    let uploads = found.uploads.iter();
    uploads
        .map(|upload| upload.file.file_name.clone())
        .collect()
}

fn named(owner: &Owner, file_name: &str, age: u64) -> Upload {
    let upload = upload(owner);
    Upload {
        file: FileMetadata {
            file_name: file_name.into(),
            ..upload.file
        },
        created_at: Timestamp(upload.created_at.0 - age * 60_000),
        ..upload
    }
}

fn settings() -> Settings {
    Settings {
        memory_budget: 64 * MIB,
        parts_in_flight: 4,
        parts_in_flight_total: 4,
        simd_md5: true,
        max_file_size: None,
        max_message_size: 4 * MIB,
        max_streams: 100,
        min_rate: 0,
        min_rate_window: Duration::from_secs(60),
        idle_timeout: Duration::from_secs(10),
        stream_age: None,
        store_retry_timeout: Duration::from_secs(30),
        commit_lease: Duration::from_secs(90),
        token_keys: Vec::new(),
        record_keys: Vec::new(),
        rebuilds_per_second: 10,
        max_tags: 16,
        max_tag_size: 64,
        max_open_uploads: 100_000,
        edges: EdgeLimits::default(),
        per_owner: OwnerLimits::default(),
        store_settle: Duration::ZERO,
        upload_expiry: Duration::from_secs(3600),
        upload_max_age: Duration::from_secs(6 * 86_400),
        keep_complete: None,
        max_record_memory: None,
        keep_aborted: Duration::from_secs(7 * 86_400),
        tombstone: Duration::from_secs(3600),
    }
}

/// Makes one test of each case for each state store.
macro_rules! on_each_state_store {
    ($($case:ident),* $(,)?) => {
        on_each_state_store!(redb, on_redb, [$($case)*]);
        on_each_state_store!(redis, on_redis, [$($case)*]);
    };
    ($store:ident, $start:ident, [$($case:ident)*]) => {
        mod $store {
            $(
                #[tokio::test]
                async fn $case() {
                    let Some(subject) = super::Subject::$start().await else { return };
                    super::$case(&subject).await;
                    subject.stop().await;
                }
            )*
        }
    };
}

on_each_state_store![
    pages_without_conditions_show_all_uploads_newest_first,
    all_conditions_must_hold,
    all_normal_forms_of_a_text_match,
    pages_of_matches_have_the_total_of_all_matches,
    an_offset_beyond_the_maximum_is_refused,
    a_listing_can_be_limited_to_one_phase,
    a_page_that_does_not_fit_ends_earlier,
    names_are_found_by_their_beginning,
    media_types_and_times_are_filters,
    one_indexed_filter_has_the_exact_total,
    support_searches_the_uploads_of_others,
    a_position_of_another_order_is_refused,
    a_page_that_does_not_fit_continues_in_the_order_of_names,
];

async fn pages_without_conditions_show_all_uploads_newest_first(subject: &Subject) {
    let mut expected = Vec::new();
    for age in (0..25).rev() {
        let upload = subject.upload(&format!("{age}.mp4"), age);
        create(&*subject.state, &upload).await;
        expected.insert(0, upload.file.file_name);
    }
    create(&*subject.state, &named(&samples::owner(), "other", 0)).await;
    let everything = Search::default();
    for (limit, offset) in [(10, 0), (10, 10), (10, 20), (10, 30), (1, 3), (100, 24)] {
        let (names, total) = subject.find(&everything, limit, offset).await;
        let wanted: Vec<_> = expected.iter().skip(offset).take(limit).collect();
        assert_eq!(
            names.iter().collect::<Vec<_>>(),
            wanted,
            "{limit} behind {offset}"
        );
        assert_eq!(total, 25);
    }
}

async fn all_conditions_must_hold(subject: &Subject) {
    for (age, name, storage_id, tags) in [
        (0, "Später.MP4", "media", &["a", "b"][..]),
        (1, "später.txt", "media", &["b"]),
        (2, "notes.mp4", "archive", &["a"]),
        (3, "50% & more_.mp4", "archive", &[]),
    ] {
        let mut upload = subject.upload(name, age);
        upload.storage_id = storage_id.into();
        upload.file.tags = tags.iter().map(|&tag| tag.to_owned()).collect();
        create(&*subject.state, &upload).await;
    }
    let search = |storage_id: &str, tags: &[&str], file_name: &str| Search {
        scope: Scope::Own,
        phase: None,
        storage_id: Some(storage_id.to_owned()).filter(|id| !id.is_empty()),
        tags: tags.iter().map(|&tag| tag.to_owned()).collect(),
        file_name: Some(file_name.to_owned()).filter(|text| !text.is_empty()),
        ..Search::default()
    };
    for (search, expected) in [
        (search("media", &[], ""), &["Später.MP4", "später.txt"][..]),
        (search("med", &[], ""), &[]),
        (search("", &["a"], ""), &["Später.MP4", "notes.mp4"]),
        (search("", &["b", "a"], ""), &["Später.MP4"]),
        (search("", &["A"], ""), &[]),
        (search("", &[], "SPÄT"), &["Später.MP4", "später.txt"]),
        (
            search("", &[], ".mp4"),
            &["Später.MP4", "notes.mp4", "50% & more_.mp4"],
        ),
        // It is a text, not a pattern.
        (search("", &[], "%"), &["50% & more_.mp4"]),
        (search("", &[], "s.*4"), &[]),
        (search("archive", &["a"], "notes"), &["notes.mp4"]),
        (search("archive", &["b"], "notes"), &[]),
    ] {
        let (names, total) = subject.find(&search, 10, 0).await;
        assert_eq!(names, expected, "{search:?}");
        assert_eq!(total, expected.len() as u64, "{search:?}");
    }
}

/// Macs send names and tags with decomposed letters.
async fn all_normal_forms_of_a_text_match(subject: &Subject) {
    let (composed, decomposed) = (
        "M\u{fc}ller \u{1eaf}.pdf",
        "Mu\u{308}ller a\u{306}\u{301}.pdf",
    );
    for (age, name) in [composed, decomposed, "Muller a.pdf"]
        .into_iter()
        .enumerate()
    {
        let mut upload = subject.upload(name, age as u64);
        upload.file.tags = vec![name.to_owned()];
        create(&*subject.state, &upload).await;
    }
    for text in [composed, decomposed, "m\u{dc}LLER", "MU\u{308}ller"] {
        let search = Search {
            file_name: Some(text.to_owned()),
            ..Search::default()
        };
        let (names, _) = subject.find(&search, 10, 0).await;
        assert_eq!(names, [composed, decomposed], "{text}");
    }
    for tag in [composed, decomposed] {
        let search = Search {
            tags: vec![tag.to_owned()],
            ..Search::default()
        };
        let (names, _) = subject.find(&search, 10, 0).await;
        assert_eq!(names, [composed, decomposed], "{tag}");
    }
}

async fn pages_of_matches_have_the_total_of_all_matches(subject: &Subject) {
    for age in 0..12 {
        let name = format!("{age}{}", if age % 2 == 0 { ".mp4" } else { ".txt" });
        create(&*subject.state, &subject.upload(&name, age)).await;
    }
    let films = Search {
        file_name: Some(".mp4".into()),
        ..Search::default()
    };
    for (offset, expected) in [
        (0, &["0.mp4", "2.mp4", "4.mp4", "6.mp4"][..]),
        (4, &["8.mp4", "10.mp4"]),
        (6, &[]),
    ] {
        let (names, total) = subject.find(&films, 4, offset).await;
        assert_eq!(names, expected);
        assert_eq!(total, 6);
    }
}

async fn an_offset_beyond_the_maximum_is_refused(subject: &Subject) {
    let (records, search) = (&subject.gateway.records, Search::default());
    let refused = records.list_uploads(&subject.caller, &search, skipping(MAX_SKIPPED + 1), 1);
    let refused = refused.await.unwrap_err();
    assert_eq!(refused.kind(), Kind::InvalidArgument);
    assert_eq!(refused.violations()[0].field, "offset");
    assert_eq!(subject.find(&search, 1, MAX_SKIPPED).await, (Vec::new(), 0));
}

async fn a_listing_can_be_limited_to_one_phase(subject: &Subject) {
    let (mut aborted, mut open) = (Vec::new(), Vec::new());
    for age in 0..12 {
        let mut upload = subject.upload(&format!("{age}"), age);
        create(&*subject.state, &upload).await;
        if age % 3 == 0 {
            upload.phase = Phase::Aborted;
            let updated = subject.state.update(&upload, upload.writer);
            updated.await.unwrap();
            aborted.push(upload.file.file_name);
        } else {
            open.push(upload.file.file_name);
        }
    }
    for (phase, expected) in [
        (Phase::Aborted, &aborted),
        (Phase::Open, &open),
        (Phase::Complete, &Vec::new()),
    ] {
        let search = Search {
            phase: Some(phase),
            ..Search::default()
        };
        for limit in [1, 3, 4, 50] {
            let (mut listed, mut next) = (Vec::new(), Some(Start::default()));
            while let Some(start) = next {
                let found = subject.list(&search, start, limit).await;
                assert!(found.uploads.len() <= limit);
                assert_eq!(found.first, listed.len() as u64);
                listed.extend(names(&found));
                next = found.next;
            }
            assert_eq!(listed, *expected, "{phase} in pages of {limit}");
        }
    }
}

async fn a_page_that_does_not_fit_ends_earlier(subject: &Subject) {
    for age in 0..5 {
        create(&*subject.state, &subject.upload(&format!("{age}"), age)).await;
    }
    let search = Search::default();
    for (sizes, expected) in [
        ([300_000; 4], &["1", "2", "3"][..]),
        ([2_000_000; 4], &["1"]),
        ([1; 4], &["1", "2", "3", "4"]),
    ] {
        let mut found = subject.list(&search, skipping(1), 4).await;
        found.fit(sizes);
        assert_eq!(names(&found), expected);
        let Some(next) = found.next else {
            assert_eq!(expected.len(), 4);
            continue;
        };
        let rest = subject.list(&search, next, 4).await;
        assert_eq!(rest.first, 1 + expected.len() as u64);
        assert_eq!(names(&rest).concat(), "1234"[expected.len()..]);
    }
}

/// On Redis only: thousands of durable creations in redb would take too long.
#[tokio::test]
async fn a_filter_that_finds_little_stops_and_continues_on_the_next_page() {
    let Some(subject) = Subject::on_redis().await else {
        return;
    };
    let read = SEARCHED_UPLOADS as u64;
    let uploads = (0..=read + 10).map(|age| match age {
        _ if age == read + 5 => subject.upload("needle", age),
        _ if age == read + 10 => subject.upload("old needle", age),
        _ => subject.upload("hay", age),
    });
    stream::iter(uploads)
        .map(|upload| async {
            let upload = upload;
            subject.state.create(&upload, u64::MAX).await
        })
        .buffer_unordered(CREATIONS)
        .try_for_each(|_| async { Ok(()) })
        .await
        .unwrap();
    let needles = Search {
        file_name: Some("needle".into()),
        ..Search::default()
    };
    for (offset, expected) in [
        (0, [&[][..], &["needle", "old needle"]]),
        (1, [&[], &["old needle"]]),
        (2, [&[], &[]]),
    ] {
        let mut next = Some(skipping(offset));
        for names_of_page in expected {
            let found = subject.list(&needles, next.unwrap(), 10).await;
            assert_eq!(names(&found), names_of_page, "after {offset} matches");
            next = found.next;
            let total = next.is_none().then_some(2);
            assert_eq!(found.total, total, "after {offset} matches");
        }
        assert_eq!(next, None);
    }
    let (rest, total) = subject.find(&Search::default(), 20, MAX_SKIPPED).await;
    assert_eq!((rest.len(), total), (11, read + 11));
    assert_eq!(rest.last().unwrap(), "old needle");
    subject.stop().await;
}

#[tokio::test]
async fn a_short_outage_of_the_state_store_is_waited_out() {
    let Some((mut server, url)) = common::private_redis(&[]) else {
        return;
    };
    let config = RedisConfig {
        url: url.parse().unwrap(),
        call_timeout: Duration::from_millis(200),
        ..RedisConfig::default()
    };
    let state: Arc<dyn StateStore> = Arc::new(Redis::connect(&config).await.unwrap());
    let subject = Subject::over(Some(Arc::clone(&state)), None).await;
    create(&*state, &subject.upload("a", 0)).await;
    server.kill();
    let everything = Search::default();
    let outage = async {
        // When the second check has failed, so has the first call of the search.
        for _ in 0..2 {
            assert!(state.check().await.unwrap_err().is_retryable());
        }
        server.restart();
    };
    let (found, ()) = tokio::join!(subject.find(&everything, 10, 0), outage);
    assert_eq!(found, (vec!["a".to_owned()], 1));
    subject.stop().await;
}
