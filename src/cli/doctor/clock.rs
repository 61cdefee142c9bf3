//! Whether the clock of a server agrees with the clock of this machine.

use std::time::{Duration, SystemTime};

use super::report::{Check, Fix};

pub(super) const NAME: &str = "compare the clocks";

/// Replicas may differ by 30 s, and the time of a server is known to the second.
const NOTABLE: Duration = Duration::from_secs(30);

/// From this difference on signatures may be refused: Azure's begin 5 minutes before they are made, and the shortest ones are valid
/// for 5 minutes.
const HARMFUL: Duration = Duration::from_secs(5 * 60);

/// Compares the clock of a server with that of this machine.
pub(super) fn check(subject: &str, theirs: SystemTime, ours: SystemTime) -> Check {
    let (difference, direction) = match theirs.duration_since(ours) {
        Ok(ahead) => (ahead, "behind"),
        Err(error) => (error.duration(), "ahead of"),
    };
    let seconds = difference.as_secs();
    if difference < NOTABLE {
        return Check::ok(
            subject,
            NAME,
            "its clock agrees with the clock of this machine",
        );
    }
    let found = format!("the clock of this machine is {seconds} s {direction} its clock");
    let check = match difference < HARMFUL {
        true => Check::warning(subject, NAME, found),
        false => Check::failed(subject, NAME, found),
    };
    check.with(Fix::advice(
        "set the clock of this machine with NTP; no key of the configuration is wrong",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::report::Outcome;

    #[test]
    fn a_difference_is_a_warning_and_then_a_failure() {
        let ours = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        for (seconds, expected) in [
            (29, Outcome::Ok),
            (30, Outcome::Warning),
            (300, Outcome::Failed),
        ] {
            let apart = Duration::from_secs(seconds);
            assert_eq!(check("s", ours + apart, ours).result, expected);
            assert_eq!(check("s", ours - apart, ours).result, expected);
        }
        let later = check("s", ours + Duration::from_secs(60), ours);
        assert_eq!(
            later.found,
            "the clock of this machine is 60 s behind its clock"
        );
    }
}
