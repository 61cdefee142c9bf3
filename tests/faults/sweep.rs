//! The sweeper: what it aborts, what it does not touch, and which replica sweeps. The stores and their clocks are real;
//! the clocks of the gateways are the tests' own.

mod aborted;
mod clocks;
mod commits;
mod expiry;
mod process;
mod sessions;
mod sweepers;

use crate::{common, world};

/// Makes one test of each case for each store.
macro_rules! for_each_store {
    ($($case:ident),* $(,)?) => {
        mod embedded { $(
            #[tokio::test]
            async fn $case() {
                crate::world::in_time(super::$case(crate::world::embedded().await)).await;
            }
        )* }
        mod s3 { $(
            #[tokio::test]
            async fn $case() {
                let Some(world) = crate::world::s3().await else { return };
                crate::world::in_time(super::$case(world)).await;
            }
        )* }
        mod azure { $(
            #[tokio::test]
            async fn $case() {
                let Some(world) = crate::world::azure().await else { return };
                crate::world::in_time(super::$case(world)).await;
            }
        )* }
    };
}

pub(crate) use for_each_store;
