//! Memory: what the state store has left for records, and whether this process fits into its container.

use upload_gateway_core::state::StateStore;

use super::report::{Check, Fix};
use crate::{
    cgroup,
    cli::error::chain,
    config::{Limits, Records},
};

const MIB: u64 = 1024 * 1024;

/// Reports how much memory the state store uses, and the limit above which records are removed.
pub(super) async fn of_state(
    subject: &str,
    state: &dyn StateStore,
    records: &Records,
) -> Option<Check> {
    const NAME: &str = "memory of the records";
    let memory = match state.memory().await {
        Ok(Some(memory)) => memory,
        Ok(None) => return None,
        Err(error) => {
            let check = Check::not_checked(subject, NAME, chain(&error));
            return Some(check.with(Fix::advice("to check it, doctor needs +info")));
        }
    };
    let used = memory.used / MIB;
    let Some(limit) = memory.limit(records.max_memory.map(|max| max.0)) else {
        let found = format!("{used} MiB of memory used; maxmemory is not set");
        return Some(Check::ok(subject, NAME, found));
    };
    let is_within = memory.used <= limit;
    let limit = limit / MIB;
    if is_within {
        let found = format!(
            "{used} MiB of memory used; records of COMPLETE uploads may use it up to {limit} MiB"
        );
        return Some(Check::ok(subject, NAME, found));
    }
    let found = format!(
        "{used} MiB of memory used, more than the {limit} MiB of records.max_memory: the records of the oldest COMPLETE uploads \
         are removed"
    );
    let fix = Fix::key(
        "records.max_memory",
        "give Redis more memory; until then, the files of removed records are found by their ids, and not listed",
    );
    Some(Check::warning(subject, NAME, found).with(fix))
}

/// Limits that need more than the container has make the configuration invalid, so here they fit.
pub(super) fn of_process(limits: &Limits) -> Check {
    let (subject, name) = ("memory", "fit into the container");
    let needs = limits.memory_line();
    Check::ok(
        subject,
        name,
        match cgroup::memory_limit() {
            Some(limit) => format!("{needs}, of the {} MiB of the container", limit / MIB),
            None => format!("{needs}; the container or service has no memory limit"),
        },
    )
}
