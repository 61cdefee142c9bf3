//! The matrix: every call of every path, as recorded from a truthful run, with every lie.
//!
//! A lie makes the gateway send calls that the truthful run does not have. Each of them is lied about, too, after the
//! lie that brought it about.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet, VecDeque},
    time::Duration,
};

use futures::{
    StreamExt as _,
    stream::{self, FuturesUnordered},
};
use tokio::time::{Instant, sleep, timeout};

use crate::{
    failed::Failed,
    layer::{Made, plain},
    lie::{Extent, Lie, Rule},
    paths::Path,
    run::{Case, Outcome},
    trials::Trial,
    world::{SETTLE, StoreKind},
};

/// How many runs there are at a time.
const SIDE_BY_SIDE: usize = 64;

/// How long to wait for the end of a run before the next one may start.
const PAUSE: Duration = Duration::from_millis(50);

/// As many may run in any case.
const FEW: usize = 16;

/// How many trials there are at a time. Their time is measured.
const TRIALS: usize = 4;

/// How many calls of one name are lied about on a path. More are repetitions, whose number is not the same in each run.
const MAX_NUMBER: usize = 4;

/// The number of runs between two lines of progress.
const PROGRESS: usize = 500;

/// How many lies one run has at most.
const MAX_LIES: usize = 3;

/// Which part of the matrix is run.
#[derive(Debug, Clone)]
pub(crate) struct Scope {
    pub(crate) stores: Vec<StoreKind>,
    /// Each lie about each call only once per store, on one path, and not repeated.
    pub(crate) short: bool,
    /// Only cases whose name contains this.
    pub(crate) only: Option<String>,
}

/// The results.
#[derive(Debug, Default)]
pub(crate) struct Results {
    /// The number of runs, truthful ones included.
    pub(crate) runs: usize,
    /// Runs in which the call to be lied about did not happen.
    pub(crate) unreached: BTreeSet<String>,
    pub(crate) failures: Vec<Outcome>,
    pub(crate) failed_trials: BTreeMap<(StoreKind, Trial), Failed>,
    /// Calls that were made and not lied about.
    pub(crate) not_lied_about: BTreeSet<String>,
    /// Stores whose servers are not installed.
    pub(crate) skipped: BTreeSet<StoreKind>,
}

/// A call, and the path on which it is made. In the short form the paths share the lies about a call.
type Target = (StoreKind, Option<Path>, String);

/// What is to be run, and what was.
struct Matrix {
    scope: Scope,
    queue: VecDeque<Case>,
    /// The calls of each path that are lied about.
    covered: BTreeMap<(StoreKind, Path), BTreeSet<String>>,
    /// The lies of the short form.
    begun: HashSet<(StoreKind, String, Lie)>,
    /// Whether a run has lied about a call.
    reached: BTreeMap<Target, bool>,
    results: Results,
}

/// Runs the part of the matrix.
pub(crate) async fn run(scope: Scope) -> Results {
    let mut matrix = Matrix {
        queue: truthful(&scope).collect(),
        scope,
        covered: BTreeMap::new(),
        begun: HashSet::new(),
        reached: BTreeMap::new(),
        results: Results::default(),
    };
    let mut recorded = Vec::new();
    run_queue(&mut matrix, |_, outcome| recorded.push(outcome)).await;
    matrix.lie_about_recorded(recorded);
    run_queue(&mut matrix, Matrix::learn).await;
    matrix.note_unreached();
    run_trials(&mut matrix).await;
    matrix.results
}

/// Runs what is queued and what is queued meanwhile.
async fn run_queue(matrix: &mut Matrix, mut ended: impl FnMut(&mut Matrix, Outcome) + Send) {
    let mut running = FuturesUnordered::new();
    loop {
        while running.len() < SIDE_BY_SIDE
            && (running.len() < FEW || keeps_up().await)
            && let Some(case) = matrix.queue.pop_front()
        {
            let store = case.store;
            let run = tokio::spawn(case.run());
            running.push(async move { (store, run.await.expect("runs catch their panics")) });
        }
        match timeout(PAUSE, running.next()).await {
            Ok(Some((_, Some(outcome)))) => {
                matrix.results.runs += 1;
                ended(matrix, outcome);
                if matrix.results.runs.is_multiple_of(PROGRESS) {
                    println!(
                        "{} runs, {} queued",
                        matrix.results.runs,
                        matrix.queue.len()
                    );
                }
            }
            Ok(Some((store, None))) => drop(matrix.results.skipped.insert(store)),
            Ok(None) => return,
            // There may be room for another run now.
            Err(_) => {}
        }
    }
}

async fn run_trials(matrix: &mut Matrix) {
    let scope = &matrix.scope;
    let trials = scope.stores.iter().flat_map(|&store| {
        let all = Trial::ALL.into_iter();
        all.filter(move |trial| trial.exists_on(store))
            .map(move |trial| (store, trial))
    });
    let is_asked =
        |&(store, trial): &(StoreKind, Trial)| scope.asks_for(&format!("{store} {trial}"));
    let trials: Vec<_> = trials.filter(is_asked).collect();
    let running = trials.into_iter().map(|(store, trial)| async move {
        let run = tokio::spawn(trial.run(store));
        let ended = run
            .await
            .unwrap_or_else(|panic| Some(Err(Failed::Panicked(panic.to_string()))));
        (store, trial, ended)
    });
    let mut ended = stream::iter(running).buffer_unordered(TRIALS);
    while let Some((store, trial, ended)) = ended.next().await {
        matrix.results.runs += usize::from(ended.is_some());
        if let Some(Err(failed)) = ended {
            println!("FAILED {store} {trial}: {failed}");
            matrix.results.failed_trials.insert((store, trial), failed);
        }
    }
}

/// Whether the processors have time for one more run. Otherwise all would be slow, and what is slow fails as well.
async fn keeps_up() -> bool {
    let pause = Duration::from_millis(5);
    let slept = tokio::spawn(async move {
        let begun = Instant::now();
        sleep(pause).await;
        begun.elapsed()
    });
    slept.await.is_ok_and(|slept| slept < 4 * pause)
}

fn truthful(scope: &Scope) -> impl Iterator<Item = Case> {
    let stores = scope.stores.clone().into_iter();
    stores.flat_map(|store| {
        let paths = Path::ALL.into_iter();
        let paths = paths.filter(move |path| path.exists_on(store.protocol()));
        paths.map(move |path| Case {
            store,
            path,
            rules: Vec::new(),
        })
    })
}

// === impl Results ===

impl Results {
    fn add(&mut self, outcome: Outcome) {
        if let Some(failed) = &outcome.failed {
            println!("FAILED {}: {failed}", outcome.case);
            self.failures.push(outcome);
        }
    }

    /// Whether everything holds.
    pub(crate) fn is_ok(&self) -> bool {
        self.failures.is_empty() && self.failed_trials.is_empty() && self.not_lied_about.is_empty()
    }
}

// === impl Matrix ===

impl Matrix {
    /// Queues all lies about the calls of truthful runs. In the short form, the paths that make a call share its lies.
    fn lie_about_recorded(&mut self, mut recorded: Vec<Outcome>) {
        recorded.sort_by_key(|outcome| (outcome.case.store, outcome.case.path));
        let mut calls: BTreeMap<(StoreKind, String), Vec<(Case, Made)>> = BTreeMap::new();
        for outcome in recorded {
            let mut names = BTreeSet::new();
            for made in outcome.log.iter().filter(|made| made.number > 0) {
                let name = &made.call.name;
                let is_first = names.insert(name.clone());
                if is_first || (!is_health_check(name) && made.number <= MAX_NUMBER) {
                    let row = calls.entry((outcome.case.store, name.clone())).or_default();
                    row.push((outcome.case.clone(), made.clone()));
                }
            }
            self.covered
                .insert((outcome.case.store, outcome.case.path), names);
            self.results.add(outcome);
        }
        for ((store, name), made) in calls {
            let shapes = made.iter().map(|(_, made)| made.shape);
            let lies: BTreeSet<Lie> = shapes
                .flat_map(|shape| Lie::about(store.protocol(), &name, shape))
                .collect();
            for (index, lie) in lies.into_iter().enumerate() {
                let fitting: Vec<_> = made
                    .iter()
                    .filter(|(_, made)| {
                        Lie::about(store.protocol(), &name, made.shape).contains(&lie)
                    })
                    .collect();
                let shares = self.scope.is_short(store) || is_health_check(&name);
                let (first, count) = match shares {
                    true => (index % fitting.len(), 1),
                    false => (0, fitting.len()),
                };
                self.begun.insert((store, name.clone(), lie));
                for (case, made) in &fitting[first..first + count] {
                    self.queue_lie(case, made, lie);
                }
            }
        }
    }

    /// Lies also about calls that only a lie has brought about.
    fn learn(&mut self, outcome: Outcome) {
        let case = &outcome.case;
        if outcome.log.iter().any(|made| is_lied_about(case, made)) {
            self.reached.insert(self.scope.target(case), true);
        } else {
            self.results.unreached.insert(case.to_string());
        }
        // What a failed run calls is no way in which a file gets in.
        if outcome.failed.is_some() {
            self.results.add(outcome);
            return;
        }
        // Lies about both observations of one thing would last longer than the settle time. The same call is learned from
        // the run with one lie.
        if case
            .rules
            .iter()
            .any(|rule| rule.extent == Extent::Times(2))
        {
            return;
        }
        for made in outcome.log.iter().filter(|made| made.number > 0) {
            let covered = self.covered.entry((case.store, case.path)).or_default();
            let is_new = covered.insert(made.call.name.clone());
            if is_new && !is_health_check(&made.call.name) {
                self.lie_about(case, made);
            }
        }
    }

    fn lie_about(&mut self, case: &Case, made: &Made) {
        let name = &made.call.name;
        if case.rules.len() >= MAX_LIES {
            let uncovered = format!("{case}: {name}");
            self.results.not_lied_about.insert(uncovered);
            return;
        }
        let mut lies = Lie::about(case.store.protocol(), name, made.shape);
        let (begun, scope) = (&mut self.begun, &self.scope);
        lies.retain(|lie| {
            let is_first = begun.insert((case.store, name.clone(), *lie));
            is_first || !scope.is_short(case.store)
        });
        lies.into_iter()
            .for_each(|lie| self.queue_lie(case, made, lie));
    }

    fn queue_lie(&mut self, case: &Case, made: &Made, lie: Lie) {
        for extent in self.scope.extents(case.store) {
            let rule = Rule {
                call: made.call.name.clone(),
                from: made.number,
                lie,
                extent,
            };
            let case = Case {
                rules: [vec![rule], case.rules.clone()].concat(),
                ..*case
            };
            if self.scope.asks_for(&case) {
                self.reached.entry(self.scope.target(&case)).or_default();
                self.queue.push_back(case);
            }
        }
    }

    /// Single runs may miss their call, because calls at the same time have no order. A call that all of them missed was
    /// not lied about.
    fn note_unreached(&mut self) {
        let missed = self.reached.iter().filter(|(_, reached)| !**reached);
        let calls = missed.map(|((store, path, call), _)| match path {
            Some(path) => format!("{store} {path}: {call}"),
            None => format!("{store}: {call}"),
        });
        self.results.not_lied_about.extend(calls);
    }
}

// === impl Scope ===

impl Scope {
    fn asks_for(&self, case: &impl ToString) -> bool {
        let only = self.only.as_ref();
        only.is_none_or(|only| case.to_string().contains(only.as_str()))
    }

    /// Servers outside of this process are too slow for the whole matrix.
    fn is_short(&self, store: StoreKind) -> bool {
        self.short || !store.is_in_process()
    }

    /// The call that a run is to lie about.
    fn target(&self, case: &Case) -> Target {
        let rule = case.rules.first().expect("a run with a lie");
        let path = (!self.is_short(case.store)).then_some(case.path);
        (case.store, path, rule.call.clone())
    }

    fn extents(&self, store: StoreKind) -> Vec<Extent> {
        let mut extents = vec![Extent::Times(1)];
        if !self.is_short(store) {
            let shorter =
                Duration::from_millis(u64::try_from(SETTLE.as_millis()).unwrap() * 8 / 10);
            extents.extend([Extent::Times(2), Extent::For(shorter)]);
        }
        extents
    }
}

/// Whether it is a call of the health check, which is made at any time and is no part of a path.
fn is_health_check(name: &str) -> bool {
    matches!(plain(name), "HeadBucket" | "ListBlobs")
}

fn is_lied_about(case: &Case, made: &Made) -> bool {
    let newest = &case.rules[0];
    made.number > 0 && made.lie == Some(newest.lie) && made.call.name == newest.call
}
