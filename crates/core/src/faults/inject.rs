//! Injects faults around one call to a store.

use std::{future::Future, process::abort, time::Duration};

use tokio::time::sleep;

use super::plan::Plan;
use crate::{
    call,
    decorate::Around,
    error::{Error, Result},
};

/// The decorator that injects the faults of the running call's [`Plan`].
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
            return Err(failed(name, "it was not made"));
        }
        let answer = call().await;
        if injection.exit_after {
            exit("after", name);
        }
        if injection.fail_after {
            return Err(failed(name, "its answer is lost"));
        }
        answer
    }
}

fn failed(name: &str, how: &str) -> Error {
    let cause = format!("a fault was injected at {name}: {how}");
    if name.starts_with("state.") {
        Error::state_unavailable(cause)
    } else {
        Error::store_unavailable(cause)
    }
}

/// As if the process were killed: nothing is ended, flushed or cleaned up.
fn exit(when: &str, name: &str) -> ! {
    tracing::error!("the process exits {when} {name}, as the header of a call asks");
    abort()
}
