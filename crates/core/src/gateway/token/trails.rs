//! The trails of uploads for which this process has sealed tokens: the next token needs only the parts committed since.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
};

use crate::upload::{Parts, Trail, UploadId, WriterTag};

/// How many trails are kept. One takes at most 4 kB; on S3 less than 100 bytes.
const CAPACITY: usize = 1_024;

/// The trails of the uploads that were asked for last.
#[derive(Debug, Default)]
pub(super) struct Trails(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    by_id: HashMap<UploadId, Arc<tokio::sync::Mutex<KnownTrail>>>,
    /// In the order in which they were added.
    ids: VecDeque<UploadId>,
}

/// The trail of one upload, if it is known.
#[derive(Debug, Default)]
pub(super) struct KnownTrail(Option<Known>);

#[derive(Debug)]
struct Known {
    trail: Trail,
    /// The trail is valid for this writer. After a rollback of the state store another writer may record other parts.
    writer: Option<WriterTag>,
    /// The trail is valid as long as no part of it is replaced.
    rewritten: u64,
}

// === impl Trails ===

impl Trails {
    /// The trail of an upload. If too many are kept, the one that was added first is forgotten.
    pub(super) fn of(&self, id: &UploadId) -> Arc<tokio::sync::Mutex<KnownTrail>> {
        // A std mutex: held for a few instructions, never across an await.
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = kept.by_id.get(id) {
            return Arc::clone(known);
        }
        if kept.ids.len() == CAPACITY
            && let Some(oldest) = kept.ids.pop_front()
        {
            kept.by_id.remove(&oldest);
        }
        kept.ids.push_back(id.clone());
        let known = kept.by_id.entry(id.clone()).or_default();
        Arc::clone(known)
    }
}

// === impl KnownTrail ===

impl KnownTrail {
    /// The trail, if it is one of these parts, whose writer is `writer`. Their counts are enough.
    pub(super) fn get(&self, writer: Option<WriterTag>, parts: &Parts) -> Option<&Trail> {
        let known = self.0.as_ref()?;
        let is_valid = known.writer == writer
            && known.rewritten == parts.rewritten()
            && known.trail.parts() <= parts.committed();
        is_valid.then_some(&known.trail)
    }

    /// Keeps the trail of these parts.
    pub(super) fn set(&mut self, writer: Option<WriterTag>, parts: &Parts, trail: Trail) {
        self.0 = Some(Known {
            trail,
            writer,
            rewritten: parts.rewritten(),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_trail_is_valid_until_the_writer_changes_or_parts_are_replaced_or_lost() {
        let (trails, id) = (Trails::default(), UploadId::generate(None));
        let (writer, parts) = (WriterTag::from_bits(7), Parts::summary(1, []));
        trails
            .of(&id)
            .lock()
            .await
            .set(writer, &parts, Trail::default());
        let known = trails.of(&id);
        let known = known.lock().await;
        assert!(known.get(writer, &Parts::summary(2, [])).is_some());
        assert!(known.get(WriterTag::from_bits(8), &parts).is_none());
        assert!(known.get(writer, &parts.with_rewritten(1)).is_none());
    }

    #[tokio::test]
    async fn the_number_of_trails_is_limited() {
        let trails = Trails::default();
        for _ in 0..CAPACITY + 5 {
            trails.of(&UploadId::generate(None));
        }
        let kept = trails.0.lock().unwrap();
        assert_eq!((kept.ids.len(), kept.by_id.len()), (CAPACITY, CAPACITY));
    }
}
