//! How a file is split into parts.

use serde::{Deserialize, Serialize};

/// Bytes in a mebibyte.
pub const MIB: u64 = 1024 * 1024;

/// The default part size in bytes: the minimum of S3 for all parts except the last one.
/// <https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html>
pub const PART_SIZE: u64 = 5 * MIB;

/// The largest file, in bytes, that is stored by a single put: "5MB or lower" in PlaceOS.
pub const SINGLE_PUT_MAX: u64 = 5_000_000;

/// The largest part number of any store: Azure accepts 50,000 blocks.
/// <https://learn.microsoft.com/en-us/azure/storage/blobs/scalability-targets>
pub const MAX_PART_NUMBER: u32 = 50_000;

/// Larger part sizes for files of unknown size, with the number of the first part that has them. Small files have small
/// parts, and the 10,000 parts of S3 hold 473 GiB.
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

/// The limits of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreLimits {
    /// The largest number of parts of one object.
    pub max_parts: u32,
    /// The largest part in bytes.
    pub max_part_size: u64,
    /// The largest object in bytes.
    pub max_object_size: u64,
    /// Whether all parts except the last must have the same size (R2).
    pub equal_parts: bool,
}

/// How a file is split into parts. Parts are numbered from 1, and each number has a fixed position in the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "StoredPlan")]
pub struct Plan {
    tiers: Vec<Tier>,
    max_parts: u32,
}

/// A plan as it is stored in a record, before it is validated.
#[derive(Deserialize)]
struct StoredPlan {
    tiers: Vec<Tier>,
    max_parts: u32,
}

/// The size of all parts from `first_part` to the next tier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Tier {
    first_part: u32,
    part_size: u64,
}

/// The position of a part in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// The position of its first byte, in bytes.
    pub offset: u64,
    /// The size in bytes of the full part.
    pub size: u64,
}

/// What the sizes of a client's parts show of the plan by which the client cuts the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shown {
    /// Nothing: there are no parts, or they fit several plans.
    Nothing,
    /// The only plan that all parts fit.
    Plan(Plan),
    /// The parts are of different plans. These numbers do not fit the one that most parts fit.
    Contradiction(Vec<u32>),
}

/// The file is larger than the largest file that can be stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("at most {max} bytes can be stored")]
pub struct TooLarge {
    /// The largest file in bytes.
    pub max: u64,
}

// === impl Plan ===

impl Plan {
    /// Splits a file of `size` bytes into equal parts of `part_size`, or of the next larger number of MiB with which
    /// the store's maximum number of parts is enough.
    ///
    /// # Errors
    ///
    /// The file is larger than [`Plan::max_known`].
    pub fn known(size: u64, part_size: u64, limits: &StoreLimits) -> Result<Self, TooLarge> {
        let max = Self::max_known(limits);
        if size > max {
            return Err(TooLarge { max });
        }
        // Rounded up twice: rounding down would need one part too many at 50 and 100 GiB.
        let min = size.div_ceil(u64::from(limits.max_parts)).div_ceil(MIB) * MIB;
        Ok(Self::equal(
            part_size.max(min).min(limits.max_part_size),
            limits.max_parts,
        ))
    }

    /// Splits a file of unknown size into parts that grow with the file, or into equal parts if the store requires
    /// them.
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

    /// The largest number of parts, and the number from which on parts have a size, for each size: all that a plan is.
    pub fn tiers(&self) -> (u32, Vec<(u32, u64)>) {
        let tier = |tier: &Tier| (tier.first_part, tier.part_size);
        (self.max_parts, self.tiers.iter().map(tier).collect())
    }

    /// The inverse of [`Plan::tiers`].
    ///
    /// # Errors
    /// No plan has these values.
    pub fn from_tiers(max_parts: u32, tiers: &[(u32, u64)]) -> Result<Self, &'static str> {
        let tier = |&(first_part, part_size): &(u32, u64)| Tier {
            first_part,
            part_size,
        };
        let tiers = tiers.iter().map(tier).collect();
        StoredPlan { tiers, max_parts }.try_into()
    }

    /// The largest file of known size, in bytes, within `limits`.
    pub fn max_known(limits: &StoreLimits) -> u64 {
        (limits.max_part_size / MIB * MIB)
            .saturating_mul(u64::from(limits.max_parts))
            .min(limits.max_object_size)
    }

    /// The plan of equal parts, `file_size` bytes together, that all `parts` fit: numbers and sizes in bytes of parts that
    /// a client has cut. There are at most as many parts as `self` has.
    pub fn shown_by(&self, file_size: u64, parts: &[(u32, u64)]) -> Shown {
        // All parts have the size of the largest one, except the last part. A part that is alone may be the last one.
        let Some(largest) = parts.iter().map(|(_, size)| *size).max() else {
            return Shown::Nothing;
        };
        let as_last = match parts {
            [(number, size)] => part_size_before(file_size, *number, *size),
            _ => None,
        };
        let fits = |part_size: &u64| self.misfits(file_size, *part_size, parts).is_empty();
        let whole = Some(largest).filter(fits);
        let as_last = as_last.filter(fits).filter(|size| whole != Some(*size));
        match (whole, as_last) {
            (Some(size), None) | (None, Some(size)) => {
                Shown::Plan(Self::equal(size, self.max_parts))
            }
            (Some(_), Some(_)) => Shown::Nothing,
            (None, None) => {
                let planned = self.part_size().into_iter().chain([largest]);
                let misfits = planned.map(|size| self.misfits(file_size, size, parts));
                Shown::Contradiction(misfits.min_by_key(Vec::len).unwrap_or_default())
            }
        }
    }

    /// The numbers of the parts that are not in a plan of equal parts of `part_size`, at most as many as `self` has.
    fn misfits(&self, file_size: u64, part_size: u64, parts: &[(u32, u64)]) -> Vec<u32> {
        let plan = Self::equal(part_size, self.max_parts);
        let is_possible = part_size > 0 && file_size <= plan.capacity();
        let fits = |number, size| {
            let span = plan.span(number).filter(|span| span.offset < file_size);
            span.is_some_and(|span| size == span.size.min(file_size - span.offset))
        };
        let misfits = parts
            .iter()
            .filter(|(number, size)| !is_possible || !fits(*number, *size));
        misfits.map(|(number, _)| *number).collect()
    }

    /// The number of parts of a file of `file_size` bytes, at least one. `None` if part sizes grow.
    pub fn part_count(&self, file_size: u64) -> Option<u32> {
        u32::try_from(file_size.div_ceil(self.part_size()?).max(1)).ok()
    }

    /// The largest number of parts.
    pub fn max_parts(&self) -> u32 {
        self.max_parts
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

    /// The size in bytes of every part except the last, or `None` if part sizes grow.
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

    /// The position of part `number`, or `None` if it is not in the plan.
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

    /// The number of the part that starts at `offset`, if there is one.
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

/// The size of the parts before the last one, if part `number` of `size` bytes is the last one.
fn part_size_before(file_size: u64, number: u32, size: u64) -> Option<u64> {
    let before = u64::from(number.checked_sub(1).filter(|before| *before > 0)?);
    let bytes = file_size.checked_sub(size)?;
    bytes.is_multiple_of(before).then_some(bytes / before)
}

impl TryFrom<StoredPlan> for Plan {
    type Error = &'static str;

    fn try_from(stored: StoredPlan) -> Result<Self, Self::Error> {
        let StoredPlan { tiers, max_parts } = stored;
        let begins = tiers.first().is_some_and(|tier| tier.first_part == 1);
        let ascends = tiers.is_sorted_by(|one, next| one.first_part < next.first_part);
        let ends = tiers
            .last()
            .is_some_and(|tier| tier.first_part <= max_parts);
        let has_sizes = tiers.iter().all(|tier| tier.part_size > 0);
        let plan = Self { tiers, max_parts };
        // The end of every part, and the number after the last one, must not overflow.
        let is_bounded = max_parts
            .checked_add(1)
            .is_some_and(|count| plan.max_part_size().checked_mul(u64::from(count)).is_some());
        (begins && ascends && ends && has_sizes && is_bounded)
            .then_some(plan)
            .ok_or("invalid plan: parts without a size, out of order, or without an end")
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
    fn a_plan_for_a_known_size_stays_within_the_part_count_of_the_store() {
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
    fn a_file_that_is_too_large_is_rejected_with_the_maximum() {
        assert_eq!(
            Plan::known(626 * GIB, PART_SIZE, &S3),
            Err(TooLarge {
                max: 10_000 * 64 * MIB
            })
        );
    }

    #[test]
    fn a_plan_for_an_unknown_size_holds_473_gib_on_s3() {
        let plan = Plan::unknown(PART_SIZE, &S3);
        assert_eq!(plan.part_size(), None);
        assert_eq!(plan.capacity(), (1_000 * 5 + 2_000 * 16 + 7_000 * 64) * MIB);
        assert_eq!(plan.capacity() / GIB, 473);
    }

    #[test]
    fn a_stored_plan_is_read_and_an_invalid_one_is_rejected() {
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
    fn parts_show_the_plan_that_all_of_them_fit() {
        let plan = Plan::known(1, PART_SIZE, &S3).unwrap();
        let shown = |file_size, parts: &[(u32, u64)]| match plan.shown_by(file_size * MIB, parts) {
            Shown::Plan(plan) => Ok(plan.part_size().unwrap() / MIB),
            Shown::Nothing => Err(Vec::new()),
            Shown::Contradiction(misfits) => Err(misfits),
        };
        let mib = |parts: &[(u32, u64)]| -> Vec<(u32, u64)> {
            parts
                .iter()
                .map(|&(number, size)| (number, size * MIB))
                .collect()
        };
        for (file_size, parts, expected) in [
            (12, &[][..], Err(vec![])),
            (12, &[(1, 2)], Ok(2)),
            (12, &[(1, 12)], Ok(12)),
            (12, &[(1, 2), (2, 2), (3, 2)], Ok(2)),
            (12, &[(1, 5), (2, 5), (3, 2)], Ok(5)),
            // The third part of 2 MiB, or the last one after 5 MiB.
            (12, &[(3, 2)], Err(vec![])),
            (12, &[(6, 2)], Ok(2)),
            // Two parts before it cannot have 3.5 MiB, or no part is larger than the whole ones.
            (12, &[(3, 5)], Err(vec![3])),
            (12, &[(2, 7)], Err(vec![2])),
            (12, &[(2, 5)], Err(vec![])),
            (12, &[(1, 2), (2, 5)], Err(vec![1])),
            (12, &[(3, 2), (1, 5)], Ok(5)),
            (12, &[(1, 13)], Err(vec![1])),
            (12, &[(7, 2)], Err(vec![7])),
            (12, &[(0, 2)], Err(vec![0])),
        ] {
            assert_eq!(shown(file_size, &mib(parts)), expected, "{parts:?}");
        }
        // Too many parts, and a part without bytes.
        assert_eq!(
            plan.shown_by(20_000, &[(1, 1)]),
            Shown::Contradiction(vec![1])
        );
        assert_eq!(plan.shown_by(7, &[(1, 0)]), Shown::Contradiction(vec![1]));
    }

    #[test]
    fn a_plan_for_an_unknown_size_has_equal_parts_if_the_store_requires_them() {
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
    fn spans_are_contiguous_and_are_found_by_their_offset() {
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
