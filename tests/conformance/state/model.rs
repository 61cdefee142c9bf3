//! Random calls have the same results in a store and in a small model of it.

use std::collections::{BTreeMap, BTreeSet};

use proptest::{collection::vec, prelude::*, test_runner::TestRunner};
use upload_gateway_core::{
    state::{Creation, ListQuery, PartRecord, Predecessor, StateStore, Times, Update},
    upload::{
        Claim, Claims, Crc64Nvme, Md5, Owner, Part, Parts, Phase, Timestamp, Upload, UploadId,
        WriterTag,
    },
};

use super::{fresh_redb, fresh_redis, samples::*};

/// One call; uploads, writers and parts are numbers.
#[derive(Debug, Clone)]
enum Call {
    Create(usize),
    TakeOver(usize, u32, Option<u32>, u64),
    /// By a writer that knows this version.
    RecordParts(usize, u32, u64, Vec<Part>, u64),
    /// By the owner, or by another one.
    Claim(usize, bool, Vec<Claim>, u64),
    /// Of the current version or an older one; perhaps only if it is untouched since then, or since another time.
    Update(usize, Phase, u64, Option<bool>),
    List(usize, usize),
}

/// The records, each with the update that made its version.
#[derive(Default)]
struct Model {
    asked: BTreeMap<UploadId, Upload>,
    records: BTreeMap<UploadId, (Upload, Option<Upload>)>,
}

impl Model {
    fn create(&mut self, upload: &Upload) -> Creation {
        if self.records.contains_key(&upload.id) {
            return Creation::Created;
        }
        let mut live = self.records.values().filter(|(known, _)| known.is_live());
        let twin = live.find(|(known, _)| {
            known.fingerprint.is_some() && known.fingerprint == upload.fingerprint
        });
        if let Some((known, _)) = twin {
            return Creation::Exists(Box::new(known.clone()));
        }
        self.records
            .insert(upload.id.clone(), (upload.clone(), None));
        Creation::Created
    }

    fn take_over(
        &mut self,
        id: &UploadId,
        writer: WriterTag,
        from: Predecessor,
        times: Times,
    ) -> Option<Upload> {
        let (record, update) = self.records.get_mut(id)?;
        let may = match from {
            Predecessor::Any => true,
            Predecessor::Only(other) => [other, Some(writer)].contains(&record.writer),
        };
        if may && record.phase == Phase::Open {
            record.parts.drop_beyond_committed();
            record.attempts += u32::from(record.writer != Some(writer));
            record.writer = Some(writer);
            record.version += 1;
            (record.updated_at, record.expires_at) = (times.now, times.expires_at);
            *update = None;
        }
        Some(record.clone())
    }

    fn record_parts(
        &mut self,
        id: &UploadId,
        writer: WriterTag,
        version: u64,
        parts: &[Part],
        times: Times,
    ) -> PartRecord {
        let Some((record, _)) = self.records.get_mut(id) else {
            return PartRecord::Missing;
        };
        if record.writer != Some(writer) {
            return PartRecord::TakenOver;
        }
        if record.version < version {
            return PartRecord::Missing;
        }
        if record.phase != Phase::Open {
            return PartRecord::NotOpen(record.phase);
        }
        record.parts.extend(parts.iter().cloned());
        (record.updated_at, record.expires_at) = (times.now, times.expires_at);
        PartRecord::Recorded {
            committed: record.parts.committed(),
        }
    }

    fn claim(
        &mut self,
        id: &UploadId,
        owner: &Owner,
        claims: &[Claim],
        times: Times,
    ) -> Option<Upload> {
        let (record, _) = self.records.get_mut(id)?;
        if record.owner != *owner {
            return None;
        }
        let planned = 1..=record.part_count().unwrap_or(0);
        let mut numbers = claims.iter().map(|claim| claim.number);
        if record.phase == Phase::Open && numbers.all(|number| planned.contains(&number)) {
            let claims: Claims = claims.iter().copied().collect();
            for claim in claims.iter() {
                if !record.parts.contradict(&claim) {
                    record.claims.insert(claim);
                }
            }
            (record.updated_at, record.expires_at) = (times.now, times.expires_at);
        }
        let committed = record.parts.committed();
        let asked = |part: &&Part| {
            part.number == committed || claims.iter().any(|claim| claim.number == part.number)
        };
        Some(Upload {
            parts: Parts::summary(committed, record.parts.iter().filter(asked).cloned())
                .with_rewritten(record.parts.rewritten()),
            claims: Claims::default(),
            ..record.clone()
        })
    }

    /// An update of an older version, a repetition of the last one, or an update of the current version.
    fn next_update(&mut self, upload: &Upload, phase: Phase, kind: u64) -> Upload {
        let present = self.records.get(&upload.id);
        let mut update = present.map_or(upload, |(record, _)| record).clone();
        if update.is_live() {
            update.phase = phase;
        }
        update.session = Some(kind.to_string());
        if kind == 2 {
            update.writer = None;
        }
        match (kind, self.asked.get(&upload.id)) {
            (0, _) => update.version = update.version.saturating_sub(1),
            (1, Some(last)) => update = last.clone(),
            _ => {}
        }
        self.asked.insert(upload.id.clone(), update.clone());
        update
    }

    /// The time of the record's last change, or another time.
    fn seen(&self, upload: &Upload, is_present: bool) -> Timestamp {
        let record = self.records.get(&upload.id);
        let changed = record.map_or(upload, |(record, _)| record).updated_at;
        Timestamp(changed.0 + u64::from(!is_present))
    }

    /// The current writer; another one for one kind of update.
    fn expected_writer(&self, upload: &Upload, kind: u64) -> Option<WriterTag> {
        let record = self.records.get(&upload.id);
        let present = record.and_then(|(record, _)| record.writer);
        if kind == 3 { Some(writer(9)) } else { present }
    }

    fn update(
        &mut self,
        upload: &Upload,
        writer: Option<WriterTag>,
        seen: Option<Timestamp>,
    ) -> Update {
        let Some((record, update)) = self.records.get_mut(&upload.id) else {
            return Update::Missing;
        };
        if record.version == upload.version + 1 && update.as_ref() == Some(upload) {
            return Update::Updated(record.version);
        }
        let is_touched = seen.is_some_and(|seen| seen != record.updated_at);
        let is_seen = (record.version, record.writer) == (upload.version, writer);
        if !is_seen || is_touched {
            return Update::Conflict(Box::new(record.clone()));
        }
        let (parts, claims) = match upload.is_live() {
            false => (Parts::default(), Claims::default()),
            true => (record.parts.clone(), record.claims.clone()),
        };
        *record = Upload {
            parts,
            claims,
            version: upload.version + 1,
            ..upload.clone()
        };
        *update = Some(upload.clone());
        Update::Updated(record.version)
    }

    fn list(&self, owner: &Owner) -> Vec<UploadId> {
        let records = self.records.values().map(|(record, _)| record);
        let mut listed: Vec<_> = records
            .filter(|record| record.owner == *owner)
            .map(|record| (u64::MAX - record.created_at.0, record.id.clone()))
            .collect();
        listed.sort();
        listed.into_iter().map(|(_, id)| id).collect()
    }
}

/// Makes `calls` to both and compares every result, and all records at the end.
async fn compare(store: &dyn StateStore, calls: &[Call]) -> Result<(), TestCaseError> {
    let (owner, stranger) = (owner(), owner());
    let uploads = [
        sized(findable(&owner, "a"), 4),
        sized(findable(&owner, "a"), 4),
        sized(findable(&owner, "a"), 4),
        upload(&owner),
    ];
    let mut model = Model::default();
    let start = times();
    let at = |seconds: u64| Times {
        now: Timestamp(start.now.0 + seconds),
        expires_at: Timestamp(start.expires_at.0 + seconds),
    };
    for call in calls {
        match *call {
            Call::Create(number) => {
                let upload = &uploads[number];
                prop_assert_eq!(
                    store.create(upload, u64::MAX).await.unwrap(),
                    model.create(upload)
                );
            }
            Call::TakeOver(number, tag, from, seconds) => {
                let from = from.map_or(Predecessor::Any, |tag| {
                    Predecessor::Only(Some(tag).filter(|tag| *tag > 0).map(writer))
                });
                let id = &uploads[number].id;
                let taken = store
                    .take_over(id, writer(tag), from, at(seconds))
                    .await
                    .unwrap();
                prop_assert_eq!(taken, model.take_over(id, writer(tag), from, at(seconds)));
            }
            Call::RecordParts(number, tag, version, ref parts, seconds) => {
                let id = &uploads[number].id;
                let recorded = store
                    .record_parts(id, writer(tag), version, parts, at(seconds))
                    .await
                    .unwrap();
                let expected = model.record_parts(id, writer(tag), version, parts, at(seconds));
                prop_assert_eq!(recorded, expected);
            }
            Call::Claim(number, is_mine, ref claims, seconds) => {
                let id = &uploads[number].id;
                let claimer = if is_mine { &owner } else { &stranger };
                let answer = store.claim(id, claimer, claims, at(seconds)).await.unwrap();
                prop_assert_eq!(answer, model.claim(id, claimer, claims, at(seconds)));
            }
            Call::Update(number, phase, kind, untouched) => {
                let update = model.next_update(&uploads[number], phase, kind);
                let seen = untouched.map(|is_present| model.seen(&update, is_present));
                let (writer, updated) = match seen {
                    Some(seen) => (update.writer, store.update_untouched(&update, seen).await),
                    None => {
                        let writer = model.expected_writer(&update, kind);
                        (writer, store.update(&update, writer).await)
                    }
                };
                prop_assert_eq!(updated.unwrap(), model.update(&update, writer, seen));
            }
            Call::List(skip, limit) => {
                let query = ListQuery {
                    listing: owner.clone().into(),
                    after: None,
                    skip,
                    limit,
                };
                let page = store.list(&query).await.unwrap();
                let listed: Vec<_> = page.uploads.into_iter().map(|upload| upload.id).collect();
                let expected = model.list(&owner).into_iter().skip(skip).take(limit);
                prop_assert_eq!(listed, expected.collect::<Vec<_>>());
            }
        }
    }
    for before in [at(0).expires_at, at(4).expires_at, Timestamp::never()] {
        compare_due(store, &model, &uploads, before).await?;
    }
    compare_records(store, &model, &uploads).await
}

async fn compare_records(
    store: &dyn StateStore,
    model: &Model,
    uploads: &[Upload],
) -> Result<(), TestCaseError> {
    for upload in uploads {
        let expected = model
            .records
            .get(&upload.id)
            .map(|(record, _)| record.clone());
        prop_assert_eq!(store.get(&upload.id).await.unwrap(), expected);
    }
    Ok(())
}

/// What the store lists as due must be due, and every live upload must be due at some time.
async fn compare_due(
    store: &dyn StateStore,
    model: &Model,
    uploads: &[Upload],
    before: Timestamp,
) -> Result<(), TestCaseError> {
    let page = store.due(before, None, usize::from(u16::MAX)).await;
    let known: BTreeSet<UploadId> = page.unwrap().uploads.into_iter().collect();
    for upload in uploads {
        let record = model.records.get(&upload.id);
        let due_at = record.and_then(|(record, _)| record.due_at());
        let is_due = due_at.is_some_and(|due_at| due_at <= before);
        if before == Timestamp::never() {
            prop_assert_eq!(known.contains(&upload.id), is_due);
        } else {
            // Parts recorded by a clock that was set back are indexed late.
            prop_assert!(is_due || !known.contains(&upload.id));
        }
    }
    Ok(())
}

fn any_phase() -> impl Strategy<Value = Phase> {
    prop_oneof![
        4 => Just(Phase::Open),
        2 => Just(Phase::Committing),
        1 => Just(Phase::Complete),
        1 => Just(Phase::Aborted),
    ]
}

fn any_part() -> impl Strategy<Value = Part> {
    let kinds = prop_oneof![8 => Just(0), 4 => Just(1), 1 => Just(2)];
    (1..6u32, 0..9u32, kinds).prop_map(|(number, receipt, kind)| Part {
        receipt: match receipt {
            0 => part(number).receipt,
            _ => receipt.to_string(),
        },
        checksum: match kind {
            0 => part(number).checksum,
            1 => Some(Crc64Nvme(number.into()).into()),
            _ => None,
        },
        ..part(number)
    })
}

/// A claim, rarely outside the plan of 4 parts.
fn any_claim() -> impl Strategy<Value = Claim> {
    let number = prop_oneof![20 => 1..5u32, 1 => Just(0), 1 => Just(5)];
    let md5 = proptest::option::of((0..3u8).prop_map(|byte| Md5::of(&[byte])));
    (number, md5).prop_map(|(number, md5)| Claim {
        number,
        md5,
        signed_for: None,
    })
}

fn any_call() -> impl Strategy<Value = Call> {
    prop_oneof![
        2 => (0..4usize).prop_map(Call::Create),
        2 => (0..4usize, 1..3u32, proptest::option::of(0..3u32), 0..9u64)
            .prop_map(|(upload, writer, from, seconds)| Call::TakeOver(upload, writer, from, seconds)),
        6 => (0..4usize, 1..3u32, 0..4u64, vec(any_part(), 1..4), 0..9u64)
            .prop_map(|(upload, writer, version, parts, seconds)| Call::RecordParts(upload, writer, version, parts, seconds)),
        4 => (0..4usize, proptest::bool::weighted(0.9), vec(any_claim(), 0..4), 0..9u64)
            .prop_map(|(upload, is_mine, claims, seconds)| Call::Claim(upload, is_mine, claims, seconds)),
        3 => (0..4usize, any_phase(), 0..5u64, proptest::option::of(any::<bool>()))
            .prop_map(|(upload, phase, kind, untouched)| Call::Update(upload, phase, kind, untouched)),
        1 => (0..4usize, 1..5usize).prop_map(|(skip, limit)| Call::List(skip, limit)),
    ]
}

/// Runs `cases` sequences of calls against one store, each for another owner.
fn conform(store: &dyn StateStore, runtime: &tokio::runtime::Runtime, cases: u32) {
    let config = ProptestConfig {
        cases,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let outcome = TestRunner::new(config).run(&vec(any_call(), 1..60), |calls| {
        runtime.block_on(compare(store, &calls))
    });
    if let Err(failure) = outcome {
        panic!("{failure}");
    }
}

#[test]
fn redb_answers_as_the_model_does() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (store, _directory) = runtime.block_on(fresh_redb()).unwrap();
    conform(&store, &runtime, 40);
}

#[test]
fn redis_answers_as_the_model_does() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let Some((store, _backend)) = runtime.block_on(fresh_redis()) else {
        return;
    };
    conform(&store, &runtime, 100);
}
