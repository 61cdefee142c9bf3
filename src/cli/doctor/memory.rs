//! How much memory the state store has left for records.

use upload_gateway_core::state::StateStore;

use super::{super::error::CliError, Report};
use crate::{cli::error::chain, config::Records};

const MIB: u64 = 1024 * 1024;

/// Reports how much memory is used, and the limit above which records are removed.
pub(super) async fn check(
    name: &str,
    state: &dyn StateStore,
    records: &Records,
    report: &Report,
) -> Result<(), CliError> {
    let memory = match state.memory().await {
        Ok(Some(memory)) => memory,
        Ok(None) => return Ok(()),
        Err(error) => {
            let advice = "permit INFO and SCAN: docs/operations.md has the permissions of the user";
            return report.failed(name, "read how much memory is used", &chain(&error), advice);
        }
    };
    let used = memory.used / MIB;
    match memory.limit(records.max_memory.map(|max| max.0)) {
        None => report.good(name, &format!("{used} MiB of memory used; maxmemory is not set")),
        Some(limit) if memory.used <= limit => {
            let limit = limit / MIB;
            let what = format!("{used} MiB of memory used; records of COMPLETE uploads may use it up to {limit} MiB");
            report.good(name, &what)
        }
        Some(limit) => report.warn(
            name,
            &format!(
                "{used} MiB of memory used, more than the {} MiB of records.max_memory: the records of the oldest COMPLETE \
                 uploads are removed",
                limit / MIB
            ),
            "give Redis more memory; until then, the files of removed records are found by their ids, and not listed",
        ),
    }
}
