//! The writes to the state file. Those that wait at the same time share one durable transaction, so that a call waits for
//! two of them at most, however many calls write.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use ::redb::Database;
use tokio::sync::{self, oneshot};
use upload_gateway_core::error::{Error, Kind, Result};

use super::{
    failure::internal,
    file::{File, closed},
    tables::Tables,
};

/// The largest number of writes in one transaction.
const MAX_TOGETHER: usize = 128;

/// A write. It can run several times: if one write of a transaction fails, the others are repeated without it.
type Work = Box<dyn Fn(&mut Tables<'_>) -> Result<()> + Send>;

/// The writes that wait. Clones share them.
#[derive(Clone, Default)]
pub(super) struct Writes {
    /// A std mutex: held for a few instructions, never across an await.
    waiting: Arc<Mutex<VecDeque<Write>>>,
    /// Held by one transaction at a time, so that waiting writes occupy no thread.
    turn: Arc<sync::Mutex<()>>,
}

struct Write {
    work: Work,
    /// Closed if the caller was cancelled, or if the file failed.
    done: oneshot::Sender<Result<()>>,
}

// === impl Writes ===

impl Writes {
    /// Runs `work` in a durable transaction. Stores nothing of it if it fails.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        file: &File,
        work: impl Fn(&mut Tables<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let answer = Arc::new(Mutex::new(None));
        let work: Work = {
            let answer = Arc::clone(&answer);
            Box::new(move |tables| {
                let value = work(tables)?;
                *lock(&answer) = Some(value);
                Ok(())
            })
        };
        let (done, mut ended) = oneshot::channel();
        lock(&self.waiting).push_back(Write { work, done });
        loop {
            tokio::select! {
                biased;
                // By the transaction of another call.
                ended = &mut ended => {
                    ended.map_err(|_| closed())??;
                    let value = lock(&answer).take();
                    return value.ok_or_else(|| Error::fault("a write has no answer"));
                }
                turn = Arc::clone(&self.turn).lock_owned() => {
                    let writes = self.take();
                    let transaction = file.write(move |database| {
                        // Held until the transaction ends, even if the caller was cancelled.
                        let _turn = turn;
                        run_together(database, writes)
                    });
                    transaction.await?;
                }
            }
        }
    }

    /// The next writes, without those whose callers were cancelled.
    fn take(&self) -> Vec<Write> {
        let mut waiting = lock(&self.waiting);
        let length = waiting.len().min(MAX_TOGETHER);
        let taken = waiting.drain(..length);
        taken.filter(|write| !write.done.is_closed()).collect()
    }
}

/// Runs writes in one transaction; if one of them fails, each in one of its own.
///
/// # Errors
/// The file failed. The writes that have not ended are dropped.
fn run_together(database: &Database, writes: Vec<Write>) -> Result<()> {
    if writes.len() > 1 && commit(database, writes.iter().map(|write| &write.work))?.is_ok() {
        for write in writes {
            // Fails if the caller was cancelled.
            let _ = write.done.send(Ok(()));
        }
        return Ok(());
    }
    for write in writes {
        let ended = commit(database, [&write.work])?;
        let _ = write.done.send(ended);
    }
    Ok(())
}

/// Runs writes in one durable transaction. The inner error is that of one of them; nothing is stored then.
///
/// # Errors
/// The file failed.
fn commit<'a>(
    database: &Database,
    works: impl IntoIterator<Item = &'a Work>,
) -> Result<Result<()>> {
    let transaction = database.begin_write().map_err(internal)?;
    let mut tables = Tables::open(&transaction)?;
    for work in works {
        match work(&mut tables) {
            Err(error) if error.kind() == Kind::Unavailable => return Err(error),
            Err(error) => return Ok(Err(error)),
            Ok(()) => {}
        }
    }
    drop(tables);
    transaction.commit().map_err(internal)?;
    Ok(Ok(()))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use ::redb::ReadableTable;
    use futures::future::join_all;
    use tempfile::TempDir;

    use super::{super::open::open, *};

    fn file(directory: &TempDir) -> File {
        let path = directory.path().join("state.redb");
        let database = open(&path).unwrap();
        File::new(path, database)
    }

    fn fact(name: &'static str) -> impl Fn(&mut Tables<'_>) -> Result<usize> + Send + 'static {
        move |tables| {
            let inserted = tables.facts.insert(name, [1].as_slice());
            inserted.map(drop).map_err(internal)?;
            Ok(name.len())
        }
    }

    #[tokio::test]
    async fn a_write_that_fails_stores_nothing_and_does_not_stop_the_others() {
        let directory = TempDir::new().unwrap();
        let (file, writes) = (file(&directory), Writes::default());
        let failing = writes.run(&file, |tables| {
            fact("failing")(tables)?;
            Err::<usize, _>(Error::fault("unreadable"))
        });
        // All three wait for this turn.
        let turn = Arc::clone(&writes.turn).lock_owned().await;
        let release = async {
            while lock(&writes.waiting).len() < 3 {
                tokio::task::yield_now().await;
            }
            drop(turn);
        };
        let (one, two) = (
            writes.run(&file, fact("one")),
            writes.run(&file, fact("three")),
        );
        let (failed, one, two, ()) = tokio::join!(failing, one, two, release);
        assert_eq!(failed.unwrap_err().kind(), Kind::Internal);
        assert_eq!((one.unwrap(), two.unwrap()), (3, 5));
        let stored = writes.run(&file, |tables| {
            let has = |name| Ok(tables.facts.get(name).map_err(internal)?.is_some());
            ["failing", "one", "three"].into_iter().map(has).collect()
        });
        let stored: Vec<bool> = stored.await.unwrap();
        assert_eq!(stored, [false, true, true]);
    }

    #[tokio::test]
    async fn writes_that_wait_share_transactions() {
        let directory = TempDir::new().unwrap();
        let (file, writes) = (file(&directory), Writes::default());
        let turn = Arc::clone(&writes.turn).lock_owned().await;
        let counted = Arc::new(Mutex::new(Vec::new()));
        let calls = (0..300).map(|number| {
            let counted = Arc::clone(&counted);
            writes.run(&file, move |tables| {
                let before = tables.facts.get("n").map_err(internal)?;
                let before = before.map_or(0, |value| value.value().len());
                let longer = vec![0; before + 1];
                tables
                    .facts
                    .insert("n", longer.as_slice())
                    .map_err(internal)?;
                lock(&counted).push(number);
                Ok(before)
            })
        });
        let release = async {
            while lock(&writes.waiting).len() < 300 {
                tokio::task::yield_now().await;
            }
            drop(turn);
        };
        let (answers, ()) = tokio::join!(join_all(calls), release);
        let answers: Vec<usize> = answers.into_iter().map(Result::unwrap).collect();
        // In order, each once, and each sees the ones before.
        assert_eq!(answers, (0..300).collect::<Vec<_>>());
        assert_eq!(*lock(&counted), (0..300).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn the_write_of_a_cancelled_call_does_not_run_later() {
        let directory = TempDir::new().unwrap();
        let (file, writes) = (file(&directory), Writes::default());
        let turn = Arc::clone(&writes.turn).lock_owned().await;
        let cancelled = tokio::time::timeout(
            std::time::Duration::ZERO,
            writes.run(&file, fact("cancelled")),
        );
        assert!(cancelled.await.is_err());
        drop(turn);
        let stored = writes.run(&file, |tables| {
            Ok(tables.facts.get("cancelled").map_err(internal)?.is_some())
        });
        assert!(!stored.await.unwrap());
    }
}
