//! What happens when: every fault and every upload of a run, made of the seed alone, so that a seed replays.
//!
//! Faults lie in lanes, one for each thing that can fail. A lane has one fault at a time; lanes know nothing of each
//! other, so that faults of different things overlap.

use std::{fmt, ops::Range, time::Duration};

use rand::{RngExt, SeedableRng, rngs::StdRng, seq::SliceRandom};

use crate::{
    proxy::Mode,
    uploads::{Upload, uploads},
};

/// How many gateways there are.
pub(crate) const GATEWAYS: usize = 3;

/// How long one way fares badly at most.
const LONGEST_WAY_FAULT: Duration = Duration::from_secs(4);

/// How Redis is set up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Topology {
    /// One server, which syncs each write to its file.
    Single,
    /// A primary, a replica, and Sentinels.
    Sentinel,
    /// Three primaries.
    Cluster,
}

/// How much happens.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scale {
    /// For how long there are faults.
    pub(crate) time: Duration,
    /// How many uploads there are.
    pub(crate) uploads: usize,
    /// The largest upload in bytes.
    pub(crate) largest: usize,
}

/// One run.
#[derive(Debug)]
pub(crate) struct Schedule {
    /// For how long there are faults.
    pub(crate) time: Duration,
    /// In the order of their numbers.
    pub(crate) uploads: Vec<Upload>,
    /// The faults of one thing each, in the order of their times.
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

/// What goes wrong, until it is mended.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Fault {
    /// Of one gateway.
    Gateway(usize, ProcessFault),
    /// Of one Redis server; of a Sentinel set the present primary.
    Redis(usize, ProcessFault),
    /// Everything Redis holds is removed.
    Flush,
    /// The primary is cut off from its replica for so long, then killed: the replica becomes the primary without what
    /// was written meanwhile.
    FailOver(Duration),
    /// Connections of one way break: every so many-th.
    Cut(Way, u64),
    /// One way is in this mode for so long.
    Link(Way, Mode, Duration),
}

/// What happens to a process.
#[derive(Debug, Clone, Copy)]
pub(crate) enum ProcessFault {
    /// SIGKILL, and started again after so long.
    Kill(Duration),
    /// SIGTERM, and started again when it has ended.
    Terminate,
    /// SIGSTOP, and SIGCONT after so long.
    Pause(Duration),
}

/// Where bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// From the senders to all gateways.
    Front,
    /// From one gateway to Redis.
    Redis(usize),
    /// To a store, from one gateway, or where there is none from the senders.
    Store(Store, Option<usize>),
}

/// A store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Store {
    /// A strict S3 server.
    S3,
    /// Azurite.
    Azure,
}

/// A lane that is being filled.
struct Lane<'a> {
    random: &'a mut StdRng,
    end: Duration,
    now: Duration,
    steps: Vec<Step>,
}

// === impl Schedule ===

impl Schedule {
    /// The same for the same arguments.
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
    /// All of them.
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
        // Whole milliseconds are easier to read.
        let milliseconds = (range.start * 1000.0)..(range.end * 1000.0);
        Duration::from_secs_f64(self.random.random_range(milliseconds).floor() / 1000.0)
    }

    /// Lets some time go by; false when the lane is full.
    fn rest(&mut self, seconds: Range<f64>) -> bool {
        let time = self.seconds(seconds);
        self.now += time;
        self.now < self.end
    }

    /// Adds a fault that is over before the next one.
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

/// What a Redis of this kind has to go through, each once, in any order, with faults of the ways to it between.
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
    // Evenly over the time, less what they take themselves, so that all happen.
    let busy: Duration = planned.iter().map(|fault| fault.time()).sum();
    let gap = lane.end.saturating_sub(busy).as_secs_f64() / (planned.len() + 1) as f64;
    for fault in planned {
        let until = lane.now + Duration::from_secs_f64(gap);
        // The ways to a Sentinel set or a Cluster are told by its servers, and cannot be led through a proxy.
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

/// A fault of the connections of `way`.
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
    /// How long it lasts, about.
    fn time(self) -> Duration {
        match self {
            Self::Gateway(_, fault) | Self::Redis(_, fault) => fault.time(),
            Self::FailOver(cut_off) => cut_off + Duration::from_secs(4),
            Self::Link(_, _, time) => time,
            Self::Flush | Self::Cut(..) => Duration::ZERO,
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
