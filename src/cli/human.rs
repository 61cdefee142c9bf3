//! Sizes and times as people write them.

use std::time::{Duration, SystemTime};

use prost_types::Timestamp;

const UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

/// Units of time in seconds. The first of a length is the one that is printed.
const TIMES: [(&str, u64); 6] = [
    ("w", 7 * DAY),
    ("d", DAY),
    ("h", HOUR),
    ("min", MINUTE),
    ("m", MINUTE),
    ("s", 1),
];

/// How old a time may be that is printed as an age. Older ones are printed as a date.
const MAX_AGE: u64 = 30 * DAY;

/// A size with one digit after the point, "12.0 MiB". It is rounded down.
pub(super) fn size(bytes: i64) -> String {
    let mut tenths = i128::from(bytes.max(0)) * 10;
    let mut unit = 0;
    while tenths >= 10 * 1024 {
        tenths /= 1024;
        unit += 1;
    }
    match unit {
        0 => format!("{bytes} B"),
        unit => format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit]),
    }
}

/// A part of a whole, in whole percent.
pub(super) fn percent(part: i64, whole: i64) -> String {
    match whole {
        ..=0 => "100%".into(),
        whole => format!("{}%", i128::from(part.max(0)) * 100 / i128::from(whole)),
    }
}

/// A length of time in the largest unit of which it is a multiple, "30 d".
pub(super) fn duration(seconds: i64) -> String {
    let seconds = u64::try_from(seconds).unwrap_or_default();
    let mut units = TIMES.iter().skip(1);
    let unit = units.find(|(_, unit)| seconds > 0 && seconds.is_multiple_of(*unit));
    let (name, unit) = unit.unwrap_or(&("s", 1));
    format!("{} {name}", seconds / unit)
}

/// The inverse of [`duration`]: a number of weeks, days, hours, minutes or seconds, "3d" or "90 min".
pub(super) fn parse_duration(text: &str) -> Result<Duration, &'static str> {
    const EXPECTED: &str = "expected a number and a unit (s, min, h, d, w), such as 2h or 30d";
    let digits = text.trim_end_matches(|character: char| !character.is_ascii_digit());
    let unit = text[digits.len()..].trim();
    let (_, unit) = TIMES
        .iter()
        .find(|(name, _)| *name == unit)
        .ok_or(EXPECTED)?;
    let number: u64 = digits.trim().parse().map_err(|_| EXPECTED)?;
    number
        .checked_mul(*unit)
        .map(Duration::from_secs)
        .ok_or(EXPECTED)
}

/// A time: `2026-01-31`, `2026-01-31T08:00:00Z`, or a [`duration`] before now.
pub(super) fn parse_time(text: &str) -> Result<Timestamp, String> {
    if let Ok(before) = parse_duration(text) {
        let time = SystemTime::now().checked_sub(before);
        return time
            .map(Timestamp::from)
            .ok_or_else(|| "too long ago".into());
    }
    text.parse().map_err(|_| {
        "expected 2026-01-31, 2026-01-31T08:00:00Z, or how long ago: 30min, 2h, 3d".into()
    })
}

/// How long ago a time was, "3 h ago", or its date (of UTC) if that is more than 30 days.
pub(super) fn age(time: &Timestamp, now: &Timestamp) -> String {
    let seconds = now.seconds.saturating_sub(time.seconds);
    // Clocks differ.
    match u64::try_from(seconds).unwrap_or_default() {
        seconds @ ..MINUTE => format!("{seconds} s ago"),
        seconds @ ..HOUR => format!("{} min ago", seconds / MINUTE),
        seconds @ ..DAY => format!("{} h ago", seconds / HOUR),
        seconds @ ..MAX_AGE => format!("{} d ago", seconds / DAY),
        _ => time.to_string().chars().take(10).collect(),
    }
}

/// This moment.
pub(super) fn now() -> Timestamp {
    SystemTime::now().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_one_digit_after_the_point() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            ((1 << 20) - 1, "1023.9 KiB"),
            (12 << 20, "12.0 MiB"),
            (12_345_678, "11.7 MiB"),
            (i64::MAX, "7.9 EiB"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }

    #[test]
    fn parts_of_a_whole_are_rounded_down() {
        for (part, whole, text) in [(0, 10, "0%"), (99, 100, "99%"), (999, 1000, "99%")] {
            assert_eq!(percent(part, whole), text);
        }
        assert_eq!(percent(0, 0), "100%");
        assert_eq!(percent(i64::MAX, i64::MAX), "100%");
    }

    #[test]
    fn durations_are_read_as_they_are_printed() {
        for (seconds, text) in [(0, "0 s"), (90, "90 s"), (300, "5 min"), (7200, "2 h")] {
            assert_eq!(duration(seconds), text);
            let read = parse_duration(text).unwrap().as_secs();
            assert_eq!(i64::try_from(read), Ok(seconds));
        }
        assert_eq!(duration(30 * 86_400), "30 d");
        assert_eq!(parse_duration("2w"), Ok(Duration::from_secs(14 * 86_400)));
        for text in ["", "d", "3", "-3d", "1.5h", "3 y", "99999999999999999999d"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn ages_become_dates() {
        let now = Timestamp::date(2026, 3, 31).unwrap();
        for (seconds, text) in [
            (-5, "0 s ago"),
            (59, "59 s ago"),
            (60, "1 min ago"),
            (86_399, "23 h ago"),
            (30 * 86_400 - 1, "29 d ago"),
            (31 * 86_400, "2026-02-28"),
        ] {
            let seconds = now.seconds - seconds;
            let time = Timestamp { seconds, nanos: 0 };
            assert_eq!(age(&time, &now), text);
        }
    }

    #[test]
    fn times_are_dates_or_ages() {
        let date = Timestamp::date(2026, 1, 31).unwrap();
        assert_eq!(parse_time("2026-01-31"), Ok(date));
        let earlier = parse_time("2h").unwrap();
        assert!((7190..7210).contains(&(now().seconds - earlier.seconds)));
        for text in ["", "yesterday", "99999999999999w"] {
            assert!(parse_time(text).is_err(), "{text}");
        }
    }
}
