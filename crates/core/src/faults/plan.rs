//! The faults of one call, parsed from its header.
//!
//! ```text
//! header = rule *("," rule)
//! rule   = CALL    [":nth=" N] [":times=" N] ":" ("fail-before" | "fail-after" | "delay=" DURATION)
//!        | "process" [":nth=" N] ":" ("exit-before=" CALL | "exit-after=" CALL)
//!        | "stream:cut-after=" BYTES
//! ```
//!
//! A rule applies to the calls with its name: to the first one, or to the `nth`. With `times` it applies to that many
//! calls in a row, starting with this one.

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use super::HEADER;
use crate::{
    decorate::calls,
    error::{Error, Result},
};

/// The largest number of rules for one call.
const MAX_RULES: usize = 32;

/// The longest delay. No caller waits longer for a call.
const LONGEST_DELAY: Duration = Duration::from_secs(60 * 60);

/// The faults of one call. Each is injected once.
#[derive(Debug, Default)]
pub struct Plan {
    rules: Vec<Rule>,
    cut_after: Option<u64>,
}

#[derive(Debug)]
struct Rule {
    call: &'static str,
    fault: Fault,
    nth: u32,
    times: u32,
    /// How many calls with this name were made.
    made: AtomicU32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Delay(Duration),
    ExitBefore,
    FailBefore,
    ExitAfter,
    FailAfter,
}

/// The faults to inject around one call.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Injection {
    pub(super) delay: Duration,
    pub(super) exit_before: bool,
    pub(super) fail_before: bool,
    pub(super) exit_after: bool,
    pub(super) fail_after: bool,
}

// === impl Plan ===

impl Plan {
    /// Parses all values of the header; `None` if there are none.
    ///
    /// # Errors
    /// `InvalidArgument` that names the header.
    pub fn read(values: impl IntoIterator<Item = impl AsRef<[u8]>>) -> Result<Option<Self>> {
        let mut header = String::new();
        for value in values {
            let text =
                str::from_utf8(value.as_ref()).map_err(|_| Error::invalid(HEADER, "not UTF-8"))?;
            if !header.is_empty() {
                header.push(',');
            }
            header.push_str(text);
        }
        if header.is_empty() {
            return Ok(None);
        }
        Self::parse(&header).map(Some)
    }

    /// Parses one value of the header.
    ///
    /// # Errors
    /// `InvalidArgument` that names the header.
    pub fn parse(header: &str) -> Result<Self> {
        let mut plan = Self::default();
        for rule in header.split(',').map(str::trim) {
            plan.add(rule)
                .map_err(|problem| Error::invalid(HEADER, format!("`{rule}`: {problem}")))?;
        }
        if plan.rules.len() > MAX_RULES {
            return Err(Error::invalid(
                HEADER,
                format!("at most {MAX_RULES} faults are allowed"),
            ));
        }
        Ok(plan)
    }

    /// The number of chunk bytes after which the stream is cut.
    pub(super) fn cut_after(&self) -> Option<u64> {
        self.cut_after
    }

    /// The faults to inject around the call `call`, which is about to be made.
    pub(super) fn next_fault(&self, call: &str) -> Injection {
        let mut injection = Injection::default();
        let rules = self.rules.iter().filter(|rule| rule.call == call);
        for rule in rules.filter(|rule| rule.applies()) {
            match rule.fault {
                Fault::Delay(delay) => injection.delay += delay,
                Fault::ExitBefore => injection.exit_before = true,
                Fault::FailBefore => injection.fail_before = true,
                Fault::ExitAfter => injection.exit_after = true,
                Fault::FailAfter => injection.fail_after = true,
            }
        }
        injection
    }

    fn add(&mut self, rule: &str) -> Result<(), String> {
        let mut words = rule.split(':');
        let target = words.next().unwrap_or_default();
        let fault = words.next_back().ok_or("no fault after the `:`")?;
        if target == "stream" {
            let bytes = fault.strip_prefix("cut-after=");
            let bytes = bytes.ok_or("the only fault of a stream is `cut-after=BYTES`")?;
            if words.next().is_some() {
                return Err("`cut-after` has no options".into());
            }
            self.cut_after = Some(number(bytes)?);
            return Ok(());
        }
        let (call, fault) = match target {
            "process" => exit(fault)?,
            call => (call, failure(fault)?),
        };
        let call = calls().find(|known| *known == call).ok_or_else(|| {
            let known: Vec<_> = calls().collect();
            format!("unknown call `{call}`; the calls are {}", known.join(", "))
        })?;
        let (mut nth, mut times) = (1, 1);
        for word in words {
            match word.split_once('=') {
                Some(("nth", count)) => nth = positive(count)?,
                Some(("times", count)) if target != "process" => times = positive(count)?,
                _ => {
                    return Err(format!(
                        "unknown option `{word}`; the options are `nth=` and `times=`"
                    ));
                }
            }
        }
        self.rules.push(Rule {
            call,
            fault,
            nth,
            times,
            made: AtomicU32::new(0),
        });
        Ok(())
    }
}

// === impl Rule ===

impl Rule {
    /// Counts a call, and returns whether the rule applies to it.
    fn applies(&self) -> bool {
        let made = self.made.fetch_add(1, Ordering::Relaxed);
        (self.nth - 1..self.nth - 1 + self.times).contains(&made)
    }
}

fn exit(fault: &str) -> Result<(&str, Fault), String> {
    match fault.split_once('=') {
        Some(("exit-before", call)) => Ok((call, Fault::ExitBefore)),
        Some(("exit-after", call)) => Ok((call, Fault::ExitAfter)),
        _ => Err("the faults of the process are `exit-before=CALL` and `exit-after=CALL`".into()),
    }
}

fn failure(fault: &str) -> Result<Fault, String> {
    match (fault, fault.strip_prefix("delay=")) {
        ("fail-before", _) => Ok(Fault::FailBefore),
        ("fail-after", _) => Ok(Fault::FailAfter),
        (_, Some(delay)) => duration(delay).map(Fault::Delay),
        _ => Err(format!(
            "unknown fault `{fault}`; the faults are `fail-before`, `fail-after` and `delay=DURATION`"
        )),
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    let delay = match (text.strip_suffix("ms"), text.strip_suffix('s')) {
        (Some(count), _) => Duration::from_millis(number(count)?),
        (None, Some(count)) => Duration::from_secs(number(count)?),
        (None, None) => {
            return Err(format!(
                "`{text}` is not a duration such as `2s` or `500ms`"
            ));
        }
    };
    if delay > LONGEST_DELAY {
        return Err("the longest delay is an hour".into());
    }
    Ok(delay)
}

fn number(text: &str) -> Result<u64, String> {
    text.parse()
        .map_err(|_| format!("`{text}` is not a number"))
}

/// Parses a count from 1 to a million, so that the sum of two counts fits.
fn positive(text: &str) -> Result<u32, String> {
    match text.parse() {
        Ok(count @ 1..=1_000_000) => Ok(count),
        _ => Err(format!("`{text}` is not a number from 1 to 1000000")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failing(before: bool, after: bool) -> Injection {
        Injection {
            fail_before: before,
            fail_after: after,
            ..Injection::default()
        }
    }

    #[test]
    fn a_fault_is_injected_once_at_the_first_call_with_its_name() {
        let plan = Plan::parse("state.record_parts:fail-before, store.commit:fail-after").unwrap();
        assert_eq!(plan.next_fault("state.get"), Injection::default());
        assert_eq!(plan.next_fault("state.record_parts"), failing(true, false));
        assert_eq!(plan.next_fault("state.record_parts"), Injection::default());
        assert_eq!(plan.next_fault("store.commit"), failing(false, true));
    }

    #[test]
    fn nth_and_times_select_which_calls_fail() {
        let plan = Plan::parse("store.head:nth=2:times=2:fail-before").unwrap();
        let failed: Vec<bool> = (0..5)
            .map(|_| plan.next_fault("store.head").fail_before)
            .collect();
        assert_eq!(failed, [false, true, true, false, false]);
    }

    #[test]
    fn several_faults_can_apply_to_one_call() {
        let plan = "store.head:delay=2s,store.head:delay=500ms,process:exit-after=store.head";
        let injection = Plan::parse(plan).unwrap().next_fault("store.head");
        assert_eq!(injection.delay, Duration::from_millis(2500));
        assert!(injection.exit_after && !injection.exit_before);
    }

    #[test]
    fn an_invalid_header_is_rejected_with_an_error_that_names_the_header() {
        for header in [
            "",
            ",",
            "state.get",
            "state.get:",
            "state.get:fail",
            "state.get:fail-before,",
            "state.forget:fail-before",
            "state.get:nth=0:fail-before",
            "state.get:nth=4294967295:fail-before",
            "state.get:often:fail-before",
            "state.get:delay=2",
            "state.get:delay=-2s",
            "state.get:delay=18446744073709551615s",
            "state.get:exit-before",
            "process:exit-before=forget",
            "process:exit-before",
            "process:times=2:exit-before=state.get",
            "stream:fail-before",
            "stream:cut-after=-1",
            "stream:nth=2:cut-after=1",
            "store.put_part:délai=1s",
        ] {
            let error = Plan::parse(header).unwrap_err();
            assert_eq!(error.violations()[0].field, HEADER, "{header}: {error}");
        }
        let many = ["state.get:fail-before"; MAX_RULES + 1].join(",");
        assert!(Plan::parse(&many).is_err());
    }
}
