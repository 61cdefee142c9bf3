//! Wrong answers to random calls of the stores, the same as in `tests/lies`, and commits that take long.
//!
//! A gateway believes a denial that it observes twice, `store_settle_seconds` apart. So each call of a store is denied in
//! one period of a run only, which is shorter, and no other call of this store in the same period; later, all calls deny
//! together, once. All other lies may overlap.

use std::time::Duration;

use rand::{RngExt as _, rngs::StdRng, seq::IndexedRandom as _};

use crate::common::{
    layer::{Protocol, plain},
    lie::{Delay, Extent, Lie, Rule, Shape},
};

/// `limits.store_settle_seconds` of the gateways.
pub(crate) const SETTLE: Duration = Duration::from_secs(10);

/// The longest time for which a call is lied about.
pub(crate) const LONGEST: Duration = Duration::from_millis(SETTLE.as_secs() * 800);

/// After this time, a proxy cuts the connection of a commit.
const PROXY_LIMIT: Duration = Duration::from_secs(15);

/// Sends bytes.
const SENDS: Shape = shape(true, false, false);
/// Has an answer with a body.
const RETURNS: Shape = shape(false, true, false);
/// Finds an object.
const FINDS: Shape = shape(false, false, true);
/// Returns the bytes of an object.
const READS: Shape = shape(false, true, true);
/// Neither sends nor returns anything.
const PLAIN: Shape = shape(false, false, false);

/// The codes by which a store denies a session or an object.
const ABSENT: [&str; 3] = ["NoSuchUpload", "NoSuchKey", "BlobNotFound"];

const S3_CALLS: [(&str, Shape); 14] = [
    ("CreateMultipartUpload", RETURNS),
    ("UploadPart", SENDS),
    ("ListParts", RETURNS),
    ("CompleteMultipartUpload", RETURNS),
    ("AbortMultipartUpload", PLAIN),
    ("PutObject", SENDS),
    ("HeadObject", FINDS),
    ("GetObject", READS),
    ("ListObjectsV2", RETURNS),
    ("ListMultipartUploads", RETURNS),
    ("signed CreateMultipartUpload", RETURNS),
    ("signed UploadPart", SENDS),
    ("signed CompleteMultipartUpload", RETURNS),
    ("signed PutObject", SENDS),
];

const AZURE_CALLS: [(&str, Shape); 9] = [
    ("PutBlock", SENDS),
    ("GetBlockList", RETURNS),
    ("PutBlockList", PLAIN),
    ("PutBlob", SENDS),
    ("GetBlobProperties", FINDS),
    ("GetBlob", READS),
    ("signed PutBlock", SENDS),
    ("signed PutBlockList", PLAIN),
    ("signed PutBlob", SENDS),
];

/// What is answered to the next calls with this name.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lying {
    call: &'static str,
    lie: Lie,
    extent: Extent,
}

// === impl Lying ===

impl Lying {
    /// One denial of each call, or one previous state of what it reads.
    pub(crate) fn denials(protocol: Protocol, random: &mut StdRng) -> Vec<Self> {
        let calls = calls(protocol).iter();
        let denials = calls.filter_map(|&(call, shape)| {
            let mut lies = Lie::about(protocol, call, shape);
            lies.retain(|lie| denies(*lie));
            let lie = *lies.choose(random)?;
            let extent = extent(random);
            Some(Self { call, lie, extent })
        });
        denials.collect()
    }

    /// The store has no session and no object, whatever it is asked.
    pub(crate) fn all_denials(protocol: Protocol) -> Vec<Self> {
        let calls = calls(protocol).iter();
        let denials = calls.filter_map(|&(call, shape)| {
            let mut lies = Lie::about(protocol, call, shape).into_iter();
            let lie = lies.find(|lie| match lie {
                Lie::Code(404, code) => ABSENT.contains(code),
                // A HEAD of S3 has no code.
                Lie::NotFound => protocol == Protocol::S3 && call == "HeadObject",
                Lie::Stale => call != "ListParts" && call != "GetBlockList",
                _ => false,
            })?;
            Some(Self {
                call,
                lie,
                extent: Extent::Forever,
            })
        });
        denials.collect()
    }

    /// Any lie that denies nothing.
    pub(crate) fn any(protocol: Protocol, random: &mut StdRng) -> Self {
        let calls = calls(protocol);
        let (call, shape) = loop {
            let (call, shape) = calls[random.random_range(0..calls.len())];
            // Few uploads make signed calls.
            if plain(call) == call || random.random_bool(0.3) {
                break (call, shape);
            }
        };
        let mut lies = Lie::about(protocol, call, shape);
        lies.retain(|lie| !denies(*lie));
        Self {
            call,
            lie: lies[random.random_range(0..lies.len())],
            extent: extent(random),
        }
    }

    /// A commit that takes this time, in each variant.
    pub(crate) fn slow_commits(
        protocol: Protocol,
        time: Duration,
        random: &mut StdRng,
    ) -> Vec<Self> {
        let cut = PROXY_LIMIT.min(time / 4);
        let variants = [
            Delay::Work(time),
            Delay::Answer(time),
            Delay::WorkAfterCut { cut, work: time },
            Delay::WorkAfterCut { cut, work: time },
        ];
        let slow = variants.map(|delay| Self {
            call: match (protocol, random.random_bool(0.25)) {
                (Protocol::S3, false) => "CompleteMultipartUpload",
                (Protocol::S3, true) => "signed CompleteMultipartUpload",
                (Protocol::Azure, false) => "PutBlockList",
                (Protocol::Azure, true) => "signed PutBlockList",
            },
            lie: Lie::Late(delay),
            extent: Extent::Times(2),
        });
        slow.into()
    }

    /// The rule for the layer in front of the store.
    pub(crate) fn rule(self) -> Rule {
        Rule {
            call: self.call.into(),
            from: 1,
            lie: self.lie,
            extent: self.extent,
        }
    }
}

/// Whether it denies what the store has acknowledged, or says that an upload can never succeed.
fn denies(lie: Lie) -> bool {
    const REFUSED: [&str; 5] = [
        "InvalidPart",
        "InvalidPartOrder",
        "EntityTooSmall",
        "MalformedXML",
        "InvalidBlockList",
    ];
    match lie {
        Lie::NotFound | Lie::Code(404, _) | Lie::Stale | Lie::Older => true,
        Lie::Code(_, code) => REFUSED.contains(&code),
        _ => false,
    }
}

fn extent(random: &mut StdRng) -> Extent {
    match random.random_range(0..10) {
        0..4 => Extent::Times(1),
        4..7 => Extent::Times(2),
        _ => Extent::For(LONGEST),
    }
}

fn calls(protocol: Protocol) -> &'static [(&'static str, Shape)] {
    match protocol {
        Protocol::S3 => &S3_CALLS,
        Protocol::Azure => &AZURE_CALLS,
    }
}

const fn shape(sends: bool, returns: bool, finds: bool) -> Shape {
    Shape {
        sends,
        returns,
        finds,
    }
}
