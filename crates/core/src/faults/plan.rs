//! What is to go wrong in one call, as its header says.
//!
//! ```text
//! header = rule *("," rule)
//! rule   = CALL    [":nth=" N] [":times=" N] ":" ("fail-before" | "fail-after" | "delay=" DURATION)
//!        | "process" [":nth=" N] ":" ("exit-before=" CALL | "exit-after=" CALL)
//!        | "stream:cut-after=" BYTES
//! ```
//!
//! A rule strikes at the first of the calls it names, or the `nth`, and that one alone, or so many `times` in a row.

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use super::HEADER;
use crate::{
    decorate::calls,
    error::{Error, Result},
};

/// The most rules of one call.
const MAX_RULES: usize = 32;

/// The longest delay: more than anybody waits for a call.
const LONGEST_DELAY: Duration = Duration::from_secs(60 * 60);

/// The faults of one call, each to be met once.
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
    /// How many of its calls were made.
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

/// What happens to one call.
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
    /// What the header says, however often it was given; nothing where it was not.
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

    /// What one header says.
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
                format!("at most {MAX_RULES} faults"),
            ));
        }
        Ok(plan)
    }

    /// After how many bytes of chunks the stream is to end.
    pub(super) fn cut_after(&self) -> Option<u64> {
        self.cut_after
    }

    /// What is to happen to the call of that name that is being made now.
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
            let bytes = bytes.ok_or("of a stream there is `cut-after=BYTES` only")?;
            if words.next().is_some() {
                return Err("a stream is cut once".into());
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
            format!("no call `{call}`; there are {}", known.join(", "))
        })?;
        let (mut nth, mut times) = (1, 1);
        for word in words {
            match word.split_once('=') {
                Some(("nth", count)) => nth = positive(count)?,
                Some(("times", count)) if target != "process" => times = positive(count)?,
                _ => {
                    return Err(format!(
                        "`{word}` says nothing; there are `nth=` and `times=`"
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
    /// Counts one more of its calls, and tells whether it is one that the rule strikes at.
    fn applies(&self) -> bool {
        let made = self.made.fetch_add(1, Ordering::Relaxed);
        (self.nth - 1..self.nth - 1 + self.times).contains(&made)
    }
}

fn exit(fault: &str) -> Result<(&str, Fault), String> {
    match fault.split_once('=') {
        Some(("exit-before", call)) => Ok((call, Fault::ExitBefore)),
        Some(("exit-after", call)) => Ok((call, Fault::ExitAfter)),
        _ => Err("of the process there are `exit-before=CALL` and `exit-after=CALL` only".into()),
    }
}

fn failure(fault: &str) -> Result<Fault, String> {
    match (fault, fault.strip_prefix("delay=")) {
        ("fail-before", _) => Ok(Fault::FailBefore),
        ("fail-after", _) => Ok(Fault::FailAfter),
        (_, Some(delay)) => duration(delay).map(Fault::Delay),
        _ => Err(format!(
            "no fault `{fault}`; there are `fail-before`, `fail-after` and `delay=DURATION`"
        )),
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    let delay = match (text.strip_suffix("ms"), text.strip_suffix('s')) {
        (Some(count), _) => Duration::from_millis(number(count)?),
        (None, Some(count)) => Duration::from_secs(number(count)?),
        (None, None) => return Err(format!("`{text}` is no duration like `2s` or `500ms`")),
    };
    if delay > LONGEST_DELAY {
        return Err("the longest delay is an hour".into());
    }
    Ok(delay)
}

fn number(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("`{text}` is no number"))
}

/// A count, from 1 to a million: twice that still is one.
fn positive(text: &str) -> Result<u32, String> {
    match text.parse() {
        Ok(count @ 1..=1_000_000) => Ok(count),
        _ => Err(format!("`{text}` is no number from 1 to 1000000")),
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
    fn a_fault_strikes_the_first_call_it_names_and_no_other() {
        let plan = Plan::parse("state.record_parts:fail-before, store.commit:fail-after").unwrap();
        assert_eq!(plan.next_fault("state.get"), Injection::default());
        assert_eq!(plan.next_fault("state.record_parts"), failing(true, false));
        assert_eq!(plan.next_fault("state.record_parts"), Injection::default());
        assert_eq!(plan.next_fault("store.commit"), failing(false, true));
    }

    #[test]
    fn a_fault_waits_for_its_turn_and_stays_as_long_as_it_is_told() {
        let plan = Plan::parse("store.head:nth=2:times=2:fail-before").unwrap();
        let struck: Vec<bool> = (0..5)
            .map(|_| plan.next_fault("store.head").fail_before)
            .collect();
        assert_eq!(struck, [false, true, true, false, false]);
    }

    #[test]
    fn several_faults_meet_in_one_call() {
        let plan = "store.head:delay=2s,store.head:delay=500ms,process:exit-after=store.head";
        let injection = Plan::parse(plan).unwrap().next_fault("store.head");
        assert_eq!(injection.delay, Duration::from_millis(2500));
        assert!(injection.exit_after && !injection.exit_before);
    }

    #[test]
    fn what_is_not_understood_is_refused_by_the_name_of_the_header() {
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
