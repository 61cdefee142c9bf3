//! A gateway ends between any two calls to its stores, or is killed, while it deletes, expires, copies, moves or rebuilds. Another one makes
//! one sweep, and nothing is half done.

mod gate;
mod kills;
mod rebuilds;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio_util::sync::CancellationToken;
use upload_gateway_core::{
    clock::Clock,
    decorate::{Around, Decorated},
    error::{Error, Kind, Result},
    gateway::{Caller, Gateway, Search, Start, Sweep},
    state::StateStore,
    upload::{FileMetadata, Phase, Upload, UploadId},
};

use super::{
    common::{bytes, until},
    copies::{copy, get, move_to, moved_to},
    object_records::{collect, keyed, upload, with_keys},
    world::{DAY, MINUTE, PART, World, file, for_each_store, pass, sweep_as},
};

for_each_store!(
    a_deletion_is_finished_by_one_sweep,
    an_expiry_is_finished_by_one_sweep,
    a_copy_of_a_small_file_is_whole_or_leaves_nothing,
    a_copy_of_parts_is_whole_or_leaves_nothing,
    a_move_of_a_small_file_keeps_one_of_both,
    a_move_of_parts_keeps_one_of_both,
);

/// More calls than any of the operations makes.
const MAX_STEPS: usize = 200;

/// How long after the end of one gateway the other one sweeps: after the lease of a commit, and after the expiry of an upload
/// that nothing has continued.
const LATER: [Duration; 2] = [
    Duration::from_secs(3 * 60),
    Duration::from_secs(2 * 24 * 60 * 60),
];

/// The process of a gateway. It ends after some calls to its stores: later ones reach no store.
#[derive(Debug, Clone)]
struct Process {
    left: Arc<AtomicUsize>,
    has_ended: Arc<AtomicBool>,
}

// === impl Process ===

impl Process {
    fn new() -> Self {
        Self {
            left: Arc::new(usize::MAX.into()),
            has_ended: Arc::default(),
        }
    }

    /// A gateway in this process, over this state store.
    async fn gateway(&self, world: &World, state: &Arc<dyn StateStore>) -> Arc<Gateway> {
        let state = Decorated::new(Arc::clone(state), self.clone());
        let storages = world.backends.storages.clone();
        let storages =
            storages.with_stores(|_, store| Arc::new(Decorated::new(store, self.clone())));
        let clock = Arc::new(world.clock.clone());
        let gateway = Gateway::new(Arc::new(state), storages, keyed(&[1]), clock).await;
        Arc::new(gateway.unwrap())
    }

    /// It makes this many calls from now on.
    fn ends_after(&self, calls: usize) {
        self.left.store(calls, Ordering::Relaxed);
    }

    fn has_ended(&self) -> bool {
        self.has_ended.load(Ordering::Relaxed)
    }
}

impl Around for Process {
    async fn around<T, F>(
        &self,
        name: &'static str,
        call: impl Fn() -> F + Send + Sync,
    ) -> Result<T>
    where
        T: Send,
        F: Future<Output = Result<T>> + Send,
    {
        let count = |left: usize| left.checked_sub(1);
        let counted = self
            .left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, count);
        // Otherwise another sweeper would wait a minute, by the store's clock, until the lease has expired.
        let is_release = name == "state.release";
        if counted.is_err() && !is_release {
            self.has_ended.store(true, Ordering::Relaxed);
            return Err(Error::internal(name, "the process has ended"));
        }
        call().await
    }
}

/// Cuts an operation off at its first step, its second one, and so on, until it is not: `cut_off` gets the number of steps, and
/// returns whether it did. Each time another gateway makes one sweep, `later`, and `check` gets it.
#[expect(
    clippy::future_not_send,
    reason = "a test stays in its thread, and bounds of asynchronous closures cannot name `Send`"
)]
async fn at_every_step<T>(
    world: &World,
    later: Duration,
    prepare: impl AsyncFn(&Gateway) -> T,
    cut_off: impl AsyncFn(usize, &T) -> bool,
    check: impl AsyncFn(&Gateway, &T),
) {
    for step in 0..MAX_STEPS {
        let prepared = prepare(&*with_keys(world, &[1]).await).await;
        let was_cut_off = cut_off(step, &prepared).await;
        world.clock.advance(later);
        let other = with_keys(world, &[1]).await;
        let report = sweep_as(&other, &with_all_sessions()).await;
        assert_eq!(report.failures, 0, "after {step} steps: {report:?}");
        check(&other, &prepared).await;
        assert_tidy(world, &other).await;
        for left in uploads(&other).await {
            let caller = Caller::default();
            other.delete_upload(&caller, &left.id).await.unwrap();
        }
        assert_eq!(objects(world).await, Vec::<String>::new());
        if !was_cut_off {
            assert!(step > 0, "it was never cut off");
            return assert_no_session(world).await;
        }
    }
    panic!("it has more than {MAX_STEPS} steps");
}

/// Runs `operation` on a gateway that ends after this many calls to its stores. Returns whether it has ended.
async fn ended_after(
    calls: usize,
    world: &World,
    state: &Arc<dyn StateStore>,
    operation: impl AsyncFnOnce(&Gateway),
) -> bool {
    let process = Process::new();
    let ending = process.gateway(world, state).await;
    process.ends_after(calls);
    operation(&ending).await;
    process.has_ended()
}

/// Cuts off what `send` does at every step. Later `check` gets another gateway, which has made a sweep.
#[expect(
    clippy::future_not_send,
    reason = "a test stays in its thread, and bounds of asynchronous closures cannot name `Send`"
)]
pub(crate) async fn sent_after_a_crash(
    world: &World,
    send: impl AsyncFn(Arc<Gateway>),
    check: impl AsyncFn(Arc<Gateway>),
) {
    for later in LATER {
        let cut_off = async |step, (): &()| {
            let process = Process::new();
            let ending = process.gateway(world, &world.backends.state).await;
            process.ends_after(step);
            send(ending).await;
            process.has_ended()
        };
        let checked = async |_: &Gateway, (): &()| check(with_keys(world, &[1]).await).await;
        at_every_step(world, later, async |_| (), cut_off, checked).await;
    }
}

/// A pass that ends every session without a record.
fn with_all_sessions() -> Sweep {
    Sweep {
        session_age: Some(Duration::ZERO),
        ..pass()
    }
}

async fn uploads(gateway: &Gateway) -> Vec<Upload> {
    let (caller, all) = (Caller::default(), Search::default());
    let listed = gateway
        .records
        .list_uploads(&caller, &all, Start::default(), 99);
    let mut uploads = listed.await.unwrap().uploads;
    uploads.retain(|upload| upload.phase != Phase::Aborted);
    uploads
}

async fn objects(world: &World) -> Vec<String> {
    let listed = world.store().list(&world.prefix(), None).await;
    listed.unwrap().keys
}

/// Checks that the store has no object but those of uploads that are COMPLETE or continue, and that each COMPLETE one has its
/// object.
async fn assert_tidy(world: &World, gateway: &Gateway) {
    let uploads = uploads(gateway).await;
    let keys = objects(world).await;
    let has = |id: &UploadId, key: &String| key.contains(id.as_str());
    for key in &keys {
        let owner = uploads.iter().any(|upload| has(&upload.id, key));
        assert!(owner, "{key} is left of {uploads:?}");
    }
    for upload in &uploads {
        let is_complete = upload.phase == Phase::Complete;
        let is_stored = keys.contains(&upload.object_key);
        assert!(is_stored || !is_complete, "{upload:?} has no object");
    }
}

/// Checks that a sweep ends all sessions, as soon as they are old: stores report times in whole seconds.
async fn assert_no_session(world: &World) {
    let gateway = with_keys(world, &[1]).await;
    until("all sessions are ended", async || {
        sweep_as(&gateway, &with_all_sessions()).await;
        let listed = world.store().list_sessions(&world.prefix(), None).await;
        listed.unwrap().is_none_or(|page| page.sessions.is_empty())
    })
    .await;
}

/// A file whose record the entry in its metadata does not hold.
fn tagged(size: usize) -> FileMetadata {
    FileMetadata {
        tags: vec!["a".into()],
        ..file(size)
    }
}

/// Checks that the file is COMPLETE, with its bytes, or that nothing of it is left. Returns whether it is.
async fn is_whole(world: &World, gateway: &Gateway, known: &Upload) -> bool {
    match get(gateway, &known.id).await {
        Ok(found) => {
            assert_eq!(found.phase, Phase::Complete);
            let size = usize::try_from(known.object.as_ref().unwrap().size).unwrap();
            assert!(collect(&*world.store(), &known.object_key).await == bytes(size));
            true
        }
        Err(error) => {
            assert_eq!(error.kind(), Kind::NotFound, "{error:?}");
            let left = objects(world).await.into_iter();
            let left: Vec<_> = left.filter(|key| key.contains(known.id.as_str())).collect();
            assert_eq!(left, Vec::<String>::new());
            false
        }
    }
}

async fn a_deletion_is_finished_by_one_sweep(world: World) {
    let state = &world.backends.state;
    for later in LATER {
        let has_begun = AtomicBool::new(false);
        at_every_step(
            &world,
            later,
            async |gateway| upload(gateway, tagged(1000)).await,
            async |step, known| {
                let was_cut_off = ended_after(step, &world, state, async |ending| {
                    let caller = Caller::default();
                    // It fails, unless this is the last step.
                    let _ = ending.delete_upload(&caller, &known.id).await;
                });
                let was_cut_off = was_cut_off.await;
                let found = world.state().summary(&known.id).await.unwrap();
                let is_deleting = found.is_some_and(|found| found.phase == Phase::Deleting);
                has_begun.store(is_deleting, Ordering::Relaxed);
                was_cut_off
            },
            async |other, known| {
                let is_whole = is_whole(&world, other, known).await;
                assert_eq!(is_whole, !has_begun.load(Ordering::Relaxed));
                if is_whole || later < DAY {
                    let deleted = other.delete_upload(&Caller::default(), &known.id).await;
                    assert_eq!(deleted.unwrap().phase, Phase::Deleting);
                }
            },
        )
        .await;
    }
}

async fn an_expiry_is_finished_by_one_sweep(world: World) {
    at_every_step(
        &world,
        MINUTE,
        async |gateway| {
            let known = upload(gateway, file(1000)).await;
            let caller = Caller::default();
            let kept = gateway.keep_upload(&caller, &known.id, Some(60));
            kept.await.unwrap();
            world.clock.advance(3 * MINUTE);
            known
        },
        async |step, _| {
            let ended = ended_after(step, &world, &world.backends.state, async |ending| {
                let stop = CancellationToken::new();
                // Its failures are counted.
                let _ = ending.sweeper.sweep(&pass(), &stop).await;
            });
            ended.await
        },
        async |other, known| assert!(!is_whole(&world, other, known).await),
    )
    .await;
}

/// Checks that the source is whole, and that the same call makes the copy.
async fn is_copied(world: &World, other: &Gateway, source: &Upload) {
    assert_tidy(world, other).await;
    assert!(is_whole(world, other, source).await);
    let copied = copy(other, &source.id).await.unwrap();
    assert!(is_whole(world, other, &copied).await);
    assert!(is_whole(world, other, source).await);
    let live = uploads(other).await.into_iter();
    assert_eq!(live.filter(Upload::is_live).count(), 0);
}

async fn copies(world: &World, size: usize) {
    for later in LATER {
        at_every_step(
            world,
            later,
            async |gateway| upload(gateway, tagged(size)).await,
            async |step, source| {
                let copied = ended_after(step, world, &world.backends.state, async |ending| {
                    let _ = copy(ending, &source.id).await;
                });
                copied.await
            },
            async |other, source| is_copied(world, other, source).await,
        )
        .await;
    }
}

async fn a_copy_of_a_small_file_is_whole_or_leaves_nothing(world: World) {
    copies(&world, 1000).await;
}

async fn a_copy_of_parts_is_whole_or_leaves_nothing(world: World) {
    copies(&world, PART + 1).await;
}

/// The COMPLETE copy of a file whose source is gone.
async fn copy_of(gateway: &Gateway, source: &Upload) -> Upload {
    let is_copy = |upload: &Upload| upload.copy_of.as_ref() == Some(&source.id);
    let mut copies = uploads(gateway).await.into_iter().filter(is_copy);
    copies
        .next()
        .expect("the source is deleted after its copy is COMPLETE")
}

/// Checks that the source or its copy is whole, and that the same call finishes the move, as long as it is remembered.
async fn is_moved(world: &World, other: &Gateway, source: &Upload) {
    assert_tidy(world, other).await;
    let is_unmoved = is_whole(world, other, source).await;
    if !is_unmoved {
        let copied = copy_of(other, source).await;
        assert!(is_whole(world, other, &copied).await);
        if copied.updated_at.plus(DAY) < world.clock.now() {
            return;
        }
    }
    let moved = move_to(other, &source.id).await.unwrap();
    assert!(is_whole(world, other, &moved).await);
    assert!(!is_whole(world, other, source).await);
    let error = get(other, &source.id).await.unwrap_err();
    assert_eq!(moved_to(&error).as_deref(), Some(moved.id.as_str()));
}

async fn moves(world: &World, size: usize, later: &[Duration]) {
    for &later in later {
        at_every_step(
            world,
            later,
            async |gateway| upload(gateway, tagged(size)).await,
            async |step, source| {
                let moved = ended_after(step, world, &world.backends.state, async |ending| {
                    let _ = move_to(ending, &source.id).await;
                });
                moved.await
            },
            async |other, source| is_moved(world, other, source).await,
        )
        .await;
    }
}

async fn a_move_of_a_small_file_keeps_one_of_both(world: World) {
    moves(&world, 1000, &LATER).await;
}

async fn a_move_of_parts_keeps_one_of_both(world: World) {
    moves(&world, PART + 1, &LATER[..1]).await;
}
