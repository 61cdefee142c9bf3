//! The schedule: every fault and every upload of a run with its time. It depends only on the seed, so that a run can be
//! replayed.
//!
//! Each component that can fail has a lane of faults. A lane has one fault at a time; lanes are independent, so that
//! faults of different components overlap.

use std::{fmt, ops::Range, time::Duration};

use rand::{RngExt, SeedableRng, rngs::StdRng, seq::SliceRandom};

use crate::{
    common::layer::Protocol,
    lies::{LONGEST, Lying, SETTLE},
    proxy::Mode,
    uploads::{Upload, uploads},
};

/// The number of gateways.
pub(crate) const GATEWAYS: usize = 3;

/// The maximum duration of a fault of a link.
const LONGEST_WAY_FAULT: Duration = Duration::from_secs(4);

/// The topology of Redis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Topology {
    /// One server, which syncs each write to its file.
    Single,
    /// A primary, a replica, and Sentinels.
    Sentinel,
    /// Three primaries.
    Cluster,
}

/// The size of a run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scale {
    /// How long faults are injected.
    pub(crate) time: Duration,
    /// The number of uploads.
    pub(crate) uploads: usize,
    /// The number of further uploads, to the gateway with embedded stores.
    pub(crate) embedded: usize,
    /// The largest upload in bytes.
    pub(crate) largest: usize,
    /// How long a slow commit takes.
    pub(crate) slow_commit: Duration,
    /// The longest time for which a link is slow.
    pub(crate) slow_link: Duration,
    /// The longest time for which a disk is full.
    pub(crate) full_disk: Duration,
}

/// One run.
#[derive(Debug)]
pub(crate) struct Schedule {
    /// How long faults are injected.
    pub(crate) time: Duration,
    /// In the order of their numbers.
    pub(crate) uploads: Vec<Upload>,
    /// The lanes: the faults of one component each, in the order of their times.
    pub(crate) lanes: Vec<Vec<Step>>,
}

/// One fault and when it begins.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Step {
    /// Since the beginning of the run.
    pub(crate) at: Duration,
    /// What happens.
    pub(crate) fault: Fault,
}

/// A fault, until it is repaired.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Fault {
    /// Of one gateway.
    Gateway(usize, ProcessFault),
    /// Of one Redis server; with Sentinels, of the current primary.
    Redis(usize, ProcessFault),
    /// All data in Redis is removed.
    Flush,
    /// The primary is cut off from its replica for this time, then killed: the replica becomes the primary without the
    /// writes of this time.
    FailOver(Duration),
    /// Every n-th connection of one link breaks.
    Cut(Way, u64),
    /// One link is in this mode for this time.
    Link(Way, Mode, Duration),
    /// One link takes 1 MB/s for this time, whatever its mode is.
    SlowLink(Way, Duration),
    /// One store lies for at most this time.
    Lie(Store, Lying, Duration),
    /// One store denies all sessions and objects for this time.
    Denial(Store, Protocol, Duration),
    /// The next commits of one store are slow.
    SlowCommit(Store, Lying),
    /// The disk of the embedded stores is full for this time.
    FullDisk(Duration),
}

/// What happens to a process.
#[derive(Debug, Clone, Copy)]
pub(crate) enum ProcessFault {
    /// SIGKILL, and a restart after this time.
    Kill(Duration),
    /// SIGTERM, and a restart when it has ended.
    Terminate,
    /// SIGSTOP, and SIGCONT after this time.
    Pause(Duration),
}

/// A link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// From the senders to all gateways.
    Front,
    /// From one gateway to Redis.
    Redis(usize),
    /// To a store: from one gateway, or from the senders if `None`. To the embedded one: from the senders to its gateway.
    Store(Store, Option<usize>),
}

/// A store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Store {
    /// A strict S3 server.
    S3,
    /// Azurite.
    Azure,
    /// The embedded S3 of a gateway of its own, whose state is embedded, too.
    Embedded,
}

/// A lane under construction.
struct Lane<'a> {
    random: &'a mut StdRng,
    end: Duration,
    now: Duration,
    steps: Vec<Step>,
}

// === impl Schedule ===

impl Schedule {
    /// The schedule for these arguments, always the same.
    pub(crate) fn new(seed: u64, topology: Topology, scale: Scale) -> Self {
        let mut random = StdRng::seed_from_u64(seed ^ (topology as u64) << 56);
        let uploads = uploads(&mut random, scale);
        let mut lanes: Vec<_> = (0..GATEWAYS)
            .map(|index| gateway_lane(Lane::new(&mut random, scale.time), index))
            .collect();
        lanes.push(redis_lane(Lane::new(&mut random, scale.time), topology));
        lanes.extend(
            [Store::S3, Store::Azure]
                .map(|store| store_lane(Lane::new(&mut random, scale.time), store)),
        );
        lanes.push(front_lane(Lane::new(&mut random, scale.time)));
        for (store, protocol) in [(Store::S3, Protocol::S3), (Store::Azure, Protocol::Azure)] {
            lanes.extend(lying_lanes(&mut random, scale, store, protocol));
        }
        lanes.push(full_disk_lane(
            Lane::new(&mut random, scale.time),
            scale.full_disk,
        ));
        Self {
            time: scale.time,
            uploads,
            lanes,
        }
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for upload in &self.uploads {
            writeln!(formatter, "{upload:?}")?;
        }
        let mut steps: Vec<&Step> = self.lanes.iter().flatten().collect();
        steps.sort_by_key(|step| step.at);
        for Step { at, fault } in steps {
            writeln!(formatter, "{:>7.2} s {fault:?}", at.as_secs_f32())?;
        }
        Ok(())
    }
}

// === impl Topology ===

impl Topology {
    /// All topologies.
    pub(crate) const ALL: [Self; 3] = [Self::Single, Self::Sentinel, Self::Cluster];

    /// Its name on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Single => "single",
            Self::Sentinel => "sentinel",
            Self::Cluster => "cluster",
        }
    }
}

// === impl Store ===

impl Store {
    /// Its id in the gateways' configuration.
    pub(crate) fn id(self) -> &'static str {
        match self {
            Self::S3 => "s3",
            Self::Azure => "azure",
            Self::Embedded => "embedded",
        }
    }
}

// === impl Lane ===

impl<'a> Lane<'a> {
    fn new(random: &'a mut StdRng, end: Duration) -> Self {
        Self {
            random,
            end,
            now: Duration::ZERO,
            steps: Vec::new(),
        }
    }

    fn seconds(&mut self, range: Range<f64>) -> Duration {
        // In whole milliseconds, which are easier to read.
        let milliseconds = (range.start * 1000.0)..(range.end * 1000.0);
        Duration::from_secs_f64(self.random.random_range(milliseconds).floor() / 1000.0)
    }

    /// Adds a pause; false if the lane is full.
    fn rest(&mut self, seconds: Range<f64>) -> bool {
        let time = self.seconds(seconds);
        self.now += time;
        self.now < self.end
    }

    /// Adds a fault, which ends before the next one.
    fn add(&mut self, fault: Fault) {
        self.steps.push(Step {
            at: self.now,
            fault,
        });
        self.now += fault.time();
    }
}

fn gateway_lane(mut lane: Lane<'_>, index: usize) -> Vec<Step> {
    while lane.rest(4.0..14.0) {
        let fault = match lane.random.random_range(0..10) {
            0..5 => ProcessFault::Kill(lane.seconds(0.1..2.0)),
            5..8 => ProcessFault::Terminate,
            _ => ProcessFault::Pause(lane.seconds(1.0..12.0)),
        };
        lane.add(Fault::Gateway(index, fault));
    }
    lane.steps
}

/// All faults of a Redis of this topology, each once, in any order, and faults of the links to it between them.
fn redis_lane(mut lane: Lane<'_>, topology: Topology) -> Vec<Step> {
    const LONG_PAUSE: Duration = Duration::from_secs(10);
    let pause = Fault::Redis(0, ProcessFault::Pause(LONG_PAUSE));
    let kill = |server, down| Fault::Redis(server, ProcessFault::Kill(down));
    let mut planned = match topology {
        Topology::Single => vec![
            kill(0, lane.seconds(0.1..1.0)),
            kill(0, lane.seconds(1.0..4.0)),
            pause,
            Fault::Flush,
        ],
        Topology::Sentinel => vec![
            Fault::FailOver(lane.seconds(0.2..1.5)),
            Fault::FailOver(lane.seconds(0.2..1.5)),
            pause,
        ],
        Topology::Cluster => vec![
            kill(lane.random.random_range(0..3), lane.seconds(0.1..4.0)),
            kill(lane.random.random_range(0..3), lane.seconds(0.1..4.0)),
            Fault::Redis(
                lane.random.random_range(0..3),
                ProcessFault::Pause(LONG_PAUSE),
            ),
            Fault::Flush,
        ],
    };
    planned.shuffle(lane.random);
    // Spread evenly over the time that they leave, so that all of them occur.
    let busy: Duration = planned.iter().map(|fault| fault.time()).sum();
    let gap = lane.end.saturating_sub(busy).as_secs_f64() / (planned.len() + 1) as f64;
    for fault in planned {
        let until = lane.now + Duration::from_secs_f64(gap);
        // The servers of a Sentinel set or a Cluster announce their own addresses, so a proxy cannot be between.
        while topology == Topology::Single
            && lane.rest(1.0..gap.max(1.1))
            && lane.now + LONGEST_WAY_FAULT < until
        {
            let way = Way::Redis(lane.random.random_range(0..GATEWAYS));
            let fault = way_fault(&mut lane, way);
            lane.add(fault);
        }
        lane.now = until;
        lane.add(fault);
    }
    lane.steps
}

fn store_lane(mut lane: Lane<'_>, store: Store) -> Vec<Step> {
    while lane.rest(2.0..10.0) {
        let from = lane.random.random_range(0..=GATEWAYS);
        let way = Way::Store(store, (from < GATEWAYS).then_some(from));
        let fault = if lane.random.random_bool(0.5) {
            let percent = lane.random.random_range(30..=100);
            Fault::Link(way, Mode::Unavailable(percent), lane.seconds(1.0..6.0))
        } else {
            way_fault(&mut lane, way)
        };
        lane.add(fault);
    }
    lane.steps
}

fn front_lane(mut lane: Lane<'_>) -> Vec<Step> {
    while lane.rest(2.0..8.0) {
        let fault = way_fault(&mut lane, Way::Front);
        lane.add(fault);
    }
    lane.steps
}

/// What one store does wrong, and slowly.
fn lying_lanes(
    random: &mut StdRng,
    scale: Scale,
    store: Store,
    protocol: Protocol,
) -> [Vec<Step>; 6] {
    let end = scale.time;
    [
        denial_lane(Lane::new(random, end), store, protocol),
        lie_lane(Lane::new(random, end), store, protocol),
        lie_lane(Lane::new(random, end), store, protocol),
        lie_lane(Lane::new(random, end), store, protocol),
        slow_commit_lane(Lane::new(random, end), store, protocol, scale.slow_commit),
        slow_link_lane(Lane::new(random, end), store, scale.slow_link),
    ]
}

/// A denial of each call, spread evenly over the time, and one of all calls if there is time for a second observation of
/// what the others denied.
fn denial_lane(mut lane: Lane<'_>, store: Store, protocol: Protocol) -> Vec<Step> {
    let mut denials = Lying::denials(protocol, lane.random);
    denials.shuffle(lane.random);
    let (single, all) = (lane.end.mul_f64(0.6), lane.end.mul_f64(0.85));
    let has_time = all - single >= SETTLE.mul_f64(1.5);
    let each = if has_time { single } else { lane.end }.div_f64(denials.len() as f64);
    let time = LONGEST.min(each.mul_f64(0.9));
    for (index, denial) in denials.into_iter().enumerate() {
        lane.now = each.mul_f64(index as f64);
        lane.add(Fault::Lie(store, denial, time));
    }
    if has_time {
        lane.now = all;
        lane.add(Fault::Denial(store, protocol, LONGEST));
    }
    lane.steps
}

fn lie_lane(mut lane: Lane<'_>, store: Store, protocol: Protocol) -> Vec<Step> {
    while lane.rest(0.2..2.0) {
        let lie = Lying::any(protocol, lane.random);
        let time = lane.seconds(2.0..LONGEST.as_secs_f64());
        lane.add(Fault::Lie(store, lie, time));
    }
    lane.steps
}

/// Slow commits in each variant, spread evenly over the time.
fn slow_commit_lane(
    mut lane: Lane<'_>,
    store: Store,
    protocol: Protocol,
    time: Duration,
) -> Vec<Step> {
    let mut slow = Lying::slow_commits(protocol, time, lane.random);
    slow.shuffle(lane.random);
    let each = lane.end.div_f64(slow.len() as f64);
    for slow in slow {
        lane.add(Fault::SlowCommit(store, slow));
        lane.now += each;
    }
    lane.steps
}

fn slow_link_lane(mut lane: Lane<'_>, store: Store, longest: Duration) -> Vec<Step> {
    while lane.rest(1.0..longest.as_secs_f64()) {
        let way = Way::Store(store, Some(lane.random.random_range(0..GATEWAYS)));
        let time = lane.seconds(longest.as_secs_f64() / 2.0..longest.as_secs_f64());
        lane.add(Fault::SlowLink(way, time));
    }
    lane.steps
}

fn full_disk_lane(mut lane: Lane<'_>, longest: Duration) -> Vec<Step> {
    while lane.rest(1.0..longest.as_secs_f64() * 2.0) {
        let time = lane.seconds(longest.as_secs_f64() / 4.0..longest.as_secs_f64());
        lane.add(Fault::FullDisk(time));
    }
    lane.steps
}

/// A fault of the link `way`.
fn way_fault(lane: &mut Lane<'_>, way: Way) -> Fault {
    let time = lane.seconds(0.5..LONGEST_WAY_FAULT.as_secs_f64());
    match lane.random.random_range(0..10) {
        0..4 => Fault::Cut(way, lane.random.random_range(1..=4)),
        4..6 => {
            let rate = lane.random.random_range(20_000..500_000);
            Fault::Link(way, Mode::Throttle(rate), time)
        }
        6..8 => Fault::Link(way, Mode::Silence, time),
        8 => Fault::Link(way, Mode::Refuse, time),
        _ => Fault::Link(way, Mode::Hold, time),
    }
}

// === impl Fault ===

impl Fault {
    /// Its approximate duration.
    fn time(self) -> Duration {
        match self {
            Self::Gateway(_, fault) | Self::Redis(_, fault) => fault.time(),
            Self::FailOver(cut_off) => cut_off + Duration::from_secs(4),
            Self::Link(_, _, time)
            | Self::SlowLink(_, time)
            | Self::Lie(_, _, time)
            | Self::Denial(_, _, time)
            | Self::FullDisk(time) => time,
            Self::Flush | Self::Cut(..) | Self::SlowCommit(..) => Duration::ZERO,
        }
    }
}

// === impl ProcessFault ===

impl ProcessFault {
    fn time(self) -> Duration {
        match self {
            Self::Kill(time) | Self::Pause(time) => time,
            Self::Terminate => Duration::from_secs(1),
        }
    }
}
