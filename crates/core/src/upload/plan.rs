//! How a file is cut into parts.

use serde::{Deserialize, Serialize};

/// Bytes in a mebibyte.
pub const MIB: u64 = 1024 * 1024;

/// The default size of a part in bytes: the least that S3 takes for any part but the last.
/// <https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html>
pub const PART_SIZE: u64 = 5 * MIB;

/// The largest file in bytes that goes to the store as a single put: PlaceOS's "5MB or lower".
pub const SINGLE_PUT_MAX: u64 = 5_000_000;

/// Sizes for a file of unknown length, by the first part they hold for: small files stay in small parts, and S3's
/// 10,000 parts reach 473 GiB.
const GROWTH: [Tier; 2] = [
    Tier {
        first_part: 1_001,
        part_size: 16 * MIB,
    },
    Tier {
        first_part: 3_001,
        part_size: 64 * MIB,
    },
];

/// What a store takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreLimits {
    /// The most parts of one object.
    pub max_parts: u32,
    /// The largest part in bytes.
    pub max_part_size: u64,
    /// The largest object in bytes.
    pub max_object_size: u64,
    /// Whether all parts but the last must have one size (R2).
    pub equal_parts: bool,
}

/// How a file is cut: parts are numbered from 1, and each number has its place in the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "WrittenPlan")]
pub struct Plan {
    tiers: Vec<Tier>,
    max_parts: u32,
}

/// A plan as a record holds it; it may be none.
#[derive(Deserialize)]
struct WrittenPlan {
    tiers: Vec<Tier>,
    max_parts: u32,
}

/// The size of all parts from `first_part` to the next tier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Tier {
    first_part: u32,
    part_size: u64,
}

/// A part's place in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// Its first byte.
    pub offset: u64,
    /// Its size in bytes, when full.
    pub size: u64,
}

/// The file is larger than can be stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("at most {max} bytes can be stored")]
pub struct TooLarge {
    /// The largest file in bytes.
    pub max: u64,
}

// === impl Plan ===

impl Plan {
    /// Cuts a file of `size` bytes into equal parts of `part_size`, or of as many whole MiB more as the store's part
    /// count asks for.
    pub fn known(size: u64, part_size: u64, limits: &StoreLimits) -> Result<Self, TooLarge> {
        let max = Self::max_known(limits);
        if size > max {
            return Err(TooLarge { max });
        }
        // Rounded up twice: a floor would plan one part too many at 50 and 100 GiB.
        let least = size.div_ceil(u64::from(limits.max_parts)).div_ceil(MIB) * MIB;
        Ok(Self::equal(
            part_size.max(least).min(limits.max_part_size),
            limits.max_parts,
        ))
    }

    /// Cuts a file of unknown length: parts that grow with the file, or equal ones where the store wants that.
    pub fn unknown(part_size: u64, limits: &StoreLimits) -> Self {
        let mut plan = Self::equal(part_size.min(limits.max_part_size), limits.max_parts);
        if !limits.equal_parts {
            let growth = GROWTH
                .iter()
                .filter(|tier| tier.first_part <= limits.max_parts);
            plan.tiers.extend(growth.map(|tier| Tier {
                part_size: tier.part_size.max(part_size).min(limits.max_part_size),
                ..*tier
            }));
            plan.tiers.dedup_by_key(|tier| tier.part_size);
        }
        plan
    }

    /// The largest file of known size in bytes that `limits` allow.
    pub fn max_known(limits: &StoreLimits) -> u64 {
        (limits.max_part_size / MIB * MIB)
            .saturating_mul(u64::from(limits.max_parts))
            .min(limits.max_object_size)
    }

    fn equal(part_size: u64, max_parts: u32) -> Self {
        Self {
            tiers: vec![Tier {
                first_part: 1,
                part_size,
            }],
            max_parts,
        }
    }

    /// The size in bytes of every part but the last, or `None` where sizes grow.
    pub fn part_size(&self) -> Option<u64> {
        match self.tiers.as_slice() {
            [tier] => Some(tier.part_size),
            _ => None,
        }
    }

    /// The largest part in bytes.
    pub fn max_part_size(&self) -> u64 {
        self.tiers
            .iter()
            .map(|tier| tier.part_size)
            .max()
            .unwrap_or_default()
    }

    /// Where part `number` lies, or `None` outside the plan.
    pub fn span(&self, number: u32) -> Option<Span> {
        if number == 0 || number > self.max_parts {
            return None;
        }
        let mut offset = 0;
        let mut found = None;
        for (index, tier) in self.tiers.iter().enumerate() {
            if number < tier.first_part {
                break;
            }
            let next = self
                .tiers
                .get(index + 1)
                .map_or(number, |next| next.first_part.min(number));
            found = Some(tier.part_size);
            offset += u64::from(next - tier.first_part) * tier.part_size;
        }
        found.map(|size| Span { offset, size })
    }

    /// The number of the part that begins at `offset`, if one does.
    pub fn part_beginning_at(&self, offset: u64) -> Option<u32> {
        let mut begin = 0;
        for (index, tier) in self.tiers.iter().enumerate() {
            let end_part = self
                .tiers
                .get(index + 1)
                .map_or(self.max_parts + 1, |next| next.first_part);
            let length = u64::from(end_part - tier.first_part) * tier.part_size;
            if offset < begin + length {
                let within = offset - begin;
                let steps = u32::try_from(within / tier.part_size).ok()?;
                return within
                    .is_multiple_of(tier.part_size)
                    .then_some(tier.first_part + steps);
            }
            begin += length;
        }
        None
    }

    /// The largest file in bytes that fits the plan.
    pub fn capacity(&self) -> u64 {
        self.span(self.max_parts)
            .map_or(0, |last| last.offset + last.size)
    }
}

impl TryFrom<WrittenPlan> for Plan {
    type Error = &'static str;

    fn try_from(written: WrittenPlan) -> Result<Self, Self::Error> {
        let WrittenPlan { tiers, max_parts } = written;
        let begins = tiers.first().is_some_and(|tier| tier.first_part == 1);
        let ascends = tiers.is_sorted_by(|one, next| one.first_part < next.first_part);
        let ends = tiers
            .last()
            .is_some_and(|tier| tier.first_part <= max_parts);
        let has_sizes = tiers.iter().all(|tier| tier.part_size > 0);
        let plan = Self { tiers, max_parts };
        // The end of every part, and the number behind the last one, must be numbers.
        let is_bounded = max_parts
            .checked_add(1)
            .is_some_and(|count| plan.max_part_size().checked_mul(u64::from(count)).is_some());
        (begins && ascends && ends && has_sizes && is_bounded)
            .then_some(plan)
            .ok_or("not a plan: parts have no size, no order or no end")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1024 * MIB;
    const S3: StoreLimits = StoreLimits {
        max_parts: 10_000,
        max_part_size: 64 * MIB,
        max_object_size: 5 * 1024 * GIB,
        equal_parts: false,
    };

    #[test]
    fn known_sizes_never_need_more_parts_than_the_store_takes() {
        for size in [0, 1, PART_SIZE, 50 * GIB, 100 * GIB, 488 * GIB] {
            let plan = Plan::known(size, PART_SIZE, &S3).unwrap();
            let part_size = plan.part_size().unwrap();
            assert!(
                size.div_ceil(part_size) <= 10_000,
                "{size} in parts of {part_size}"
            );
            assert_eq!(part_size % MIB, 0);
        }
    }

    #[test]
    fn a_file_beyond_the_largest_parts_is_refused_with_the_maximum() {
        assert_eq!(
            Plan::known(626 * GIB, PART_SIZE, &S3),
            Err(TooLarge {
                max: 10_000 * 64 * MIB
            })
        );
    }

    #[test]
    fn unknown_length_reaches_473_gib_on_s3() {
        let plan = Plan::unknown(PART_SIZE, &S3);
        assert_eq!(plan.part_size(), None);
        assert_eq!(plan.capacity(), (1_000 * 5 + 2_000 * 16 + 7_000 * 64) * MIB);
        assert_eq!(plan.capacity() / GIB, 473);
    }

    #[test]
    fn a_written_plan_is_read_and_what_is_none_is_refused() {
        for plan in [
            Plan::unknown(PART_SIZE, &S3),
            Plan::known(7, PART_SIZE, &S3).unwrap(),
        ] {
            let text = serde_json::to_string(&plan).unwrap();
            assert_eq!(serde_json::from_str::<Plan>(&text).unwrap(), plan);
        }
        let plan = |tiers: &[(u32, u64)], max_parts: u32| {
            let tier = |&(first, size)| serde_json::json!({"first_part": first, "part_size": size});
            let tiers: Vec<_> = tiers.iter().map(tier).collect();
            serde_json::from_value::<Plan>(
                serde_json::json!({"tiers": tiers, "max_parts": max_parts}),
            )
        };
        assert!(plan(&[(1, 5), (3, 7)], 3).is_ok());
        for (tiers, max_parts) in [
            (&[][..], 3),
            (&[(0, 5)], 3),
            (&[(2, 5)], 3),
            (&[(1, 0)], 3),
            (&[(1, 5)], 0),
            (&[(1, 5)], u32::MAX),
            (&[(1, 5), (4, 5)], 3),
            (&[(1, 5), (3, 7), (2, 9)], 3),
            (&[(1, u64::MAX / 2)], 3),
        ] {
            assert!(plan(tiers, max_parts).is_err(), "{tiers:?} {max_parts}");
        }
    }

    #[test]
    fn unknown_length_is_equal_parts_where_the_store_wants_that() {
        let plan = Plan::unknown(
            PART_SIZE,
            &StoreLimits {
                equal_parts: true,
                ..S3
            },
        );
        assert_eq!(plan.part_size(), Some(PART_SIZE));
    }

    #[test]
    fn spans_follow_each_other_without_a_gap_and_are_found_by_their_beginning() {
        let plan = Plan::unknown(PART_SIZE, &S3);
        let mut end = 0;
        for number in 1..=10_000 {
            let span = plan.span(number).unwrap();
            assert_eq!(span.offset, end);
            assert_eq!(plan.part_beginning_at(span.offset), Some(number));
            assert_eq!(plan.part_beginning_at(span.offset + 1), None);
            end += span.size;
        }
        assert_eq!(plan.span(0), None);
        assert_eq!(plan.span(10_001), None);
        assert_eq!(plan.part_beginning_at(end), None);
    }
}
