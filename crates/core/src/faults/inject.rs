//! Where a fault strikes: around one call to a store.

use std::{future::Future, process::abort, time::Duration};

use tokio::time::sleep;

use super::plan::Plan;
use crate::{
    call,
    error::{Error, Result},
};

/// What happens to one call, all of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Injection {
    pub(super) delay: Duration,
    pub(super) exit_before: bool,
    pub(super) fail_before: bool,
    pub(super) exit_after: bool,
    pub(super) fail_after: bool,
}

/// Makes `call`, as the plan of the running call wants it.
pub(super) async fn inject<T>(
    name: &'static str,
    call: impl Future<Output = Result<T>>,
) -> Result<T> {
    let Some(plan) = call::current::<Plan>() else {
        return call.await;
    };
    let injection = plan.next_fault(name);
    if injection.delay > Duration::ZERO {
        sleep(injection.delay).await;
    }
    if injection.exit_before {
        exit("before", name);
    }
    if injection.fail_before {
        return Err(failed(name, "it was not made"));
    }
    let answer = call.await;
    if injection.exit_after {
        exit("after", name);
    }
    if injection.fail_after {
        return Err(failed(name, "its answer is lost"));
    }
    answer
}

fn failed(name: &str, how: &str) -> Error {
    let cause = format!("a fault was asked for at {name}: {how}");
    if name.starts_with("state.") {
        Error::state_unavailable(cause)
    } else {
        Error::store_unavailable(cause)
    }
}

/// As if it were killed: nothing is ended, flushed or cleaned up.
fn exit(when: &str, name: &str) -> ! {
    tracing::error!("the process ends {when} {name}, as a call asked for in its header");
    abort()
}
