//! Injects faults around one call to a store.

use std::{future::Future, process::abort, time::Duration};

use tokio::time::sleep;

use super::plan::Plan;
use crate::{
    call,
    decorate::Around,
    error::{Error, Result},
};

/// The decorator that injects the faults in the [`Plan`] of the running call.
#[derive(Debug, Clone, Copy)]
pub struct Faults;

// === impl Faults ===

impl Around for Faults {
    async fn around<T, F>(
        &self,
        name: &'static str,
        call: impl Fn() -> F + Send + Sync,
    ) -> Result<T>
    where
        T: Send,
        F: Future<Output = Result<T>> + Send,
    {
        let Some(plan) = call::current::<Plan>() else {
            return call().await;
        };
        let injection = plan.next_fault(name);
        if injection.delay > Duration::ZERO {
            sleep(injection.delay).await;
        }
        if injection.exit_before {
            exit("before", name);
        }
        if injection.fail_before {
            return Err(failed(name, "the call was not made"));
        }
        let answer = call().await;
        if injection.exit_after {
            exit("after", name);
        }
        if injection.fail_after {
            return Err(failed(name, "its response was lost"));
        }
        answer
    }
}

fn failed(name: &str, what: &str) -> Error {
    let cause = format!("a fault was injected at {name}: {what}");
    if name.starts_with("state.") {
        Error::state_unavailable(cause)
    } else {
        Error::store_unavailable(cause)
    }
}

/// Exits as if the process were killed: nothing is flushed or cleaned up.
fn exit(when: &str, name: &str) -> ! {
    tracing::error!("an injected fault ends the process {when} {name}");
    abort()
}
