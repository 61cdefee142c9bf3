//! The gateway beside tusd and beside a direct upload: the same files to the same store from each, in turns.
//!
//! The fixed list of cells is in [`Cell::all`]; the variable `CELLS` chooses some of them by name. In each cell, every sender
//! first sends all files once, uncounted in time, while requests to the store are counted. Then come the rounds; every second one is
//! in reverse order. The files are removed after each. Redis round trips are counted beside that, for one upload after the other.

mod economy;
mod senders;
mod tus;

use std::{env, fmt, sync::Arc, time::Duration};

use futures::{StreamExt, TryStreamExt, stream};
use tokio::time::Instant;
use upload_gateway_core::upload::PART_SIZE;

pub(crate) use self::economy::Economy;
use self::senders::Sender;
pub(crate) use self::senders::{Digest, Name};
use crate::{GIB, MIB, Result, payload::Payload, report, store::Store};

/// The variable with the names of the cells that are measured, separated by spaces. Not set or empty: all.
const CELLS: &str = "CELLS";

const KIB: u64 = 1024;

/// The name of the file of [`PARTS`] parts, which is sent once, to the last store, and not timed.
const PARTS_CELL: &str = "10000-parts";

/// As many as an upload can have in S3.
const PARTS: u64 = 10_000;

/// How often each cell is measured.
const ROUNDS: usize = 5;

/// No cell starts later than this, so that all of them take at most half an hour.
const LAST_START: Duration = Duration::from_mins(25);

/// Files of one size, at most 2 GiB and 2,000 of them together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cell {
    pub(crate) files: u64,
    /// The size of each in bytes.
    pub(crate) size: u64,
    /// How many are sent at the same time.
    pub(crate) at_once: usize,
    /// Whether the gateway is measured with every digest of the file that it knows, or with its default only.
    every_digest: bool,
}

/// One sender in one cell.
#[derive(Debug)]
pub(crate) struct Measured {
    pub(crate) name: Name,
    pub(crate) rounds: Vec<Round>,
    /// Of its process, in bytes. `None` for a direct upload.
    pub(crate) peak_memory: Option<u64>,
    /// Redis round trips of each upload. `None` for a sender without Redis, and if they are not counted.
    pub(crate) round_trips: Option<f64>,
    /// Requests to the store while all files were sent once. `None` if the store does not count them.
    pub(crate) requests: Option<u64>,
}

/// All files, sent once.
#[derive(Debug)]
pub(crate) struct Round {
    pub(crate) elapsed: Duration,
    /// Of the sender's process alone, user and system. `None` for a direct upload.
    pub(crate) cpu: Option<Duration>,
    /// How long each file took, sorted.
    latencies: Vec<Duration>,
    keys: Vec<String>,
}

// === impl Cell ===

impl Cell {
    fn all() -> Vec<Self> {
        let cell = |files, size, at_once, every_digest| Self {
            files,
            size,
            at_once,
            every_digest,
        };
        vec![
            cell(1, 2 * GIB, 1, true),
            cell(16, 128 * MIB, 16, true),
            cell(64, 32 * MIB, 64, false),
            cell(256, MIB, 64, false),
            cell(1000, 64 * KIB, 1, false),
            cell(1000, 64 * KIB, 64, false),
            cell(1000, KIB, 1, false),
            cell(1000, KIB, 64, false),
        ]
    }

    /// Those that `names` selects: a name is that of a cell, or of several without the number of files at once.
    fn named(names: &str) -> Result<Vec<Self>> {
        let mut cells = Vec::new();
        for name in names.split_whitespace().filter(|name| *name != PARTS_CELL) {
            let found = |cell: &Self| {
                let full = cell.to_string();
                full == name || full.split('@').next() == Some(name)
            };
            let before = cells.len();
            cells.extend(Self::all().into_iter().filter(found));
            if cells.len() == before {
                let all: Vec<String> = Self::all().iter().map(Self::to_string).collect();
                let all = all.join(", ");
                return Err(format!("no cell {name}; there are {all}, {PARTS_CELL}").into());
            }
        }
        Ok(cells)
    }

    pub(crate) fn bytes(self) -> u64 {
        self.files * self.size
    }

    /// Whether its files are measured by their number and not by their bytes.
    pub(crate) fn is_small(self) -> bool {
        self.size < MIB
    }

    /// For a smoke test.
    fn shortened(self) -> Self {
        Self {
            files: self.files.min(64),
            size: self.size.min(16 * MIB),
            ..self
        }
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { files, size, .. } = self;
        match *size {
            GIB.. => write!(formatter, "{files}x{}GiB", size / GIB),
            MIB.. => write!(formatter, "{files}x{}MiB", size / MIB),
            _ => write!(formatter, "{files}x{}KiB", size / KIB),
        }?;
        match self.is_small() {
            true => write!(formatter, "@{}", self.at_once),
            false => Ok(()),
        }
    }
}

// === impl Round ===

impl Round {
    /// This percentile of the latency of a file.
    pub(crate) fn percentile(&self, percent: usize) -> Duration {
        let last = self.latencies.len().saturating_sub(1);
        let index = (self.latencies.len() * percent / 100).min(last);
        self.latencies.get(index).copied().unwrap_or_default()
    }
}

/// Measures the cells on all `stores`, and prints each as soon as it is measured.
pub(crate) async fn measure(
    stores: &[Store],
    redis_url: &str,
    payload: &Payload,
    quick: bool,
) -> Result<()> {
    let names = env::var(CELLS).unwrap_or_default();
    let all = names.trim().is_empty();
    let has_parts = all || names.split_whitespace().any(|name| name == PARTS_CELL);
    let cells = if all {
        Cell::all()
    } else {
        Cell::named(&names)?
    };
    let begin = Instant::now();
    let mut report = report::Peers::default();
    let mut left_out = false;
    for small in [false, true] {
        for store in stores {
            for cell in cells.iter().filter(|cell| cell.is_small() == small) {
                if begin.elapsed() > LAST_START {
                    report::log(&format!("{} {cell} is left out: no time", store.name));
                    left_out = true;
                    continue;
                }
                let cell = if quick { cell.shortened() } else { *cell };
                let rounds = if quick { 1 } else { ROUNDS };
                let measured = run(store, cell, redis_url, payload, rounds).await?;
                report.add(store.name, cell, &measured);
            }
        }
    }
    if has_parts && let Some(store) = stores.last() {
        let parts = if quick { 50 } else { PARTS };
        let files = (1, parts * PART_SIZE);
        report.parts(&economy::measure(store, redis_url, payload, files).await?);
    }
    report.end(all && !quick && !left_out && stores.len() > 1)
}

async fn run(
    store: &Store,
    cell: Cell,
    redis_url: &str,
    payload: &Payload,
    rounds: usize,
) -> Result<Vec<Measured>> {
    let mut senders = Vec::new();
    for name in Name::all(cell.every_digest)? {
        match Sender::start(name, store, redis_url, cell.at_once).await? {
            Some(sender) => senders.push(Arc::new(sender)),
            None => report::log("tusd is not installed; run tests/backends/install bench"),
        }
    }
    let mut all = Vec::new();
    for sender in &senders {
        all.push(first(sender, store, cell, payload).await?);
    }
    let files = if cell.is_small() { 32 } else { 2 };
    let files = (cell.files.min(files), cell.size);
    let economy = economy::measure(store, redis_url, payload, files).await?;
    for measured in &mut all {
        if measured.name == Name::Gateway(Digest::Default) {
            measured.round_trips = Some(economy.round_trips);
        }
    }
    for number in 0..rounds {
        let mut turns: Vec<_> = senders.iter().zip(&mut all).collect();
        if number % 2 == 1 {
            turns.reverse();
        }
        for (sender, measured) in turns {
            let mut round = send(sender, cell, payload).await?;
            store.delete(std::mem::take(&mut round.keys)).await?;
            measured.rounds.push(round);
        }
    }
    for (sender, measured) in senders.iter().zip(&mut all) {
        measured.peak_memory = sender
            .process()
            .map(|process| process.peak_memory())
            .transpose()?;
    }
    Ok(all)
}

/// The first time, which also creates connections and fills caches.
async fn first(
    sender: &Arc<Sender>,
    store: &Store,
    cell: Cell,
    payload: &Payload,
) -> Result<Measured> {
    let before = store.requests();
    let round = send(sender, cell, payload).await?;
    let requests = store
        .requests()
        .zip(before)
        .map(|(after, before)| after - before);
    store.delete(round.keys).await?;
    Ok(Measured {
        name: sender.name(),
        rounds: Vec::new(),
        peak_memory: None,
        round_trips: None,
        requests,
    })
}

async fn send(sender: &Arc<Sender>, cell: Cell, payload: &Payload) -> Result<Round> {
    let cpu = || sender.process().map(|process| process.cpu()).transpose();
    let (begin, used) = (Instant::now(), cpu()?);
    let sent = stream::iter(0..cell.files).map(|number| {
        let (sender, payload) = (Arc::clone(sender), payload.clone());
        let file = tokio::spawn(async move {
            let begin = Instant::now();
            let keys = sender.send(number, &payload, cell.size).await?;
            Result::Ok((begin.elapsed(), keys))
        });
        async { file.await? }
    });
    let sent: Vec<(Duration, Vec<String>)> =
        sent.buffer_unordered(cell.at_once).try_collect().await?;
    let elapsed = begin.elapsed();
    let cpu = cpu()?.zip(used).map(|(after, before)| after - before);
    let (mut latencies, keys): (Vec<_>, Vec<_>) = sent.into_iter().unzip();
    latencies.sort_unstable();
    Ok(Round {
        elapsed,
        cpu,
        latencies,
        keys: keys.into_iter().flatten().collect(),
    })
}
